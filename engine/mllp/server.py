"""MLLP listeners: one port each, and who is let in.

Connections are accepted here rather than by the event loop, so that one that is not wanted costs an accept and a
close, and a flood of them is taken in small helpings between which everybody else gets their turn.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
from collections.abc import Callable, Iterable
from functools import partial

from engine.config.address import Address
from engine.config.edge import MLLP, Framing, Sockets
from engine.mllp.allow import Allowed, Networks
from engine.mllp.budget import Budget
from engine.mllp.connection import LINGER, Connection
from engine.mllp.decrypted import Decrypted
from engine.mllp.framing import MAX_BYTES
from engine.mllp.handler import Handler, Manner
from engine.mllp.handshake import HANDSHAKE, hello, turn_away, why_not
from engine.mllp.peers import Peers
from engine.mllp.sockets import host_of, listening, peer_of
from engine.mllp.tls import ServerTls

__all__ = ["Connection", "Handler", "Listener"]

QUIET = 3.0
"""Seconds without a byte after which a connection is a silent peer's, and no probe."""
HELPING = 16
"""Connections that one listener accepts in a turn of the event loop."""
BURST = 512
"""Connections that one listener accepts as fast as they come; then no more than `RATE` a second."""
RATE = 500
PAUSE = 0.02
"""Seconds for which a listener accepts nothing then."""
REST = 1.0
"""Seconds for which nothing is accepted when the process has no file descriptor left."""
EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)

SOCKETS = Sockets()


class Listener(Peers):
    """One listening port and its connections. It may be closed and started again."""

    def __init__(
        self,
        address: Address,
        handler_factory: Callable[[], Handler],
        *,
        max_bytes: int = MAX_BYTES,
        frame_timeout: float = 60.0,
        framing: Framing = MLLP,
        sockets: Sockets = SOCKETS,
        allow: Iterable[str] = (),
        probes: Iterable[str] = (),
        tls: ServerTls | None = None,
        budget: Budget | None = None,
        quiet: float | None = None,
    ) -> None:
        """`handler_factory` gives each new connection its handler; it may give the same one to all.
        `max_bytes`: limit of one message. `frame_timeout`: seconds without a byte in a message.
        `allow`, `probes`: networks (CIDR); see engine.config.edge.Listen. `quiet`: seconds without a byte after which a
        connection is a peer's: `QUIET`, and 0 where peers only hear. ValueError where `framing` cannot work."""
        manner = Manner(framing, max_bytes, frame_timeout, sockets.idle, sockets.keepalive, sockets.one_message, budget)
        super().__init__(handler_factory, manner)
        self.address = address
        self._sockets = sockets
        self._allowed = Allowed(allow)
        self._probes = Networks(probes)
        self._tls = tls
        self._quiet = QUIET if quiet is None else quiet
        self._listening: list[socket.socket] = []
        self._arriving: dict[str, tuple[asyncio.Task[None], socket.socket]] = {}  # no connection yet, by `ip:port`
        self._resting: asyncio.TimerHandle | None = None
        self._tokens = float(BURST)
        self._counted = 0.0  # when, in seconds of the event loop's clock

    @property
    def port(self) -> int:
        """The port that is listened on; the configured one while there is none."""
        if not self._listening:
            return self.address.port
        return int(self._listening[0].getsockname()[1])

    async def start(self) -> None:
        """Bind and accept. OSError, with a sentence that names the address, or the file of TLS, where that is not
        possible."""
        if self._tls is not None:
            _ = self._tls.context  # nobody could come in without it
        try:
            self._listening = listening(self.address)
        except OSError as error:
            reason = os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)
            raise OSError(error.errno, f"cannot listen on {self.address}: {reason}") from error
        self._attend()

    async def close(self, grace: float = 0.0) -> None:
        """Stop accepting, then close the connections: at once, or each when what it has begun is answered, for at
        most `grace` seconds. Returns when no socket is left."""
        if self._resting is not None:
            self._resting.cancel()
            self._resting = None
        loop = asyncio.get_running_loop()
        for sock in self._listening:
            loop.remove_reader(sock)
            sock.close()
        self._listening = []
        if self._tls is not None:
            for _, sock in self._arriving.values():
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)  # its handshake ends by itself
        await asyncio.gather(*(task for task, _ in self._arriving.values()), return_exceptions=True)
        await super().close(grace)

    # -- who comes

    def _attend(self) -> None:
        self._resting = None
        for sock in self._listening:
            asyncio.get_running_loop().add_reader(sock, self._accept, sock)

    def _accept(self, sock: socket.socket) -> None:
        for _ in range(HELPING):
            if not self._may_take_one():
                return
            try:
                came, name = sock.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                if error.errno not in EXHAUSTED:
                    raise
                self._rest()
                return
            self._receive(came, peer_of(name))

    def _may_take_one(self) -> bool:
        """Whether one more may be accepted now. A flood waits in the kernel, where it costs nobody anything."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        self._tokens = min(float(BURST), self._tokens + (now - self._counted) * RATE)
        self._counted = now
        if self._tokens >= 1:
            self._tokens -= 1
            return True
        self._pause(PAUSE)
        return False

    def _pause(self, seconds: float) -> None:
        """Accept nothing for a while."""
        loop = asyncio.get_running_loop()
        for sock in self._listening:
            loop.remove_reader(sock)
        self._resting = loop.call_later(seconds, self._attend)

    def _rest(self) -> None:
        """What waits in the kernel is taken when there are file descriptors again."""
        self._pause(REST)
        self._factory().refused("", "out of file descriptors")

    def _receive(self, sock: socket.socket, peer: str) -> None:
        host = host_of(peer)
        probing = host in self._probes
        if not self._allowed.admits(peer):
            sock.close()
            handler = self._factory()
            handler.probed(peer) if probing else handler.refused(peer, "not in allow")
        elif why := self._full(host):
            sock.close()
            self._factory().refused(peer, why)
        else:
            sock.setblocking(False)
            loop = asyncio.get_running_loop()
            make = partial(Connection, self, self._factory(), loop, peer, None if probing else self._quiet)
            greet = self._greet(sock, make) if self._tls is None else self._greet_tls(sock, peer, make, self._tls)
            task = loop.create_task(greet, name=f"mllp accept {self.address}")
            self._arriving[peer] = (task, sock)
            task.add_done_callback(lambda _: self._arriving.pop(peer, None))

    def _full(self, host: str) -> str | None:
        """Why no connection more can be had from this address. Those that are to go make room, up to a point."""
        limits = self._sockets
        staying = [connection for connection in self._open if not connection.leaving]
        count = len(staying) + len(self._arriving)
        same = 0
        if limits.newest_wins or limits.per_address:
            same = sum(connection.host == host for connection in staying)
        if limits.newest_wins:
            count, same = count - same, 0
        same += sum(host_of(other) == host for other in self._arriving)
        if count >= limits.most or len(self._open) >= 2 * limits.most:
            return "too many connections"
        if limits.per_address and same >= limits.per_address:
            return "too many connections of its address"
        return None

    async def _greet(self, sock: socket.socket, make: Callable[[], Connection]) -> None:
        try:
            await asyncio.get_running_loop().connect_accepted_socket(make, sock)
        except OSError:
            sock.close()

    async def _greet_tls(self, sock: socket.socket, peer: str, make: Callable[[], Connection], tls: ServerTls) -> None:
        """A TLS handshake, when it is this connection's turn."""
        spare: socket.socket | None = None  # the event loop closes its own when the handshake fails
        try:
            if not await hello(sock):
                sock.close()
                if self._listening:
                    self._factory().probed(peer)
                return
            with contextlib.suppress(OSError):
                spare = sock.dup()
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: Decrypted(make()),
                sock,
                ssl=tls.context,
                ssl_handshake_timeout=HANDSHAKE,
                ssl_shutdown_timeout=LINGER,
            )
        except OSError as error:
            sock.close()
            if self._listening:
                self._factory().refused(peer, why_not(error))
                if spare is not None:
                    self._arriving[peer] = (self._arriving[peer][0], spare)
                    await turn_away(spare, error)
        finally:
            if spare is not None:
                spare.close()

    # -- from a connection (engine.mllp.handler.Owner)

    def admit(self, connection: Connection) -> str | None:
        self._arriving.pop(connection.peer, None)
        if self._tls is not None and connection.transport is not None:
            held = connection.transport.get_extra_info("ssl_object")
            if not self._tls.lets_in(held):
                return "tls: its certificate has none of the names"
        return super().admit(connection)

    def announced(self, connection: Connection) -> None:
        if self._sockets.newest_wins:
            host = connection.host
            for older in tuple(self._open):
                if older is not connection and older.host == host:
                    older.finish()

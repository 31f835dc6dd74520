"""MLLP listeners: frames in, answers out, at the least cost per message.

A `Listener` owns one port. Each connection made to it gets a handler, which is called from the event loop and must not
block. Nothing here raises towards the handler: a send on a connection that is gone says False.

Back pressure has two sources, and a connection is read only while neither asks for quiet: the handler (`pause`), and
the peer itself, when it sends but does not read its answers (its write buffer is above `WRITE_HIGH`).

A handler that raises costs its connection: closed, with no answer, so that the sender repeats.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable
from typing import Protocol, cast

from engine.config.address import Address
from engine.mllp.framing import MAX_BYTES, Decoder, Event, Frame, Noise, TooLarge, Unfinished, encode
from engine.mllp.sockets import tune

BACKLOG = 512
WRITE_HIGH = 256 * 1024
"""Bytes of answers not taken by the peer above which it is no longer read."""
LINGER = 5.0
"""Seconds that a closing connection may take to deliver what was written to it."""


class Handler(Protocol):
    """What a connection tells its owner. `connected` comes first and `closed` last, each exactly once."""

    def connected(self, conn: Connection) -> None: ...

    def frame(self, conn: Connection, payload: bytes) -> None:
        """A whole message. After `conn.pause()` the rest of the same read still arrives."""

    def noise(self, conn: Connection, data: bytes) -> None:
        """Bytes outside any block."""

    def too_large(self, conn: Connection, head: bytes, size: int) -> None:
        """A message over the limit: its beginning, its size so far. An answer may be sent; then the server closes."""

    def unfinished(self, conn: Connection, head: bytes, why: str) -> None:
        """A message that never ended, all of it that came. `why`: `closed`, `timed out` (the server closes) or
        `restarted` (the sender began again; the connection goes on)."""

    def closed(self, conn: Connection) -> None: ...


class Connection(asyncio.Protocol):
    """One peer's socket. `number` is for the owner, who counts sockets; here it is only carried."""

    __slots__ = (
        "_clogged",
        "_closing",
        "_deaf",
        "_decoder",
        "_finishing",
        "_handler",
        "_held",
        "_listener",
        "_loop",
        "_owed",
        "_serial",
        "_since",
        "_timer",
        "_transport",
        "number",
        "peer",
    )

    def __init__(self, listener: Listener, handler: Handler, loop: asyncio.AbstractEventLoop) -> None:
        self._listener = listener
        self._handler = handler
        self._loop = loop
        self._decoder = Decoder(listener.max_bytes)
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._serial = 0  # of the unfinished block that is being timed
        self._since = 0.0  # loop time of that block's beginning
        self._owed = 0  # messages handed over and not answered yet
        self._held = False  # the handler wants quiet
        self._clogged = False  # the peer does not read
        self._finishing = False  # to be closed when nothing is owed
        self._deaf = False  # what still comes is not read; to be closed when nothing is owed
        self._closing = False
        self.number = 0
        self.peer = ""
        """`ip:port`."""

    # -- for the handler

    def send(self, payload: bytes) -> bool:
        """Answer the peer. False where that is no longer possible; never raises."""
        transport = self._transport
        if self._closing or transport is None or transport.is_closing():
            return False
        try:
            transport.write(encode(payload))
        except (RuntimeError, OSError):
            return False
        self.waive()
        return True

    def waive(self) -> None:
        """One of the messages that came in gets no answer. Without this, it counts as owed for good."""
        if self._owed:
            self._owed -= 1
        self._finish_if_done()

    def close(self) -> None:
        """Close once what was sent has gone out, or after `LINGER`."""
        if not self._closing:
            self._closing = True
            self._drop_timer()
            if self._transport is not None:
                self._transport.close()
                self._timer = self._loop.call_later(LINGER, self._transport.abort)

    def finish(self) -> None:
        """Close as soon as every message that came in is answered or waived and none is half received."""
        self._finishing = True
        self._finish_if_done()

    def pause(self) -> None:
        """Stop reading."""
        self._held = True
        self._steer()

    def resume(self) -> None:
        """Read again."""
        self._held = False
        self._steer()

    @property
    def owed(self) -> int:
        """Messages that came in and have no answer yet."""
        return self._owed

    # -- for the event loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=WRITE_HIGH)
        self.peer = _peer(transport.get_extra_info("peername"))
        tune(transport.get_extra_info("socket"))
        self._listener.admit(self)
        self._handler.connected(self)

    def data_received(self, data: bytes) -> None:
        if self._deaf:
            return
        for event in self._decoder.feed(data):
            if self._closing:
                return
            if type(event) is Frame:
                self._owed += 1
                self._handler.frame(self, event.payload)
            else:
                self._report(event)
        if self._decoder.inside and not self._closing and not self._deaf:
            self._watch()
        self._finish_if_done()

    def _report(self, event: Event) -> None:
        if isinstance(event, Noise):
            self._handler.noise(self, event.data)
        elif isinstance(event, Unfinished):
            self._handler.unfinished(self, event.head, "restarted")
        elif isinstance(event, TooLarge):
            self._turn_away(event)

    def eof_received(self) -> bool:
        """The peer will send no more. It still gets the answers it waits for, as long as there are any."""
        self._finishing = True
        self._report_unfinished("closed")
        if self._owed and not self._closing:
            return True
        self._closing = True
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._closing = True
        self._drop_timer()
        self._report_unfinished("closed")
        self._listener.forget(self)
        self._handler.closed(self)

    def pause_writing(self) -> None:
        self._clogged = True
        self._steer()

    def resume_writing(self) -> None:
        self._clogged = False
        self._steer()

    # -- inside

    def _steer(self) -> None:
        """Make the socket readable or not, as the two reasons for quiet say."""
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        if self._held or self._clogged:
            if transport.is_reading():
                transport.pause_reading()
        elif not transport.is_reading():
            self._since = self._loop.time()  # a peer that was not read is not late
            transport.resume_reading()

    def _watch(self) -> None:
        """A block is open: see to it that it ends in time. One timer, however many blocks arrive in pieces."""
        if self._serial != self._decoder.serial:
            self._serial = self._decoder.serial
            self._since = self._loop.time()
        if self._timer is None:
            self._timer = self._loop.call_later(self._listener.frame_timeout, self._check)

    def _check(self) -> None:
        self._timer = None
        if not self._decoder.inside or self._transport is None:
            return
        now = self._loop.time()
        if not self._transport.is_reading():
            self._since = now
        left = self._since + self._listener.frame_timeout - now
        if left > 0:
            self._timer = self._loop.call_later(left, self._check)
        else:
            self._report_unfinished("timed out")
            self.close()

    def _report_unfinished(self, why: str) -> None:
        if self._decoder.inside and not self._decoder.stopped:
            head = self._decoder.pending
            self._decoder = Decoder(self._listener.max_bytes)
            self._handler.unfinished(self, head, why)

    def _turn_away(self, event: TooLarge) -> None:
        """A message over the limit: report it, and be deaf to what follows. The connection ends when the messages
        before it are answered, or after `LINGER`."""
        before = self._owed
        self._owed += 1  # it may be answered like any other, or not
        self._handler.too_large(self, event.head, event.size)
        self._owed = min(self._owed, before)
        if self._closing or self._transport is None:
            return
        self._deaf = True
        self._drop_timer()
        self._timer = self._loop.call_later(LINGER, self._transport.abort)

    def _finish_if_done(self) -> None:
        if self._owed or self._closing or self._transport is None:
            return
        if self._deaf:
            # The peer is still sending, and closing with unread bytes would reset the connection and take the answer
            # with it. So only say that no more will come; the peer's bytes run out, or `LINGER` does.
            self._closing = True
            self._transport.write_eof()
        elif self._finishing and not self._decoder.inside:
            self.close()

    def _drop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class Listener:
    """One listening port and its connections."""

    def __init__(
        self,
        address: Address,
        handler_factory: Callable[[], Handler],
        *,
        max_bytes: int = MAX_BYTES,
        frame_timeout: float = 60.0,
    ) -> None:
        """`handler_factory` gives each new connection its handler; it may give the same one to all.
        `max_bytes`: limit of one message. `frame_timeout`: seconds from a message's first byte to its last."""
        self.address = address
        self.max_bytes = max_bytes
        self.frame_timeout = frame_timeout
        self._factory = handler_factory
        self._server: asyncio.Server | None = None
        self._connections: set[Connection] = set()
        self._empty = asyncio.Event()
        self._empty.set()

    @property
    def port(self) -> int:
        """The port that is listened on; the configured one while there is none."""
        if self._server is None or not self._server.sockets:
            return self.address.port
        return int(self._server.sockets[0].getsockname()[1])

    @property
    def connections(self) -> Iterable[Connection]:
        """The connections that are open now."""
        return tuple(self._connections)

    async def start(self) -> None:
        """Bind and accept. OSError, with a sentence that names the address, where that is not possible."""
        loop = asyncio.get_running_loop()
        try:
            self._server = await loop.create_server(
                lambda: Connection(self, self._factory(), loop),
                self.address.host or None,
                self.address.port,
                backlog=BACKLOG,
            )
        except OSError as error:
            reason = os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)
            raise OSError(error.errno, f"cannot listen on {self.address}: {reason}") from error

    async def close(self, grace: float = 0.0) -> None:
        """Stop accepting, then close the connections: at once, or each when what it has begun is answered, for at
        most `grace` seconds. Returns when no socket is left."""
        if self._server is not None:
            self._server.close()
            self._server = None
        if grace > 0:
            for connection in tuple(self._connections):
                connection.finish()
            await self._wait_empty(grace)
        for connection in tuple(self._connections):
            connection.close()
        await self._wait_empty(2 * LINGER)

    async def _wait_empty(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._empty.wait()
        except TimeoutError:
            return

    def admit(self, connection: Connection) -> None:
        """Called by a connection that is made."""
        self._connections.add(connection)
        self._empty.clear()

    def forget(self, connection: Connection) -> None:
        """Called by a connection that is gone."""
        self._connections.discard(connection)
        if not self._connections:
            self._empty.set()


def _peer(name: object) -> str:
    """`ip:port` of a socket's other end; empty where it went away before it was asked."""
    if isinstance(name, tuple) and len(name) >= 2:
        return str(Address(str(name[0]), int(name[1])))
    return ""

"""One socket of a client, from its first byte to its last."""

from __future__ import annotations

import asyncio
import select
import socket
import sys
from collections import deque
from enum import IntEnum, auto
from functools import partial
from typing import Protocol, cast

from engine.config.address import Address
from engine.mllp.commits import Commits
from engine.mllp.dial import GOODBYE, connect, dial
from engine.mllp.exchange import Exchange
from engine.mllp.framing import MOST_UNCOMMITTED, Decoder, encode
from engine.mllp.tls import ClientTls

# What Linux tells of a TCP connection (struct tcp_info): its state, and how many bytes have been received.
TCP_INFO = getattr(socket, "TCP_INFO", -1)
ESTABLISHED = 1
RECEIVED = slice(128, 136)


class Hearer(Protocol):
    """Whose link it is."""

    def received(self, link: Link, data: bytes) -> None: ...

    def gone(self, link: Link, exc: Exception | None) -> None: ...


class Sight(IntEnum):
    """What this side's kernel knows of the peer."""

    QUIET = auto()  # it is there, and everything that it sent was read
    UNREAD = auto()  # something waits to be read
    GONE = auto()  # it has closed


class Link(asyncio.Protocol):
    """A connection. `used`: a message was written on it. `heard`: something came. In release 2, `uncommitted`: what was
    written and not acknowledged on the transport level, None standing for what is no message of ours; `commits`: by
    which the peer hears what became of its own blocks."""

    __slots__ = (
        "_came",
        "_linger",
        "commits",
        "decoder",
        "gone",
        "heard",
        "hearer",
        "secured",
        "sock",
        "transport",
        "uncommitted",
        "used",
    )

    def __init__(self, hearer: Hearer, sock: socket.socket, decoder: Decoder, *, secured: bool) -> None:
        self.hearer = hearer
        self.sock = sock
        self.decoder = decoder
        self.secured = secured
        self.gone = asyncio.Event()
        self.used = False
        self.heard = False
        self.uncommitted: deque[Exchange | None] = deque(maxlen=MOST_UNCOMMITTED)
        self.commits = Commits(lambda said: self.write(encode(said)))
        self.transport: asyncio.Transport | None = None
        self._linger: asyncio.TimerHandle | None = None
        self._came = 0  # bytes that were read

    @staticmethod
    async def open(
        hearer: Hearer,
        address: Address,
        decoder: Decoder,
        *,
        source: str | None,
        keepalive: float,
        tls: ClientTls | None,
    ) -> Link:
        """OSError where there is no connection, see engine.mllp.dial.why."""
        sock = await dial(address, source=source, keepalive=keepalive)
        made = partial(Link, hearer, sock, decoder, secured=tls is not None)
        return await connect(sock, made, address.host, tls, goodbye=GOODBYE)

    # -- for the event loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self.heard = True
        self._came += len(data)
        self.hearer.received(self, data)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._linger is not None:
            self._linger.cancel()
        self.gone.set()
        self.hearer.gone(self, exc)

    # -- for the client

    def look(self) -> Sight:
        """Ask the kernel, which may know more than the event loop does by now."""
        if self.transport is None or self.transport.is_closing():
            return Sight.GONE
        if not self.secured and self._as_known():
            return Sight.QUIET
        try:
            return Sight.UNREAD if self.sock.recv(1, socket.MSG_PEEK) else Sight.GONE
        except BlockingIOError:
            return Sight.QUIET
        except OSError:
            return Sight.GONE

    def _as_known(self) -> bool:
        """Whether the kernel knows nothing that has not been heard: the connection stands, and it has received as many
        bytes as were read. To ask this costs a tenth of a look into the socket, which lets other threads go first;
        where there is no such answer, or it is no, that look is taken."""
        try:
            info = self.sock.getsockopt(socket.IPPROTO_TCP, TCP_INFO, RECEIVED.stop)
        except OSError:
            return False
        if len(info) < RECEIVED.stop or info[0] != ESTABLISHED:
            return False
        return int.from_bytes(info[RECEIVED], sys.byteorder) == self._came

    def read(self) -> bytes:
        """What waits to be read, without TLS."""
        try:
            data = self.sock.recv(65536)
        except OSError:
            return b""
        self._came += len(data)
        return data

    def write(self, data: bytes) -> bool:
        if self.transport is None or self.transport.is_closing():
            return False
        try:
            self.transport.write(data)
        except (RuntimeError, OSError):
            return False
        return True

    @property
    def unsent(self) -> bool:
        """Whether bytes were written that the kernel has not taken yet. Over TLS the event loop may have some that it
        does not tell of; then the socket is full."""
        if self.transport is None or self.transport.get_write_buffer_size():
            return True
        return self.secured and not _writable(self.sock)

    def close(self) -> None:
        """Close when the peer has answered what was written."""
        if self.transport is not None:
            self.transport.close() if self.secured else self.transport.abort()

    def leave(self) -> None:
        """Close when the peer may not have read what was written. With unread bytes on this side, closing would reset
        the connection, and the peer might lose the message: it is told that no more comes, and closes itself."""
        if self.transport is None or self.secured:
            self.close()
            return
        self.transport.write_eof()
        self._linger = asyncio.get_running_loop().call_later(GOODBYE, self.transport.abort)

    def abort(self) -> None:
        if self.transport is not None:
            self.transport.abort()


def _writable(sock: socket.socket) -> bool:
    poll = select.poll()
    poll.register(sock, select.POLLOUT)
    return bool(poll.poll(0))

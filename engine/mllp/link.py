"""One socket of a client, from its first byte to its last."""

from __future__ import annotations

import asyncio
import select
import socket
from enum import IntEnum, auto
from functools import partial
from typing import Protocol, cast

from engine.config.address import Address
from engine.mllp.dial import GOODBYE, connect, dial
from engine.mllp.framing import Decoder
from engine.mllp.tls import ClientTls


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
    """A connection. `used`: a message was written on it. `heard`: something came."""

    __slots__ = ("_linger", "decoder", "gone", "heard", "hearer", "secured", "sock", "transport", "used")

    def __init__(self, hearer: Hearer, sock: socket.socket, decoder: Decoder, *, secured: bool) -> None:
        self.hearer = hearer
        self.sock = sock
        self.decoder = decoder
        self.secured = secured
        self.gone = asyncio.Event()
        self.used = False
        self.heard = False
        self.transport: asyncio.Transport | None = None
        self._linger: asyncio.TimerHandle | None = None

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
        try:
            return Sight.UNREAD if self.sock.recv(1, socket.MSG_PEEK) else Sight.GONE
        except BlockingIOError:
            return Sight.QUIET
        except OSError:
            return Sight.GONE

    def read(self) -> bytes:
        """What waits to be read, without TLS."""
        try:
            return self.sock.recv(65536)
        except OSError:
            return b""

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

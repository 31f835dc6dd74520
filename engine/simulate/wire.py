"""The simulated parties' sockets: a listener, and a line that sends one message at a time.

They are not those of engine.mllp's server and client: a simulator that shared them could not show their faults. They
are as cheap as they can be, since one process plays hundreds of partners.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeAlias, cast

from engine.config.address import Address
from engine.mllp.framing import Decoder, Frame, encode

LOOPBACK = "127.0.0.1"


class Socket(asyncio.Protocol):
    """One accepted connection. `number`: the how-manieth of its listener, from 1."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._decoder = Decoder()
        self._transport: asyncio.Transport | None = None
        self.number = 0
        self.gone = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self.number = self._listener.admit(self)

    def data_received(self, data: bytes) -> None:
        for event in self._decoder.feed(data):
            if isinstance(event, Frame):
                self._listener.take(self, event.payload)

    def connection_lost(self, exc: Exception | None) -> None:
        self._listener.forget(self)
        self.gone.set()

    def write(self, data: bytes) -> None:
        """Bytes as they are; nothing where the peer has gone."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    def close(self) -> None:
        """Close when what was written is out."""
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()


Take: TypeAlias = Callable[[Socket, bytes], None]


class Listener:
    """Any number of ports, whose messages all go to `take`."""

    def __init__(self, take: Take, *ports: int, host: str = LOOPBACK) -> None:
        """`ports`: 0 takes a free one, and keeps it over a restart; none at all means one free one."""
        self.take = take
        self.host = host
        self.ports = list(ports or (0,))
        self._servers: list[asyncio.Server] = []
        self._sockets: set[Socket] = set()
        self._numbers = 0

    @property
    def connected(self) -> int:
        """How many peers there are."""
        return len(self._sockets)

    async def start(self) -> None:
        """Listen. OSError where a port is taken."""
        loop = asyncio.get_running_loop()
        for index, port in enumerate(self.ports):
            server = await loop.create_server(lambda: Socket(self), self.host, port)
            self._servers.append(server)
            self.ports[index] = int(server.sockets[0].getsockname()[1])

    async def stop(self) -> None:
        """Nobody listens, every socket is dropped."""
        servers, self._servers = self._servers, []
        for server in servers:
            server.close()
        for socket in tuple(self._sockets):
            socket.abort()
        for socket in tuple(self._sockets):
            await socket.gone.wait()

    # -- called by sockets

    def admit(self, socket: Socket) -> int:
        """The number of a new socket."""
        self._sockets.add(socket)
        self._numbers += 1
        return self._numbers

    def forget(self, socket: Socket) -> None:
        self._sockets.discard(socket)


class Line(asyncio.Protocol):
    """One persistent connection to `address`; it is made when it is needed, and again when it is gone."""

    def __init__(self, address: Address, timeout: float, *, lost: Callable[[], None] = lambda: None) -> None:
        """`timeout`: seconds for a connection, and for an answer. `lost` is called when the peer hangs up."""
        self.address = address
        self.sent = 0
        """Messages written, repeats included."""
        self.connects = 0
        self.drops = 0
        """Connections that the peer ended."""
        self._timeout = timeout
        self._lost = lost
        self._decoder = Decoder()
        self._transport: asyncio.Transport | None = None
        self._answer: asyncio.Future[bytes | None] | None = None

    @property
    def connected(self) -> bool:
        return self._transport is not None

    async def open(self) -> bool:
        """Connect, unless it is; whether there is a connection now."""
        if self._transport is None:
            loop = asyncio.get_running_loop()
            try:
                async with asyncio.timeout(self._timeout):
                    await loop.create_connection(lambda: self, self.address.host, self.address.port)
            except (OSError, TimeoutError):
                return False
        return True

    async def exchange(self, payload: bytes) -> bytes | None:
        """Send, and wait for the answer. None where none came: then there is no connection any more, so that what
        comes late cannot be taken for the next answer."""
        if not await self.open() or self._transport is None:
            return None
        loop = asyncio.get_running_loop()
        answer = self._answer = loop.create_future()
        timer = loop.call_later(self._timeout, self._settle, None)
        self._transport.write(encode(payload))
        self.sent += 1
        got: bytes | None = None
        try:
            got = await answer
        finally:
            timer.cancel()
            self._answer = None
            if got is None:
                self.close()
        return got

    def close(self) -> None:
        """End the connection, if there is one, at once."""
        transport, self._transport = self._transport, None
        if transport is not None:
            transport.abort()
        self._settle(None)

    def _settle(self, answer: bytes | None) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(answer)

    # -- called by the event loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._decoder = Decoder()
        self.connects += 1

    def data_received(self, data: bytes) -> None:
        for event in self._decoder.feed(data):
            if isinstance(event, Frame):
                self._settle(event.payload)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._transport is not None and self._transport.is_closing():
            self._transport = None
            self.drops += 1
            self._settle(None)
            self._lost()

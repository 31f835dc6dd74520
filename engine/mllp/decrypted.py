"""What comes out of TLS, at the cost of what comes out of a socket.

For a plain protocol the event loops have TLS write into a new buffer of 256 KB for each read, which costs several times
what the decryption does. Here all connections read into one, which is empty again before the next one reads.
"""

from __future__ import annotations

import asyncio

_BUFFER = bytearray(256 * 1024)
_VIEW = memoryview(_BUFFER)


class Decrypted(asyncio.BufferedProtocol):
    """Passes everything on to `inner`."""

    __slots__ = ("inner",)

    def __init__(self, inner: asyncio.Protocol) -> None:
        self.inner = inner

    def get_buffer(self, sizehint: int) -> memoryview:
        return _VIEW

    def buffer_updated(self, nbytes: int) -> None:
        self.inner.data_received(bytes(_VIEW[:nbytes]))

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.inner.connection_made(transport)

    def eof_received(self) -> bool | None:
        return self.inner.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        self.inner.connection_lost(exc)

    def pause_writing(self) -> None:
        self.inner.pause_writing()

    def resume_writing(self) -> None:
        self.inner.resume_writing()

"""What stands between a client and an HTTP server, and sees each request before the server and each answer before the
client: to strike exactly there. One request after the other on each connection, as clients without pipelining send."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Literal
from urllib.parse import urlsplit

from engine.simulate.wire import LOOPBACK

Moment = Literal["half of it is sent", "it is sent", "it is answered"]


class Between:
    """`counts`: whether a request is the one, by its body. `passed`: how many such have reached the server whole."""

    def __init__(self, server: str, counts: Callable[[bytes], bool]) -> None:
        """`server`: its base URL."""
        place = urlsplit(server)
        assert place.hostname is not None
        self._host, self._port = place.hostname, place.port or 80
        self._counts = counts
        self._strike: tuple[Moment, Callable[[], None]] | None = None
        self.passed = 0

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, LOOPBACK, 0)
        self.base = f"http://{LOOPBACK}:{self._server.sockets[0].getsockname()[1]}"

    async def stop(self) -> None:
        self._server.close()

    def strike_when(self, moment: Moment, strike: Callable[[], None]) -> None:
        """Once, at the next request that counts. The client hears nothing of it any more."""
        self._strike = moment, strike

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        beyond, to = await asyncio.open_connection(self._host, self._port)
        try:
            with contextlib.suppress(asyncio.IncompleteReadError, OSError):
                while await self._one(reader, writer, beyond, to):
                    pass
        finally:
            writer.close()
            to.close()

    async def _one(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, beyond: asyncio.StreamReader,
        to: asyncio.StreamWriter,
    ) -> bool:  # fmt: skip
        """A request and its answer. Whether the connection goes on."""
        request = await _whole(reader)
        counts = self._counts(request)
        moment, strike = self._strike if counts and self._strike else (None, lambda: None)
        if moment == "half of it is sent":
            to.write(request[: len(request) // 2])
            await to.drain()
            self._struck(strike)
            return False
        self.passed += counts
        to.write(request)
        await to.drain()
        if moment == "it is sent":
            self._struck(strike)
        answer = await _whole(beyond)
        if moment == "it is answered":
            self._struck(strike)
        if moment is None:
            writer.write(answer)
            await writer.drain()
        return moment is None

    def _struck(self, strike: Callable[[], None]) -> None:
        self._strike = None
        strike()


async def _whole(reader: asyncio.StreamReader) -> bytes:
    """The bytes of a request or an answer. IncompleteReadError where no more comes."""
    head = await reader.readuntil(b"\r\n\r\n")
    lower = head.lower()
    assert b"transfer-encoding" not in lower
    _, there, rest = lower.partition(b"\r\ncontent-length:")
    return head + await reader.readexactly(int(rest.split(b"\r\n", 1)[0]) if there else 0)

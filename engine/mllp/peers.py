"""The connections of one listener or connector."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from engine.mllp.connection import LINGER, Connection
from engine.mllp.framing import check
from engine.mllp.handler import Handler, Manner


class Peers:
    """Those that are open: asked of, and closed together."""

    def __init__(self, handler_factory: Callable[[], Handler], manner: Manner) -> None:
        """ValueError where the framing cannot work."""
        check(manner.framing)
        self.manner = manner
        self._factory = handler_factory
        self._open: set[Connection] = set()
        self._empty = asyncio.Event()
        self._empty.set()

    @property
    def connections(self) -> Iterable[Connection]:
        """The peers' connections that are open now; without those of which nobody knows yet whose they are."""
        return tuple(connection for connection in self._open if connection.announced)

    async def close(self, grace: float = 0.0) -> None:
        """Close the connections: at once, or each when what it has begun is answered, for at most `grace` seconds.
        Returns when no socket is left."""
        if grace > 0:
            for connection in tuple(self._open):
                connection.finish() if connection.announced else connection.close()
            await self._wait_empty(grace)
        for connection in tuple(self._open):
            connection.close()
        await self._wait_empty(2 * LINGER)

    async def _wait_empty(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._empty.wait()
        except TimeoutError:
            return

    # -- from a connection (engine.mllp.handler.Owner)

    def admit(self, connection: Connection) -> str | None:
        self._open.add(connection)
        self._empty.clear()
        return None

    def announced(self, connection: Connection) -> None:
        return

    def forget(self, connection: Connection) -> None:
        self._open.discard(connection)
        if not self._open:
            self._empty.set()

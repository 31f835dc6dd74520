"""What stands in the middle of the simulated world in its own tests: each way's two ports, and nothing of an engine."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from engine.config.address import Address
from engine.mllp.framing import encode
from engine.simulate.layout import Layout, Way, lay_out
from engine.simulate.wire import LOOPBACK, Line, Listener, Socket
from engine.simulate.world import Plan, World


class Between:
    """Relays, one message at a time: the vendor's to the old engine or, `live`, to the endpoint; the tap's to the
    endpoint."""

    def __init__(self, layout: Layout) -> None:
        self.live: set[str] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._lines: list[Line] = []
        self._listeners: list[Listener] = []
        for way in layout.ways:
            self._way(layout, way)

    def _way(self, layout: Layout, way: Way) -> None:
        old = self._line(way.old)
        direct = self._line(layout.endpoints[way.endpoint])
        forward = self._line(layout.endpoints[way.endpoint])
        self._listen(way.listen, lambda: direct if way.channel in self.live else old)
        self._listen(way.tap, lambda: forward)

    def _line(self, port: int) -> Line:
        line = Line(Address(LOOPBACK, port), 5.0)
        self._lines.append(line)
        return line

    def _listen(self, port: int, line: Any) -> None:
        def take(socket: Socket, payload: bytes) -> None:
            task = asyncio.create_task(relay(socket, line(), payload))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

        self._listeners.append(Listener(take, port))

    async def start(self) -> None:
        for listener in self._listeners:
            await listener.start()

    async def stop(self) -> None:
        """As a SIGKILL would: every socket dropped, whatever was on its way."""
        for listener in self._listeners:
            await listener.stop()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for line in self._lines:
            line.close()


async def relay(socket: Socket, line: Line, payload: bytes) -> None:
    answer = await line.exchange(payload)
    if answer is None:
        socket.abort()
    else:
        socket.write(encode(answer))


@asynccontextmanager
async def turning(
    connections: int = 2, plan: Plan | None = None, **options: Any
) -> AsyncIterator[tuple[World, Between]]:
    """A world that runs, with a Between in its middle."""
    layout = lay_out(connections)
    world, between = World(layout, plan or Plan(turnaround=(0.0, 0.02), pause=0.02), **options), Between(layout)
    await between.start()
    await world.start()
    try:
        yield world, between
    finally:
        await world.stop()
        await between.stop()

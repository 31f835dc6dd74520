"""Rules of engine.simulate.wire."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from engine.config.address import Address
from engine.mllp.framing import encode
from engine.simulate.wire import LOOPBACK, Line, Listener, Socket


@asynccontextmanager
async def connected(
    take: Callable[[Socket, bytes], None], within: float = 5.0, lost: Callable[[], None] = lambda: None
) -> AsyncIterator[tuple[Listener, Line]]:
    listener = Listener(take)
    await listener.start()
    line = Line(Address(LOOPBACK, listener.ports[0]), within, lost=lost)
    try:
        yield listener, line
    finally:
        line.close()
        await listener.stop()


def echo(socket: Socket, payload: bytes) -> None:
    socket.write(encode(payload))


def silence(socket: Socket, payload: bytes) -> None:
    pass


class TestLine:
    async def test_messages_share_a_connection(self) -> None:
        async with connected(echo) as (listener, line):
            assert [await line.exchange(b"%d" % number) for number in range(5)] == [b"0", b"1", b"2", b"3", b"4"]
            assert (line.sent, line.connects, line.drops, listener.connected) == (5, 1, 0, 1)

    async def test_without_an_answer_the_connection_is_ended(self) -> None:
        async with connected(silence, within=0.05) as (_, line):
            assert await line.exchange(b"1") is None
            assert (line.connected, line.drops) == (False, 0)

    async def test_a_late_answer_is_not_taken_for_the_next_one(self) -> None:
        waiting: list[tuple[Socket, bytes]] = []

        def take(socket: Socket, payload: bytes) -> None:
            waiting.append((socket, payload))
            if len(waiting) == 2:
                for late, what in waiting:
                    echo(late, what)

        async with connected(take, within=0.05) as (_, line):
            assert await line.exchange(b"1") is None
            assert await line.exchange(b"2") == b"2"

    async def test_nobody_there_is_no_answer(self) -> None:
        async with connected(echo) as (listener, line):
            await listener.stop()
            assert await line.exchange(b"1") is None
            assert (line.sent, line.connects) == (0, 0)

    async def test_a_peer_that_hangs_up_is_counted_and_told(self) -> None:
        lost = asyncio.Event()
        async with connected(lambda socket, _: socket.abort(), lost=lost.set) as (_, line):
            assert await line.exchange(b"1") is None
            assert (line.drops, lost.is_set()) == (1, True)


class TestListener:
    async def test_a_port_taken_by_chance_is_kept_over_a_restart(self) -> None:
        async with connected(echo) as (listener, line):
            await line.exchange(b"1")
            port = listener.ports[0]
            await listener.stop()
            assert listener.connected == 0
            await listener.start()
            assert listener.ports == [port]
            assert await line.exchange(b"2") == b"2"

"""Rules of engine.simulate.outbox."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from engine.config.address import Address
from engine.simulate.journal import Journal, rows
from engine.simulate.old_engine import Faults, OldEngine
from engine.simulate.orders import Orders
from engine.simulate.outbox import Acknowledged, Outbox
from engine.simulate.wire import LOOPBACK

ORDERS = Orders("C001")
IDS = [ORDERS.order_id(number) for number in range(1, 6)]


class Done:
    """Tells when messages are done with."""

    def __init__(self) -> None:
        self.moved = asyncio.Event()

    async def until(self, outbox: Outbox, waiting: int = 0) -> None:
        async with asyncio.timeout(5):
            while outbox.waiting > waiting:
                self.moved.clear()
                await self.moved.wait()


@asynccontextmanager
async def sending(
    count: int = 3, *, faults: Faults | None = None, **options: Any
) -> AsyncIterator[tuple[OldEngine, Outbox, Done]]:
    engine = OldEngine(faults=faults)
    await engine.start()
    done = Done()
    address = Address(LOOPBACK, engine.port)
    outbox = Outbox("a", address, moved=done.moved.set, **{"timeout": 5.0, "pause": 0.02, **options})
    for number in range(1, count + 1):
        outbox.put(ORDERS.order_id(number), ORDERS.order(number))
    await outbox.start()
    try:
        yield engine, outbox, done
    finally:
        await outbox.stop()
        await engine.stop()


async def test_messages_go_out_in_order_on_one_connection() -> None:
    async with sending(5) as (engine, outbox, done):
        await done.until(outbox)
        assert engine.control_ids == IDS == [one.control_id for one in outbox.acknowledged]
        assert (outbox.sent, outbox.drops, outbox.negative, outbox.unanswered) == (5, 0, 0, 0)
        assert {arrival.socket for arrival in engine.arrivals} == {1}


@pytest.mark.parametrize(
    ("fault", "negative", "unanswered"), [("ae", 2, 0), ("cut", 0, 2), ("wrong_id", 0, 2), ("silent", 0, 2)]
)
async def test_without_a_positive_answer_the_same_message_is_sent_again(
    fault: str, negative: int, unanswered: int
) -> None:
    async with sending(3, faults=Faults(by_id={IDS[1]: (fault, fault)}), timeout=0.1) as (engine, outbox, done):
        await done.until(outbox)
        assert engine.control_ids == [IDS[0], IDS[1], IDS[1], IDS[1], IDS[2]]
        assert (outbox.negative, outbox.unanswered) == (negative, unanswered)
        assert [one.tries for one in outbox.acknowledged] == [1, 3, 1]


async def test_a_reject_is_final() -> None:
    async with sending(3, faults=Faults(by_id={IDS[1]: ("ar",)})) as (_, outbox, done):
        await done.until(outbox)
        assert outbox.refused == [IDS[1]]
        assert [one.control_id for one in outbox.acknowledged] == [IDS[0], IDS[2]]


async def test_an_idle_sender_connects_again_when_it_is_dropped() -> None:
    async with sending(1) as (engine, outbox, done):
        await done.until(outbox)
        await engine.fail_for(0)
        assert outbox.drops == 1
        async with asyncio.timeout(5):
            while not outbox.connected:  # noqa: ASYNC110 - nothing announces it
                await asyncio.sleep(0.01)
        assert outbox.sent == 1


async def test_what_is_still_awaited_counts_as_slow() -> None:
    faults = Faults(by_id={IDS[1]: ("silent",)})
    async with sending(2, faults=faults) as (_, outbox, done):
        await done.until(outbox, 1)
        await asyncio.sleep(0.15)
        assert outbox.slowest() >= 0.1
        assert outbox.acknowledged[0].seconds < 0.1


async def test_slowest_looks_at_what_was_acknowledged_since() -> None:
    async with sending(2, faults=Faults(by_id={IDS[0]: ("ae",)}), pause=0.1) as (_, outbox, done):
        await done.until(outbox)
        assert outbox.slowest() >= 0.1
        assert outbox.slowest(since=outbox.acknowledged[1].at) < 0.1


async def test_the_journal_lists_what_was_acknowledged(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "acknowledged.ndjson")
    journal.open()
    async with sending(3, journal=journal) as (_, outbox, done):
        await done.until(outbox)
        assert [Acknowledged(**row) for row in rows(tmp_path / "acknowledged.ndjson")] == outbox.acknowledged
    journal.close()

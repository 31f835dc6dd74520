"""Rules of engine.simulate.receiver."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from engine.config.address import Address
from engine.hl7.ack import parse_ack
from engine.simulate.forwarding import stamped
from engine.simulate.journal import Journal, rows
from engine.simulate.orders import Orders
from engine.simulate.receiver import Arrival, Receiver
from engine.simulate.wire import LOOPBACK, Line

ORDERS = Orders("C001")
ORDER = ORDERS.order(1)


@asynccontextmanager
async def endpoint(journal: Journal | None = None) -> AsyncIterator[tuple[Receiver, Line]]:
    receiver = Receiver("lab-1", journal=journal)
    await receiver.start()
    line = Line(Address(LOOPBACK, receiver.port), 5.0)
    try:
        yield receiver, line
    finally:
        line.close()
        await receiver.stop()


async def test_it_knows_from_which_side_a_message_came_and_how_often() -> None:
    async with endpoint() as (receiver, line):
        for payload in (ORDER, stamped(ORDER, "OE0000000007"), ORDER, ORDERS.order(2)):
            await line.exchange(payload)
        assert receiver.sides(ORDERS.order_id(1)) == {"target": 2, "legacy": 1}
        assert receiver.sides(ORDERS.order_id(2)) == {"target": 1}


async def test_its_answer_names_the_message_as_it_came() -> None:
    async with endpoint() as (_, line):
        got = await line.exchange(stamped(ORDER, "OE0000000007"))
        answer = parse_ack(got or b"")
        assert answer is not None
        assert (answer.code, answer.control_id) == ("AA", "OE0000000007")


async def test_paused_it_takes_and_does_not_answer() -> None:
    async with endpoint() as (receiver, line):
        receiver.pause()
        asking = asyncio.create_task(line.exchange(ORDER))
        async with asyncio.timeout(5):
            while not receiver.arrivals:  # noqa: ASYNC110 - nothing announces it
                await asyncio.sleep(0.01)
        assert not asking.done()
        receiver.resume()
        assert parse_ack(await asking or b"") is not None


async def test_a_message_without_a_number_of_its_sender_is_told_apart() -> None:
    async with endpoint() as (receiver, line):
        await line.exchange(b"no message")
        assert [(one.origin, one.control_id) for one in receiver.arrivals] == [("", "")]


async def test_the_journal_has_each_arrival_before_it_is_answered(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "arrived.ndjson")
    journal.open()
    async with endpoint(journal) as (receiver, line):
        for _ in range(3):
            await line.exchange(ORDER)
            assert [Arrival(**row) for row in rows(tmp_path / "arrived.ndjson")] == receiver.arrivals
    journal.close()

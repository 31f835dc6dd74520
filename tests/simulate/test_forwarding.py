"""Rules of engine.simulate.forwarding."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from engine.config.address import Address
from engine.hl7.ack import parse_ack
from engine.simulate.forwarding import MARK, ForwardingEngine, Route, patient, stamped
from engine.simulate.layout import free_ports
from engine.simulate.mischief import DOUBLED, DROPPED, REORDERED, Mischief
from engine.simulate.old_engine import Faults, OldEngine
from engine.simulate.orders import Orders, origin
from engine.simulate.wire import LOOPBACK, Line

ORDERS = Orders("C001")


@dataclass
class Bench:
    """An old engine of one route, a sender before it, and a receiver behind it."""

    engine: ForwardingEngine
    line: Line
    behind: OldEngine
    moved: asyncio.Event

    async def send(self, *numbers: int) -> None:
        for number in numbers:
            answer = parse_ack(await self.line.exchange(ORDERS.order(number)) or b"")
            assert answer is not None
            assert (answer.code, answer.control_id) == ("AA", ORDERS.order_id(number))

    async def done(self) -> None:
        async with asyncio.timeout(5):
            while self.engine.queue_length():
                self.moved.clear()
                await self.moved.wait()

    @property
    def came(self) -> list[int]:
        return [int(origin(payload)[-8:]) for payload in self.behind.payloads]


@asynccontextmanager
async def bench(faults: Faults | None = None, alterations: Any = None, **options: Any) -> AsyncIterator[Bench]:
    behind = OldEngine(faults=faults)
    await behind.start()
    moved = asyncio.Event()
    (port,) = free_ports(1)
    route = Route("a", port, Address(LOOPBACK, behind.port), **options)
    engine = ForwardingEngine([route], alterations=alterations, pause=0.02, timeout=0.5, moved=moved.set)
    await engine.start()
    line = Line(Address(LOOPBACK, port), 5.0)
    try:
        yield Bench(engine, line, behind, moved)
    finally:
        line.close()
        await engine.stop()
        await behind.stop()


class TestForwarding:
    async def test_messages_go_on_in_order_with_the_engines_own_stamps(self) -> None:
        async with bench() as it:
            await it.send(1, 2, 3)
            await it.done()
            assert it.came == [1, 2, 3]
            assert all(one.startswith(MARK) for one in it.behind.control_ids)
            assert len(set(it.behind.control_ids)) == 3
            assert (it.engine.received(), it.engine.sent("a"), it.engine.errors(), it.engine.repeats()) == (3, 3, 0, 0)

    async def test_but_for_stamps_and_habits_they_are_as_they_came(self) -> None:
        async with bench(habits=(lambda payload: payload.replace(b"|W\r", b"|W \r"),)) as it:
            await it.send(1)
            await it.done()
            expected = ORDERS.order(1).replace(b"|W\r", b"|W \r")
            assert it.behind.payloads[0].split(b"\r")[1:] == expected.split(b"\r")[1:]

    @pytest.mark.parametrize("fault", ["ae", "cut", "wrong_id", "silent"])
    async def test_what_is_not_acknowledged_goes_out_again_with_its_number_before_all_later_ones(
        self, fault: str
    ) -> None:
        async with bench() as it:
            it.engine.pause()
            await it.send(1, 2)
            it.behind.faults = Faults(by_id={f"{MARK}{1:010d}": (fault,)})
            it.engine.resume()
            await it.done()
            assert it.came == [1, 1, 2]
            assert it.behind.control_ids[0] == it.behind.control_ids[1]

    async def test_what_is_rejected_is_an_error_and_the_next_goes_on(self) -> None:
        async with bench(faults=Faults(by_id={f"{MARK}{1:010d}": ("ar",)})) as it:
            await it.send(1, 2)
            await it.done()
            assert (it.came, it.engine.errors(), it.engine.sent()) == ([1, 2], 1, 1)

    async def test_a_repeat_of_a_sender_is_worked_on_like_any_message(self) -> None:
        async with bench() as it:
            await it.send(1, 1)
            await it.done()
            assert (it.came, it.engine.repeats()) == ([1, 1], 1)
            assert len(set(it.behind.control_ids)) == 2

    async def test_a_message_waits_inside_as_long_as_it_is_told_to(self) -> None:
        async with bench(delay=0.1) as it:
            begun = asyncio.get_running_loop().time()
            await it.send(1, 2)
            assert it.engine.queue_length("a") == 2
            await it.done()
            assert asyncio.get_running_loop().time() - begun >= 0.1


class TestOperation:
    async def test_paused_it_takes_messages_and_says_how_many_wait(self) -> None:
        async with bench() as it:
            it.engine.pause("a")
            await it.send(1, 2, 3)
            assert (it.engine.queue_length("a"), it.came) == (3, [])
            it.engine.resume("a")
            await it.done()
            assert it.came == [1, 2, 3]

    async def test_killed_it_keeps_what_it_had_taken(self) -> None:
        async with bench() as it:
            it.engine.pause()
            await it.send(1, 2)
            await it.engine.kill()
            assert await it.line.exchange(ORDERS.order(3)) is None
            it.engine.resume()
            await it.engine.start()
            await it.send(3)
            await it.done()
            assert it.came == [1, 2, 3]


class TestMischief:
    async def test_dropped_is_acknowledged_and_gone(self) -> None:
        async with bench(mischief=Mischief({DROPPED: 1.0})) as it:
            await it.send(1, 2)
            assert (it.engine.queue_length(), it.engine.faults()) == (0, {DROPPED: 2})
            assert it.engine.seeded[0].control_id == ORDERS.order_id(1)

    async def test_doubled_comes_with_two_numbers(self) -> None:
        async with bench(mischief=Mischief({DOUBLED: 1.0})) as it:
            await it.send(1)
            await it.done()
            assert it.came == [1, 1]
            assert len(set(it.behind.control_ids)) == 2

    async def test_reordered_is_overtaken_by_the_next_of_its_patient(self) -> None:
        first = ORDERS.order(1)
        later = next(number for number in range(2, 400) if patient(ORDERS.order(number)) == patient(first))
        async with bench(mischief=Mischief({REORDERED: 1.0})) as it:
            await it.send(1)
            it.engine.mend()
            other = next(number for number in range(2, 9) if patient(ORDERS.order(number)) != patient(first))
            await it.send(other, later, later + 1)
            await it.done()
            assert it.came == [other, later, 1, later + 1]
            assert it.engine.seeded[0].control_id == ORDERS.order_id(1)

    async def test_an_alteration_counts_only_where_it_changed_something(self) -> None:
        alterations = {"spoiled": lambda payload: payload.replace(b"|NW|", b"|XX|")}
        async with bench(alterations=alterations, mischief=Mischief({"spoiled": 1.0})) as it:
            cancelling = next(number for number in range(2, 400) if ORDERS.cancels(number))
            await it.send(1, cancelling)
            await it.done()
            assert it.engine.faults() == {"spoiled": 1}
            assert b"ORC|XX|" in it.behind.payloads[0]

    def test_a_fault_that_nobody_knows_is_refused(self) -> None:
        route = Route("a", 1, Address(LOOPBACK, 1), mischief=Mischief({"typo": 0.1}))
        with pytest.raises(ValueError, match="no such faults: typo"):
            ForwardingEngine([route])


@pytest.mark.parametrize("payload", [b"", b"no message", b"MSH|^~\\&|A"])
def test_what_is_no_message_is_sent_as_it_came(payload: bytes) -> None:
    assert stamped(payload, "OE1") == payload
    assert patient(payload) == b""

"""Two-way sockets: our messages go back on the connection that the vendor made; and the old engine's on ours to it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from engine.config.edge import Takes
from engine.config.endpoint import Endpoint
from engine.config.filtering import AS_IT_CAME, Emit
from engine.config.model import Channel, Compare, OnLink, Tap
from engine.delivery import breaker, decision
from engine.hl7.ack import parse_ack
from engine.hl7.peek import peek
from engine.ledger.model import State
from engine.mllp.budget import WEIGHTY
from engine.mllp.framing import encode
from engine.observe.intake_events import STRAY
from engine.service.service import Service
from engine.simulate.forwarding import stamped
from engine.simulate.messages import Messages
from tests.support.fake import crash_image
from tests.support.house import (
    Peer,
    assert_balances,
    channel,
    emr,
    kept,
    live,
    open_work,
    outputs,
    port_of,
    served,
    settled,
    states,
    to,
    until,
)
from tests.support.moving import Operator
from tests.support.scripted import Scripted, ack

ORDERS = Messages("orm", seed=91)
RESULTS = Messages("oru", seed=92)


def back(**options: Any) -> Endpoint:
    """The vendor's own connection, on which its orders come."""
    values = {"ack_timeout": 1.0, "on_unknown": "resend"} | options
    return Endpoint("vendor", None, via="orders", **values)


class Bench:
    """A vendor whose orders come to us, and a laboratory whose results go back on the vendor's connection."""

    def __init__(self, service: Service, lab: Peer, port: int) -> None:
        self.service = service
        self.lab = lab
        self.port = port
        self.vendors: list[Peer] = []

    async def vendor(self, number: int = 1) -> Peer:
        """A connection of the vendor's, which begins with this order."""
        peer = await Peer.connect(self.port)
        self.vendors.append(peer)
        assert parse_ack(await peer.exchange(ORDERS.message(number))).code == "AA"
        return peer

    async def result(self, number: int = 0) -> None:
        assert parse_ack(await self.lab.exchange(RESULTS.message(number))).code == "AA"

    async def settled(self, count: int) -> None:
        await settled(self.service, "results", "vendor", count)

    async def catches_up(self, within: float) -> None:
        """Three results wait for the vendor; it connects, and gets each of them within so many seconds."""
        for number in range(3):
            await self.result(number)
        await self.left(State.RETRYING)
        vendor = await self.vendor()
        for number in range(3):
            assert await vendor.answer(within) == RESULTS.message(number)
            vendor.send(ack(RESULTS.message(number)))
        await self.settled(3)

    async def left(self, *expected: State) -> None:
        """Wait until these are what is not settled."""
        await until(lambda: open_work(self.service, "results", "vendor") == list(expected))


@asynccontextmanager
async def between(folder: Path, *, emit: Emit = AS_IT_CAME, **options: Any) -> AsyncIterator[Bench]:
    orders = channel("orders", destinations=(emr(1),), takes=Takes(("ORM^O01",)))
    results = live("results", destinations=(replace(to(back(**options)), emit=emit),))
    async with served(folder, results, orders) as (service, lab):
        bench = Bench(service, lab, port_of(orders))
        try:
            yield bench
        finally:
            for peer in bench.vendors:
                await peer.close()


async def test_results_go_back_on_the_connection_that_the_vendor_made(tmp_path: Path):
    async with between(tmp_path) as bench:
        vendor = await bench.vendor()
        for number in range(3):
            await bench.result(number)
            assert await vendor.answer() == RESULTS.message(number)
            vendor.send(ack(RESULTS.message(number)))
        await bench.settled(3)
        assert await states(bench.service, "results", "vendor") == {"delivered": 3}
        assert await vendor.silence(), "an acknowledgement gets none"
        assert await kept(bench.service, "kind") == []


async def test_a_large_answer_is_not_held_in_memory_once_it_was_heard(tmp_path: Path):
    async with between(tmp_path) as bench:
        vendor = await bench.vendor()
        await bench.result()
        assert await vendor.answer() == RESULTS.message(0)
        vendor.send(ack(RESULTS.message(0)) + b"ZZZ|" + b"x" * (2 * WEIGHTY) + b"\r")
        await bench.settled(1)
        assert bench.service.doors.budget.peak > 2 * WEIGHTY
        assert bench.service.doors.budget.total == 0


async def test_one_at_a_time_and_what_the_vendor_sends_in_between_is_a_message_of_its_own(tmp_path: Path):
    async with between(tmp_path) as bench:
        vendor = await bench.vendor()
        for number in range(2):
            await bench.result(number)
        assert await vendor.answer() == RESULTS.message(0)
        assert await vendor.silence(), "the next one waits for the answer to the first"
        own = parse_ack(await vendor.exchange(ORDERS.message(2)))
        assert (own.code, own.control_id) == ("AA", ORDERS.control_id(2))
        vendor.send(ack(RESULTS.message(0)))
        assert await vendor.answer() == RESULTS.message(1)
        vendor.send(ack(RESULTS.message(1)))
        await bench.settled(2)
        assert bench.service.ledger.channels["orders"].seq == 2
        await assert_balances(bench.service)


async def test_the_vendors_answer_and_its_own_message_in_one_piece(tmp_path: Path):
    async with between(tmp_path) as bench:
        vendor = await bench.vendor()
        await bench.result()
        assert await vendor.answer() == RESULTS.message(0)
        vendor.writer.write(encode(ORDERS.message(2)) + encode(ack(RESULTS.message(0))) + encode(ORDERS.message(3)))
        assert [parse_ack(await vendor.answer()).control_id for _ in range(2)] == [ORDERS.control_id(n) for n in (2, 3)]
        await bench.settled(1)


async def test_while_the_vendor_is_not_connected_its_results_wait(tmp_path: Path):
    async with between(tmp_path) as bench:
        await bench.catches_up(within=15)


async def test_a_vendor_that_comes_back_gets_its_results_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for place in (decision, breaker):
        monkeypatch.setattr(place, "FIRST_WAIT", 60.0)
        monkeypatch.setattr(place, "LONGEST_WAIT", 60.0)
    async with between(tmp_path) as bench:
        await bench.catches_up(within=5)


async def test_a_vendor_that_goes_in_mid_exchange_leaves_the_message_unknown_and_gets_it_again(tmp_path: Path):
    async with between(tmp_path) as bench:
        vendor = await bench.vendor()
        await bench.result()
        assert await vendor.answer() == RESULTS.message(0)
        await vendor.close()
        await bench.left(State.UNKNOWN)
        vendor = await bench.vendor(2)
        assert await vendor.answer(15) == RESULTS.message(0)
        vendor.send(ack(RESULTS.message(0)))
        await bench.settled(1)


async def test_where_the_endpoint_says_park_a_person_decides(tmp_path: Path):
    async with between(tmp_path, on_unknown="park") as bench:
        vendor = await bench.vendor()
        await bench.result()
        assert await vendor.answer() == RESULTS.message(0)
        await vendor.close()
        await bench.left(State.PARKED)


async def test_a_vendor_that_does_not_answer_loses_the_connection_that_a_late_answer_would_come_on(tmp_path: Path):
    async with between(tmp_path, ack_timeout=0.4) as bench:
        vendor = await bench.vendor()
        await bench.result()
        assert await vendor.answer() == RESULTS.message(0)
        assert await vendor.closed()
        vendor = await bench.vendor(2)
        assert await vendor.answer(15) == RESULTS.message(0)
        vendor.send(ack(RESULTS.message(0)))
        await bench.settled(1)


async def test_an_answer_to_something_else_ends_the_connection_it_came_on_and_no_other(tmp_path: Path):
    async with between(tmp_path) as bench:
        first = await bench.vendor()
        await bench.result()
        assert await first.answer() == RESULTS.message(0)
        second = await bench.vendor(2)
        first.send(ack(RESULTS.message(0), "AA", "ANOTHER"))
        assert await first.closed()
        assert await second.answer() == RESULTS.message(0), "again, on the connection that is left"
        second.send(ack(RESULTS.message(0)))
        await bench.settled(1)


async def test_results_go_on_the_newest_of_several_connections(tmp_path: Path):
    async with between(tmp_path) as bench:
        _, _, newest = [await bench.vendor(number) for number in range(3)]
        await bench.result()
        assert await newest.answer() == RESULTS.message(0)
        newest.send(ack(RESULTS.message(0)))
        await bench.settled(1)


async def test_a_vendor_that_says_no_to_a_result(tmp_path: Path):
    async with between(tmp_path) as bench:
        vendor = await bench.vendor()
        await bench.result()
        await vendor.answer()
        vendor.send(ack(RESULTS.message(0), "AR"))
        await bench.left(State.DEAD)


# -- a vendor that answers twice


def response(message: bytes, kind: bytes = b"ORL^O22", number: int = 1) -> bytes:
    """What became of a message, with data."""
    control_id = message.split(b"|")[9]
    return b"MSH|^~\\&|LIS|L|EMR|E|2026||%b|R%d|P|2.5\rMSA|AA|%b\rPID|1||P\rORC|OK|1|2\r" % (kind, number, control_id)


@pytest.mark.parametrize("kind", [b"ORL^O22", b"ORM^O01", b"RSP^K11"])
async def test_what_the_vendor_says_later_of_our_message_is_no_message_and_gets_no_answer(tmp_path: Path, kind: bytes):
    """ORM^O01 is what the channel takes; it is an answer all the same."""
    async with between(tmp_path) as bench:
        vendor = await bench.vendor()
        for number in range(2):
            await bench.result(number)
            assert await vendor.answer() == RESULTS.message(number)
            vendor.send(ack(RESULTS.message(number), "CA"))
            vendor.send(response(RESULTS.message(number), kind))
            assert await vendor.silence()
        await bench.settled(2)
        assert bench.service.ledger.channels["orders"].seq == 1
        assert await kept(bench.service, "kind") == [("stray_acknowledgement",)] * 2


async def test_it_does_not_end_the_exchange_of_the_next_message(tmp_path: Path):
    async with between(tmp_path) as bench:
        vendor = await bench.vendor()
        for number in range(2):
            await bench.result(number)
        assert await vendor.answer() == RESULTS.message(0)
        vendor.send(ack(RESULTS.message(0), "CA"))
        assert await vendor.answer() == RESULTS.message(1)
        vendor.send(response(RESULTS.message(0)))
        assert await vendor.silence()
        vendor.send(ack(RESULTS.message(1)))
        await bench.settled(2)
        assert await states(bench.service, "results", "vendor") == {"delivered": 2}


async def test_it_is_known_on_any_connection_of_the_vendors_and_all_of_them_are_kept(tmp_path: Path):
    async with between(tmp_path) as bench:
        vendor = await bench.vendor()
        await bench.result()
        await vendor.answer()
        vendor.send(ack(RESULTS.message(0), "CA"))
        await bench.settled(1)
        other = await bench.vendor(2)
        before = STRAY.of("orders").n
        for number in range(20):
            other.send(response(RESULTS.message(0), number=number))
        await until(lambda: STRAY.of("orders").n == before + 20)
        assert await other.silence()
        assert len(await kept(bench.service, "kind")) == 20


async def test_a_response_that_answers_nothing_of_ours_is_a_message_where_its_type_is_taken(tmp_path: Path):
    async with between(tmp_path) as bench:
        vendor = await bench.vendor()
        elsewhere = ORDERS.message(7)
        said = parse_ack(await vendor.exchange(response(elsewhere, b"ORM^O01")))
        assert (said.code, said.control_id) == ("AA", "R1")
        assert bench.service.ledger.channels["orders"].seq == 2
        vendor.send(response(elsewhere, b"ORL^O22"))
        assert await vendor.silence(), "of another type: not even a no"
        assert bench.service.ledger.channels["orders"].seq == 2
        assert await kept(bench.service, "kind") == [("stray_acknowledgement",)]


async def test_what_the_vendor_says_of_what_we_sent_before_a_restart_is_no_message(tmp_path: Path):
    async with between(tmp_path) as bench:
        vendor = await bench.vendor()
        await bench.result()
        await vendor.answer()
        vendor.send(ack(RESULTS.message(0), "CA"))
        await bench.settled(1)
    async with between(tmp_path) as bench:
        vendor = await bench.vendor(2)
        vendor.send(response(RESULTS.message(0), b"ORM^O01"))
        assert await vendor.silence()
        assert bench.service.ledger.channels["orders"].seq == 2
        assert await kept(bench.service, "kind") == [("stray_acknowledgement",)]


async def test_what_went_back_under_a_name_of_ours_is_known_after_a_restart(tmp_path: Path):
    async with between(tmp_path, emit=Emit(ours=True, prefix="IL")) as bench:
        vendor = await bench.vendor()
        await bench.result()
        sent = await vendor.answer()
        assert peek(sent).control_id != RESULTS.control_id(0)
        vendor.send(ack(sent, "CA"))
        await bench.settled(1)
    async with between(tmp_path, emit=Emit(ours=True, prefix="IL")) as bench:
        vendor = await bench.vendor(2)
        vendor.send(response(sent, b"ORM^O01"))
        assert await vendor.silence()
        assert bench.service.ledger.channels["orders"].seq == 2


async def test_an_answer_from_before_a_restart_does_not_end_the_exchange_of_the_next_message(tmp_path: Path):
    async with between(tmp_path, ack_timeout=20.0) as bench:
        vendor = await bench.vendor()
        await bench.result(0)
        await vendor.answer()
        vendor.send(ack(RESULTS.message(0), "CA"))
        await bench.settled(1)
    async with between(tmp_path, ack_timeout=20.0) as bench:
        vendor = await bench.vendor(2)
        await bench.result(1)
        assert await vendor.answer() == RESULTS.message(1)
        vendor.send(response(RESULTS.message(0)))
        assert await vendor.silence()
        vendor.send(ack(RESULTS.message(1)))
        await bench.settled(2)
        assert await states(bench.service, "results", "vendor") == {"delivered": 2}
        assert await vendor.silence(), "nothing is sent again"


async def test_what_was_on_its_way_when_the_process_was_killed_is_known_as_well(tmp_path: Path):
    async with between(tmp_path, ack_timeout=20.0, on_unknown="park") as bench:
        vendor = await bench.vendor()
        await bench.result(0)
        await vendor.answer()
        crash_image(bench.service.ledger.path, tmp_path / "next")
    async with between(tmp_path / "next", on_unknown="park") as bench:
        vendor = await bench.vendor(2)
        vendor.send(response(RESULTS.message(0), b"ORM^O01"))
        assert await vendor.silence()
        assert bench.service.ledger.channels["orders"].seq == 2


# -- taps on our own connection to the old engine


class OneSocketEngine(Scripted):
    """An old engine with one socket: what it makes of a message it sends on the connection on which it answers."""

    def __init__(self) -> None:
        super().__init__(self._say_both)
        self.answers: list[bytes] = []
        self.outputs: list[bytes] = []

    def _say_both(self, payload: bytes) -> tuple[bytes, ...]:
        if parse_ack(payload) is not None:
            self.answers.append(payload)
            return ()
        self.outputs.append(stamped(payload, f"OE{len(self.outputs) + 1:010d}"))
        return (ack(payload), self.outputs[-1])


def tapped(engine: int, **options: Any) -> Channel:
    """The vendor's requests go to the old engine, whose results come back on that socket and go to the vendor's own."""
    endpoint = back()
    return live(
        "orders", old_engine=engine, taps=(Tap("vendor", OnLink(), endpoint, settle=0.2),), compare=Compare(within=2.0),
        destinations=(to(endpoint),), rollback="none", **options,
    )  # fmt: skip


async def asked(vendor: Peer, number: int) -> tuple[bytes, bytes]:
    """What comes to the vendor for a request: the answer and the result, whichever is first."""
    vendor.send(RESULTS.message(number))
    came = [await vendor.answer(), await vendor.answer()]
    (answer,), (result,) = ([each for each in came if (parse_ack(each) is None) is other] for other in (False, True))
    return answer, result


async def test_the_old_engines_output_on_our_connection_goes_to_the_vendor_and_its_answer_back(tmp_path: Path):
    async with OneSocketEngine() as engine, served(tmp_path, tapped(engine.port)) as (service, vendor):
        for number in range(1, 4):
            answer, result = await asked(vendor, number)
            assert answer == ack(RESULTS.message(number))
            assert [result] == engine.outputs[number - 1 :]
            vendor.send(ack(result))
            await until(lambda number=number: len(engine.answers) == number)
            assert engine.answers[-1] == ack(result)
        await settled(service, "orders", "legacy", 3)
        assert set(engine.sockets) == {1}
        await until(lambda: outputs(tmp_path) == [("forwarded", None)] * 3)


async def test_an_output_that_comes_before_the_answer_is_not_taken_for_it(tmp_path: Path):
    """It has no MSA, and is a message by its type: where a tap hears such, it is the tap's."""
    async with OneSocketEngine() as engine, served(tmp_path, tapped(engine.port)) as (service, vendor):
        says = engine.says
        engine.says = lambda payload: tuple(reversed(says(payload)))
        answer, result = await asked(vendor, 1)
        assert answer == ack(RESULTS.message(1))
        vendor.send(ack(result))
        await settled(service, "orders", "legacy", 1)
        assert engine.payloads[:1] == [RESULTS.message(1)]
        assert set(engine.sockets) == {1}
        await until(lambda: outputs(tmp_path) == [("forwarded", None)])


async def test_the_vendors_answer_to_an_output_is_not_a_message(tmp_path: Path):
    async with OneSocketEngine() as engine, served(tmp_path, tapped(engine.port)) as (service, vendor):
        _, result = await asked(vendor, 1)
        vendor.send(ack(result))
        await until(lambda: len(engine.answers) == 1)
        assert service.ledger.channels["orders"].seq == 1
        assert await kept(service, "kind") == []


async def test_what_the_vendor_says_of_an_output_later_goes_to_the_old_engine(tmp_path: Path):
    async with OneSocketEngine() as engine, served(tmp_path, tapped(engine.port)) as (service, vendor):
        _, result = await asked(vendor, 1)
        vendor.send(ack(result, "CA"))
        await until(lambda: len(engine.answers) == 1)
        vendor.send(response(result))
        await until(lambda: engine.answers == [ack(result, "CA"), response(result)])
        assert service.ledger.channels["orders"].seq == 1
        assert await vendor.silence()


async def test_after_a_restart_what_the_vendor_says_of_an_earlier_output_is_no_message(tmp_path: Path):
    async with OneSocketEngine() as engine:
        async with served(tmp_path, tapped(engine.port)) as (service, vendor):
            _, result = await asked(vendor, 1)
            vendor.send(ack(result, "CA"))
            await until(lambda: len(engine.answers) == 1)
        async with served(tmp_path, tapped(engine.port)) as (service, vendor):
            vendor.send(response(result))
            assert await vendor.silence()
            assert service.ledger.channels["orders"].seq == 1
            assert await kept(service, "kind") == [("stray_acknowledgement",)]


async def test_in_parallel_outputs_on_our_connection_are_compared(tmp_path: Path):
    async with (
        OneSocketEngine() as engine,
        served(tmp_path, tapped(engine.port, phase="parallel")) as (service, vendor),
    ):
        for number in range(1, 4):
            _, result = await asked(vendor, number)
            vendor.send(ack(result))
        comparer = service.comparisons.channels["orders"].comparer
        await until(lambda: comparer.counts()["vendor"].totals.matched == 3)


async def test_after_a_cutover_the_vendor_gets_its_results_from_us_on_the_same_socket(tmp_path: Path):
    async with (
        OneSocketEngine() as engine,
        served(tmp_path, tapped(engine.port, phase="parallel")) as (service, vendor),
    ):
        await Operator(service).cut_over("orders")
        _, result = await asked(vendor, 1)
        assert result == RESULTS.message(1), "as it came, on its own connection"
        vendor.send(ack(result))
        await settled(service, "orders", "vendor", 1)
        assert engine.payloads == []


async def test_an_output_that_the_vendor_is_not_there_for_gets_no_answer(tmp_path: Path):
    """The old engine repeats it, as it would if the vendor were gone."""
    async with OneSocketEngine() as engine, served(tmp_path, tapped(engine.port)) as (_, vendor):
        vendor.send(RESULTS.message(1))
        await until(lambda: len(engine.payloads) == 1)
        await vendor.close()
        await until(lambda: outputs(tmp_path) == [("unanswered", None)])
        assert engine.answers == []

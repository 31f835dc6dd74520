"""Two-way sockets: our messages go back on the connection that the vendor made; and the old engine's on ours to it."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from engine.config.edge import Takes
from engine.config.endpoint import Endpoint
from engine.config.model import Channel, Compare, OnLink, Tap
from engine.hl7.ack import parse_ack
from engine.ledger.model import State
from engine.mllp.budget import WEIGHTY
from engine.mllp.framing import encode
from engine.service.service import Service
from engine.simulate.forwarding import stamped
from engine.simulate.messages import Messages
from tests.support.house import (
    Peer,
    assert_balances,
    channel,
    configuration,
    emr,
    free_port,
    kept,
    running,
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


def pair(orders: int, results: int, endpoint: Endpoint | None = None) -> tuple[Channel, Channel]:
    """Orders come from the vendor; results come from elsewhere, and go to it."""
    there = endpoint or back()
    return (
        channel("orders", port=orders, destinations=(emr(1),), takes=Takes(("ORM^O01",))),
        channel("results", port=results, destinations=(to(there),), takes=Takes(("ORU^R01",))),
    )


def open_work(service: Service, channel: str, destination: str) -> list[State]:
    return [work.state for work in service.ledger.channels[channel].course(destination).open.values()]


async def test_results_go_back_on_the_connection_that_the_vendor_made(tmp_path: Path):
    orders, results = free_port(), free_port()
    async with running(configuration(tmp_path, *pair(orders, results))) as service:
        vendor, lab = await Peer.connect(orders), await Peer.connect(results)
        assert parse_ack(await vendor.exchange(ORDERS.message(1))).code == "AA"
        for number in range(3):
            assert parse_ack(await lab.exchange(RESULTS.message(number))).code == "AA"
            assert await vendor.answer() == RESULTS.message(number)
            vendor.send(ack(RESULTS.message(number)))
        await settled(service, "results", "vendor", 3)
        assert await states(service, "results", "vendor") == {"delivered": 3}
        assert await vendor.silence(), "an acknowledgement gets none"
        assert await kept(service, "kind") == []
        await vendor.close()
        await lab.close()


async def test_a_large_answer_is_not_held_in_memory_once_it_was_heard(tmp_path: Path):
    orders, results = free_port(), free_port()
    async with running(configuration(tmp_path, *pair(orders, results))) as service:
        vendor, lab = await Peer.connect(orders), await Peer.connect(results)
        await vendor.exchange(ORDERS.message(1))
        await lab.exchange(RESULTS.message(0))
        assert await vendor.answer() == RESULTS.message(0)
        vendor.send(ack(RESULTS.message(0)) + b"ZZZ|" + b"x" * (2 * WEIGHTY) + b"\r")
        await settled(service, "results", "vendor", 1)
        assert service.doors.budget.peak > 2 * WEIGHTY
        assert service.doors.budget.total == 0
        await vendor.close()
        await lab.close()


async def test_one_at_a_time_and_what_the_vendor_sends_in_between_is_a_message_of_its_own(tmp_path: Path):
    orders, results = free_port(), free_port()
    async with running(configuration(tmp_path, *pair(orders, results))) as service:
        vendor, lab = await Peer.connect(orders), await Peer.connect(results)
        await vendor.exchange(ORDERS.message(1))
        for number in range(2):
            await lab.exchange(RESULTS.message(number))
        assert await vendor.answer() == RESULTS.message(0)
        assert await vendor.silence(), "the next one waits for the answer to the first"
        own = parse_ack(await vendor.exchange(ORDERS.message(2)))
        assert (own.code, own.control_id) == ("AA", ORDERS.control_id(2))
        vendor.send(ack(RESULTS.message(0)))
        assert await vendor.answer() == RESULTS.message(1)
        vendor.send(ack(RESULTS.message(1)))
        await settled(service, "results", "vendor", 2)
        assert service.ledger.channels["orders"].seq == 2
        await assert_balances(service)
        await vendor.close()
        await lab.close()


async def test_the_vendors_answer_and_its_own_message_in_one_piece(tmp_path: Path):
    orders, results = free_port(), free_port()
    async with running(configuration(tmp_path, *pair(orders, results))) as service:
        vendor, lab = await Peer.connect(orders), await Peer.connect(results)
        await vendor.exchange(ORDERS.message(1))
        await lab.exchange(RESULTS.message(0))
        assert await vendor.answer() == RESULTS.message(0)
        vendor.writer.write(encode(ORDERS.message(2)) + encode(ack(RESULTS.message(0))) + encode(ORDERS.message(3)))
        assert [parse_ack(await vendor.answer()).control_id for _ in range(2)] == [ORDERS.control_id(n) for n in (2, 3)]
        await settled(service, "results", "vendor", 1)
        await vendor.close()
        await lab.close()


async def test_while_the_vendor_is_not_connected_its_results_wait(tmp_path: Path):
    orders, results = free_port(), free_port()
    async with running(configuration(tmp_path, *pair(orders, results))) as service:
        lab = await Peer.connect(results)
        for number in range(3):
            await lab.exchange(RESULTS.message(number))
        await until(lambda: open_work(service, "results", "vendor") == [State.RETRYING])
        vendor = await Peer.connect(orders)
        await vendor.exchange(ORDERS.message(1))
        for number in range(3):
            assert await vendor.answer(15) == RESULTS.message(number)
            vendor.send(ack(RESULTS.message(number)))
        await settled(service, "results", "vendor", 3)
        await vendor.close()
        await lab.close()


async def test_a_vendor_that_goes_in_mid_exchange_leaves_the_message_unknown_and_gets_it_again(tmp_path: Path):
    orders, results = free_port(), free_port()
    async with running(configuration(tmp_path, *pair(orders, results))) as service:
        vendor, lab = await Peer.connect(orders), await Peer.connect(results)
        await vendor.exchange(ORDERS.message(1))
        await lab.exchange(RESULTS.message(0))
        assert await vendor.answer() == RESULTS.message(0)
        await vendor.close()
        await until(lambda: open_work(service, "results", "vendor") == [State.UNKNOWN])
        vendor = await Peer.connect(orders)
        await vendor.exchange(ORDERS.message(2))
        assert await vendor.answer(15) == RESULTS.message(0)
        vendor.send(ack(RESULTS.message(0)))
        await settled(service, "results", "vendor", 1)
        await vendor.close()
        await lab.close()


async def test_where_the_endpoint_says_park_a_person_decides(tmp_path: Path):
    orders, results = free_port(), free_port()
    async with running(configuration(tmp_path, *pair(orders, results, back(on_unknown="park")))) as service:
        vendor, lab = await Peer.connect(orders), await Peer.connect(results)
        await vendor.exchange(ORDERS.message(1))
        await lab.exchange(RESULTS.message(0))
        assert await vendor.answer() == RESULTS.message(0)
        await vendor.close()
        await until(lambda: open_work(service, "results", "vendor") == [State.PARKED])
        await lab.close()


async def test_a_vendor_that_does_not_answer_loses_the_connection_that_a_late_answer_would_come_on(tmp_path: Path):
    orders, results = free_port(), free_port()
    async with running(configuration(tmp_path, *pair(orders, results, back(ack_timeout=0.4)))) as service:
        vendor, lab = await Peer.connect(orders), await Peer.connect(results)
        await vendor.exchange(ORDERS.message(1))
        await lab.exchange(RESULTS.message(0))
        assert await vendor.answer() == RESULTS.message(0)
        assert await vendor.closed()
        await vendor.close()
        vendor = await Peer.connect(orders)
        await vendor.exchange(ORDERS.message(2))
        assert await vendor.answer(15) == RESULTS.message(0)
        vendor.send(ack(RESULTS.message(0)))
        await settled(service, "results", "vendor", 1)
        await vendor.close()
        await lab.close()


async def test_an_answer_to_something_else_ends_the_connection_it_came_on_and_no_other(tmp_path: Path):
    orders, results = free_port(), free_port()
    async with running(configuration(tmp_path, *pair(orders, results))) as service:
        first, lab = await Peer.connect(orders), await Peer.connect(results)
        await first.exchange(ORDERS.message(1))
        await lab.exchange(RESULTS.message(0))
        assert await first.answer() == RESULTS.message(0)
        second = await Peer.connect(orders)
        await second.exchange(ORDERS.message(2))
        first.send(ack(RESULTS.message(0), "AA", "ANOTHER"))
        assert await first.closed()
        assert await second.answer() == RESULTS.message(0), "again, on the connection that is left"
        second.send(ack(RESULTS.message(0)))
        await settled(service, "results", "vendor", 1)
        for peer in (first, second, lab):
            await peer.close()


async def test_results_go_on_the_newest_of_several_connections(tmp_path: Path):
    orders, results = free_port(), free_port()
    async with running(configuration(tmp_path, *pair(orders, results))) as service:
        vendors = [await Peer.connect(orders) for _ in range(3)]
        for number, vendor in enumerate(vendors):
            await vendor.exchange(ORDERS.message(number))
        lab = await Peer.connect(results)
        await lab.exchange(RESULTS.message(0))
        assert await vendors[2].answer() == RESULTS.message(0)
        vendors[2].send(ack(RESULTS.message(0)))
        await settled(service, "results", "vendor", 1)
        for peer in (*vendors, lab):
            await peer.close()


async def test_a_vendor_that_says_no_to_a_result(tmp_path: Path):
    orders, results = free_port(), free_port()
    async with running(configuration(tmp_path, *pair(orders, results))) as service:
        vendor, lab = await Peer.connect(orders), await Peer.connect(results)
        await vendor.exchange(ORDERS.message(1))
        await lab.exchange(RESULTS.message(0))
        await vendor.answer()
        vendor.send(ack(RESULTS.message(0), "AR"))
        await until(lambda: open_work(service, "results", "vendor") == [State.DEAD])
        await vendor.close()
        await lab.close()


# -- taps on our own connection to the old engine


class OneSocketEngine:
    """An old engine with one socket: what it makes of a message it sends on the connection on which it answers."""

    def __init__(self) -> None:
        self.answers: list[bytes] = []
        self.outputs = 0

    def says(self, payload: bytes) -> tuple[bytes, ...]:
        if parse_ack(payload) is not None:
            self.answers.append(payload)
            return ()
        self.outputs += 1
        return (ack(payload), stamped(payload, f"OE{self.outputs:010d}"))


def tapped(engine: int, port: int, **options: Any) -> tuple[Channel, Channel]:
    """The vendor's requests go to the old engine, whose results come back on that socket and go to the vendor's own."""
    endpoint = back()
    first = channel(
        "orders", port=port, old_engine=engine, taps=(Tap("vendor", OnLink(), endpoint, settle=0.2),),
        compare=Compare(within=2.0), destinations=(to(endpoint),), takes=Takes(("ORU^R01",)), rollback="none",
        **options,
    )  # fmt: skip
    return (first,)


def outputs(tmp_path: Path) -> list[tuple[str, int | None]]:
    with closing(sqlite3.connect(tmp_path / "interlock.db")) as connection:
        return connection.execute("select decision, seq from tap_output order by id").fetchall()


async def test_the_old_engines_output_on_our_connection_goes_to_the_vendor_and_its_answer_back(tmp_path: Path):
    old = OneSocketEngine()
    async with Scripted(old.says) as engine:
        port = free_port()
        async with running(configuration(tmp_path, *tapped(engine.port, port))) as service:
            vendor = await Peer.connect(port)
            for number in range(1, 4):
                vendor.send(RESULTS.message(number))
                came = [await vendor.answer(), await vendor.answer()]
                output = stamped(RESULTS.message(number), f"OE{number:010d}")
                assert sorted(len(each) for each in came) == sorted([len(ack(RESULTS.message(number))), len(output)])
                assert ack(RESULTS.message(number)) in came
                (result,) = [each for each in came if parse_ack(each) is None]
                vendor.send(ack(result))
                await until(lambda number=number: len(old.answers) == number)
                assert old.answers[-1] == ack(result)
            await settled(service, "orders", "legacy", 3)
            assert set(engine.sockets) == {1}
            await until(lambda: outputs(tmp_path) == [("forwarded", None)] * 3)
            await vendor.close()


async def test_the_vendors_answer_to_an_output_is_not_a_message(tmp_path: Path):
    old = OneSocketEngine()
    async with Scripted(old.says) as engine:
        port = free_port()
        async with running(configuration(tmp_path, *tapped(engine.port, port))) as service:
            vendor = await Peer.connect(port)
            vendor.send(RESULTS.message(1))
            came = [await vendor.answer(), await vendor.answer()]
            (result,) = [each for each in came if parse_ack(each) is None]
            vendor.send(ack(result))
            await until(lambda: len(old.answers) == 1)
            assert service.ledger.channels["orders"].seq == 1
            assert await kept(service, "kind") == []
            await vendor.close()


async def test_in_parallel_outputs_on_our_connection_are_compared(tmp_path: Path):
    old = OneSocketEngine()
    async with Scripted(old.says) as engine:
        port = free_port()
        async with running(configuration(tmp_path, *tapped(engine.port, port, phase="parallel"))) as service:
            vendor = await Peer.connect(port)
            for number in range(1, 4):
                vendor.send(RESULTS.message(number))
                for came in [await vendor.answer(), await vendor.answer()]:
                    if parse_ack(came) is None:
                        vendor.send(ack(came))
            comparer = service.comparisons.channels["orders"].comparer
            await until(lambda: comparer.counts()["vendor"].totals.matched == 3)
            await vendor.close()


async def test_after_a_cutover_the_vendor_gets_its_results_from_us_on_the_same_socket(tmp_path: Path):
    old = OneSocketEngine()
    async with Scripted(old.says) as engine:
        port = free_port()
        async with running(configuration(tmp_path, *tapped(engine.port, port, phase="parallel"))) as service:
            vendor = await Peer.connect(port)
            operator = Operator(service)
            await operator.waive_all("orders")
            run = await operator.run("cutover", "orders")
            assert run["state"] == "done", run
            vendor.send(RESULTS.message(1))
            came = [await vendor.answer(), await vendor.answer()]
            assert RESULTS.message(1) in came, "as it came, on its own connection"
            vendor.send(ack(RESULTS.message(1)))
            await settled(service, "orders", "vendor", 1)
            assert engine.payloads == []
            await vendor.close()
            await asyncio.sleep(0)


async def test_an_output_that_the_vendor_is_not_there_for_gets_no_answer(tmp_path: Path):
    """The old engine repeats it, as it would if the vendor were gone."""
    old = OneSocketEngine()
    async with Scripted(old.says) as engine:
        port = free_port()
        async with running(configuration(tmp_path, *tapped(engine.port, port))):
            vendor = await Peer.connect(port)
            vendor.send(RESULTS.message(1))
            await until(lambda: len(engine.payloads) == 1)
            await vendor.close()
            await until(lambda: outputs(tmp_path) == [("unanswered", None)])
            assert old.answers == []

"""One connection moves and comes back, on a running service: who sends what, and what the sender is told meanwhile."""

from __future__ import annotations

import asyncio
import re
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from engine.config.model import Replay, Rollback, Target
from engine.hl7.ack import parse_ack
from engine.ledger.model import Message, State
from engine.ledger.sqlite import journal
from engine.ledger.sqlite.ledger import SqliteLedger
from engine.ledger.sqlite.writer import Order
from engine.migration.phases import Phase, routing
from engine.migration.refused import Refused
from engine.simulate.messages import Messages
from engine.simulate.old_engine import Faults, OldEngine
from tests.support.house import Peer, assert_balances, channel, configuration, emr, open_work, running, until
from tests.support.moving import Operator
from tests.support.ports import free_port

MESSAGES = Messages("oru", seed=7)


def message(number: int) -> bytes:
    return MESSAGES.message(number)


def ids(*numbers: int) -> list[str]:
    return [MESSAGES.control_id(number) for number in numbers]


class Bench:
    """One channel with an old engine and a real endpoint, both of which count what reaches them."""

    def __init__(self, tmp_path: Path, *, rollback: Replay = "undelivered", faults: Faults | None = None) -> None:
        self.tmp_path = tmp_path
        self.rollback = rollback
        self.port = free_port()
        self.old = OldEngine()
        self.clinic = OldEngine(faults=faults)

    async def __aenter__(self) -> Bench:
        await self.old.start()
        await self.clinic.start()
        self.channel = channel(
            "acme-results", port=self.port, old_engine=self.old.port, destinations=(emr(self.clinic.port),),
            rollback=self.rollback,
        )  # fmt: skip
        self._running = running(configuration(self.tmp_path, self.channel))
        self.service = await self._running.__aenter__()
        self.operator = Operator(self.service)
        self.peer = await Peer.connect(self.port)
        return self

    async def __aexit__(self, *error: Any) -> None:
        await self.peer.close()
        await self._running.__aexit__(None, None, None)
        await self.old.stop()
        await self.clinic.stop()

    async def send(self, *numbers: int) -> None:
        for number in numbers:
            assert parse_ack(await self.peer.exchange(message(number))).code == "AA"

    async def parallel(self) -> None:
        """In parallel, and the gate lets it go live."""
        await self.operator.verb("parallel", "acme-results")
        await self.operator.waive_all("acme-results")

    async def live(self) -> None:
        await self.operator.verb("parallel", "acme-results")
        await self.operator.cut_over("acme-results")

    async def unanswered(self, faults: Faults) -> None:
        """The old engine has the first message, and does not answer it soon: a cutover has to wait."""
        await self.parallel()
        self.old.faults = faults
        self.peer.send(message(1))
        await until(lambda: self.old.control_ids == ids(1))

    async def clinic_has(self, *numbers: int) -> None:
        await until(lambda: len(self.clinic.control_ids) >= len(numbers))
        assert self.clinic.control_ids == ids(*numbers)


async def test_each_message_goes_out_by_the_side_whose_epoch_it_is_in(tmp_path: Path) -> None:
    async with Bench(tmp_path) as bench:
        await bench.send(1, 2)
        await bench.operator.verb("parallel", "acme-results")
        await bench.send(3, 4)
        await bench.operator.cut_over("acme-results")
        await bench.send(5, 6)
        await bench.clinic_has(5, 6)
        assert bench.old.control_ids == ids(1, 2, 3, 4)
        assert (await bench.operator.run("rollback", "acme-results"))["state"] == "done"
        await bench.send(7)
        assert bench.old.control_ids == ids(1, 2, 3, 4, 7)
        await bench.clinic_has(5, 6)
        await assert_balances(bench.service)


async def test_a_second_cutover_after_a_rollback_drains_what_the_rollback_granted(tmp_path: Path) -> None:
    async with Bench(tmp_path, rollback="all") as bench:
        await bench.live()
        await bench.send(1, 2, 3)
        await bench.clinic_has(1, 2, 3)
        run = await bench.operator.run("rollback", "acme-results")
        assert "3 go back into the old engine, 3 of these reach an endpoint twice" in run["said"]
        assert bench.old.control_ids == ids(1, 2, 3)
        await bench.send(4)
        assert (await bench.operator.run("cutover", "acme-results"))["state"] == "done"
        await bench.send(5)
        await bench.clinic_has(1, 2, 3, 5)
        assert bench.old.control_ids == ids(1, 2, 3, 4)
        await assert_balances(bench.service)


async def test_undelivered_gives_the_old_engine_only_what_the_endpoint_has_not(tmp_path: Path) -> None:
    async with Bench(tmp_path) as bench:
        await bench.live()
        await bench.send(1, 2)
        await bench.clinic_has(1, 2)
        await bench.clinic.stop()  # it is gone: what comes now waits
        await bench.send(3, 4)
        run = await bench.operator.run("rollback", "acme-results")
        assert run["state"] == "done", run
        await bench.send(5)
        assert bench.old.control_ids == ids(3, 4, 5)
        rows = await assert_balances(bench.service)
        live = {row["destination"]: row["states"] for row in rows if row["epoch"] == 3}
        assert live["legacy"] == {"superseded": 2, "delivered": 2}
        assert live[f"emr-{bench.clinic.port}"] == {"delivered": 2, "superseded": 2}


async def test_none_gives_the_old_engine_nothing(tmp_path: Path) -> None:
    async with Bench(tmp_path, rollback="none") as bench:
        await bench.live()
        await bench.send(1)
        await bench.clinic_has(1)
        assert (await bench.operator.run("rollback", "acme-results"))["state"] == "done"
        await bench.send(2)
        assert bench.old.control_ids == ids(2)
        await assert_balances(bench.service)


async def test_what_may_have_been_taken_is_neither_resent_nor_granted(tmp_path: Path) -> None:
    faults = Faults(by_id={ids(2)[0]: ("cut",) * 20})
    async with Bench(tmp_path, rollback="all", faults=faults) as bench:
        await bench.live()
        await bench.send(1, 2, 3)
        course = bench.service.ledger.channels["acme-results"].courses[1]
        await until(lambda: State.UNKNOWN in open_work(bench.service, "acme-results", course.name))
        plan = await bench.operator.plan("rollback", "acme-results")
        assert plan["counts"]["asked"] == 1
        run = await bench.operator.run("rollback", "acme-results")
        assert "1 wait for a person" in run["said"]
        sent = bench.clinic.control_ids.count(ids(2)[0])
        assert bench.old.control_ids == ids(1, 3)
        await bench.send(4)
        assert bench.clinic.control_ids.count(ids(2)[0]) == sent
        rows = await assert_balances(bench.service)
        live = {row["destination"]: row["states"] for row in rows if row["epoch"] == 3}
        assert live["legacy"] == {"delivered": 2, "parked": 1}
        assert live[course.name] == {"delivered": 1, "parked": 1, "superseded": 1}


async def test_senders_are_acknowledged_while_a_cutover_waits_and_nothing_of_theirs_goes_out_before(tmp_path) -> None:
    async with Bench(tmp_path) as bench:
        await bench.unanswered(Faults(delay=0.5))
        id = await bench.operator.begin("cutover", "acme-results")
        other = await Peer.connect(bench.port)
        assert parse_ack(await other.exchange(message(2), 0.4)).code == "AA"
        assert bench.old.control_ids == ids(1)
        assert parse_ack(await bench.peer.answer()).code == "AA"
        assert (await bench.operator.ended(id))["state"] == "done"
        await bench.clinic_has(2)
        assert bench.old.control_ids == ids(1)
        await other.close()


async def test_a_hold_stops_a_cutover_that_waits_and_nothing_has_changed(tmp_path: Path) -> None:
    async with Bench(tmp_path) as bench:
        await bench.unanswered(Faults(silent=1.0))
        id = await bench.operator.begin("cutover", "acme-results")
        await bench.operator.at_step(id, "drain")
        await bench.operator.verb("hold", "acme-results")
        run = await bench.operator.ended(id)
        assert (run["state"], bench.operator.phase("acme-results")) == ("aborted", "parallel")
        book = bench.service.ledger.channels["acme-results"]
        assert book.barrier is None
        assert book.hold is not None
        with pytest.raises(Refused, match="held by ops"):
            await bench.operator.verb("cutover", "acme-results")


async def test_held_messages_are_acknowledged_and_go_out_in_order_when_released(tmp_path: Path) -> None:
    async with Bench(tmp_path) as bench:
        await bench.operator.verb("hold", "acme-results")
        await bench.send(1, 2, 3)
        assert bench.old.control_ids == []
        assert "already" in (await bench.operator.verb("hold", "acme-results"))["said"][0]
        await bench.operator.verb("release", "acme-results")
        await until(lambda: bench.old.control_ids == ids(1, 2, 3))


async def test_a_cutover_whose_time_is_over_has_changed_nothing(tmp_path: Path) -> None:
    async with Bench(tmp_path) as bench:
        await bench.unanswered(Faults(silent=1.0))
        run = await bench.operator.run("cutover", "acme-results", timeout_s=0.3)
        assert run["state"] == "failed"
        assert "legacy: 1 sending" in run["said"]
        assert "nothing has changed" in run["said"]
        assert bench.operator.phase("acme-results") == "parallel"
        assert bench.service.ledger.channels["acme-results"].barrier is None


async def test_a_run_goes_on_after_a_restart(tmp_path: Path) -> None:
    async with Bench(tmp_path) as bench:
        await bench.unanswered(Faults(silent=1.0))
        id = await bench.operator.begin("cutover", "acme-results")
        await bench.service.stop()
        bench.old.faults = Faults()
        async with running(configuration(tmp_path, bench.channel)) as service:
            again = Operator(service)
            run = await again.ended(id)
            assert (run["state"], again.phase("acme-results")) == ("done", "live")
            assert bench.old.control_ids == ids(1, 1)
            await assert_balances(service)


async def test_a_run_does_not_outlive_a_change_of_what_it_was_begun_for(tmp_path: Path) -> None:
    async with Bench(tmp_path) as bench:
        await bench.unanswered(Faults(silent=1.0))
        id = await bench.operator.begin("cutover", "acme-results")
        await bench.service.stop()
        both = Target(None, (emr(bench.clinic.port), emr(free_port())))
        async with running(configuration(tmp_path, replace(bench.channel, target=both))) as service:
            again = Operator(service)
            run = await again.ended(id)
            assert (run["state"], again.phase("acme-results")) == ("aborted", "parallel")
            assert service.ledger.channels["acme-results"].barrier is None


async def test_what_was_to_be_captured_is_not_sent_after_a_crash(tmp_path: Path) -> None:
    clinic = OldEngine()
    await clinic.start()
    here = channel("acme-results", port=free_port(), old_engine=free_port(), destinations=(emr(clinic.port),),
                   phase="parallel")  # fmt: skip
    config = configuration(tmp_path, here)
    ledger = SqliteLedger(config.service.ledger, lambda: 1)
    ledger.start(lambda commit: None)
    book = await ledger.switch("acme-results", "parallel", routing(here, Phase.PARALLEL, {}), {}, who="a", why="test")
    course = book.courses[1]
    ledger.pause(course, False)
    ledger.store(Message(book, message(1), 1, ids(1)[0]))
    await ledger.transaction(lambda _: None)
    assert (course.claim, course.frontier) == (1, 0)  # claimed, and then the process was gone
    await ledger.close()
    async with running(config) as service:
        course = service.ledger.channels["acme-results"].courses[1]
        await until(lambda: not course.open and course.frontier == 1)
        rows = await assert_balances(service)
        assert next(row["states"] for row in rows if row["destination"] == course.name) == {"captured": 1}
    assert clinic.control_ids == []
    await clinic.stop()


async def test_repeating_what_is_done_says_so_and_changes_nothing(tmp_path: Path) -> None:
    async with Bench(tmp_path) as bench:
        await bench.live()
        epochs = len(bench.service.ledger.channels["acme-results"].epochs)
        for verb, said in (("cutover", "live already"), ("release", "nothing of acme is held"), ("abort", "no run")):
            answer = await bench.operator.verb(verb, "acme-results")
            assert said in answer["said"][0]
            assert answer["runs"] == []
        assert len(bench.service.ledger.channels["acme-results"].epochs) == epochs


async def test_connections_cut_over_side_by_side_do_not_mix(tmp_path: Path) -> None:
    clinics = [OldEngine() for _ in range(6)]
    old = OldEngine()
    await asyncio.gather(*(engine.start() for engine in (*clinics, old)))
    channels = [
        channel(
            f"c{n}-results", port=free_port(), old_engine=old.port, destinations=(emr(clinic.port),), rollback="none"
        )
        for n, clinic in enumerate(clinics)
    ]
    names = [each.id for each in channels]
    async with running(configuration(tmp_path, *channels)) as service:
        operator = Operator(service)
        await operator.verb("parallel", *names)
        await operator.waive_all(*names)
        for verb, phase in (("cutover", "live"), ("rollback", "parallel"), ("cutover", "live")):
            started = await operator.verb(verb, *names)
            ended = [await operator.ended(run["id"]) for run in started["runs"]]
            assert [run["state"] for run in ended] == ["done"] * 6
            assert {operator.phase(name) for name in names} == {phase}
        for n, each in enumerate(channels):
            peer = await Peer.connect(each.source.port)
            await peer.exchange(message(n))
            await peer.close()
            await until(lambda n=n: clinics[n].control_ids == ids(n))
    await asyncio.gather(*(engine.stop() for engine in (*clinics, old)))


@pytest.mark.parametrize("verb", ["abort", "hold"])
async def test_a_run_that_is_ended_while_it_takes_a_step_stays_ended(tmp_path: Path, verb: str) -> None:
    async with Bench(tmp_path) as bench:
        await bench.parallel()
        conductor, ledger = bench.service.conductor, bench.service.ledger
        step, put, other = conductor.step, ledger._put, []

        async def slow(id: int, name: str) -> None:
            """The disk is slow; an order of somebody else is queued before the run's own step."""
            gate, queued = threading.Event(), asyncio.Event()
            put(Order(lambda book: gate.wait(5)))
            with mock.patch.object(ledger, "_put", lambda order: (put(order), queued.set())):
                other.append(asyncio.create_task(bench.operator.verb(verb, "acme-results")))
                async with asyncio.timeout(10):
                    await queued.wait()
            asyncio.get_running_loop().call_later(0.1, gate.set)
            await step(id, name)

        conductor.step = slow  # type: ignore[method-assign]
        id = await bench.operator.begin("cutover", "acme-results")
        run = await bench.operator.ended(id)
        await asyncio.gather(*other)
        assert (run["state"], bench.operator.phase("acme-results")) == ("aborted", "parallel")
        assert bench.service.ledger.channels["acme-results"].barrier is None
        rows = await bench.service.ledger.read(lambda reader: journal.runs(reader.connection, active=True))
        assert rows == []


async def test_what_still_moves_towards_the_old_engine_cannot_be_carried(tmp_path: Path) -> None:
    async with Bench(tmp_path) as bench:
        await bench.parallel()
        await bench.old.stop()
        bench.peer.send(message(1))
        await until(lambda: open_work(bench.service, "acme-results", "legacy") == [State.RETRYING])
        run = await bench.operator.run("cutover", "acme-results", carry=["all"], timeout_s=0.5)
        assert (run["state"], bench.operator.phase("acme-results")) == ("failed", "parallel")


async def test_a_channel_that_was_added_later_follows_its_connection(tmp_path: Path) -> None:
    async with Bench(tmp_path, rollback="none") as bench:
        await bench.live()
        later = channel("acme-orders", port=free_port(), old_engine=bench.old.port,
                        destinations=(emr(bench.clinic.port),), rollback="none")  # fmt: skip
        await bench.service.stop()
        async with running(configuration(tmp_path, bench.channel, later)) as service:
            operator = Operator(service)
            await operator.verb("parallel", "acme-orders")
            assert (operator.phase("acme-orders"), operator.phase("acme-results")) == ("parallel", "live")
            await operator.cut_over("acme-orders")
            assert (await operator.run("rollback", "acme-orders"))["state"] == "done"
            assert {operator.phase("acme-orders"), operator.phase("acme-results")} == {"parallel"}


async def test_after_its_time_a_rollback_wants_an_override_also_after_a_reload(tmp_path: Path) -> None:
    async with Bench(tmp_path, rollback="none") as bench:
        await bench.service.stop()
        short = replace(bench.channel, rollback=Rollback("none", 0.001))
        async with running(configuration(tmp_path, short)) as service:
            operator = Operator(service)
            await operator.verb("parallel", "acme-results")
            await operator.cut_over("acme-results")
        both = Target(None, (emr(bench.clinic.port), emr(free_port())))
        async with running(configuration(tmp_path, replace(short, target=both))) as service:
            operator = Operator(service)
            with pytest.raises(Refused, match="--override-until"):
                await operator.verb("rollback", "acme-results")
            assert (await operator.run("rollback", "acme-results", override_until=True))["state"] == "done"


async def test_no_gate_no_cutover(tmp_path: Path) -> None:
    async with Bench(tmp_path) as bench:
        await bench.operator.verb("parallel", "acme-results")
        with pytest.raises(Refused) as refused:
            await bench.operator.verb("cutover", "acme-results")
        assert any("parallel run" in sentence for sentence in refused.value.sentences)
        assert bench.operator.phase("acme-results") == "parallel"


async def test_a_drain_says_what_it_does_not_wait_for(tmp_path: Path) -> None:
    async with Bench(tmp_path, faults=Faults(by_id={ids(2)[0]: ("ar",)})) as bench:
        await bench.live()
        await bench.send(1, 2)
        clinic = emr(bench.clinic.port).name
        await until(lambda: open_work(bench.service, "acme-results", clinic) == [State.DEAD])
        id = await bench.operator.begin("drain", "acme-results")
        run = await bench.operator.at_step(id, "drained")
        assert run["said"].startswith(f"drained: acme-results up to 2 is settled but for 1 dead at {clinic}; ")
        await bench.operator.verb("release", "acme-results")
        assert (await bench.operator.ended(id))["state"] == "done"


async def test_a_verb_that_finds_it_done_says_so_once_and_the_record_tells_times_for_people(tmp_path: Path) -> None:
    async with Bench(tmp_path) as bench:
        await bench.operator.verb("hold", "acme-results")
        again = await bench.operator.verb("hold", "acme-results")
        assert again["said"] == [f"{again['plans'][0]['already']}; nothing is changed"]
        await bench.operator.verb("waive", "acme-results", check="window")
        waived, held, *_ = await bench.service.ledger.read(lambda reader: audit(reader.connection))
        assert re.fullmatch(r"window until 20\d\d-\d\d-\d\dT[\d:.]+Z", waived)
        assert re.fullmatch(r"until 20\d\d-\d\d-\d\dT[\d:.]+Z", held)


def audit(connection: Any) -> list[str]:
    """What stood after each action, the newest first."""
    return [after for (after,) in connection.execute("SELECT after FROM audit ORDER BY id DESC")]

"""A channel that stops by itself behind a dead message, and what sets it going again."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from engine.ledger.course import POLICY, ChannelBook, Course
from engine.ledger.model import OpenWork, State
from engine.ledger.outcome import Outcome, Result
from engine.ledger.routing import Epoch, Routing
from engine.service.moments import now_us
from engine.service.remedies import Remedies
from engine.service.view import View
from engine.simulate.old_engine import OldEngine
from tests.support.fake import Fake, FakeWays, crash_image
from tests.support.house import (
    MEDPLUM,
    Peer,
    assert_balances,
    channel,
    configuration,
    emr,
    exchanged,
    running,
    until,
    written,
)
from tests.support.moving import Operator, decide
from tests.support.ports import free_port
from tests.support.scripted import Scripted, acknowledges

NO = Outcome(Result.NEVER, "HTTP 422")
YES = Outcome(Result.DELIVERED)


def message(n: int, patient: str = "7") -> bytes:
    return f"MSH|^~\\&|LAB|L|EMR|C|20260101||ORU^R01|C{n}|P|2.5\rPID|1||{patient}^^^H\rOBX|1|ST|T||x\r".encode()


class Scene:
    """One channel to a Medplum in the test's hands, whose policy stops the channel, and to a clinic. `fails`: numbers
    that Medplum will never take."""

    def __init__(self, folder: Path, clinic: Scripted, **options: Any) -> None:
        self.port = free_port()
        self.fails: set[int] = set()
        self.fake = Fake(lambda work: NO if work.message.seq in self.fails else YES, dead="stops_channel")
        self.clinic = clinic
        self.channel = channel("acme", port=self.port, destinations=(MEDPLUM, emr(clinic.port)), **options)
        self.configuration = configuration(folder, self.channel, medplum="http://127.0.0.1:1")

    @asynccontextmanager
    async def running(self) -> Any:
        async with running(self.configuration, FakeWays(self.configuration, self.fake)) as self.service:
            self.remedies = Remedies(self.service)
            self.book = self.service.ledger.channels["acme"]
            yield self
            await assert_balances(self.service)

    async def send(self, *messages: bytes) -> list[bytes]:
        return await exchanged(self.port, *messages)

    def withheld(self) -> list[Callable[[], None]]:
        """Of what is sent to Medplum from now on: each is refused when its own is called."""
        refusals: list[Callable[[], None]] = []
        self.fake.answer = lambda work: refusals.append(lambda: work.done(work, NO))
        return refusals

    async def stopped(self) -> None:
        await until(lambda: self.book.stopped)
        await written(self.service)

    async def decide(self, verb: str, *numbers: int, **options: Any) -> dict[str, Any]:
        return await decide(self.service, verb, *numbers, **options)

    def open(self, destination: str) -> dict[int, State]:
        course = self.book.course(destination)
        assert course is not None
        return {work.seq: work.state for work in course.open.values()}

    async def audited(self) -> list[tuple[str, str, str]]:
        query = "select verb, who, subject from audit where verb in ('hold', 'release') order by id"
        return await self.service.ledger.read(lambda reader: reader.connection.execute(query).fetchall())

    async def status(self) -> Any:
        return (await View(self.service, "1").status())["channels"][0]


@pytest.fixture
async def it(tmp_path: Path) -> Any:
    async with Scripted() as clinic, Scene(tmp_path, clinic).running() as scene:
        yield scene


async def test_nothing_is_sent_anywhere_any_more_and_senders_are_acknowledged(it: Scene) -> None:
    it.fails = {2}
    await it.send(message(1))
    await it.send(message(2))
    await it.stopped()
    await until(lambda: it.book.course(f"emr-{it.clinic.port}").in_flight() == 0)
    before = len(it.clinic.payloads)
    answers = await it.send(message(3), message(4, "8"))
    assert all(b"\rMSA|AA|" in answer for answer in answers)
    await written(it.service)
    assert it.fake.sent == [1, 2]
    assert len(it.clinic.payloads) == before <= 2


async def test_it_is_seen_in_status_dead_show_and_the_audit_record(it: Scene) -> None:
    it.fails = {1}
    await it.send(message(1))
    await it.stopped()
    hold = (await it.status())["hold"]
    assert (hold["stopped"], hold["who"], hold["why"]) == (True, POLICY, "message 1 is dead at medplum")
    assert hold["until"] == hold["since"], "it pages at once"
    (row,) = await it.remedies.work(selector=None, messages=[], destination=None, state=None)
    assert row["why"] == "HTTP 422; its channel is stopped"
    shown = await View(it.service, "1").message("acme", 1)
    assert [each["reason"] for each in shown["receipts"] if each["state"] == "dead"] == [row["why"]]
    assert await it.audited() == [("hold", POLICY, "acme")]


@pytest.mark.parametrize("verb", ["retry", "discard"])
async def test_whoever_settles_the_dead_message_sets_it_going(it: Scene, verb: str) -> None:
    it.fails = {1}
    await it.send(message(1), message(2), message(3, "8"))
    await it.stopped()
    it.fails = set()
    done = await it.decide(verb, 1)
    assert "acme: had stopped by itself, and goes on" in done["plan"]["lines"]
    await until(lambda: it.book.hold is None and not it.open("medplum") and it.book.courses[0].frontier == 3)
    assert sorted(set(it.fake.sent)) == [1, 2, 3]
    await until(lambda: len(it.clinic.payloads) == 3)
    assert await it.audited() == [("hold", POLICY, "acme"), ("release", "ann", "acme")]


async def test_tried_again_in_vain_it_stops_again(it: Scene) -> None:
    it.fails = {1}
    await it.send(message(1))
    await it.stopped()
    await it.decide("retry", 1)
    await until(lambda: it.fake.sent == [1, 1])
    await it.stopped()
    assert [verb for verb, _, _ in await it.audited()] == ["hold", "release", "hold"]


async def test_as_long_as_one_of_several_is_undecided_it_stays_stopped(it: Scene) -> None:
    waiting = it.withheld()
    await it.send(message(1, "1"), message(2, "2"))
    await until(lambda: len(waiting) == 2)  # both on their way before either is dead
    for answer in waiting:
        answer()
    await until(lambda: it.open("medplum") == {1: State.DEAD, 2: State.DEAD})
    done = await it.decide("discard", 1)
    assert "acme: stays stopped, 1 more are dead where that stops it" in done["plan"]["lines"]
    assert it.book.stopped
    await it.decide("discard", 2)
    await until(lambda: it.book.hold is None)


async def test_what_was_to_be_tried_again_meanwhile_is_tried_again_then(it: Scene) -> None:
    later = iter([Outcome(Result.NOT_TAKEN, "busy")])
    it.fake.answer = lambda work: NO if work.message.seq == 2 else next(later, YES)
    await it.send(message(1, "1"), message(2, "2"))
    await it.stopped()
    course = it.book.courses[0]
    await until(lambda: course.open[1, 1, 1].due + 100_000 < now_us())  # it has asked, in vain
    assert it.fake.sent == [1, 2]
    await it.decide("discard", 2)
    await until(lambda: it.fake.sent == [1, 2, 1] and not course.open)


async def test_a_sender_that_waits_for_a_relayed_answer_hears_ours(tmp_path: Path) -> None:
    """C is stored behind B, whose answer the clinic owes, when A dies at Medplum."""
    async with Scripted(lambda payload: acknowledges(payload) if b"|C1|" in payload else ()) as clinic:
        scene = Scene(tmp_path, clinic, ack=f"emr-{clinic.port}")
        async with scene.running() as it:
            dies = it.withheld()
            peers = [await Peer.connect(it.port) for _ in range(3)]
            assert b"\rMSA|AA|C1" in await peers[0].exchange(message(1))
            await until(lambda: len(dies) == 1)
            peers[1].send(message(2))
            await until(lambda: len(clinic.payloads) == 2)
            peers[2].send(message(3))
            await until(lambda: it.book.seq == 3)
            dies[0]()
            assert b"\rMSA|AA|C3" in await peers[2].answer(3)
            assert await peers[1].silence(), "it may have been taken: only the clinic can tell"
            for peer in peers:
                await peer.close()


def test_what_died_while_the_old_engine_did_the_work_stops_nothing() -> None:
    book = ChannelBook(1, "acme", 4)
    book.epochs = [Epoch(1, 1, "parallel", Routing(())), Epoch(2, 3, "live", Routing(()))]
    course = Course(book, 1, "medplum", 8, False)
    book.courses = [course]
    dead = [OpenWork(seq, 1, 1, seq, 1 if seq < 3 else 2, State.DEAD, 0, 1, "", True) for seq in (1, 3)]
    course.open = {work.key: work for work in dead}
    assert book.stopping() == []
    course.stops = True
    assert book.stopping() == [dead[1]]


async def test_a_person_releases_it_and_only_the_dead_ones_lane_waits(it: Scene) -> None:
    it.fails = {1}
    await it.send(message(1), message(2), message(3, "8"))
    await it.stopped()
    await Operator(it.service).verb("release", "acme")
    await until(lambda: 3 in it.fake.sent and len(it.clinic.payloads) == 3)
    assert 2 not in it.fake.sent
    await until(lambda: it.open("medplum") == {1: State.DEAD, 2: State.PARKED})
    assert it.book.hold is None


async def test_the_stop_and_the_death_are_durable_together(tmp_path: Path) -> None:
    """Whatever is killed when: a start on a ledger where the message is dead finds the channel stopped."""
    async with Scripted() as clinic:
        scene = Scene(tmp_path, clinic)
        async with scene.running() as it:
            it.fails = {1}
            seen: list[tuple[bool, bool]] = []
            died = it.service.moves.died

            def durable(settlement: Any) -> None:
                crash_image(it.service.ledger.path, tmp_path / "next")
                died(settlement)
                seen.append((settlement.state is State.DEAD, it.book.stopped))

            it.service.moves.died = durable
            await it.send(message(1))
            await until(lambda: bool(seen))
            assert seen == [(True, True)]
        after = Scene(tmp_path / "next", clinic)
        async with after.running():
            assert after.open("medplum") == {1: State.DEAD}
            assert after.book.stopped
            await after.send(message(2, "8"))
            await written(after.service)
            assert after.fake.sent == []


async def test_where_the_old_engine_does_the_work_only_the_lane_waits(tmp_path: Path, old_engine: OldEngine) -> None:
    async with Scripted() as clinic:
        scene = Scene(tmp_path, clinic, old_engine=old_engine.port, phase="parallel")
        async with scene.running() as it:
            it.fails = {1}
            await it.send(message(1), message(2), message(3, "8"))
            await until(lambda: it.open("medplum") == {1: State.DEAD, 2: State.PARKED} and 3 in it.fake.sent)
            assert it.book.hold is None
            assert old_engine.control_ids == ["C1", "C2", "C3"]


async def test_what_a_person_holds_stays_the_persons(it: Scene) -> None:
    waiting = it.withheld()
    await it.send(message(1))
    await until(lambda: len(waiting) == 1)
    await Operator(it.service).verb("hold", "acme")
    waiting[0]()
    await until(lambda: it.open("medplum") == {1: State.DEAD})
    await it.decide("discard", 1)
    assert it.book.hold is not None
    assert not it.book.stopped


async def test_a_drain_ends_when_its_channel_stops(it: Scene) -> None:
    waiting = it.withheld()
    await it.send(message(1))
    await until(lambda: len(waiting) == 1)
    operator = Operator(it.service)
    await operator.verb("drain", "acme")
    waiting[0]()
    await it.stopped()
    await until(lambda: it.book.barrier is None)
    assert it.book.stopped


async def test_while_a_rollback_takes_the_channel_back_it_is_not_in_its_way(it: Scene) -> None:
    waiting = it.withheld()
    await it.send(message(1))
    await until(lambda: len(waiting) == 1)
    shut = frozenset({f"emr-{it.clinic.port}"})
    await it.service.ledger.transaction(lambda book: book.bar(it.book, 99, shut))
    waiting[0]()
    await until(lambda: it.open("medplum") == {1: State.DEAD})
    assert it.book.hold is None
    await it.service.ledger.transaction(lambda book: book.lift(it.book))

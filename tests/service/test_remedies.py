"""What people do about single messages: what is dead, tried again, edited, discarded, replayed."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import asynccontextmanager, closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from engine.config.model import Destination
from engine.ledger.model import State
from engine.ledger.outcome import Outcome, Result
from engine.ledger.sqlite import replays
from engine.ledger.sqlite.backup import contents
from engine.ledger.sqlite.loading import LedgerError
from engine.migration.refused import Refused
from engine.migration.selection import Selector
from engine.service.evidence import Evidence
from engine.service.remedies import Remedies
from engine.service.view import View
from tests.support.fake import Fake, FakeWays, crash_image
from tests.support.house import (
    MEDPLUM,
    assert_balances,
    channel,
    configuration,
    exchanged,
    running,
    states,
    until,
    written,
)
from tests.support.moving import BY, decide, replay
from tests.support.ports import free_port

NO = Outcome(Result.NEVER, "no such thing", local=True)
YES = Outcome(Result.DELIVERED)


def message(n: int, patient: str = "7", text: str = "x") -> bytes:
    return (f"MSH|^~\\&|LAB|L|EMR|C|20260101||ORU^R01|C{n}|P|2.5\rPID|1||{patient}^^^H\rOBX|1|ST|T||{text}\r").encode()


class Scene:
    """One live channel to a destination in the test's hands. `fails`: numbers that it will never take."""

    def __init__(self, folder: Path, *more: Destination) -> None:
        self.port = free_port()
        self.fails: set[int] = set()
        self.fake = Fake(lambda work: NO if work.message.seq in self.fails else YES)
        chan = channel("acme", port=self.port, destinations=(MEDPLUM, *more))
        self.configuration = configuration(folder, chan, medplum="http://127.0.0.1:1")

    @asynccontextmanager
    async def live(self) -> Any:
        async with running(self.configuration, FakeWays(self.configuration, self.fake)) as self.service:
            self.remedies = Remedies(self.service)
            self.course = self.service.ledger.channels["acme"].courses[0]
            yield self
            await until(lambda: not self.service.replaying.running())
            await assert_balances(self.service)

    async def send(self, *messages: bytes) -> None:
        await exchanged(self.port, *messages)
        await self.quiet()

    async def quiet(self) -> None:
        """All is settled, or waits for a person or behind what does."""
        waiting = {State.DEAD, State.PARKED}
        await until(
            lambda: (
                self.course.frontier == self.course.channel.seq
                and all(work.state in waiting for work in self.course.open.values())
            )
        )
        await written(self.service)

    def open(self) -> dict[int, str]:
        return {work.seq: work.state.label for work in self.course.open.values()}

    async def dead(self) -> list[int]:
        rows = await self.remedies.work(selector=None, messages=[], destination=None, state=None)
        return [row["seq"] for row in rows]

    async def decide(self, verb: str, *numbers: int, **options: Any) -> dict[str, Any]:
        return await decide(self.service, verb, *numbers, **options)

    async def replay(self, first: int, last: int, **options: Any) -> dict[str, Any]:
        return await replay(self.service, "medplum", first, last, **options)

    async def audited(self) -> list[tuple[str, str]]:
        query = "select verb, subject from audit where who = 'ann' order by id"
        return await self.service.ledger.read(lambda reader: reader.connection.execute(query).fetchall())


@pytest.fixture
async def it(tmp_path: Path) -> Any:
    async with Scene(tmp_path).live() as scene:
        yield scene


class TestRetryAndDiscard:
    async def test_what_is_dead_is_listed_with_what_waits_behind_it(self, it: Scene):
        it.fails = {1}
        await it.send(message(1), message(2), message(3, "8"), message(4))
        (row,) = await it.remedies.work(selector=None, messages=[], destination=None, state=None)
        assert (row["seq"], row["state"], row["person"], row["behind"]) == (1, "dead", True, 2)
        assert row["why"] == "no such thing"
        (told,) = (await View(it.service, "0").status())["channels"][0]["destinations"]
        assert (told["counts"], told["wanted"]) == ({"delivered": 1, "parked": 2, "dead": 1}, {"dead": 1})

    async def test_what_waits_behind_it_is_counted_in_its_own_lane_alone(self, it: Scene):
        it.fails = {1, 2}
        await it.send(message(1, "1"), message(2, "2"), *(message(n, "1") for n in range(3, 6)), message(6, "3"))
        rows = await it.remedies.work(selector=None, messages=[], destination=None, state=None)
        assert [(row["seq"], row["behind"]) for row in rows] == [(1, 3), (2, 0)]

    async def test_retried_in_its_place_it_goes_before_those_behind_it(self, it: Scene):
        it.fails = {1}
        await it.send(message(1), message(2), message(3))
        it.fails, it.fake.sent = set(), []
        assert (await it.decide("retry", 1))["done"] == 1
        await it.quiet()
        assert it.fake.sent == [1, 2, 3]
        assert await states(it.service, "acme", "medplum") == {"delivered": 3}
        assert await it.audited() == [("retry", "acme/1 at medplum")]

    async def test_retried_in_vain_it_is_dead_again(self, it: Scene):
        it.fails = {1}
        await it.send(message(1), message(2))
        await it.decide("retry", 1)
        await until(lambda: it.fake.sent == [1, 1])
        await it.quiet()
        assert it.open() == {1: "dead", 2: "parked"}

    async def test_discarded_it_is_never_sent_and_those_behind_it_go_on(self, it: Scene):
        it.fails = {1}
        await it.send(message(1), message(2), message(3))
        it.fake.sent = []
        assert (await it.decide("discard", 1))["done"] == 1
        await until(lambda: not it.course.open)
        assert it.fake.sent == [2, 3]
        assert await states(it.service, "acme", "medplum") == {"delivered": 2, "discarded": 1}

    async def test_all_that_wants_a_person_at_once(self, it: Scene):
        it.fails = {1, 2, 4}
        await it.send(message(1, "1"), message(2, "2"), message(3, "3"), message(4, "4"))
        assert (await it.decide("discard"))["done"] == 3
        assert it.open() == {}

    async def test_more_than_a_few_want_their_number_said(self, it: Scene):
        it.fails = set(range(1, 23))
        await it.send(*(message(n, str(n)) for n in range(1, 23)))
        with pytest.raises(Refused, match="22 messages"):
            await it.decide("discard")
        with pytest.raises(Refused, match="22 messages"):
            await it.decide("discard", confirm=21)
        assert len(it.open()) == 22
        assert (await it.decide("discard", confirm=22))["done"] == 22

    async def test_a_dry_run_changes_nothing(self, it: Scene):
        it.fails = {1}
        await it.send(message(1))
        said = await it.decide("discard", 1, dry_run=True)
        assert said["plan"]["count"] == 1
        assert it.open() == {1: "dead"}
        assert await it.audited() == []

    async def test_what_waits_behind_another_is_not_sent_before_it(self, it: Scene):
        it.fails = {1}
        await it.send(message(1), message(2))
        with pytest.raises(Refused, match="waits behind"):
            await it.decide("retry", 2)

    async def test_what_waits_behind_another_can_be_discarded(self, it: Scene):
        it.fails = {1}
        await it.send(message(1), message(2), message(3))
        await it.decide("discard", 2)
        it.fails, it.fake.sent = set(), []
        await it.decide("retry", 1)
        await until(lambda: not it.course.open)
        assert it.fake.sent == [1, 3]

    async def test_what_is_not_open_is_named(self, it: Scene):
        await it.send(message(1))
        with pytest.raises(Refused, match="Not open: acme/1, acme/9"):
            await it.decide("retry", 1, 9)

    async def test_what_waits_or_is_on_its_way_is_named_as_such(self, it: Scene):
        it.fake.answer = lambda work: None
        window = it.course.window
        last = window + 1
        await exchanged(it.port, *(message(number, str(number)) for number in range(1, last + 1)))
        await until(lambda: it.course.in_flight() == window)
        assert await states(it.service, "acme", "medplum") == {"sending": window, "waiting": 1}
        with pytest.raises(Refused) as refused:
            await it.decide("discard", 1, last, last + 1)
        assert str(refused.value) == (
            f"Waiting, and not begun: acme/{last}. What waits for its turn is sent when it comes, and cannot be decided"
            " about before: `hold` the channel to keep it from going out, or wait until it has been tried."
            f" On its way at this moment: acme/1. Not open: acme/{last + 1}."
        )


class TestEdit:
    async def test_it_is_sent_in_its_place_with_the_new_bytes_and_stays_as_it_came(self, it: Scene):
        it.fails = {1}
        sent: list[bytes] = []
        it.fake.answer = lambda work: NO if b"bad" in work.message.raw else (sent.append(work.message.raw), YES)[1]
        await it.send(message(1, text="bad"), message(2))
        done = await it.remedies.edit(("acme", 1), "medplum", message(1, text="good"), **BY)
        assert done["plan"]["lines"][0].endswith("OBX-5 (segment 3)")
        await until(lambda: not it.course.open)
        assert sent == [message(1, text="good"), message(2)]
        raw = await it.service.ledger.message(it.course.channel, 1)
        assert raw.raw == message(1, text="bad")
        await written(it.service)
        receipts = await it.service.ledger.read(
            lambda r: r.connection.execute("select seq, revision, state from receipt order by id").fetchall()
        )
        assert receipts == [(1, 2, State.DELIVERED), (2, 1, State.DELIVERED)]
        await it.replay(1, 1)
        await until(lambda: len(sent) == 3)
        assert sent[2] == message(1, text="good"), "what went there is what goes there once more"

    @pytest.mark.parametrize(
        ("raw", "why"),
        [
            (message(9), "MSH-10 differs"),
            (b"nothing", "no HL7 v2 message"),
            (message(1), "nothing was changed"),
        ],
    )
    async def test_what_is_refused(self, it: Scene, raw: bytes, why: str):
        it.fails = {1}
        await it.send(message(1))
        with pytest.raises(Refused, match=why):
            await it.remedies.edit(("acme", 1), "medplum", raw, **BY)
        assert it.open() == {1: "dead"}

    async def test_two_of_one_message_at_two_destinations_at_once_are_two_revisions(self, tmp_path: Path):
        scene = Scene(tmp_path, replace(MEDPLUM, name="medplum-2"))
        scene.fake.answer = lambda work: YES if b"good" in work.message.raw else NO
        async with scene.live():
            await scene.send(message(1, text="bad"))
            await until(lambda: all(course.open for course in scene.course.channel.courses))
            edits = [scene.remedies.edit(("acme", 1), to, message(1, text=f"good {to}"), **BY)
                     for to in ("medplum", "medplum-2")]  # fmt: skip
            await asyncio.gather(*edits)
            await until(lambda: not any(course.open for course in scene.course.channel.courses))
            rows = await scene.service.ledger.read(
                lambda reader: reader.connection.execute("select distinct revision, raw from revision").fetchall()
            )
            assert sorted(rows) == [(2, message(1, text="good medplum")), (3, message(1, text="good medplum-2"))]

    async def test_one_that_changes_the_patient_stands_in_both_lanes(self, it: Scene, tmp_path: Path):
        it.fails = {1}
        it.fake.answer = lambda work: NO if b"1^^^H" in work.message.raw else YES
        await it.send(message(1, "1"), message(2, "2"))
        it.fake.answer = lambda work: NO
        await it.remedies.edit(("acme", 1), "medplum", message(1, "2"), **BY)
        await it.quiet()
        crash_image(it.service.ledger.path, tmp_path / "next")
        after = Scene(tmp_path / "next")
        after.fails = {1}
        async with after.live():
            await after.quiet()
            await after.send(message(3, "2"), message(4, "1"), message(5, "3"))
            assert after.open() == {1: "dead", 3: "parked", 4: "parked"}
            await after.decide("discard", 1)
            await until(lambda: not after.course.open)


class TestDamaged:
    """The disk has made other bytes of a message."""

    def damage(self, scene: Scene, folder: Path, n: int, flip: int) -> Scene:
        """What a SIGKILL leaves now, with one bit of a message changed."""
        crash_image(scene.service.ledger.path, folder)
        with closing(sqlite3.connect(folder / "interlock.db")) as file:
            (raw,) = file.execute("select raw from message where seq = ?", (n,)).fetchone()
            changed = raw[:flip] + bytes([raw[flip] ^ 1]) + raw[flip + 1 :]
            file.execute("update message set raw = ? where seq = ?", (changed, n))
            file.commit()
        return Scene(folder)

    @pytest.mark.parametrize("place", [b"ORU^R01", b"C2", b"|P|"])
    async def test_it_is_never_sent_and_goes_in_its_place_with_the_right_bytes(
        self, it: Scene, tmp_path: Path, place: bytes
    ):
        it.fails = {1}
        await it.send(message(1), message(2), message(3))
        after = self.damage(it, tmp_path / "next", 2, message(2).index(place))
        sent: list[bytes] = []
        after.fake.answer = lambda work: (sent.append(work.message.raw), YES)[1]
        async with after.live():
            await after.decide("retry", 1)
            await until(lambda: after.open() == {2: "dead", 3: "parked"})
            (row,) = await after.remedies.work(selector=None, messages=[], destination=None, state=None)
            assert row["why"].startswith("its bytes in the ledger are not those that were stored")
            evidence = Evidence(after.service.conductor, after.service.comparisons, after.configuration.channels)
            found = await evidence.reconcile(Selector(ids=("acme",)), None)
            assert found["problems"][:1] == ["acme/2: its bytes are not those that were stored"]
            await after.remedies.edit(("acme", 2), "medplum", message(2), **BY)
            await until(lambda: not after.course.open)
        assert sent == [message(1), message(2), message(3)]

    async def test_one_whose_patient_cannot_be_told_any_more_is_never_sent_either_and_holds_back_no_other(
        self, it: Scene, tmp_path: Path
    ):
        it.fails = {1}
        await it.send(message(1), message(2), message(3))
        after = self.damage(it, tmp_path / "next", 2, message(2).index(b"7^^^H"))
        async with after.live():
            await after.decide("retry", 1)
            await until(lambda: after.fake.sent == [1, 3] and after.open() == {2: "dead"})
            await after.decide("discard", 2)
            await until(lambda: not after.course.open)

    async def test_one_that_was_sent_is_not_replayed(self, it: Scene, tmp_path: Path):
        await it.send(message(1), message(2))
        after = self.damage(it, tmp_path / "next", 1, 70)
        async with after.live():
            await after.replay(1, 2)
            await until(lambda: after.open() == {1: "dead", 2: "parked"} or after.open() == {1: "dead"})
            assert 1 not in after.fake.sent
            await after.decide("discard", 1)
            await until(lambda: not after.course.open)

    async def test_no_backup_is_kept_from_being_made(self, it: Scene, tmp_path: Path):
        await it.send(message(1))
        after = self.damage(it, tmp_path / "next", 1, 70)
        async with after.live():
            with closing(sqlite3.connect(after.service.ledger.path)) as file:
                assert contents(file)["messages"] == 1


class TestReplay:
    async def test_settled_messages_go_once_more_in_their_order(self, it: Scene):
        await it.send(*map(message, range(1, 31)))
        it.fake.sent = []
        done = await it.replay(5, 25, confirm=21)
        assert done["replay"]["total"] == 21
        await until(lambda: len(it.fake.sent) == 21)
        await until(lambda: not it.course.open)
        assert it.fake.sent == [*range(5, 26)]
        (row,) = await assert_balances(it.service)
        assert row["states"] == {"delivered": 30}
        assert row["replayed"] == {"begun": 21, "states": {"delivered": 21}}
        assert await it.audited() == [("replay", "acme to medplum")]

    async def test_what_is_open_or_not_there_is_left_out_and_said(self, it: Scene):
        it.fails = {2}
        await it.send(*(message(n, str(n)) for n in range(1, 4)))
        said = await it.replay(1, 9, dry_run=True)
        assert said["plan"]["count"] == 2
        assert said["plan"]["lines"][-1] == "left out (1 still open there: retry those)"
        assert "2 of them were delivered there already: the receiver gets them again" in said["plan"]["lines"]

    async def test_of_a_message_it_is_a_new_delivery_each_time(self, it: Scene):
        await it.send(message(1))
        for deliveries in (2, 3):
            await it.replay(1, 1)
            await until(lambda d=deliveries: it.course.again == [d - 1, d - 1, 0, 0, 0, 0, 0, 0])
        await written(it.service)
        found = await it.service.ledger.read(lambda r: r.receipts(1))
        assert [(row.delivery, row.state) for row in found] == [(n, State.DELIVERED) for n in (1, 2, 3)]

    async def test_one_that_dies_stops_its_lane_only_and_can_be_discarded(self, it: Scene):
        await it.send(*(message(n, str(n % 2)) for n in range(1, 9)))
        it.fails = {2}
        await it.replay(1, 8)
        await until(lambda: [key for key, w in it.course.open.items() if w.state is State.DEAD] == [(2, 1, 2)])
        await it.send(message(9, "0"), message(10, "1"))
        assert (10, 1, 1) not in it.course.open
        assert await it.dead() == [2]
        it.fails = set()
        await it.decide("retry", 2)
        await until(lambda: not it.course.open)
        assert it.fake.sent[-1] == 9

    async def test_new_messages_are_not_kept_waiting_by_a_long_one(self, it: Scene):
        await it.send(*(message(n, str(n)) for n in range(1, 101)))
        it.fake.answer = lambda work: None if work.delivery > 1 else YES
        await it.replay(1, 100, confirm=100)
        await until(lambda: len(it.course.open) == 8)
        await exchanged(it.port, message(101, "new"))
        await until(lambda: it.fake.sent[-1] == 101)
        assert len(it.course.open) == 8
        row = await it.remedies.stop_replay(1, who="ann", reason="enough", origin="a test")
        assert (row["begun"], row["state"]) == (8, "stopped")

    async def test_after_a_kill_it_goes_on_where_it_was(self, it: Scene, tmp_path: Path):
        await it.send(*(message(n, str(n)) for n in range(1, 41)))
        it.fake.answer = lambda work: None if work.delivery > 1 else YES
        await it.replay(1, 40, confirm=40)
        await until(lambda: len(it.course.open) == 8)
        await written(it.service)
        crash_image(it.service.ledger.path, tmp_path / "next")
        await it.remedies.stop_replay(1, who="ann", reason="enough", origin="a test")
        after = Scene(tmp_path / "next")
        async with after.live():
            await until(lambda: not after.course.open and not after.service.replaying.running())
            assert sorted(after.fake.sent) == [*range(1, 41)]
            assert after.course.again[:2] == [40, 40]

    @pytest.mark.parametrize("step", ["the transaction", "the runner"])
    async def test_what_it_has_opened_when_it_is_stopped_is_sent(
        self, it: Scene, monkeypatch: pytest.MonkeyPatch, step: str
    ):
        await it.send(*(message(n, str(n)) for n in range(1, 41)))
        reached = asyncio.Event()
        await it.replay(1, 40, confirm=40)
        place, name = (it.service.ledger, "transaction") if step == "the transaction" else (it.course.runner, "take_up")
        real = getattr(place, name)

        def seen(*given: Any) -> Any:
            reached.set()
            return real(*given)

        monkeypatch.setattr(place, name, seen)
        await reached.wait()
        row = await it.remedies.stop_replay(1, who="ann", reason="enough", origin="a test")
        assert row["state"] == "stopped"
        await until(lambda: not it.course.open)
        assert it.fake.sent == [*range(1, 41), *range(1, row["begun"] + 1)]
        (kept,) = await it.service.ledger.read(lambda reader: replays.rows(reader.connection))
        assert (kept.state, kept.begun, kept.upto) == ("stopped", row["begun"], row["begun"])

    async def test_what_the_ledger_cannot_write_of_it_is_tried_again_to_its_end(
        self, it: Scene, monkeypatch: pytest.MonkeyPatch
    ):
        await it.send(*(message(n, str(n)) for n in range(1, 5)))
        real, asked = it.service.ledger.transaction, []

        def now_and_then(*given: Any, **options: Any) -> Any:
            if asyncio.current_task().get_name().startswith("replay"):
                asked.append(given)
                if len(asked) % 2:
                    raise LedgerError("the disk is full")
            return real(*given, **options)

        monkeypatch.setattr(it.service.ledger, "transaction", now_and_then)
        monkeypatch.setattr("engine.remedy.replaying.RETRY", 0.01)
        await it.replay(1, 4)
        await until(lambda: not it.service.replaying.running())
        (kept,) = await it.service.ledger.read(lambda reader: replays.rows(reader.connection))
        assert (kept.state, kept.begun, len(asked)) == ("done", 4, 4)

    async def test_what_the_ledger_cannot_be_asked_is_asked_again(self, it: Scene, monkeypatch: pytest.MonkeyPatch):
        await it.send(*(message(n, str(n)) for n in range(1, 4)))
        real, broken = replays.deliveries, [sqlite3.OperationalError("disk I/O error")]

        def deliveries(*given: Any) -> Any:
            if broken:
                raise broken.pop()
            return real(*given)

        monkeypatch.setattr(replays, "deliveries", deliveries)
        monkeypatch.setattr("engine.remedy.replaying.RETRY", 0.01)
        await it.replay(1, 3)
        await until(lambda: not it.service.replaying.running())
        (kept,) = await it.service.ledger.read(lambda reader: replays.rows(reader.connection))
        assert (kept.state, kept.begun, broken) == ("done", 3, [])

    async def test_it_is_stopped_once(self, it: Scene):
        await it.send(*(message(n, str(n)) for n in range(1, 41)))
        it.fake.answer = lambda work: None if work.delivery > 1 else YES
        await it.replay(1, 40, confirm=40)
        await until(lambda: len(it.course.open) == 8)
        orders = (it.remedies.stop_replay(1, who=who, reason="enough", origin="a test") for who in ("ann", "bob"))
        row, refused = await asyncio.gather(*orders, return_exceptions=True)
        assert isinstance(refused, Refused)
        assert row["state"] == "stopped"

    async def test_more_than_a_few_want_their_number_said(self, it: Scene):
        await it.send(*map(message, range(1, 31)))
        with pytest.raises(Refused, match="30 messages"):
            await it.replay(1, 30)

    async def test_nowhere_is_refused(self, it: Scene):
        with pytest.raises(Refused, match="no destination nowhere: one of medplum"):
            await it.remedies.replay("acme", "nowhere", numbers=[(1, 1)], search=None, confirm=None, **BY)

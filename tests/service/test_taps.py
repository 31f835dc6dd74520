"""Taps: the old engine's own output goes on, is held back, or waits for a person, by the epoch of its input."""

from __future__ import annotations

import io
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import orjson
import pytest

from engine.compare.comparer import Counts
from engine.config.address import Address
from engine.config.edge import Listen
from engine.config.model import Compare, Replay, Tap
from engine.hl7.ack import parse_ack
from engine.ledger.book import Book
from engine.ledger.model import TapOutput
from engine.ledger.sqlite.large import LARGE
from engine.observe import events
from engine.observe.events import Log
from engine.observe.tap_events import LOST
from engine.service import moves
from engine.simulate.forwarding import MARK, ForwardingEngine, Route
from engine.simulate.messages import Messages
from engine.simulate.old_engine import Faults, OldEngine
from tests.support.house import Peer, assert_balances, channel, configuration, emr, running, until
from tests.support.moving import Operator
from tests.support.ports import free_port

MESSAGES = Messages("oru", seed=9)


class Bench:
    """One channel whose old engine sends on, through a tap, to the clinic."""

    settle = 0.2  # seconds

    def __init__(self, tmp_path: Path, rollback: Replay = "guarded", pause: float = 0.2) -> None:
        """pause: seconds until the old engine repeats an output."""
        self.tmp_path = tmp_path
        self.rollback: Replay = rollback
        self.pause = pause

    async def __aenter__(self) -> Bench:
        self.port, tap, into = free_port(), free_port(), free_port()
        self.tap_port = tap
        self.clinic = OldEngine()
        await self.clinic.start()
        self.old = ForwardingEngine([Route("acme-results", into, Address("127.0.0.1", tap))], pause=self.pause)
        await self.old.start()
        destination = emr(self.clinic.port)
        assert destination.endpoint
        self.tap = Tap("clinic", Listen(tap, "127.0.0.1"), destination.endpoint, settle=self.settle)
        self.channel = channel(
            "acme-results", port=self.port, old_engine=into, destinations=(destination,), taps=(self.tap,),
            rollback=self.rollback, compare=Compare(within=2.0),
        )  # fmt: skip
        await self.start()
        return self

    async def start(self) -> None:
        self._running = running(configuration(self.tmp_path, self.channel))
        self.service = await self._running.__aenter__()
        self.operator = Operator(self.service)
        self.peer = await Peer.connect(self.port)

    async def restart(self) -> None:
        await self.peer.close()
        await self._running.__aexit__(None, None, None)
        await self.start()

    async def __aexit__(self, *error: Any) -> None:
        await self.peer.close()
        await self.old.stop()
        await self._running.__aexit__(None, None, None)
        await self.clinic.stop()

    async def send(self, *numbers: int) -> None:
        for number in numbers:
            assert parse_ack(await self.peer.exchange(MESSAGES.message(number))).code == "AA"

    async def at_clinic(self, count: int) -> list[str]:
        """The side that each message at the clinic came from."""
        await until(lambda: len(self.clinic.control_ids) >= count)
        assert len(self.clinic.control_ids) == count
        return ["old" if id.startswith(MARK) else "new" for id in self.clinic.control_ids]

    def outputs(self) -> list[tuple[str, int | None]]:
        with closing(sqlite3.connect(self.tmp_path / "interlock.db")) as connection:
            return connection.execute("select decision, seq from tap_output order by id").fetchall()

    def ledger_is_full(self, full: bool) -> None:
        self.service.ledger._writer._connection.execute(f"pragma query_only = {'on' if full else 'off'}")

    def counts(self) -> Counts:
        """Of the tap's comparison."""
        return self.service.comparisons.channels["acme-results"].comparer.counts()["clinic"]

    async def live(self) -> None:
        await self.operator.verb("parallel", "acme-results")
        await self.operator.waive_all("acme-results")
        run = await self.operator.run("cutover", "acme-results")
        assert run["state"] == "done", run


async def test_the_old_engines_output_is_forwarded_and_the_endpoints_answer_relayed(tmp_path: Path) -> None:
    async with Bench(tmp_path) as bench:
        await bench.send(1, 2)
        assert await bench.at_clinic(2) == ["old", "old"]
        await bench.operator.verb("parallel", "acme-results")
        await bench.send(3)
        assert await bench.at_clinic(3) == ["old"] * 3
        await until(lambda: len(bench.outputs()) == 3)
        assert bench.outputs() == [("forwarded", None), ("forwarded", None), ("forwarded", 3)]


async def test_a_parallel_run_that_matches_says_so(tmp_path: Path) -> None:
    async with Bench(tmp_path) as bench:
        await bench.operator.verb("parallel", "acme-results")
        await bench.send(*range(1, 11))
        await until(lambda: bench.counts().totals.matched == 10)
        assert (bench.counts().pending, bench.counts().lag is None) == (0, False)


async def test_in_live_each_message_reaches_the_clinic_from_our_side_alone(tmp_path: Path) -> None:
    async with Bench(tmp_path) as bench:
        await bench.live()
        await bench.send(1, 2)
        assert await bench.at_clinic(2) == ["new", "new"]
        assert bench.old.received() == 0


async def test_an_output_that_waits_for_its_endpoints_answer_is_waited_for_however_short_the_settle_time(
    tmp_path: Path,
) -> None:
    async with Bench(tmp_path) as bench:
        await bench.operator.verb("parallel", "acme-results")
        await bench.operator.waive_all("acme-results")
        bench.clinic.faults = Faults(delay=2 * bench.settle)
        await bench.send(1, 2, 3)  # the old engine acknowledges all, and sends them on one after the other
        run = await bench.operator.begin("cutover", "acme-results")
        await bench.send(4)
        assert (await bench.operator.ended(run))["state"] == "done"
        assert await bench.at_clinic(4) == ["old", "old", "old", "new"]


async def test_an_output_that_the_old_engine_will_repeat_is_waited_for(tmp_path: Path) -> None:
    async with Bench(tmp_path, pause=1.0) as bench:  # until it repeats: five times the settle time
        await bench.operator.verb("parallel", "acme-results")
        await bench.operator.waive_all("acme-results")
        bench.clinic.faults = Faults(by_id={f"{MARK}{1:010d}": ("cut",)})
        await bench.send(1, 2)
        run = await bench.operator.begin("cutover", "acme-results")
        await bench.send(3)
        assert (await bench.operator.ended(run))["state"] == "done"
        assert await bench.at_clinic(4) == ["old", "old", "old", "new"]


async def test_after_a_restart_the_old_engine_has_time_to_come_back_with_what_it_had_to_send(tmp_path: Path) -> None:
    async with Bench(tmp_path) as bench:
        await bench.operator.verb("parallel", "acme-results")
        await bench.operator.waive_all("acme-results")
        bench.old.pause("acme-results")
        await bench.send(1)
        await bench.restart()
        await bench.operator.waive_all("acme-results")
        run = await bench.operator.begin("cutover", "acme-results")
        await bench.send(2)
        said = await bench.operator.at_step(run, "settle")
        assert "must be quiet for" in said["said"]
        assert bench.service.moves.quiet_for(bench.channel) == 0
        bench.old.resume("acme-results")
        assert (await bench.operator.ended(run))["state"] == "done"
        assert await bench.at_clinic(2) == ["old", "new"]


async def test_after_a_restart_an_old_engine_that_has_nothing_more_is_not_waited_for_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(moves, "RETURN", 0.5)
    async with Bench(tmp_path) as bench:
        await bench.operator.verb("parallel", "acme-results")
        bench.old.pause("acme-results")
        await bench.send(1)
        await bench.restart()
        await bench.operator.cut_over("acme-results")


async def test_late_work_of_the_old_engine_belongs_to_the_epoch_of_its_input(tmp_path: Path) -> None:
    async with Bench(tmp_path) as bench:
        await bench.operator.verb("parallel", "acme-results")
        await bench.operator.waive_all("acme-results")
        bench.old.pause("acme-results")
        await bench.send(1)
        run = await bench.operator.run("cutover", "acme-results")
        assert run["state"] == "done"
        await bench.send(2)
        assert await bench.at_clinic(1) == ["new"]
        bench.old.resume("acme-results")
        assert await bench.at_clinic(2) == ["new", "old"]
        await until(lambda: bench.outputs() == [("forwarded", 1)])


async def test_in_live_what_belongs_to_no_input_is_kept_acknowledged_and_not_sent(tmp_path: Path) -> None:
    async with Bench(tmp_path) as bench:
        await bench.live()
        stranger = await Peer.connect(bench.tap_port)
        answer = parse_ack(await stranger.exchange(Messages("oru", seed=77).message(5)))
        assert answer.code == "AA"
        assert bench.outputs() == [("parked", None)]
        assert bench.clinic.control_ids == []
        await stranger.close()


async def test_a_guarded_rollback_gives_everything_back_and_the_clinic_gets_nothing_twice(tmp_path: Path) -> None:
    async with Bench(tmp_path) as bench:
        await bench.live()
        await bench.send(1, 2)
        assert await bench.at_clinic(2) == ["new", "new"]
        await bench.clinic.stop()
        await bench.send(3, 4)
        run = await bench.operator.run("rollback", "acme-results")
        assert run["state"] == "done", run
        await bench.clinic.start()
        assert await bench.at_clinic(4) == ["new", "new", "old", "old"]
        await until(lambda: len([each for each in bench.outputs() if each[0] != "unanswered"]) == 4)
        decided = [each for each in bench.outputs() if each[0] != "unanswered"]
        assert decided == [("captured", 1), ("captured", 2), ("forwarded", 3), ("forwarded", 4)]
        await bench.send(5)
        assert (await bench.at_clinic(5))[-1] == "old"
        await assert_balances(bench.service)


async def test_a_tap_goes_on_while_the_ledger_cannot_be_written(tmp_path: Path) -> None:
    async with Bench(tmp_path) as bench:
        bench.ledger_is_full(True)
        stranger = await Peer.connect(bench.tap_port)
        for number in range(1, 4):
            answer = parse_ack(await stranger.exchange(Messages("oru", seed=78).message(number), 2.0))
            assert answer.code == "AA"
        assert len(bench.clinic.control_ids) == 3
        await stranger.close()
        bench.ledger_is_full(False)


@pytest.mark.parametrize("to_blame", ["its row", "the ledger"])
async def test_what_the_ledger_cannot_keep_leaves_no_input_pending_and_is_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, to_blame: str
) -> None:
    lost, lines = LOST.of("acme-results").n, io.StringIO()
    async with Bench(tmp_path) as bench:
        await bench.operator.verb("parallel", "acme-results")
        bench.old.pause("acme-results")
        await bench.send(1, 2)
        monkeypatch.setattr(events, "LOG", Log(lines, readable=False, clock=lambda: 0.0))
        with monkeypatch.context() as patch:
            if to_blame == "its row":
                patch.setattr(Book, "output", _refuses)
            else:
                patch.setattr("engine.ledger.sqlite.writer.MOST_EVENTS_KEPT", 0)
                bench.ledger_is_full(True)
            bench.old.resume("acme-results")
            assert await bench.at_clinic(2) == ["old", "old"]
            await until(lambda: LOST.of("acme-results").n == lost + 2)
        bench.ledger_is_full(False)
        await until(lambda: bench.counts().totals.not_comparable == 2)
        assert bench.counts().pending == 0
        assert bench.outputs() == []
    said = [line["event"] for line in map(orjson.loads, lines.getvalue().splitlines()) if line["level"] == "error"]
    assert len(said) == 1, said


async def test_a_large_output_that_cannot_be_stored_in_pieces_is_stored_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Bench(tmp_path) as bench:
        real = bench.service.ledger.lay_down

        async def lay_down(large: Any) -> None:
            if isinstance(large, TapOutput):
                raise RuntimeError("no room for a piece")
            await real(large)

        monkeypatch.setattr(bench.service.ledger, "lay_down", lay_down)
        await bench.operator.verb("parallel", "acme-results")
        report = MESSAGES.message(1) + b"NTE|1|L|" + b"x" * LARGE + b"\r"
        assert parse_ack(await bench.peer.exchange(report)).code == "AA"
        await until(lambda: bench.counts().totals.matched == 1)
        assert bench.outputs() == [("forwarded", 1)]


def _refuses(book: Book, output: TapOutput) -> None:
    raise ValueError("this one is to blame")

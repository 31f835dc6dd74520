"""The comparison on a running service: real taps, an old engine with faults, cutovers and rollbacks under traffic."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from random import Random
from typing import Any

import pytest

from engine.compare.comparer import Comparer
from engine.config.address import Address
from engine.config.edge import Listen
from engine.config.model import Compare, Tap
from engine.hl7.ack import parse_ack
from engine.ledger.course import Compared
from engine.ledger.sqlite import comparisons
from engine.ledger.sqlite.reader import Reader
from engine.simulate.alterations import FAULTS, HABITS
from engine.simulate.forwarding import MARK, ForwardingEngine, Route
from engine.simulate.mischief import Mischief
from engine.simulate.old_engine import Faults, OldEngine
from engine.simulate.orders import Orders
from tests.support.house import Peer, channel, configuration, emr, outputs, running, until
from tests.support.moving import Operator
from tests.support.ports import free_port

ID = "acme-results"
TAP = "clinic"


def traffic(orders: int, seed: int = 5) -> list[bytes]:
    """The reports of some orders, preliminary, final and corrected, mixed as they come from a laboratory."""
    source, random, due = Orders("ACME", seed), Random(seed), []
    for order in range(1, orders + 1):
        at = order + random.random()
        for stage in range(len(source.stages(order))):
            at += random.uniform(0.5, 6)
            due.append((at, order, stage))
    return [source.report(number, order, stage) for number, (_, order, stage) in enumerate(sorted(due), 1)]


class Bench:
    """One channel whose old engine sends on, with its faults and habits, through a tap to the clinic."""

    def __init__(
        self,
        folder: Path,
        within: float = 2.0,
        mischief: Mischief | None = None,
        habits: Any = (),
        settle: float = 0.2,
    ) -> None:
        self.folder = folder
        self.port, self.tap_port, into = free_port(), free_port(), free_port()
        route = Route(ID, into, Address("127.0.0.1", self.tap_port), tuple(habits), mischief or Mischief(), 0.02)
        self.clinic = OldEngine()
        self.old = ForwardingEngine([route], alterations=FAULTS)
        self._into, self._within, self._settle = into, within, settle

    async def __aenter__(self) -> Bench:
        await self.clinic.start()
        await self.old.start()
        destination = emr(self.clinic.port)
        assert destination.endpoint
        tap = Tap(TAP, Listen(self.tap_port, "127.0.0.1"), destination.endpoint, settle=self._settle)
        self.channel = channel(
            ID, port=self.port, old_engine=self._into, destinations=(destination,), taps=(tap,), rollback="guarded",
            compare=Compare(within=self._within),
        )  # fmt: skip
        await self.begin()
        return self

    async def begin(self) -> None:
        """The service starts, or starts again."""
        self._running = running(configuration(self.folder, self.channel))
        self.service = await self._running.__aenter__()
        self.operator = Operator(self.service)
        self.peer = await Peer.connect(self.port)

    async def end(self) -> None:
        await self.peer.close()
        await self._running.__aexit__(None, None, None)

    async def __aexit__(self, *error: Any) -> None:
        await self.end()
        await self.old.stop()
        await self.clinic.stop()

    # -- what is done

    async def send(self, *raws: bytes) -> None:
        for raw in raws:
            assert parse_ack(await self.peer.exchange(raw)).code == "AA"  # type: ignore[union-attr]

    async def parallel(self) -> None:
        await self.operator.verb("parallel", ID)

    async def cutover(self, *meanwhile: bytes) -> None:
        """Cut over; what is sent meanwhile comes above the barrier."""
        await self.operator.waive_all(ID)
        await self._move("cutover", meanwhile)

    async def rollback(self, *meanwhile: bytes) -> None:
        await self._move("rollback", meanwhile)

    async def _move(self, verb: str, meanwhile: tuple[bytes, ...]) -> None:
        id = await self.operator.begin(verb, ID)
        if meanwhile:
            await until(lambda: self.book.barrier is not None)
        await self.send(*meanwhile)
        assert not meanwhile or self.book.barrier is not None
        run = await self.operator.ended(id)
        assert run["state"] == "done", run

    # -- what is seen

    @property
    def comparer(self) -> Comparer:
        return self.service.comparisons.channels[ID].comparer

    @property
    def book(self) -> Any:
        return self.service.ledger.channels[ID]

    @property
    def compared(self) -> Compared:
        found: Compared = self.book.compared[TAP]
        return found

    async def all_compared(self) -> None:
        await until(lambda: self.old.queue_length() == 0)
        await until(lambda: self.comparer.counts()[TAP].pending == 0)
        await self.comparer.flush()

    async def found(self) -> dict[str, tuple[str, str, int]]:
        """path → (kind, severity, count) of the tap's discrepancies."""
        book = self.book.id
        rows = await self.service.ledger.read(lambda reader: comparisons.listing(reader.connection, [book], None, 100))
        return {row.path: (row.kind, row.severity, row.count) for row in rows if row.tap == TAP and row.count}

    async def answers(self) -> dict[str, tuple[str, str, int]]:
        book = self.book.id
        rows = await self.service.ledger.read(lambda reader: comparisons.listing(reader.connection, [book], None, 100))
        return {row.path: (row.kind, row.state, row.count) for row in rows if row.tap == ""}

    def rows(self, sql: str) -> list[Any]:
        with closing(sqlite3.connect(self.folder / "interlock.db")) as connection:
            return connection.execute(sql).fetchall()

    def outputs(self) -> list[tuple[str, int | None]]:
        return outputs(self.folder)

    def at_clinic(self) -> list[str]:
        """The side that each message at the clinic came from."""
        return ["old" if id.startswith(MARK) else "new" for id in self.clinic.control_ids]


HABITUAL = tuple(HABITS[name] for name in ("padding", "precision", "segment_order", "escapes", "finer_times"))
COSMETIC = "cosmetic"


@pytest.mark.parametrize(
    ("fault", "path", "kind", "habits"),
    [
        ("dropped", "message", "missing_in_legacy", ()),
        ("dropped", "message", "missing_in_legacy", HABITUAL),
        ("doubled", "message-twice", "missing_in_target", HABITUAL),
        ("reordered", "message-order", "transformation", HABITUAL),
    ],
    ids=["dropped", "dropped, with habits", "doubled, with habits", "reordered, with habits"],
)
async def test_what_happens_to_whole_messages_is_found_and_moves_no_other(
    tmp_path: Path, fault: str, path: str, kind: str, habits: Any
) -> None:
    async with Bench(tmp_path, 6.0 if fault == "reordered" else 2.0, Mischief({fault: 0.35}), habits) as bench:
        await bench.parallel()
        await bench.send(*traffic(30))
        await bench.all_compared()
        seeded = bench.old.faults()[fault]
        found = await bench.found()
        assert seeded >= 1
        assert found.pop(path) == (kind, "clinical", seeded)
        assert {severity for _, severity, _ in found.values()} <= {COSMETIC}, found
        assert bool(found) == bool(habits)


async def test_what_is_captured_is_the_message_as_it_came(tmp_path: Path) -> None:
    async with Bench(tmp_path) as bench:
        await bench.parallel()
        await bench.send(*traffic(3))
        await bench.all_compared()
        rows = bench.rows("select c.output, m.raw from captured c join message m on m.id = c.message")
        assert rows
        assert all(output == b"" for output, _ in rows)  # it is not kept a second time
        reader = Reader(bench.service.ledger.path)
        found = bench.rows("select c.message, c.destination, m.raw from captured c join message m on m.id = c.message")
        assert all(comparisons.captured(reader.connection, id, to) == [raw] for id, to, raw in found)
        reader.close()


async def test_the_form_of_answers_is_reported_and_explained(tmp_path: Path) -> None:
    async with Bench(tmp_path) as bench:
        await bench.parallel()
        sent = traffic(5)
        await bench.send(*sent)
        await until(lambda: bench.comparer.counts()[""].totals.explained == len(sent))
        assert bench.comparer.counts()[""].totals.unexplained == 0
        answers = await bench.answers()
        assert answers["MSA-3"] == ("expected", "explained", len(sent))
        assert {state for _, state, _ in answers.values()} == {"explained"}
        assert "MSA-3" in {rule.path for rule in bench.comparer.rules_of("")}
        assert "MSA-3" not in {rule.path for rule in bench.comparer.rules_of(TAP)}


# -- what comes between a barrier and its switch


async def test_what_came_between_barrier_and_cutover_is_not_waited_for(tmp_path: Path) -> None:
    sent = traffic(10)
    async with Bench(tmp_path, within=0.5, settle=1.0) as bench:
        await bench.parallel()
        await bench.send(*sent[:3])
        await bench.all_compared()
        await bench.cutover(*sent[3:5])
        assert bench.comparer.counts()[TAP].pending == 0
        await bench.rollback()
        await bench.send(sent[5])
        await bench.all_compared()
        await until(lambda: len(bench.outputs()) == 6)
        assert (bench.compared.pending_late, bench.compared.matched) == (0, 4)
        await bench.cutover()
        await bench.send(sent[6])
        assert bench.comparer.counts()[TAP].pending == 0


async def test_the_same_after_a_restart(tmp_path: Path) -> None:
    sent = traffic(10)
    async with Bench(tmp_path, within=0.5, settle=1.0) as bench:
        await bench.parallel()
        await bench.send(*sent[:3])
        await bench.all_compared()
        await bench.cutover(*sent[3:5])
        await bench.end()
        await bench.begin()
        assert bench.comparer.counts()[TAP].pending == 0
        await bench.rollback()
        await bench.send(sent[5])
        await bench.all_compared()
        assert (bench.compared.pending_late, bench.compared.matched) == (0, 4)


async def test_what_came_between_barrier_and_rollback_is_compared(tmp_path: Path) -> None:
    sent = traffic(10)
    async with Bench(tmp_path) as bench:
        await bench.parallel()
        await bench.cutover()
        bench.clinic.faults = Faults(delay=1.0)  # what is on its way there is waited for
        await bench.send(sent[0])
        await until(lambda: len(bench.clinic.control_ids) == 1)
        await bench.rollback(sent[1], sent[2])
        bench.clinic.faults = Faults()
        assert bench.book.epoch.first == 2
        await bench.send(sent[3])
        await until(lambda: len(bench.outputs()) == 4)
        await bench.all_compared()
        assert bench.outputs() == [("captured", 1), ("forwarded", 2), ("forwarded", 3), ("forwarded", 4)]
        assert (bench.compared.matched, bench.compared.unexplained) == (3, 0)


# -- the replay of a rollback


async def test_a_replay_finds_its_inputs_long_after_within_and_has_no_verdict(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.compare.comparer.MOST_UNMISSED", 2)  # so that most of them are forgotten in live
    sent = traffic(8)
    async with Bench(tmp_path, within=0.2) as bench:
        await bench.parallel()
        await bench.cutover()
        await bench.send(*sent[:6])
        await until(lambda: len(bench.clinic.control_ids) == 6)
        bench.old.pause(ID)
        await bench.rollback()
        await until(lambda: bench.old.queue_length() == 6)
        for ahead in (1, 2, 60, 3600):  # within is over a thousand times; what was expected would be forgotten
            bench.comparer.tick(bench.service.moves.now() + ahead * 1_000_000)
        assert bench.comparer.counts()[TAP].pending == 0
        bench.old.resume(ID)
        await until(lambda: len(bench.outputs()) == 6)
        assert bench.outputs() == [("captured", seq) for seq in range(1, 7)]
        assert bench.at_clinic() == ["new"] * 6
        assert bench.comparer.lag(TAP) is None or bench.comparer.lag(TAP) < 60  # type: ignore[operator]
        assert bench.comparer._sides[TAP].correlator.unmissed() == []


async def test_a_replay_finds_its_inputs_after_a_restart(tmp_path: Path) -> None:
    sent = traffic(8)
    async with Bench(tmp_path, within=0.2) as bench:
        await bench.parallel()
        await bench.cutover()
        await bench.send(*sent[:6])
        await until(lambda: len(bench.clinic.control_ids) == 6)
        bench.old.pause(ID)
        await bench.rollback()
        await until(lambda: bench.old.queue_length() == 6)
        await bench.end()
        await bench.begin()
        assert bench.comparer.counts()[TAP].pending == 0
        assert len(bench.comparer._sides[TAP].correlator.unmissed()) == 6
        bench.comparer.tick(bench.service.moves.now() + 3_600_000_000)
        bench.old.resume(ID)
        await until(lambda: len(bench.outputs()) == 6)
        assert bench.outputs() == [("captured", seq) for seq in range(1, 7)]
        await bench.end()
        await bench.begin()
        assert bench.comparer._sides[TAP].correlator.unmissed() == []
        await bench.send(sent[6])
        await until(lambda: bench.compared.matched == 1)
        assert bench.at_clinic() == ["new"] * 6 + ["old"]

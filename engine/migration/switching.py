"""Opens the epochs of a run: one transaction over all channels of a connection, which switches all of them or none, and
looks again at what it rests on."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeAlias

from engine.config.model import Channel
from engine.ledger.audit import Entry
from engine.ledger.book import Book
from engine.ledger.course import ChannelBook, Course
from engine.ledger.routing import LEGACY, Epoch, Routing
from engine.ledger.sqlite.journal import RunRow
from engine.ledger.sqlite.loading import LedgerError
from engine.migration import drain
from engine.migration.drain import Carried
from engine.migration.gate.check import When
from engine.migration.gate.examine import examine, passed
from engine.migration.gate.words import SECOND
from engine.migration.phases import Phase
from engine.migration.replay import Replay, replay
from engine.migration.runs import DONE, RUNNING, Failed, owns
from engine.observe.events import emit
from engine.observe.service_events import EpochOpened, Fault

if TYPE_CHECKING:
    from engine.migration.conductor import Conductor

Change: TypeAlias = Callable[[Book, RunRow, "Ready"], tuple[RunRow, list[str]]]
"""What a switch does in its transaction: the run's row after it, and what stood against it."""


@dataclass(frozen=True, slots=True)
class Ready:
    """What a switch to a phase needs, made before its transaction. tables: channel → its next routing table, and its
    courses with those that it adds. sql: the rows of what is new."""

    tables: dict[str, tuple[Routing, list[Course]]]
    sql: tuple[tuple[str, tuple[Any, ...]], ...]


class Switching:
    """The switches of one conductor's runs."""

    def __init__(self, conductor: Conductor) -> None:
        self._conductor = conductor
        self._world = conductor.world
        self._ledger = conductor.world.ledger

    def prepared(self, channels: Iterable[Channel], phase: Phase) -> Ready:
        tables = {}
        sql: list[tuple[str, tuple[Any, ...]]] = []
        for channel in channels:
            routing = self._world.routing(channel, phase)
            _, courses, rows = self._ledger.prepare(channel.id, routing, self._world.windows(channel))
            tables[channel.id] = routing, courses
            sql += rows
        return Ready(tables, tuple(sql))

    async def switch(self, id: int, phase: Phase, change: Change) -> None:
        """The transaction at a run's barrier. Raises Ended; Failed where something stood against it."""
        row = self._conductor.alive(id)
        channels = self._conductor.of(row)
        ready = self.prepared(channels, phase)

        def act(book: Book) -> tuple[RunRow, list[str]]:
            now = self._conductor.runs.row(id)
            problems = [text for name in now.channels for text in _not_ours(self._conductor.book(name), id)]
            if now.state != RUNNING or problems:
                return now, problems or ["it has ended"]
            return change(book, now, ready)

        try:
            became, problems = await self._ledger.transaction(act, ready.sql)
        except LedgerError as error:
            raise Failed(str(error)) from error
        if problems:
            self._conductor.alive(id)
            raise Failed("; ".join(problems))
        self._conductor.runs.became(became)  # first: it is durable, whatever goes wrong in following it
        for channel in channels:
            book = self._conductor.book(channel.id)
            closed = [course.name for course in drain.real(book)] if row.verb == "rollback" else []
            await self.follow(channel, id, closed)
        if became.state == RUNNING:
            for channel in channels:
                self._world.resumed(channel)
        else:
            self._conductor.ended(became)

    async def follow(self, channel: Channel, run: int, closed: Sequence[str] = ()) -> None:
        """A channel's epoch was opened. closed: destinations whose open work the switch has closed."""
        epoch = self._conductor.book(channel.id).epoch
        emit(EpochOpened(channel.id, epoch.phase, epoch.first, f"run {run}"))
        try:
            await self._world.moved(channel, rebuilt=closed)
        except Exception as error:  # one channel's defect must not keep the others of its connection back
            emit(Fault.of(error))

    # -- in a transaction

    def open(
        self, book: Book, channel: Channel, row: RunRow, ready: Ready, phase: Phase, evidence: dict[str, Any],
        *, barred: bool = True,
    ) -> None:  # fmt: skip
        """Open a channel's epoch, at the run's barrier where it has one, and say so in the audit chain."""
        routing, courses = ready.tables[channel.id]
        mine = self._conductor.book(channel.id)
        before, now = mine.epoch, self._world.now()
        epoch = Epoch(0, 0, phase.value, routing, who=row.who, why=row.why, at=now,
                      evidence=json.dumps(evidence, sort_keys=True))  # fmt: skip
        opened = book.switch(mine, epoch, courses, row.id if barred else None)
        book.audit(
            Entry(now, row.who, row.origin, row.verb, channel.id, row.why, before.phase,
                  json.dumps({"phase": phase.value, "from": opened.first, "run": row.id}))
        )  # fmt: skip

    def to_live(self, book: Book, row: RunRow, ready: Ready, carried: Carried) -> tuple[RunRow, list[str]]:
        now = self._world.now()
        channels = self._conductor.of(row)
        problems, evidence = [], {}
        for channel in channels:
            mine = self._conductor.book(channel.id)
            assert mine.barrier is not None
            at = mine.barrier.at
            problems += [found.said(channel.id) + " did not settle" for found in
                         drain.before_cutover(mine, at, carried)]  # fmt: skip
            subject = self._conductor.subject(channel, now, drain.flight(mine, at, carried))
            findings = examine(subject, When.AT_SWITCH)
            if not passed(findings):
                problems += [f"{channel.id}: not met ({f.outcome.value}): {f.title}: {f.said}" for f in findings
                             if not passed([f])]  # fmt: skip
            evidence[channel.id] = [
                {"check": f.check, "outcome": f.outcome.value, "said": f.said, "at": f.at,
                 "waived_by": f.waiver.who if f.waiver else None} for f in findings
            ]  # fmt: skip
        if problems:
            return row, problems
        for channel in channels:
            until = now + int(channel.rollback.until * SECOND) if channel.rollback else 0
            told = {"run": row.id, "gate": evidence[channel.id], "rollback_until": until,
                    "carried": sorted(carried.names)}  # fmt: skip
            self.open(book, channel, row, ready, Phase.LIVE, told)
        return self._finish(book, row, DONE, "", f"live: {self._conductor.firsts(row)}"), []

    def to_parallel(self, book: Book, row: RunRow, ready: Ready) -> tuple[RunRow, list[str]]:
        books = [self._conductor.book(name) for name in row.channels]
        if going := [found.said(b.name) for b in books for found in drain.at_real_endpoints(b)]:
            return row, going
        counts: Counter[str] = Counter()
        lasts = {}
        for channel in self._conductor.of(row):
            mine = self._conductor.book(channel.id)
            assert mine.barrier is not None
            lasts[channel.id] = mine.barrier.at
            done = replay(mine, mine.barrier.at, self._conductor.policy(channel, row.options), row.id)
            counts.update(counted(done))
            self._take_back(book, done, mine, ready, row)
            self.open(book, channel, row, ready, Phase.PARALLEL, {"run": row.id, **counted(done)})
        options = {**row.options, "lasts": lasts, "counts": dict(counts)}
        said = f"parallel again; {replayed(counts)}"
        return self._finish(book, replace(row, options=options), RUNNING, "replay", said), []

    def _take_back(self, book: Book, done: Replay, mine: ChannelBook, ready: Ready, row: RunRow) -> None:
        now = self._world.now()
        for closing in done.closings:
            book.close_open(closing.course, closing.key, closing.state, closing.why, now)
        for grant in done.grants:
            book.grant(mine, grant, at=now, who=row.who, why=row.why)
        _, courses = ready.tables[mine.name]
        old = next(course for course in courses if course.name == LEGACY)
        book.take_up(old, done.last)

    def _finish(self, book: Book, row: RunRow, state: str, step: str, said: str) -> RunRow:
        """The run's row after a switch: its barriers are gone, whether it goes on or not."""
        for name in row.channels:
            book.lift(self._conductor.book(name))
        ended = self._world.now() if state != RUNNING else None
        row = replace(row, state=state, step=step or row.step, said=said, ended=ended)
        book.put("put_run", *row.values())
        if ended is not None:
            book.over |= {row.id}
        return row


def counted(done: Replay) -> dict[str, int]:
    """The figures of a replay, as they stand in the run's row."""
    return {
        "deferred": done.deferred, "again": done.again, "twice": done.twice, "held": done.held, "never": done.never,
        "asked": done.asked,
    }  # fmt: skip


def replayed(counts: Counter[str]) -> str:
    """What a rollback does with the numbers of its live epochs, in words."""
    words = {
        "again": "go back into the old engine", "held": "of these are held back at the taps, the endpoint has them",
        "twice": "of these reach an endpoint twice", "never": "are sent by nobody", "asked": "wait for a person",
    }  # fmt: skip
    told = [f"{counts[key]} {text}" for key, text in words.items() if counts[key]]
    return f"of {counts['deferred']} live messages " + (", ".join(told) if told else "none is sent again")


def _not_ours(book: ChannelBook, run: int) -> list[str]:
    if book.hold is not None:
        return [f"{book.name} is held by {book.hold.who}"]
    return [] if owns(book, run) else [f"{book.name} has no barrier of this run any more"]

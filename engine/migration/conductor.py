"""The runs of a service, from their first step to their end, over restarts. What each waits for stands in `barriers`
(drain, cutover, rollback) and `handover` (takeover, give-back).

Each step that changes anything is one transaction over all channels of the connection, which looks again at what it
rests on: no freeze, its own barrier, nothing on the way, the checks that count at the switch (`switching`). So whatever
happens in between (a hold, an abort, a crash), a run either has switched all of them or none.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import replace
from typing import Any

from engine.config.model import Channel
from engine.config.model import Replay as Policy
from engine.ledger.audit import Entry
from engine.ledger.book import Book
from engine.ledger.course import ChannelBook, Hold
from engine.ledger.sqlite import journal
from engine.ledger.sqlite.journal import RunRow
from engine.ledger.sqlite.loading import LedgerError
from engine.migration.barriers import Barriers
from engine.migration.deadlines import Deadlines
from engine.migration.gate.check import Fact, Subject, Waiver
from engine.migration.handover import Handover
from engine.migration.phases import Phase
from engine.migration.runs import (
    FAILED,
    GIVE_BACK,
    HANDOVERS,
    RUNNING,
    TAKEOVER,
    Ended,
    Failed,
    Runs,
    barred,
    end,
    owns,
)  # fmt: skip
from engine.migration.switching import Ready, Switching
from engine.migration.world import World
from engine.observe import migration_events as events
from engine.observe.events import emit
from engine.observe.service_events import Fault

UNCHANGED = "the barrier is lifted, and nothing has changed"

COMES_FROM = {
    "cutover": Phase.PARALLEL, "rollback": Phase.LIVE, TAKEOVER: Phase.OUTSIDE, GIVE_BACK: Phase.LEGACY,
}  # fmt: skip
"""The phase in which a run that switches begins. While it goes on no other verb changes it."""


class Conductor:
    """All runs of one service."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.facts: dict[str, dict[str, Fact]] = {}
        self.waivers: dict[str, dict[str, Waiver]] = {}
        self.deadlines = Deadlines(world.now, world.tick)
        self.switching = Switching(self)
        self.handover = Handover(self)
        self._barriers = Barriers(self)
        self._ledger = world.ledger
        self._channels = {channel.id: channel for channel in world.channels}

    async def load(self) -> None:
        """Read the runs that an earlier process left, and what was recorded for the gate."""
        names = {book.id: book.name for book in self._ledger.channels.values()}
        rows = await self._ledger.read(lambda reader: journal.runs(reader.connection, active=True))
        last = await self._ledger.read(lambda reader: journal.last_run(reader.connection))
        self.runs = Runs(rows, last)
        for id, found in (await self._ledger.read(lambda reader: journal.facts(reader.connection))).items():
            self.facts[names[id]] = {name: Fact(name, *values) for name, values in found.items()}
        for id, waived in (await self._ledger.read(lambda reader: journal.waivers(reader.connection))).items():
            self.waivers[names[id]] = {name: Waiver(name, *values) for name, values in waived.items()}
        for row in self.runs.active():
            events.RUNS.of(row.verb).n += 1
            self.left(row)
        for book in self._ledger.channels.values():
            if book.hold is not None:
                self.left_of_hold(book, book.hold)
        for row in [row for row in self.runs.active() if barred(row) and not self._stands(row)]:
            await self._strike(row)

    def _stands(self, row: RunRow) -> bool:
        books = [self.book(name) for name in row.channels if name in self._ledger.channels]
        return any(owns(book, row.id) for book in books)

    async def _strike(self, row: RunRow) -> None:
        """A run without its barrier is over, whatever its row says."""
        said = "its barrier was gone when the service started; nothing has changed"

        def act(book: Book) -> RunRow:
            return end(book, row, [], FAILED, said, self.world.now())

        self.ended(await self._ledger.transaction(act))

    async def start(self) -> None:
        """Take up the runs again."""
        for row in self.runs.active():
            self.world.spawn(self._drive(row.id), f"run {row.id}")

    def book(self, channel: str) -> ChannelBook:
        return self._ledger.channels[channel]

    # -- time

    def left(self, row: RunRow) -> float:
        """Seconds until a run's time is over; from its beginning on, or our start, by a clock that nobody sets."""
        return self.deadlines.left(row.id, row.started, row.deadline)

    def left_of_hold(self, book: ChannelBook, hold: Hold) -> float:
        """Seconds until a hold is overdue, and pages; as for a run. It ends by a person's word alone."""
        return self.deadlines.left(book.name, hold.at, hold.until)

    # -- beginning and ending

    async def begin(
        self, row: RunRow, *, shut: Callable[[ChannelBook], frozenset[str]] = lambda book: frozenset(),
        also: Callable[[Book], None] = lambda book: None, ready: Ready | None = None,
    ) -> None:  # fmt: skip
        """Begin a run and drive it: its row, its barriers where it has any, and `also`, all in one transaction. Raises
        Failed where it may not begin."""

        def act(book: Book) -> list[str]:
            problems = [text for name in row.channels for text in self._in_the_way(book, row, name)]
            if problems:
                return problems
            for name in row.channels if barred(row) else ():
                book.bar(self.book(name), row.id, shut(self.book(name)))
            book.put("put_run", *row.values())
            book.audit(self._entry(row, f"run {row.id} begins", self._phases(row)))
            also(book)
            return []

        self.left(row)
        self.runs.add(row)  # before its barriers are there: who finds one must find its run
        try:
            problems = await self._ledger.transaction(act, ready.sql if ready else ())
        except LedgerError as error:
            problems = [str(error)]
        if problems:
            self.runs.drop(row.id)
            raise Failed("; ".join(problems))
        emit(events.RunStarted(row.id, row.verb, row.who))
        for channel in self.of(row):
            if ready is not None:
                await self.switching.follow(channel, row.id)
            self.world.frozen(channel)
        self.world.spawn(self._drive(row.id), f"run {row.id}")

    def _in_the_way(self, book: Book, row: RunRow, channel: str) -> list[str]:
        """What stands against a run that begins now, whatever was so when it was planned."""
        mine = self.book(channel)
        if mine.hold is not None:
            return [f"{channel} is held by {mine.hold.who} ({mine.hold.why}): release it first"]
        if mine.barrier is not None:
            return [f"{channel} belongs to run {mine.barrier.run}, which goes on: abort it first"]
        if others := [run for run in self.handing(book, channel) if run < row.id]:
            return [f"{channel} belongs to run {others[0]}, which goes on: abort it first"]
        comes_from = COMES_FROM.get(row.verb)
        if comes_from is not None and mine.epoch.phase != comes_from.value:
            return [f"{channel} is {mine.epoch.phase}: a {row.verb} begins in {comes_from.value}"]
        return []

    def handing(self, book: Book, channel: str) -> list[int]:
        """In a transaction: the runs that hand this channel's port over."""
        rows = self.runs.of([channel])
        return [row.id for row in rows if row.verb in HANDOVERS and row.id not in book.over]

    async def end(
        self, id: int, state: str, said: str, *, who: str = "", why: str = "", origin: str = ""
    ) -> RunRow | None:
        """End a run as it stands, with its barriers lifted; None where it has ended already."""
        live = self.runs.get(id)
        if live is None:  # it never began
            return None
        row = live.row
        books = [self.book(name) for name in row.channels if name in self._ledger.channels]

        def act(book: Book) -> RunRow | None:
            now = live.row
            if now.state != RUNNING or id in book.over:
                return None
            if barred(now) and not any(owns(b, id) for b in books):
                return None
            ended = end(book, now, books, state, said, self.world.now())
            entry = Entry(self.world.now(), who or row.who, origin or row.origin, f"{row.verb} {state}", _subject(row),
                          why or said, f"run {id}", "")  # fmt: skip
            book.audit(entry)
            return ended

        ended = await self._ledger.transaction(act)
        if ended is not None:
            self.ended(ended)
        return ended

    def ended(self, row: RunRow) -> None:
        """A run's end is durable."""
        self.runs.became(row)
        emit(events.RunEnded(row.id, row.verb, row.state, _plain(row.said)))
        for channel in self.of(row):
            self.world.resumed(channel)

    def of(self, row: RunRow) -> list[Channel]:
        """A run's channels, as far as they are configured."""
        return [self._channels[name] for name in row.channels if name in self._channels]

    def firsts(self, row: RunRow) -> str:
        """`acme-orders from 12, acme-results from 40`: where the present epochs of its channels begin."""
        return ", ".join(f"{name} from {self.book(name).epoch.first}" for name in row.channels)

    # -- driving

    async def _drive(self, id: int) -> None:
        row = self.runs.row(id)
        try:
            if missing := [name for name in row.channels if name not in self._channels]:
                raise Failed(f"{', '.join(missing)} is no longer configured")
            await self._runs(row.verb)(id)
        except Ended:
            pass
        except Failed as failed:
            await self.end(id, FAILED, f"{failed}{self._so(id)}")
        except asyncio.CancelledError:
            raise
        except Exception as error:
            emit(Fault.of(error))
            await self.end(id, FAILED, f"a defect of the product ended it{self._so(id)}")

    def _runs(self, verb: str) -> Callable[[int], Awaitable[None]]:
        return self._barriers.runs.get(verb, self.handover.drive)

    def _so(self, id: int) -> str:
        """What a run leaves behind that cannot go on."""
        return "; it stays as it is" if self.runs.row(id).verb in HANDOVERS else f"; {UNCHANGED}"

    def alive(self, id: int) -> RunRow:
        row = self.runs.row(id)
        if row.state != RUNNING:
            raise Ended
        return row

    async def step(self, id: int, step: str) -> None:
        def act(book: Book) -> RunRow | None:
            row = replace(self.runs.row(id), step=step)
            if not all(owns(self.book(name), id) for name in row.channels):
                return None  # it has just been ended, and that is not reported yet
            book.put("put_run", *row.values())
            return row

        became = await self._ledger.transaction(act)
        if became is None:
            raise Ended
        self.runs.became(became)
        emit(events.RunStep(id, self.runs.row(id).verb, step))
        self.alive(id)

    # -- for the gate

    def policy(self, channel: Channel, options: dict[str, Any]) -> Policy:
        """What a rollback replays: as the person said, else as the file says."""
        chosen = options.get("replay") or (channel.rollback.replay if channel.rollback else None)
        if chosen is None:
            raise Failed(f"{channel.id} has no rollback.replay, and none was given")
        policy: Policy = chosen
        return policy

    async def gather(self, channel: Channel) -> None:
        """See anew what can be seen, and write it down."""
        await self.record(channel, await self.world.facts(channel))

    async def record(self, channel: Channel, found: Iterable[Fact], entry: Entry | None = None) -> None:
        """Write facts down; with `entry`, what the audit chain says of it, in the same transaction."""
        rows = list(found)
        id = self.book(channel.id).id

        def act(book: Book) -> None:
            for fact in rows:
                book.put("put_fact", id, fact.name, json.dumps(fact.value), fact.at, fact.who, fact.until, fact.version)
            if entry is not None:
                book.audit(entry)

        await self._ledger.transaction(act)
        self.facts[channel.id] = {**self.facts.get(channel.id, {}), **{fact.name: fact for fact in rows}}

    def subject(self, channel: Channel, now: int, flight: dict[str, dict[str, int]]) -> Subject:
        """What the gate looks at: recorded rows, and the ledger's own numbers of this moment."""
        facts = {**self.facts.get(channel.id, {}), "in_flight": Fact("in_flight", flight, now)}
        book = self.book(channel.id)
        return Subject(
            channel, book.epoch.phase, self.world.version(channel), now, facts, self.waivers.get(channel.id, {}),
            book.compared,
        )  # fmt: skip

    def _phases(self, row: RunRow) -> str:
        return json.dumps({name: self.book(name).epoch.phase for name in row.channels})

    def _entry(self, row: RunRow, after: str, before: str) -> Entry:
        return Entry(self.world.now(), row.who, row.origin, row.verb, _subject(row), row.why, before, after)


def _subject(row: RunRow) -> str:
    return f"{row.connection}: {', '.join(row.channels)}"


def _plain(said: str) -> str:
    """For the log: what a field may hold."""
    return said.replace("→", "to")[:200]

"""Drives the runs: a drain, a cutover and a rollback, from their first step to their end, over restarts. Those that
hand a port over stand in `handover`.

Each step that changes anything is one transaction over all channels of the connection, which looks again at what it
rests on: no freeze, its own barrier, nothing on the way, the checks that count at the switch (`switching`). So whatever
happens in between (a hold, an abort, a crash), a run either has switched all of them or none.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import replace
from typing import Any

from engine.config.model import Channel
from engine.config.model import Replay as Policy
from engine.ledger.audit import Entry
from engine.ledger.book import Book
from engine.ledger.course import ChannelBook
from engine.ledger.routing import LEGACY
from engine.ledger.sqlite import journal
from engine.ledger.sqlite.journal import RunRow
from engine.ledger.sqlite.loading import LedgerError
from engine.migration import drain
from engine.migration.drain import NOBODY, Carried, Left
from engine.migration.gate.check import Fact, Subject, Waiver
from engine.migration.gate.words import SECOND
from engine.migration.handover import Handover
from engine.migration.phases import Phase
from engine.migration.runs import (
    DONE,
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
from engine.migration.switching import Ready, Switching, replayed
from engine.migration.world import World
from engine.observe import migration_events as events
from engine.observe.events import emit
from engine.observe.service_events import Fault

POLL = 0.05  # seconds between looks at what a run waits for
WHAT_NOW = "to give up: interlock abort --run {id}"
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
        self.switching = Switching(self)
        self.handover = Handover(self)
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
        if others := []:
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

    def _runs(self, verb: str) -> Callable[[int], Coroutine[Any, Any, None]]:
        barred = {"drain": self._drain, "cutover": self._cutover, "rollback": self._rollback}
        return barred.get(verb, self.handover.drive)

    def _so(self, id: int) -> str:
        """What a run leaves behind that cannot go on."""
        return "; it stays as it is" if self.runs.row(id).verb in HANDOVERS else f"; {UNCHANGED}"

    async def _drain(self, id: int) -> None:
        if self.runs.row(id).step != "drained":
            await self._wait(id, lambda row: self._left(row, NOBODY))
            await self._step(id, "drained")
        row = self.runs.row(id)
        at = ", ".join(f"{name} up to {barrier.at}" for name in row.channels if (barrier := self.book(name).barrier))
        self.runs.say(id, f"drained: {at} is settled; new messages are stored, acknowledged and wait"
                          f" (go on: interlock release --connection {row.connection})")  # fmt: skip
        while self.alive(id).deadline > self.world.now():  # noqa: ASYNC110 - the clock announces nothing
            await asyncio.sleep(POLL)
        await self.end(id, DONE, "its time was over: lifted, delivery goes on")

    async def _cutover(self, id: int) -> None:
        carried = Carried(frozenset(self.runs.row(id).options.get("carry", ())))
        await self._wait(id, lambda row: self._left(row, carried))
        await self._step(id, "settle")
        await self._quiet(id)
        for channel in self.of(self.runs.row(id)):
            await self.gather(channel)
        to_live = self.switching.to_live
        await self.switching.switch(id, Phase.LIVE, lambda book, row, ready: to_live(book, row, ready, carried))

    async def _rollback(self, id: int) -> None:
        if self.runs.row(id).step != "replay":
            await self._wait(id, lambda row: [
                (name, found) for name in row.channels for found in drain.at_real_endpoints(self.book(name))
            ])  # fmt: skip
            await self.switching.switch(id, Phase.PARALLEL, self.switching.to_parallel)
        await self._replayed(id)

    async def _wait(self, id: int, still: Callable[[RunRow], list[tuple[str, Left]]]) -> None:
        """Until nothing of it is left. Raises Ended, Failed."""
        began = self.world.now()
        while True:
            row = self.alive(id)
            waiting = still(row)
            if not waiting:
                return
            self.runs.say(id, self._waits_for(row, waiting, began))
            if row.deadline <= self.world.now():
                raise Failed(f"the time is over: {_listed(waiting)} did not settle")
            await asyncio.sleep(POLL)

    async def _quiet(self, id: int) -> None:
        """Until nothing has come from the old engine for as long as its taps (or its queue) need to be quiet."""
        while True:
            row = self.alive(id)
            loud = [(channel, seconds) for channel in self.of(row) if (seconds := self._yet(channel)) > 0]
            if not loud:
                return
            channel, seconds = max(loud, key=lambda each: each[1])
            unpaired = sum(self.world.unpaired(channel) for channel in self.of(row))
            open_pairs = f"; {unpaired} inputs without an output are listed, not waited for" if unpaired else ""
            self.runs.say(id, f"settle: {channel.id} must be quiet for {seconds:.1f} s more{open_pairs}"
                              f" ({WHAT_NOW.format(id=id)})")  # fmt: skip
            if row.deadline <= self.world.now():
                raise Failed(f"the time is over: {channel.id} was not quiet")
            await asyncio.sleep(min(POLL, seconds))

    def _yet(self, channel: Channel) -> float:
        return self.world.settle_time(channel) - self.world.quiet_for(channel) if channel.legacy else 0.0

    async def _replayed(self, id: int) -> None:
        """Until the old engine has what the rollback granted it. Nothing is barred any more."""
        counts: Counter[str] = Counter(self.runs.row(id).options.get("counts", {}))
        while True:
            row = self.alive(id)
            lasts = row.options.get("lasts", {})
            left = [
                (name, found)
                for name in row.channels
                if (old := self.book(name).course(LEGACY)) is not None
                and (found := drain.left(old, lasts.get(name, 0))).count > len(found.stuck)
            ]
            if not left:
                break
            self.runs.say(id, f"replay: {_listed(left)}; the old engine is the one to send again")
            await asyncio.sleep(POLL)
        await self.end(id, DONE, f"parallel; {replayed(counts)}")

    def alive(self, id: int) -> RunRow:
        row = self.runs.row(id)
        if row.state != RUNNING:
            raise Ended
        return row

    async def _step(self, id: int, step: str) -> None:
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

    # -- words

    def _left(self, row: RunRow, carried: Carried) -> list[tuple[str, Left]]:
        found = []
        for name in row.channels:
            book = self.book(name)
            if book.barrier is None:
                raise Ended
            for each in drain.before_cutover(book, book.barrier.at, carried):
                if row.verb != "drain" or each.count > len(each.stuck):
                    found.append((name, each))
        return found

    def _waits_for(self, row: RunRow, waiting: list[tuple[str, Left]], began: int) -> str:
        now = self.world.now()
        spent, limit = (now - began) / SECOND, max(0.0, (row.deadline - began) / SECOND)
        stuck = [f"{name}/{seq}" for name, each in waiting for seq in each.stuck][:5]
        person = f"; {', '.join(stuck)} want a person, or --carry" if stuck else ""
        return (
            f"{row.step} {spent:.0f} s of {limit:.0f} s: waits for {_listed(waiting)}{self._at_pace(waiting)}{person}"
            f" ({WHAT_NOW.format(id=row.id)})"
        )

    def _at_pace(self, waiting: list[tuple[str, Left]]) -> str:
        times = [
            pace * each.count
            for name, each in waiting
            if (pace := self.world.pace(self._channels[name], each.destination)) is not None
        ]
        return f", about {max(times):.0f} s at the measured pace" if times and max(times) >= 1 else ""

    def _phases(self, row: RunRow) -> str:
        return json.dumps({name: self.book(name).epoch.phase for name in row.channels})

    def _entry(self, row: RunRow, after: str, before: str) -> Entry:
        return Entry(self.world.now(), row.who, row.origin, row.verb, _subject(row), row.why, before, after)


def _subject(row: RunRow) -> str:
    return f"{row.connection}: {', '.join(row.channels)}"


def _listed(waiting: list[tuple[str, Left]]) -> str:
    first = "; ".join(each.said(name) for name, each in waiting[:4])
    return first + (f"; and {len(waiting) - 4} more" if len(waiting) > 4 else "")


def _plain(said: str) -> str:
    """For the log: what a field may hold."""
    return said.replace("→", "to")[:200]

"""Drives the runs: a drain, a cutover and a rollback, from their first step to their end, over restarts.

Each step that changes anything is one transaction over all channels of the connection, which looks again at what it
rests on: no freeze, its own barrier, nothing on the way, the checks that count at the switch. So whatever happens in
between (a hold, an abort, a crash), a run either has switched all of them or none.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any, TypeAlias

from engine.config.model import Channel
from engine.config.model import Replay as Policy
from engine.ledger.audit import Entry
from engine.ledger.book import Book
from engine.ledger.course import ChannelBook, Course
from engine.ledger.routing import LEGACY, Epoch, Routing
from engine.ledger.sqlite import journal
from engine.ledger.sqlite.journal import RunRow
from engine.ledger.sqlite.loading import LedgerError
from engine.migration import drain
from engine.migration.drain import NOBODY, Carried, Left
from engine.migration.gate.check import Fact, Subject, Waiver, When
from engine.migration.gate.examine import examine, passed
from engine.migration.gate.words import SECOND
from engine.migration.phases import Phase
from engine.migration.replay import Replay, replay
from engine.migration.runs import DONE, FAILED, RUNNING, Runs, end
from engine.migration.world import World
from engine.observe import migration_events as events
from engine.observe.events import emit
from engine.observe.service_events import EpochOpened, Fault

POLL = 0.05  # seconds between looks at what a run waits for
WHAT_NOW = "to give up: interlock abort --run {id}"


Ready: TypeAlias = dict[str, tuple[Routing, list[Course]]]
"""Channel → its next routing table, and its courses with those that it adds."""

Change: TypeAlias = Callable[[Book, RunRow, Ready], tuple[RunRow, list[str]]]
"""What a switch does in its transaction: the run's row after it, and what stood against it."""


COMES_FROM = {"cutover": Phase.PARALLEL, "rollback": Phase.LIVE}
"""The phase in which a run that switches begins. Behind its barrier no other verb changes it."""


class Ended(Exception):
    """The run has ended while it waited: an abort, or a hold."""


class Failed(Exception):
    """The run cannot go on; the sentence says why. Nothing has changed."""


class Conductor:
    """All runs of one service."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.facts: dict[str, dict[str, Fact]] = {}
        self.waivers: dict[str, dict[str, Waiver]] = {}
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
        for row in [row for row in self.runs.active() if row.step != "replay" and not self._stands(row)]:
            await self._strike(row)

    def _stands(self, row: RunRow) -> bool:
        books = [self.book(name) for name in row.channels if name in self._ledger.channels]
        return any(_owns(book, row.id) for book in books)

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
        self, row: RunRow, *, shut: Callable[[ChannelBook], frozenset[str]] = lambda book: frozenset()
    ) -> None:
        """Set the barriers of a new run, all in one transaction, and drive it. Raises Failed where one cannot be."""

        def act(book: Book) -> list[str]:
            problems = [text for name in row.channels for text in _in_the_way(self.book(name), row.verb)]
            if problems:
                return problems
            for name in row.channels:
                book.bar(self.book(name), row.id, shut(self.book(name)))
            book.put("put_run", *row.values())
            book.audit(self._entry(row, f"run {row.id} begins", self._phases(row)))
            return []

        self.runs.add(row)  # before its barriers are there: who finds one must find its run
        if problems := await self._ledger.transaction(act):
            self.runs.drop(row.id)
            raise Failed("; ".join(problems))
        emit(events.RunStarted(row.id, row.verb, row.who))
        for channel in self._of(row):
            self.world.frozen(channel)
        self.world.spawn(self._drive(row.id), f"run {row.id}")

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
            if now.step != "replay" and not any(_owns(b, id) for b in books):
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
        for channel in self._of(row):
            self.world.resumed(channel)

    # -- driving

    async def _drive(self, id: int) -> None:
        row = self.runs.row(id)
        try:
            if missing := [name for name in row.channels if name not in self._channels]:
                raise Failed(f"{', '.join(missing)} is no longer configured")
            await {"drain": self._drain, "cutover": self._cutover, "rollback": self._rollback}[row.verb](id)
        except Ended:
            pass
        except Failed as failed:
            await self.end(id, FAILED, f"{failed}; the barrier is lifted, and nothing has changed")
        except asyncio.CancelledError:
            raise
        except Exception as error:
            emit(Fault.of(error))
            await self.end(
                id, FAILED, "a defect of the product ended it; the barrier is lifted, and nothing has changed"
            )

    async def _drain(self, id: int) -> None:
        if self.runs.row(id).step != "drained":
            await self._wait(id, lambda row: self._left(row, NOBODY))
            await self._step(id, "drained")
        row = self.runs.row(id)
        at = ", ".join(f"{name} up to {barrier.at}" for name in row.channels if (barrier := self.book(name).barrier))
        self.runs.say(id, f"drained: {at} is settled; new messages are stored, acknowledged and wait"
                          f" (go on: interlock release --connection {row.connection})")  # fmt: skip
        while self._alive(id).deadline > self.world.now():  # noqa: ASYNC110 - the clock announces nothing
            await asyncio.sleep(POLL)
        await self.end(id, DONE, "its time was over: lifted, delivery goes on")

    async def _cutover(self, id: int) -> None:
        carried = Carried(frozenset(self.runs.row(id).options.get("carry", ())))
        await self._wait(id, lambda row: self._left(row, carried))
        await self._step(id, "settle")
        await self._quiet(id)
        for channel in self._of(self.runs.row(id)):
            await self.gather(channel)
        await self._switch(id, lambda book, row, ready: self._to_live(book, row, ready, carried))

    async def _rollback(self, id: int) -> None:
        if self.runs.row(id).step != "replay":
            await self._wait(id, lambda row: [
                (name, found) for name in row.channels for found in drain.at_real_endpoints(self.book(name))
            ])  # fmt: skip
            await self._switch(id, self._to_parallel)
        await self._replayed(id)

    async def _wait(self, id: int, still: Callable[[RunRow], list[tuple[str, Left]]]) -> None:
        """Until nothing of it is left. Raises Ended, Failed."""
        began = self.world.now()
        while True:
            row = self._alive(id)
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
            row = self._alive(id)
            loud = [(channel, seconds) for channel in self._of(row) if (seconds := self._yet(channel)) > 0]
            if not loud:
                return
            channel, seconds = max(loud, key=lambda each: each[1])
            unpaired = sum(self.world.unpaired(channel) for channel in self._of(row))
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
            row = self._alive(id)
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

    def _alive(self, id: int) -> RunRow:
        row = self.runs.row(id)
        if row.state != RUNNING:
            raise Ended
        return row

    async def _step(self, id: int, step: str) -> None:
        def act(book: Book) -> RunRow | None:
            row = replace(self.runs.row(id), step=step)
            if not all(_owns(self.book(name), id) for name in row.channels):
                return None  # it has just been ended, and that is not reported yet
            book.put("put_run", *row.values())
            return row

        became = await self._ledger.transaction(act)
        if became is None:
            raise Ended
        self.runs.became(became)
        emit(events.RunStep(id, self.runs.row(id).verb, step))
        self._alive(id)

    # -- switching

    async def _switch(self, id: int, change: Change) -> None:
        """The one transaction that opens the epochs of all channels, or of none."""
        row = self._alive(id)
        phase = Phase.LIVE if row.verb == "cutover" else Phase.PARALLEL
        prepared = [self._prepared(channel, phase) for channel in self._of(row)]
        sql = tuple(statement for _, _, added in prepared for statement in added)
        ready = {
            channel.id: (routing, courses)
            for channel, (routing, courses, _) in zip(self._of(row), prepared, strict=True)
        }

        def act(book: Book) -> tuple[RunRow, list[str]]:
            now = self.runs.row(id)
            books = [self.book(name) for name in now.channels]
            problems = [text for each in books for text in _not_ours(each, id)]
            if now.state != RUNNING or problems:
                return now, problems or ["it has ended"]
            return change(book, now, ready)

        try:
            became, problems = await self._ledger.transaction(act, sql)
        except LedgerError as error:
            raise Failed(str(error)) from error
        if problems:
            self._alive(id)
            raise Failed("; ".join(problems))
        self.runs.became(became)  # first: it is durable, whatever goes wrong in following it
        for channel in self._of(row):
            await self._follow(channel, row)
        if became.state == RUNNING:
            for channel in self._of(row):
                self.world.resumed(channel)
        else:
            self.ended(became)

    async def _follow(self, channel: Channel, row: RunRow) -> None:
        book = self.book(channel.id)
        closed = [course.name for course in drain.real(book)] if row.verb == "rollback" else []
        emit(EpochOpened(channel.id, book.epoch.phase, book.epoch.first, f"run {row.id}"))
        try:
            await self.world.moved(channel, rebuilt=closed)
        except Exception as error:  # one channel's defect must not keep the others of its connection back
            emit(Fault.of(error))

    def _prepared(self, channel: Channel, phase: Phase) -> tuple[Routing, list[Course], Any]:
        routing = self.world.routing(channel, phase)
        _, courses, sql = self._ledger.prepare(channel.id, routing, self.world.windows(channel))
        return routing, courses, sql

    def _to_live(self, book: Book, row: RunRow, ready: Ready, carried: Carried) -> tuple[RunRow, list[str]]:
        now = self.world.now()
        problems, evidence = [], {}
        for channel in self._of(row):
            mine = self.book(channel.id)
            assert mine.barrier is not None
            at = mine.barrier.at
            problems += [found.said(channel.id) + " did not settle" for found in
                         drain.before_cutover(mine, at, carried)]  # fmt: skip
            findings = examine(self.subject(channel, now, drain.flight(mine, at, carried)), When.AT_SWITCH)
            if not passed(findings):
                problems += [f"{channel.id}: {f.title}: {f.outcome.value}: {f.said}" for f in findings
                             if not passed([f])]  # fmt: skip
            evidence[channel.id] = [
                {"check": f.check, "outcome": f.outcome.value, "said": f.said, "at": f.at,
                 "waived_by": f.waiver.who if f.waiver else None} for f in findings
            ]  # fmt: skip
        if problems:
            return row, problems
        for channel in self._of(row):
            until = now + int(channel.rollback.until * SECOND) if channel.rollback else 0
            told = {"run": row.id, "gate": evidence[channel.id], "rollback_until": until,
                    "carried": sorted(carried.names)}  # fmt: skip
            self._open(book, channel, row, ready, Phase.LIVE, told)
        firsts = ", ".join(f"{name} from {self.book(name).epoch.first}" for name in row.channels)
        return self._finish(book, row, DONE, "", f"live: {firsts}"), []

    def _to_parallel(self, book: Book, row: RunRow, ready: Ready) -> tuple[RunRow, list[str]]:
        books = [self.book(name) for name in row.channels]
        if going := [found.said(b.name) for b in books for found in drain.at_real_endpoints(b)]:
            return row, going
        counts: Counter[str] = Counter()
        lasts = {}
        for channel in self._of(row):
            mine = self.book(channel.id)
            assert mine.barrier is not None
            lasts[channel.id] = mine.barrier.at
            done = replay(mine, mine.barrier.at, self.policy(channel, row.options), row.id)
            counts.update(counted(done))
            self._take_back(book, done, channel, ready, row)
            self._open(book, channel, row, ready, Phase.PARALLEL, {"run": row.id, **counted(done)})
        options = {**row.options, "lasts": lasts, "counts": dict(counts)}
        said = f"parallel again; {replayed(counts)}"
        return self._finish(book, replace(row, options=options), RUNNING, "replay", said), []

    def _take_back(self, book: Book, done: Replay, channel: Channel, ready: Ready, row: RunRow) -> None:
        mine, now = self.book(channel.id), self.world.now()
        for closing in done.closings:
            book.close_open(closing.course, closing.key, closing.state, closing.why, now)
        for grant in done.grants:
            book.grant(mine, grant, at=now, who=row.who, why=row.why)
        _, courses = ready[channel.id]
        old = next(course for course in courses if course.name == LEGACY)
        book.take_up(old, done.last)

    def _open(
        self, book: Book, channel: Channel, row: RunRow, ready: Ready, phase: Phase, evidence: dict[str, Any]
    ) -> None:
        routing, courses = ready[channel.id]
        mine = self.book(channel.id)
        before = mine.epoch
        epoch = Epoch(0, 0, phase.value, routing, who=row.who, why=row.why, at=self.world.now(),
                      evidence=json.dumps(evidence, sort_keys=True))  # fmt: skip
        opened = book.switch(mine, epoch, courses, row.id)
        book.audit(
            Entry(self.world.now(), row.who, row.origin, row.verb, channel.id, row.why, before.phase,
                  json.dumps({"phase": phase.value, "from": opened.first, "run": row.id}))
        )  # fmt: skip

    def _finish(self, book: Book, row: RunRow, state: str, step: str, said: str) -> RunRow:
        """The run's row after a switch: its barriers are gone, whether it goes on or not."""
        for name in row.channels:
            book.lift(self.book(name))
        ended = self.world.now() if state != RUNNING else None
        row = replace(row, state=state, step=step or row.step, said=said, ended=ended)
        book.put("put_run", *row.values())
        if ended is not None:
            book.over |= {row.id}
        return row

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

    def _of(self, row: RunRow) -> list[Channel]:
        return [self._channels[name] for name in row.channels if name in self._channels]

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


def _in_the_way(book: ChannelBook, verb: str) -> list[str]:
    """What stands against a run that begins now, whatever was so when it was planned."""
    if book.hold is not None:
        return [f"{book.name} is held by {book.hold.who} ({book.hold.why}): release it first"]
    if book.barrier is not None:
        return [f"{book.name} belongs to run {book.barrier.run}, which goes on: abort it first"]
    comes_from = COMES_FROM.get(verb)
    if comes_from is not None and book.epoch.phase != comes_from.value:
        return [f"{book.name} is {book.epoch.phase}: a {verb} begins in {comes_from.value}"]
    return []


def _owns(book: ChannelBook, run: int) -> bool:
    return book.barrier is not None and book.barrier.run == run


def _not_ours(book: ChannelBook, run: int) -> list[str]:
    if book.hold is not None:
        return [f"{book.name} is held by {book.hold.who}"]
    return [] if _owns(book, run) else [f"{book.name} has no barrier of this run any more"]


def _subject(row: RunRow) -> str:
    return f"{row.connection}: {', '.join(row.channels)}"


def _listed(waiting: list[tuple[str, Left]]) -> str:
    first = "; ".join(each.said(name) for name, each in waiting[:4])
    return first + (f"; and {len(waiting) - 4} more" if len(waiting) > 4 else "")


def _plain(said: str) -> str:
    """For the log: what a field may hold."""
    return said.replace("→", "to")[:200]

"""Builds one running process from its configuration: ledger, ports, delivery, HTTP; starts it, and stops it.

Order of starting: the ledger (which says what a crash left open), the epochs, the ways out, and only then the ports.
Order of stopping: the ports, what is on the way (for a moment), the ways out, the ledger. What is not settled by then
stays claimed, and is resolved at the next start.
"""

from __future__ import annotations

import asyncio
import gc
import json
import time
from dataclasses import replace
from typing import Any

from engine.config.edge import Files
from engine.config.feed import Feed
from engine.config.model import Channel, Configuration
from engine.delivery.destinations.whole import Wholes
from engine.delivery.outputs import Memory
from engine.delivery.runner import Runner
from engine.delivery.workers.lock import DeliveryLock
from engine.intake.inlet import Clocks
from engine.ledger.audit import Entry
from engine.ledger.course import ChannelBook, Course
from engine.ledger.model import IntakeEvent, Message, Settlement, State, TapOutput
from engine.ledger.outcome import Outcome, Result
from engine.ledger.repeats import Repeats, essence
from engine.ledger.routing import LEGACY, Epoch, Routing
from engine.ledger.sqlite import copies
from engine.ledger.sqlite.ledger import SqliteLedger
from engine.ledger.sqlite.writer import Commit, Reclaim
from engine.migration.conductor import Conductor
from engine.migration.phases import Phase, first_phase, routing, transparent
from engine.migration.runs import ABORTED
from engine.observe import ledger_events
from engine.observe.events import LOG, emit
from engine.observe.ledger_events import LedgerOpened, LedgerRecovered, LedgerUnwritable, RowFailed
from engine.observe.migration_events import HELD, HoldOverdue
from engine.observe.service_events import EpochOpened, Fault, PhaseSeen, ServiceStopping, Stranded
from engine.remedy.replaying import Replaying
from engine.service.afterwards import Afterwards
from engine.service.comparing import Comparisons
from engine.service.doors import Doors
from engine.service.follower import Follower
from engine.service.keeping import Keeping
from engine.service.moments import now_us
from engine.service.moves import PAGE_EVERY, Moves
from engine.service.remembering import Remembering
from engine.service.reminding import remind
from engine.service.ways import Ways

SWEEP = 0.2  # seconds between looks for late answers
SWEEPS_A_SECOND = 5
TABLES_EVERY = 5.0  # seconds between looks whether a table's file has changed
GRACE = 3.0  # seconds that what is on the way gets at the end
COLLECT = (20_000, 20, 50)  # messages come and go without cycles; looking for some every 700 objects costs a tenth
SOCKETS_A_TERM = 1 << 32  # connection numbers never repeat: the term is their upper half


class StartError(Exception):
    """The service cannot start on this configuration. The sentences say why, and what would be right."""


class Service:
    """One process. `start` returns when every port that can be had is open; `stop` when nothing of it is left."""

    def __init__(self, configuration: Configuration, ways: Ways | None = None) -> None:
        """`ways` builds the destinations; the configured ones unless given."""
        self.configuration = configuration
        self.started_at = now_us()
        self.began = 0.0  # when it was started, in seconds of the event loop's clock
        self.runners: list[Runner] = []
        self.fatal: BaseException | None = None
        self.ended = asyncio.Event()
        self.remembering: Remembering | None = None
        self.ways = ways or Ways(configuration)
        self._sockets = 0
        self._tasks: set[asyncio.Task[Any]] = set()
        self._broken_since = 0.0

    async def start(self) -> None:
        """Raises LedgerError, MappingError, StartError."""
        self.began = asyncio.get_running_loop().time()
        self.ways.prepare()
        self.ledger = SqliteLedger(self.configuration.service.ledger, now_us)
        books = self.ledger.channels.values()
        still_open = sum(course.unsettled() for book in books for course in book.courses)
        messages = sum(book.seq for book in books)
        emit(LedgerOpened(str(self.ledger.path), self.ledger.incarnation, self.ledger.term, messages, still_open))
        self.delivery = DeliveryLock(self.ledger.path)
        self.ways.incarnations = self.ledger.incarnations.names
        self.ways.hire(self.delivery)
        self.ledger.on_unwritable = self._unwritable
        self.ledger.on_fatal = self._fatal
        self.follower = Follower(self.ledger)
        self.ledger.start(self._committed)
        loop = asyncio.get_running_loop()
        self._clocks = Clocks(now_us, loop.time)
        self._sockets = self.ledger.term * SOCKETS_A_TERM
        conflicts = [text for channel in self.configuration.channels for text in self._conflicts(channel)]
        if conflicts := conflicts + [text for feed in self.configuration.feeds for text in self._half_ours(feed)]:
            await self.ledger.close()
            self.delivery.release()
            raise StartError("\n".join(conflicts))
        self.moves = Moves(self)
        self.conductor = Conductor(self.moves)
        self.doors = Doors(
            self.ledger, self.ways, self._clocks, self._number,
            self.spawn,
        )  # fmt: skip
        self.ways.back, self.ways.answered = self.doors.back, self._answered
        self.ways.later = Afterwards(self.ledger, self.doors.inlets, self.ways.meanings, now_us).heard
        self.ways.books, self.ways.wholes = self._books, Wholes(self.ledger)
        self.ways.take_turns = self.ledger.take_turns
        self.replaying = Replaying(self.ledger, now_us)
        self.keeping = Keeping.of(self.configuration, self.ledger, now_us, self._running)
        self.comparisons = Comparisons(self.ledger, self.ways, now_us, self._number, self.spawn)
        await self.conductor.load()
        self.ways.kept = self.ledger.keep_mappings
        await self.ways.keep()
        await asyncio.gather(*(self._open_epoch(channel) for channel in self.configuration.channels))
        self.remembering = Remembering(self.ledger, self.ways.remembers())
        self.ways.memory = Memory(self.remembering.recall, self.remembering.caught_up)
        await self.remembering.open()
        await self.ledger.watch_repeats(
            {
                channel.id: Repeats(int(channel.duplicates.window * 1e6), essence(channel.duplicates.ignore))
                for channel in self.configuration.channels
                if channel.duplicates.window and not isinstance(channel.source, Files)  # known by name and content
            }
        )
        for channel in self.configuration.channels:
            self._build(channel)
        for feed in self.configuration.feeds:
            self.doors.join(feed)
        if self.delivery.held:
            self._begin()
        else:
            self.spawn(self._begin_later(), "delivery lock")
        await self.comparisons.open()
        await self.ways.open(self.spawn)
        await remind(self.configuration, self.ledger, self.doors)
        await self.doors.open()
        self.spawn(self.ways.certificates.watch(), "certificates")
        self.spawn(self._sweep(), "sweep")
        await self.follower.open()
        self.spawn(self.follower.run(), "follower")
        self.spawn(self.follower.tidy(), "tidy")
        self.spawn(self.remembering.run(), "remembering")
        if self.ways.rereads:
            self.spawn(self._tables(), "tables")
        self.spawn(self.keeping.run(), "keeping")
        await self.replaying.start()
        await self.conductor.start()
        gc.collect()
        gc.freeze()  # what was built lives as long as the process: no collection need look at it again
        gc.set_threshold(*COLLECT)

    async def stop(self, reason: str = "asked to") -> None:
        emit(ServiceStopping(reason))
        deadline = time.monotonic() + GRACE
        await self.doors.shut(GRACE)
        await self._quiet(deadline)
        await self.comparisons.close(GRACE)
        await self.replaying.stop()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for runner in self.runners:
            await runner.stop()
        await self.doors.end()
        await self.ways.close()
        self.keeping.close()
        if self.remembering is not None:
            self.remembering.close()
        await self.ledger.close()
        self.delivery.release()

    # -- building

    def _running(self, channel: str) -> str:
        """Which run of a channel goes on, in words."""
        return next((f"run {row.id} ({row.verb})" for row in self.conductor.runs.of([channel])), "")

    def _conflicts(self, channel: Channel) -> list[str]:
        """Where the channel's file no longer has what the phase that the ledger is in needs: its messages would be
        acknowledged and go nowhere."""
        book = self.ledger.channels.get(channel.id)
        if book is None or not book.epochs:
            return []
        phase = Phase(book.epoch.phase)
        if transparent(phase) and channel.legacy is None:
            return [
                f"{channel.file}: found no legacy:, but the ledger says that {channel.id} is in phase {phase.value},"
                " where the old engine does the work; expected legacy: until the channel is live"
            ]
        if against := _another_way(channel, book.epoch):
            return [f"{channel.file}: {against}"]
        table = routing(channel, phase, self.ways.versions(channel))
        if book.epoch.routing.due() and not table.due():
            return [
                f"{channel.file}: found nothing that {channel.id} would send to in phase {phase.value}, where it is"
                " by the ledger; expected the destinations it had"
            ]
        return []

    def _half_ours(self, feed: Feed) -> list[str]:
        """Where a feed's socket is ours for some of its channels only: frames of the others would go nowhere."""
        outside: list[str] = []
        inside: list[str] = []
        for channel in self.configuration.channels:
            if channel.id in feed.channels:
                book = self.ledger.channels.get(channel.id)
                phase = Phase(book.epoch.phase) if book and book.epochs else first_phase(channel)
                (outside if phase is Phase.OUTSIDE else inside).append(channel.id)
        if not outside or not inside:
            return []
        return [
            f"{feed.file}: found {', '.join(outside)} in phase outside, and {', '.join(inside)} not; expected all"
            " channels of a feed on one side, since they share its socket"
        ]

    async def _open_epoch(self, channel: Channel, origin: str = "the service's start") -> None:
        """The channel's phase is the ledger's; YAML's is its first. A changed routing table opens a new epoch."""
        book = self.ledger.channels.get(channel.id)
        known = book.epoch if book and book.epochs else None
        phase = Phase(known.phase) if known else first_phase(channel)
        table = routing(channel, phase, self.ways.versions(channel))
        windows = self.ways.windows(channel)
        if book is None or known is None or known.routing != table:
            why = _why_opened(known, table)
            if book is not None and book.barrier is not None:  # what the run was begun for is no longer so
                await self.conductor.end(book.barrier.run, ABORTED, why)
            book = await self.ledger.switch(
                channel.id, phase.value, table, windows, who="configuration", why=why,
                audit=lambda epoch: _opened(channel, known, epoch, origin),
            )  # fmt: skip
            emit(EpochOpened(channel.id, phase.value, book.epoch.first, why))
        else:
            emit(PhaseSeen(channel.id, phase.value))
        self._arrange(book, windows)

    def _arrange(self, book: ChannelBook, windows: dict[str, int]) -> None:
        self.ledger.arrange(book.courses, windows)
        book.rerouted()

    def _build(self, channel: Channel) -> None:
        book = self.ledger.channels[channel.id]
        self.runners += self._missing_runners(channel)
        phase = Phase(book.epoch.phase)
        HELD.of(channel.id).n = int(book.hold is not None)
        self.doors.add(channel)
        if channel.taps and phase is not Phase.RETIRED:
            self.comparisons.add(channel, book, self.doors.rules(channel))

    def _missing_runners(self, channel: Channel) -> list[Runner]:
        """Runners for the courses that have work and none yet."""
        book, made = self.ledger.channels[channel.id], []
        for course in book.courses:
            if course.runner is not None or not (course.spans or course.open):
                continue
            destination = self.ways.destination(channel, course.name, self.ledger.incarnations)
            if destination is None:
                self._stranded(course)
                continue
            course.runner = Runner(course, destination, self.ledger, now_us)
            self.ways.share(channel, course, destination)
            if channel.taps and course.name == LEGACY:
                course.runner.on_send = self.comparisons.sending
            made.append(course.runner)
        book.runners = [course.runner for course in book.courses if course.runner and course.spans]
        return made

    async def follow(self, channel: Channel) -> None:
        """An epoch was opened: the courses that it needs, and how frames are judged."""
        self.comparisons.moved(channel.id)
        await self.delivery.acquire()
        made = self._missing_runners(channel)
        self.runners += made
        for runner in made:
            await runner.start()
        if inlet := self.doors.inlets.get(channel.id):
            inlet.set_phase(transparent=transparent(Phase(self.ledger.channels[channel.id].epoch.phase)))

    def _stranded(self, course: Course) -> None:
        """A destination that the configuration no longer has: what is due there goes nowhere, and must be seen."""
        if left := course.unsettled():
            emit(Stranded(course.channel.name, course.name, left))

    def _begin(self) -> None:
        for runner in self.runners:
            self.spawn(runner.start(), "runner")

    async def _begin_later(self) -> None:
        await self.delivery.acquire()
        self._begin()

    def _number(self) -> int:
        self._sockets += 1
        return self._sockets

    def _books(self, feed: str) -> list[ChannelBook]:
        """Of a feed's channels."""
        names = self.moves.feeds[feed].channels
        return [self.ledger.channels[name] for name in names if name in self.ledger.channels]

    async def _answered(self, message: Message) -> Outcome | None:
        """What became of another copy of a frame at the old engine."""
        await self.ledger.transaction(lambda book: None)  # what is known already is durable
        found = await self.ledger.read(lambda reader: copies.answered(reader.connection, message.id, LEGACY))
        if found is None:
            return None
        state, why, answer = found
        return Outcome(Result.DELIVERED if state is State.DELIVERED else Result.REFUSED, why, answer)

    # -- running

    def _committed(self, commit: Commit) -> None:
        """A transaction is durable. Each message is its own affair: what goes wrong with one spoils no other."""
        COMMITS.n += 1
        self.follower.committed(commit)
        doors, comparisons = self.doors, self.comparisons
        if self.remembering is not None:  # before anything that was stored is sent
            self.remembering.committed(commit.stored)
        for message in commit.stored:
            try:
                doors.stored(message)
                for runner in message.channel.runners:
                    runner.offer(message)
            except Exception as error:
                emit(Fault.of(error))
        for settlement in commit.settled:
            if settlement.delivery > 1:
                self.replaying.settled(settlement.course)
            if settlement.state is State.DEAD:
                self._guarded(self.moves.died, settlement)
            if settlement.message.reply is not None and settlement.course is settlement.course.channel.relay:
                self._guarded(doors.settled, settlement)
        if comparisons.channels:
            for message in commit.stored:
                self._guarded(comparisons.stored, message)
            for settlement in commit.settled:
                self._guarded(comparisons.settled, settlement)
            for output in commit.outputs:
                self._guarded(comparisons.kept, output)
        for course, claim in commit.claimed:
            try:
                if course.runner is not None:
                    course.runner.claimed(claim)
            except Exception as error:
                emit(Fault.of(error))
        for course, key, granted in commit.reclaimed:
            self._guarded(course.runner.granted, key, granted)
        for event in commit.events:
            self._guarded(doors.kept, event)
        for operation in commit.unstored:
            if isinstance(operation, TapOutput):
                self._guarded(comparisons.unkept, operation)
            else:
                self._guarded(doors.unstored, operation)
        for operation, reason in commit.failed:
            self._failed(operation, reason)

    def _failed(self, operation: Any, reason: str) -> None:
        """One operation could not be written, and the others of its batch were."""
        if isinstance(operation, Message | IntakeEvent):
            emit(RowFailed(operation.channel.name, reason))
            self._guarded(self.doors.failed, operation)
        elif isinstance(operation, TapOutput):
            emit(RowFailed(operation.channel.name, reason))
            self._guarded(self.comparisons.unkept, operation)
        elif isinstance(operation, Reclaim):
            emit(RowFailed(operation.course.channel.name, reason))
            self._guarded(operation.course.runner.claim_failed, operation.key)
        elif isinstance(operation, Settlement):  # what became of it could not be recorded: it stays claimed
            self._fatal(RuntimeError(f"a receipt could not be written: {reason}"))

    def _guarded(self, act: Any, *arguments: Any) -> None:
        try:
            act(*arguments)
        except Exception as error:
            emit(Fault.of(error))

    def _unwritable(self, reason: str | None) -> None:
        if reason is not None:
            self._broken_since = time.monotonic()
            emit(LedgerUnwritable(reason))
            # Nothing is read from the senders meanwhile, so something else must find out when it can be written again:
            # the writer keeps trying this until it can.
            self.spawn(self.ledger.probe(), "probe of the ledger")
            return
        emit(LedgerRecovered(time.monotonic() - self._broken_since))
        self.doors.recovered()

    def _fatal(self, error: BaseException) -> None:
        emit(Fault.of(error))
        self.fatal = error
        self.ended.set()

    async def _sweep(self) -> None:
        turn = 0
        while True:
            await asyncio.sleep(SWEEP)
            self.doors.sweep()
            turn += 1
            if turn % SWEEPS_A_SECOND == 0:
                LOG.sweep()
                self._guarded(self.comparisons.tick)
                self.moves.sample()
                self._overdue(turn)

    async def _tables(self) -> None:
        """A table with new content makes another mapping of those that use it, which opens an epoch. Where a run goes
        on, it is opened after its end."""
        late = False
        while True:
            await asyncio.sleep(TABLES_EVERY)
            try:
                late |= await self.ways.refresh()
                if late:
                    late = await self._reroute()
            except Exception as error:  # looked at again at the next turn
                emit(Fault.of(error))

    async def _reroute(self) -> bool:
        """Open an epoch wherever the routing is another one by now. Whether a run has kept one of them closed."""
        late = False
        for channel in self.configuration.channels:
            book = self.ledger.channels[channel.id]
            table = routing(channel, Phase(book.epoch.phase), self.ways.versions(channel))
            if table == book.epoch.routing:
                continue
            if book.barrier is not None:
                late = True
            else:
                await self._open_epoch(channel, "the files, read while running")
        return late

    def _overdue(self, turn: int) -> None:
        """A hold that has outlived its limit pages, and again."""
        if turn % int(SWEEPS_A_SECOND * PAGE_EVERY):
            return
        for book in self.ledger.channels.values():
            hold = book.hold
            if hold is not None and (left := self.conductor.left_of_hold(book, hold)) < 0:
                emit(HoldOverdue(book.name, hold.who, -left))

    async def _quiet(self, deadline: float) -> None:
        """Wait a moment for what is on the way."""
        for runner in self.runners:
            while runner.course.in_flight() and time.monotonic() < deadline:  # noqa: ASYNC110 - changed by a thread
                await asyncio.sleep(0.02)

    def spawn(self, work: Any, name: str) -> asyncio.Task[Any]:
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._task_ended)
        return task

    def _task_ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            emit(Fault.of(error))


def _another_way(channel: Channel, epoch: Epoch) -> str | None:
    """Where the file puts the old engine elsewhere than the channel's phase has it. Behind us it waits for what we pass
    on, in front it has everything already: what is stored would go to nobody, or come to the old engine twice."""
    phase, way = Phase(epoch.phase), epoch.routing.route(LEGACY)
    ledger = f"but the ledger says that {channel.id} is in phase {phase.value}"
    if channel.observed and (phase is Phase.LIVE or (transparent(phase) and way)):
        return (
            f"found observed: in legacy:, {ledger}, where what comes in is no copy; expected legacy: as it was, until"
            " the channel is outside"
        )
    if transparent(phase) and not channel.observed and not way:
        return (
            f"found a way to the old engine in legacy:, {ledger}, where the old engine is in front and has it all;"
            " expected observed: true until the channel is outside (interlock give-back), then interlock takeover"
        )
    return None


def _why_opened(known: Epoch | None, table: Routing) -> str:
    """Why the configuration opens an epoch with this table."""
    if known is None:
        return "first epoch"
    if _without_mappings(known.routing) == _without_mappings(table):
        return "the channel's mapping changed"
    return "the channel's routing changed"


def _without_mappings(table: Routing) -> Routing:
    return replace(table, routes=tuple(replace(route, mapping=None) for route in table.routes))


def _opened(channel: Channel, known: Epoch | None, epoch: Epoch, origin: str) -> Entry:
    """What the audit chain says of an epoch that the configuration opened."""
    return Entry(
        now_us(), "configuration", origin, "epoch", channel.id, epoch.why, known.phase if known else "",
        json.dumps({"phase": epoch.phase, "from": epoch.first}),
    )  # fmt: skip


COMMITS = ledger_events.COMMITS.of()

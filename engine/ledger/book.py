"""What a transaction does to the ledger's numbers, and the rows that come of it. No SQL and no I/O.

A `Book` is told what happened (`store`, `settle`, `claim_open` …) between `begin` and `finish`; `finish` claims
what may be claimed, so that the claim of an idle course rides in the transaction that stores the message, and the
next claim of a busy one in the transaction that settles the last. `undo` puts everything back when the
transaction could not be written.
"""

from __future__ import annotations

import json
import zlib
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

from engine.ledger.audit import Entry, Head, append
from engine.ledger.course import OURS, POLICY, SETTLED_STATES, Barrier, ChannelBook, Compared, Course, Hold, Span
from engine.ledger.model import (
    ENDS_ALL,
    FAILED,
    FIRST_SETTLED,
    UNDONE,
    IntakeEvent,
    Message,
    OpenWork,
    Settlement,
    State,
    TapOutput,
    first_of,
)
from engine.ledger.repeats import Repeats
from engine.ledger.routing import LEGACY, Epoch, Grant, Mode
from engine.ledger.turns import Turn, Turns

OpenKey: TypeAlias = tuple[int, int, int]  # (sequence, part, delivery)

HEAD = 4096  # bytes of a large message that stand in its row, so that its header is read like any other's

_MISSING = object()


class LedgerRuleError(Exception):
    """Ours: somebody asked the ledger for what its rules forbid. Nothing was written."""


@dataclass(slots=True)
class Changes:
    """The rows of one transaction, in the shape of the tables (`engine.ledger.sqlite.schema`)."""

    messages: list[tuple[Any, ...]] = field(default_factory=list)
    receipts: list[tuple[Any, ...]] = field(default_factory=list)
    captured: list[tuple[Any, ...]] = field(default_factory=list)
    events: list[tuple[Any, ...]] = field(default_factory=list)
    epochs: list[tuple[Any, ...]] = field(default_factory=list)
    channels: list[tuple[int, int]] = field(default_factory=list)
    progress: list[tuple[Any, ...]] = field(default_factory=list)
    opened: list[tuple[Any, ...]] = field(default_factory=list)
    closed: list[tuple[Any, ...]] = field(default_factory=list)
    outputs: list[tuple[Any, ...]] = field(default_factory=list)
    put: list[tuple[str, tuple[Any, ...]]] = field(default_factory=list)  # (name of a statement, its values)


class Book:
    """The ledger's numbers, moved one transaction at a time."""

    def __init__(self, term: int, last_message: int, audited: Head | None = None, last_output: int = 0) -> None:
        self.term = term
        self.last_message = last_message
        self.last_output = last_output
        self.audited = audited or Head()
        self.over: frozenset[int] = frozenset()  # runs that have ended, in this process
        self._stamp = 0
        self.begin()

    def begin(self) -> None:
        self._stamp += 1
        self._saved: list[tuple[ChannelBook | Course, tuple[Any, ...]]] = []
        self._log: list[tuple[Any, Any, Any]] = []  # (table, key, what was there)
        self._first_message = self.last_message
        self._first_output = self.last_output
        self._audited_before = self.audited
        self._over_before = self.over
        self._changes = Changes()
        self._counted: dict[ChannelBook, None] = {}
        self._moved: list[tuple[Course, int]] = []  # rows of `progress` to write: course, epoch
        self._looked: list[Course] = []  # courses that may claim more
        self._open: dict[tuple[Course, OpenKey], OpenWork | None] = {}
        self._learned: list[Message] = []  # of this transaction: what a later message may repeat
        self._replayed: dict[Course, None] = {}  # whose counts of replays have changed
        self._turns: dict[Turns, None] = {}  # somebody may have his turn
        self._claimed: list[tuple[Course, int]] = []
        self.granted: list[tuple[Course, OpenKey, bool]] = []
        """The answers to what was to be claimed anew, in this transaction or in an earlier one, after `finish`."""

    def undo(self) -> None:
        """Put everything back as it was at `begin`."""
        for message in reversed(self._learned):
            if message.channel.repeats is not None:
                message.channel.repeats.forget(message.seq, message.socket)
        for book, saved in reversed(self._saved):
            book.restore(saved)
        for table, key, old in reversed(self._log):
            if old is _MISSING:
                table.pop(key, None)
            else:
                table[key] = old
        self.last_message = self._first_message
        self.last_output = self._first_output
        self.audited = self._audited_before
        self.over = self._over_before
        self.begin()

    # -- what happened

    def store(self, message: Message) -> None:
        channel = message.channel
        if channel not in self._counted:  # something else may have touched it before, in the same transaction
            self._touch(channel)
            self._counted[channel] = None
            self._look(channel)
        channel.seq = message.seq = channel.seq + 1
        self.last_message = message.id = self.last_message + 1
        if channel.repeats is not None and message.control_id:
            self._look_for_first(channel, channel.repeats, message)
        message.relayed = message.wants_relay and channel.can_relay()
        if message.relayed:
            self._set(channel.awaiting, message.seq, message)
        if message.flaw:
            self._changes.events.append(
                (message.received, channel.id, "would_refuse", message.flaw, "", message.socket, len(message.raw),
                 message.id, None, b"")
            )  # fmt: skip
        self._changes.messages.append(
            (
                message.id,
                channel.id,
                message.seq,
                message.socket,
                message.received,
                message.control_id,
                message.large,
                message.crc if message.crc is not None else zlib.crc32(message.raw),
                message.raw if message.large is None else message.raw[:HEAD],
            )
        )

    def _look_for_first(self, channel: ChannelBook, repeats: Repeats, message: Message) -> None:
        """Whether a message repeats an earlier one: then it goes to the old engine as it came, and nowhere else."""
        control_id, socket, received = message.control_id or "", message.socket, message.received
        message.repeats = first = repeats.first_of(control_id, socket, received, message.raw, message.digest)
        if first is None:
            repeats.learn(message.id, message.seq, socket, received, control_id, message.raw, message.digest)
            self._learned.append(message)
            return
        message.wants_relay = message.wants_relay and first.answer is None
        self.put("add_repeat", message.id, channel.id, message.seq, first.seq, first.id)
        for course in channel.courses:
            if course.spans and course.name != LEGACY:
                self._set(course.repeated, message.seq, first.seq)

    def settle(self, settlement: Settlement) -> tuple[OpenKey, bool] | None:
        """Record what became of a part. Where it was not the last one: the key of the next, and whether that is claimed
        with it."""
        course, state, seq = settlement.course, settlement.state, settlement.seq
        if course.stamp != self._stamp:
            self._touch(course)
        work = course.open.get((seq, settlement.part, settlement.delivery)) if course.open else None
        if work is not None:
            epoch = work.epoch
        elif course.frontier < seq <= course.claim and seq not in course.done:
            epoch = course.spans[0].epoch
        elif state is State.PARKED:
            return None  # closed by others just before, by a person say: it waits for nothing any more
        else:
            raise LedgerRuleError(
                f"{course.channel.name}/{seq} at {course.name}: neither open nor claimed (frontier {course.frontier},"
                f" claim {course.claim}), so it cannot become {state.label}"
            )
        following = None
        if state < FIRST_SETTLED:
            self._open_again(settlement, epoch, work.so_far if work is not None else 0)
            if course.stops and state is State.DEAD:
                self._stop(settlement, epoch)
        elif settlement.parts == 1:
            self._receipt(settlement, epoch, settlement.part)
            self._count(course, epoch, settlement.delivery, state._value_)
            if work is not None:
                self._close(course, work)
        else:
            following = self._part_settled(settlement, epoch, work)
        if work is None:
            self._leave_flight(course, seq, settlement.message.id)
        if course.marked != epoch:
            self._mark(course, epoch)
        if following is not None or settlement.delivery > 1:
            return following
        channel = course.channel
        if channel.repeats is not None and state in FAILED:
            channel.repeats.void(seq)
        if course.repeated:
            self._first_is_through(course, seq, state)
        if course is channel.relay:
            self._authority_spoke(settlement)
        elif channel.refused and state is State.REFUSED:
            self._no_heeded(channel, seq)
        return None

    def _first_is_through(self, course: Course, seq: int, state: State) -> None:
        """Where a message was not delivered here after all, its repeats are sent in its place."""
        if state >= FIRST_SETTLED:
            self._drop(course.repeated, seq)
        if state in UNDONE:
            for repeat in [repeat for repeat, first in course.repeated.items() if first == seq]:
                self._drop(course.repeated, repeat)

    def _part_settled(self, settlement: Settlement, epoch: int, work: OpenWork | None) -> tuple[OpenKey, bool] | None:
        """One of several parts: the next one becomes the open work, claimed at once where nothing holds it back."""
        course, state, seq, part = settlement.course, settlement.state, settlement.seq, settlement.part
        last = settlement.parts if state in ENDS_ALL else part
        for each in range(part, last + 1):
            self._receipt(settlement, epoch, each)
        counts = first_of(filter(None, (state, work.so_far if work is not None else 0)))
        if work is not None:
            self._close(course, work)
        if last == settlement.parts:
            self._count(course, epoch, settlement.delivery, counts.value)
            return None
        claimed = course.may_claim(seq)
        following = OpenWork(
            seq, part + 1, settlement.delivery, settlement.message.id, epoch,
            State.SENDING if claimed else State.RETRYING, 0, 0, "", True, settlement.parts, counts.value,
            settlement.revision, settlement.made_by,
        )  # fmt: skip
        self._put_open(course, following)
        return following.key, claimed

    def _open_again(self, settlement: Settlement, epoch: int, so_far: int) -> None:
        course, seq, delivery = settlement.course, settlement.seq, settlement.delivery
        key = (seq, settlement.part, delivery)
        blocks = settlement.blocks
        if settlement.state is State.PARKED and course.mode(seq, delivery) is Mode.ASK:
            blocks = False  # a rollback, which may have come in between, has left it to a person: nothing waits for it
        known = course.open.get(key)
        revision = max(settlement.revision, known.revision if known else 1)  # a person may just have changed it
        opened = OpenWork(
            *key, settlement.message.id, epoch, settlement.state, settlement.due, settlement.tries, settlement.why,
            blocks, settlement.parts, so_far, revision, settlement.made_by,
        )  # fmt: skip
        self._put_open(course, opened)

    def _stop(self, settlement: Settlement, epoch: int) -> None:
        """A message is dead, and its destination's policy stops the channel: no claim from this transaction on.
        Not where an old engine does the work, whose messages must not wait for ours; nor while a rollback takes the
        channel back: a person is at it."""
        channel, at = settlement.course.channel, settlement.at
        theirs = {channel.epoch.phase, channel.epochs[epoch - 1].phase} - OURS
        if theirs or channel.hold is not None or (channel.barrier is not None and channel.barrier.shut):
            return
        why = f"message {settlement.seq} is dead at {settlement.course.name}"
        self.hold(channel, Hold(at, POLICY, why, at))
        self.audit(Entry(at, POLICY, "delivery", "hold", channel.name, why))

    def claim_anew(self, course: Course, key: OpenKey) -> None:
        """Claim one open part anew, singly, when it is its turn."""
        if course.turns is not None and course.mode(key[0], key[2]) is Mode.SEND:
            self._line_up(course.turns, (course, key))
        else:
            self.granted.append((course, key, self.claim_open(course, key)))

    def claim_open(self, course: Course, key: OpenKey) -> bool:
        """Claim one open part anew, singly. False when it is not there to be claimed, or held back."""
        work = course.open.get(key)
        if work is None or work.state is State.SENDING or not course.may_claim(work.seq):
            return False
        self._touch(course)
        self._put_open(course, replace(work, state=State.SENDING, due=0, blocks=True))
        self._mark(course, work.epoch)  # its row asks whether this term is still the present one
        return True

    def release(self, channel: ChannelBook, seq: int) -> None:
        """The authority's answer is late: nothing waits for it any more."""
        self._drop(channel.awaiting, seq)
        self._look(channel)

    def take_turns(self, turns: Turns) -> None:
        """An endpoint may have room again."""
        self._turns[turns] = None

    def pause(self, course: Course, paused: bool) -> None:
        """Stop claiming on a course, or go on."""
        self._touch(course)
        course.paused = paused

    def event(self, event: IntakeEvent) -> None:
        message = event.message.id if event.message else None
        self._changes.events.append(
            (event.at, event.channel.id, event.kind, event.reason, event.peer, event.socket, event.size, message,
             event.answer, event.raw)
        )  # fmt: skip

    def output(self, output: TapOutput) -> None:
        """What the old engine sent to a tap."""
        self.last_output = output.id = self.last_output + 1
        packed = output.packed or zlib.compress(output.raw, 1)
        self._changes.outputs.append(
            (output.id, output.channel.id, output.tap, output.at, output.socket, output.control_id, output.decision,
             output.seq, output.answer, output.large, packed if output.large is None else packed[:HEAD])
        )  # fmt: skip

    # -- holding back

    def hold(self, channel: ChannelBook, hold: Hold | None) -> None:
        """Freeze a channel, or release it."""
        self._touch(channel)
        channel.hold = hold
        if hold is None:
            self.put("drop_hold", channel.id)
            self._look(channel)
        else:
            self.put("put_hold", channel.id, hold.until, hold.who, hold.why, hold.at)

    def bar(self, channel: ChannelBook, run: int, shut: frozenset[str] = frozenset()) -> Barrier:
        """Set a barrier above every number given so far. LedgerRuleError where another run has one."""
        if channel.barrier is not None:
            raise LedgerRuleError(f"{channel.name} has a barrier of run {channel.barrier.run}")
        self._touch(channel)
        barrier = channel.barrier = Barrier(run, channel.seq, self.last_message, shut)
        self.put("put_barrier", channel.id, run, barrier.at, barrier.id, json.dumps(sorted(shut)))
        return barrier

    def lift(self, channel: ChannelBook) -> None:
        """Let claims go on above the barrier."""
        if channel.barrier is not None:
            self._touch(channel)
            channel.barrier = None
            self.put("drop_barrier", channel.id)
            self._look(channel)

    # -- epochs

    def switch(self, channel: ChannelBook, epoch: Epoch, courses: list[Course], run: int | None = None) -> Epoch:
        """Open an epoch above the barrier of `run`, or above every number given so far. `courses`: the channel's, new
        ones included. LedgerRuleError where a freeze or somebody else's barrier stands in the way, where something
        above it may have been sent already, or where both sides would send to one endpoint."""
        first, id = self._above(channel, epoch, run)
        if orphans := [course.name for course in channel.courses if course not in courses]:
            raise LedgerRuleError(f"{channel.name}: {', '.join(orphans)} came in between, by another switch")
        self._touch(channel)
        number = channel.epochs[-1].number + 1 if channel.epochs else 1
        opened = Epoch(
            number,
            first,
            epoch.phase,
            epoch.routing,
            self.term,
            epoch.who,
            epoch.why,
            epoch.at,
            epoch.evidence,
        )
        channel.epochs = [*channel.epochs, opened]
        channel.courses = courses
        due = {route.destination: route for route in opened.routing.due()}
        for course in courses:
            self._touch(course)
            course.spans = [*(_closed(span, opened.first - 1) for span in course.spans)]
            if route := due.get(course.name):
                self._add_span(course, Span(opened.first, None, opened.number, route), id)
        channel.rerouted()
        self._counted[channel] = None
        self._changes.epochs.append(
            (channel.id, opened.first, opened.number, opened.phase, opened.routing.to_json(), opened.term, opened.who,
             opened.why, opened.at, opened.evidence)
        )  # fmt: skip
        return opened

    def _above(self, channel: ChannelBook, epoch: Epoch, run: int | None) -> tuple[int, int]:
        """The first number of a new epoch, and a message id below which none of its messages lies."""
        moves = bool(channel.epochs) and channel.epochs[-1].phase != epoch.phase
        if moves and channel.hold is not None:
            raise LedgerRuleError(f"{channel.name} is held by {channel.hold.who}: release it first")
        barrier = channel.barrier
        if (barrier.run if barrier else None) != run:
            raise LedgerRuleError(f"{channel.name}: the barrier is not that of run {run}")
        first, id = (barrier.at + 1, barrier.id) if barrier else (channel.seq + 1, self.last_message)
        ahead = [course.name for course in channel.courses if course.spans and course.claim >= first]
        if ahead:
            raise LedgerRuleError(f"{channel.name}: at {', '.join(ahead)} sending may have begun above {first - 1}")
        if twice := epoch.routing.both_send():
            raise LedgerRuleError(f"{channel.name}: both sides would send to {', '.join(twice)}")
        return first, id

    def _add_span(self, course: Course, span: Span, id: int) -> None:
        course.spans.append(span)
        if len(course.spans) == 1:
            course.claim = course.frontier = span.first - 1
            course.frontier_id = id
        self._set(course.totals, span.epoch, [0] * SETTLED_STATES)
        self._mark(course, span.epoch)

    def take_up(self, course: Course, upto: int) -> None:
        """Make the numbers that were deferred at a destination due there, up to `upto`; what is due for each of them
        its grants say. Before `switch`, in the same transaction."""
        channel = course.channel
        self._touch(course)
        course.spans = [*course.spans]
        for at, epoch in enumerate(channel.epochs):
            route = epoch.routing.route(course.name)
            later = channel.epochs[at + 1].first - 1 if at + 1 < len(channel.epochs) else upto
            last = min(later, upto)
            if route and route.mode is Mode.DEFER and epoch.number not in course.totals and epoch.first <= last:
                self._add_span(course, Span(epoch.first, last, epoch.number, route), course.frontier_id)

    def grant(self, channel: ChannelBook, grant: Grant, *, at: int, who: str, why: str) -> None:
        """Record what a rollback made of a stretch of numbers at a destination."""
        self._touch(channel)
        channel.grants = (*channel.grants, grant)
        self.put(
            "put_grant", channel.id, grant.destination, grant.first, grant.last, grant.mode.value, grant.guarded,
            grant.run, at, who, why,
        )  # fmt: skip

    def close_open(self, course: Course, key: tuple[int, int, int], state: State, why: str, at: int) -> None:
        """Settle, or set aside for a person, one open part that nobody is sending; with it those behind it."""
        work = course.open[key]
        message = Message(course.channel, b"", 0)
        message.id, message.seq = work.message, work.seq
        blocks = work.blocks and state is not State.PARKED
        bound = work.bound if state < FIRST_SETTLED else None
        self.settle(
            Settlement(course, message, state, at, why, part=work.part, parts=work.parts, delivery=work.delivery,
                       revision=work.revision, tries=work.tries, blocks=blocks, made_by=bound)
        )  # fmt: skip

    # -- what people decide

    def revive(self, course: Course, key: OpenKey, *, why: str, revision: int | None = None) -> None:
        """Have an open part tried again, which failed for good or waits for a person; with other bytes where there is a
        new revision of its message. LedgerRuleError where it is not there, or on its way."""
        work = course.open.get(key)
        if work is None or work.state is State.SENDING:
            raise LedgerRuleError(f"{course.channel.name}/{key[0]} at {course.name} is not open, or on its way")
        self._touch(course)
        maybe = work.state is State.UNKNOWN or (work.state is State.PARKED and work.blocks)  # it may have been taken
        state = State.UNKNOWN if maybe else State.RETRYING
        changed = replace(work, state=state, due=0, tries=0, why=why, blocks=True)
        if revision is not None:
            changed.revision = revision
        if revision is not None or (not work.so_far and work.delivery == 1):
            changed.bound = None  # a person may have mended what makes it
        self._put_open(course, changed)
        self._mark(course, work.epoch)

    def replay(
        self, course: Course, message: int, seq: int, delivery: int, revision: int, why: str, bound: int | None = None
    ) -> OpenKey:
        """Begin one more delivery of a message, which a person asked for; by the mapping of epoch `bound`, if given.
        LedgerRuleError where nothing is due at the destination any more, or this delivery is there already."""
        key = (seq, 1, delivery)
        epoch = course.channel.epoch.number
        if delivery < 2 or key in course.open or course.mode(seq, delivery) not in (Mode.SEND, Mode.CAPTURE):
            raise LedgerRuleError(f"{course.channel.name}/{seq} cannot be replayed to {course.name}")
        self._touch(course)
        work = OpenWork(*key, message, epoch, State.RETRYING, 0, 0, why, True, revision=revision, bound=bound)
        self._put_open(course, work)
        self._log.append((course.again, 0, course.again[0]))
        course.again[0] += 1
        self._replayed[course] = None
        self._mark(course, epoch)
        return key

    # -- what else is written in the same transaction

    def remember(self, table: dict[Any, Any], key: Any, value: Any) -> None:
        """Change a number in memory that rows of this transaction hold; it is put back with them."""
        self._set(table, key, value)

    def put(self, statement: str, *values: Any) -> None:
        """A row of one of the tables beside the messages, by the name of its statement."""
        self._changes.put.append((statement, values))

    def audit(self, entry: Entry) -> None:
        """Add to the audit chain."""
        row, self.audited = append(self.audited, entry)
        self.put("add_audit", *row.columns)
        self.put("put_audit_head", self.audited.count, self.audited.hash)

    def compare(self, channel: ChannelBook, tap: str, compared: Compared) -> None:
        """The new state of a tap's comparison."""
        self._touch(channel)
        channel.compared = {**channel.compared, tap: compared}

    # -- what comes of it

    def finish(self) -> tuple[Changes, list[tuple[Course, int]]]:
        """Claim what may be claimed; the transaction's rows, and the courses whose claim moved, with their new claim:
        it holds once the rows are durable, while `course.claim` already belongs to the next transaction."""
        for course in self._looked:
            if course.done:
                self._pass_laggards(course)
            if course.turns is not None:
                self._turns[course.turns] = None
            more = course.may_advance()
            if more and course.turns is not None and course.in_turn:
                self._line_up(course.turns, (course, None))
            elif more:
                self._advance(course, more)
        for turns in self._turns:
            self._take_turns(turns)
        changes = self._changes
        changes.channels = [(channel.seq, channel.id) for channel in self._counted]
        changes.progress = [self._progress(course, epoch) for course, epoch in self._moved]
        for course in self._replayed:
            self.put("put_again", course.channel.id, course.id, *course.again)
        for (course, key), work in self._open.items():
            place = (course.channel.id, course.id, *key)
            if work is None:
                changes.closed.append(place)
            else:
                state = work.state.value
                why, blocks = work.why, work.blocks
                changes.opened.append(
                    (
                        *place,
                        work.message,
                        work.epoch,
                        state,
                        work.due,
                        work.tries,
                        self.term,
                        why,
                        blocks,
                        work.parts,
                        work.so_far,
                        work.revision,
                        work.bound,
                    )
                )
        return changes, self._claimed

    def _advance(self, course: Course, by: int) -> None:
        course.claim += by
        self._claimed.append((course, course.claim))
        self._mark(course, course.spans[0].epoch)

    def _line_up(self, turns: Turns, turn: Turn) -> None:
        self._turns[turns] = None
        if turn not in turns.waiting:
            self._set(turns.waiting, turn, None)

    def _take_turns(self, turns: Turns) -> None:
        """Whoever has waited longest claims one message; whoever could claim more waits for that again."""
        left = turns.left() if turns.waiting else 0
        while left > 0 and turns.waiting:
            turn = course, key = next(iter(turns.waiting))
            self._drop(turns.waiting, turn)
            self._touch(course)
            if key is not None:
                granted = self.claim_open(course, key)
                self.granted.append((course, key, granted))
                left -= granted
            elif more := course.may_advance():
                self._advance(course, 1)
                left -= 1
                if more > 1:
                    self._line_up(turns, turn)

    def _progress(self, course: Course, epoch: int) -> tuple[Any, ...]:
        """The row of one epoch: at work, not begun, or finished, where only its totals still change."""
        span = next((span for span in course.spans if span.epoch == epoch), None)
        if span is None:
            claim = frontier = next(later.first for later in course.channel.epochs if later.number == epoch + 1) - 1
        elif span is course.spans[0]:
            claim, frontier = course.claim, course.frontier
        else:
            claim = frontier = span.first - 1
        totals = course.totals[epoch]
        return (course.channel.id, course.id, epoch, claim, self.term, frontier, course.frontier_id, *totals)

    def _pass_laggards(self, course: Course) -> None:
        """The frontier jumps over what is still on the way below it, and that goes into `open_work` as sending."""
        done, top = course.done, max(course.done)
        epoch = course.spans[0].epoch
        for seq in range(course.frontier + 1, top):
            if seq in done:
                continue
            key = (seq, 1, 1)
            self._put_open(course, OpenWork(*key, course.ids[seq], epoch, State.SENDING, 0, 0, "", True))
            self._drop(course.ids, seq)
        course.frontier, course.frontier_id = top, done[top]
        for seq in list(done):
            self._drop(done, seq)
        self._mark(course, epoch)

    # -- small steps, each with its way back

    def _leave_flight(self, course: Course, seq: int, message: int) -> None:
        if seq == course.frontier + 1 and not course.done:
            course.frontier, course.frontier_id = seq, message
        else:
            self._set(course.done, seq, message)
        if course.ids:
            self._drop(course.ids, seq)

    def _receipt(self, settlement: Settlement, epoch: int, part: int) -> None:
        course, message, state = settlement.course, settlement.message.id, settlement.state._value_
        self._changes.receipts.append(
            (message, course.channel.id, settlement.seq, course.id, part, settlement.delivery, settlement.revision,
             epoch, state, settlement.at, self.term, settlement.made_by, settlement.why or None, settlement.answer)
        )  # fmt: skip
        if settlement.output is not None and settlement.delivery == 1:
            packed = zlib.compress(settlement.output, 1) if settlement.output else settlement.output
            self._changes.captured.append((message, course.id, part, packed))

    def _count(self, course: Course, epoch: int, delivery: int, state: int) -> None:
        """All parts of one delivery of a message are settled: it counts once."""
        if delivery == 1:
            totals, at = course.totals[epoch], state - FIRST_SETTLED
        else:
            totals, at = course.again, 1 + state - FIRST_SETTLED
            self._replayed[course] = None
        self._log.append((totals, at, totals[at]))
        totals[at] += 1

    def _authority_spoke(self, settlement: Settlement) -> None:
        """Its no concerns the other courses too; in either case they need not wait for it any more."""
        channel, seq = settlement.course.channel, settlement.seq
        if settlement.state < FIRST_SETTLED:
            return
        if channel.repeats is not None and settlement.answer is not None:
            channel.repeats.answered(seq, settlement.answer)
        gated = [other for other in channel.courses if other.gated and other.spans]
        if settlement.state is State.REFUSED and gated:
            self._set(channel.refused, seq, len(gated))
        if seq in channel.awaiting:
            self._drop(channel.awaiting, seq)
        for other in gated:
            self._touch(other)

    def _no_heeded(self, channel: ChannelBook, seq: int) -> None:
        """One of the other courses has come to a message that the authority refused."""
        left = channel.refused.get(seq, 0) - 1
        if left > 0:
            self._set(channel.refused, seq, left)
        else:
            self._drop(channel.refused, seq)

    def _put_open(self, course: Course, work: OpenWork) -> None:
        old = course.open.get(work.key)
        course.sending += (work.state is State.SENDING) - (old is not None and old.state is State.SENDING)
        course.blocked += work.blocks - (old is not None and old.blocks)
        self._set(course.open, work.key, work)
        self._open[course, work.key] = work

    def _close(self, course: Course, work: OpenWork) -> None:
        course.sending -= work.state is State.SENDING
        course.blocked -= work.blocks
        self._drop(course.open, work.key)
        self._open[course, work.key] = None

    def _mark(self, course: Course, epoch: int) -> None:
        if course.marked != epoch:
            course.marked = epoch
            self._moved.append((course, epoch))

    def _look(self, channel: ChannelBook) -> None:
        for course in channel.courses:
            if course.stamp != self._stamp:
                self._touch(course)

    def _touch(self, book: ChannelBook | Course) -> None:
        if book.stamp == self._stamp:
            return
        book.stamp = self._stamp
        self._saved.append((book, book.save()))
        if type(book) is Course:
            book.marked = 0
            self._looked.append(book)

    def _set(self, table: dict[Any, Any], key: Any, value: Any) -> None:
        self._log.append((table, key, table.get(key, _MISSING)))
        table[key] = value

    def _drop(self, table: dict[Any, Any], key: Any) -> None:
        old = table.pop(key, _MISSING)
        if old is not _MISSING:
            self._log.append((table, key, old))


def _closed(span: Span, last: int) -> Span:
    return span if span.last is not None else Span(span.first, last, span.epoch, span.route)

"""A course at work: it takes what is claimed, keeps each lane in order, and records what became of it.

The claim is the ledger's; a runner only follows it. It holds the newest messages in memory as intake hands them over
and reads the others back from the ledger, so that an outage does not grow memory. Where several messages may be on
the way at once, messages of the same lane still go one after the other; a failed one parks those behind it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import replace

from engine.delivery import decision
from engine.delivery.lane import SHARED
from engine.delivery.lanes import Lanes
from engine.delivery.work import Destination, Work
from engine.ledger.course import Course
from engine.ledger.gaps import Gaps
from engine.ledger.interface import Ledger
from engine.ledger.model import AS_IT_CAME, MADE, OPEN, Message, OpenWork, Settlement, State
from engine.ledger.outcome import Outcome, Result
from engine.ledger.routing import Mode
from engine.observe import delivery_events as events
from engine.observe.events import emit
from engine.observe.service_events import Fault

MOST_HELD = 64  # messages a course keeps in memory before they are claimed
MOST_HELD_BYTES = 256 * 1024
READ_AHEAD = 64  # messages of one read from the ledger
READ_AT_ONCE = 256  # open parts whose messages are read together at the start
READ_AGAIN = 1.0  # seconds until a read that failed is tried again

DAMAGED = Outcome(
    Result.NEVER, "its bytes in the ledger are not those that were stored: have the sender send it again", local=True
)


class Runner:
    """One course's end of the delivery loop. Everything runs on the event loop."""

    def __init__(self, course: Course, destination: Destination, ledger: Ledger, clock: Callable[[], int]) -> None:
        """`clock` gives microseconds since 1970."""
        self.course = course
        self.destination = destination
        self.stopped = False
        self._ledger = ledger
        self._clock = clock
        self._held: deque[Message] = deque()
        self._held_bytes = 0
        self._next = 0  # the number that follows the newest one held
        self._taken = 0
        self._claimed = 0  # durable; `course.claim` may already belong to a transaction that is still being written
        self._begun = False
        self._started = asyncio.Event()
        self._reading = False
        # Who stands first is on the way, waits to be tried again, or waits for a person; what has failed, or waits
        # behind a failed one, is `parked`, and claimed anew before it is sent. Where messages go strictly one after the
        # other, the one on the way stands in no lane, unless something waits behind it.
        self._lanes = Lanes()
        self._alone: Work | None = None
        self._timers: dict[tuple[int, int, int], asyncio.TimerHandle] = {}
        self._asked: dict[tuple[int, int, int], Work] = {}  # claimed anew, not yet granted
        self._tasks: set[asyncio.Task[None]] = set()
        self._held_back: dict[tuple[int, int, int], Work] = {}  # not granted: a freeze or a barrier
        self._same_mode = (1, 0, Mode.OFF)  # from, up to, mode: the stretch of numbers at work
        self._same_routes: tuple[object, object] = (None, None)  # the epochs and grants that it is from
        self._tick: Callable[[], float] = _never
        self.pace = 0.0  # seconds from sending to the outcome, lately
        self.on_send: Callable[[Message], None] | None = None  # hears of each message before it goes out
        self.last = 0.0  # when the last outcome was heard, in seconds of the event loop's clock
        self._delivered = events.SETTLED.of(course.channel.name, course.name, "delivered")
        self._latency = events.DELIVERY_LATENCY.of(course.channel.name, course.name)
        course.stops = destination.manner.dead == "stops_channel"
        destination.breaker.listeners.append(self._breaker_changed)
        destination.breaker.hasteners.append(self._hasten)

    # -- beginning and ending

    async def start(self) -> None:
        """Take up what an earlier process left open, then let claims begin. New work joins no lane before that."""
        if self._begun:
            return
        self._begun = True
        self._tick = asyncio.get_running_loop().time
        self._taken = self._claimed = self.course.claim
        await self._take_up(sorted(self.course.open))
        self._started.set()
        if not self.destination.breaker.open:
            self._ledger.pause(self.course, False)

    async def take_up(self, keys: Iterable[tuple[int, int, int]]) -> None:
        """Open work of which nothing is known here, in this order: what a person began. The start takes up all that is
        open when it begins, and goes before."""
        if self._begun:
            await self._started.wait()
            await self._take_up(keys)

    async def _take_up(self, keys: Iterable[tuple[int, int, int]]) -> None:
        rows = [row for key in keys if (row := self.course.open.get(key)) is not None]
        for at in range(0, len(rows), READ_AT_ONCE):
            some = rows[at : at + READ_AT_ONCE]
            # By key and revision: a person may change one while it is read.
            found: dict[tuple[tuple[int, int, int], int], tuple[bytes, ...]] = {}
            while lacking := [row for row in some if (row.key, row.revision) not in found]:
                lanes = await self._lanes_of(lacking)
                found |= {(row.key, row.revision): lanes[row.key] for row in lacking}
                some = [row for each in some if (row := self.course.open.get(each.key)) is not None]
            for row in some:
                if self._lanes.get(row.key) is None:  # not taken up by others
                    self._restore(row, found[row.key, row.revision])

    async def _lanes_of(self, rows: list[OpenWork]) -> dict[tuple[int, int, int], tuple[bytes, ...]]:
        """The lanes in which open work stands. What a person has changed stands in those of all its revisions."""
        if self.course.window == 1:
            return dict.fromkeys((row.key for row in rows), SHARED)
        found = await asyncio.gather(*map(self._lanes_of_one, rows))
        return {row.key: lanes for row, lanes in zip(rows, found, strict=True)}

    async def _lanes_of_one(self, row: OpenWork) -> tuple[bytes, ...]:
        lanes: list[bytes] = []
        for revision in range(1, row.revision + 1):
            lanes += self.destination.lanes((await self._read_surely(row.message, revision)).raw)
        return tuple(dict.fromkeys(lanes))

    async def stop(self) -> None:
        if self.stopped:
            return
        self.stopped = True
        self.destination.breaker.listeners.remove(self._breaker_changed)
        self.destination.breaker.hasteners.remove(self._hasten)
        for timer in self._timers.values():
            timer.cancel()
        self.destination.breaker.coming -= len(self._timers)
        self._timers.clear()
        for task in self._tasks:
            task.cancel()
        await self.destination.close()

    async def _read_surely(self, id: int, revision: int = 1) -> Message:
        """A message from the ledger; a read that fails is tried again, since nothing of the lane can go on without."""
        while True:
            try:
                return await self._ledger.message(self.course.channel, id, revision)
            except Exception as error:
                emit(Fault.of(error))
                await asyncio.sleep(READ_AGAIN)

    def _restore(self, row: OpenWork, lanes: tuple[bytes, ...]) -> None:
        message = Message(self.course.channel, b"", 0)
        message.id, message.seq = row.message, row.seq
        work = Work(message, self._done, lanes)
        work.part, work.parts, work.delivery, work.revision = row.part, row.parts, row.delivery, row.revision
        work.tries, work.bound = row.tries, row.bound
        work.unknown = row.state is State.UNKNOWN
        work.since = self._tick()  # it may have been under way until the process before ended
        work.parked = True
        work.for_a_person = row.state is State.DEAD or (row.state is State.PARKED and row.blocks)
        if self.course.mode(row.seq, row.delivery) is Mode.ASK:
            if row.state is not State.PARKED or row.blocks:
                self._keep(work, Mode.ASK)
            return
        if row.state is State.DEAD and not row.blocks:
            return
        self._line_up(work)
        if self._lanes.first(work):
            self._begin_again(work)
        elif row.state is State.RETRYING and row.delivery > 1:
            self._park(work)

    def _line_up(self, work: Work) -> None:
        """To the end of its lanes; behind the one on the way, where that is in none."""
        if self._alone is not None and not self._lanes:
            self._lanes.join(self._alone)
        self._lanes.join(work)

    def _begin_again(self, head: Work) -> None:
        manner = self.destination.manner
        if head.for_a_person or self._mode_of(head) is Mode.ASK:
            return
        if head.unknown and manner.parks_unknown and not self._refused(head):
            head.for_a_person = True
            self._settle(head, State.PARKED, "it may have been taken, and the endpoint's on_unknown says park")
        elif head.unknown and manner.settle_time:
            self._try_in(manner.settle_time, head)
        else:
            self._try_again(head)

    # -- taking what is claimed

    def offer(self, message: Message) -> None:
        """A message just stored. It is kept for its turn if there is room and nothing between is missing."""
        if not self._held and self._taken == message.seq - 1:
            self._next = message.seq
        if message.seq == self._next and len(self._held) < MOST_HELD and self._held_bytes < MOST_HELD_BYTES:
            self._held.append(message)
            self._held_bytes += len(message.raw)
            self._next += 1

    def claimed(self, claim: int) -> None:
        """The claim up to here is durable: take what it covers."""
        self._claimed = claim
        self._pump()

    def _pump(self) -> None:
        course, held = self.course, self._held
        if self._reading:
            return
        while self._taken < self._claimed and not self.stopped:
            if not held or held[0].seq != self._taken + 1:
                self._reading = True
                self._spawn(self._read())
                return
            message = held.popleft()
            self._held_bytes -= len(message.raw)
            self._taken = message.seq
            if message.seq > course.frontier:
                self._take(message)

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work, name=f"read {self.course.channel.name}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _read(self) -> None:
        """Fetch what is not held any more. A message whose sender still waits for its answer is the very object that
        its connection is known by."""
        course, awaiting = self.course, self.course.channel.awaiting
        after = self._taken = max(self._taken, course.frontier)
        try:
            rows = await self._ledger.backlog(course, after, READ_AHEAD)
        except Exception as error:
            emit(Fault.of(error))
            await asyncio.sleep(READ_AGAIN)
            rows = []
        self._held = deque(awaiting.get(row.seq, row) for row in rows)
        self._held_bytes = sum(len(row.raw) for row in rows)
        self._next = rows[-1].seq + 1 if rows else 0
        self._reading = False
        self._pump()

    def _take(self, message: Message) -> None:
        course = self.course
        if self._lanes and course.window == 1:
            self._set_aside()
        if course.window == 1 and not self._lanes:
            work = Work(message, self._done)
        else:
            work = Work(message, self._done, self._lanes_for(message.raw))
            course.ids[message.seq] = message.id
        if message.seq in course.channel.refused:
            self._settle(work, State.REFUSED, "the old engine said no")
        elif self._mode(message.seq) is not Mode.SEND:
            self._keep(work, self._mode(message.seq))
        elif course.window == 1 and not self._lanes:
            self._alone = work
            self._send(work)
        else:
            self._join_lanes(work)

    def _set_aside(self) -> None:
        """What a rollback has left to a person stands in nobody's way."""
        for work in [work for work in self._lanes if work.for_a_person and self._mode_of(work) is Mode.ASK]:
            self._leave(work)

    def _lanes_for(self, raw: bytes) -> tuple[bytes, ...]:
        return SHARED if self.course.window == 1 else self.destination.lanes(raw)

    def _mode(self, seq: int) -> Mode:
        """What is due for a claimed number. No epoch begins below a claim, so this can no longer change."""
        first, last, mode = self._same_mode
        channel = self.course.channel
        epochs, grants = self._same_routes
        if channel.epochs is not epochs or channel.grants is not grants or not first <= seq <= last:
            self._same_routes = (channel.epochs, channel.grants)
            first, last, mode = self._same_mode = self.course.stretch(seq)
        return mode

    def _mode_of(self, work: Work) -> Mode:
        seq, delivery = work.message.seq, work.delivery
        return self._mode(seq) if delivery == 1 else self.course.mode(seq, delivery)

    def _keep(self, work: Work, mode: Mode) -> None:
        """Settle what is not to be sent."""
        if mode is Mode.CAPTURE and not self._repeats(work):
            self._capture(work)  # where that has to wait, it stays in its lanes
            return
        if mode is Mode.CAPTURE:
            self._settle_repeat(work)
        elif mode is Mode.ASK:
            self._settle(work, State.PARKED, "a rollback: whether it may be sent again, a person decides", blocks=False)
        else:
            self._settle(work, State.SUPERSEDED, "a rollback: the other side has it")
        self._leave(work)

    def _capture(self, work: Work) -> None:
        """Make the outputs and keep them, all that are still open."""
        if self._waits(work, self._capture):
            return
        made = self._make(work)
        if made is not None:
            self._failed(work, replace(made, aside=True), relayed=False)
            return
        outputs = work.outputs or (AS_IT_CAME,)
        for part in range(work.part, len(outputs) + 1):
            work.part = part
            self._settle(work, State.CAPTURED, output=outputs[part - 1])
        self._leave(work)

    def _repeats(self, work: Work) -> bool:
        """Whether an earlier message that was sent here is the same, sent again by who heard no answer."""
        return work.message.seq in self.course.repeated and work.delivery == 1

    def _settle_repeat(self, work: Work) -> None:
        """It is not sent; whoever waits for its answer gets the first one's."""
        first = work.message.repeats
        why = f"repeats {self.course.repeated[work.message.seq]}"
        self._settle(work, State.DUPLICATE, why, answer=first.answer if first is not None else None)

    def _waits(self, work: Work, then: Callable[[Work], None]) -> bool:
        """Whether its outputs cannot be made yet; `then` is called when they can. What is open is made by the newest
        epoch's mapping, whatever its own epoch is, unless it is bound to another's."""
        by = work.bound or self.course.channel.epoch.number
        if work.made_by != by:
            work.made_by, work.outputs = by, None
        ready = self.destination.ready(work) if work.outputs is None else None
        if ready is None or ready.done():
            return False
        ready.add_done_callback(lambda _: None if self.stopped else then(work))
        return True

    def _make(self, work: Work) -> Outcome | None:
        """Have its outputs made. Parts that were sent were of the same outputs: where the mapping has changed since,
        and the one that made them is not known, a person decides."""
        if work.outputs is not None:
            return None
        if work.message.damaged:
            return DAMAGED
        try:
            made = self.destination.make(work)
        except Exception as error:  # a defect of a mapping must cost one message, not the channel
            fault = Fault.of(error)
            emit(fault)
            return Outcome(Result.NEVER, f"the mapping failed: {fault.reason}", local=True)
        if work.part == 1:
            work.parts = 1  # however many they were before a person changed its bytes
        if made is None and work.outputs is not None:
            if work.part > 1 and work.parts != len(work.outputs):
                return Outcome(Result.NEVER, "its mapping has changed since its first part was sent", local=True)
            work.parts = len(work.outputs)
        return made

    def _join_lanes(self, work: Work) -> None:
        self._line_up(work)
        if self._lanes.first(work):
            self._send(work)
        elif any(before.parked for before in self._lanes.before(work)):  # it has failed, or waits for one that has
            self._park(work)

    def _park(self, work: Work) -> None:
        work.parked = True
        self._settle(work, State.PARKED, "waits behind an earlier message of its lane", blocks=False)
        self._lighten(work)
        emit(events.Parked(self.course.channel.name, self.course.name, work.message.seq, "behind an earlier one"))

    def _lighten(self, work: Work) -> None:
        """What waits in the ledger needs no bytes in memory; they are read again when it is its turn. One whose sender
        waits for the answer is kept as it is."""
        message = work.message
        if message.reply is None:
            work.outputs = None
            work.message = light = Message(message.channel, b"", message.received, message.control_id, message.socket)
            light.id, light.seq = message.id, message.seq

    def _send(self, work: Work) -> None:
        """The only place where a message goes out: claimed, and by its epoch ours to send."""
        mode = self._mode_of(work)
        if mode is not Mode.SEND or self._repeats(work):
            if mode is Mode.SEND:
                self._settle_repeat(work)
                self._leave(work)
            else:
                self._keep(work, mode)
            self.destination.breaker.trial_gone()
            return
        if self._waits(work, self._send):
            return
        work.tries += 1
        work.began = self._tick()
        made = self._make(work)
        if made is not None:
            self._done(work, made)
            return
        if self.on_send is not None and work.part == 1:
            self.on_send(work.message)
        self.destination.send(work)

    # -- what became of it

    def _done(self, work: Work, outcome: Outcome) -> None:
        if self.stopped:
            return  # it stays claimed, and is unknown to the next process
        self.last = now = self._tick()
        self.pace += (now - work.began - self.pace) * 0.125
        course, message = self.course, work.message
        breaker = self.destination.breaker
        if not outcome.local:
            breaker.heard(outcome)
        elif breaker.open:
            breaker.trial_gone()
        relayed = message.relayed and course is course.channel.relay
        if outcome.result is Result.DELIVERED:
            self._delivered_one(work, outcome, "relayed" if relayed and outcome.answer else outcome.reason)
        else:
            self._failed(work, outcome, relayed=relayed)

    def _failed(self, work: Work, outcome: Outcome, *, relayed: bool) -> None:
        made = decision.decide(
            outcome,
            work.tries,
            self.destination.manner,
            relayed=relayed,
            unknown=work.unknown,
            jitter=decision.jitter(),
        )
        now = self._clock()
        settlement = self._settlement(
            work, made.state, now, "relayed" if relayed and outcome.answer else outcome.reason, outcome.answer
        )
        settlement.due = 0 if made.wait is None else now + int(made.wait * 1e6)
        settlement.tries, settlement.blocks = work.tries, made.blocks
        self._ledger.settle(settlement)
        if outcome.gaps is not None and made.state is State.DEAD:
            self._note(work, outcome.gaps)
        self._tell(work, made, outcome)
        if made.wait is not None:
            work.parked = True
            work.unknown = made.state is State.UNKNOWN
            work.since = self._tick()
            self._park_followers(work)
            self._try_in(made.wait, work)
        elif made.state in (State.DEAD, State.PARKED) and made.blocks:
            work.parked = work.for_a_person = True
            self._park_followers(work)
            self._lighten(work)
        else:
            self._leave(work)

    def _settlement(self, work: Work, state: State, at: int, why: str = "", answer: bytes | None = None) -> Settlement:
        settlement = Settlement(self.course, work.message, state, at, why, answer)
        if state is State.UNKNOWN:  # what may have been taken goes again as it was
            work.bound = work.made_by
        settlement.made_by = work.made_by if state in MADE else work.bound if state in OPEN else None
        if work.parts > 1 or work.delivery > 1 or work.revision > 1:
            settlement.part, settlement.parts = work.part, work.parts
            settlement.delivery, settlement.revision = work.delivery, work.revision
        return settlement

    def _delivered_one(self, work: Work, outcome: Outcome, why: str) -> None:
        now = self._clock()
        self._ledger.settle(self._settlement(work, State.DELIVERED, now, why, outcome.answer))
        if outcome.gaps is not None:
            self._note(work, outcome.gaps)
        if work.part < work.parts:  # the next one is claimed in the same transaction
            work.part += 1
            work.tries, work.unknown, work.parked = 0, False, True
            work.bound = work.made_by
            self._asked[work.key] = work
            return
        self._delivered.n += 1
        self._latency.observe((now - work.message.received) / 1e6)
        self._alone = None
        if self._lanes:
            self._leave(work)

    def _note(self, work: Work, gaps: Gaps) -> None:
        """What the mapping could not carry over counts once for a message, however often it is tried or replayed. By an
        earlier mapping it says nothing of the present one."""
        channel, name = self.course.channel, self.course.name
        by = channel.epochs[(work.made_by or channel.epoch.number) - 1].routing.route(name)
        present = channel.epoch.routing.route(name)
        fresh = by is not None and present is not None and by.mapping == present.mapping
        counts = work.delivery == 1 and not work.noted
        self._ledger.note(channel, work.message.seq, gaps, counts=counts, fresh=fresh)
        work.noted = True

    def _tell(self, work: Work, made: decision.Decision, outcome: Outcome) -> None:
        place = (self.course.channel.name, self.course.name, work.message.seq, outcome.reason)
        if made.state is State.RETRYING:
            emit(events.Retrying(*place, in_s=made.wait or 0.0))
        elif made.state is State.UNKNOWN:
            emit(events.Unknown(*place))
        elif made.state is State.DEAD:
            emit(events.Dead(*place))
        elif made.state is State.REFUSED:
            emit(events.Refused(*place))
        elif made.state is State.FILTERED:
            events.SETTLED.of(self.course.channel.name, self.course.name, made.state.label).n += 1

    def _park_followers(self, head: Work) -> None:
        """Those behind a failed head wait in the ledger, and say so."""
        if head not in self._lanes:
            self._lanes.join(head) if head is self._alone else self._line_up(head)
        for follower in self._lanes.behind(head):
            if not follower.parked:
                self._park(follower)

    def _leave(self, work: Work) -> None:
        """It is through: whoever stood behind it goes on. Strictly one after the other, the next claim brings the next
        message."""
        if work is self._alone:
            self._alone = None
        if work in self._lanes:
            self._go_on(self._lanes.leave(work))

    def _go_on(self, free: Iterable[Work]) -> None:
        for work in free:
            if work.parked:
                self._begin_again(work)
            else:
                self._send(work)

    def _settle(
        self, work: Work, state: State, why: str = "", *, answer: bytes | None = None, output: bytes | None = None,
        blocks: bool = True,
    ) -> None:  # fmt: skip
        settlement = self._settlement(work, state, self._clock(), why, answer)
        settlement.output, settlement.blocks = output, blocks
        self._ledger.settle(settlement)
        if state is not State.PARKED and work.part == work.parts:
            events.SETTLED.of(self.course.channel.name, self.course.name, state.label).n += 1

    # -- trying again

    def _refused(self, work: Work) -> bool:
        """Whether the authority said no to it, which the transaction of the crash had not told this course any more."""
        return work.message.seq in self.course.channel.refused and self.course is not self.course.channel.relay

    def _try_in(self, seconds: float, work: Work) -> None:
        self.destination.breaker.coming += 1
        self._timers[work.key] = asyncio.get_running_loop().call_later(seconds, self._due, work)

    def _hasten(self) -> None:
        """The endpoint has shown itself. What may have been taken waits all the same."""
        for key in tuple(self._timers):
            work = self._lanes.get(key)
            if work is not None and not work.unknown:
                self._timers[key].cancel()
                self._due(work)

    def _due(self, work: Work) -> None:
        self._timers.pop(work.key, None)
        self.destination.breaker.coming -= 1
        self._try_again(work)

    def _try_again(self, work: Work) -> None:
        """Claim it anew, singly; while the endpoint's breaker is open, wait for that first."""
        if self.stopped:
            return
        breaker = self.destination.breaker
        if self._refused(work):
            self._settle(work, State.REFUSED, "the old engine said no")
            self._leave(work)
        elif breaker.open:
            breaker.enqueue(lambda: self._claim(work))
        else:
            self._claim(work)

    def _claim(self, work: Work) -> bool:
        if self.stopped or work.key in self._asked:
            return False
        self._asked[work.key] = work
        self._ledger.claim(self.course, work.key)
        return True

    def granted(self, key: tuple[int, int, int], granted: bool) -> None:
        """The ledger's answer to a claim of one open part."""
        work = self._asked.pop(key, None)
        if work is None or self.stopped:
            return
        if not granted:
            if key in self.course.open:  # a freeze, or a barrier: asked again when it is lifted
                self._held_back[key] = work
                self._park_followers(work)
            else:  # it was closed by others
                self._leave(work)
            self.destination.breaker.trial_gone()
            return
        row = self.course.open.get(key)
        if row is not None and row.revision != work.revision:  # an edit in the transaction of the claim, before it
            work.revision, work.bound = row.revision, row.bound
            self._lighten(work)
        if work.message.raw:
            self._send(work)
        else:
            self._spawn(self._send_read(work))

    async def _send_read(self, work: Work) -> None:
        work.message = await self._read_surely(work.message.id, work.revision)
        if self.stopped:
            return
        self._widen(work, work.message)
        if work not in self._lanes or self._lanes.first(work):
            self._send(work)
            return
        if work.unknown:  # a patient whose messages are on their way: not yet
            self._settle(work, State.UNKNOWN, "waits behind an earlier message of its lane")
        else:
            self._park(work)
        self.destination.breaker.trial_gone()

    def _widen(self, work: Work, message: Message) -> None:
        """Bytes that a person has changed may name another patient: it stands in that one's lane too, and who waits
        behind it there says so."""
        if work.revision > 1 and self.course.window > 1 and work in self._lanes:
            self._lanes.widen(work, self.destination.lanes(message.raw))
            self._park_followers(work)

    def resume(self) -> None:
        """A freeze or a barrier is gone: ask again for what was held back."""
        waiting, self._held_back = self._held_back, {}
        for work in waiting.values():
            self._try_again(work)

    def forget(self) -> None:
        """Open work was closed by others (a rollback, a person): drop what is no longer there, and go on behind it."""
        gone = [work for work in self._lanes if work.parked and self._closed(work)]
        gone = [work for work in gone if work.key not in self._asked]  # the answer to its claim says what became of it
        free: dict[tuple[int, int, int], Work] = {}
        for work in gone:
            self._stop_waiting(work)
            if work is self._alone:
                self._alone = None
            free.pop(work.key, None)
            free |= {each.key: each for each in self._lanes.leave(work)}
        self._go_on(free.values())

    def _closed(self, work: Work) -> bool:
        """Whether its row is gone. One that has failed or was parked just now has none yet."""
        course, (seq, part, delivery) = self.course, work.key
        had_one = (part, delivery) != (1, 1) or seq <= course.frontier or seq in course.done
        return had_one and work.key not in course.open

    async def revive(self, key: tuple[int, int, int]) -> None:
        """A person has an open part tried again, as the ledger says already."""
        row = self.course.open.get(key)
        work = self._lanes.get(key)
        if row is None or row.state is State.SENDING:  # closed by others; or its own time had come, and it was claimed
            return
        if work is None:  # its lane went on without it; or it is still to be taken up, in its place
            await self.take_up((key,))
            return
        if work.revision != row.revision:
            message = await self._read_surely(row.message, row.revision)
            if self.course.open.get(key) is not row or self._lanes.get(key) is not work:
                await self.revive(key)  # it has changed meanwhile
                return
            work.revision = row.revision
            self._lighten(work)
            self._widen(work, message)
        self._stop_waiting(work)
        work.for_a_person = False
        work.unknown = row.state is State.UNKNOWN
        work.tries, work.bound = 0, row.bound
        if self._lanes.first(work):
            self._try_again(work)
        elif not work.unknown:  # else its row goes on saying that it may have been taken
            self._park(work)

    def behind(self, key: tuple[int, int, int]) -> int:
        """How many messages wait for an open part in its lanes, also through others."""
        work = self._lanes.get(key)
        return len({each.message.seq for each in self._lanes.behind(work)}) if work is not None else 0

    def _stop_waiting(self, work: Work) -> None:
        if timer := self._timers.pop(work.key, None):
            timer.cancel()
            self.destination.breaker.coming -= 1
        self._held_back.pop(work.key, None)

    @property
    def taken(self) -> int:
        """The durable claim: up to here sending may have begun."""
        return self._claimed

    def claim_failed(self, key: tuple[int, int, int]) -> None:
        """The claim of one open part could not be written: ask again in a while."""
        work = self._asked.pop(key, None)
        if work is not None and not self.stopped:
            self._try_in(READ_AGAIN, work)
            self.destination.breaker.trial_gone()

    def _breaker_changed(self, opened: bool) -> None:
        if self._started.is_set() and not self.stopped:
            self._ledger.pause(self.course, opened)


def _never() -> float:
    raise RuntimeError("a runner that has not begun sends nothing")

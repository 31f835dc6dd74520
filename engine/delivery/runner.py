"""A course at work: it takes what is claimed, keeps each lane in order, and records what became of it.

The claim is the ledger's; a runner only follows it. It holds the newest messages in memory as intake hands them over
and reads the others back from the ledger, so that an outage does not grow memory. Where several messages may be on
the way at once, messages of the same lane still go one after the other; a failed one parks those behind it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine

from engine.delivery import decision
from engine.delivery.work import Destination, Work
from engine.ledger.course import Course
from engine.ledger.interface import Ledger
from engine.ledger.model import AS_IT_CAME, Message, OpenWork, Settlement, State
from engine.ledger.outcome import Outcome, Result
from engine.ledger.routing import Mode
from engine.observe import delivery_events as events
from engine.observe.events import emit
from engine.observe.service_events import Fault

MOST_HELD = 64  # messages a course keeps in memory before they are claimed
MOST_HELD_BYTES = 256 * 1024
READ_AHEAD = 64  # messages of one read from the ledger
READ_AGAIN = 1.0  # seconds until a read that failed is tried again


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
        self._started = False
        self._reading = False
        # Head first. The head is on the way, waits to be tried again, or waits for a person; what has failed or waits
        # behind a failed one is `parked`, and claimed anew before it is sent.
        self._lanes: dict[bytes, deque[Work]] = {}
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
        destination.breaker.listeners.append(self._breaker_changed)

    # -- beginning and ending

    async def start(self) -> None:
        """Take up what an earlier process left open, then let claims begin. New work joins no lane before that."""
        self._tick = asyncio.get_running_loop().time
        self._taken = self._claimed = self.course.claim
        for row in sorted(self.course.open.values(), key=lambda row: row.key):
            await self._restore(row, await self._read_surely(row.message))
        for lane in list(self._lanes.values()):
            self._begin_again(lane)
        self._started = True
        if not self.destination.breaker.open:
            self._ledger.pause(self.course, False)

    async def stop(self) -> None:
        if self.stopped:
            return
        self.stopped = True
        self.destination.breaker.listeners.remove(self._breaker_changed)
        for timer in self._timers.values():
            timer.cancel()
        self.destination.breaker.coming -= len(self._timers)
        self._timers.clear()
        for task in self._tasks:
            task.cancel()
        await self.destination.close()

    async def _read_surely(self, id: int) -> Message:
        """A message from the ledger; a read that fails is tried again, since nothing of the lane can go on without."""
        while True:
            try:
                return await self._ledger.message(self.course.channel, id)
            except Exception as error:
                emit(Fault.of(error))
                await asyncio.sleep(READ_AGAIN)

    async def _restore(self, row: OpenWork, message: Message) -> None:
        work = Work(message, self._done, self._lane(message.raw))
        work.part, work.delivery, work.tries = row.part, row.delivery, row.tries
        work.unknown = row.state is State.UNKNOWN
        work.since = asyncio.get_running_loop().time()  # it may have been under way until the process before ended
        work.parked = True
        work.for_a_person = row.state is State.DEAD or (row.state is State.PARKED and row.blocks)
        if self.course.mode(row.seq) is Mode.ASK:
            if row.state is not State.PARKED or row.blocks:
                self._keep(message, Mode.ASK)
            return
        if row.state is State.DEAD and not row.blocks:
            return
        self._lighten(work)
        self._lanes.setdefault(work.lane, deque()).append(work)

    def _begin_again(self, lane: deque[Work]) -> None:
        head, manner = lane[0], self.destination.manner
        if head.for_a_person or self.course.mode(head.message.seq) is Mode.ASK:
            return
        if head.unknown and manner.parks_unknown and not self._refused(head):
            head.for_a_person = True
            why = "it may have been taken, and the endpoint's on_unknown says park"
            self._settle(head.message, State.PARKED, why)
        elif head.unknown and manner.settle_time:
            self._try_in(manner.settle_time, head)
        else:
            self._try_again(head)

    def _lane(self, raw: bytes) -> bytes:
        return b"" if self.course.window == 1 else self.destination.lane(raw)

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
        if message.seq in course.channel.refused:
            if course.window > 1:
                course.ids[message.seq] = message.id
            self._settle(message, State.REFUSED, "the old engine said no")
        elif self._mode(message.seq) is not Mode.SEND:
            if course.window > 1:
                course.ids[message.seq] = message.id
            self._keep(message, self._mode(message.seq))
        elif course.window == 1:
            self._send(Work(message, self._done))
        else:
            course.ids[message.seq] = message.id
            self._join_lane(Work(message, self._done, self.destination.lane(message.raw)))

    def _mode(self, seq: int) -> Mode:
        """What is due for a claimed number. No epoch begins below a claim, so this can no longer change."""
        first, last, mode = self._same_mode
        channel = self.course.channel
        epochs, grants = self._same_routes
        if channel.epochs is not epochs or channel.grants is not grants or not first <= seq <= last:
            self._same_routes = (channel.epochs, channel.grants)
            first, last, mode = self._same_mode = self.course.stretch(seq)
        return mode

    def _keep(self, message: Message, mode: Mode) -> None:
        """Settle what is not to be sent."""
        if mode is Mode.CAPTURE:
            self._settle(message, State.CAPTURED, output=AS_IT_CAME)
        elif mode is Mode.ASK:
            self._settle(
                message, State.PARKED, "a rollback: whether it may be sent again, a person decides", blocks=False
            )
        else:
            self._settle(message, State.SUPERSEDED, "a rollback: the other side has it")

    def _join_lane(self, work: Work) -> None:
        lane = self._lanes.get(work.lane)
        if lane is None:
            self._lanes[work.lane] = deque((work,))
            self._send(work)
            return
        lane.append(work)
        if lane[0].parked:  # the head has failed; this one waits in the ledger
            self._park(work)

    def _park(self, work: Work) -> None:
        work.parked = True
        self._settle(work.message, State.PARKED, "waits behind an earlier message of its lane", blocks=False)
        self._lighten(work)
        emit(events.Parked(self.course.channel.name, self.course.name, work.message.seq, "behind an earlier one"))

    def _lighten(self, work: Work) -> None:
        """What waits in the ledger needs no bytes in memory; they are read again when it is its turn. One whose sender
        waits for the answer is kept as it is."""
        message = work.message
        if message.reply is None:
            work.message = light = Message(message.channel, b"", message.received, message.control_id, message.socket)
            light.id, light.seq = message.id, message.seq

    def _send(self, work: Work) -> None:
        """The only place where a message goes out: claimed, and by its epoch ours to send."""
        mode = self._mode(work.message.seq)
        if mode is not Mode.SEND:
            self._keep(work.message, mode)
            self._leave_lane(work)
            self.destination.breaker.trial_gone()
            return
        work.tries += 1
        work.began = self._tick()
        if self.on_send is not None:
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
            return
        made = decision.decide(
            outcome,
            work.tries,
            self.destination.manner,
            relayed=relayed,
            unknown=work.unknown,
            jitter=decision.jitter(),
        )
        due = 0 if made.wait is None else self._clock() + int(made.wait * 1e6)
        settlement = Settlement(
            course, message, made.state, self._clock(), why="relayed" if relayed and outcome.answer else outcome.reason,
            answer=outcome.answer, due=due,
            tries=work.tries, blocks=made.blocks, part=work.part, delivery=work.delivery,
        )  # fmt: skip
        self._ledger.settle(settlement)
        self._tell(work, made, outcome)
        if made.wait is not None:
            work.parked = True
            work.unknown = made.state is State.UNKNOWN
            work.since = asyncio.get_running_loop().time()
            self._park_followers(work)
            self._try_in(made.wait, work)
        elif made.state in (State.DEAD, State.PARKED) and made.blocks:
            work.parked = work.for_a_person = True
            self._park_followers(work)
            self._lighten(work)
        else:
            self._leave_lane(work)

    def _delivered_one(self, work: Work, outcome: Outcome, why: str) -> None:
        now = self._clock()
        settlement = Settlement(self.course, work.message, State.DELIVERED, now, why, outcome.answer)
        settlement.part, settlement.delivery = work.part, work.delivery
        self._ledger.settle(settlement)
        self._delivered.n += 1
        self._latency.observe((now - work.message.received) / 1e6)
        if self._lanes:
            self._leave_lane(work)

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

    def _park_followers(self, head: Work) -> None:
        """Those behind a failed head wait in the ledger, and say so."""
        if self.course.window == 1 and head.lane not in self._lanes:
            self._lanes[head.lane] = deque((head,))
            return
        for follower in self._lanes[head.lane]:
            if not follower.parked:
                self._park(follower)

    def _leave_lane(self, work: Work) -> None:
        lane = self._lanes.get(work.lane)
        if lane is None:
            return  # strictly one after the other, and this one went well: the next claim brings the next message
        lane.popleft()
        if not lane:
            del self._lanes[work.lane]
        elif lane[0].parked:
            self._try_again(lane[0])
        else:
            self._send(lane[0])

    def _settle(
        self, message: Message, state: State, why: str = "", *, output: bytes | None = None, blocks: bool = True
    ) -> None:
        self._ledger.settle(
            Settlement(self.course, message, state, self._clock(), why=why, output=output, blocks=blocks)
        )
        if state is not State.PARKED:
            events.SETTLED.of(self.course.channel.name, self.course.name, state.label).n += 1

    # -- trying again

    def _refused(self, work: Work) -> bool:
        """Whether the authority said no to it, which the transaction of the crash had not told this course any more."""
        return work.message.seq in self.course.channel.refused and self.course is not self.course.channel.relay

    def _try_in(self, seconds: float, work: Work) -> None:
        self.destination.breaker.coming += 1
        self._timers[work.key] = asyncio.get_running_loop().call_later(seconds, self._due, work)

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
            self._settle(work.message, State.REFUSED, "the old engine said no")
            self._leave_lane(work)
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
            else:  # it was closed by others
                self._leave_lane(work)
            self.destination.breaker.trial_gone()
        elif work.message.raw:
            self._send(work)
        else:
            self._spawn(self._send_read(work))

    async def _send_read(self, work: Work) -> None:
        work.message = await self._read_surely(work.message.id)
        if not self.stopped:
            self._send(work)

    def resume(self) -> None:
        """A freeze or a barrier is gone: ask again for what was held back."""
        waiting, self._held_back = self._held_back, {}
        for work in waiting.values():
            self._try_again(work)

    def forget(self) -> None:
        """Open work was closed by others (a rollback): drop what is no longer there."""
        gone = [
            work for lane in self._lanes.values() for work in lane if work.parked and work.key not in self.course.open
        ]
        for work in gone:
            if timer := self._timers.pop(work.key, None):
                timer.cancel()
                self.destination.breaker.coming -= 1
            self._held_back.pop(work.key, None)
            lane = self._lanes[work.lane]
            lane.remove(work)
            if not lane:
                del self._lanes[work.lane]

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
        if self._started and not self.stopped:
            self._ledger.pause(self.course, opened)


def _never() -> float:
    raise RuntimeError("a runner that has not begun sends nothing")

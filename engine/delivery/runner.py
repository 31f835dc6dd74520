"""A course at work: it takes what is claimed, keeps each lane in order, and records what became of it.

The claim is the ledger's; a runner only follows it. It holds the newest messages in memory as intake hands them over
and reads the others back from the ledger, so that an outage does not grow memory. Where several messages may be on
the way at once, messages of the same lane still go one after the other; a failed one parks those behind it.
"""

from __future__ import annotations

import asyncio
import zlib
from collections import deque
from collections.abc import Callable, Coroutine

from engine.delivery import decision
from engine.delivery.work import Destination, Work
from engine.ledger.course import Course
from engine.ledger.interface import Ledger
from engine.ledger.model import Message, OpenWork, Settlement, State
from engine.ledger.outcome import Outcome, Result
from engine.ledger.routing import Mode
from engine.observe import delivery_events as events
from engine.observe.events import emit

MOST_HELD = 64  # messages a course keeps in memory before they are claimed
MOST_HELD_BYTES = 256 * 1024
READ_AHEAD = 64  # messages of one read from the ledger


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
        self._reading = False
        self._lanes: dict[
            bytes, deque[Work]
        ] = {}  # head first; the head is on the way, waits to be tried again, or is dead
        self._timers: dict[tuple[int, int, int], asyncio.TimerHandle] = {}
        self._asked: dict[tuple[int, int, int], Work] = {}  # claimed anew, not yet granted
        self._tasks: set[asyncio.Task[None]] = set()
        self._modes = {epoch.number: _mode(course, epoch.number) for epoch in course.channel.epochs}
        self._delivered = events.SETTLED.of(course.channel.name, course.name, "delivered")
        self._latency = events.DELIVERY_LATENCY.of(course.channel.name, course.name)
        destination.breaker.listeners.append(self._breaker_changed)

    # -- beginning and ending

    async def start(self) -> None:
        """Take up what an earlier process left open, then let claims begin."""
        self._taken = self.course.claim
        self._next = 0
        for work in sorted(self.course.open.values(), key=lambda work: work.key):
            await self._restore(work)
        for lane in list(self._lanes.values()):
            self._begin_again(lane)
        if not self.destination.breaker.open:
            self._ledger.pause(self.course, False)

    async def stop(self) -> None:
        self.stopped = True
        for timer in self._timers.values():
            timer.cancel()
        for task in self._tasks:
            task.cancel()
        await self.destination.close()

    async def _restore(self, row: OpenWork) -> None:
        message = await self._ledger.message(self.course.channel, row.message)
        work = Work(message, self._done, self._lane(message.raw))
        work.part, work.delivery, work.tries = row.part, row.delivery, row.tries
        work.unknown = row.state is State.UNKNOWN
        work.since = asyncio.get_running_loop().time()  # it may have been under way until the process before ended
        work.parked = True
        if row.state is State.DEAD:
            if not row.blocks:
                return
            work.tries = -1
        self._lanes.setdefault(work.lane, deque()).append(work)

    def _begin_again(self, lane: deque[Work]) -> None:
        head = lane[0]
        if head.tries < 0:
            return  # dead: a person decides
        if head.unknown and self.destination.settle_time:
            self._try_in(self.destination.settle_time, head)
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

    def pump(self) -> None:
        """Take everything up to the claim."""
        course, held = self.course, self._held
        if self._reading:
            return
        while self._taken < course.claim and not self.stopped:
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
        try:
            after = max(self._taken, self.course.frontier)
            self._taken = after
            messages = await self._ledger.backlog(self.course, after, READ_AHEAD)
            self._held = deque(messages)
            self._held_bytes = sum(len(message.raw) for message in messages)
            self._next = messages[-1].seq + 1 if messages else 0
        finally:
            self._reading = False
        self.pump()

    def _take(self, message: Message) -> None:
        course = self.course
        if message.seq in course.channel.refused:
            if course.window > 1:
                course.ids[message.seq] = message.id
            self._settle(message, State.REFUSED, "the old engine said no")
        elif self._mode(message) is Mode.CAPTURE:
            self._settle(message, State.CAPTURED, output=zlib.compress(message.raw, 1))
        elif course.window == 1:
            self._send(Work(message, self._done))
        else:
            course.ids[message.seq] = message.id
            self._join_lane(Work(message, self._done, self.destination.lane(message.raw)))

    def _mode(self, message: Message) -> Mode:
        mode = self._modes.get(message.epoch)
        if mode is None:
            mode = self._modes[message.epoch] = _mode(self.course, message.epoch)
        return mode

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
        emit(events.Parked(self.course.channel.name, self.course.name, work.message.seq, "behind an earlier one"))

    def _send(self, work: Work) -> None:
        work.tries += 1
        self.destination.send(work)

    # -- what became of it

    def _done(self, work: Work, outcome: Outcome) -> None:
        if self.stopped:
            return  # it stays claimed, and is unknown to the next process
        course, message = self.course, work.message
        self.destination.breaker.heard(outcome)
        relayed = message.relayed and course is course.channel.relay
        if outcome.result is Result.DELIVERED:
            self._delivered_one(work, outcome, "relayed" if relayed and outcome.answer else outcome.reason)
            return
        made = decision.decide(
            outcome, work.tries, relayed=relayed, waits_for_dead=self.destination.waits_for_dead,
            settle_time=self.destination.settle_time, jitter=decision.jitter(),
        )  # fmt: skip
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
        elif made.state is State.DEAD and made.blocks:
            work.parked = True
            self._park_followers(work)
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

    def _try_in(self, seconds: float, work: Work) -> None:
        self._timers[work.key] = asyncio.get_running_loop().call_later(seconds, self._due, work)

    def _due(self, work: Work) -> None:
        self._timers.pop(work.key, None)
        self._try_again(work)

    def _try_again(self, work: Work) -> None:
        """Claim it anew, singly; while the endpoint's breaker is open, wait for that first."""
        if self.stopped:
            return
        breaker = self.destination.breaker
        if breaker.open:
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
        if granted:
            self._send(work)
        else:
            self.destination.breaker.trial_gone()

    def _breaker_changed(self, opened: bool) -> None:
        if not self.stopped:
            self._ledger.pause(self.course, opened)


def _mode(course: Course, epoch: int) -> Mode:
    routing = next(known.routing for known in course.channel.epochs if known.number == epoch)
    route = routing.route(course.name)
    return route.mode if route else Mode.OFF

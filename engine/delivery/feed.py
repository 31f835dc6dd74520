"""A feed's own way to the old engine: a frame goes there once, however many channels have a copy of it.

Each channel's legacy path claims and settles its own copy; here the copies of one frame are brought together again.
The first that may go sends the frame, and its answer is the outcome of all. Frames go in the order in which they came,
as they would on the feed's own socket; one whose channels are all held back does not keep the others waiting.

What is known of a frame in memory is gone after a restart; then the ledger is asked whether another copy has been
answered already.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from itertools import islice

from engine.delivery.work import Destination, Work
from engine.ledger.model import Message
from engine.ledger.outcome import Outcome, Result
from engine.ledger.routing import LEGACY, Mode

LOOK_AGAIN = 0.05  # seconds until a frame whose turn has not come is looked at again
LONGEST = 1.0  # seconds that later frames wait for one that is expected and does not come
MOST_REMEMBERED = 10_000  # frames
LOOKED_AT = 256  # of them at a time

Key = tuple[int, int]  # the number of the connection, and when it came: no two frames of a feed have the same

UNANSWERED = frozenset({Result.NOT_TAKEN, Result.UNKNOWN, Result.FAULT})


class _Frame:
    """One frame: the copies that wait for it, the channels whose copy has not come yet, and what became of it."""

    __slots__ = ("channels", "outcome", "sending", "since", "works")

    def __init__(self, since: float) -> None:
        self.since = since
        self.works: list[Work] = []
        self.channels: set[str] = set()
        self.sending = False
        self.outcome: Outcome | None = None  # only of one that was answered


class FeedLink:
    """One feed's connection to the old engine, behind the legacy paths of its channels."""

    def __init__(
        self, carrier: Destination, answered: Callable[[Message], Awaitable[Outcome | None]], tick: Callable[[], float]
    ) -> None:
        """`carrier` sends; `answered` asks the ledger what became of another copy of a message, None where nothing has;
        `tick`: seconds of the event loop's clock."""
        self._carrier = carrier
        self._answered = answered
        self._tick = tick
        self._frames: OrderedDict[Key, _Frame] = OrderedDict()
        self._busy = False
        self._timer: asyncio.TimerHandle | None = None
        self._asking: set[asyncio.Task[None]] = set()

    def expect(self, copy: Message) -> None:
        """A copy of a frame is stored: it will come, in this order among frames."""
        course = copy.channel.course(LEGACY)
        if course is None or course.mode(copy.seq) is not Mode.SEND:
            return
        frame = self._frames.get(_key(copy))
        if frame is None:
            frame = self._frames[_key(copy)] = _Frame(self._tick())
            self._forget_old()
        frame.channels.add(copy.channel.name)

    def send(self, work: Work) -> None:
        """A copy is claimed: its frame is due."""
        frame = self._frames.get(_key(work.message))
        if frame is None:
            self._ask(work)
        else:
            self._join(frame, work)

    async def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        for task in self._asking:
            task.cancel()
        await asyncio.gather(*self._asking, return_exceptions=True)

    # -- inside

    def _ask(self, work: Work) -> None:
        async def ask() -> None:
            outcome = await self._answered(work.message)
            frame = self._frames.setdefault(_key(work.message), _Frame(self._tick()))
            frame.outcome = frame.outcome or outcome
            self._join(frame, work)

        task = asyncio.get_running_loop().create_task(ask(), name="whether a frame was answered")
        self._asking.add(task)
        task.add_done_callback(self._asking.discard)

    def _join(self, frame: _Frame, work: Work) -> None:
        frame.channels.discard(work.message.channel.name)
        if frame.outcome is not None:
            work.done(work, frame.outcome)
            self._leave(frame, work)
            return
        frame.works.append(work)
        self._pump()

    def _pump(self) -> None:
        if self._busy:
            return
        for key, frame in list(islice(self._frames.items(), LOOKED_AT)):
            if frame.works:
                self._begin(frame)
                return
            if frame.outcome is not None:
                continue
            if self._worth_waiting(frame):
                if self._timer is None:
                    self._timer = asyncio.get_running_loop().call_later(LOOK_AGAIN, self._look_again)
                return
            del self._frames[key]  # held back, or to be tried again: the ledger is asked when it comes

    def _worth_waiting(self, frame: _Frame) -> bool:
        return bool(frame.channels) and self._tick() - frame.since < LONGEST

    def _look_again(self) -> None:
        self._timer = None
        self._pump()

    def _begin(self, frame: _Frame) -> None:
        first = frame.works[0]
        self._busy = frame.sending = True
        attempt = Work(first.message, lambda _, outcome: self._heard(frame, outcome))
        attempt.tries = first.tries
        self._carrier.send(attempt)

    def _heard(self, frame: _Frame, outcome: Outcome) -> None:
        self._busy = frame.sending = False
        works, frame.works = frame.works, []
        if outcome.result not in UNANSWERED:
            frame.outcome = outcome
        for work in works:
            work.done(work, outcome)
            if frame.outcome is not None:
                self._leave(frame, work)
        self._pump()

    def _leave(self, frame: _Frame, work: Work) -> None:
        """Forget a frame once all its copies have been told."""
        if not frame.channels and not frame.works:
            self._frames.pop(_key(work.message), None)

    def _forget_old(self) -> None:
        while len(self._frames) > MOST_REMEMBERED:
            key, frame = next(iter(self._frames.items()))
            if frame.works or frame.sending:
                return
            del self._frames[key]


class FeedDestination:
    """The legacy path of one of a feed's channels."""

    window = 1

    def __init__(self, link: FeedLink, carrier: Destination) -> None:
        self.breaker = carrier.breaker
        self.manner = carrier.manner
        self._link = link

    def lane(self, raw: bytes) -> bytes:
        return b""

    def send(self, work: Work) -> None:
        self._link.send(work)

    async def close(self) -> None:
        """The link is closed by whoever opened it."""


def _key(message: Message) -> Key:
    return (message.socket, message.received)

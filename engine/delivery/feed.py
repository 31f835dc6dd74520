"""A feed's own way to the old engine: a frame goes there once, however many channels have a copy of it.

Each channel's legacy path claims and settles its own copies, in their order; here these paths are merged again. Of the
copies that wait here, those of the earliest frame are next, once no other channel can still come with an earlier one:
so frames go in the order in which they came, as they would on the feed's own socket. A channel that is held back keeps
the others from nothing. One sending, and its answer is the outcome of all copies, also of those that come later.

What is known of a frame in memory is gone after a restart; then the ledger is asked whether another copy has been
answered already.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import replace

from engine.delivery.lane import SHARED
from engine.delivery.work import Destination, Work
from engine.ledger.course import ChannelBook, Course
from engine.ledger.model import Message, State
from engine.ledger.outcome import Outcome, Result
from engine.ledger.routing import LEGACY, Mode
from engine.observe.events import emit
from engine.observe.service_events import Fault

ASK_AGAIN = 1.0  # seconds until the ledger is asked again
LOOK_AGAIN = 0.02  # seconds until it is looked again whether an earlier frame can still come
LONGEST = 60.0  # seconds that a frame waits for an earlier one: then going on matters more than order
MOST_REMEMBERED = 10_000  # frames

Key = tuple[int, int]  # when it came, and the number of its connection: no two frames of a feed have the same

UNANSWERED = frozenset({Result.NOT_TAKEN, Result.UNKNOWN, Result.FAULT})
COMES_AGAIN = frozenset({State.SENDING, State.RETRYING, State.UNKNOWN})
NOT_ITS_TURN = Outcome(Result.NOT_TAKEN, "an earlier frame of its feed goes first", local=True)


class _Frame:
    """One frame: the channels whose copy has not been told what became of it, and that, once it was answered.

    unknown: it was not expected, so that only the ledger knows whether a copy of it was answered before.
    """

    __slots__ = ("channels", "outcome", "unknown")

    def __init__(self) -> None:
        self.channels: set[str] = set()
        self.outcome: Outcome | None = None
        self.unknown = False


class _Path:
    """One channel's way here.

    head: the copy that waits here or is on its way; at most one, as the channel sends one after the other.
    expected: (number, frame) of those that will come, in their order, as far as they are known. told: the last number
    whose outcome is known. failed: the frame that is to be tried again, before anything else of the channel.
    """

    __slots__ = ("expected", "failed", "head", "told")

    def __init__(self) -> None:
        self.head: Work | None = None
        self.expected: deque[tuple[int, Key]] = deque()
        self.told = 0
        self.failed: Key | None = None


class FeedLink:
    """One feed's connection to the old engine, behind the legacy paths of its channels."""

    def __init__(
        self,
        carrier: Destination,
        books: Callable[[], Iterable[ChannelBook]],
        answered: Callable[[Message], Awaitable[Outcome | None]],
        tick: Callable[[], float],
    ) -> None:
        """`carrier` sends; `books`: of the feed's channels; `answered` asks the ledger what became of another copy of a
        message, None where nothing has; `tick`: seconds of the event loop's clock."""
        self._carrier = carrier
        self._books = books
        self._answered = answered
        self._tick = tick
        self._frames: OrderedDict[Key, _Frame] = OrderedDict()
        self._paths: dict[str, _Path] = {}
        self._busy = False
        self._since: float | None = None  # since when the next frame waits for an earlier one
        self._timer: asyncio.TimerHandle | None = None
        self._asking: set[asyncio.Task[None]] = set()

    def expect(self, copy: Message) -> None:
        """A copy of a frame is stored: it will come, in this order among those of its channel."""
        course = copy.channel.course(LEGACY)
        if course is None or course.mode(copy.seq) is not Mode.SEND or not self._has_room():
            return
        self._frame(copy).channels.add(copy.channel.name)
        expected = self._path(copy).expected
        if len(expected) < MOST_REMEMBERED:
            expected.append((copy.seq, _key(copy)))

    def send(self, work: Work) -> None:
        """A copy is claimed: its frame is due."""
        frame = self._frames.get(_key(work.message))
        if frame is None or (frame.unknown and frame.outcome is None):
            self._ask(work)
        else:
            self._join(frame, work)

    async def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        for task in self._asking:
            task.cancel()
        await asyncio.gather(*self._asking, return_exceptions=True)

    # -- copies come

    def _frame(self, copy: Message) -> _Frame:
        return self._frames.setdefault(_key(copy), _Frame())

    def _has_room(self) -> bool:
        """Room is made of what the ledger knows: frames that were answered."""
        while len(self._frames) >= MOST_REMEMBERED:
            key, oldest = next(iter(self._frames.items()))
            if oldest.outcome is None:
                return False
            del self._frames[key]
        return True

    def _path(self, copy: Message) -> _Path:
        return self._paths.setdefault(copy.channel.name, _Path())

    def _ask(self, work: Work) -> None:
        frame = self._frame(work.message)
        frame.unknown = True
        frame.channels.add(work.message.channel.name)

        async def ask() -> None:
            outcome = await self._answered_surely(work.message)
            frame.outcome = frame.outcome or outcome
            self._join(frame, work)

        task = asyncio.get_running_loop().create_task(ask(), name="whether a frame was answered")
        self._asking.add(task)
        task.add_done_callback(self._asking.discard)

    async def _answered_surely(self, copy: Message) -> Outcome | None:
        """A question that fails is asked again, since nothing of the channel goes on without an answer."""
        while True:
            try:
                return await self._answered(copy)
            except Exception as error:
                emit(Fault.of(error))
                await asyncio.sleep(ASK_AGAIN)

    def _join(self, frame: _Frame, work: Work) -> None:
        self._path(work.message).head = work
        if frame.outcome is not None:
            self._tell(work, frame.outcome)
        self._pump()

    # -- whose turn it is

    def _pump(self) -> None:
        heads = [path.head for path in self._paths.values() if path.head is not None]
        if self._busy or not heads:
            return
        first = min(heads, key=lambda work: _key(work.message))
        key = _key(first.message)
        if self._carrier.breaker.open:  # one at a time asks whether it is back: nobody else will come
            if self._failed_before(key):
                first.tries -= 1  # it was none
                self._tell(first, NOT_ITS_TURN)
                self._pump()
                return
        elif any(self._may_precede(book, key) for book in self._books()) and not self._waited_long():
            if self._timer is None:
                self._timer = asyncio.get_running_loop().call_later(LOOK_AGAIN, self._look_again)
            return
        self._since = None
        self._begin(first)

    def _waited_long(self) -> bool:
        if self._since is None:
            self._since = self._tick()
        return self._tick() - self._since >= LONGEST

    def _look_again(self) -> None:
        self._timer = None
        self._pump()

    def _failed_before(self, key: Key) -> bool:
        """Whether another channel is to try an earlier frame again."""
        for book in self._books():
            failed = self._paths[book.name].failed if book.name in self._paths else None
            if failed is not None and failed < key and book.hold is None:
                return True
        return False

    def _may_precede(self, book: ChannelBook, key: Key) -> bool:
        """Whether a channel may still come with a frame that is earlier than this one."""
        course, path = book.course(LEGACY), self._paths.get(book.name)
        if course is None or course.runner is None or (path is not None and path.head is not None):
            return False
        if path is not None and path.expected:
            seq, expected = path.expected[0]
            if seq <= max(path.told, course.frontier) + 1 and (expected >= key or not course.may_claim(seq)):
                return False
        return _will_come(course, path.told if path is not None else 0)

    # -- there and back

    def _begin(self, first: Work) -> None:
        self._busy = True
        attempt = Work(first.message, lambda _, outcome: self._heard(_key(first.message), outcome))
        attempt.tries = first.tries
        self._carrier.send(attempt)

    def _heard(self, key: Key, outcome: Outcome) -> None:
        self._busy = False
        heads = [path.head for path in self._paths.values() if path.head is not None]
        copies = [work for work in heads if _key(work.message) == key]
        if outcome.answer is not None and outcome.result is not Result.DELIVERED and _relayed(copies):
            outcome = replace(outcome, result=Result.REFUSED)  # the sender has this no: it holds for every copy
        if outcome.result not in UNANSWERED and key in self._frames:
            self._frames[key].outcome = outcome
        for work in copies:
            self._tell(work, outcome)
        self._pump()

    def _tell(self, work: Work, outcome: Outcome) -> None:
        key, name = _key(work.message), work.message.channel.name
        path = self._paths[name]
        path.head = None
        if outcome.result in UNANSWERED:
            path.failed = key
        else:
            path.failed, path.told = None, work.message.seq
            while path.expected and path.expected[0][0] <= work.message.seq:
                path.expected.popleft()
            if frame := self._frames.get(key):
                frame.channels.discard(name)
                if not frame.channels:
                    del self._frames[key]
        work.done(work, outcome)


class FeedDestination:
    """The legacy path of one of a feed's channels."""

    def __init__(self, link: FeedLink, carrier: Destination) -> None:
        self.breaker = carrier.breaker
        self.manner = carrier.manner
        self._link = link

    def lanes(self, raw: bytes) -> tuple[bytes, ...]:
        return SHARED

    def ready(self, work: Work) -> None:
        return None

    def make(self, work: Work) -> Outcome | None:
        return None

    def send(self, work: Work) -> None:
        self._link.send(work)

    async def close(self) -> None:
        """The link is closed by whoever opened it."""


def _key(message: Message) -> Key:
    return (message.received, message.socket)


def _relayed(copies: Iterable[Work]) -> bool:
    return any(work.message.relayed for work in copies)


def _will_come(course: Course, told: int) -> bool:
    """Whether a course that has nothing here will bring something by itself: it is claimed, or soon will be. What is
    told need not be settled yet."""
    if not course.spans:
        return False
    following = max(course.frontier, told) + 1
    for work in list(course.open.values()):
        if work.seq > told and work.state in COMES_AGAIN:
            following = work.seq
            break
        if work.seq > told and work.blocks:
            return False  # for a person
    return following <= course.channel.seq and course.may_claim(following) and course.mode(following) is Mode.SEND

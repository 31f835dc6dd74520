"""A feed's own way to the old engine: whose turn it is, and who is told."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest

from engine.delivery import feed
from engine.delivery.breaker import Breaker, Position
from engine.delivery.decision import Manner
from engine.delivery.feed import NOT_ITS_TURN, FeedLink
from engine.delivery.work import Work
from engine.ledger.course import ChannelBook, Course, Span
from engine.ledger.model import Message
from engine.ledger.outcome import Outcome, Result
from engine.ledger.routing import LEGACY, Epoch, Mode, Route, Routing
from tests.support.house import until

TAKEN = Outcome(Result.DELIVERED, "", b"yes")
AWAY = Outcome(Result.NOT_TAKEN, "refused", trouble=True)
NO = Outcome(Result.NEVER, "answered AR", b"no")


class Carrier:
    """Sends when the test says what came of it."""

    window = 1

    def __init__(self) -> None:
        self.breaker = Breaker("old")
        self.manner = Manner()
        self.sent: list[int] = []
        self._work: Work | None = None

    def lanes(self, raw: bytes) -> tuple[bytes, ...]:
        return (b"",)

    def ready(self, work: Work) -> None:
        return None

    def make(self, work: Work) -> None:
        return None

    def send(self, work: Work) -> None:
        assert self._work is None, "one at a time"
        self._work = work
        self.sent.append(work.message.received)

    def hears(self, outcome: Outcome) -> None:
        work, self._work = self._work, None
        assert work is not None
        work.done(work, outcome)

    async def close(self) -> None:
        self.breaker.stop()


class Site:
    """Some channels of a feed, their ledger in a test's hands. A frame is known by when it came."""

    def __init__(self, *names: str) -> None:
        routing = Routing((Route(LEGACY, "legacy", Mode.SEND, "channel"),))
        self.books = {name: ChannelBook(n, name, 0, [Epoch(1, 1, "legacy", routing)]) for n, name in enumerate(names)}
        for book in self.books.values():
            course = Course(book, 1, LEGACY, 1, False)
            course.paused = False
            course.spans = [Span(1, None, 1, routing.routes[0])]
            course.runner = SimpleNamespace()
            book.courses = [course]
        self.carrier = Carrier()
        self.asked: list[int] = []
        self.known: Outcome | None = None
        self.broken = False  # the ledger cannot answer, once
        self.told: list[tuple[str, int, Outcome]] = []
        self.link = FeedLink(self.carrier, self.books.values, self._answered, asyncio.get_running_loop().time)

    async def _answered(self, message: Message) -> Outcome | None:
        self.asked.append(message.received)
        if self.broken:
            self.broken = False
            raise OSError("the disk")
        return self.known

    def stored(self, frame: int, *names: str, expect: bool = True, relayed: bool = False) -> list[Work]:
        """A frame with copies for these channels, none of them claimed yet."""
        works = []
        for name in names:
            book = self.books[name]
            book.seq += 1
            message = Message(book, b"", frame, "M1", 1)
            message.seq, message.relayed = book.seq, relayed
            if expect:
                self.link.expect(message)
            works.append(Work(message, self._done))
        return works

    def _done(self, work: Work, outcome: Outcome) -> None:
        self.told.append((work.message.channel.name, work.message.received, outcome))

    def settled(self, *works: Work) -> None:
        """Their receipts are durable."""
        for work in works:
            work.message.channel.courses[0].frontier = work.message.seq


async def test_all_copies_are_told_what_one_sending_came_to() -> None:
    site = Site("east", "west")
    east, west = site.stored(1, "east", "west")
    site.link.send(east)
    assert site.carrier.sent == [1], "the other copy need not be here"
    site.link.send(west)
    site.carrier.hears(TAKEN)
    assert site.told == [("east", 1, TAKEN), ("west", 1, TAKEN)]
    assert (site.carrier.sent, site.asked) == ([1], [])
    await site.link.close()


async def test_an_earlier_frame_of_another_channel_goes_first_whoever_comes_first() -> None:
    site = Site("east", "west")
    (east,), (west,) = site.stored(1, "east"), site.stored(2, "west")
    site.link.send(west)
    assert site.carrier.sent == []
    site.link.send(east)
    assert site.carrier.sent == [1]
    site.carrier.hears(TAKEN)
    assert site.carrier.sent == [1, 2]
    await site.link.close()


async def test_the_next_frame_does_not_wait_for_the_commit_of_the_last_one() -> None:
    site = Site("east", "west")
    (first,), (second,), _ = site.stored(1, "east"), site.stored(2, "west"), site.stored(3, "east")
    site.link.send(first)
    site.link.send(second)
    site.carrier.hears(TAKEN)
    assert site.carrier.sent == [1, 2], "east's next frame is known to be a later one"
    await site.link.close()


async def test_a_held_channel_is_not_waited_for_and_is_told_when_it_comes() -> None:
    site = Site("east", "west")
    site.books["west"].hold = SimpleNamespace()  # type: ignore[assignment]
    east, west = site.stored(1, "east", "west")
    site.link.send(east)
    assert site.carrier.sent == [1]
    site.carrier.hears(TAKEN)
    site.books["west"].hold = None
    site.link.send(west)
    assert site.told == [("east", 1, TAKEN), ("west", 1, TAKEN)]
    assert site.carrier.sent == [1]
    await site.link.close()


async def test_a_ledger_that_cannot_say_what_became_of_a_frame_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed, "ASK_AGAIN", 0.0)
    site = Site("east")
    site.broken = True
    (east,) = site.stored(1, "east", expect=False)
    site.link.send(east)
    await until(lambda: site.carrier.sent == [1])
    assert site.asked == [1, 1]
    await site.link.close()


async def test_a_no_that_was_relayed_is_a_refusal_for_every_copy() -> None:
    site = Site("east", "west")
    (east,) = site.stored(1, "east", relayed=True)
    (west,) = site.stored(1, "west")
    site.link.send(east)
    site.link.send(west)
    site.carrier.hears(NO)
    assert [outcome.result for _, _, outcome in site.told] == [Result.REFUSED] * 2
    await site.link.close()


async def test_what_nobody_waited_for_stays_as_the_engine_said_it() -> None:
    site = Site("east")
    (east,) = site.stored(1, "east")
    site.link.send(east)
    site.carrier.hears(NO)
    assert site.told == [("east", 1, NO)]
    await site.link.close()


async def test_a_copy_that_nobody_expected_asks_the_ledger_first() -> None:
    site = Site("east", "west")
    east, west = site.stored(1, "east", "west", expect=False)
    site.known = TAKEN
    site.link.send(east)
    site.link.send(west)
    for _ in range(20):
        await asyncio.sleep(0)
    assert site.told == [("east", 1, TAKEN), ("west", 1, TAKEN)]
    assert site.carrier.sent == []
    await site.link.close()


async def test_a_trial_of_the_breaker_leaves_the_turn_to_an_earlier_frame_that_failed() -> None:
    site = Site("east", "west")
    (east,), (west,) = site.stored(1, "east"), site.stored(2, "west")
    site.link.send(east)
    site.carrier.hears(AWAY)
    assert site.told == [("east", 1, AWAY)]
    site.carrier.breaker.position = Position.PROBING
    west.tries = 1
    site.link.send(west)
    assert site.told[1:] == [("west", 2, NOT_ITS_TURN)]
    assert west.tries == 0, "it was none"
    site.link.send(east)
    assert site.carrier.sent == [1, 1]
    await site.link.close()


async def test_what_failed_is_told_to_every_copy_and_sent_again_once() -> None:
    site = Site("east", "west")
    east, west = site.stored(1, "east", "west")
    site.link.send(east)
    site.link.send(west)
    site.carrier.hears(AWAY)
    assert [name for name, _, _ in site.told] == ["east", "west"]
    site.link.send(west)
    assert site.carrier.sent == [1, 1]
    site.carrier.hears(TAKEN)
    site.link.send(east)
    assert [(name, outcome) for name, _, outcome in site.told[2:]] == [("west", TAKEN), ("east", TAKEN)]
    assert site.carrier.sent == [1, 1]
    await site.link.close()


async def test_what_is_told_is_forgotten() -> None:
    site = Site("east", "west")
    for frame in range(1, 50):
        works = site.stored(frame, "east", "west")
        for work in works:
            site.link.send(work)
        site.carrier.hears(TAKEN)
        site.settled(*works)
    assert not site.link._frames
    assert all(not path.expected for path in site.link._paths.values())
    await site.link.close()

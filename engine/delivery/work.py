"""One part of one message on its way to one destination, and what a destination must be able to do with it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from engine.ledger.model import Message
from engine.ledger.outcome import Outcome

if TYPE_CHECKING:
    from engine.delivery.breaker import Breaker
    from engine.delivery.decision import Manner


class Work:
    """A claimed part. `done` is called once, on the event loop, with the attempt's outcome.

    `unknown`: an earlier attempt may have reached the endpoint; `since` is when it was last known to be under way, in
    seconds of the event loop's clock.
    """

    __slots__ = (
        "began", "delivery", "done", "for_a_person", "lane", "message", "parked", "part", "since", "tries", "unknown",
    )  # fmt: skip

    def __init__(self, message: Message, done: Callable[[Work, Outcome], None], lane: bytes = b"") -> None:
        self.message = message
        self.done = done
        self.lane = lane
        self.part = self.delivery = 1
        self.tries = 0
        self.unknown = False
        self.since = 0.0
        self.began = 0.0  # when it was last handed over, in seconds of the event loop's clock
        self.parked = False  # has a row of open work, and is claimed anew before it is sent
        self.for_a_person = False  # dead, or parked because it may have been taken: a person decides

    @property
    def key(self) -> tuple[int, int, int]:
        return (self.message.seq, self.part, self.delivery)


class Destination(Protocol):
    """Where a course ends. One object serves one course; what courses share (an endpoint's connections, its breaker)
    is shared behind it."""

    window: int  # how many messages may be on the way at once; 1: strictly one after the other
    breaker: Breaker
    manner: Manner

    def lane(self, raw: bytes) -> bytes:
        """The order key of a message: messages with the same key go one after the other."""

    def send(self, work: Work) -> None:
        """Try once. Never raises; `work.done` hears the outcome, possibly before this returns."""

    async def close(self) -> None:
        """End what is on the way: its outcome is heard, or it stays claimed and is unknown at the next start."""

"""One part of one message on its way to one destination, and what a destination must be able to do with it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

from engine.delivery.lane import SHARED
from engine.ledger.model import Message
from engine.ledger.outcome import Outcome

if TYPE_CHECKING:
    from engine.delivery.breaker import Breaker
    from engine.delivery.decision import Manner


class Work:
    """A claimed part. `done` is called once, on the event loop, with the attempt's outcome.

    `unknown`: an earlier attempt may have reached the endpoint; `since` is when it was last known to be under way, in
    seconds of the event loop's clock. `outputs`: what the message becomes at the destination, one for each part; None
    until they are made. `made_by`: the epoch by whose mapping they are, or are to be, made: the present one, unless the
    work is `bound` to another. `noted`: what its mapping could not carry over is counted already.
    """

    __slots__ = (
        "began", "bound", "delivery", "done", "for_a_person", "joined", "lanes", "made_by", "message", "noted",
        "outputs", "parked", "part", "parts", "revision", "since", "tries", "unknown",
    )  # fmt: skip

    def __init__(
        self, message: Message, done: Callable[[Work, Outcome], None], lanes: tuple[bytes, ...] = SHARED
    ) -> None:
        self.message = message
        self.done = done
        self.lanes = lanes
        self.outputs: Sequence[bytes] | None = None
        self.part = self.parts = self.delivery = self.revision = 1
        self.made_by: int | None = None
        self.bound: int | None = None
        self.tries = 0
        self.noted = False
        self.unknown = False
        self.since = 0.0
        self.began = 0.0  # when it was last handed over, in seconds of the event loop's clock
        self.joined = 0  # when it joined its lanes: the later, the higher
        self.parked = False  # has a row of open work, and is claimed anew before it is sent
        self.for_a_person = False  # dead, or parked because it may have been taken: a person decides

    @property
    def output(self) -> bytes:
        """The bytes of the part that is to be sent."""
        return self.message.raw if self.outputs is None else self.outputs[self.part - 1]

    @property
    def key(self) -> tuple[int, int, int]:
        return (self.message.seq, self.part, self.delivery)


class Destination(Protocol):
    """Where a course ends. One object serves one course; what courses share (an endpoint's connections, its breaker)
    is shared behind it."""

    breaker: Breaker
    manner: Manner

    def lanes(self, raw: bytes) -> tuple[bytes, ...]:
        """The order keys of a message: messages that have one in common go one after the other."""

    def ready(self, work: Work) -> asyncio.Future[None] | None:
        """What has to be waited for before `make`; None for nothing."""

    def make(self, work: Work) -> Outcome | None:
        """Make the outputs of a work, where that is to be done before it is sent or captured. What ends the matter
        instead: a filter, or that nothing can be made of it."""

    def send(self, work: Work) -> None:
        """Try once. Never raises; `work.done` hears the outcome, possibly before this returns."""

    async def close(self) -> None:
        """End what is on the way: its outcome is heard, or it stays claimed and is unknown at the next start."""

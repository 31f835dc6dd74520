"""What the rest of the engine asks of a ledger. SQLite keeps it today; PostgreSQL can keep it behind the same words.

All changes are queued and return at once; what became of them is reported to `on_commit`, on the event loop, after
the transaction is durable. Whoever acknowledges or sends does so from there.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from engine.ledger.book import Book, OpenKey
from engine.ledger.course import ChannelBook, Course
from engine.ledger.gaps import Gaps
from engine.ledger.model import IntakeEvent, Message, Settlement, TapOutput, Together
from engine.ledger.turns import Turns


class Commit(Protocol):
    """One durable transaction; or what was handed back unwritten: `unstored` where the ledger as a whole cannot be
    written at present, `failed` (with the reason) where the operation itself is to blame."""

    stored: list[Message]
    settled: list[Settlement]
    events: list[IntakeEvent]
    outputs: list[TapOutput]
    claimed: list[tuple[Course, int]]
    reclaimed: list[tuple[Course, OpenKey, bool]]
    unstored: list[Message | IntakeEvent | TapOutput]
    failed: list[tuple[Any, str]]
    seconds: float


class Ledger(Protocol):
    """The durable record of all channels."""

    incarnation: str
    term: int
    channels: dict[str, ChannelBook]

    def start(self, on_commit: Callable[[Commit], None]) -> None:
        """Begin writing; `on_commit` is called on the running event loop."""

    def store(self, message: Message) -> None:
        """Number the message and make it durable; claim it in the same transaction where a course is idle."""

    def together(self, together: Together) -> None:
        """Store several messages in one transaction, or none of them."""

    def lay_down(self, large: Message | TapOutput) -> Awaitable[None]:
        """Write most of what is too large for one transaction, piece by piece beside the transactions of others. It
        becomes a message, or an output, when it is stored afterwards."""

    def claim(self, course: Course, key: OpenKey) -> None:
        """Claim one open part anew, singly, before it is sent again, when it is its turn at its endpoint."""

    def settle(self, settlement: Settlement) -> None:
        """Record what became of a part; the course's next claim rides in the same transaction."""

    def note(self, channel: ChannelBook, seq: int, gaps: Gaps, *, counts: bool, fresh: bool) -> None:
        """Count what a mapping could not carry over of a message that is settled now; soon, and behind everything else.
        counts: it was not noted before. fresh: it was mapped as it would be now."""

    def event(self, event: IntakeEvent) -> None:
        """Keep evidence of input that got no number, or that `live` would refuse."""

    def output(self, output: TapOutput) -> None:
        """Keep what the old engine sent to a tap."""

    def release(self, channel: ChannelBook, seq: int) -> None:
        """The answer awaited for `seq` is late: the other path need not wait for it."""

    def take_turns(self, turns: Turns) -> None:
        """An endpoint may have room again: whoever waits for his turn may claim."""

    def pause(self, course: Course, paused: bool) -> None:
        """No claims on a course until it is resumed."""

    def transaction(self, act: Callable[[Book], Any]) -> Awaitable[Any]:
        """Run `act` on the book in a transaction of the writer; its result, once durable."""

    def read(self, query: Callable[[Any], Any]) -> Awaitable[Any]:
        """Run a query on the reading connection."""

    def backlog(self, course: Course, after: int, limit: int) -> Awaitable[list[Message]]:
        """The course's channel's messages above `after`, in order; at most `limit`, and bounded in bytes."""

    def message(self, channel: ChannelBook, id: int, revision: int = 1) -> Awaitable[Message]:
        """One stored message by its id; with the bytes that a person made of it where a later revision is wanted."""

    async def close(self) -> None:
        """Write what is queued, then close."""

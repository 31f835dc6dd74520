"""What the ledger has kept of a channel for its comparison: inputs, outputs, and what became of them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Any, Final, TypeVar

from engine.compare.copies import Copy, in_front, reached
from engine.compare.slots import Input
from engine.ledger.course import ChannelBook
from engine.ledger.interface import Ledger
from engine.ledger.model import Message, State
from engine.ledger.routing import LEGACY, Grant, Mode
from engine.ledger.sqlite import comparisons
from engine.ledger.sqlite.copies import others

T = TypeVar("T")

PAGE: Final = 256  # messages of one read

TAKEN: Final = frozenset({State.DELIVERED.label, State.DUPLICATE.label})
"""What became of an input at the old engine where an output is to be expected."""


class Kept:
    """The ledger's rows of one channel."""

    def __init__(self, book: ChannelBook, ledger: Ledger, copied: bool = False) -> None:
        """copied: whether the channel's frames come from a feed, which may copy them to other channels."""
        self._book = book
        self._copied = copied
        self._ledger = ledger

    async def query(self, query: Callable[..., T], *values: Any) -> T:
        """A query of `comparisons` about this channel."""
        channel = self._book.id
        found: T = await self._ledger.read(lambda reader: query(reader.connection, channel, *values))
        return found

    async def inputs(self, after: int, from_id: int) -> AsyncIterator[Message]:
        """The inputs above `after` whose outputs are compared, in order. from_id: a message's id to start at."""
        for first, last in compared_numbers(self._book):
            async for message in self._stretch(max(after, first - 1), last, from_id):
                yield message

    def is_granted(self, seq: int) -> bool:
        """Whether a rollback has given an input back to the old engine."""
        return any(grant.first <= seq <= grant.last for grant in self._grants())

    def granted(self, most: int) -> Iterator[tuple[int, int]]:
        """(first, last) of what the newest rollback has given back and the old engine may have; its newest `most`."""
        legacy, grants = self._book.course(LEGACY), list(self._grants())
        newest = max((grant.run for grant in grants), default=0)
        for grant in grants:
            last = min(grant.last, legacy.claim) if legacy else 0
            first = max(grant.first, last - most + 1)
            if grant.run == newest and first <= last:
                yield first, last

    def _grants(self) -> Iterator[Grant]:
        return (grant for grant in self._book.grants if grant.destination == LEGACY and grant.mode is Mode.SEND)

    async def between(self, first: int, last: int) -> AsyncIterator[Message]:
        """The inputs from `first` to `last`, in order."""
        channel = self._book.id
        from_id = await self._ledger.read(lambda reader: reader.id_of(channel, first))
        async for message in self._stretch(first - 1, last, from_id or 0):
            yield message

    async def _stretch(self, after: int, last: int, from_id: int) -> AsyncIterator[Message]:
        """The inputs above `after`, up to `last`."""
        while after < last:
            rows = await self._page(after, from_id, last - after)
            for message in rows:
                if message.seq <= last:
                    yield message
            if not rows:
                return
            after = rows[-1].seq

    async def _page(self, after: int, from_id: int, most: int) -> list[Message]:
        book, limit = self._book, min(most, PAGE)
        rows = await self._ledger.read(lambda reader: reader.backlog(book.id, after, from_id, limit))
        return [row.of(book) for row in rows]

    async def legacy(self, output: int) -> bytes | None:
        """The bytes of what a tap got."""
        found: bytes | None = await self._ledger.read(lambda reader: comparisons.output(reader.connection, output))
        return found

    async def target(self, message: int, destination: str) -> list[bytes]:
        """What we would have sent for a message, by its id, part by part; none where nothing is captured."""
        course = self._book.course(destination)
        if course is None:
            return []
        id = course.id
        found: list[bytes] = await self._ledger.read(
            lambda reader: comparisons.captured(reader.connection, message, id)
        )
        return found

    async def filtered(self, message: int, destination: str) -> bool:
        """Whether one of our own rules keeps a message back, by its id."""
        states = await self._ledger.read(lambda reader: reader.settled([message]))
        return bool(states[message].get(destination) == State.FILTERED.label)

    async def taken(self, input: Input) -> bool:
        """Whether the old engine took an input and did not refuse it. What it says in front of us nobody tells us."""
        if in_front(self._book, input.seq):
            return True
        states = await self._ledger.read(lambda reader: reader.settled([input.id]))
        return states[input.id].get(LEGACY) in TAKEN

    def reached(self, input: Input) -> bool:
        """Whether the old engine may have an input: as the channel's own, or as that of another one that a feed gave a
        copy."""
        return reached(self._book, input.seq) or any(reached(book, seq) for book, seq in input.copies)

    async def elsewhere(self, message: Message) -> Sequence[Copy]:
        """The other channels that have a copy of an input from before this process began, where it matters."""
        if not self._copied or reached(self._book, message.seq):
            return ()
        rows = await self._ledger.read(lambda reader: others(reader.connection, message.id))
        books = {book.id: book for book in self._ledger.channels.values()}
        return [(books[channel], seq) for channel, seq in rows]

    def copied(self, most: int) -> tuple[int, int] | None:
        """(first, last) of the newest `most` inputs that a feed may have copied to the old engine although they are
        ours to send."""
        epoch = self._book.epoch
        first = max(epoch.first, self._book.seq - most + 1)
        return (first, self._book.seq) if self._copied and epoch.phase == "live" and first <= self._book.seq else None

    def sent(self, seq: int) -> bool:
        """Whether the old engine has an input, or will never get it."""
        return in_front(self._book, seq) or settled(self._book, LEGACY, seq)


def settled(book: ChannelBook, destination: str, seq: int) -> bool:
    """Whether it is decided what becomes of an input at a destination, of all its parts."""
    course = book.course(destination)
    if course is None:
        return True
    if course.frontier < seq:
        return False
    own = (one for one in course.open.values() if one.seq == seq and one.delivery == 1)  # not a person's replay of it
    work = course.open.get((seq, 1, 1)) or next(own, None)
    return work is None or work.state is State.DEAD


def compared_numbers(book: ChannelBook) -> Iterator[tuple[int, int]]:
    """(first, last) of the epochs whose outputs are compared."""
    for epoch, later in zip(book.epochs, [*book.epochs[1:], None], strict=True):
        if epoch.phase == "parallel":
            yield epoch.first, (later.first - 1 if later else book.seq)

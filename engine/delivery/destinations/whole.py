"""Files that reach the old engine's folder as what they were, though each message of them has a number of its own.

The messages of a file are stored in one transaction, so no cut ever falls between them: where the first is due, all
are, unless a rollback says otherwise. The first one's turn writes the whole file; the others are in it, which the
ledger knows by the first one's receipt. What is written has the digest that the file had, or it is not written: then
each message goes by itself.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol, cast

from engine.ledger.course import Course
from engine.ledger.model import Message, State
from engine.ledger.routing import LEGACY, Mode
from engine.ledger.sqlite import files
from engine.mllp.framing import encode

WITH_OTHERS = "in one file, with what came in it"
"""The reason of a receipt whose file holds the messages behind it too."""


class Stored(Protocol):
    """What is asked of the ledger."""

    def read(self, query: Callable[[Any], Any]) -> Awaitable[Any]: ...

    def backlog(self, course: Course, after: int, limit: int) -> Awaitable[list[Message]]: ...


class Wholes:
    """Of all channels that read files."""

    def __init__(self, ledger: Stored) -> None:
        self._ledger = ledger
        self._newest: dict[str, tuple[int, files.Span]] = {}  # channel → when its newest file came, and what is in it
        self._out: dict[str, int] = {}  # channel → the first number of the last file that was found to have gone out

    async def within(self, message: Message) -> int | None:
        """The number of the first message of its file, where the file went out with that one; None where it did not."""
        span = await self._span(message)
        if span is None or span.first == message.seq:
            return None
        channel = message.channel.name
        if self._out.get(channel) != span.first:
            id = message.id - (message.seq - span.first)
            found = await self._ledger.read(lambda reader: files.receipt(reader.connection, id, LEGACY))
            if found != (State.DELIVERED.value, WITH_OTHERS):
                return None
            self._out[channel] = span.first
        return span.first

    async def begun_by(self, message: Message) -> tuple[bytes, int] | None:
        """The bytes of the file whose first message this is, and how many messages are in it; None where it is not the
        first, where not all of them are due and open, or where the bytes are not known."""
        span, course = await self._span(message), message.channel.course(LEGACY)
        if span is None or course is None or span.first != message.seq or course.frontier > span.first:
            return None
        _, last, mode = course.stretch(span.first)
        if mode is not Mode.SEND or last < span.last:
            return None
        raws, count = [message.raw], span.last - span.first + 1
        while len(raws) < count:
            rest = await self._ledger.backlog(course, span.first + len(raws) - 1, count - len(raws))
            if not rest:
                return None
            raws += [each.raw for each in rest]
        data = await asyncio.to_thread(_together, raws, span.digest)
        return None if data is None else (data, len(raws))

    async def _span(self, message: Message) -> files.Span | None:
        channel, id = message.channel, message.id
        received, span = self._newest.get(channel.name, (0, None))
        if span is not None and received == message.received and span.first <= message.seq <= span.last:
            return span
        span = cast(files.Span | None, await self._ledger.read(lambda r: files.span(r.connection, channel.id, id)))
        if span is not None:
            self._newest[channel.name] = message.received, span
        return span


def _together(raws: Sequence[bytes], digest: bytes) -> bytes | None:
    """The file that these messages were: text, or a stream of MLLP blocks; None where it was neither, to the byte."""
    for data in (b"".join(raws), b"".join(map(encode, raws))):
        if hashlib.sha256(data).digest() == digest:
            return data
    return None

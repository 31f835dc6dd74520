"""A channel whose messages come as files: all messages of a file are stored in one transaction, or none of them.

That transaction also holds the file's claimed name, which no other file ever has, and its digest. So a file that is
found again after a crash is only moved away, and one that a lab sends again on purpose is stored again. A file is moved
away only when its messages are durable.

While the old engine judges, a file that does not consist of messages is one message as well: it goes on byte for byte.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol

from engine.config.edge import Files
from engine.config.model import Channel
from engine.files.folder import HEAD_BYTES, Folder, storable
from engine.files.inbox import Claimed, Fate, Inbox
from engine.hl7.batch import peek_batch
from engine.hl7.peek import Peek, peek
from engine.intake.cutting import Unreadable, cut
from engine.intake.judge import BATCH_ENVELOPE, TOO_LARGE, Rules, judge
from engine.ledger.book import Book
from engine.ledger.course import ChannelBook
from engine.ledger.model import IntakeEvent, Message
from engine.ledger.sqlite import files
from engine.ledger.sqlite.large import LARGE
from engine.mllp.framing import FILLER
from engine.observe import file_events as events
from engine.observe.events import emit
from engine.observe.intake_events import STORED, STORED_BYTES, WouldRefuse

Judged = tuple[bytes, Peek, str | None]
"""A message, its header, and its flaw."""


class Storing(Protocol):
    """What is asked of the ledger."""

    def store_together(
        self, messages: Sequence[Message], rows: Sequence[tuple[str, tuple[Any, ...]]] = ()
    ) -> Awaitable[bool]: ...

    def lay_down(self, large: Message) -> Awaitable[None]: ...

    def transaction(self, act: Callable[[Book], Any]) -> Awaitable[Any]: ...

    def read(self, query: Callable[[Any], Any]) -> Awaitable[Any]: ...


class FileSource:
    """One channel's folder and everything between it and the ledger. The folder is closed by whoever opened it."""

    def __init__(
        self,
        channel: Channel,
        book: ChannelBook,
        ledger: Storing,
        rules: Rules,
        folder: Folder,
        clock: Callable[[], int],
        transparent: Callable[[], bool],
    ) -> None:
        """`clock`: microseconds since 1970. `transparent`: whether the old engine judges the messages, as of now."""
        assert isinstance(channel.source, Files)
        self.channel = channel
        self.last_received = 0  # microseconds since 1970, of this process
        self._book = book
        self._ledger = ledger
        self._rules = rules
        self._clock = clock
        self._transparent = transparent
        self._inbox = Inbox(channel.source, folder, channel.takes.max_bytes, self, clock)

    @property
    def down(self) -> str | None:
        """Why the place cannot be read; None where it can."""
        return self._inbox.down

    @property
    def waiting(self) -> int:
        """Files that were there at the last look and are not taken."""
        return self._inbox.waiting

    async def run(self) -> None:
        """Read what comes, until it is cancelled."""
        await self._inbox.run()

    async def scan(self) -> None:
        """Look once, and take what is there."""
        await self._inbox.scan()

    async def finish(self, grace: float) -> None:
        """After `run` was cancelled: take what was in hand, which is hidden from whoever reads the folder next. A place
        that needs more than `grace` seconds for it is not waited for."""
        finished = False
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace):
                finished = await self._inbox.finish()
        if not finished:
            emit(events.FilesLeft(self.channel.id))

    # -- what the inbox asks (engine.files.inbox.Taker)

    def told(self, down: str | None) -> None:
        emit(events.PlaceUp(self.channel.id) if down is None else events.PlaceDown(self.channel.id, down))

    def waits(self, count: int) -> None:
        events.WAITING.of(self.channel.id).n = count

    async def take(self, file: Claimed, data: bytes) -> Fate:
        digest, judged = await asyncio.to_thread(self._examine, data)
        channel = self._book.id
        if await self._ledger.read(lambda reader: files.known(reader.connection, channel, file.id, digest)):
            emit(events.FileFoundAgain(self.channel.id, len(data)))
            return Fate.STORED
        problem = self._refusal(judged, data)
        if problem is not None:
            return await self._set_aside(problem, file, data, len(data))
        now = max(self._clock(), self.last_received + 1)  # a moment of its own: by it the file is known again
        read = [(data, peek(data), judged)] if isinstance(judged, str) else judged
        messages = [self._message(raw, head, flaw, now) for raw, head, flaw in read]
        for message in messages:
            if len(message.raw) > LARGE:
                await self._ledger.lay_down(message)
        if not await self._ledger.store_together(messages, [("add_file", (channel, file.id, len(data), digest, now))]):
            return Fate.LATER
        self._stored(messages, len(data), now)
        return Fate.STORED

    async def too_large(self, file: Claimed, head: bytes, size: int) -> Fate:
        return await self._set_aside(TOO_LARGE.reason, file, head, size)

    # -- inside

    def _examine(self, data: bytes) -> tuple[bytes, list[Judged] | str]:
        """The digest, and each message with its flaw; or why there is none. On a thread: a file may be large."""
        digest = hashlib.sha256(data).digest()
        try:
            messages = cut(data)
        except Unreadable as error:
            return digest, str(error)
        return digest, [self._judged(raw) for raw in messages]

    def _judged(self, raw: bytes) -> Judged:
        head = peek(raw)
        flaw = judge(head, raw, self._rules)
        return raw, head, flaw.reason if flaw else None

    def _refusal(self, judged: Sequence[Judged] | str, data: bytes) -> str | None:
        """Why the whole file is refused. Where the old engine is the one to judge: only what cannot be sent to it."""
        if self._transparent():
            return judged if isinstance(judged, str) and not self._can_go_on(data) else None
        if isinstance(judged, str):
            return judged
        for number, (_, _, flaw) in enumerate(judged, 1):
            if flaw is not None:
                return f"message {number} of {len(judged)}: {flaw}"
        return None

    def _can_go_on(self, data: bytes) -> bool:
        """Whether the old engine can be given a file that does not consist of messages. Not in a block of MLLP where
        nothing is in it, or the block's own bytes."""
        endpoint = self.channel.legacy.endpoint if self.channel.legacy else None
        if endpoint is None or endpoint.place is not None:
            return True
        start, end = endpoint.framing.start, endpoint.framing.end
        return bool(data.strip(FILLER)) and end[:1] not in data and not (start and start in data)

    def _message(self, raw: bytes, head: Peek, flaw: str | None, now: int) -> Message:
        header = peek_batch(raw) if head.problem == BATCH_ENVELOPE else head
        return Message(self._book, raw, now, header.control_id, flaw=flaw)

    def _stored(self, messages: Sequence[Message], size: int, now: int) -> None:
        self.last_received = now
        STORED.of(self.channel.id).n += len(messages)
        STORED_BYTES.of(self.channel.id).n += sum(len(message.raw) for message in messages)
        for message in messages:
            if message.flaw:
                emit(WouldRefuse(self.channel.id, message.seq, message.flaw))
        emit(events.FileRead(self.channel.id, len(messages), size))

    async def _set_aside(self, reason: str, file: Claimed, raw: bytes, size: int) -> Fate:
        """Keep the beginning of a file as evidence, durably. Its name stands where a sender's address would."""
        name, head = storable(file.name), raw[:HEAD_BYTES]
        event = IntakeEvent(self._book, "failed_file", reason, self._clock(), name, 0, head, size)
        await self._ledger.transaction(lambda book: book.event(event))
        emit(events.FileFailed(self.channel.id, reason, size))
        return Fate.FAILED

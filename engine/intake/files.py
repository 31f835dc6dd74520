"""A channel whose messages come as files: all messages of a file are stored in one transaction, or none of them.

That transaction also holds the file's name and digest. So a file that is found again after a crash is only moved away,
and a file is moved away only when its messages are durable.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol

from engine.config.edge import Files
from engine.config.model import Channel
from engine.files.folder import HEAD_BYTES, Folder
from engine.files.inbox import Fate, Inbox
from engine.hl7.batch import peek_batch
from engine.hl7.peek import Peek, peek
from engine.intake.cutting import Unreadable, cut
from engine.intake.judge import BATCH_ENVELOPE, TOO_LARGE, Flaw, Rules, judge
from engine.ledger.book import Book
from engine.ledger.course import ChannelBook
from engine.ledger.model import IntakeEvent, Message
from engine.ledger.sqlite import files
from engine.ledger.sqlite.large import LARGE
from engine.observe import file_events as events
from engine.observe.events import emit
from engine.observe.intake_events import STORED, STORED_BYTES, WouldRefuse
from engine.observe.service_events import Fault

AGAIN = 1.0  # seconds after a defect of ours


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
        self._inbox = Inbox(channel.id, channel.source, folder, channel.takes.max_bytes, self, clock)

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
        while True:
            try:
                await self._inbox.run()
            except Exception as error:  # a defect must not end the channel: the file is still there
                emit(Fault.of(error))
                await asyncio.sleep(AGAIN)

    async def scan(self) -> None:
        """Look once, and take what is there."""
        await self._inbox.scan()

    async def finish(self) -> bool:
        """After `run` was cancelled: take what was in hand, which is hidden from whoever reads the folder next. Whether
        none is left."""
        return await self._inbox.finish()

    # -- what the inbox asks (engine.files.inbox.Taker)

    async def take(self, name: str, data: bytes) -> Fate:
        digest, judged = await asyncio.to_thread(self._examine, data)
        channel, name = self._book.id, _storable(name)
        if await self._ledger.read(lambda reader: files.known(reader.connection, channel, name, digest)):
            emit(events.FileRepeated(self.channel.id, len(data)))
            await self._keep("repeated_file", "a file of this name and content was stored before", name, data)
            return Fate.STORED
        problem = judged if isinstance(judged, str) else self._refusal(judged)
        if problem is not None:
            return await self._set_aside(problem, name, data, len(data))
        assert not isinstance(judged, str)
        now = self._clock()
        messages = [self._message(raw, head, flaw, now) for raw, head, flaw in judged]
        for message in messages:
            if len(message.raw) > LARGE:
                await self._ledger.lay_down(message)
        if not await self._ledger.store_together(messages, [("add_file", (channel, name, len(data), digest, now))]):
            return Fate.LATER
        self._stored(messages, len(data), now)
        return Fate.STORED

    async def too_large(self, name: str, head: bytes, size: int) -> Fate:
        return await self._set_aside(TOO_LARGE.reason, _storable(name), head, size)

    # -- inside

    def _examine(self, data: bytes) -> tuple[bytes, list[tuple[bytes, Peek, Flaw | None]] | str]:
        """The digest, and each message with its flaw; or why there is none. On a thread: a file may be large."""
        digest = hashlib.sha256(data).digest()
        try:
            messages = cut(data)
        except Unreadable as error:
            return digest, str(error)
        heads = [peek(raw) for raw in messages]
        return digest, [(raw, head, judge(head, raw, self._rules)) for raw, head in zip(messages, heads, strict=True)]

    def _refusal(self, judged: Sequence[tuple[bytes, Peek, Flaw | None]]) -> str | None:
        """Why the whole file is refused, where the old engine is not the one to judge."""
        if self._transparent():
            return None
        for number, (_, _, flaw) in enumerate(judged, 1):
            if flaw is not None:
                return f"message {number} of {len(judged)}: {flaw.reason}"
        return None

    def _message(self, raw: bytes, head: Peek, flaw: Flaw | None, now: int) -> Message:
        header = peek_batch(raw) if head.problem == BATCH_ENVELOPE else head
        return Message(self._book, raw, now, header.control_id, flaw=flaw.reason if flaw else None)

    def _stored(self, messages: Sequence[Message], size: int, now: int) -> None:
        self.last_received = now
        STORED.of(self.channel.id).n += len(messages)
        STORED_BYTES.of(self.channel.id).n += sum(len(message.raw) for message in messages)
        for message in messages:
            if message.flaw:
                emit(WouldRefuse(self.channel.id, message.seq, message.flaw))
        emit(events.FileRead(self.channel.id, len(messages), size))

    async def _set_aside(self, reason: str, name: str, raw: bytes, size: int) -> Fate:
        await self._keep("failed_file", reason, name, raw, size)
        emit(events.FileFailed(self.channel.id, reason, size))
        return Fate.FAILED

    async def _keep(self, kind: str, reason: str, name: str, raw: bytes, size: int | None = None) -> None:
        """Keep the beginning of a file as evidence, durably. Its name stands where a sender's address would."""
        head, size = raw[:HEAD_BYTES], len(raw) if size is None else size
        event = IntakeEvent(self._book, kind, reason, self._clock(), name, 0, head, size)
        await self._ledger.transaction(lambda book: book.event(event))


def _storable(name: str) -> str:
    """A file's name as text that can be stored, even where it was no UTF-8."""
    return name.encode("utf-8", "backslashreplace").decode()

"""The SQLite ledger: the writer, the reading thread, and whom they tell."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from engine.ledger.audit import Entry
from engine.ledger.book import Book
from engine.ledger.course import ChannelBook, Course
from engine.ledger.gaps import Gaps
from engine.ledger.keeping import needed
from engine.ledger.model import IntakeEvent, Message, Settlement, TapOutput, Together
from engine.ledger.repeats import Repeats
from engine.ledger.routing import Epoch, Routing
from engine.ledger.sqlite import incarnations, mappings, retention, schema
from engine.ledger.sqlite.large import pieces, put_piece, put_size
from engine.ledger.sqlite.loading import LedgerError, open_ledger
from engine.ledger.sqlite.mappings import KeptMapping
from engine.ledger.sqlite.noting import Noting
from engine.ledger.sqlite.reader import Reader
from engine.ledger.sqlite.repeats import newest
from engine.ledger.sqlite.writer import Commit, Order, Reclaim, Writer
from engine.ledger.turns import Turns

T = TypeVar("T")


class SqliteLedger:
    """One file, one writer. Made by `SqliteLedger(path)`; raises LedgerError where the file cannot be opened."""

    def __init__(self, path: Path, clock: Callable[[], int]) -> None:
        """`clock` gives microseconds since 1970."""
        opened = open_ledger(path)
        self.path = path
        self.incarnation = opened.incarnation
        self.term = opened.term
        self.channels = opened.channels
        self.destinations = opened.destinations
        self.unwritable: str | None = None  # why the ledger cannot be written now
        self.on_unwritable: Callable[[str | None], None] = lambda reason: None
        self.on_fatal: Callable[[BaseException], None] = lambda error: None
        self._clock = clock
        self._lock = opened.lock
        self._connection = opened.connection
        self.kept = retention.load(opened.connection)
        self.incarnations = incarnations.read(opened.connection)
        self.mappings = mappings.versions(opened.connection)  # that are kept
        self._in_use: set[str] = set()  # that this process has asked to keep
        self.noting = Noting(self, opened.connection, clock)
        self._large = opened.last_large
        self._book = Book(opened.term, opened.last_message, opened.audited, opened.last_output)
        self._reader = Reader(path)
        self._reading = ThreadPoolExecutor(1, "ledger-reader")
        self._writer: Writer | None = None

    def start(self, on_commit: Callable[[Commit], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._writer = Writer(
            self._connection,
            self._book,
            lambda commit: self._committed(commit, on_commit),
            self._set_unwritable,
            lambda error: self.on_fatal(error),
        )
        self._put = self._writer.put
        self.store: Callable[[Message], None] = self._put
        self.together: Callable[[Together], None] = self._put
        self.settle: Callable[[Settlement], None] = self._put
        self.event: Callable[[IntakeEvent], None] = self._put
        self.output: Callable[[TapOutput], None] = self._put
        self._writer.start()

    def _committed(self, commit: Commit, on_commit: Callable[[Commit], None]) -> None:
        for done, result in commit.answers:
            done(result)
        for operation, reason in commit.failed:
            if isinstance(operation, Order) and operation.failed:
                operation.failed(reason)
        on_commit(commit)

    def _set_unwritable(self, reason: str | None) -> None:
        self.unwritable = reason
        self.on_unwritable(reason)

    # -- changes

    async def lay_down(self, large: Message | TapOutput) -> None:
        data, run = large.raw, self._loop.run_in_executor  # where their many bytes keep nobody waiting
        if isinstance(large, TapOutput):
            data = large.packed = await run(None, zlib.compress, data, 1)
        else:
            large.crc = await run(None, zlib.crc32, data)
            if (repeats := large.channel.repeats) is not None and large.control_id:
                large.digest = await run(None, repeats.digest, data)
        self._large = large.large = self._large + 1
        for n, piece in enumerate(pieces(data)):
            await self.transaction(partial(put_piece, large.large, n, piece))
        self._put(Order(partial(put_size, large.large, len(data))))

    async def store_together(
        self, messages: Sequence[Message], rows: Sequence[tuple[str, tuple[Any, ...]]] = ()
    ) -> bool:
        """Store them in one transaction with `rows`; True once that is durable, False where it was not possible."""
        future: asyncio.Future[bool] = self._loop.create_future()

        def done(written: bool) -> None:
            if not future.cancelled():
                future.set_result(written)

        self._put(Together(messages, rows, done))
        return await future

    def note(self, channel: ChannelBook, seq: int, gaps: Gaps, *, counts: bool, fresh: bool) -> None:
        self.noting.note(channel, seq, gaps, counts=counts, fresh=fresh)

    def claim(self, course: Course, key: tuple[int, int, int]) -> None:
        self._put(Reclaim(course, key))

    def release(self, channel: ChannelBook, seq: int) -> None:
        self._put(Order(lambda book: book.release(channel, seq)))

    def take_turns(self, turns: Turns) -> None:
        self._put(Order(lambda book: book.take_turns(turns)))

    def pause(self, course: Course, paused: bool) -> None:
        self._put(Order(lambda book: book.pause(course, paused)))

    async def probe(self) -> None:
        """Write something, so that a ledger that could not be written is found well again."""
        await self.transaction(lambda book: None, ((schema.TOUCH, ()),))

    def transaction(
        self, act: Callable[[Book], T], sql: Sequence[tuple[str, tuple[Any, ...]]] = (), *, beside: bool = False
    ) -> Awaitable[T]:
        """`sql`: statements that are run in the same transaction, on the thread that waits for the disk. They are
        looked at after `act`, which may still put them in. beside: no message waits for it, and where the disk has no
        room for it, that is a LedgerError and no trouble of the ledger."""
        future: asyncio.Future[T] = self._loop.create_future()

        def done(result: T) -> None:
            if not future.cancelled():
                future.set_result(result)

        def failed(reason: str) -> None:
            if not future.cancelled():
                future.set_exception(LedgerError(reason))

        self._put(Order(act, done, sql, failed, beside))
        return future

    async def switch(
        self,
        channel: str,
        phase: str,
        routing: Routing,
        windows: dict[str, int],
        *,
        who: str,
        why: str,
        audit: Callable[[Epoch], Entry] | None = None,
    ) -> ChannelBook:
        """Open an epoch above every number given so far. `windows`: destination → how many messages may be on the way
        at once; `audit`: what the audit chain says of it, given the epoch."""
        book, fresh, sql = self.prepare(channel, routing, windows)
        epoch = Epoch(0, 0, phase, routing, who=who, why=why, at=self._clock())

        def act(ledger: Book) -> None:
            opened = ledger.switch(book, epoch, fresh)
            if audit:
                ledger.audit(audit(opened))

        await self.transaction(act, sql)
        self.channels[channel] = book
        return book

    def prepare(
        self, channel: str, routing: Routing, windows: dict[str, int]
    ) -> tuple[ChannelBook, list[Course], tuple[tuple[str, tuple[Any, ...]], ...]]:
        """What a switch to `routing` needs: the channel's book, its courses with new ones added, and the statements
        that make rows for what is new, to be run in the transaction of the switch."""
        book, sql = self._channel(channel)
        courses = list(book.courses)
        for route in routing.due():
            if not any(course.name == route.destination for course in courses):
                id = self.destinations.setdefault(route.destination, max(self.destinations.values(), default=0) + 1)
                sql += ((schema.INSERT_DESTINATION, (id, route.destination)),)
                courses.append(Course(book, id, route.destination, windows.get(route.destination, 1), False))
        return book, courses, sql

    async def keep_mappings(self, versions: Iterable[str], made: Callable[[str], KeptMapping]) -> None:
        """Keep what outputs are made by, before an epoch names it. `made`: of a version that is not kept yet; called on
        another thread. Versions that were named here stay as long as this process."""
        self._in_use |= (wanted := set(versions))
        if missing := sorted(wanted - self.mappings):
            rows = await asyncio.to_thread(lambda: mappings.packed([made(each) for each in missing], self._clock()))
            await self.transaction(lambda book: None, rows)
            self.mappings.update(missing)

    async def drop_mappings(self) -> int:
        """Remove those by which no output can be made any more; how many."""
        gone = self.mappings - self._in_use - needed(self.channels.values(), self.kept)
        if gone:
            self.mappings -= gone  # at once: who wants one of them meanwhile keeps it anew, after this transaction
            await self.transaction(lambda book: None, mappings.dropping(gone))
        return len(gone)

    async def watch_repeats(self, watched: Mapping[str, Repeats]) -> None:
        """From now on look for repeats in these channels, also of what was stored before this process."""
        books = [self.channels[name] for name in watched]
        authorities = {book.id: book.relay.id for book in books if book.relay is not None}
        since = self._clock() - max((repeats.window for repeats in watched.values()), default=0)
        found = await self.read(lambda reader: newest(reader.connection, since, authorities))
        by_id = {book.id: watched[book.name] for book in books}
        for row in found:
            if (repeats := by_id.get(row.channel)) is not None:
                first = repeats.learn(row.id, row.seq, row.socket, row.received, row.control_id, row.raw)
                first.answer = row.answer
        for book in books:
            book.repeats = watched[book.name]

    def arrange(self, courses: list[Course], windows: dict[str, int]) -> None:
        """The windows of courses, as the destinations of the running configuration want them."""
        for course in courses:
            course.window = windows.get(course.name, 1)

    def _channel(self, name: str) -> tuple[ChannelBook, tuple[tuple[str, tuple[Any, ...]], ...]]:
        if book := self.channels.get(name):
            return book, ()
        id = max((known.id for known in self.channels.values()), default=0) + 1
        book = self.channels[name] = ChannelBook(id, name, 0)
        return book, ((schema.INSERT_CHANNEL, (id, name)),)

    @property
    def queued(self) -> int:
        """Operations that wait for their transaction."""
        return self._writer.queued if self._writer else 0

    # -- reading

    def read(self, query: Callable[[Reader], T]) -> Awaitable[T]:
        """Run a query on the reading thread."""
        return asyncio.get_running_loop().run_in_executor(self._reading, query, self._reader)

    async def backlog(self, course: Course, after: int, limit: int) -> list[Message]:
        channel, from_id = course.channel, course.frontier_id
        rows = await self.read(lambda reader: reader.backlog(channel.id, after, from_id, limit))
        return [row.of(channel) for row in rows]

    async def message(self, channel: ChannelBook, id: int, revision: int = 1) -> Message:
        return (await self.read(lambda reader: reader.message(id, revision))).of(channel)

    async def close(self) -> None:
        await self.noting.close()
        # The writer's connection is the last to close: then SQLite brings the log into the one file.
        self._reading.shutdown()
        self._reader.close()
        if self._writer:
            await self._writer.end()
        else:
            self._connection.close()
        self._lock.close()

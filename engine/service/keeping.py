"""The loop that removes what has been kept long enough, and gives the file's space back.

It works in slices through the ledger's one writer, each in a transaction of its own, and rests after each of them for
nine times as long as it took: so it takes a tenth of the writer's time at most, and less the busier that is. What may
go is decided twice: when a slice is read, and in the transaction that removes it.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from types import MappingProxyType
from typing import Any, Final, TypeVar

from engine.config.model import Configuration
from engine.ledger.book import Book
from engine.ledger.course import ChannelBook
from engine.ledger.keeping import (
    AUDIT,
    CAPTURED,
    EVENTS,
    NUMBERED,
    OUTPUTS,
    RAW,
    RECEIPTS,
    Bound,
    Compared,
    Keep,
    believed,
    bound,
)  # fmt: skip
from engine.ledger.sqlite import pruning, retention
from engine.ledger.sqlite.ledger import SqliteLedger
from engine.ledger.sqlite.loading import LedgerError
from engine.ledger.sqlite.pruning import Limit, Part, Row, Statement
from engine.observe.events import emit
from engine.observe.ledger_events import Pruned
from engine.observe.service_events import Fault

T = TypeVar("T")

FIRST: Final = 60.0  # seconds from the start to the first look
EVERY: Final = 3600.0  # seconds
REST: Final = 9.0  # times as long as a slice took
LEAST_REST: Final = 0.02  # seconds
AGAIN: Final = (1.0, 5.0, 25.0)  # seconds until what found no room is tried again
BUSY: Final = 64  # operations that wait for the writer: then it is let alone
SPARE: Final = 16  # of the file, one part in so many stays free for what comes next
PAGES: Final = 32  # given back in one transaction
AT_ONCE: Final = 10  # channels looked at without a pause
SAMPLED: Final = 256  # rows that the size of a class is estimated from, in a dry run
KINDS: Final = (CAPTURED, RAW, OUTPUTS, EVENTS, RECEIPTS)
NO_TAPS: Final[Mapping[str, Sequence[str]]] = MappingProxyType({})
DECIDED: Final = ("live", "retired")  # phases in which nobody has to decide any more about what `live` would refuse


@dataclass(slots=True)
class Done:
    """What one look has removed: (channel, class) → rows, and bytes."""

    rows: Counter[tuple[str, str]] = field(default_factory=Counter)
    size: Counter[tuple[str, str]] = field(default_factory=Counter)
    pages: int = 0  # given back

    def add(self, channel: str, kind: str, part: Part) -> None:
        self.rows[channel, kind] += len(part.ids)
        self.size[channel, kind] += part.size


class Keeping:
    """Retention of one service."""

    def __init__(
        self,
        ledger: SqliteLedger,
        keeps: Mapping[str, Keep],
        audit: float,
        clock: Callable[[], int],
        running: Callable[[str], str] = lambda channel: "",
        taps: Mapping[str, Sequence[str]] = NO_TAPS,
    ) -> None:
        """keeps: by channel; those without are kept whole. audit: seconds that the audit chain is kept. clock:
        microseconds since 1970. running: which run of a channel goes on, in words. taps: by channel, those at which it
        is compared now."""
        self._ledger = ledger
        self._keeps = keeps
        self._audit = audit
        self._clock = clock
        self._running = running
        self._taps = taps
        self._thread = ThreadPoolExecutor(1, "ledger-keeping")
        self.turn = asyncio.Lock()  # one look at a time, and none while a backup is made
        self._connection: sqlite3.Connection | None = None
        self._believed = 0
        self._since = 0.0

    @classmethod
    def of(
        cls,
        configuration: Configuration,
        ledger: SqliteLedger,
        clock: Callable[[], int],
        running: Callable[[str], str],
    ) -> Keeping:
        """As the files say."""
        kept = {channel.id: channel.retention for channel in configuration.channels}
        keeps = {id: Keep(one.raw, one.captured, one.receipts, one.events) for id, one in kept.items()}
        taps = {channel.id: [tap.name for tap in channel.taps] for channel in configuration.channels}
        return cls(ledger, keeps, configuration.service.audit, clock, running, taps)

    async def run(self) -> None:
        """Look again and again."""
        await asyncio.sleep(FIRST)
        while True:
            try:
                await self.once()
            except Exception as error:
                emit(Fault.of(error))
            await asyncio.sleep(EVERY)

    def close(self) -> None:
        self._thread.shutdown(wait=True, cancel_futures=True)
        if self._connection is not None:
            self._connection.close()

    # -- time

    async def now(self) -> int:
        """The believed time, by which ages are judged; and from here on what there is now is known to be as old as the
        wall clock says, unless that has gone back: then it counts as younger than it is."""
        wall, tick = self._clock(), time.monotonic()
        if not self._since:
            last = await self._ask(retention.last_moment)
            self._believed = last or wall
        else:
            self._believed = believed(wall, self._believed, tick - self._since)
        self._since = tick
        if wall >= self._believed:
            await self._ledger.transaction(lambda book: book.put("put_moment", wall, self._believed))
        return self._believed

    # -- removing

    async def once(self) -> Done:
        """One look at everything."""
        async with self.turn:
            done = Done()
            now = await self.now()
            for kind in KINDS:
                await self._class(kind, now, done)
            await self._prune_audit(now)
            await self._ledger.drop_mappings()
            await self._give_back(done)
        for (channel, kind), rows in done.rows.items():
            emit(Pruned(channel, kind, rows, done.size[channel, kind]))
        return done

    async def _class(self, kind: str, now: int, done: Done) -> None:
        limits, _ = await self._limits(kind, now)
        after = 0
        while limits:
            rules = {book.id: self._rule(kind, book.name) for book in self._books() if book.id in limits}
            last, parts = await self._ask(_slice, kind, limits, after, now, rules)
            if not parts:
                return
            after = last
            gone = await self._remove(kind, now, parts, rules)
            for channel in {part.channel for part in parts} - {part.channel for part in gone}:
                del limits[channel]  # something has come in between: at the next look
            for part in gone:
                await self._remove_large(part)
                done.add(self._name(part.channel), kind, part)

    async def _limits(self, kind: str, now: int) -> tuple[dict[int, Limit], dict[int, Bound]]:
        """How far each channel may go now, and why no further."""
        limits, bounds = {}, {}
        books = list(self._books())
        ages = {book.id: now - int(self._keeps[book.name].of(kind) * 1e6) for book in books}
        cutoffs, facts = await self._ask(_seen, kind, ages)
        for n, book in enumerate(books):
            if n % AT_ONCE == 0:
                await asyncio.sleep(0)  # others have their turn
            kept, marks = self._ledger.kept[book.id], (0, 0)
            bounds[book.id] = found = self._bound(book, kind, now, facts.get(book.id, Compared()))
            if kind in NUMBERED:
                marks = max((kept.mark(one), kept.ids.get(one, 0)) for one in (kind, RECEIPTS))
            if found.upto > marks[0] and cutoffs[book.id] > marks[1]:
                undecided = book.epoch.phase not in DECIDED
                limits[book.id] = Limit(*marks, found.upto, cutoffs[book.id], undecided)
        return limits, bounds

    def _books(self) -> Iterator[ChannelBook]:
        return (book for book in self._ledger.channels.values() if book.name in self._keeps and book.epochs)

    def _name(self, id: int) -> str:
        return next(book.name for book in self._ledger.channels.values() if book.id == id)

    def _bound(self, book: ChannelBook, kind: str, now: int, facts: Compared) -> Bound:
        kept, keep = self._ledger.kept[book.id], self._keeps[book.name].of(kind)
        earlier = min(now, self._clock())  # by which the end of a rollback's time was set
        return bound(book, kind, keep, earlier, kept, self._compared(book, facts), self._running(book.name))

    def _compared(self, book: ChannelBook, facts: Compared) -> Compared:
        """What is compared still. A tap that was taken out of the channel's file has rows, and will never get any
        further; without any tap there is nobody who could settle a discrepancy."""
        taps = self._taps.get(book.name, ())
        return Compared({tap: facts.watermarks.get(tap, 0) for tap in taps}, facts.shown if taps else None)

    async def _remove(self, kind: str, now: int, parts: Sequence[Part], rules: Mapping[int, str]) -> list[Part]:
        """In one transaction; those that are gone."""
        by_id = {book.id: book for book in self._books()}
        statements: list[Statement] = []

        def act(book: Book) -> list[Part]:
            """Look again, in the transaction itself: what has come in between holds its channel back."""
            statements.clear()
            going = []
            for part in parts:
                channel, kept = by_id[part.channel], self._ledger.kept[part.channel]
                if part.last > self._bound(channel, kind, now, part.facts).upto:
                    continue
                if kind in NUMBERED:
                    if kind != CAPTURED and part.first != max(kept.mark(kind), kept.mark(RECEIPTS)) + 1:
                        continue
                    book.remember(kept.marks, kind, part.last)
                    book.remember(kept.ids, kind, part.last_id)
                statements.extend(pruning.removal(kind, part, now, rules[part.channel]))
                going.append(part)
            return going

        return await self._paced(act, statements)

    async def _remove_large(self, part: Part) -> None:
        for large in part.large:
            for step in await self._ask(pruning.removal_of_large, large):
                await self._paced(_nothing, step)

    def _rule(self, kind: str, channel: str) -> str:
        return f"{kind} is kept for {days(self._keeps[channel].of(kind))}"

    async def _prune_audit(self, now: int) -> None:
        upto = (await self._ask(_seen, AUDIT, {0: now - int(self._audit * 1e6)}))[0][0]
        rule = f"audit is kept for {days(self._audit)}"
        while step := await self._ask(pruning.removal_of_audit, upto, now, rule):
            await self._paced(_nothing, step)

    async def _give_back(self, done: Done) -> None:
        """Free pages that the next days will not fill again go back to the file system."""
        while True:
            free, pages, can = await self._ask(retention.free)
            if not can or free - pages // SPARE < PAGES:
                return
            await self._paced(_nothing, [(f"pragma incremental_vacuum({PAGES})", ())])
            done.pages += PAGES

    async def _paced(self, act: Callable[[Book], T], statements: Sequence[Statement]) -> T:
        """One transaction, and a rest; none while others wait for theirs. No message fails with it where the disk has
        no room for it: then it is tried again a few times, and the last LedgerError ends the look."""
        pauses = iter(AGAIN)
        while True:
            while self._ledger.queued > BUSY or self._ledger.unwritable:  # noqa: ASYNC110 - nothing announces it
                await asyncio.sleep(LEAST_REST)
            began = time.monotonic()
            try:
                result = await self._ledger.transaction(act, statements, beside=True)
            except LedgerError:
                if (pause := next(pauses, None)) is None:
                    raise
                await asyncio.sleep(pause)
            else:
                await asyncio.sleep(max(LEAST_REST, REST * (time.monotonic() - began)))
                return result

    # -- telling

    async def plan(self) -> list[dict[str, Any]]:
        """What the next look would remove, for each channel and class; and what holds the next number back."""
        now = await self.now()
        told = []
        for kind in KINDS:
            limits, bounds = await self._limits(kind, now)
            for book in self._books():
                limit, found, gone = limits.get(book.id), bounds[book.id], self._ledger.kept[book.id].mark(kind)
                rows, size, last = await self._ask(_estimate, kind, book.id, limit) if limit else (0, 0, gone)
                told.append({
                    "channel": book.name, "kind": kind, "kept_s": self._keeps[book.name].of(kind), "gone": gone,
                    "rows": rows, "bytes": size, "upto": last if kind in NUMBERED else None,
                    "held_by": found.why if found.upto < max(1, book.seq) else "",
                })  # fmt: skip
        return told

    async def _ask(self, query: Callable[..., T], *asked: Any) -> T:
        """On a thread and a connection of its own: nothing that is delivered waits for it."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, lambda: query(self._reader(), *asked))

    def _reader(self) -> sqlite3.Connection:
        if self._connection is None:
            path = f"file:{self._ledger.path}?mode=ro"
            self._connection = sqlite3.connect(path, uri=True, isolation_level=None, check_same_thread=False)
        return self._connection


def days(seconds: float) -> str:
    """`90 days`, `36 h`."""
    return f"{seconds / 86400:.0f} days" if seconds >= 2 * 86400 else f"{seconds / 3600:.3g} h"


def _nothing(book: Book) -> None:
    """Only the statements."""


def _seen(
    connection: sqlite3.Connection, kind: str, ages: Mapping[int, int]
) -> tuple[dict[int, int], dict[int, Compared]]:
    """Channel → the highest row that is as old as that, and how far its comparison has come."""
    cutoffs = {age: retention.cutoff(connection, kind, age) for age in set(ages.values())}
    facts = {channel: retention.compared(connection, channel) for channel in ages} if kind in NUMBERED else {}
    return {channel: cutoffs[age] for channel, age in ages.items()}, facts


def _slice(
    connection: sqlite3.Connection, kind: str, limits: dict[int, Limit], after: int, now: int, rules: Mapping[int, str]
) -> tuple[int, list[Part]]:
    """The last row, and the parts, of what comes after row `after`; bounded in number and bytes."""
    if kind != OUTPUTS:  # which are looked for channel by channel, and are gone when they are gone
        limits = {channel: limit._replace(after=max(limit.after, after)) for channel, limit in limits.items()}
    rows: list[Row] = []
    size = 0
    for row in pruning.walk(connection, kind, limits):
        rows.append(row)
        size += row.size
        if len(rows) == pruning.MOST_ROWS or size > pruning.MOST_BYTES:
            break
    found = pruning.parts(rows)
    for part in found:
        pruning.complete(connection, kind, part, now, rules[part.channel])
    return (rows[-1].id if rows else after), found


def _estimate(connection: sqlite3.Connection, kind: str, channel: int, limit: Limit) -> tuple[int, int, int]:
    """(rows, about how many bytes, the highest number) that would go of a channel."""
    if kind not in (RAW, RECEIPTS):
        rows = list(pruning.walk(connection, kind, {channel: limit}))
        return len(rows), sum(row.size for row in rows), rows[-1].seq if rows else limit.mark
    last = pruning.highest(connection, channel, limit)
    sample = list(islice(pruning.walk(connection, kind, {channel: limit}), SAMPLED))
    mean = sum(row.size for row in sample) / len(sample) if sample else 0
    return last - limit.mark, int((last - limit.mark) * mean), last

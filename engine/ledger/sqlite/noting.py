"""Writes what mappings could not carry over, summed up: one transaction a second at most, behind the settlements.

Whoever notes something is never kept waiting. Where it cannot be written it is kept and tried again; nobody's message
waits for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

from engine.ledger.book import Book
from engine.ledger.course import ChannelBook
from engine.ledger.gaps import MOST_CODES, MOST_FIELDS, Code, Gaps, Noted
from engine.ledger.sqlite import gaps
from engine.ledger.sqlite.loading import LedgerError
from engine.observe.events import emit
from engine.observe.gap_events import UNMAPPED, CodesFull, CodeUnmapped, GapsWait, MappingMissed, ValuesLost
from engine.observe.service_events import Fault

if TYPE_CHECKING:
    from engine.ledger.sqlite.ledger import SqliteLedger

LINGER: Final = 1.0  # seconds in which what is noted gathers
AGAIN_AFTER: Final = 5.0  # seconds until what could not be written is tried again
AT_ONCE: Final = 1000  # codes of one transaction; the others are in the next one
PATIENCE: Final = 2.0  # seconds that the end waits


class Noting:
    """Of one ledger. Everything runs on the event loop."""

    def __init__(self, ledger: SqliteLedger, connection: sqlite3.Connection, clock: Callable[[], int]) -> None:
        """connection: of the ledger's file. clock: microseconds since 1970."""
        self._ledger = ledger
        self._clock = clock
        self._noted = Noted()
        self._rows = Counter(gaps.counts(connection))  # by channel: how many codes are there
        self._fields: dict[int, set[str]] = {}  # by channel: which fields are there
        for each in gaps.fields(connection):
            self._fields.setdefault(each.channel, set()).add(each.field)
        self._full: set[int] = set()  # channels that have no room for another code, and this was said
        self._turn = asyncio.Lock()
        self._writing: asyncio.Task[None] | None = None
        self._ending = asyncio.Event()
        self.open: Mapping[tuple[str, str], int] = {}
        """(Channel, table) → how many of its codes nobody has decided about."""
        self._show(gaps.open_counts(connection))

    def note(self, channel: ChannelBook, seq: int, found: Gaps, *, counts: bool = True, fresh: bool = True) -> None:
        """Message `seq` was mapped and is settled. counts: for the first time. fresh: by the present mapping."""
        self._noted.note(channel.id, seq, found, self._clock(), counts=counts, fresh=fresh)
        if self._writing is None:
            self._writing = asyncio.get_running_loop().create_task(self._write_soon(), name="noted gaps")

    @asynccontextmanager
    async def settled(self) -> AsyncIterator[None]:
        """All that was noted so far is written, and nothing is written meanwhile. Raises LedgerError where that is not
        possible at present."""
        async with self._turn:
            for _ in range(1 + len(self._noted.codes) // AT_ONCE):  # what is noted meanwhile can wait
                if self._noted:
                    await self._write()
            yield

    async def count(self) -> None:
        """Count the open codes anew."""
        self._show(await self._ledger.read(lambda reader: gaps.open_counts(reader.connection)))

    async def close(self) -> None:
        """Write what was noted, where that can be done at once."""
        self._ending.set()
        try:
            async with asyncio.timeout(PATIENCE):
                if self._writing is not None:
                    await self._writing
                async with self.settled():
                    pass
        except (LedgerError, TimeoutError) as error:
            emit(GapsWait(str(error) or "the ledger does not answer"))

    # -- inside

    async def _write_soon(self) -> None:
        wait = LINGER
        while self._noted and not self._ending.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._ending.wait(), wait)
            try:
                async with self._turn:
                    await self._write()
                wait = LINGER
            except LedgerError as error:
                emit(GapsWait(str(error)))
                wait = AGAIN_AFTER
            except Exception as error:  # a defect must not end the counting of all channels
                emit(Fault.of(error))
                wait = AGAIN_AFTER
        self._writing = None

    async def _write(self) -> None:
        """What was noted, or as much of it as one transaction takes."""
        noted = self._noted.taken(AT_ONCE)
        try:
            known = await self._ledger.read(lambda reader: gaps.states(reader.connection, noted.codes))
            new = self._new(noted, known)
            self._few_fields(noted)
            await self._ledger.transaction(lambda book: _put(book, noted), beside=True)
        except (LedgerError, sqlite3.Error) as error:
            self._noted.put_back(noted)
            raise LedgerError(str(error) if isinstance(error, LedgerError) else type(error).__name__) from error
        again = [key for key, state in known.items() if state == gaps.MAPPED and noted.codes[key].fresh]
        self._tell(noted, new, again)
        if new or again:
            await self.count()

    def _new(self, noted: Noted, known: Mapping[tuple[int, Code], str]) -> list[tuple[int, Code]]:
        """The codes that are not there yet and that there is room for; the others are only counted."""
        new: list[tuple[int, Code]] = []
        rows = self._rows.copy()
        for key in [key for key in noted.codes if key not in known]:
            channel = key[0]
            if rows[channel] < MOST_CODES:
                rows[channel] += 1
                new.append(key)
            else:
                noted.leave_out(key)
        return new

    def _few_fields(self, noted: Noted) -> None:
        """Fields for which there is no room are one."""
        for channel, field in [*noted.lost]:
            fields = self._fields.setdefault(channel, set())
            if field not in fields and len(fields) >= MOST_FIELDS:
                noted.call_other(channel, field)
            else:
                fields.add(field)

    def _tell(self, noted: Noted, new: list[tuple[int, Code]], again: list[tuple[int, Code]]) -> None:
        names = self._names()
        for channel, code in new:
            self._rows[channel] += 1
            emit(CodeUnmapped(names[channel], code.table, noted.codes[channel, code].last_seq))
        for channel, code in again:
            emit(MappingMissed(names[channel], code.table, noted.codes[channel, code].last_seq))
        for (channel, field), lost in noted.lost.items():
            emit(ValuesLost(names[channel], field, lost.count))
        for channel in noted.more.keys() - self._full:
            self._full.add(channel)
            emit(CodesFull(names[channel]))

    def _show(self, found: Mapping[tuple[int, str], int]) -> None:
        names = self._names()
        self.open = {(names[channel], table): count for (channel, table), count in found.items()}
        for place, cell in UNMAPPED.cells.items():
            cell.n = self.open.get((place[0], place[1]), 0)
        for place, count in self.open.items():
            UNMAPPED.of(*place).n = count

    def _names(self) -> dict[int, str]:
        return {book.id: book.name for book in self._ledger.channels.values()}


def _put(book: Book, noted: Noted) -> None:
    for (channel, code), seen in noted.codes.items():
        book.put("put_unmapped", *gaps.values(channel, code, seen))
    for channel, seen in noted.more.items():
        book.put("put_unmapped_more", channel, seen.count, seen.last_seq, seen.last_at)
    for (channel, field), seen in noted.lost.items():
        book.put("put_lost_field", channel, field, seen.count, seen.last_seq, seen.last_at)

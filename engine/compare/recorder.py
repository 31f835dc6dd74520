"""A channel's verdicts on their way to the ledger: gathered, written in one transaction, taken over when durable.

Nothing else writes these rows, and one thing at a time is written: what is in memory is what is in the ledger.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from engine.compare.discrepancies import Discrepancy, Signature, State, Totals, settle
from engine.compare.records import Batch, Mark, Records, Verdict
from engine.ledger.book import Book
from engine.ledger.course import ChannelBook
from engine.ledger.interface import Ledger
from engine.ledger.sqlite import comparisons
from engine.observe.compare_events import COMPARED, DiscrepancyOpened
from engine.observe.events import emit

MOST_VERDICTS: Final = 1000  # in one transaction

Marks = Callable[[dict[str, set[int]]], dict[str, Mark]]
"""How far each tap is, once the verdicts of the given inputs are durable."""


class Recorder:
    """What has gathered, and the channel's totals and discrepancies as they stand in the ledger."""

    def __init__(self, book: ChannelBook, owner: str, ledger: Ledger, marks: Marks) -> None:
        """owner: whose a new discrepancy is."""
        self.waiting: list[Verdict] = []
        self.lock = asyncio.Lock()  # held by whoever writes
        self._book = book
        self._ledger = ledger
        self._marks = marks
        self._records = Records(book.id, owner)
        self._late: dict[str, int] = {}
        self._recount: set[str] = set()

    async def load(self) -> dict[str, Mark]:
        """Take over what the ledger holds: how far each tap is."""
        channel = self._book.id
        totals = await self._ledger.read(lambda reader: comparisons.totals(reader.connection, channel))
        rows = await self._ledger.read(lambda reader: comparisons.discrepancies(reader.connection, channel))
        self._records.load({tap: Totals(*row[:4]) for tap, row in totals.items()}, rows)
        return {tap: Mark(row.watermark, row.watermark_id) for tap, row in totals.items()}

    def totals(self, tap: str) -> Totals:
        return self._records.totals.get(tap, Totals())

    def news(self, tap: str, late: int) -> bool:
        """Whether there is something to write, if only how many are late."""
        return bool(self.waiting) or late != self._late.get(tap, 0)

    async def announce(self) -> None:
        """Write where every tap stands: a gate reads it from the channel's book."""
        batch = self._records.put((), self._marks({}))
        await self._commit(batch)

    async def write(self) -> dict[str, set[int]]:
        """One transaction of what has gathered; by tap, the inputs whose verdict is durable by it. What fails is kept.
        Called with the lock."""
        verdicts = self.waiting[:MOST_VERDICTS]
        done: dict[str, set[int]] = {}
        for verdict in verdicts:
            if verdict.word:
                done.setdefault(verdict.tap, set()).add(verdict.seq)
        touched = {verdict.tap for verdict in verdicts}
        marks = self._marks(done)
        marks = {tap: mark for tap, mark in marks.items() if tap in touched or mark.late != self._late.get(tap, 0)}
        if marks:
            batch = self._records.put(verdicts, marks)
            await self._commit(batch)
            del self.waiting[: len(verdicts)]
            self._late |= {tap: mark.late for tap, mark in marks.items()}
            self._recount |= batch.recount
            self._tell(verdicts, batch)
        return done

    async def count_again(self) -> None:
        """Where a discrepancy was opened again, or a message came late, count the different messages of its tap again.
        Called with the lock, after the write is taken over."""
        for tap in list(self._recount):
            count = await self._counted(tap, None, State.OPEN)
            totals = replace(self.totals(tap), explained=count.explained, unexplained=count.unexplained)
            await self._commit(self._records.recounted(tap, totals, self._marks({})[tap]))
            self._recount.discard(tap)

    async def settle(
        self,
        row: comparisons.DiscrepancyRow,
        state: State,
        why: str,
        who: str,
        at: int,
        owner: str | None,
        also: Callable[[Book], None],
    ) -> Discrepancy:
        """A person's word on a discrepancy, its messages counted again. Called with the lock, when all is written."""
        signature = Signature(row.tap, row.path, row.kind)
        changed = settle(self._records.known[signature], state, why, who, at, owner)
        count = await self._counted(row.tap, row.id, state)
        totals = replace(self.totals(row.tap), explained=count.explained, unexplained=count.unexplained)
        mark = self._marks({}).get(row.tap, Mark())
        await self._commit(self._records.changed(changed, totals, mark), also)
        return changed

    async def _counted(self, tap: str, id: int | None, state: State) -> comparisons.Recount:
        channel = self._book.id
        count: comparisons.Recount = await self._ledger.read(
            lambda reader: comparisons.recount(reader.connection, channel, tap, id, state.value)
        )
        return count

    async def _commit(self, batch: Batch, also: Callable[[Book], None] = lambda book: None) -> None:
        """The rows of a batch, and what the switch of a cutover reads, in one transaction."""

        def write(book: Book) -> None:
            for name, values in batch.rows:
                book.put(name, *values)
            for tap, compared in batch.compared.items():
                book.compare(self._book, tap, compared)
            also(book)

        await self._ledger.transaction(write)
        self._records.accept(batch)

    def _tell(self, verdicts: list[Verdict], batch: Batch) -> None:
        channel = self._book.name
        for verdict in verdicts:
            if verdict.word:
                COMPARED.of(channel, verdict.tap, verdict.word).n += 1
        for one in batch.opened:
            tap, path, kind = one.signature
            emit(DiscrepancyOpened(channel, tap or "answers", one.severity, f"{path} {kind}"))

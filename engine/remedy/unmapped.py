"""What people decide about codes that no table knew: who takes care of one, and how it stands."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

from engine.ledger.audit import Entry
from engine.ledger.book import Book
from engine.ledger.sqlite import gaps
from engine.ledger.sqlite.gaps import CodeRow, Wanted
from engine.ledger.sqlite.ledger import SqliteLedger
from engine.ledger.sqlite.loading import LedgerError
from engine.migration.refused import Refused
from engine.observe.events import emit
from engine.observe.gap_events import CodeDecided

MOST = 1000  # rows of one decision


class Decision(NamedTuple):
    """What is to be said of a code; None: as it was."""

    state: str | None = None
    owner: str | None = None
    note: str | None = None


class Unmapped:
    """Decisions about the codes of one ledger."""

    def __init__(self, ledger: SqliteLedger, clock: Callable[[], int]) -> None:
        """`clock` gives microseconds since 1970."""
        self._ledger = ledger
        self._clock = clock

    async def decide(self, wanted: Wanted, decision: Decision, *, who: str, origin: str) -> list[CodeRow]:
        """Say it of every code that is meant, in one transaction with the audit record; the rows as they are then.
        Raises Refused where there is none, or the ledger cannot be written."""
        try:
            async with self._ledger.noting.settled():
                changed = await self._decide(wanted, decision, who, origin)
                await self._ledger.noting.count()
        except LedgerError as error:
            raise Refused(f"It could not be written, and nothing has changed: {error}") from error
        names = self._names()
        for row in changed:
            emit(CodeDecided(names[row.channel], row.table, row.state, who))
        return changed

    async def _decide(self, wanted: Wanted, decision: Decision, who: str, origin: str) -> list[CodeRow]:
        rows, total = await self._ledger.read(lambda reader: gaps.codes(reader.connection, wanted, MOST))
        if not rows:
            raise Refused(_none(wanted))
        if total > MOST:
            raise Refused(f"These are {total} codes: select fewer, at most {MOST}.")
        at, names = self._clock(), self._names()
        given = {name: text for name, text in decision._asdict().items() if text is not None}
        changed = [replace(row, **given, who=who, decided=at) for row in rows]

        def act(book: Book) -> None:
            for before, after in zip(rows, changed, strict=True):
                book.put("decide_unmapped", after.state, after.owner, after.note, who, at, after.id)
                subject = f"{names[after.channel]} {after.field} {after.table} {after.code}"
                said = _said(before), _said(after)
                book.audit(Entry(at, who, origin, "unmapped", subject, decision.note or "", *said))

        await self._ledger.transaction(act, beside=True)
        return changed

    def _names(self) -> dict[int, str]:
        return {book.id: book.name for book in self._ledger.channels.values()}


def _said(row: CodeRow) -> str:
    """For the audit record."""
    return json.dumps({"state": row.state, "owner": row.owner, "note": row.note}, ensure_ascii=False)


def _none(wanted: Wanted) -> str:
    system = f" of the system {wanted.system}" if wanted.system else " without a system" if wanted.system == "" else ""
    return f"No table {wanted.table} has missed the code {wanted.code}{system} there: see interlock unmapped."

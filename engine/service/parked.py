"""What waits for a person at the taps of one service, as the API asks for it (`engine.api.taps.Taps`)."""

from __future__ import annotations

import base64
import zlib
from typing import TYPE_CHECKING, Any

from engine.compare.tapping import why_parked
from engine.hl7.peek import peek
from engine.ledger.sqlite import comparisons, parked
from engine.ledger.sqlite.parked import ParkedRow
from engine.ledger.sqlite.reader import Reader
from engine.migration.selection import Selector, select
from engine.remedy.parked import At, Parked
from engine.remedy.verb import Asked
from engine.service.moments import iso, now_us

if TYPE_CHECKING:
    from engine.service.service import Service

MOST_LISTED = 1000


class AtTaps:
    """The outputs, and the verbs about them."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._ledger = service.ledger
        self._parked = Parked(service.ledger, now_us, self._at)

    async def outputs(self, selector: Selector | None) -> list[dict[str, Any]]:
        books = list(self._ledger.channels.values())
        if selector is not None and selector != Selector():
            names = {channel.id for channel in select(selector, self._service.configuration.channels)}
            books = [book for book in books if book.name in names]
        ids = [book.id for book in books]
        rows = await self._ledger.read(
            lambda reader: [
                (row, _bytes(reader, row)) for row in parked.waiting(reader.connection, ids, MOST_LISTED)
            ]
        )  # fmt: skip
        return [self._told(self._parked.now(row), raw) for row, raw in rows]

    async def output(self, id: int) -> dict[str, Any] | None:
        row = await self._parked.row(id)
        if row is None:
            return None
        raw = await self._ledger.read(lambda reader: _bytes(reader, row))
        answer = None if row.answer is None else base64.b64encode(row.answer).decode()
        return self._told(row, raw) | {"raw": base64.b64encode(raw).decode(), "answer": answer}

    async def decide(
        self, verb: str, id: int, *, who: str, reason: str, origin: str, dry_run: bool,
        message: tuple[str, int] | None = None, again: bool = False,
    ) -> dict[str, Any] | None:  # fmt: skip
        row = await self._parked.row(id)
        if row is None:
            return None
        asked = None if dry_run else Asked(who, reason, origin)
        if verb == "forward":
            plan = await self._parked.forward(row, asked, again=again)
        elif verb == "give":
            assert message is not None
            plan = await self._parked.give(row, *message, asked)
        else:
            plan = await self._parked.discard(row, asked)
        became = await self._parked.row(id) or row
        raw = await self._ledger.read(lambda reader: _bytes(reader, became))
        return {"plan": plan.as_dict(), "output": self._told(became, raw)}

    # -- inside

    def _at(self, channel: str, tap: str) -> At | None:
        tapped = self._service.comparisons.channels.get(channel)
        port = tapped.ports.get(tap) if tapped else None
        if tapped is None or port is None:
            return None
        return At(port, tapped.comparer if tapped.attributes else None)

    def _told(self, row: ParkedRow, raw: bytes) -> dict[str, Any]:
        head = peek(raw)
        return {
            "id": row.id, "channel": self._parked.book(row).name, "tap": row.tap, "at": iso(row.at),
            "control_id": row.control_id, "type": head.event, "size": len(raw),
            "seq": row.seq, "why": why_parked(row.own), "state": row.state, "said": row.said, "who": row.who or None,
            "reason": row.why or None, "decided": iso(row.decided) if row.decided else None,
            "waits": row.ended is None,
        }  # fmt: skip


def _bytes(reader: Reader, row: ParkedRow) -> bytes:
    """Nothing, where they are gone or damaged: it is listed all the same."""
    try:
        return comparisons.output(reader.connection, row.id) or b""
    except zlib.error:
        return b""

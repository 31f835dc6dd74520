"""What the mappings of one service could not carry over, as the API asks for it (`engine.api.unmapped.Unmapped`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from engine.ledger.gaps import cut
from engine.ledger.sqlite import gaps
from engine.ledger.sqlite.gaps import CodeRow, Sum, Wanted
from engine.migration.selection import Selector, select
from engine.remedy import unmapped
from engine.remedy.unmapped import Decision
from engine.service.moments import iso, now_us

if TYPE_CHECKING:
    from engine.service.service import Service


class Unmapped:
    """The lists, and what is said of a code."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._ledger = service.ledger
        self._deciding = unmapped.Unmapped(service.ledger, now_us)

    def open(self) -> int:
        return sum(self._ledger.noting.open.values())

    async def codes(
        self, selector: Selector | None, *, table: str, state: str, owner: str, limit: int
    ) -> dict[str, Any]:
        channels = self._channels(selector)
        wanted = Wanted(channels, table=table, state=state, owner=owner)
        (rows, total), more = await self._ledger.read(
            lambda reader: (
                gaps.codes(reader.connection, wanted, limit), gaps.more(reader.connection, channels)
            )
        )  # fmt: skip
        return {
            "codes": [self._code(row) for row in rows],
            "total": total,
            "more": [self._sum(each) for each in more],
        }

    async def decide(
        self, selector: Selector, *, code: str, table: str, system: str | None, state: str | None, owner: str | None,
        note: str | None, who: str, origin: str,
    ) -> list[dict[str, Any]]:  # fmt: skip
        wanted = Wanted(self._channels(selector), table, cut(code), None if system is None else cut(system))
        rows = await self._deciding.decide(wanted, Decision(state, owner, note), who=who, origin=origin)
        return [self._code(row) for row in rows]

    async def fields(self, selector: Selector | None) -> list[dict[str, Any]]:
        channels = self._channels(selector)
        rows = await self._ledger.read(lambda reader: gaps.fields(reader.connection, channels))
        return [self._sum(row) | {"field": row.field} for row in rows]

    # -- inside

    def _channels(self, selector: Selector | None) -> list[int] | None:
        """The ledger's numbers of what is selected; None for all."""
        if selector is None:
            return None
        chosen = select(selector, self._service.configuration.channels)
        return [self._ledger.channels[channel.id].id for channel in chosen]

    def _name(self, channel: int) -> str:
        return next(book.name for book in self._ledger.channels.values() if book.id == channel)

    def _code(self, row: CodeRow) -> dict[str, Any]:
        return {
            "channel": self._name(row.channel), "table": row.table, "field": row.field, "system": row.system,
            "code": row.code, "count": row.count, "first": iso(row.first_at), "last": iso(row.last_at),
            "first_seq": row.first_seq, "last_seq": row.last_seq, "state": row.state, "owner": row.owner,
            "note": row.note, "who": row.who or None, "decided": iso(row.decided) if row.decided else None,
        }  # fmt: skip

    def _sum(self, row: Sum) -> dict[str, Any]:
        return {
            "channel": self._name(row.channel), "count": row.count, "last": iso(row.last_at), "last_seq": row.last_seq,
        }  # fmt: skip

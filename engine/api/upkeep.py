"""The paths under which the ledger is kept in order: retention and backups.

`Upkeep` is implemented by the service. Times are ISO 8601 in UTC with a `Z`. What may not be done raises
`engine.migration.refused.Refused`.
"""

from __future__ import annotations

from typing import Annotated, Any, Protocol, TypedDict

from aiohttp import web

from engine.api.exchange import answer, body
from engine.api.exchange import origin as origin_of
from engine.api.moving import Sentence
from engine.api.shape import Within


class PruneOrder(TypedDict):
    """Who wants it done now, and why."""

    who: Sentence
    reason: Sentence


class BackupOrder(PruneOrder):
    """file: an absolute path where the service runs; nothing may be there."""

    file: Annotated[str, Within(1, 4000)]


class RetentionRow(TypedDict):
    """What would be removed by age of a channel and class, now.

    kind: captured, raw, outputs, events or receipts. kept_s: seconds that it is kept. rows, bytes: what would go;
    bytes are estimated. upto: the highest number that would go; null where rows have no message's number. gone: up to
    where all has been removed. held_by: what holds the next one back, age apart; empty where nothing does.
    """

    channel: str
    kind: str
    kept_s: float
    rows: int
    bytes: int
    upto: int | None
    gone: int
    held_by: str


class BackupState(TypedDict):
    """state: none, running, done or failed. share: 0 to 1. said: why it failed. manifest: what the backup holds."""

    state: str
    share: float
    file: str
    said: str
    manifest: dict[str, Any] | None


class Upkeep(Protocol):
    """The orders. The shapes named here are what a plain dict must hold."""

    async def retention(self) -> list[dict[str, Any]]:
        """A `RetentionRow` each."""
        ...

    async def prune(self, *, who: str, reason: str, origin: str) -> list[dict[str, Any]]:
        """A `RetentionRow` each; it is done behind the answer. Raises Refused."""
        ...

    async def backup(self, file: str, *, who: str, reason: str, origin: str) -> dict[str, Any]:
        """The `BackupState` of one that has begun. Raises Refused."""
        ...

    async def backup_state(self) -> dict[str, Any]:
        """The newest one's `BackupState`."""
        ...


class Upkeeping:
    """Each handler checks what was asked and passes it on."""

    def __init__(self, upkeep: Upkeep) -> None:
        self._upkeep = upkeep

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/api/v1/retention", self.retention),
            web.post("/api/v1/retention/prune", self.prune),
            web.get("/api/v1/backup", self.state),
            web.post("/api/v1/backup", self.backup),
        ]

    async def retention(self, _: web.Request) -> web.Response:
        return answer(await self._upkeep.retention())

    async def prune(self, request: web.Request) -> web.Response:
        order = await body(request, PruneOrder)
        return answer(await self._upkeep.prune(who=order["who"], reason=order["reason"], origin=origin_of(request)))

    async def state(self, _: web.Request) -> web.Response:
        return answer(await self._upkeep.backup_state())

    async def backup(self, request: web.Request) -> web.Response:
        order = await body(request, BackupOrder)
        who, reason = order["who"], order["reason"]
        return answer(await self._upkeep.backup(order["file"], who=who, reason=reason, origin=origin_of(request)))

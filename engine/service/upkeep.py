"""What people want done to the ledger of a running service: removing by age at once, and backups."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.ledger.audit import Entry
from engine.ledger.sqlite import backup
from engine.ledger.sqlite.backup import BackupError
from engine.migration.refused import Refused
from engine.observe.events import emit
from engine.observe.ledger_events import BackedUp, BackupFailed
from engine.service.moments import iso, now_us

if TYPE_CHECKING:
    from engine.service.service import Service


class Upkeep:
    """The orders, for one service."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._ledger = service.ledger
        self._backup: asyncio.Task[Any] | None = None
        self._state: dict[str, Any] = {"state": "none", "share": 0.0, "file": "", "said": "", "manifest": None}

    async def retention(self) -> list[dict[str, Any]]:
        return await self._service.keeping.plan()

    async def prune(self, *, who: str, reason: str, origin: str) -> list[dict[str, Any]]:
        """The plan; it is carried out behind the answer."""
        if self._service.keeping.turn.locked():
            raise Refused("What is old enough is being removed already, or a backup is being made: try again later.")
        plan = await self._service.keeping.plan()
        rows = sum(row["rows"] for row in plan)
        entry = Entry(now_us(), who, origin, "prune", "the ledger", reason, "", f"about {rows} rows")
        await self._ledger.transaction(lambda book: book.audit(entry))
        self._service.spawn(self._service.keeping.once(), "prune")
        return plan

    async def backup(self, file: str, *, who: str, reason: str, origin: str) -> dict[str, Any]:
        """Begin one. Raises Refused."""
        path = Path(file)
        if why := await asyncio.to_thread(_unfit, path):
            raise Refused(why)
        if self._backup is not None and not self._backup.done():
            raise Refused(f"A backup is being made already, to {self._state['file']}.")
        self._state = {"state": "running", "share": 0.0, "file": file, "said": "", "manifest": None}
        self._backup = self._service.spawn(self._copy(path, who, reason, origin), "backup")
        return self._state

    async def backup_state(self) -> dict[str, Any]:
        """How far the newest one has come."""
        return self._state

    async def _copy(self, path: Path, who: str, reason: str, origin: str) -> None:
        state, loop = self._state, asyncio.get_running_loop()
        began = loop.time()

        def progress(share: float) -> None:
            state["share"] = round(share, 3)

        async with self._service.keeping.turn:  # nothing is removed by age meanwhile
            try:
                manifest = await asyncio.to_thread(backup.backup, self._ledger.path, path, now_us, progress)
            except BackupError as error:
                state.update(state="failed", said=str(error))
                emit(BackupFailed())
                return
        after = f"{manifest.messages} messages, sha256 {manifest.sha256}"
        entry = Entry(now_us(), who, origin, "backup", str(path), reason, "", after)
        with suppress(Exception):  # the backup is there, whatever becomes of the remark
            await self._ledger.transaction(lambda book: book.audit(entry))
        state.update(state="done", share=1.0, manifest=asdict(manifest) | {"at": iso(manifest.at)})
        emit(BackedUp(manifest.messages, manifest.size, loop.time() - began))


def _unfit(path: Path) -> str | None:
    """Why a backup cannot be written there."""
    if not path.is_absolute():
        return f"{path} is no absolute path: the service has a folder of its own."
    if not path.parent.is_dir():
        return f"There is no folder {path.parent} where the service runs."
    return f"{path} exists already: a backup overwrites nothing." if path.exists() else None

"""The delivery lock: held by whoever may send, and by all worker processes of that process, until the last has ended.

A process that was killed leaves workers behind for a moment, which may still have a request on its way. The next one
takes messages and acknowledges them at once, but claims nothing before it has the lock (design, "Processes").
"""

from __future__ import annotations

import asyncio
import fcntl
from pathlib import Path
from typing import IO

from engine.observe.events import emit
from engine.observe.worker_events import WAITS, DeliveryWaits

TRY_EVERY = 0.05  # seconds; the lock of a file announces nothing
SAID_AFTER = 1.0  # seconds


class DeliveryLock:
    """Of one ledger."""

    def __init__(self, ledger: Path) -> None:
        """OSError where its file cannot be opened."""
        self._file: IO[str] | None = open(ledger.with_name(f"{ledger.name}.delivery"), "a+")  # noqa: SIM115
        self.held = self._try()

    def fileno(self) -> int:
        """To be inherited by workers: a lock belongs to the opened file, whatever process has it open."""
        assert self._file is not None
        return self._file.fileno()

    async def acquire(self) -> None:
        """Wait until those before us have ended."""
        waited = 0.0
        while not self.held:
            WAITS.of().n = 1
            await asyncio.sleep(TRY_EVERY)
            waited += TRY_EVERY
            if waited - TRY_EVERY < SAID_AFTER <= waited:
                emit(DeliveryWaits())
            self.held = self._try()
        WAITS.of().n = 0

    def release(self) -> None:
        """Our end of it: it is free when our workers have ended as well."""
        if self._file is not None:
            self._file.close()
            self._file, self.held = None, False

    def _try(self) -> bool:
        assert self._file is not None
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        return True

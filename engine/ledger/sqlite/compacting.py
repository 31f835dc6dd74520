"""Offline: the ledger's file without its free pages, and so that free pages can be given back in steps from then on.

A running service gives space back by itself, where its ledger was made so; one that an older release has made was not.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from engine.ledger.sqlite import schema
from engine.ledger.sqlite.backup import BackupError
from engine.ledger.sqlite.restoring import locked


def compact(ledger: Path) -> tuple[int, int]:
    """Write the file anew, under its lock; its size in bytes before and after. Killed in the middle, it is as it was.
    For a while it needs its size on the disk twice more. Raises BackupError."""
    if not ledger.exists():
        raise BackupError(f"there is no ledger {ledger}")
    with locked(ledger):
        before = ledger.stat().st_size
        try:
            with closing(sqlite3.connect(ledger, isolation_level=None)) as connection:
                version = connection.execute("pragma table_info(ledger)").fetchone() and _version(connection)
                if version and version > schema.VERSION:
                    raise BackupError(f"{ledger} is of a newer release (schema version {version}): take that one")
                connection.execute("pragma synchronous = full")
                connection.execute("pragma auto_vacuum = incremental")
                connection.execute("vacuum")
                connection.execute("pragma wal_checkpoint(truncate)")
        except sqlite3.Error as error:
            raise BackupError(f"{ledger} cannot be compacted: {error}") from error
        return before, ledger.stat().st_size


def _version(connection: sqlite3.Connection) -> int:
    (version,) = connection.execute("select version from ledger").fetchone()
    return int(version)

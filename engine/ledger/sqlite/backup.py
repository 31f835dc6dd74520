"""A copy of a ledger that is being written at full load, as one file.

SQLite's own backup begins again with every commit, and one read transaction over everything would let the log grow for
as long as it takes. So what is only ever added to is copied by ranges, each in a short read transaction; the last one
copies what has been added since together with all small tables, and is the moment that the backup shows. Nothing may be
removed by age meanwhile.

The file gets its name when it is whole, was read back and counted, and is on the disk. Beside it stands a manifest.
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from engine.ledger.sqlite import journal, recount

ADDED_TO: Final = ("message", "receipt", "tap_output", "intake_event", "search_bucket")
"""Tables whose rows are written by rising id, and never changed while nothing is removed by age."""

STEP: Final = 1_000  # rows of one range
LAST: Final = 4_000  # rows of all these tables that are left for the last transaction
REST: Final = 1.0  # times as long as a range took
CHUNK: Final = 1 << 20


class BackupError(Exception):
    """There is no backup. The sentence says why, and what would be right."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a backup holds. at: when its last transaction was read, microseconds since 1970. sha256: of the file.

    messages: the highest id; channels: name → the highest number.
    """

    at: int
    incarnation: str
    version: int
    term: int
    messages: int
    receipts: int
    audit: int
    audit_hash: str
    channels: dict[str, int]
    size: int
    sha256: str


def manifest_of(file: Path) -> Path:
    return file.with_name(file.name + ".manifest.json")


def backup(
    ledger: Path, file: Path, clock: Callable[[], int], progress: Callable[[float], None] = lambda share: None
) -> Manifest:
    """Copy the ledger to `file`, which must not exist. progress: hears the share that is copied, 0 to 1.

    Blocks for seconds to minutes: for a thread of its own. Raises BackupError.
    """
    if file.exists():
        raise BackupError(f"{file} exists already: a backup overwrites nothing, choose another name")
    partial = file.with_name(file.name + ".partial")
    try:
        partial.unlink(missing_ok=True)
        os.close(os.open(partial, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
        at = _copy(ledger, partial, clock, progress)
        manifest = _manifest(partial, at)
        _write(manifest_of(file), json.dumps(asdict(manifest), indent=2).encode())
        os.link(partial, file)  # unlike a rename, it fails where somebody has made the file meanwhile
        partial.unlink()
        flush(file.parent)
    except (OSError, sqlite3.Error) as error:
        partial.unlink(missing_ok=True)
        raise BackupError(f"the backup {file} could not be written: {error}") from error
    return manifest


def _copy(ledger: Path, target: Path, clock: Callable[[], int], progress: Callable[[float], None]) -> int:
    with closing(sqlite3.connect(target, isolation_level=None, uri=True)) as copy:
        for pragma in ("page_size = 8192", "auto_vacuum = incremental", "journal_mode = off", "synchronous = off"):
            copy.execute(f"pragma {pragma}")
        copy.execute("attach ? as live", (f"file:{ledger}?mode=ro",))
        copy.execute("pragma live.busy_timeout = 5000")
        for (sql,) in _made(copy, "table"):
            copy.execute(sql)
        (before,) = copy.execute("select coalesce(max(id), 0) from live.receipt").fetchone()
        _captured(copy)
        while _left(copy) > LAST:
            began = time.monotonic()
            for table in ADDED_TO:
                _range(copy, table)
            _large(copy)
            flush(target)  # in small portions: one large one at the end would keep the ledger's own writes waiting
            progress(_share(copy))
            time.sleep((time.monotonic() - began) * REST)
        copy.execute("begin")
        _rest(copy, int(before))
        at = clock()
        copy.execute("commit")
        for (sql,) in _made(copy, "index"):
            copy.execute(sql)
        progress(1.0)
        return at


def _made(copy: sqlite3.Connection, kind: str) -> list[tuple[str]]:
    return copy.execute(
        "select sql from live.sqlite_master where type = ? and sql is not null and name not like 'sqlite_%'", (kind,)
    ).fetchall()


def _range(copy: sqlite3.Connection, table: str) -> None:
    (last,) = copy.execute(f"select coalesce(max(rowid), 0) from main.{table}").fetchone()
    copy.execute(
        f"insert into main.{table} select * from live.{table} where rowid > ? order by rowid limit {STEP}", (last,)
    )


def _left(copy: sqlite3.Connection) -> int:
    """About how many rows are still to come."""
    left = 0
    for table in ADDED_TO:
        (there,) = copy.execute(f"select coalesce(max(rowid), 0) from live.{table}").fetchone()
        (here,) = copy.execute(f"select coalesce(max(rowid), 0) from main.{table}").fetchone()
        left += max(0, there - here)
    return left


def _share(copy: sqlite3.Connection) -> float:
    (here,) = copy.execute("select coalesce(max(id), 0) from main.message").fetchone()
    (there,) = copy.execute("select coalesce(max(id), 1) from live.message").fetchone()
    return min(0.99, int(here) / max(1, int(there)))


def _large(copy: sqlite3.Connection) -> None:
    """What is too large for a row, one at a time: its size is written after its pieces, so they are all there."""
    while row := copy.execute(
        "select id from live.large where id not in (select id from main.large) limit 1"
    ).fetchone():
        copy.execute("begin")
        copy.execute("insert into main.piece select * from live.piece where large = ?", row)
        copy.execute("insert into main.large select * from live.large where id = ?", row)
        copy.execute("commit")


def _captured(copy: sqlite3.Connection) -> None:
    after = -1
    while rows := copy.execute(
        "select distinct message from live.captured where message > ? order by 1 limit ?", (after, STEP)
    ).fetchall():
        upto = rows[-1][0]
        copy.execute(
            "insert into main.captured select * from live.captured where message > ? and message <= ?", (after, upto)
        )
        after = upto


def _rest(copy: sqlite3.Connection, before: int) -> None:
    """In one read transaction: what was added since, and all other tables whole. before: the highest receipt there was
    when captured outputs were copied; each of them has a receipt."""
    tables = [name for (name,) in copy.execute("select name from live.sqlite_master where type = 'table'")]
    for table in (*ADDED_TO, "large", "piece"):
        where = "where rowid > (select coalesce(max(rowid), 0) from main.{0})" if table in ADDED_TO else ""
        if table == "large":
            where = "where id not in (select id from main.large)"
        if table == "piece":
            where = "where large not in (select distinct large from main.piece)"
        copy.execute(f"insert into main.{table} select * from live.{table} {where.format(table)}")
    copy.execute(
        "insert or ignore into main.captured select c.* from live.receipt r join live.captured c"
        " on c.message = r.message where r.id > ?",
        (before,),
    )
    done = {*ADDED_TO, "large", "piece", "captured"}
    for table in tables:
        if table not in done and not table.startswith("sqlite_"):
            copy.execute(f"insert into main.{table} select * from live.{table}")


def _manifest(file: Path, at: int) -> Manifest:
    """Read the copy back, count everything again, and have it on the disk."""
    with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True, isolation_level=None)) as connection:
        held = contents(connection)
    flush(file)
    return Manifest(at=at, size=file.stat().st_size, sha256=digest(file), **held)


def contents(connection: sqlite3.Connection) -> dict[str, Any]:
    """What a ledger's file holds, after it was checked whole. Raises BackupError where it does not hold together."""
    problems = [text for (text,) in connection.execute("pragma integrity_check(5)") if text != "ok"]
    problems += recount.differences(connection)
    _, audit_hash, broken = journal.verify_audit(connection)
    if problems := [*problems, *broken]:
        raise BackupError("it does not hold together: " + "; ".join(problems[:5]))
    version, incarnation, term, audit = connection.execute(
        "select version, incarnation, term, audit_count from ledger"
    ).fetchone()
    (messages,) = connection.execute("select coalesce(max(id), 0) from message").fetchone()
    (receipts,) = connection.execute("select coalesce(max(id), 0) from receipt").fetchone()
    return {
        "incarnation": incarnation, "version": version, "term": term, "messages": messages, "receipts": receipts,
        "audit": audit, "audit_hash": audit_hash,
        "channels": dict(connection.execute("select name, seq from channel order by name")),
    }  # fmt: skip


def digest(file: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    found = hashlib.sha256()
    with file.open("rb") as stream:
        while chunk := stream.read(CHUNK):
            found.update(chunk)
    return found.hexdigest()


def _write(file: Path, content: bytes) -> None:
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        os.write(descriptor, content)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def flush(file: Path) -> None:
    """Have a file, or the names in a folder, on the disk."""
    descriptor = os.open(file, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

"""A backup in the place of a ledger that is lost.

The service went on after the backup: it stored and acknowledged messages that the backup has not, and it sent. So

* everything that the backup does not show as settled may have been sent since: it is `unknown`, whatever it was then;
* numbers are given a second time, for other messages: by a new incarnation, which all names outside hold;
* every channel is held until somebody has compared, with its partners, the time between the backup and now.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import chain, count
from pathlib import Path
from typing import IO, Any, Final
from uuid import uuid4

from engine.ledger.audit import Entry
from engine.ledger.model import State
from engine.ledger.sqlite import backup, schema
from engine.ledger.sqlite.backup import BackupError
from engine.ledger.sqlite.upgrading import note, upgrade

LIMIT: Final = 24 * 3600 * 1_000_000  # microseconds until a hold that a restore set begins to page
MAYBE: Final = "restored from a backup: it may have been sent since"


@dataclass(frozen=True, slots=True)
class Lost:
    """What cannot be known of a channel. seq: the last number that the backup has; received: when that came, and
    settled: when the last receipt was written, both microseconds since 1970, None where there is none. unknown: how
    many deliveries may have happened since."""

    channel: str
    seq: int
    received: int | None
    settled: int | None
    unknown: int


@dataclass(frozen=True, slots=True)
class Restored:
    """From `since` (when the backup was read) `until` the restore nothing is known. aside: where the ledger that was
    there is now."""

    incarnation: str
    before: str
    since: int
    until: int
    channels: tuple[Lost, ...]
    aside: Path | None


def restore(file: Path, ledger: Path, now: int, who: str, why: str, *, replace: bool = False) -> Restored:
    """Put a backup in the place of the ledger, under its lock. now: microseconds since 1970. replace: though there is a
    ledger, which is kept aside. Raises BackupError; then nothing has changed."""
    ledger.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with locked(ledger) as lock:
        if ledger.exists() and not replace:
            raise BackupError(
                f"{ledger} exists: a restore replaces it only when told so (--replace), and keeps it aside"
            )
        since = _checked(file, now)
        made = ledger.with_name(ledger.name + ".restoring")
        for suffix in ("", "-wal", "-shm"):
            made.with_name(made.name + suffix).unlink(missing_ok=True)
        try:
            shutil.copyfile(file, made)
            made.chmod(0o600)
            restored = _made_new(made, since, now, who, why)
        except (OSError, sqlite3.Error) as error:
            raise BackupError(f"{file} cannot be restored: {error}") from error
        aside = _aside(ledger, now)
        lock.truncate(0)  # the term that it names is the other ledger's
        made.rename(ledger)
        backup.flush(ledger.parent)
    return Restored(*restored[:2], since, now, restored[2], aside)


def _checked(file: Path, now: int) -> int:
    """When the backup was read."""
    try:
        told = backup.manifest_of(file)
        manifest = json.loads(told.read_text()) if told.exists() else None
        if manifest and manifest["sha256"] != backup.digest(file):
            raise BackupError(f"{file} is not the file that {told} speaks of: its hash differs")
        with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True, isolation_level=None)) as connection:
            (version,) = connection.execute("select version from ledger").fetchone()
            if version > schema.VERSION:
                raise BackupError(f"{file} is of a newer release (schema version {version}): restore it with that one")
            if version == schema.VERSION:  # an older one is counted when it has been brought to this
                try:
                    backup.contents(connection)
                except BackupError as error:
                    raise BackupError(f"{file} is damaged: {error}") from error
            (newest,) = connection.execute("select coalesce(max(received), 0) from message").fetchone()
    except (OSError, sqlite3.Error, ValueError) as error:
        raise BackupError(f"{file} cannot be read as a backup: {error}") from error
    return int(manifest["at"]) if manifest else min(int(newest), now)


def _made_new(made: Path, since: int, now: int, who: str, why: str) -> tuple[str, str, tuple[Lost, ...]]:
    """The copy under a new incarnation, with everything open unknown, and held."""
    with closing(schema.connect(os.fspath(made))) as connection:
        version, before = connection.execute("select version, incarnation from ledger").fetchone()
        if version < schema.VERSION:
            upgrade(connection, version, schema.TABLES, now)
            backup.contents(connection)
        present = uuid4().hex[:12]
        connection.execute("begin immediate")
        (last,) = connection.execute("select coalesce(max(id), 0) from message").fetchone()
        if not connection.execute("select 1 from incarnation").fetchone():
            connection.execute("insert into incarnation (first, name, at) values (0,?,0)", (before,))
        connection.execute(
            "insert or replace into incarnation (first, name, at) values (?,?,?)", (last + 1, present, now)
        )
        connection.execute("update ledger set incarnation = ?", (present,))
        _may_have_been_sent(connection)
        lost = tuple(_lost(connection))
        _hold(connection, since, now, who)
        after = {"incarnation": present, "unknown_from": since, "unknown_until": now,
                 "channels": {one.channel: one.seq for one in lost}}  # fmt: skip
        note(connection, Entry(now, who, "cli", "restore", "the ledger", why, before, json.dumps(after)))
        connection.execute("commit")
        connection.execute("pragma wal_checkpoint(truncate)")
        connection.execute("pragma journal_mode = delete")  # all of it in the one file that is renamed
    return present, before, lost


def _may_have_been_sent(connection: sqlite3.Connection) -> None:
    """The claim covers whatever is due: opening the ledger makes `unknown` of what lies between frontier and claim."""
    for channel, seq in connection.execute("select id, seq from channel").fetchall():
        firsts = dict(connection.execute("select number, first from epoch where channel = ?", (channel,)))
        rows = connection.execute(
            "select destination, epoch, claim from progress where channel = ?", (channel,)
        ).fetchall()
        for destination, epoch, claim in rows:
            last = firsts.get(epoch + 1, seq + 1) - 1
            if last > claim:
                connection.execute(
                    "update progress set claim = ? where channel = ? and destination = ? and epoch = ?",
                    (last, channel, destination, epoch),
                )
    # What waited for a person, or was given up, still does; what waited to be tried again may have been.
    connection.execute(
        "update open_work set state = ?, why = ?, due = 0 where state in (?, ?, ?) or (state = ? and not blocks)",
        (State.UNKNOWN.value, MAYBE, State.WAITING.value, State.SENDING.value, State.RETRYING.value,
         State.PARKED.value),
    )  # fmt: skip


def _lost(connection: sqlite3.Connection) -> Iterator[Lost]:
    for channel, name, seq in connection.execute("select id, name, seq from channel order by name").fetchall():
        (between,) = connection.execute(
            "select coalesce(sum(claim - frontier), 0) from progress where channel = ? and claim > frontier", (channel,)
        ).fetchone()
        (opened,) = connection.execute(
            "select count(*) from open_work where channel = ? and state = ?", (channel, State.UNKNOWN.value)
        ).fetchone()
        received = _newest(connection, "message", "received", channel)
        yield Lost(name, seq, received, _newest(connection, "receipt", "at", channel), int(between) + int(opened))


def _newest(connection: sqlite3.Connection, table: str, column: str, channel: int) -> int | None:
    row = connection.execute(
        f"select {column} from {table} where channel = ? order by id desc limit 1", (channel,)
    ).fetchone()
    return int(row[0]) if row else None


def _hold(connection: sqlite3.Connection, since: int, now: int, who: str) -> None:
    """Also a channel that was held already: whoever lifts it must know."""
    why = f"restored from a backup of {moment(since)}: what came and went until {moment(now)} is not known"
    connection.execute(
        "insert or replace into hold (channel, until, who, why, at) select id, ?, ?, ?, ? from channel",
        (now + LIMIT, who, why, now),
    )
    # A run that went on then has ended, one way or the other, in the time that is not known.
    connection.execute("update run set state = 'aborted', said = ?, ended = ? where state = 'running'", (why, now))
    connection.execute("delete from barrier")


def moment(at: int | None) -> str:
    """For people: UTC, to the second; `-` for none."""
    return "-" if at is None else datetime.fromtimestamp(at / 1e6, UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def as_dict(done: Restored) -> dict[str, Any]:
    """For JSON; times in UTC."""
    return {
        "incarnation": done.incarnation, "before": done.before, "unknown_from": moment(done.since),
        "unknown_until": moment(done.until), "aside": str(done.aside) if done.aside else None,
        "channels": [
            {"channel": one.channel, "seq": one.seq, "received": moment(one.received), "settled": moment(one.settled),
             "unknown": one.unknown}
            for one in done.channels
        ],
    }  # fmt: skip


def _aside(ledger: Path, now: int) -> Path | None:
    """The ledger that was there, with its log, under another name; also what an interrupted restore left of it. Until
    the last rename the service does not start: `.restoring` is still there."""
    name = f"{ledger.name}.before-{now // 1_000_000}"
    names = chain((name,), (f"{name}.{n}" for n in count(2)))
    aside = next(path for each in names if not (path := ledger.with_name(each)).exists())
    there = False
    for suffix in ("", "-wal", "-shm"):
        part = ledger.with_name(ledger.name + suffix)
        if part.exists():
            part.rename(aside.with_name(aside.name + suffix))
            there = True
    return aside if there else None


@contextmanager
def locked(ledger: Path) -> Iterator[IO[str]]:
    """The ledger's lock, which a running service has. Raises BackupError."""
    with ledger.with_name(ledger.name + ".lock").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise BackupError(f"the ledger {ledger} is in use by a running service: stop it first") from None
        yield lock

"""A backup of a ledger that is being written, and what a restored one must not believe."""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
import stat
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import pytest

from engine.ledger.model import Message, Settlement, State
from engine.ledger.routing import Mode, Route, Routing
from engine.ledger.sqlite import backup, journal, restoring
from engine.ledger.sqlite.backup import BackupError
from engine.ledger.sqlite.ledger import SqliteLedger
from engine.ledger.sqlite.loading import LedgerError

ROUTING = Routing((Route("emr", "mllp", Mode.SEND, "channel"), Route("medplum", "medplum", Mode.SEND, "patient")))
NOW = 1_700_000_000_000_000


async def opened(path: Path) -> SqliteLedger:
    ledger = SqliteLedger(path, lambda: NOW)
    ledger.start(lambda commit: None)
    return ledger


@pytest.fixture
async def ledger(tmp_path: Path) -> AsyncIterator[SqliteLedger]:
    ledger = await opened(tmp_path / "ledger.db")
    for name in ("north", "south"):
        book = await ledger.switch(name, "live", ROUTING, {}, who="test", why="first")
        for course in book.courses:
            course.window = 64
            ledger.pause(course, False)
    yield ledger
    await ledger.close()


async def fill(ledger: SqliteLedger, count: int, settled: int, *, large: bool = False) -> None:
    """Messages in both channels, the first `settled` of each delivered everywhere."""
    for name in ("north", "south"):
        book = ledger.channels[name]
        for _ in range(count):
            message = Message(book, os.urandom(300), NOW, "C")
            if large:
                message.raw = os.urandom(3 << 20)
                await ledger.lay_down(message)
            ledger.store(message)
            await ledger.transaction(lambda book: None)
            for course in book.courses:
                if message.seq <= settled:
                    if course.window > 1:
                        course.ids[message.seq] = message.id
                    ledger.settle(Settlement(course, message, State.DELIVERED, NOW, output=b"out"))
            await ledger.transaction(lambda book: None)


def rows(file: Path, sql: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as connection:
        return connection.execute(sql).fetchall()


TABLES = ("message", "receipt", "captured", "open_work", "progress", "channel", "audit", "piece", "large", "epoch")


async def test_a_backup_holds_every_row_and_says_so(ledger: SqliteLedger, tmp_path: Path) -> None:
    await fill(ledger, 20, 15)
    await fill(ledger, 1, 0, large=True)
    file = tmp_path / "copy.db"
    manifest = await asyncio.to_thread(backup.backup, ledger.path, file, lambda: NOW)
    for table in TABLES:
        assert rows(file, f"select * from {table}") == rows(ledger.path, f"select * from {table}"), table
    assert manifest.channels == {"north": 21, "south": 21}
    assert manifest.sha256 == backup.digest(file)
    assert json.loads(backup.manifest_of(file).read_text())["incarnation"] == ledger.incarnation
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert not file.with_name("copy.db.partial").exists()
    made = "select type, name, sql from sqlite_master where name not like 'sqlite_%' order by 1, 2"
    assert rows(file, made) == rows(ledger.path, made)


async def test_a_backup_under_load_shows_one_moment(
    ledger: SqliteLedger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backup, "STEP", 7)
    monkeypatch.setattr(backup, "LAST", 5)
    await fill(ledger, 30, 30)
    copying = asyncio.create_task(asyncio.to_thread(backup.backup, ledger.path, tmp_path / "copy.db", lambda: NOW))
    while not copying.done():
        await fill(ledger, 1, 1000)
    manifest = await copying  # raises unless everything adds up in it
    assert 30 <= manifest.channels["north"] <= ledger.channels["north"].seq
    counts = "select (select count(*) from captured), (select count(*) from receipt where state = 10)"
    ((captured, receipts),) = rows(tmp_path / "copy.db", counts)
    assert captured == receipts


async def test_a_backup_overwrites_nothing(ledger: SqliteLedger, tmp_path: Path) -> None:
    (tmp_path / "copy.db").write_text("mine")
    with pytest.raises(BackupError, match="exists already"):
        await asyncio.to_thread(backup.backup, ledger.path, tmp_path / "copy.db", lambda: NOW)
    assert (tmp_path / "copy.db").read_text() == "mine"


async def test_a_backup_that_does_not_add_up_is_none(
    ledger: SqliteLedger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await fill(ledger, 5, 5)
    monkeypatch.setattr(backup, "_captured", lambda copy: copy.execute("create table x (y)"))
    monkeypatch.setattr(backup.recount, "differences", lambda connection: ["channel north: a message is missing"])
    with pytest.raises(BackupError, match="a message is missing"):
        await asyncio.to_thread(backup.backup, ledger.path, tmp_path / "copy.db", lambda: NOW)
    assert not (tmp_path / "copy.db").exists()


# -- restoring


async def made(ledger: SqliteLedger, tmp_path: Path) -> Path:
    """A backup after which the service goes on: at each destination 6 delivered, the next one to be tried again or on
    its way, and the rest waiting."""
    for book in ledger.channels.values():
        for course in book.courses:
            course.window = 1
    await fill(ledger, 10, 6)
    course = ledger.channels["north"].courses[0]
    ledger.settle(Settlement(course, await ledger.message(course.channel, 7), State.RETRYING, NOW, "later"))
    await ledger.transaction(lambda book: None)
    file = tmp_path / "copy.db"
    await asyncio.to_thread(backup.backup, ledger.path, file, lambda: NOW)
    return file


def restored(file: Path, ledger: Path, **options: bool) -> restoring.Restored:
    return restoring.restore(file, ledger, NOW + 60_000_000, "ops", "the disk is gone", **options)


async def test_all_that_is_not_settled_in_a_backup_may_have_been_sent_since(
    ledger: SqliteLedger, tmp_path: Path
) -> None:
    file = await made(ledger, tmp_path)
    lost = restored(file, tmp_path / "new" / "ledger.db")
    assert [(one.channel, one.seq, one.unknown) for one in lost.channels] == [("north", 10, 8), ("south", 10, 8)]
    again = await opened(tmp_path / "new" / "ledger.db")
    try:
        for book in again.channels.values():
            for course in book.courses:
                assert {(work.seq, work.state) for work in course.open.values()} == {
                    (seq, State.UNKNOWN) for seq in (7, 8, 9, 10)
                }
        books = list(again.channels.values())
        assert all(row["balanced"] for row in await again.read(lambda reader: reader.balance(books)))
        assert await again.read(lambda reader: reader.rebuilt()) == []
    finally:
        await again.close()


async def test_a_restored_ledger_is_held_and_says_what_it_cannot_know(ledger: SqliteLedger, tmp_path: Path) -> None:
    file = await made(ledger, tmp_path)
    lost = restored(file, tmp_path / "new" / "ledger.db")
    assert (lost.since, lost.until) == (NOW, NOW + 60_000_000)
    again = await opened(tmp_path / "new" / "ledger.db")
    try:
        hold = again.channels["north"].hold
        assert hold is not None
        assert hold.who == "ops"
        assert "of 2023-11-14 22:13:20Z: what came and went until 2023-11-14 22:14:20Z is not known" in hold.why
        assert hold.until > NOW
        row = (await again.read(lambda reader: journal.audit(reader.connection, limit=1)))[0]
        assert (row.entry.verb, row.entry.why) == ("restore", "the disk is gone")
        assert json.loads(row.entry.after)["channels"] == {"north": 10, "south": 10}
        assert (await again.read(lambda reader: journal.verify_audit(reader.connection)))[2] == []
    finally:
        await again.close()


async def test_what_an_old_message_left_outside_is_looked_for_under_its_old_name(
    ledger: SqliteLedger, tmp_path: Path
) -> None:
    file = await made(ledger, tmp_path)
    lost = restored(file, tmp_path / "new" / "ledger.db")
    assert lost.incarnation != ledger.incarnation
    again = await opened(tmp_path / "new" / "ledger.db")
    try:
        assert again.incarnation == lost.incarnation
        assert again.incarnations.of(20) == ledger.incarnation
        assert again.incarnations.of(21) == lost.incarnation
        assert again.incarnations.names == (ledger.incarnation, lost.incarnation)
        message = Message(again.channels["north"], b"x", NOW)
        again.store(message)
        await again.transaction(lambda book: None)
        assert (message.seq, message.id) == (11, 21)
    finally:
        await again.close()


async def test_a_ledger_that_is_there_is_replaced_only_when_told_and_kept_aside(
    ledger: SqliteLedger, tmp_path: Path
) -> None:
    file = await made(ledger, tmp_path)
    with pytest.raises(BackupError, match="in use by a running service"):
        restored(file, ledger.path, replace=True)
    await ledger.close()
    with pytest.raises(BackupError, match="only when told so"):
        restored(file, ledger.path)
    lost = restored(file, ledger.path, replace=True)
    assert lost.aside is not None
    assert rows(lost.aside, "select incarnation from ledger") == [(ledger.incarnation,)]
    assert rows(ledger.path, "select incarnation from ledger") == [(lost.incarnation,)]


async def test_a_backup_that_was_changed_is_refused(ledger: SqliteLedger, tmp_path: Path) -> None:
    file = await made(ledger, tmp_path)
    with file.open("r+b") as stream:
        stream.seek(-1, os.SEEK_END)
        stream.write(b"!")
    with pytest.raises(BackupError, match="its hash differs"):
        restored(file, tmp_path / "new" / "ledger.db")
    assert not (tmp_path / "new" / "ledger.db").exists()


async def test_a_backup_can_be_restored_twice(ledger: SqliteLedger, tmp_path: Path) -> None:
    file = await made(ledger, tmp_path)
    first = restored(file, tmp_path / "new" / "ledger.db")
    second = restored(file, tmp_path / "new" / "ledger.db", replace=True)
    assert len({ledger.incarnation, first.incarnation, second.incarnation}) == 3


KILLED = """
import sys, os
from pathlib import Path
from engine.ledger.sqlite import restoring
rename, at = Path.rename, int(sys.argv[3])
count = 0
def killing(self, target):
    global count
    if count == at:
        os.kill(os.getpid(), 9)
    count += 1
    return rename(self, target)
Path.rename = killing
restoring.restore(Path(sys.argv[1]), Path(sys.argv[2]), 1, "ops", "test", replace=True)
"""


@pytest.mark.parametrize("at", [0, 1, 2])
async def test_a_restore_killed_in_the_middle_starts_no_empty_or_mixed_ledger(
    ledger: SqliteLedger, tmp_path: Path, at: int
) -> None:
    file = await made(ledger, tmp_path)
    await ledger.close()
    wal = ledger.path.with_name("ledger.db-wal")
    wal.write_bytes(b"what a crash left")
    killed = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", KILLED, file, ledger.path, str(at)], check=False
    )
    assert killed.returncode == -9
    with pytest.raises(LedgerError, match="did not come to its end"):
        SqliteLedger(ledger.path, lambda: NOW)
    lost = restored(file, ledger.path, replace=True)
    assert not wal.exists()
    again = await opened(ledger.path)
    assert again.incarnation == lost.incarnation
    await again.close()

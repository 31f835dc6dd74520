"""Ledgers of older releases, made by those releases' own statements, open in this one; one of a newer release does not.

`older/N.sql` are the tables as version N had them; `N-first` as its first releases had them.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from engine.ledger.model import State
from engine.ledger.routing import Mode, Route, Routing
from engine.ledger.sqlite import journal, schema
from engine.ledger.sqlite.ledger import SqliteLedger
from engine.ledger.sqlite.loading import LedgerError

OLDER = Path(__file__).parent / "older"
VERSIONS = sorted(path.stem for path in OLDER.glob("*.sql"))
ROUTING = Routing((Route("emr", "mllp", Mode.SEND, "channel"),))


def made(path: Path, version: str, messages: int = 3) -> None:
    """A ledger as that release left it: all messages but the last two delivered, then one dead and one waiting."""
    number = int(version[0])
    with closing(sqlite3.connect(path, isolation_level=None)) as old:
        old.execute("pragma page_size = 8192")
        old.execute("pragma journal_mode = wal")
        old.executescript(f"begin; {(OLDER / f'{version}.sql').read_text()} commit;")
        columns = [row[1] for row in old.execute("pragma table_info(ledger)")]
        known = {"only": 1, "version": number, "incarnation": "abc", "term": 3, "touched": 0, "audit_count": 0,
                 "audit_hash": ""}  # fmt: skip
        old.execute("begin")
        old.execute(
            f"insert into ledger values ({','.join('?' * len(columns))})", [known[column] for column in columns]
        )
        old.execute("insert into channel values (1, 'acme', ?)", (messages,))
        old.execute("insert into destination values (1, 'emr')")
        old.execute("insert into epoch values (1, 1, 1, 'live', ?, 1, 'test', 'first', 1, null)", (ROUTING.to_json(),))
        old.executemany(
            "insert into message (id, channel, seq, socket, received, control_id, raw) values (?, 1, ?, 1, 1, 'C', ?)",
            ((n, n, b"MSH|" + b"x" * 200) for n in range(1, messages + 1)),
        )
        done = messages - 2
        old.executemany(
            "insert into receipt (message, channel, seq, destination, part, delivery, revision, epoch, state, at, term)"
            " values (?, 1, ?, 1, 1, 1, 1, 1, 10, 1, 1)",
            ((n, n) for n in range(1, done + 1)),
        )
        old.execute(
            "insert into progress values (1, 1, 1, ?, 1, ?, ?, ?, 0, 0, 0, 0, 0, 0)",
            (done + 1, done + 1, done + 1, done),
        )
        old.execute(
            "insert into open_work (channel, destination, seq, part, delivery, message, epoch, state, due, tries, term,"
            " why, blocks) values (1, 1, ?, 1, 1, ?, 1, 6, 0, 1, 1, 'said no', 1)",
            (done + 1, done + 1),
        )
        old.execute("commit")


def shape(path: Path) -> dict[str, object]:
    """Tables with their columns, whatever the order in which they came, and indexes."""
    with closing(sqlite3.connect(path)) as connection:
        names = connection.execute(
            "select type, name from sqlite_master where name not like 'sqlite_%' order by 2"
        ).fetchall()
        return {
            name: sorted(row[1:4] + row[5:] for row in connection.execute(f"pragma table_info({name})"))
            if kind == "table"
            else [row[2] for row in connection.execute(f"pragma index_info({name})")]
            for kind, name in names
        }


@pytest.mark.parametrize("version", VERSIONS)
async def test_an_older_ledger_opens_with_everything_in_its_state(tmp_path: Path, version: str) -> None:
    made(tmp_path / "ledger.db", version)
    ledger = SqliteLedger(tmp_path / "ledger.db", lambda: 1)
    try:
        (course,) = ledger.channels["acme"].courses
        assert (course.claim, course.frontier) == (2, 2)
        assert [(work.seq, work.state, work.why) for work in course.open.values()] == [(2, State.DEAD, "said no")]
        (row,) = await ledger.read(lambda reader: reader.balance(list(ledger.channels.values())))
        assert row["states"] == {"waiting": 1, "dead": 1, "delivered": 1}
        assert await ledger.read(lambda reader: reader.rebuilt()) == []
        assert (await ledger.message(ledger.channels["acme"], 3)).raw.startswith(b"MSH|")
        (noted,) = await ledger.read(lambda reader: journal.audit(reader.connection, limit=1))
        assert (noted.entry.verb, noted.entry.before, noted.entry.after) == (
            "upgrade", version[0], str(schema.VERSION),
        )  # fmt: skip
        assert (await ledger.read(lambda reader: journal.verify_audit(reader.connection)))[2] == []
    finally:
        await ledger.close()


@pytest.mark.parametrize("version", VERSIONS)
async def test_an_upgraded_ledger_has_the_tables_of_a_new_one(tmp_path: Path, version: str) -> None:
    made(tmp_path / "old.db", version)
    for name in ("old.db", "new.db"):
        await SqliteLedger(tmp_path / name, lambda: 1).close()
    old, new = shape(tmp_path / "old.db"), shape(tmp_path / "new.db")
    assert old.keys() == new.keys()
    for name in new:
        assert old[name] == new[name], name


async def test_a_newer_ledger_is_refused_with_what_would_be_right(tmp_path: Path) -> None:
    await SqliteLedger(tmp_path / "ledger.db", lambda: 1).close()
    with closing(sqlite3.connect(tmp_path / "ledger.db", isolation_level=None)) as connection:
        connection.execute("update ledger set version = version + 1")
    newer = schema.VERSION + 1
    with pytest.raises(LedgerError, match=f"has schema version {newer}.*run the release that wrote it, or restore"):
        SqliteLedger(tmp_path / "ledger.db", lambda: 1)


KILLED = """
import os, sys
from pathlib import Path
from engine.ledger.sqlite import upgrading
from engine.ledger.sqlite.ledger import SqliteLedger
def killing(*_):
    os.kill(os.getpid(), 9)
setattr(upgrading, sys.argv[2], killing)
SqliteLedger(Path(sys.argv[1]), lambda: 1)
"""


@pytest.mark.parametrize("where", ["_make_missing", "note"])
async def test_an_upgrade_killed_in_the_middle_leaves_the_old_version_whole(tmp_path: Path, where: str) -> None:
    made(tmp_path / "ledger.db", "3")
    before = shape(tmp_path / "ledger.db")
    killed = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", KILLED, tmp_path / "ledger.db", where], check=False
    )
    assert killed.returncode == -9
    assert shape(tmp_path / "ledger.db") == before
    await SqliteLedger(tmp_path / "ledger.db", lambda: 1).close()  # and then it goes


async def test_an_upgrade_does_not_write_the_messages_again(tmp_path: Path) -> None:
    made(tmp_path / "ledger.db", "3", messages=20_000)
    with closing(sqlite3.connect(tmp_path / "ledger.db")) as connection:
        connection.execute("pragma wal_checkpoint(truncate)")
    shutil.copy(tmp_path / "ledger.db", tmp_path / "before.db")
    await SqliteLedger(tmp_path / "ledger.db", lambda: 1).close()
    before, after = ((tmp_path / name).read_bytes() for name in ("before.db", "ledger.db"))
    pages = range(0, len(before), 8192)
    changed = sum(before[at : at + 8192] != after[at : at + 8192] for at in pages)
    assert changed < 40, f"{changed} of {len(pages)} pages"


def test_json_of_old_routing_tables_is_still_read() -> None:
    old = json.dumps({"routes": json.loads(ROUTING.to_json())["routes"], "answer_from": None})
    assert Routing.from_json(old) == ROUTING

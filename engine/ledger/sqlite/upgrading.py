"""From the schema of an older release to this one's: in one transaction, and noted in the audit chain.

A step has what must be done to tables that are there already, and adds columns or drops what can be made again: no row
of `message` or `receipt` is written again, so that it is quick whatever the ledger holds. Tables and indexes that are
missing are made last, from the schema itself; an index of few rows reads its table once. Killed in the middle, the file
is as it was.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from types import MappingProxyType

from engine.ledger.audit import Entry, Head, append
from engine.ledger.sqlite.statements import STATEMENTS

WHO = "the engine"

STEPS = MappingProxyType(
    {
        1: (
            "alter table ledger add column audit_count integer not null default 0",
            "alter table ledger add column audit_hash text not null default ''",
        ),
        2: (
            "alter table message add column large integer",
            "alter table tap_output add column large integer",
        ),
        3: (
            "alter table open_work add column parts integer not null default 1",
            "alter table open_work add column so_far integer not null default 0",
            "alter table open_work add column revision integer not null default 1",
        ),
        4: (
            "alter table receipt add column made_by integer",
            "alter table open_work add column bound integer",
            "alter table replay add column mapping text not null default 'as-is'",
        ),
        5: (
            "alter table message add column crc integer",
            "drop table if exists search_block",  # other hashes: they are made again, behind everything else
            "drop table if exists search_bucket",
        ),
        6: (),  # new tables only
    }
)
"""Version → what leads from it to the next one."""

_ADDS = re.compile(r"alter table (\w+) add column (\w+)")
_MAKES = re.compile(r"\s*create (?:table|index|unique index) (\w+)")


def upgrade(connection: sqlite3.Connection, version: int, tables: str, at: int) -> None:
    """Bring a ledger of `version` to the newest one. tables: the schema as it is now. at: microseconds since 1970."""
    newest = max(STEPS) + 1
    connection.execute("begin immediate")
    try:
        if version == 1 and not _has(connection, "ledger", "touched"):  # of the first ledgers of that version
            connection.execute("alter table ledger add column touched integer not null default 0")
        for step in range(version, newest):
            for statement in STEPS[step]:
                if not _done(connection, statement):
                    connection.execute(statement)
        _make_missing(connection, tables)
        connection.execute("update ledger set version = ?", (newest,))
        note(
            connection,
            Entry(
                at, WHO, "the service's start", "upgrade", "the ledger", "a newer release", str(version), str(newest)
            ),
        )
        connection.execute("commit")
    except BaseException:
        connection.execute("rollback")
        raise


def note(connection: sqlite3.Connection, entry: Entry) -> None:
    """Add to the audit chain, in a transaction that has begun, where no writer runs yet."""
    head = Head(*connection.execute("select audit_count, audit_hash from ledger").fetchone())
    row, head = append(head, entry)
    connection.execute(STATEMENTS["add_audit"], row.columns)
    connection.execute(STATEMENTS["put_audit_head"], (head.count, head.hash))


def statements(script: str) -> Iterator[str]:
    """The statements of a script, one by one: together they would end the transaction that they are in."""
    so_far = ""
    for line in script.splitlines(keepends=True):
        so_far += line
        if sqlite3.complete_statement(so_far):
            yield so_far.strip()
            so_far = ""


def _make_missing(connection: sqlite3.Connection, tables: str) -> None:
    there = {name for (name,) in connection.execute("select name from sqlite_master")}
    for statement in statements(tables):
        made = _MAKES.match(statement)
        if made and made[1] not in there:
            connection.execute(statement)


def _has(connection: sqlite3.Connection, table: str, column: str) -> bool:
    return any(row[1] == column for row in connection.execute(f"pragma table_info({table})"))


def _done(connection: sqlite3.Connection, statement: str) -> bool:
    """Whether a step's table does not exist yet, and will be made whole, or has the column."""
    adds = _ADDS.match(statement)
    if adds is None:
        return False
    table, column = adds[1], adds[2]
    exists = connection.execute("select 1 from sqlite_master where name = ?", (table,)).fetchone()
    return exists is None or _has(connection, table, column)

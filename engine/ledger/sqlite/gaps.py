"""Codes that no table knew and fields whose values went nowhere, by channel, and what people said of the codes.

Rows are few (`MOST_CODES` a channel) and stay: they are no messages, and nothing is removed by age. Functions of a
connection.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from engine.ledger.gaps import Code, Sighting

OPEN, ASKED, MAPPED, AS_IS = "open", "asked", "mapped", "as-is"
STATES: Final = (OPEN, ASKED, MAPPED, AS_IS)
"""OPEN: nobody has decided. ASKED: somebody was asked what it means. MAPPED: a table has it now; seen again, it is OPEN
again. AS_IS: it goes on as it came, for good."""

TABLES = """
create table unmapped (                -- a code that a table did not know; count: messages with it
  id integer primary key, channel integer not null, code_table text not null, field text not null,
  system text not null, code text not null, count integer not null, first_seq integer not null,
  last_seq integer not null, first_at integer not null, last_at integer not null,
  state text not null default 'open', owner text not null default '', note text not null default '',
  who text not null default '', decided integer,               -- who said so last, and when; null: nobody yet
  unique (channel, code_table, field, system, code));
create index unmapped_open on unmapped(channel, code_table) where state = 'open';

create table unmapped_more (           -- codes beyond those that there is room for; count: how often one was seen
  channel integer primary key, count integer not null, last_seq integer not null, last_at integer not null);

create table lost_field (              -- a field whose values are in no resource; count: values
  channel integer, field text, count integer not null, last_seq integer not null, last_at integer not null,
  primary key (channel, field)) without rowid;
"""

STATEMENTS: Final = {
    "put_unmapped": (
        "insert into unmapped (channel, code_table, field, system, code, count, first_seq, last_seq, first_at, last_at)"
        " values (?,?,?,?,?,?,?,?,?,?) on conflict (channel, code_table, field, system, code) do update set"
        " count = count + ?, first_seq = min(first_seq, excluded.first_seq),"
        " last_seq = max(last_seq, excluded.last_seq), last_at = excluded.last_at,"
        " state = case when ? and state = 'mapped' then 'open' else state end"
    ),
    "put_unmapped_more": (
        "insert into unmapped_more (channel, count, last_seq, last_at) values (?,?,?,?)"
        " on conflict do update set count = count + excluded.count, last_seq = max(last_seq, excluded.last_seq),"
        " last_at = excluded.last_at"
    ),
    "put_lost_field": (
        "insert into lost_field (channel, field, count, last_seq, last_at) values (?,?,?,?,?)"
        " on conflict do update set count = count + excluded.count, last_seq = max(last_seq, excluded.last_seq),"
        " last_at = excluded.last_at"
    ),
    "decide_unmapped": "update unmapped set state = ?, owner = ?, note = ?, who = ?, decided = ? where id = ?",
}


@dataclass(frozen=True, slots=True)
class CodeRow:
    """A code as it stands. channel: the ledger's number of it. at: microseconds since 1970; decided: None as long as
    nobody has said anything about it."""

    id: int
    channel: int
    table: str
    field: str
    system: str
    code: str
    count: int
    first_seq: int
    last_seq: int
    first_at: int
    last_at: int
    state: str
    owner: str
    note: str
    who: str
    decided: int | None


class Wanted(NamedTuple):
    """Which codes are meant: None and an empty text for all of them."""

    channels: Sequence[int] | None = None
    table: str = ""
    code: str | None = None
    system: str | None = None
    state: str = ""
    owner: str = ""


@dataclass(frozen=True, slots=True)
class Sum:
    """How often, and when last: of a field, or of the codes for which there is no room."""

    channel: int
    field: str
    count: int
    last_seq: int
    last_at: int


def values(channel: int, code: Code, seen: Sighting) -> tuple[object, ...]:
    """For `put_unmapped`. A code that is new was in one message at least, though that one was counted before."""
    return (
        channel, *code, max(1, seen.count), seen.first_seq, seen.last_seq, seen.first_at, seen.last_at, seen.count,
        seen.fresh,
    )  # fmt: skip


def states(connection: sqlite3.Connection, keys: Iterable[tuple[int, Code]]) -> dict[tuple[int, Code], str]:
    """The state of each of these codes that is there."""
    found: dict[tuple[int, Code], str] = {}
    for channel, code in keys:
        row = connection.execute(
            "select state from unmapped where channel = ? and code_table = ? and field = ? and system = ? and code = ?",
            (channel, *code),
        ).fetchone()
        if row is not None:
            found[channel, code] = row[0]
    return found


def counts(connection: sqlite3.Connection) -> dict[int, int]:
    """Channel → how many codes it has."""
    return dict(connection.execute("select channel, count(*) from unmapped group by channel").fetchall())


def open_counts(connection: sqlite3.Connection) -> dict[tuple[int, str], int]:
    """(Channel, table) → how many of its codes are open, where any are."""
    rows = connection.execute(
        "select channel, code_table, count(*) from unmapped where state = 'open' group by channel, code_table"
    )
    return {(channel, table): count for channel, table, count in rows}


def fields(connection: sqlite3.Connection, channels: Sequence[int] | None = None) -> list[Sum]:
    """The fields of some channels, of all where none are named; those with most values first."""
    query = "select channel, field, count, last_seq, last_at from lost_field order by count desc, channel, field"
    return _of(channels, connection.execute(query))


def more(connection: sqlite3.Connection, channels: Sequence[int] | None = None) -> list[Sum]:
    """The sightings of codes for which there was no room, by channel."""
    query = "select channel, '', count, last_seq, last_at from unmapped_more order by channel"
    return _of(channels, connection.execute(query))


def codes(connection: sqlite3.Connection, wanted: Wanted, limit: int) -> tuple[list[CodeRow], int]:
    """Those that are meant, seen most often first, at most `limit` of them; and how many there are."""
    equal = {
        "code_table": wanted.table or None, "code": wanted.code, "system": wanted.system,
        "state": wanted.state or None, "owner": wanted.owner or None,
    }  # fmt: skip
    given = {name: text for name, text in equal.items() if text is not None}
    conditions = [f"{name} = ?" for name in given]
    if wanted.channels is not None:
        conditions.append(f"channel in ({','.join(str(int(channel)) for channel in wanted.channels)})")
    where, sought = " and ".join(conditions) or "true", [*given.values()]
    (total,) = connection.execute(f"select count(*) from unmapped where {where}", sought).fetchone()
    rows = connection.execute(
        "select id, channel, code_table, field, system, code, count, first_seq, last_seq, first_at, last_at, state,"
        f" owner, note, who, decided from unmapped where {where}"
        " order by count desc, channel, code_table, code, system, field limit ?",
        (*sought, limit),
    )
    return [CodeRow(*row) for row in rows], total


def _of(channels: Sequence[int] | None, rows: Iterable[tuple[int, str, int, int, int]]) -> list[Sum]:
    return [Sum(*row) for row in rows if channels is None or row[0] in channels]

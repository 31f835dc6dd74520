"""What was removed by age: the tables of it, what they say of a message, and what still counts.

Rows are removed in the order of their numbers, without a gap, a class at a time: of a message first what was captured,
then its bytes (its own, its revisions', and those of outputs at taps), last its head and receipts. `pruning` says which
numbers, when, and by which rule; the highest of a class is its *mark*. Receipts that go are counted in `pruned`, so
that everything can still be counted from the rows.

Whether a number may go is decided in `engine.ledger.keeping`; what removes it stands in `pruning`.
"""

from __future__ import annotations

import sqlite3
from collections import Counter, defaultdict
from typing import Final

from engine.ledger.keeping import AUDIT, CAPTURED, EVENTS, NUMBERED, OUTPUTS, RAW, RECEIPTS, Compared, Kept, LegalHold

TABLES = """
create table pruning (                 -- what was removed: numbers of a class, without a gap; of `audit`: channel 0
  channel integer, class text, first integer, last integer not null,
  last_id integer not null,            -- of the last row that is gone: where looking starts
  at integer not null, rule text not null,
  primary key (channel, class, first)) without rowid;

create table pruned (                  -- receipts that were removed, counted as the totals count them
  channel integer, destination integer, epoch integer, replay integer, state integer, count integer not null,
  primary key (channel, destination, epoch, replay, state)) without rowid;

create table legal_hold (              -- nothing of the channel is removed until it is lifted
  channel integer primary key, who text not null, why text not null, at integer not null);

create table moment (                  -- how far the numbers had come by a time of the wall clock
  at integer primary key, believed integer not null, message integer not null, tap_output integer not null,
  intake_event integer not null, audit integer not null);

create table audit_start (             -- one row: what the audit chain now starts behind
  only integer primary key check (only = 1), id integer not null, hash text not null);
"""

STATEMENTS: Final = {
    "put_legal_hold": "insert or replace into legal_hold (channel, who, why, at) values (?,?,?,?)",
    "drop_legal_hold": "delete from legal_hold where channel = ?",
    "put_moment": (
        "insert or replace into moment (at, believed, message, tap_output, intake_event, audit) select ?, ?,"
        " (select coalesce(max(id), 0) from message), (select coalesce(max(id), 0) from tap_output),"
        " (select coalesce(max(id), 0) from intake_event), (select coalesce(max(id), 0) from audit)"
    ),
}
# -- what is there. Functions of a reading connection.


def load(connection: sqlite3.Connection) -> defaultdict[int, Kept]:
    """What is gone of each channel, and the legal holds."""
    found: defaultdict[int, Kept] = defaultdict(Kept)
    for channel, kind, _, last, last_id in connection.execute(
        "select channel, class, max(first), last, last_id from pruning group by channel, class"
    ):
        found[channel].marks[kind] = last
        found[channel].ids[kind] = last_id
    for channel, *hold in connection.execute("select channel, who, why, at from legal_hold"):
        found[channel].legal = LegalHold(*hold)
    return found


def last_moment(connection: sqlite3.Connection) -> int:
    """The time that was believed when the numbers were last looked at, 0 if never."""
    return int(connection.execute("select coalesce(max(believed), 0) from moment").fetchone()[0])


_COLUMN: Final = {CAPTURED: "message", RAW: "message", RECEIPTS: "message", EVENTS: "intake_event",
                  OUTPUTS: "tap_output", AUDIT: "audit"}  # fmt: skip


def cutoff(connection: sqlite3.Connection, kind: str, before: int) -> int:
    """The highest id that there was at `before`, in microseconds since 1970; 0 where that is not known."""
    row = connection.execute(
        f"select {_COLUMN[kind]} from moment where at <= ? order by at desc limit 1", (before,)
    ).fetchone()
    return int(row[0]) if row else 0


def compared(connection: sqlite3.Connection, channel: int) -> Compared:
    marks = connection.execute("select tap, watermark from compared where channel = ?", (channel,)).fetchall()
    (shown,) = connection.execute(
        "select min((select min(d.seq) from difference d where d.discrepancy = x.id and d.seq > 0)) from discrepancy x"
        " where x.channel = ? and x.state = 'open'",
        (channel,),
    ).fetchone()
    return Compared(dict(marks), shown)


def free(connection: sqlite3.Connection) -> tuple[int, int, bool]:
    """(free pages, all pages, whether they can be given back in steps)."""
    (free,) = connection.execute("pragma freelist_count").fetchone()
    (pages,) = connection.execute("pragma page_count").fetchone()
    (mode,) = connection.execute("pragma auto_vacuum").fetchone()
    return int(free), int(pages), mode == 2


def told(connection: sqlite3.Connection, channel: int, seq: int) -> list[tuple[str, int, str]]:
    """(class, when, by which rule) of what is gone of a message."""
    marks = ",".join("?" * len(NUMBERED))
    return connection.execute(
        f"select class, at, rule from pruning where channel = ? and class in ({marks}) and first <= ? and last >= ?"
        " order by at",
        (channel, *NUMBERED, seq, seq),
    ).fetchall()


# -- what still counts


def heads(connection: sqlite3.Connection) -> dict[int, int]:
    """Channel → how many of its messages are gone whole: all up to that number."""
    rows = connection.execute("select channel, max(last) from pruning where class = ? group by channel", (RECEIPTS,))
    return dict(rows.fetchall())


def counted(connection: sqlite3.Connection) -> Counter[tuple[int, int, int, int]]:
    """(channel, destination, epoch, state) → messages whose receipts are gone."""
    rows = connection.execute("select channel, destination, epoch, state, count from pruned where replay = 0")
    return Counter({(channel, destination, epoch, state): n for channel, destination, epoch, state, n in rows})


def replayed(connection: sqlite3.Connection) -> Counter[tuple[int, int, int]]:
    """(channel, destination, state) → replays whose receipts are gone."""
    rows = connection.execute("select channel, destination, state, count from pruned where replay = 1")
    return Counter({(channel, destination, state): n for channel, destination, state, n in rows})


def audit_start(connection: sqlite3.Connection) -> tuple[int, str]:
    """The id and hash of the last row of the audit chain that is gone."""
    row = connection.execute("select id, hash from audit_start").fetchone()
    return (int(row[0]), str(row[1])) if row else (0, "")

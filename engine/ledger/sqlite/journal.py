"""What is asked of the tables of people's doings: runs, facts, waivers, the audit chain. Functions of a connection."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import dataclass
from typing import Any

from engine.ledger.audit import Head, Row, verify
from engine.ledger.sqlite import retention


@dataclass(frozen=True, slots=True)
class RunRow:
    """A row of `run`. Times in microseconds since 1970; `ended` is None while it goes on."""

    id: int
    verb: str
    connection: str
    channels: tuple[str, ...]
    state: str
    step: str
    said: str
    options: dict[str, Any]
    who: str
    why: str
    origin: str
    started: int
    deadline: int
    ended: int | None

    def values(self) -> tuple[Any, ...]:
        """In the order of the table."""
        return (
            self.id, self.verb, self.connection, json.dumps(self.channels), self.state, self.step, self.said,
            json.dumps(self.options, sort_keys=True), self.who, self.why, self.origin, self.started, self.deadline,
            self.ended,
        )  # fmt: skip


_RUN = (
    "select id, verb, connection, channels, state, step, said, options, who, why, origin, started, deadline, ended"
    " from run"
)


def runs(connection: sqlite3.Connection, *, active: bool = False, limit: int = 100) -> list[RunRow]:
    """The newest runs, newest first; all that go on with `active`."""
    where = " where state = 'running' order by id desc" if active else " order by id desc limit ?"
    rows = connection.execute(_RUN + where, () if active else (limit,))
    return [_run(row) for row in rows]


def run(connection: sqlite3.Connection, id: int) -> RunRow | None:
    row = connection.execute(_RUN + " where id = ?", (id,)).fetchone()
    return _run(row) if row else None


def last_run(connection: sqlite3.Connection) -> int:
    """The highest number given to a run."""
    return int(connection.execute("select coalesce(max(id), 0) from run").fetchone()[0])


def _run(row: tuple[Any, ...]) -> RunRow:
    id, verb, connection, channels, state, step, said, options, *rest = row
    return RunRow(
        id, verb, connection, tuple(json.loads(channels)), state, step, said, json.loads(options), *rest
    )  # fmt: skip


def facts(connection: sqlite3.Connection) -> dict[int, dict[str, tuple[Any, int, str, int, str]]]:
    """Channel id → name → (value, at, who, until, version)."""
    found: dict[int, dict[str, tuple[Any, int, str, int, str]]] = {}
    for channel, name, value, *rest in connection.execute(
        "select channel, name, value, at, who, until, version from fact"
    ):
        at, who, until, version = rest
        found.setdefault(channel, {})[name] = (json.loads(value), at, who, until, version)
    return found


def waivers(connection: sqlite3.Connection) -> dict[int, dict[str, tuple[str, str, int, int]]]:
    """Channel id → check → (who, why, at, until) of its newest waiver."""
    found: dict[int, dict[str, tuple[str, str, int, int]]] = {}
    for channel, name, who, why, at, until in connection.execute(
        "select channel, name, who, why, at, until from waiver order by id"
    ):
        found.setdefault(channel, {})[name] = (who, why, at, until)
    return found


def audit(connection: sqlite3.Connection, *, limit: int, before: int | None = None) -> list[Row]:
    """The newest rows of the audit chain, newest first."""
    rows = connection.execute(
        "select id, at, who, origin, verb, subject, why, before, after, hash from audit where id < ?"
        " order by id desc limit ?",
        (before or (1 << 62), limit),
    )
    return [Row.of(row) for row in rows]


def verify_audit(connection: sqlite3.Connection) -> tuple[int, str, list[str]]:
    """How many rows the chain has, the hash of its head, and what is wrong with it."""
    connection.execute("begin")
    try:
        head = Head(*connection.execute("select audit_count, audit_hash from ledger").fetchone())
        rows = connection.execute(
            "select id, at, who, origin, verb, subject, why, before, after, hash from audit order by id"
        )
        start = Head(*retention.audit_start(connection))
        return head.count, head.hash, verify(map(Row.of, rows), head, start)
    finally:
        connection.execute("commit")


def would_refuse(connection: sqlite3.Connection, channel: int, since: int) -> int:
    """How many messages since then were taken that `live` would refuse. `since`: microseconds since 1970."""
    (count,) = connection.execute(
        "select count(*) from intake_event where channel = ? and kind = 'would_refuse' and at >= ?", (channel, since)
    ).fetchone()
    return int(count)

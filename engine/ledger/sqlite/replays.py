"""The rows of people's replays, and what is asked of the ledger to plan one. Functions of a connection."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from engine.ledger.model import State

TABLES = """
create table replay (                  -- messages that a person has sent to a destination once more
  id integer primary key, channel integer not null, destination text not null, numbers text not null,
  upto integer not null, total integer not null, begun integer not null, state text not null, who text not null,
  why text not null, origin text not null, at integer not null, ended integer);
"""

STATEMENTS = {
    "put_replay": (
        "insert or replace into replay (id, channel, destination, numbers, upto, total, begun, state, who, why, origin,"
        " at, ended) values (?,?,?,?,?,?,?,?,?,?,?,?,?)"
    ),
}

RUNNING, DONE, STOPPED = "running", "done", "stopped"
AT_ONCE = 500  # values in one query


@dataclass(frozen=True, slots=True)
class ReplayRow:
    """A row of `replay`. `numbers`: stretches of sequence numbers; up to `upto` they have been begun."""

    id: int
    channel: str
    destination: str
    numbers: tuple[tuple[int, int], ...]
    upto: int
    total: int
    begun: int
    state: str
    who: str
    why: str
    origin: str
    at: int
    ended: int | None

    def values(self, channel: int) -> tuple[Any, ...]:
        """In the order of the table."""
        return (
            self.id, channel, self.destination, json.dumps(self.numbers), self.upto, self.total, self.begun, self.state,
            self.who, self.why, self.origin, self.at, self.ended,
        )  # fmt: skip


def rows(connection: sqlite3.Connection, *, running: bool = False, limit: int = 100) -> list[ReplayRow]:
    """The newest replays, newest first; all that go on with `running`."""
    query = (
        "select r.id, c.name, destination, numbers, upto, total, begun, state, who, why, origin, at, ended"
        " from replay r join channel c on c.id = r.channel"
    )
    found = connection.execute(
        query + (" where state = 'running' order by r.id" if running else " order by r.id desc limit ?"),
        () if running else (limit,),
    )
    return [
        ReplayRow(id, channel, to, tuple((first, last) for first, last in json.loads(numbers)), *rest)
        for id, channel, to, numbers, *rest in found
    ]


def last(connection: sqlite3.Connection) -> int:
    """The highest number given to a replay."""
    return int(connection.execute("select coalesce(max(id), 0) from replay").fetchone()[0])


def stored(connection: sqlite3.Connection, channel: int, numbers: Sequence[int]) -> dict[int, int]:
    """Number → message id, of those that are stored with their bytes."""
    found: dict[int, int] = {}
    if not numbers:
        return found
    wanted = set(numbers)
    low, high = min(numbers), max(numbers)
    (top,) = connection.execute("select coalesce(max(id), 0) from message").fetchone()
    for block in range((top >> 12) + 1):
        for seq, id in connection.execute(
            "select seq, id from message indexed by message_block"
            " where id >> 12 = ? and channel = ? and seq between ? and ?",
            (block, channel, low, high),
        ):
            if seq in wanted:
                found[seq] = id
    return found


def states(connection: sqlite3.Connection, ids: Sequence[int], destination: int) -> dict[int, set[State]]:
    """Message id → the states that its receipts at the destination say."""
    found: dict[int, set[State]] = {}
    for at in range(0, len(ids), AT_ONCE):
        some = ids[at : at + AT_ONCE]
        for id, state in connection.execute(
            "select message, state from receipt indexed by receipt_message"
            f" where message in ({','.join('?' * len(some))}) and destination = ?",
            (*some, destination),
        ):
            found.setdefault(id, set()).add(State(state))
    return found


def deliveries(
    connection: sqlite3.Connection, channel: int, numbers: Sequence[int], destination: int
) -> dict[int, tuple[int, int, int]]:
    """Number → (message id, the number of its last delivery there, the revision that went there then), in order;
    without those that are gone."""
    found = {}
    for seq, id in sorted(stored(connection, channel, numbers).items()):
        last = connection.execute(
            "select delivery, revision from receipt indexed by receipt_message"
            " where message = ? and destination = ? order by delivery desc, part desc limit 1",
            (id, destination),
        ).fetchone()
        found[seq] = (id, *(last or (0, 1)))
    return found

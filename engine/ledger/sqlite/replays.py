"""The rows of people's replays, and what is asked of the ledger to plan one. Functions of a connection."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from engine.ledger.model import MADE, State

TABLES = """
create table replay (                  -- messages that a person has sent to a destination once more
  id integer primary key, channel integer not null, destination text not null, numbers text not null,
  upto integer not null, total integer not null, begun integer not null, state text not null, who text not null,
  why text not null, origin text not null, at integer not null, ended integer,
  mapping text not null default 'as-is');  -- or 'as-was'
"""

STATEMENTS = {
    "put_replay": (
        "insert or replace into replay (id, channel, destination, numbers, upto, total, begun, state, who, why, origin,"
        " at, ended, mapping) values (?,?,?,?,?,?,?,?,?,?,?,?,?,?)"
    ),
    "move_replay": "update replay set upto = ?, begun = ?, state = ?, ended = ? where id = ?",
}

AS_IS, AS_WAS = "as-is", "as-was"  # by the mapping as it is now; as it was when it was delivered first
RUNNING, DONE, STOPPED = "running", "done", "stopped"
AT_ONCE = 500  # values in one query


@dataclass(frozen=True, slots=True)
class ReplayRow:
    """A row of `replay`. `numbers`: stretches of sequence numbers; up to `upto` they have been begun. `mapping`: AS_IS
    or AS_WAS."""

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
    mapping: str = AS_IS

    def values(self, channel: int) -> tuple[Any, ...]:
        """In the order of the table."""
        return (
            self.id, channel, self.destination, json.dumps(self.numbers), self.upto, self.total, self.begun, self.state,
            self.who, self.why, self.origin, self.at, self.ended, self.mapping,
        )  # fmt: skip

    def moved(self) -> tuple[Any, ...]:
        """What changes of it while it goes on, for `move_replay`: its numbers may be very many."""
        return self.upto, self.begun, self.state, self.ended, self.id


def rows(connection: sqlite3.Connection, *, running: bool = False, limit: int = 100) -> list[ReplayRow]:
    """The newest replays, newest first; all that go on with `running`."""
    query = (
        "select r.id, c.name, destination, numbers, upto, total, begun, state, who, why, origin, at, ended, mapping"
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


def stored(connection: sqlite3.Connection, channel: int, numbers: Sequence[int], from_id: int = 0) -> dict[int, int]:
    """Number → message id, of those that are stored with their bytes. from_id: none of them has a lower id; in a
    channel ids rise with the numbers, so behind the highest number there is nothing to look for."""
    found: dict[int, int] = {}
    if not numbers:
        return found
    wanted = set(numbers)
    low, high = min(numbers), max(numbers)
    (top,) = connection.execute("select coalesce(max(id), 0) from message").fetchone()
    for block in range(from_id >> 12, (top >> 12) + 1):
        for seq, id in connection.execute(
            "select seq, id from message indexed by message_block"
            " where id >> 12 = ? and channel = ? and seq between ? and ?",
            (block, channel, low, high),
        ):
            if seq in wanted:
                found[seq] = id
        if high in found:
            break
    return found


class Before(NamedTuple):
    """What became of a message at a destination before. made: a mapping has made something of it there, or has held it
    back; made_by: the epoch by whose mapping the first time, None: not known."""

    states: set[State]
    made: bool
    made_by: int | None


def before(connection: sqlite3.Connection, ids: Sequence[int], destination: int) -> dict[int, Before]:
    """By message id, of those that have receipts at the destination."""
    found: dict[int, Before] = {}
    for at in range(0, len(ids), AT_ONCE):
        some = ids[at : at + AT_ONCE]
        for id, state, made_by in connection.execute(
            "select message, state, made_by from receipt indexed by receipt_message"
            f" where message in ({','.join('?' * len(some))}) and destination = ? order by id",
            (*some, destination),
        ):
            known = found.get(id) or Before(set(), False, None)
            known.states.add(State(state))
            if state in MADE and not known.made:
                known = known._replace(made=True, made_by=made_by)
            found[id] = known
    return found


class Last(NamedTuple):
    """A message, the number of its last delivery somewhere, and the revision that went there then. made, made_by: as of
    `Before`."""

    message: int
    delivery: int
    revision: int
    made: bool
    made_by: int | None


def deliveries(
    connection: sqlite3.Connection, channel: int, numbers: Sequence[int], destination: int, from_id: int = 0
) -> dict[int, Last]:
    """By number, in order; without those that are gone. from_id: as of `stored`."""
    found = {}
    there = sorted(stored(connection, channel, numbers, from_id).items())
    earlier = before(connection, [id for _, id in there], destination)
    for seq, id in there:
        last = connection.execute(
            "select delivery, revision from receipt indexed by receipt_message"
            " where message = ? and destination = ? order by delivery desc, part desc limit 1",
            (id, destination),
        ).fetchone()
        _, made, made_by = earlier.get(id) or Before(set(), False, None)
        delivery, revision = last or (0, 1)
        found[seq] = Last(id, delivery, revision, made, made_by)
    return found

"""Files whose messages are stored: which ones. Functions of a reading connection."""

from __future__ import annotations

import sqlite3
from typing import NamedTuple

# No `or ignore`: a file that is stored a second time must fail, with all its messages.
STATEMENTS = {"add_file": "insert into file (channel, name, size, digest, at) values (?,?,?,?,?)"}


def known(connection: sqlite3.Connection, channel: int, name: str, digest: bytes) -> bool:
    """Whether the messages of a file of this name and content are stored. `channel`: the ledger's number of it."""
    row = connection.execute(
        "select 1 from file where channel = ? and name = ? and digest = ?", (channel, name, digest)
    ).fetchone()
    return row is not None


class Span(NamedTuple):
    """The numbers of the messages of one file, and the SHA-256 of its bytes."""

    first: int
    last: int
    digest: bytes


def span(connection: sqlite3.Connection, channel: int, id: int) -> Span | None:
    """The file that message `id` came in; None where it came otherwise, or that is not known any more.

    Its messages were stored one after the other, at a moment that no other file of the channel has.
    """
    seq, received = connection.execute("select seq, received from message where id = ?", (id,)).fetchone()
    rows = connection.execute("select digest from file where channel = ? and at = ?", (channel, received)).fetchall()
    if len(rows) != 1:
        return None
    back = _run(connection, "id < ? order by id desc", channel, received, id)
    on = _run(connection, "id > ? order by id", channel, received, id)
    return Span(seq - back, seq + on, rows[0][0])


def _run(connection: sqlite3.Connection, where: str, channel: int, received: int, id: int) -> int:
    """How many messages in a row, from `id` on in one direction, came at the same moment."""
    count = 0
    for other, at in connection.execute(f"select channel, received from message where {where}", (id,)):
        if (other, at) != (channel, received):
            break
        count += 1
    return count


def receipt(connection: sqlite3.Connection, id: int, destination: str) -> tuple[int, str] | None:
    """(state, why) of a message's first delivery at a destination of that name, where it is settled."""
    row: tuple[int, str] | None = connection.execute(
        "select r.state, r.why from receipt r join destination d on d.id = r.destination"
        " where r.message = ? and d.name = ? and r.part = 1 and r.delivery = 1 and r.revision = 1",
        (id, destination),
    ).fetchone()
    return row

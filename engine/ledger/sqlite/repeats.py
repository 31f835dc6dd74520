"""What is known of repeats after a restart: stored messages that are some, and those that may still be repeated."""

from __future__ import annotations

import sqlite3
from typing import Any, NamedTuple

from engine.ledger.course import ChannelBook
from engine.ledger.model import UNDONE, State
from engine.ledger.routing import LEGACY
from engine.ledger.sqlite.large import whole

_RECEIPT = "select 1 from receipt indexed by receipt_message"
_UNDONE = tuple(state.value for state in UNDONE)
_MARKS = ",".join("?" * len(_UNDONE))

MOST_LOOKED_AT = 8192  # newest messages of all channels


class Newest(NamedTuple):
    """The newest message of a connection. `answer`: the authority's, where there was one."""

    channel: int
    id: int
    seq: int
    socket: int
    received: int
    control_id: str
    raw: bytes
    answer: bytes | None


def newest(connection: sqlite3.Connection, since: int, authorities: dict[int, int]) -> list[Newest]:
    """The newest messages of the connections that had one since then, in microseconds since 1970, oldest first; without
    those that are repeated by a new message. authorities: channel id → id of the destination whose answer counts."""
    seen: set[int] = set()
    found: list[Newest] = []
    dead = {id for (id,) in connection.execute("select message from open_work where state = ?", (State.DEAD.value,))}
    rows = connection.execute(
        "select id, channel, seq, socket, received, control_id from message"
        " where id > (select coalesce(max(id), 0) from message) - ? and received >= ? order by id desc",
        (MOST_LOOKED_AT, since),
    ).fetchall()
    for id, channel, seq, socket, received, control_id in rows:
        if socket in seen or not control_id:
            seen.add(socket)
            continue
        seen.add(socket)
        if id not in dead and not _failed(connection, id):
            raw, large = connection.execute("select raw, large from message where id = ?", (id,)).fetchone()
            answer = _answer(connection, id, authorities.get(channel, 0))
            found.append(Newest(channel, id, seq, socket, received, control_id, whole(connection, raw, large), answer))
    return found[::-1]


def _failed(connection: sqlite3.Connection, id: int) -> bool:
    """Whether it is a repeat itself, or was settled as failed anywhere."""
    if connection.execute("select 1 from repeat where message = ?", (id,)).fetchone():
        return True
    query = f"{_RECEIPT} where message = ? and state in ({_MARKS})"
    return connection.execute(query, (id, *_UNDONE)).fetchone() is not None


def _answer(connection: sqlite3.Connection, id: int, authority: int) -> bytes | None:
    row = connection.execute(
        "select answer from receipt indexed by receipt_message where message = ? and destination = ? and delivery = 1",
        (id, authority),
    ).fetchone()
    return row[0] if row else None


def still_to_come(connection: sqlite3.Connection, book: ChannelBook) -> None:
    """The repeats that our courses of a channel have not come to yet, and whose first was not undone there."""
    courses = [course for course in book.courses if course.name != LEGACY and (course.spans or course.open)]
    if not courses:
        return
    low = min(min([course.frontier + 1, *(key[0] for key in course.open)]) for course in courses)
    rows: list[tuple[Any, ...]] = connection.execute(
        "select seq, first, first_message from repeat where channel = ? and seq >= ?", (book.id, low)
    ).fetchall()
    for course in courses:
        for seq, first, message in rows:
            if seq <= course.frontier and (seq, 1, 1) not in course.open:
                continue
            query = f"{_RECEIPT} where message = ? and destination = ? and delivery = 1 and state in ({_MARKS})"
            if connection.execute(query, (message, course.id, *_UNDONE)).fetchone() is None:
                course.repeated[seq] = first

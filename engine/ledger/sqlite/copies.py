"""Copies of one frame in several channels: what became of another one. Functions of a reading connection."""

from __future__ import annotations

import sqlite3

from engine.ledger.model import State

NEAR = 256  # copies are stored in one transaction, one after the other


def answered(connection: sqlite3.Connection, id: int, destination: str) -> tuple[State, str, bytes | None] | None:
    """(state, why, answer) of a settled copy of message `id` at a destination of that name, if any."""
    row = connection.execute(
        "select r.state, r.why, r.answer from message m"
        " join message other on other.id between m.id - ? and m.id + ? and other.id <> m.id"
        "  and other.socket = m.socket and other.received = m.received"
        " join receipt r on r.message = other.id"
        " join destination d on d.id = r.destination and d.name = ?"
        " where m.id = ? and r.state in (?, ?) order by r.id limit 1",
        (NEAR, NEAR, destination, id, State.DELIVERED.value, State.REFUSED.value),
    ).fetchone()
    return (State(row[0]), row[1] or "", row[2]) if row else None


def others(connection: sqlite3.Connection, id: int) -> list[tuple[int, int]]:
    """(channel, number) of the other copies of message `id`, by the ledger's number of a channel."""
    return connection.execute(
        "select other.channel, other.seq from message m"
        " join message other on other.id between m.id - ? and m.id + ? and other.id <> m.id"
        "  and other.socket = m.socket and other.received = m.received where m.id = ?",
        (NEAR, NEAR, id),
    ).fetchall()

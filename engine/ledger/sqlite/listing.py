"""Every message of some channels with what became of it, for a reconciliation. Reads whole tables."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence

from engine.ledger.model import State


def control_ids(connection: sqlite3.Connection, channels: Sequence[int]) -> Iterator[tuple[int, int, str | None]]:
    """(channel, seq, control id) of every message, in the order they were stored."""
    marks = ",".join("?" * len(channels))
    yield from connection.execute(
        f"select channel, seq, control_id from message not indexed where channel in ({marks}) order by id", channels
    )


def settled(connection: sqlite3.Connection, channels: Sequence[int]) -> dict[tuple[int, int], dict[str, str]]:
    """(channel, seq) → destination → state, of all that is settled."""
    marks = ",".join("?" * len(channels))
    names = dict(connection.execute("select id, name from destination"))
    found: dict[tuple[int, int], dict[str, str]] = {}
    for channel, seq, destination, state in connection.execute(
        f"select channel, seq, destination, state from receipt where channel in ({marks}) order by id", channels
    ):
        found.setdefault((channel, seq), {})[names[destination]] = State(state).label
    return found

"""Answers that a destination gave to a message after it was settled. Functions of a reading connection."""

from __future__ import annotations

import sqlite3

KIND = "application_answer"  # of the event that such an answer is kept as


def answers(connection: sqlite3.Connection, message: int) -> list[tuple[int, str, bytes]]:
    """(at, reason, answer) of those to this message, in the order in which they came. No index leads there: this is
    for a person who looks at one message."""
    return connection.execute(
        "select at, reason, answer from intake_event where message = ? and kind = ? order by id", (message, KIND)
    ).fetchall()

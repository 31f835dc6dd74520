"""Answers that a destination gave to a message after it was settled. Functions of a reading connection."""

from __future__ import annotations

import sqlite3
from typing import Final

KIND: Final = "application_answer"  # of the event that such an answer is kept as

TABLES = """
create index intake_event_later on intake_event(message) where kind = 'application_answer';
"""


def answers(connection: sqlite3.Connection, message: int) -> list[tuple[int, str, bytes]]:
    """(at, reason, answer) of those to this message, in the order in which they came."""
    return connection.execute(
        "select at, reason, answer from intake_event indexed by intake_event_later"
        f" where message = ? and kind = '{KIND}' order by id",
        (message,),
    ).fetchall()

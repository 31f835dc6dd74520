"""Files whose messages are stored: which ones. Functions of a reading connection."""

from __future__ import annotations

import sqlite3

# No `or ignore`: a file that is stored a second time must fail, with all its messages.
STATEMENTS = {"add_file": "insert into file (channel, name, size, digest, at) values (?,?,?,?,?)"}


def known(connection: sqlite3.Connection, channel: int, name: str, digest: bytes) -> bool:
    """Whether the messages of a file of this name and content are stored. `channel`: the ledger's number of it."""
    row = connection.execute(
        "select 1 from file where channel = ? and name = ? and digest = ?", (channel, name, digest)
    ).fetchone()
    return row is not None

"""Which incarnation of the ledger gave a message its number.

A restored ledger gives numbers a second time: those that the lost one had given after the backup. So whatever names a
message outside (tags, control ids) holds the incarnation that numbered it, and what is looked up there for an old
message is looked up under its old name.
"""

from __future__ import annotations

import sqlite3
from bisect import bisect_right
from collections.abc import Sequence

TABLES = """
create table incarnation (             -- after a restore: the first message.id of each
  first integer primary key, name text not null, at integer not null);
"""


class Incarnations:
    """All incarnations of one ledger, oldest first."""

    def __init__(self, present: str, rows: Sequence[tuple[int, str]] = ()) -> None:
        """`rows`: (first message.id, name), rising; none where the ledger was never restored."""
        self.present = present
        self._firsts = [first for first, _ in rows]
        self._names = [name for _, name in rows]
        self.names: Sequence[str] = tuple(self._names)
        """Oldest first; none where the ledger was never restored."""

    def of(self, message: int) -> str:
        """The incarnation that numbered the message with this id."""
        at = bisect_right(self._firsts, message)
        return self._names[at - 1] if at else self.present

    def restores(self, message: int) -> int:
        """How often the ledger had been restored when it numbered the message with this id."""
        return max(0, bisect_right(self._firsts, message) - 1)


def read(connection: sqlite3.Connection) -> Incarnations:
    (present,) = connection.execute("select incarnation from ledger").fetchone()
    return Incarnations(present, connection.execute("select first, name from incarnation order by first").fetchall())

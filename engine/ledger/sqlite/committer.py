"""The thread that waits for the disk."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, Final, NamedTuple

from engine.ledger.book import Changes
from engine.ledger.sqlite import rows

END: Final = object()


class Unput(NamedTuple):
    """What must still be put before the commit: too much for the event loop."""

    changes: Changes
    extra: list[rows.Statement]


class Committer(threading.Thread):
    """Commits one transaction after another, as it is told. `done` is called on this thread, with what went wrong."""

    def __init__(self, connection: sqlite3.Connection, done: Callable[[BaseException | None], None]) -> None:
        super().__init__(name="ledger-committer", daemon=True)
        self._connection = connection
        self._done = done
        self._orders: SimpleQueue[Any] = SimpleQueue()

    def commit(self, unput: Unput | None = None) -> None:
        """Commit what was put, after putting this. The connection is the thread's until `done`."""
        self._orders.put(unput)

    def end(self) -> None:
        """Nothing comes any more. The thread closes the connection, and ends."""
        self._orders.put(END)

    def run(self) -> None:
        while (unput := self._orders.get()) is not END:
            self._done(self._commit(unput))
        self._connection.close()

    def _commit(self, unput: Unput | None) -> BaseException | None:
        try:
            if unput is not None:
                rows.put(self._connection, *unput, wait=True)
            self._connection.execute("commit")
        except BaseException as error:
            undo(self._connection)
            return error
        return None


def undo(connection: sqlite3.Connection) -> None:
    """Leave nothing of a transaction that cannot be committed. Where that fails too, the next one cannot begin."""
    if connection.in_transaction:
        with contextlib.suppress(sqlite3.Error):
            connection.execute("rollback")

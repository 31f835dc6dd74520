"""One transaction of the writer, without a loop."""

from __future__ import annotations

from typing import Any

from engine.ledger.sqlite import rows
from engine.ledger.sqlite.committer import undo
from engine.ledger.sqlite.writer import Commit, Writer


def write(writer: Writer, *operations: Any) -> Commit:
    """What it would report. Raises what went wrong, and then nothing is written."""
    commit = Commit()
    connection = writer._connection
    try:
        if unput := writer.prepare(list(operations), commit):
            rows.put(connection, *unput, wait=True)
        connection.execute("commit")
    except BaseException:
        undo(connection)
        writer._book.undo()
        raise
    return commit

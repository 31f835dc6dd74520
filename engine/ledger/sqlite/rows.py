"""The rows of one transaction, put into the tables."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Sequence
from itertools import groupby
from operator import itemgetter
from typing import Any, TypeAlias

from engine.ledger.book import Changes
from engine.ledger.sqlite import schema
from engine.ledger.sqlite.statements import STATEMENTS

Statement: TypeAlias = tuple[str, tuple[Any, ...]]

PATIENCE = 5.0  # seconds that somebody else may be writing to the file
LOOK_AGAIN = 0.02


class StaleTermError(Exception):
    """Another holder of the delivery lock has written with a later term. This process must stop."""


def put(connection: sqlite3.Connection, changes: Changes, extra: Sequence[Statement], *, wait: bool) -> bool:
    """Begin a transaction and put the rows of it; the commit is the caller's. False, and nothing begun, where somebody
    else is writing to the file and `wait` is not given. sqlite3.Error where a row cannot be put."""
    if not _begun(connection, PATIENCE if wait else 0.0):
        return False
    for sql, values in extra:
        connection.execute(sql, values).fetchall()  # a pragma works a step for each row that is fetched
    many = connection.executemany
    for name, rows in groupby(changes.put, key=itemgetter(0)):  # in their order
        many(STATEMENTS[name], [values for _, values in rows])
    if changes.messages:
        many(schema.INSERT_MESSAGE, changes.messages)
    if changes.channels:
        many(schema.UPDATE_CHANNEL, changes.channels)
    if changes.epochs:
        many(schema.INSERT_EPOCH, changes.epochs)
    if changes.receipts:
        many(schema.INSERT_RECEIPT, changes.receipts)
    if changes.captured:
        many(schema.INSERT_CAPTURED, changes.captured)
    if changes.opened:
        many(schema.PUT_OPEN, changes.opened)
    if changes.closed:
        many(schema.DELETE_OPEN, changes.closed)
    if changes.events:
        many(schema.INSERT_EVENT, changes.events)
    if changes.outputs:
        many(schema.INSERT_OUTPUT, changes.outputs)
    if changes.progress and many(schema.PUT_PROGRESS, changes.progress).rowcount != len(changes.progress):
        raise StaleTermError("a claim of this term was refused: a later holder of the delivery lock has written")
    return True


def _begun(connection: sqlite3.Connection, patience: float) -> bool:
    until = time.monotonic() + patience
    while True:
        try:
            connection.execute("begin immediate")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:
                raise
            if not patience:
                return False
            if time.monotonic() > until:
                raise
            time.sleep(LOOK_AGAIN)
        else:
            return True

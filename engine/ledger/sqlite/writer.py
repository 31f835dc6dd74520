"""The one writer: a thread that takes whatever is queued, writes it in one transaction, and reports it.

Natural batching, no linger: while a transaction is being written, the next one gathers. What was stored is reported
(and only then acknowledged) after its commit has returned. A transaction that cannot be written is undone whole:

* where the ledger itself cannot be written (disk full, I/O error), messages and events are handed back unstored, since
  their senders still have them; what became of earlier messages is kept and tried again until it can be written;
* where one row is to blame, each operation is tried in a transaction of its own, and only the bad one fails.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import groupby
from operator import itemgetter
from queue import Empty, SimpleQueue
from time import monotonic, sleep
from typing import Any

from engine.ledger.book import Book, Changes, LedgerRuleError
from engine.ledger.course import Course
from engine.ledger.model import IntakeEvent, Message, Settlement, TapOutput, Together
from engine.ledger.sqlite import schema
from engine.ledger.sqlite.statements import STATEMENTS

MOST_MESSAGES = 256  # in one transaction: more only makes every sender in it wait longer
MOST_OPERATIONS = 2048
MOST_EVENTS_KEPT = 1000  # pieces of evidence kept in memory while the ledger cannot be written
RETRY_AFTER = 0.25  # seconds between attempts while the ledger cannot be written
ENDING_ATTEMPTS = 8  # at the end; what still cannot be written then stays claimed, and is resolved at the next start


class StaleTermError(Exception):
    """Another holder of the delivery lock has written with a later term. This process must stop."""


@dataclass(slots=True)
class Commit:
    """One durable transaction, or what could not be written."""

    stored: list[Message] = field(default_factory=list)
    settled: list[Settlement] = field(default_factory=list)
    events: list[IntakeEvent] = field(default_factory=list)
    outputs: list[TapOutput] = field(default_factory=list)
    claimed: list[tuple[Course, int]] = field(default_factory=list)  # courses whose claim moved, and to where
    reclaimed: list[tuple[Course, tuple[int, int, int], bool]] = field(default_factory=list)
    answers: list[tuple[Callable[[Any], None], Any]] = field(default_factory=list)
    unstored: list[Message | IntakeEvent | TapOutput] = field(default_factory=list)  # the ledger could not be written
    failed: list[tuple[Any, str]] = field(default_factory=list)  # this operation could not be written
    seconds: float = 0.0


@dataclass(slots=True)
class Order:
    """Something else to do in the writer's transaction, and whom to tell its result after the commit."""

    act: Callable[[Book], Any]
    done: Callable[[Any], None] | None = None
    sql: tuple[tuple[str, tuple[Any, ...]], ...] = ()
    failed: Callable[[str], None] | None = None


@dataclass(slots=True)
class Reclaim:
    """Claim one open part anew, singly."""

    course: Course
    key: tuple[int, int, int]


class Writer(threading.Thread):
    """Owns the writing connection and the book. `report` is called on this thread after each transaction."""

    def __init__(
        self,
        connection: sqlite3.Connection,
        book: Book,
        report: Callable[[Commit], None],
        unwritable: Callable[[str | None], None],
        fatal: Callable[[BaseException], None],
    ) -> None:
        super().__init__(name="ledger-writer", daemon=True)
        self.queue: SimpleQueue[Any] = SimpleQueue()
        self._connection = connection
        self._book = book
        self._report = report
        self._unwritable = unwritable  # told the reason once, and None when it can be written again
        self._fatal = fatal
        self._broken = False

    def run(self) -> None:
        kept: list[Any] = []  # what must still be written, first in first out
        ending = False
        attempts = ENDING_ATTEMPTS
        try:
            while not (ending and (not kept or attempts == 0)):
                operations = kept or [self.queue.get()]
                ending |= self._gather(operations)
                kept = self._write([operation for operation in operations if operation is not None])
                attempts -= ending
                if kept:
                    sleep(RETRY_AFTER)
        except BaseException as error:  # the process can no longer keep its promises
            self._fatal(error)
        finally:
            self._connection.close()

    def _gather(self, operations: list[Any]) -> bool:
        """Take what is queued. True when the end of the queue (None) was among it."""
        get, messages, last = self.queue.get_nowait, 0, operations[-1]
        try:
            while last is not None and messages < MOST_MESSAGES and len(operations) < MOST_OPERATIONS:
                last = get()
                operations.append(last)
                messages += 1 if type(last) is Message else len(last.messages) if type(last) is Together else 0
        except Empty:
            pass
        return last is None

    def _write(self, operations: list[Any]) -> list[Any]:
        """Write the operations in one transaction; what has to be tried again is returned."""
        started = monotonic()
        try:
            commit = self._transaction(operations)
        except StaleTermError:
            raise
        except Exception as error:
            return self._hand_back(operations, str(error)) if _unwritable(error) else self._one_by_one(operations)
        commit.seconds = monotonic() - started
        self._written(commit)
        return []

    def _written(self, commit: Commit) -> None:
        if self._broken:
            self._broken = False
            self._unwritable(None)
        self._report(commit)

    def _hand_back(self, operations: list[Any], reason: str) -> list[Any]:
        """Whoever waits for an answer hears that there is none; the rest is kept, evidence up to a bound."""
        if not self._broken:
            self._broken = True
            self._unwritable(reason)
        kept: list[Any] = []
        commit = Commit()
        events = 0
        for operation in operations:
            if isinstance(operation, Together):
                commit.unstored += operation.messages
                _told(commit, operation, False)
                continue
            if isinstance(operation, IntakeEvent | TapOutput):
                events += 1
                waits = operation.reply is not None or events > MOST_EVENTS_KEPT
            else:
                waits = isinstance(operation, Message)
            (commit.unstored if waits else kept).append(operation)
        if commit.unstored:
            self._report(commit)
        return kept

    def _one_by_one(self, operations: list[Any]) -> list[Any]:
        for at, operation in enumerate(operations):
            try:
                self._written(self._transaction([operation]))
            except StaleTermError:
                raise
            except Exception as error:
                if _unwritable(error):
                    return self._hand_back(operations[at:], str(error))
                # A rule's sentence names channels and numbers only; what SQLite says may hold a message's bytes.
                rule = isinstance(error, LedgerRuleError)
                reason = str(error) if rule else f"{type(error).__name__} in the ledger"
                self._report(_failed(operation, reason))
        return []

    def _transaction(self, operations: list[Any]) -> Commit:
        book, commit = self._book, Commit()
        book.begin()
        extra: list[tuple[str, tuple[Any, ...]]] = []
        try:
            store, settle, stored, settled = book.store, book.settle, commit.stored, commit.settled
            for operation in operations:
                kind = type(operation)
                if kind is Message:
                    store(operation)
                    stored.append(operation)
                elif kind is Settlement:
                    settle(operation)
                    settled.append(operation)
                elif kind is Together:
                    for message in operation.messages:
                        store(message)
                        stored.append(message)
                    for name, values in operation.rows:
                        book.put(name, *values)
                    _told(commit, operation, True)
                elif kind is Reclaim:
                    granted = book.claim_open(operation.course, operation.key)
                    commit.reclaimed.append((operation.course, operation.key, granted))
                elif kind is TapOutput:
                    book.output(operation)
                    commit.outputs.append(operation)
                elif kind is IntakeEvent:
                    book.event(operation)
                    commit.events.append(operation)
                else:
                    result = operation.act(book)
                    extra.extend(operation.sql)
                    if operation.done:
                        commit.answers.append((operation.done, result))
            changes, commit.claimed = book.finish()
            self._put(changes, extra)
        except BaseException:
            book.undo()
            if self._connection.in_transaction:
                self._connection.execute("rollback")
            raise
        return commit

    def _put(self, changes: Changes, extra: list[tuple[str, tuple[Any, ...]]]) -> None:
        connection = self._connection
        connection.execute("begin immediate")
        for sql, values in extra:
            connection.execute(sql, values)
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
        connection.execute("commit")


def _told(commit: Commit, operation: Together, written: bool) -> None:
    if operation.done is not None:
        commit.answers.append((operation.done, written))


def _failed(operation: Any, reason: str) -> Commit:
    """What is told of an operation that could not be written; each message of several is told by itself."""
    if not isinstance(operation, Together):
        return Commit(failed=[(operation, reason)])
    commit = Commit(failed=[(message, reason) for message in operation.messages])
    _told(commit, operation, False)
    return commit


def _unwritable(error: Exception) -> bool:
    """Whether the file is to blame (full, I/O error, damaged), and not what was to be written."""
    return isinstance(error, sqlite3.OperationalError) or type(error) is sqlite3.DatabaseError

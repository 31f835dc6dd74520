"""The one writer: it takes whatever is queued, writes it in one transaction, and reports it.

Natural batching, no linger: while a transaction is being committed, the next one gathers. What was stored is reported
(and only then acknowledged) after its commit has returned. Numbers and rows are put by the event loop, and only the
wait for the disk is a thread's (`engine.ledger.sqlite.committer`): two threads that hand every message to each other
cost a third of the throughput. What would keep the loop for long is put by that thread as well.

A transaction that cannot be written is undone whole:

* where the ledger itself cannot be written (disk full, I/O error), messages and events are handed back unstored, since
  their senders still have them; what became of earlier messages is kept and tried again until it can be written. What
  is beside them (search keys) is left out first, and says nothing of the ledger;
* where one row is to blame, each operation is tried in a transaction of its own, and only the bad one fails.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

from engine.ledger.book import Book, Changes, LedgerRuleError
from engine.ledger.course import Course
from engine.ledger.model import IntakeEvent, Message, Settlement, TapOutput, Together
from engine.ledger.sqlite import rows
from engine.ledger.sqlite.committer import Committer, Unput, undo

MOST_OPERATIONS = 512  # in one transaction: more only makes every sender in it wait longer
MOST_BYTES = 1 << 20  # of messages that the event loop puts by itself
MOST_BESIDE = 1 << 16  # and of what goes into the tables beside them
ROW = 256  # bytes that a row without a blob counts for
MOST_EVENTS_KEPT = 1000  # pieces of evidence kept in memory while the ledger cannot be written
RETRY_AFTER = 0.25  # seconds between attempts while the ledger cannot be written
ENDING_ATTEMPTS = 8  # at the end; what still cannot be written then stays claimed, and is resolved at the next start


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
    """Something else to do in the writer's transaction, and whom to tell its result after the commit. beside: nobody's
    message waits for it. Where it cannot be written it fails by itself, and the others are tried without it."""

    act: Callable[[Book], Any]
    done: Callable[[Any], None] | None = None
    sql: Sequence[rows.Statement] = ()
    failed: Callable[[str], None] | None = None
    beside: bool = False


@dataclass(slots=True)
class Reclaim:
    """Claim one open part anew, singly."""

    course: Course
    key: tuple[int, int, int]


class Writer:
    """Owns the book and the writing connection. Everything runs on the event loop but the commits; `report` is called
    after each of them."""

    def __init__(
        self,
        connection: sqlite3.Connection,
        book: Book,
        report: Callable[[Commit], None],
        unwritable: Callable[[str | None], None],
        fatal: Callable[[BaseException], None],
    ) -> None:
        self._connection = connection
        self._book = book
        self._report = report
        self._unwritable = unwritable  # told the reason once, and None when it can be written again
        self._fatal = fatal
        self._queue: deque[Any] = deque()
        self._singly: deque[Any] = deque()  # what failed together, to be tried one by one before anything else
        self._under_way: tuple[list[Any], Commit] | None = None  # what is being committed
        self._waiting = True  # no transaction begins: another one has not ended, a pause, or not started yet
        self._called = False  # whether the next one is to begin soon
        self._broken = False
        self._attempts = ENDING_ATTEMPTS
        self._ended: asyncio.Future[None] | None = None  # somebody waits until nothing is left
        self._given_up = False
        self._began = 0.0

    def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._connection.execute("pragma busy_timeout = 0")  # who has to wait for somebody else is the thread
        call, committed = self._loop.call_soon_threadsafe, self._committed
        self._committer = Committer(self._connection, lambda error: (call(committed, error), None)[1])
        self._committer.start()
        self._waiting = False
        self._soon()

    @property
    def queued(self) -> int:
        """Operations that wait for their transaction."""
        return len(self._queue)

    def put(self, operation: Any) -> None:
        """Have something written, in the order of the calls."""
        self._queue.append(operation)
        if not self._waiting and not self._called:
            self._soon()

    async def end(self) -> None:
        """Write what is queued, then close the connection."""
        if self._ended is not None:
            return
        if not self._given_up:
            self._ended = self._loop.create_future()
            self._soon()
            await self._ended
        self._waiting = True
        self._committer.end()
        await self._loop.run_in_executor(None, self._committer.join)

    # -- one transaction after the other

    def _soon(self) -> None:
        self._called = True
        self._loop.call_soon(self._begin)

    def _begin(self) -> None:
        """Write the next operations."""
        self._called = False
        if self._waiting:
            return
        queue, singly = self._queue, self._singly
        if singly:
            self._write([singly.popleft()])
        elif len(queue) > MOST_OPERATIONS:
            self._write([queue.popleft() for _ in range(MOST_OPERATIONS)])
        elif queue:
            operations = list(queue)
            queue.clear()
            self._write(operations)
        elif self._ended is not None and not self._ended.done():
            self._ended.set_result(None)

    def _write(self, operations: list[Any]) -> None:
        self._began = monotonic()
        commit = Commit()
        try:
            unput = self.prepare(operations, commit)
        except Exception as error:
            undo(self._connection)
            self._failed(operations, error)
            return
        self._waiting = True
        self._under_way = operations, commit
        self._committer.commit(unput)

    def _committed(self, error: BaseException | None) -> None:
        assert self._under_way is not None
        (operations, commit), self._under_way = self._under_way, None
        self._waiting = False
        if error is not None:
            self._failed(operations, error)
            return
        commit.seconds = monotonic() - self._began
        if self._broken:
            self._broken = False
            self._unwritable(None)
        self._begin()  # the disk has no rest while what it has written is reported
        self._report(commit)

    def _failed(self, operations: list[Any], error: BaseException) -> None:
        """Nothing of this transaction was written."""
        self._book.undo()
        if isinstance(error, rows.StaleTermError) or not isinstance(error, Exception):
            self._give_up(error)
        elif _unwritable(error) and any(_is_beside(each) for each in operations):
            self._leave_out(operations, str(error))
        elif _unwritable(error):
            self._hand_back([*operations, *self._singly], str(error))
        elif len(operations) > 1:
            self._singly.extend(operations)
            self._soon()
        else:
            # A rule's sentence names channels and numbers only; what SQLite says may hold a message's bytes.
            rule = isinstance(error, LedgerRuleError)
            reason = str(error) if rule else f"{type(error).__name__} in the ledger"
            self._loop.call_soon(self._report, _failed(operations[0], reason))
            self._soon()

    def _leave_out(self, operations: list[Any], reason: str) -> None:
        """What is beside the messages may be too much for what is left of the disk: they are tried without it."""
        failed = [(each, reason) for each in operations if _is_beside(each)]
        self._loop.call_soon(self._report, Commit(failed=failed))
        self._queue.extendleft(each for each in reversed(operations) if not _is_beside(each))
        self._soon()

    def _give_up(self, error: BaseException) -> None:
        """The process can no longer keep its promises: nothing more is written."""
        self._waiting = self._given_up = True
        if self._ended is not None:
            self._ended.set_result(None)
        self._fatal(error)

    def _hand_back(self, operations: list[Any], reason: str) -> None:
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
        if commit.unstored or commit.answers:
            self._loop.call_soon(self._report, commit)
        self._singly.clear()
        self._queue.extendleft(reversed(kept))
        self._rest(bool(kept))

    def _rest(self, kept: bool) -> None:
        """Try again, at once only where nothing waits that has been tried before."""
        if self._ended is not None:
            self._attempts -= 1
            if self._attempts == 0:
                self._queue.clear()
        if not kept:
            self._soon()
            return
        self._waiting = True
        self._loop.call_later(RETRY_AFTER, self._go_on)

    def _go_on(self) -> None:
        self._waiting = False
        self._begin()

    def prepare(self, operations: list[Any], commit: Commit) -> Unput | None:
        """Move the numbers and put the rows; what comes back, the committer is to put."""
        book = self._book
        book.begin()
        extra: list[rows.Statement] = []
        size = 0  # bytes to be written, or more than the loop may write
        store, settle, stored, settled = book.store, book.settle, commit.stored, commit.settled
        for operation in operations:
            kind = type(operation)
            if kind is Message:
                store(operation)
                stored.append(operation)
                size += len(operation.raw)
            elif kind is Settlement:
                following = settle(operation)
                settled.append(operation)
                if following is not None:
                    commit.reclaimed.append((operation.course, *following))
            elif kind is Together:
                for message in operation.messages:
                    store(message)
                    stored.append(message)
                    size += len(message.raw)
                for name, values in operation.rows:
                    book.put(name, *values)
                _told(commit, operation, True)
            elif kind is Reclaim:
                book.claim_anew(operation.course, operation.key)
            elif kind is TapOutput:
                book.output(operation)
                commit.outputs.append(operation)
                size += len(operation.raw)
            elif kind is IntakeEvent:
                book.event(operation)
                commit.events.append(operation)
                size += len(operation.raw)
            else:
                result = operation.act(book)
                extra.extend(operation.sql)
                if operation.done:
                    commit.answers.append((operation.done, result))
        changes, commit.claimed = book.finish()
        commit.reclaimed += book.granted
        much = extra or len(stored) > MOST_OPERATIONS or size > MOST_BYTES or _beside(changes) > MOST_BESIDE
        if much or not rows.put(self._connection, changes, extra, wait=False):
            return Unput(changes, extra)
        return None


def _beside(changes: Changes) -> int:
    """About how many bytes go into the tables beside the messages. A blob is the last of its row's values."""
    return sum(ROW + (len(values[-1]) if type(values[-1]) is bytes else 0) for _, values in changes.put)


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


def _is_beside(operation: Any) -> bool:
    return isinstance(operation, Order) and operation.beside


def _unwritable(error: Exception) -> bool:
    """Whether the file is to blame (full, I/O error, damaged), and not what was to be written."""
    return isinstance(error, sqlite3.OperationalError) or type(error) is sqlite3.DatabaseError

"""A service whose time stands still unless a test lets it pass, and whose ledger writes on the event loop.

Nothing here waits: an event loop jumps to its next timer, the ledger's writer and reader do their work between two
turns of the loop. So a test can go through hours in a moment, stop after any turn, and do the same again.
"""

from __future__ import annotations

import asyncio
import selectors
import sqlite3
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

from engine.ledger.sqlite.ledger import SqliteLedger
from engine.ledger.sqlite.writer import RETRY_AFTER, Commit, Writer
from engine.observe import events

BEGINNING = 1_760_000_000.0  # seconds since 1970 at which every loop begins


class StillLoop(asyncio.SelectorEventLoop):
    """An event loop that jumps to its next timer where nothing else is to be done."""

    def __init__(self, began: float = 0.0) -> None:
        self.moment = began
        super().__init__(_Jumping(self))

    def time(self) -> float:
        return self.moment


class _Jumping(selectors.SelectSelector):
    def __init__(self, loop: StillLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if not ready and timeout is None:
            raise AssertionError("nothing would ever happen any more")
        if not ready and timeout:
            self._loop.moment += max(timeout, 1e-6)  # less than that may be nothing at all, beside a large number
        return ready


class _AtOnce(Executor):
    """Runs what it is given before it returns."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future


class _StillWriter(Writer):
    """The writer, without its thread. `full`: the disk takes nothing."""

    full = False

    def _put(self, changes: Any, extra: Any) -> None:
        if self.full:
            raise sqlite3.OperationalError("database or disk is full")
        super()._put(changes, extra)


class StillLedger(SqliteLedger):
    """The SQLite ledger; `wrote` is called with each transaction's commit and the connection, before anybody else."""

    def __init__(
        self, path: Path, clock: Callable[[], int], wrote: Callable[[Commit, sqlite3.Connection], None]
    ) -> None:
        super().__init__(path, clock)
        self._connection.execute("pragma synchronous = off")
        self._reading.shutdown()
        self._reading: Any = _AtOnce()
        self._wrote = wrote
        self._kept: list[Any] = []
        self._coming = False
        self.dead = False

    def start(self, on_commit: Callable[[Commit], None]) -> None:
        loop = self._loop = asyncio.get_running_loop()

        def report(commit: Commit) -> None:
            self._wrote(commit, self._connection)
            loop.call_soon(self._alive, self._committed, commit, on_commit)

        self.writer = _StillWriter(
            self._connection,
            self._book,
            report,
            lambda reason: (loop.call_soon(self._alive, self._set_unwritable, reason), None)[1],
            lambda error: self.on_fatal(error),
        )
        self._put: Any = self._queue
        self.store = self.together = self.settle = self.event = self.output = self._queue

    def _alive(self, act: Callable[..., None], *values: Any) -> None:
        if not self.dead:
            act(*values)

    def _queue(self, operation: Any) -> None:
        self.writer.queue.put(operation)
        if not self._coming:
            self._coming = True
            self._loop.call_soon(self._alive, self._write)

    def _write(self) -> None:
        """As the thread does it: all that is queued, in one transaction."""
        self._coming = False
        while self._kept or not self.writer.queue.empty():
            operations = self._kept or [self.writer.queue.get_nowait()]
            self.writer._gather(operations)
            self._kept = self.writer._write([each for each in operations if each is not None])
            if self._kept:
                self._coming = True
                self._loop.call_later(RETRY_AFTER, self._alive, self._write)
                return

    async def close(self) -> None:
        self._write()
        self.abandon()

    def abandon(self) -> None:
        """End without writing what is queued, as a process does that is killed."""
        self.dead = True
        self._reader.close()
        self._connection.close()
        self._lock.close()


class Faults:
    """In the place of the log: nothing is printed, and defects of the product are kept."""

    def __init__(self) -> None:
        self.found: list[Any] = []

    def write(self, event: events.Event) -> None:
        if type(event).__name__ == "Fault":
            self.found.append(event)

    def flush(self) -> None:
        pass


@contextmanager
def still(
    clock: Callable[[], float], ledger: Callable[..., StillLedger], comparisons: Callable[..., Any]
) -> Iterator[Faults]:
    """Services that are made meanwhile live by `clock` (seconds), and are built with these."""
    time = SimpleNamespace(monotonic=clock, time=clock, time_ns=lambda: int((BEGINNING + clock()) * 1e6) * 1000)
    collector = SimpleNamespace(collect=lambda: 0, freeze=lambda: None, set_threshold=lambda *_: None)
    faults = Faults()
    with ExitStack() as stack:
        for name, value in (
            ("service.time", time), ("moves.time", time), ("moments.time", time), ("service.gc", collector),
            ("service.SqliteLedger", ledger), ("service.Comparisons", comparisons),
        ):  # fmt: skip
            stack.enter_context(mock.patch(f"engine.service.{name}", value))
        stack.enter_context(mock.patch.object(events, "LOG", faults))
        yield faults

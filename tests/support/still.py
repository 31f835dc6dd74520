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

from engine.ledger.sqlite.committer import Committer
from engine.ledger.sqlite.ledger import SqliteLedger
from engine.ledger.sqlite.writer import Commit, Writer
from engine.observe import events

BEGINNING = 1_760_000_000.0  # seconds since 1970 at which every loop begins


class StillLoop(asyncio.SelectorEventLoop):
    """An event loop that jumps to its next timer where nothing else is to be done."""

    def __init__(self, began: float = 0.0) -> None:
        self.moment = began
        super().__init__(_Jumping(self))

    def time(self) -> float:
        return self.moment

    def turns(self, count: int, act: Callable[[], Any] = lambda: None) -> None:
        """Do something on the loop, and let it turn so often."""

        async def turns() -> None:
            act()
            for _ in range(count):
                await asyncio.sleep(0)

        self.run_until_complete(turns())

    def cancel(self) -> None:
        """Whatever goes on, and let it end."""
        tasks = asyncio.all_tasks(self)
        for task in tasks:
            task.cancel()

        async def ends() -> None:
            await asyncio.gather(*tasks, return_exceptions=True)

        self.run_until_complete(ends())


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


class _AtOnceCommitter:
    """In the place of the thread: it commits before it returns."""

    def __init__(self, connection: sqlite3.Connection, done: Callable[[BaseException | None], Any]) -> None:
        self._connection = connection
        self._done = done

    def commit(self, unput: Any) -> None:
        self._done(Committer._commit(self, unput))  # type: ignore[arg-type]


class _StillWriter(Writer):
    """The writer, without its thread. `full`: the disk takes nothing. `dead`: its process has been killed."""

    full = dead = False
    wrote: Callable[[Commit, sqlite3.Connection], None]

    def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._committer: Any = _AtOnceCommitter(self._connection, self._at_once)
        self._waiting = False
        self._soon()

    def prepare(self, operations: list[Any], commit: Commit) -> Any:
        unput = super().prepare(operations, commit)
        if self.full:
            raise sqlite3.OperationalError("database or disk is full")
        return unput

    async def end(self) -> None:
        self._ended = self._loop.create_future()
        self._soon()
        await self._ended

    def _at_once(self, error: BaseException | None) -> None:
        if error is None and self._under_way is not None:
            self.wrote(self._under_way[1], self._connection)
        self._loop.call_soon(self._committed, error)

    def _begin(self) -> None:
        if not self.dead:
            super()._begin()

    def _committed(self, error: BaseException | None) -> None:
        if not self.dead:
            super()._committed(error)


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

    def start(self, on_commit: Callable[[Commit], None]) -> None:
        self._loop = asyncio.get_running_loop()

        self.writer = _StillWriter(
            self._connection,
            self._book,
            lambda commit: self._committed(commit, on_commit),
            self._set_unwritable,
            lambda error: self.on_fatal(error),
        )
        self.writer.wrote = self._wrote
        self._put: Any = self.writer.put
        self.store = self.together = self.settle = self.event = self.output = self._put
        self.writer.start()

    async def close(self) -> None:
        await self.writer.end()
        self.abandon()

    def abandon(self) -> None:
        """End without writing what is queued, as a process does that is killed."""
        self.writer.dead = True
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
    clock: Callable[[], float], ledger: Callable[..., StillLedger], comparisons: Callable[..., Any],
    ahead: Callable[[], float] = lambda: 0.0,
) -> Iterator[Faults]:  # fmt: skip
    """Services that are made meanwhile live by `clock` (seconds), and are built with these. ahead: by how many seconds
    the wall clock was set."""
    time = SimpleNamespace(
        monotonic=clock, time=clock, time_ns=lambda: int((BEGINNING + clock() + ahead()) * 1e6) * 1000
    )
    collector = SimpleNamespace(collect=lambda: 0, freeze=lambda: None, set_threshold=lambda *_: None)
    faults = Faults()
    with ExitStack() as stack:
        for name, value in (
            ("service.time", time), ("moves.time", time), ("moments.time", time), ("service.gc", collector),
            ("service.SqliteLedger", ledger), ("service.Comparisons", comparisons),
        ):  # fmt: skip
            stack.enter_context(mock.patch(f"engine.service.{name}", value))
        stack.enter_context(mock.patch("engine.service.keeping.ThreadPoolExecutor", return_value=_AtOnce()))
        stack.enter_context(mock.patch.object(events, "LOG", faults))
        yield faults

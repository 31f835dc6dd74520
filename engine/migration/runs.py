"""The runs that go on, in memory as in the ledger: a row with its step and deadline, which survives the command line
and the service. Whoever waits for one is woken when it changes.

    running --- its own last step ----> done
    running --- abort, or a hold ------> aborted
    running --- time over, a check ----> failed

A run that has ended stays so. Its barriers are lifted in the transaction that ends it. The runs that hand a port over
(`engine.migration.handover`) have none: nothing is withheld while they go on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from engine.ledger.book import Book
from engine.ledger.course import ChannelBook
from engine.ledger.sqlite.journal import RunRow

RUNNING, DONE, ABORTED, FAILED = "running", "done", "aborted", "failed"

TAKEOVER, GIVE_BACK = "takeover", "give-back"
HANDOVERS = frozenset({TAKEOVER, GIVE_BACK})
"""The verbs whose runs hand a port over."""


class Ended(Exception):
    """The run has ended while it waited: an abort, or a hold."""


class Failed(Exception):
    """The run cannot go on; the sentence says why. Nothing has changed."""


@dataclass(slots=True)
class Live:
    """A run and who waits for it. `version` grows with each change; `row.said` may be newer than the ledger's."""

    row: RunRow
    version: int = 1
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def now(self, row: RunRow) -> None:
        if row != self.row:
            self.row = row
            self.version += 1
            self.changed.set()
            self.changed = asyncio.Event()


class Runs:
    """All runs of this process: those that go on, and those that it has seen end."""

    def __init__(self, rows: Iterable[RunRow], last: int) -> None:
        self._live = {row.id: Live(row) for row in rows}
        self._last = last

    def new_id(self) -> int:
        self._last += 1
        return self._last

    def add(self, row: RunRow) -> None:
        self._live[row.id] = Live(row)

    def drop(self, id: int) -> None:
        """It never began."""
        self._live.pop(id, None)

    def get(self, id: int) -> Live | None:
        return self._live.get(id)

    def row(self, id: int) -> RunRow:
        return self._live[id].row

    def active(self) -> list[RunRow]:
        return [live.row for live in list(self._live.values()) if live.row.state == RUNNING]

    def of(self, channels: Iterable[str]) -> list[RunRow]:
        """The runs that go on with any of these channels."""
        wanted = set(channels)
        return [row for row in self.active() if wanted & set(row.channels)]

    def say(self, id: int, said: str) -> None:
        """What it waits for now. In memory only: after a restart it is found out anew."""
        live = self._live[id]
        if live.row.state == RUNNING:
            live.now(replace(live.row, said=said))

    def became(self, row: RunRow) -> None:
        """A change is durable."""
        self._live[row.id].now(row)

    async def wait(self, id: int, after: int, seconds: float) -> Live | None:
        """The run as soon as it is newer than `after`, or as it is when the time is over."""
        live = self._live.get(id)
        if live is not None and live.version <= after:
            try:
                async with asyncio.timeout(seconds):
                    await live.changed.wait()
            except TimeoutError:
                pass
        return live


def end(book: Book, row: RunRow, channels: Iterable[ChannelBook], state: str, said: str, at: int) -> RunRow:
    """In a transaction: the run's end, and its barriers lifted."""
    for channel in channels:
        if channel.barrier is not None and channel.barrier.run == row.id:
            book.lift(channel)
    ended = replace(row, state=state, said=said, ended=at)
    book.put("put_run", *ended.values())
    book.over |= {row.id}  # others hear of it only when it is durable
    return ended


def barred(row: RunRow) -> bool:
    """Whether a run stands behind barriers, without which it is over."""
    return row.verb not in HANDOVERS and row.step != "replay"


def owns(book: ChannelBook, run: int) -> bool:
    return book.barrier is not None and book.barrier.run == run

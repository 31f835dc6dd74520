"""Reads stored messages again, behind the hot path, and keeps their search keys; and looks for messages by them.

It goes on in small turns, in the order of the messages' ids. Acknowledgements come first: while much is being stored,
or commits are slow, it hardly does anything, and catches up when that is over. What has just been stored is still in
memory (`Fresh`), and is not read from the file again. The keys of the newest block are in memory too, and what has none
yet a search reads itself: what is found never depends on how far this has come.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from time import perf_counter

from engine.ledger.model import Message
from engine.ledger.sqlite import remembered, search
from engine.ledger.sqlite.ledger import SqliteLedger
from engine.ledger.sqlite.loading import LedgerError
from engine.ledger.sqlite.reader import Reader
from engine.ledger.sqlite.search import Filling, Found, Selection
from engine.ledger.sqlite.writer import Commit
from engine.migration.refused import Refused
from engine.observe.events import emit
from engine.observe.follower_events import SEARCH_LAG, FollowerWaits

TURN = 0.001  # seconds that it reads at a stretch, on the reading thread
SLICE = 0.0005  # seconds that it keeps the event loop for what is in memory
MOST_FRESH = 2048  # messages in memory
LARGEST_FRESH = 1 << 14  # bytes of one of them
REST = 2.0  # times what a turn has taken, before the next one
ACTIVE_REST = 9.0  # the same while messages come: it has a tenth of the time then
ACTIVE_FOR = 0.25  # seconds after the last one
GATHER = 0.2  # seconds that new messages may gather before they are read
BUSY_REST = 0.05  # seconds between turns while acknowledgements want the machine
BUSY_MESSAGES = 16  # in one commit: senders are waiting side by side
BUSY_SECONDS = 0.02  # that one commit takes
TIDY_EVERY = 600.0  # seconds
SET_BACK = 24 * 3600 * 1_000_000  # microseconds: later messages may seem so much older, where a clock was wrong
RETRY = 1.0  # seconds until what could not be written is tried again; then twice as long, and so on
LONGEST_RETRY = 60.0
MOST_UNREAD = 200_000  # messages that a search by key reads itself
CHUNK = 64  # candidates read at a time


class Fresh:
    """The newest messages, without a gap: as (id, received, control id, bytes). What does not fit is dropped, with all
    that is older."""

    def __init__(self) -> None:
        self.rows: deque[tuple[int, int, str | None, bytes]] = deque()
        self.before = 0  # the newest message that is not among them: up to there, the file is to be read

    def add(self, stored: Sequence[Message]) -> None:
        """These were stored last."""
        if len(self.rows) + len(stored) > MOST_FRESH:
            self.drop(self.rows[-1][0] if self.rows else 0)
        for message in stored:
            if message.large is None and len(message.raw) <= LARGEST_FRESH:
                self.rows.append((message.id, message.received, message.control_id, message.raw))
            else:
                self.drop(message.id)

    def drop(self, upto: int) -> None:
        """None of the messages up to this one, the newest, is among them."""
        self.rows.clear()
        self.before = max(self.before, upto)

    def into(self, filling: Filling, seconds: float) -> tuple[int, int | None]:
        """How many of them went into the block, in about so long; and the block of the next one, where that is another
        one. Only when all `before` them have been read."""
        until, count = perf_counter() + seconds, 0
        while self.rows:
            id = self.rows[0][0]
            if id > filling.upto:
                if id >> search.BLOCK != filling.block:
                    return count, id >> search.BLOCK
                filling.add(*self.rows[0])
                count += 1
            self.rows.popleft()
            if perf_counter() > until:
                break
        return count, None


class Follower:
    """The search keys of one ledger: `run` fills them, `find` and `matching` ask them."""

    def __init__(self, ledger: SqliteLedger) -> None:
        self._ledger = ledger
        self._filling = Filling(0)
        self._newest = 0
        self._fresh = Fresh()
        self._came = asyncio.Event()
        self._busy_until = self._active_until = 0.0
        SEARCH_LAG.of().read = lambda: float(self.lag)

    @property
    def lag(self) -> int:
        """How many stored messages have not been read yet."""
        return max(0, self._newest - self._filling.upto)

    def committed(self, commit: Commit) -> None:
        """Something was stored."""
        if commit.stored:
            self._newest = commit.stored[-1].id
            now = asyncio.get_running_loop().time()
            self._active_until = now + ACTIVE_FOR
            if len(commit.stored) > BUSY_MESSAGES or commit.seconds > BUSY_SECONDS:
                self._busy_until = now + BUSY_REST
                self._fresh.drop(self._newest)
            else:
                self._fresh.add(commit.stored)
            self._came.set()

    # -- filling

    async def open(self) -> None:
        """Where it left off."""
        written, (_, newest) = await self._ledger.read(
            lambda r: (search.newest_written(r.connection), search.bounds(r.connection))
        )
        self._filling = Filling(written + 1)
        self._newest = max(self._newest, newest)
        self._fresh.before = max(self._fresh.before, newest)

    async def run(self) -> None:
        """Follow until cancelled."""
        while True:
            self._came.clear()
            if not self.lag:
                await self._came.wait()
            newest = self._newest
            rest = await self._turn()
            await asyncio.sleep(rest if self._filling.upto < newest else GATHER)

    async def _turn(self) -> float:
        """Read a little, or write a block that is complete. How long to rest then."""
        time = asyncio.get_running_loop().time
        began, filling, newest = time(), self._filling, self._newest
        if filling.upto >= self._fresh.before:
            count, block = self._fresh.into(filling, SLICE)
        else:
            count, block = await self._ledger.read(lambda reader: _read(reader, filling))
        if block is not None and block > filling.block:
            await self._complete(filling, block)
        elif not count and newest == self._newest:  # what was there has been deleted
            self._newest = filling.upto
        return self.rest(time() - began)

    def rest(self, took: float) -> float:
        """How long to rest after a turn that took so long."""
        now = asyncio.get_running_loop().time()
        if now < self._busy_until:
            return BUSY_REST
        return (ACTIVE_REST if now < self._active_until else REST) * took

    async def _complete(self, filling: Filling, block: int) -> None:
        """No message of this block is to come: write its keys, and go on with the block of the next message."""
        wait = RETRY
        while not filling.empty:
            rows = await self._ledger.read(lambda _: filling.rows())
            try:
                await self._ledger.transaction(lambda book: None, rows, beside=True)
                break
            except LedgerError as error:
                emit(FollowerWaits(str(error)))
                await asyncio.sleep(wait)
                wait = min(2 * wait, LONGEST_RETRY)
        self._filling = Filling(block)  # only now: until then the keys are found in memory

    # -- what is gone

    async def tidy(self) -> None:
        """Now and then, until cancelled, drop the keys of messages that are gone, and what nobody can look up any
        more."""
        while True:
            await self.tidied()
            await asyncio.sleep(TIDY_EVERY)

    async def tidied(self) -> None:
        """Drop them now."""
        low, oldest, written = await self._ledger.read(_bounds)
        try:
            if 0 <= written < low >> search.BLOCK:
                block = low >> search.BLOCK
                await self._ledger.transaction(
                    lambda book: None, tuple((sql, (block,)) for sql in search.FORGET), beside=True
                )
            while await self._ledger.read(lambda reader: remembered.expired(reader.connection, oldest)):
                await self._ledger.transaction(lambda book: None, ((remembered.PRUNE, (oldest,)),), beside=True)
        except LedgerError as error:
            emit(FollowerWaits(str(error)))

    # -- searching

    async def find(self, selection: Selection, limit: int, before: int | None = None) -> list[Found]:
        """The newest messages that are meant, newest first. before: only ids below. Refused while too much is not read
        yet for a search by key."""
        rows: list[Found] = []
        async with aclosing(self._pages(selection, before, newest_first=True)) as pages:
            async for page in pages:
                rows += page
                if len(rows) >= limit:
                    break
        return rows[:limit]

    def matching(self, selection: Selection) -> AsyncGenerator[list[Found], None]:
        """All messages that are meant and stored by now, oldest first, some at a time; for verbs about many of them.
        Refused as for `find`."""
        return self._pages(selection, None, newest_first=False)

    async def _pages(
        self, selection: Selection, before: int | None, *, newest_first: bool
    ) -> AsyncGenerator[list[Found], None]:
        read = self._ledger.read
        low, high = await read(lambda reader: search.bounds(reader.connection))
        if before is not None:
            high = min(high, before - 1)
        self._too_much(selection, high)
        at: int | None = high if newest_first else low
        while at is not None and low <= at <= high:
            begin, end = (low, at) if newest_first else (at, high)
            ids, at = await read(lambda reader: self._candidates(reader, selection, begin, end, newest_first))  # noqa: B023
            for chunk in (ids[n : n + CHUNK] for n in range(0, len(ids), CHUNK)):
                if page := await read(lambda reader: search.verified(reader.connection, chunk, selection)):  # noqa: B023
                    yield page

    def _candidates(
        self, reader: Reader, selection: Selection, low: int, high: int, newest_first: bool
    ) -> tuple[list[int], int | None]:
        # Which block is in memory is looked at here, on the reading thread: a block that is not has been written.
        return search.candidates(reader.connection, self._filling, selection, low, high, newest_first=newest_first)

    def _too_much(self, selection: Selection, high: int) -> None:
        unread = high - self._filling.upto
        if selection.keys and unread > MOST_UNREAD:
            raise Refused(
                f"The search keys of {unread} messages are still to be read, which goes on by itself"
                " (interlock_search_lag_messages): search again when it is done, or list by channel and time alone."
            )


def _read(reader: Reader, filling: Filling) -> tuple[int, int | None]:
    """How many messages were read, and where the next one is; that only when the time was enough for all of a block."""
    count = filling.read(reader.connection, TURN)
    return count, None if count else search.next_block(reader.connection, filling)


def _bounds(reader: Reader) -> tuple[int, int, int]:
    """The id of the oldest message, a time before which none was received, and the first block whose keys are
    written."""
    connection = reader.connection
    oldest = (remembered.oldest(connection) or 0) - SET_BACK
    return search.bounds(connection)[0], oldest, search.oldest_written(connection)

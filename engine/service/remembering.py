"""Asks messages what is to be remembered of them, as soon as they are stored, and tells it to those that look it up.

Only channels with a rule are read. A message that looks something up waits (`caught_up`) until every earlier message of
these channels has been asked and what came of it is durable; while none of them is new, nobody waits at all.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

from engine.ledger.book import Book
from engine.ledger.model import Message
from engine.ledger.sqlite import remembered, search
from engine.ledger.sqlite.ledger import SqliteLedger
from engine.ledger.sqlite.loading import LedgerError
from engine.ledger.sqlite.remembered import Kept, Unread
from engine.observe.events import emit
from engine.observe.follower_events import REMEMBER_LAG, FollowerWaits, NotRemembered

Rule: TypeAlias = Callable[[str, bytes], Sequence[Kept]]
"""(channel's id, message) → what it brings. Pure; it raises where it cannot be applied."""

RETRY = 1.0  # seconds until what could not be written is tried again
SAVE_EVERY = 4096  # ids: how far a channel's reading may have come without a note of it


class Remembering:
    """What is remembered in one ledger. `rules`: channel's id → its rule."""

    def __init__(self, ledger: SqliteLedger, rules: Mapping[str, Rule]) -> None:
        self._ledger = ledger
        self._rules = {ledger.channels[name].id: (name, rule) for name, rule in rules.items()}
        self._upto = dict.fromkeys(self._rules, 0)  # all up to here was asked, and what came of it is durable
        self._saved = dict(self._upto)  # and this is noted
        self._stored = dict(self._upto)  # the newest message of the channel
        self._newest = 0
        self._connection: sqlite3.Connection | None = None
        self._came = asyncio.Event()
        self._waiters: list[tuple[int, asyncio.Future[None]]] = []
        REMEMBER_LAG.of().read = lambda: float(self.lag)

    @property
    def lag(self) -> int:
        """How far the slowest channel is behind the newest message, in ids."""
        behind = [self._upto[id] for id in self._rules if self._upto[id] < self._stored[id]]
        return self._newest - min(behind) if behind else 0

    def committed(self, stored: Sequence[Message]) -> None:
        """These messages are durable."""
        if not self._rules or not stored:
            return
        self._newest = stored[-1].id
        for message in stored:
            id = message.channel.id
            if id in self._rules:
                if self._upto[id] >= self._stored[id]:  # between its last message and this one there is none
                    self._upto[id] = message.id - 1
                self._stored[id] = message.id
                self._came.set()

    def caught_up(self, message: int) -> asyncio.Future[None]:
        """Done when every message before `message` has been asked."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if self._has_passed(message):
            waiter.set_result(None)
        else:
            self._waiters.append((message, waiter))
        return waiter

    def recall(self, store: str, key: str, message: int, later: bool = False) -> dict[str, Any] | None:
        """What the newest message before `message` brought, which is certain once it has `caught_up` (later: what the
        first one after it brought); None for nothing. A read of one row, on the thread that asks: the event loop's,
        where messages are mapped."""
        if self._connection is None:
            self._connection = sqlite3.connect(f"file:{self._ledger.path}?mode=ro", uri=True, isolation_level=None)
        return remembered.recall(self._connection, store, key, message, later)

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()

    # -- the loop

    async def open(self) -> None:
        """Where it left off. A channel that has a rule for the first time is read from its first message on."""
        if not self._rules:
            return
        upto, (_, newest) = await self._ledger.read(
            lambda reader: (remembered.upto(reader.connection), search.bounds(reader.connection))
        )
        self._newest = max(self._newest, newest)
        for id in self._rules:
            self._upto[id] = self._saved[id] = upto.get(id, 0)
            self._stored[id] = max(self._stored[id], newest)
        self._came.set()

    async def run(self) -> None:
        """Follow until cancelled."""
        while True:
            await self._came.wait()
            self._came.clear()
            while behind := [id for id in self._rules if self._upto[id] < self._stored[id]]:
                for id in behind:
                    await self._turn(id)

    async def _turn(self, id: int) -> None:
        """Ask the next messages of one channel."""
        after, newest = self._upto[id], self._newest
        messages, all_of_them = await self._ledger.read(
            lambda reader: remembered.unread(reader.connection, id, after, newest)
        )
        upto = newest if all_of_them else messages[-1].id
        rows = [row for message in messages for row in self._asked(id, message)]
        if rows or upto - self._saved[id] > SAVE_EVERY:
            await self._write(id, rows, upto)
            self._saved[id] = upto
        else:
            await asyncio.sleep(0)
        self._upto[id] = upto
        self._tell()

    def _asked(self, id: int, message: Unread) -> list[tuple[Any, ...]]:
        """The rows of what a message brings."""
        if not message.raw:  # its bytes are no longer kept, or are not those that were stored
            return []
        name, rule = self._rules[id]
        try:
            return [remembered.row(kept, message) for kept in rule(name, message.raw)]
        except Exception as error:  # the rim: no message may keep later ones from being delivered
            emit(NotRemembered(name, message.seq, type(error).__name__))
            return []

    async def _write(self, id: int, rows: list[tuple[Any, ...]], upto: int) -> None:
        """What they brought, and how far this has come, in one transaction."""

        def act(book: Book) -> None:
            for row in rows:
                book.put("put_remembered", *row)
            book.put("put_remembered_upto", id, upto)

        while True:
            try:
                await self._ledger.transaction(act)
            except LedgerError as error:
                emit(FollowerWaits(str(error)))
                await asyncio.sleep(RETRY)
            else:
                return

    def _has_passed(self, message: int) -> bool:
        return all(upto >= self._stored[id] or upto >= message - 1 for id, upto in self._upto.items())

    def _tell(self) -> None:
        waiting, self._waiters = self._waiters, []
        for message, waiter in waiting:
            if waiter.cancelled():
                continue
            if self._has_passed(message):
                waiter.set_result(None)
            else:
                self._waiters.append((message, waiter))

"""What is removed by age shares the writer with messages. Where the disk has room for these only, it is what waits."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from engine.ledger.keeping import CAPTURED, RAW, Keep
from engine.ledger.model import Message, Settlement, State
from engine.ledger.routing import Mode, Route, Routing
from engine.ledger.sqlite import rows
from engine.ledger.sqlite.ledger import SqliteLedger
from engine.ledger.sqlite.loading import LedgerError
from engine.ledger.sqlite.writer import Commit
from engine.service import keeping
from engine.service.keeping import Keeping

DAY = 86_400_000_000
ROUTING = Routing((Route("emr", "mllp", Mode.SEND, "channel"),))
KEEP = Keep(raw=10 * 86400.0, captured=5 * 86400.0, receipts=20 * 86400.0, events=10 * 86400.0)


class House:
    """A ledger with one message that is old enough. full: whether its disk has no room for what removes it."""

    def __init__(self, path: Path) -> None:
        self.wall = 1_000 * DAY
        self.full = True
        self.refused = 0
        self.unstored: list[Any] = []
        self.said: list[str | None] = []
        self.ledger = SqliteLedger(path, lambda: self.wall)
        self.ledger.on_unwritable = self.said.append
        self.ledger.start(self._committed)
        self.keeping = Keeping(self.ledger, {"acme": KEEP}, 3000 * 86400.0, lambda: self.wall)

    def _committed(self, commit: Commit) -> None:
        self.unstored += commit.unstored

    async def begin(self) -> None:
        book = await self.ledger.switch("acme", "live", ROUTING, {}, who="test", why="first")
        self.ledger.pause(book.courses[0], False)
        message = self.store()
        await self.ledger.transaction(lambda book: None)
        self.ledger.settle(Settlement(book.courses[0], message, State.CAPTURED, self.wall, output=b"made"))
        await self.ledger.transaction(lambda book: None)
        for days in (0, 12):
            self.wall += days * DAY
            self.keeping._since -= days * 86400.0
            await self.keeping.now()

    def store(self) -> Message:
        message = Message(self.ledger.channels["acme"], b"MSH|", self.wall)
        self.ledger.store(message)
        return message


@pytest.fixture
async def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[House]:
    real = rows.put

    def put(connection: sqlite3.Connection, changes: Any, extra: Any, **options: Any) -> bool:
        if house.full and any("delete from" in sql for sql, _ in extra):
            house.refused += 1
            raise sqlite3.OperationalError("database or disk is full")
        return real(connection, changes, extra, **options)

    monkeypatch.setattr(rows, "put", put)
    monkeypatch.setattr(keeping, "LEAST_REST", 0.0)
    monkeypatch.setattr(keeping, "AGAIN", (0.02,) * 100)
    house = House(tmp_path / "ledger.db")
    await house.begin()
    yield house
    house.keeping.close()
    await house.ledger.close()


async def test_messages_are_stored_and_the_look_goes_on_when_there_is_room(house: House) -> None:
    look = asyncio.ensure_future(house.keeping.once())
    try:
        async with asyncio.timeout(10):
            while house.refused < 3:
                house.store()
                await asyncio.sleep(0.001)
        assert (house.unstored, house.said, look.done()) == ([], [], False)
    finally:
        house.full = False
    done = await asyncio.wait_for(look, 10)
    assert done.rows == {("acme", CAPTURED): 1, ("acme", RAW): 1}
    assert await house.ledger.read(lambda reader: reader.rebuilt()) == []


async def test_a_look_that_finds_no_room_for_long_ends_and_says_so(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Others have their turn: a backup may not be made while it goes on."""
    monkeypatch.setattr(keeping, "AGAIN", (0.0,) * 2)
    with pytest.raises(LedgerError, match="full"):
        await asyncio.wait_for(house.keeping.once(), 10)
    assert (house.refused, house.said, house.keeping.turn.locked()) == (3, [], False)

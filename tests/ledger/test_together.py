"""Several operations share a transaction, in any order: none of them takes anything from another."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from engine.ledger.book import Book
from engine.ledger.course import ChannelBook, Compared, Hold
from engine.ledger.model import Message
from engine.ledger.routing import LEGACY, Grant, Mode, Route, Routing
from engine.ledger.sqlite.ledger import SqliteLedger
from engine.ledger.sqlite.writer import Order
from tests.ledger.writing import write

ROUTING = Routing((Route(LEGACY, "legacy", Mode.SEND, "channel"),))


@pytest.fixture
async def ledger(tmp_path: Path) -> AsyncIterator[SqliteLedger]:
    ledger = SqliteLedger(tmp_path / "ledger.db", lambda: 1)
    ledger.start(lambda commit: None)
    await ledger.switch("acme", "legacy", ROUTING, {}, who="test", why="first")
    ledger.pause(ledger.channels["acme"].courses[0], False)
    await ledger.transaction(lambda book: None)
    yield ledger
    await ledger.close()


def held(book: Book, channel: ChannelBook) -> None:
    book.hold(channel, Hold(1, "ops", "test", 1))
    book.hold(channel, None)


def barred(book: Book, channel: ChannelBook) -> None:
    book.bar(channel, 1)
    book.lift(channel)


TOUCHES: dict[str, Callable[[Book, ChannelBook], Any]] = {
    "comparison": lambda book, channel: book.compare(channel, "emr", Compared()),
    "hold": held,
    "barrier": barred,
    "grant": lambda book, channel: book.grant(
        channel, Grant("emr", 1, 1, Mode.SUPERSEDE, 1), at=1, who="ops", why="test"
    ),
    "release of an awaited answer": lambda book, channel: book.release(channel, 0),
    "pause": lambda book, channel: book.pause(channel.courses[0], False),
}


@pytest.mark.parametrize("name", TOUCHES)
async def test_a_message_is_counted_and_claimed_whatever_touched_its_channel_before(
    ledger: SqliteLedger, name: str
) -> None:
    channel = ledger.channels["acme"]
    operations = [Order(lambda book: TOUCHES[name](book, channel)), Message(channel, b"raw", 1, "C1")]
    assert ledger._writer
    await ledger.transaction(lambda book: None)
    commit = write(ledger._writer, *operations)
    assert [(course.name, claim) for course, claim in commit.claimed] == [(LEGACY, 1)]
    (counter,) = await ledger.read(
        lambda reader: reader.connection.execute("select seq from channel").fetchone()
    )  # fmt: skip
    assert counter == 1
    assert await ledger.read(lambda reader: reader.rebuilt()) == []

"""Messages too large for one transaction: whole when read again, never half there, and out of the way of others."""

from __future__ import annotations

import asyncio
import random
import sqlite3
from pathlib import Path

import pytest

from engine.ledger.model import IntakeEvent, Message, TapOutput, Together
from engine.ledger.routing import Mode, Route, Routing
from engine.ledger.sqlite import comparisons
from engine.ledger.sqlite.large import LARGE, PIECE
from engine.ledger.sqlite.ledger import SqliteLedger
from engine.ledger.sqlite.writer import Commit

ROUTING = Routing((Route("emr", "mllp", Mode.SEND, "channel"),))


class Kept:
    """A ledger with one channel, and its commits in order."""

    def __init__(self, path: Path) -> None:
        self.ledger = SqliteLedger(path, lambda: 1)
        self.commits: list[Commit] = []
        self.came = asyncio.Event()
        self.ledger.start(self._committed)

    def _committed(self, commit: Commit) -> None:
        self.commits.append(commit)
        self.came.set()

    async def open(self) -> None:
        await self.ledger.switch("a", "live", ROUTING, {}, who="t", why="t")
        self.book = self.ledger.channels["a"]

    async def stored(self, message: Message) -> None:
        async with asyncio.timeout(20):
            while not message.seq or not any(message in commit.stored for commit in self.commits):
                self.came.clear()
                await self.came.wait()


def rows(path: Path, query: str) -> list[tuple[object, ...]]:
    connection = sqlite3.connect(path)
    try:
        return connection.execute(query).fetchall()
    finally:
        connection.close()


def report(size: int) -> bytes:
    return b"MSH|^~\\&|LAB|||||ORU^R01|1|P|2.5\r" + random.Random(size).randbytes(size).replace(b"\r", b"-")


@pytest.mark.parametrize("size", [LARGE, LARGE + 1, 3 * PIECE * 5 + 7, 20 << 20])
async def test_it_is_read_as_it_came(tmp_path: Path, size: int) -> None:
    kept = Kept(tmp_path / "l.db")
    await kept.open()
    message = Message(kept.book, report(size), 1, "1")
    await kept.ledger.lay_down(message)
    kept.ledger.store(message)
    await kept.stored(message)
    again = await kept.ledger.message(kept.book, message.id)
    assert again.raw == message.raw
    (row,) = await kept.ledger.backlog(kept.book.courses[0], 0, 10)
    assert row.raw == message.raw
    (listed,) = await kept.ledger.read(lambda reader: reader.messages(kept.book.id, None, 1))
    assert listed[5] == len(message.raw)
    await kept.ledger.close()


async def test_others_are_committed_between_its_pieces(tmp_path: Path) -> None:
    kept = Kept(tmp_path / "l.db")
    await kept.open()
    large = Message(kept.book, report(8 << 20), 1, "1")
    laying = asyncio.ensure_future(kept.ledger.lay_down(large))
    small = []
    while not laying.done():
        message = Message(kept.book, b"MSH|^~\\&|x\r", 1, "2")
        kept.ledger.store(message)
        await kept.stored(message)
        small.append(message.seq)
    kept.ledger.store(large)
    await kept.stored(large)
    assert len(small) >= 5  # they did not wait for the end of it
    assert large.seq == small[-1] + 1
    await kept.ledger.close()


async def test_what_a_crash_left_of_it_is_removed_and_was_never_a_message(tmp_path: Path) -> None:
    path = tmp_path / "l.db"
    kept = Kept(path)
    await kept.open()
    whole = Message(kept.book, report(2 << 20), 1, "1")
    await kept.ledger.lay_down(whole)
    kept.ledger.store(whole)
    await kept.stored(whole)
    await kept.ledger.lay_down(Message(kept.book, report(3 << 20), 1, "2"))  # and no row: the process ends here
    await kept.ledger.close()
    assert len(rows(path, "select distinct large from piece")) == 2
    again = Kept(path)
    assert len(rows(path, "select distinct large from piece")) == 1
    assert (await again.ledger.message(again.ledger.channels["a"], whole.id)).raw == whole.raw
    assert await again.ledger.read(lambda reader: reader.rebuilt()) == []
    await again.ledger.close()


async def test_an_output_at_a_tap_can_be_large(tmp_path: Path) -> None:
    kept = Kept(tmp_path / "l.db")
    await kept.open()
    raw = report(5 << 20)
    output = TapOutput(kept.book, "emr", raw, 1, socket=1, control_id="1", decision="forwarded", seq=None)
    await kept.ledger.lay_down(output)
    kept.ledger.output(output)
    await kept.ledger.transaction(lambda book: None)
    assert await kept.ledger.read(lambda reader: comparisons.output(reader.connection, output.id)) == raw
    await kept.ledger.close()


async def test_several_are_stored_together_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "l.db"
    kept = Kept(path)
    await kept.open()
    good, bad = Message(kept.book, b"MSH|1\r", 1, "1"), Message(kept.book, b"MSH|2\r", 1, "2")
    bad.raw = None  # type: ignore[assignment] # a row that cannot be written
    told: list[bool] = []
    kept.ledger.together(Together([good, bad], done=told.append))
    kept.ledger.event(IntakeEvent(kept.book, "noise", "x", 1, "p", 1, b"x", 1))
    after = Message(kept.book, b"MSH|3\r", 1, "3")
    kept.ledger.store(after)
    await kept.stored(after)
    assert told == [False]
    assert [message for commit in kept.commits for message, _ in commit.failed] == [good, bad]
    assert rows(path, "select seq from message") == [(1,)]  # the third, and no gap before it
    third, fourth = Message(kept.book, b"MSH|4\r", 1, "4"), Message(kept.book, b"MSH|5\r", 1, "5")
    assert await kept.ledger.store_together([third, fourth])
    assert (third.seq, fourth.seq, fourth.id - third.id) == (2, 3, 1)
    await kept.ledger.close()

"""The writer: one transaction after the other, nothing said before its commit, and the loop not kept waiting."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from engine.ledger.course import Hold
from engine.ledger.model import Message
from engine.ledger.routing import LEGACY, Mode, Route, Routing
from engine.ledger.sqlite import rows, schema
from engine.ledger.sqlite.committer import Committer
from engine.ledger.sqlite.ledger import SqliteLedger
from engine.ledger.sqlite.loading import LedgerError
from engine.ledger.sqlite.writer import MOST_BYTES, MOST_OPERATIONS, Commit, Order

ROUTING = Routing((Route(LEGACY, "legacy", Mode.SEND, "channel"),))
TOUCH = ((schema.TOUCH, ()),)


class Disk(threading.Event):
    """Commits wait while it is cleared."""

    def __init__(self) -> None:
        super().__init__()
        self.set()
        self.came = threading.Event()


class Kept:
    """A ledger with one channel. What was reported, in its order."""

    def __init__(self, path: Path, disk: Disk) -> None:
        self.ledger = SqliteLedger(path, lambda: 1)
        self.ledger.on_unwritable = self._heard
        self.disk = disk
        self.said: list[str | None] = []  # why it cannot be written; None when it can be again
        self.commits: list[Commit] = []
        self.reported = asyncio.Event()
        self.ledger.start(self._committed)

    def _committed(self, commit: Commit) -> None:
        self.commits.append(commit)
        self.reported.set()

    def _heard(self, reason: str | None) -> None:
        self.said.append(reason)
        self.reported.set()

    @property
    def connection(self) -> sqlite3.Connection:
        return self.ledger._connection

    def store(self, count: int = 1, size: int = 10) -> list[Message]:
        made = [Message(self.ledger.channels["acme"], b"x" * size, 1, f"C{n}") for n in range(count)]
        for message in made:
            self.ledger.store(message)
        return made

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not condition():
                self.reported.clear()
                await self.reported.wait()

    async def at_the_disk(self) -> None:
        """Until a commit waits there."""
        self.disk.came.clear()
        assert await self.ledger._loop.run_in_executor(None, self.disk.came.wait, 10)

    async def stored(self, messages: list[Message]) -> None:
        await self.until(lambda: sum(len(commit.stored) for commit in self.commits) >= len(messages))


@pytest.fixture
async def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Kept]:
    disk, real = Disk(), Committer._commit

    def commit(self: Committer, unput: Any) -> BaseException | None:
        disk.came.set()
        disk.wait(10)
        return real(self, unput)

    monkeypatch.setattr(Committer, "_commit", commit)
    made = Kept(tmp_path / "ledger.db", disk)
    await made.ledger.switch("acme", "legacy", ROUTING, {}, who="test", why="first")
    made.commits.clear()
    yield made
    disk.set()
    await made.ledger.close()


def seen(kept: Kept) -> int:
    """How many messages another process would find."""
    with closing(sqlite3.connect(f"file:{kept.ledger.path}?mode=ro", uri=True)) as other:
        return int(other.execute("select count(*) from message").fetchone()[0])


async def test_nothing_is_reported_before_it_is_durable(kept: Kept) -> None:
    kept.disk.clear()
    sent = kept.store()
    await kept.ledger._loop.run_in_executor(None, lambda: None)  # the loop has had its turn
    assert kept.commits == []
    assert seen(kept) == 0
    kept.disk.set()
    await kept.stored(sent)
    assert seen(kept) == 1


async def test_what_comes_during_a_commit_shares_the_next_one(kept: Kept) -> None:
    kept.disk.clear()
    sent = kept.store()
    await asyncio.sleep(0)
    sent += kept.store(50)
    kept.disk.set()
    await kept.stored(sent)
    assert [len(commit.stored) for commit in kept.commits] == [1, 50]
    assert [message.seq for message in sent] == list(range(1, 52))


async def test_one_transaction_has_an_end_however_much_waits(kept: Kept) -> None:
    sent = kept.store(3 * MOST_OPERATIONS + 1)
    await kept.stored(sent)
    assert [len(commit.stored) for commit in kept.commits] == [*[MOST_OPERATIONS] * 3, 1]
    assert [message.seq for message in sent] == list(range(1, len(sent) + 1))


@pytest.mark.parametrize("much", ["bytes", "an order's statement"])
async def test_the_loop_does_not_wait_for_what_takes_long(
    kept: Kept, monkeypatch: pytest.MonkeyPatch, much: str
) -> None:
    where: list[threading.Thread] = []
    real = rows.put

    def put(*arguments: Any, **options: Any) -> bool:
        where.append(threading.current_thread())
        return real(*arguments, **options)

    monkeypatch.setattr(rows, "put", put)
    await kept.stored(kept.store())
    assert where == [threading.main_thread()]
    where.clear()
    if much == "bytes":
        kept.commits.clear()
        await kept.stored(kept.store(3, MOST_BYTES // 2))
    else:
        await kept.ledger.transaction(lambda book: None, TOUCH)
    assert [type(thread) for thread in where] == [Committer]


async def test_while_somebody_else_writes_the_loop_goes_on_and_nothing_is_lost(kept: Kept) -> None:
    with closing(sqlite3.connect(kept.ledger.path, isolation_level=None)) as other:
        other.execute("begin immediate")
        sent = kept.store()
        turns = 0
        for _ in range(20):
            await asyncio.sleep(0.005)
            turns += 1
        assert turns == 20
        assert kept.commits == []
        other.execute("rollback")
    await kept.stored(sent)
    assert kept.said == []
    assert seen(kept) == 1


async def test_what_fails_right_behind_a_recovery_is_a_trouble_of_its_own(kept: Kept) -> None:
    channel, hold = kept.ledger.channels["acme"], Hold(1, "ops", "test", 1)
    kept.connection.execute("pragma query_only = on")
    held = asyncio.ensure_future(kept.ledger.transaction(lambda book: book.hold(channel, hold)))
    await kept.until(lambda: len(kept.said) == 1)
    kept.disk.clear()
    kept.connection.execute("pragma query_only = off")
    await kept.at_the_disk()
    sent = kept.store()
    kept.connection.execute("pragma query_only = on")  # a commit can still end
    kept.disk.set()
    await held
    await kept.until(lambda: any(commit.unstored for commit in kept.commits))
    assert [reason is None for reason in kept.said] == [False, True, False]
    assert [operation for commit in kept.commits for operation in commit.unstored] == sent
    kept.connection.execute("pragma query_only = off")


LARGE = ("insert into search_bucket (id, keys) values (1, zeroblob(160000))", ())


async def test_what_is_beside_the_messages_and_finds_no_room_fails_alone(kept: Kept) -> None:
    """Alone, and between messages of one transaction: they are stored, in their order, and the ledger is well."""
    (pages,) = kept.connection.execute("pragma page_count").fetchone()
    kept.connection.execute(f"pragma max_page_count = {pages + 8}").fetchall()
    with pytest.raises(LedgerError, match="full"):
        await asyncio.wait_for(kept.ledger.transaction(lambda book: None, (LARGE,), beside=True), 10)
    before = kept.store(3)
    beside = asyncio.ensure_future(kept.ledger.transaction(lambda book: None, (LARGE,), beside=True))
    answer = kept.ledger.transaction(lambda book: book.last_message)
    after = kept.store(3)
    with pytest.raises(LedgerError, match="full"):
        await beside
    await kept.stored([*before, *after])
    assert [message.seq for message in (*before, *after)] == [1, 2, 3, 4, 5, 6]
    assert [message for commit in kept.commits for message in commit.stored] == [*before, *after]
    assert await answer == before[-1].id
    assert (kept.said, [one for commit in kept.commits for one in commit.unstored], seen(kept)) == ([], [], 6)


async def test_where_nothing_can_be_written_what_is_beside_fails_and_the_others_are_handed_back(kept: Kept) -> None:
    kept.connection.execute("pragma query_only = on")
    sent = kept.store(2)
    beside = asyncio.ensure_future(kept.ledger.transaction(lambda book: None, (LARGE,), beside=True))
    with pytest.raises(LedgerError):
        await beside
    await kept.until(lambda: any(commit.unstored for commit in kept.commits))
    assert [one for commit in kept.commits for one in commit.unstored] == sent
    assert [reason is None for reason in kept.said] == [False]
    kept.connection.execute("pragma query_only = off")


async def test_one_bad_row_fails_alone_and_the_order_of_the_others_stays(kept: Kept) -> None:
    sent = kept.store(5)
    sent[2].control_id = "\ud800"  # no text: SQLite refuses it
    await kept.until(lambda: sum(len(commit.stored) for commit in kept.commits) == 4)
    assert [operation for commit in kept.commits for operation, _ in commit.failed] == [sent[2]]
    assert [message.seq for message in (*sent[:2], *sent[3:])] == [1, 2, 3, 4]


async def test_all_that_was_said_is_written_before_the_end(kept: Kept) -> None:
    sent = kept.store(2 * MOST_OPERATIONS)
    kept.ledger._put(Order(lambda book: None))
    await kept.ledger.close()
    with closing(sqlite3.connect(kept.ledger.path)) as other:
        assert other.execute("select count(*) from message").fetchone() == (len(sent),)

"""The follower behind the hot path: it reads everything once, whatever ends it when, and keeps nobody waiting."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import pytest

from engine.ledger.course import ChannelBook
from engine.ledger.model import Message
from engine.ledger.routing import LEGACY, Mode, Route, Routing
from engine.ledger.sqlite import remembered, schema, search
from engine.ledger.sqlite.ledger import SqliteLedger
from engine.ledger.sqlite.search import Found, Selection
from engine.ledger.sqlite.writer import Commit
from engine.migration.refused import Refused
from engine.migration.selection import Selector
from engine.observe.events import Event
from engine.observe.follower_events import SEARCH_LAG, FollowerWaits
from engine.service import follower as following
from engine.service.follower import Follower
from engine.service.view import View
from engine.simulate.messages import Messages
from tests.support.fake import crash_image
from tests.support.house import live, served, until

MADE = Messages("oru", seed=5)
ROUTING = Routing((Route(LEGACY, "legacy", Mode.SEND, "channel"),))
BLOCK = search.PLACES
MESSAGE = Message(ChannelBook(1, "acme", 0), b"", 1)
ASKED: dict[str, Any] = {
    "selector": Selector(), "channel": None, "since": None, "until": None, "before": None, "limit": 50,
}  # fmt: skip


class House:
    """A ledger of two channels and its follower, which runs."""

    def __init__(self, path: Path) -> None:
        self.ledger = SqliteLedger(path, lambda: 1)
        self.follower = Follower(self.ledger)
        self.ledger.start(self.follower.committed)

    async def open(self) -> None:
        for name in ("acme", "beta"):
            if name not in self.ledger.channels:
                await self.ledger.switch(name, "legacy", ROUTING, {}, who="test", why="first")
        await self.follower.open()
        self.task = asyncio.create_task(self.follower.run())

    async def store(self, *numbers: int, channel: str = "acme", received: int = 1) -> None:
        for number in numbers:
            raw = MADE.message(number)
            self.ledger.store(Message(self.ledger.channels[channel], raw, received, MADE.control_id(number)))
        await self.ledger.transaction(lambda book: None)

    def skip(self, ids: int) -> None:
        """The next message has a much higher id: blocks are too large to fill them in a test."""
        self.ledger._book.last_message += ids

    async def order(self, number: int, **options: Any) -> list[int]:
        """The messages of an order, newest first: their numbers in their channel."""
        selection = Selection(frozenset({("order", f"simp005{number:07}")}), **options)
        return [found.seq for found in await self.follower.find(selection, 50)]

    def spare(self, pages: int) -> None:
        """From now on the disk has room for so many pages more."""
        (used,) = self.ledger._connection.execute("pragma page_count").fetchone()
        self.ledger._connection.execute(f"pragma max_page_count = {used + pages}").fetchall()

    async def read(self) -> None:
        """Until it has read everything."""
        await until(lambda: self.follower.lag == 0)

    async def close(self) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)
        await self.ledger.close()


@asynccontextmanager
async def house(path: Path) -> AsyncIterator[House]:
    made = House(path)
    await made.open()
    try:
        yield made
    finally:
        await made.close()


@pytest.fixture
async def here(tmp_path: Path) -> AsyncIterator[House]:
    async with house(tmp_path / "ledger.db") as made:
        yield made


def rows(path: Path) -> list[Any]:
    with closing(sqlite3.connect(path)) as connection:
        return [
            *connection.execute("select * from search_block order by 1"),
            *connection.execute("select * from search_bucket order by 1"),
        ]


def at_leisure(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is there is read in one turn, however slow the machine is."""
    for name in ("TURN", "SLICE"):
        monkeypatch.setattr(following, name, 60.0)


async def test_a_message_is_found_the_moment_it_is_stored_and_when_it_has_been_read(here: House) -> None:
    await here.store(1, 2, 3)
    assert here.follower.lag > 0
    assert await here.order(2) == [2]
    await here.read()
    assert await here.order(2) == [2]
    assert SEARCH_LAG.of().read is not None
    assert SEARCH_LAG.of().read() == 0


async def test_what_is_found_is_newest_first_and_goes_on_before_the_last(here: House) -> None:
    for channel in ("acme", "beta", "acme", "beta"):
        await here.store(7, channel=channel)
    selection = Selection(frozenset({("order", "simp0050000007")}))
    found = await here.follower.find(selection, 3)
    acme, beta = (here.ledger.channels[name].id for name in ("acme", "beta"))
    assert [(row.channel, row.seq) for row in found] == [(beta, 2), (acme, 2), (beta, 1)]
    assert [(row.channel, row.seq) for row in await here.follower.find(selection, 3, found[-1].id)] == [(acme, 1)]


async def test_all_that_match_come_oldest_first_in_pages(here: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "CHUNK", 2)
    await here.store(1, 2, 1, 1)
    here.skip(2 * BLOCK)
    await here.store(1, 3, 1)
    pages = [page async for page in here.follower.matching(Selection(frozenset({("order", "simp0050000001")})))]
    assert [row.seq for page in pages for row in page] == [1, 3, 4, 5, 7]
    assert all(isinstance(row, Found) for page in pages for row in page)
    assert max(map(len, pages)) == 2


async def test_a_block_in_which_more_was_stored_while_it_was_read_is_not_complete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, seen = search.Filling.read, [0]

    def read(self: search.Filling, *arguments: Any) -> int:
        """The first message is there, and the second one only when somebody looks whether that is all."""
        seen[0] += 1
        return 0 if seen[0] == 2 else real(self, *arguments)

    path = tmp_path / "ledger.db"
    async with house(path) as first:
        first.task.cancel()
        await first.store(1, 2)
        monkeypatch.setattr(search.Filling, "read", read)
        monkeypatch.setattr(following, "TURN", 0.0)
        first.follower._fresh.drop(2)
        for _ in range(2):
            await first.follower._turn()
        assert seen == [2]
    assert rows(path) == []
    async with house(path) as again:
        assert (await again.order(1), await again.order(2)) == ([1], [2])


@pytest.mark.parametrize("fresh", [0, 1, 2048])
async def test_messages_that_are_deleted_before_they_are_read_leave_no_lag(
    here: House, monkeypatch: pytest.MonkeyPatch, fresh: int
) -> None:
    monkeypatch.setattr(following, "MOST_FRESH", fresh)
    at_leisure(monkeypatch)
    here.task.cancel()
    await here.store(1, 2)
    await here.ledger.transaction(lambda book: None, (("delete from message", ()),))
    assert here.follower.lag == 2
    await here.follower._turn()
    assert here.follower.lag == 0


async def test_what_is_durable_is_found_at_every_moment_while_blocks_are_read_and_written(
    here: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "GATHER", 0.0)
    durable, ended = 0, False

    async def search_on() -> int:
        looks = 0
        while not ended:
            before = durable
            assert len(await here.order(1)) >= before
            looks += 1
        return looks

    searching = [asyncio.create_task(search_on()) for _ in range(2)]
    for _ in range(40):
        await here.store(1)
        durable += 1
        here.skip(BLOCK // 3)
        await asyncio.sleep(0)
    await here.read()
    ended = True
    assert min(await asyncio.gather(*searching)) > 10
    assert len([row for row in rows(here.ledger.path) if len(row) == 3]) > 10


async def test_what_is_still_in_memory_is_not_read_from_the_file_and_what_did_not_fit_is(
    here: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "MOST_FRESH", 4)
    monkeypatch.setattr(following, "LARGEST_FRESH", len(MADE.message(1)) + 20)
    at_leisure(monkeypatch)
    here.task.cancel()
    read: list[tuple[int, int]] = []
    real = search.Filling.read

    def reading(self: search.Filling, *arguments: Any) -> int:
        begin = self.upto
        count = real(self, *arguments)
        read.append((begin, self.upto))
        return count

    monkeypatch.setattr(search.Filling, "read", reading)

    async def followed() -> list[tuple[int, int]]:
        read.clear()
        while here.follower.lag:
            await here.follower._turn()
        return [(begin, end) for begin, end in read if end > begin]

    await here.store(1, 2)
    assert await followed() == []
    await here.store(3, 4, 5, 6, 7)  # in one transaction: more than fit
    await here.store(8)
    assert await followed() == [(2, 8)]  # the file is read at a stretch, whatever is in memory behind it
    large = MADE.message(9) + b"NTE|1||" + b"x" * 99
    here.ledger.store(Message(here.ledger.channels["acme"], large, 1, MADE.control_id(9)))
    await here.store(10, 11)
    assert (await followed())[0][0] == 8
    await here.store(12)
    assert await followed() == []
    assert [await here.order(number) for number in range(1, 13)] == [[number] for number in range(1, 13)]


async def test_a_ledger_of_an_earlier_release_is_read_from_its_first_message_on(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    async with house(path) as before:
        await before.store(1, 2)
        before.skip(BLOCK)
        await before.store(3)
        await before.read()
    with closing(sqlite3.connect(path)) as connection:
        for table in ("search_block", "search_bucket"):
            connection.execute(f"delete from {table}")
        connection.commit()
    async with house(path) as after:
        await after.read()
        assert [await after.order(number) for number in (1, 2, 3)] == [[1], [2], [3]]
    assert len([row for row in rows(path) if len(row) == 3]) == 1


@pytest.mark.parametrize("fresh", [0, 3, 2048])
async def test_whenever_it_is_killed_nothing_is_missing_and_nothing_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fresh: int
) -> None:
    """The files are copied, as a SIGKILL would leave them, after every single turn; each copy is read to its end."""
    monkeypatch.setattr(following, "MOST_FRESH", fresh)
    monkeypatch.setattr(following, "SLICE", 0.0)
    path = tmp_path / "ledger.db"
    images: list[Path] = []
    real = Follower._turn
    monkeypatch.setattr(following, "TURN", 0.0)  # one message in a turn
    monkeypatch.setattr(following, "GATHER", 0.0)

    async def turn(self: Follower) -> float:
        if self._ledger.path == path:
            images.append(tmp_path / f"{len(images)}" / "ledger.db")
            crash_image(path, images[-1].parent)
        return await real(self)

    monkeypatch.setattr(Follower, "_turn", turn)
    async with house(path) as first:
        for at in range(3):
            await first.store(1 + 3 * at, 2 + 3 * at, 1)
            first.skip(BLOCK)
        await first.store(20)
        await first.read()
    whole = rows(path)
    assert len([row for row in whole if len(row) == 3]) == 3
    assert len(images) > 10
    for image in images:
        async with house(image) as again:
            await again.store(20) if again.ledger._book.last_message < 3 * BLOCK else None
            await again.read()
            assert await again.order(1) == sorted(await again.order(1), reverse=True)
            stored = again.ledger.channels["acme"].seq
            found = await again.follower.find(Selection(frozenset({("type", "oru^r01")})), 50)
            assert [row.seq for row in found] == list(range(stored, 0, -1))
            written = search.newest_written(again.ledger._reader.connection)
        assert [row for row in rows(image) if row[0] <= written] == [row for row in whole if row[0] <= written]


async def test_no_bytes_stop_it(here: House) -> None:
    for raw in (b"", b"\xff\xfe", b"MSH", b"MSH|^~\\&|\xc3|||||||||||||||UNICODE UTF-8\rOBR|1|\xff\r", b"BHS|\rBTS|x"):
        here.ledger.store(Message(here.ledger.channels["acme"], raw, 1, None))
    await here.store(1)
    await here.read()
    assert await here.order(1) == [6]


async def test_keys_that_the_disk_has_no_room_for_keep_no_message_back(
    here: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[Event] = []
    troubles: list[str | None] = []
    here.ledger.on_unwritable = troubles.append
    monkeypatch.setattr(following, "emit", waits.append)
    monkeypatch.setattr(following, "RETRY", 0.01)
    real = search.Filling.rows
    bucket = ("insert or replace into search_bucket (id, keys) values (1, zeroblob(160000))", ())
    monkeypatch.setattr(search.Filling, "rows", lambda filling: (bucket, *real(filling)))
    await here.store(1)
    await here.read()
    here.spare(8)
    here.skip(BLOCK)
    await here.store(2, 3)
    await until(lambda: len(waits) >= 3)
    await here.store(4, 5)
    assert [await here.order(number) for number in range(1, 6)] == [[number] for number in range(1, 6)]
    assert {type(event) for event in waits} == {FollowerWaits}
    assert (troubles, here.ledger.unwritable, here.ledger.channels["acme"].seq) == ([], None, 5)
    here.spare(1 << 20)
    await here.read()
    assert [await here.order(number) for number in range(1, 6)] == [[number] for number in range(1, 6)]
    assert search.newest_written(here.ledger._reader.connection) == 0


@pytest.mark.parametrize("busy", [Commit(stored=[MESSAGE] * 17), Commit(stored=[MESSAGE], seconds=0.03)])
async def test_it_rests_while_many_senders_wait_or_the_disk_is_slow(here: House, busy: Commit) -> None:
    took = 0.0005
    here.follower.committed(Commit(stored=[MESSAGE], seconds=0.001))
    assert here.follower.rest(took) == took * following.ACTIVE_REST
    here.follower.committed(busy)
    assert here.follower.rest(took) == following.BUSY_REST
    await until(lambda: here.follower.rest(took) == took * following.REST)


async def test_a_search_by_key_is_refused_while_too_much_is_not_read(
    here: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "MOST_UNREAD", 2)
    here.task.cancel()
    await here.store(1, 2, 3)
    with pytest.raises(Refused, match="The search keys of 3 messages are still to be read"):
        await here.order(1)
    assert len(await here.follower.find(Selection(), 50)) == 3


async def test_what_is_over_for_every_message_that_is_there_is_forgotten(here: House) -> None:
    day = following.SET_BACK
    await here.store(1, received=10 * day)
    puts = tuple((remembered.PUT, ("s", f"{n}", 1, n * day, "{}")) for n in range(5, 12))
    await here.ledger.transaction(lambda book: None, puts)
    await here.follower.tidied()
    query = "select key from remembered order by until"
    kept = await here.ledger.read(lambda reader: reader.connection.execute(query).fetchall())
    assert [key for (key,) in kept] == ["10", "11"]


async def test_keys_of_messages_that_are_gone_are_dropped(here: House) -> None:
    for number in (1, 2, 3):
        await here.store(number)
        here.skip(BLOCK)
    await here.store(4)
    await here.read()
    await here.ledger.transaction(lambda book: None, (("delete from message where id < ?", (2 * BLOCK,)),))
    await here.follower.tidied()
    low, _ = await here.ledger.read(lambda reader: search.bounds(reader.connection))
    blocks = [row[0] for row in rows(here.ledger.path) if len(row) == 3]
    assert blocks == [block for block in blocks if block >= low >> search.BLOCK]
    assert [await here.order(number) for number in (1, 2, 3, 4)] == [[], [], [3], [4]]


def test_the_block_is_the_one_of_the_schema() -> None:
    assert search.BLOCK == schema.BLOCK


# -- as the API asks


async def test_a_service_finds_by_every_key_channel_and_time(tmp_path: Path) -> None:
    async with served(tmp_path, live("acme")) as (service, peer):
        view = View(service, "1")
        for number in range(1, 6):
            await peer.exchange(MADE.message(number))

        async def seqs(**asked: Any) -> list[int] | None:
            rows = await view.search(**{"keys": {}} | ASKED | asked)
            return None if rows is None else [row["seq"] for row in rows]

        for look in range(2):  # while it is not read, and when it is
            assert await seqs(keys={"control_id": MADE.control_id(3)}) == [3]
            assert await seqs(keys={"accession": "sim f005 0000004"}) == [4]
            assert await seqs(keys={"type": "ORU_R01"}, limit=2) == [5, 4]
            assert await seqs(keys={"type": "ORU", "order": "SIMP0050000002"}) == [2]
            assert await seqs(keys={"order": "SIMP0050000002"}, channel="nowhere") is None
            assert await seqs(selector=Selector(ids=("acme",)), before=("acme", 3)) == [2, 1]
            (third,) = await view.search(**ASKED, keys={"control_id": MADE.control_id(3)})
            assert third["channel"] == "acme"
            assert third["type"] == "ORU^R01"
            assert third["states"]
            received = await service.ledger.read(lambda reader: reader.received(3))
            assert 3 in await seqs(since=received, until=received + 1)
            assert await seqs(until=0) == []
            if not look:
                await until(lambda: service.follower.lag == 0)
        for asked in ({"keys": {"type": "^"}}, {"before": ("acme", 99)}, {"selector": Selector(ids=("acne",))}):
            with pytest.raises(Refused):
                await seqs(**asked)

"""What an order brought is there when its result comes, whoever is killed in between; and nobody waits for nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from engine.ledger.model import Message
from engine.ledger.routing import LEGACY, Mode, Route, Routing
from engine.ledger.sqlite import remembered
from engine.ledger.sqlite.ledger import SqliteLedger
from engine.ledger.sqlite.reader import Reader
from engine.ledger.sqlite.remembered import Kept
from engine.observe.follower_events import NOT_REMEMBERED, REMEMBER_LAG
from engine.service import remembering
from engine.service.remembering import Remembering
from tests.support.fake import crash_image
from tests.support.house import until

ROUTING = Routing((Route(LEGACY, "legacy", Mode.SEND, "channel"),))


def rule(channel: str, raw: bytes) -> Sequence[Kept]:
    """`order NUMBER WARD` brings the ward."""
    word, *parts = raw.decode().split()
    if word != "order":
        return ()
    number, ward = parts
    return [Kept("orders", number, {"ward": ward, "channel": channel}, 3600)]


class House:
    """Orders, which are remembered, and results, which are not."""

    def __init__(self, path: Path) -> None:
        self.ledger = SqliteLedger(path, lambda: 1)
        self.remembering: Remembering | None = None
        self.ledger.start(lambda commit: self.remembering.committed(commit.stored) if self.remembering else None)

    async def open(self, *channels: str) -> None:
        for name in ("orders", "results"):
            if name not in self.ledger.channels:
                await self.ledger.switch(name, "legacy", ROUTING, {}, who="test", why="first")
        self.remembering = Remembering(self.ledger, dict.fromkeys(channels, rule))
        await self.remembering.open()
        self.task = asyncio.create_task(self.remembering.run())

    def store(self, channel: str, text: str) -> Message:
        message = Message(self.ledger.channels[channel], text.encode(), 1, None)
        self.ledger.store(message)
        return message

    async def durable(self) -> None:
        await self.ledger.transaction(lambda book: None)

    async def order(self, number: int, ward: str) -> Message:
        return self.store("orders", f"order {number} {ward}")

    async def ward(self, number: int, asking: Message) -> str | None:
        assert self.remembering
        async with asyncio.timeout(10):
            await self.remembering.caught_up(asking.id)
        found = self.remembering.recall("orders", str(number), asking.id)
        return found["ward"] if found else None

    async def close(self) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)
        assert self.remembering
        self.remembering.close()
        await self.ledger.close()


@asynccontextmanager
async def house(path: Path, *channels: str) -> AsyncIterator[House]:
    made = House(path)
    await made.open(*(channels or ("orders",)))
    try:
        yield made
    finally:
        await made.close()


@pytest.fixture
async def here(tmp_path: Path) -> AsyncIterator[House]:
    async with house(tmp_path / "ledger.db") as made:
        yield made


async def test_a_result_that_comes_in_the_same_transaction_knows_its_order(here: House) -> None:
    await here.order(1, "3W")
    result = here.store("results", "result 1")
    await here.durable()
    assert await here.ward(1, result) == "3W"


async def test_a_result_sees_the_newest_order_before_it_and_never_a_later_one(here: House) -> None:
    before = here.store("results", "result 1")
    await here.order(1, "3W")
    first = here.store("results", "result 1")
    await here.order(1, "ICU")
    second = here.store("results", "result 1")
    await here.durable()
    for _ in range(2):  # and the same when it is asked again
        assert [await here.ward(1, each) for each in (second, first, before)] == ["ICU", "3W", None]


async def test_every_earlier_order_is_waited_for_however_many_there_are(
    here: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remembered, "MOST", 3)
    for number in range(100):
        await here.order(number, f"W{number}")
    result = here.store("results", "result")
    await here.durable()
    assert REMEMBER_LAG.of().read is not None
    assert REMEMBER_LAG.of().read() > 0
    assert await here.ward(99, result) == "W99"
    assert REMEMBER_LAG.of().read() == 0


async def test_while_nothing_new_is_to_be_remembered_nobody_waits(here: House) -> None:
    await here.order(1, "3W")
    await here.durable()
    assert here.remembering
    await until(lambda: REMEMBER_LAG.of().read() == 0)  # type: ignore[misc]
    here.task.cancel()
    for _ in range(10):
        result = here.store("results", "result")
        await here.durable()
        assert here.remembering.caught_up(result.id).done()
    await here.order(2, "3W")
    late = here.store("results", "result")
    await here.durable()
    assert not here.remembering.caught_up(late.id).done()
    assert here.remembering.caught_up(result.id).done()


async def test_without_rules_nobody_ever_waits(tmp_path: Path) -> None:
    made = House(tmp_path / "ledger.db")
    await made.open()
    result = made.store("orders", "order 1 3W")
    await made.durable()
    assert made.remembering
    assert made.remembering.caught_up(result.id).done()
    await made.close()


async def test_a_message_that_its_rule_cannot_read_keeps_no_other_waiting(here: House) -> None:
    before = NOT_REMEMBERED.of("orders").n
    here.store("orders", "order with too many words")
    here.store("orders", "")
    here.ledger.store(Message(here.ledger.channels["orders"], b"\xff", 1, None))
    await here.order(1, "3W")
    result = here.store("results", "result 1")
    await here.durable()
    assert await here.ward(1, result) == "3W"
    assert NOT_REMEMBERED.of("orders").n == before + 2  # the one without bytes was not asked


async def test_a_channel_that_gets_a_rule_later_is_read_from_its_first_message(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    async with house(path) as before:
        before.store("results", "order 7 OPD")
        await before.order(1, "3W")
        await before.durable()
    async with house(path, "orders", "results") as after:
        result = after.store("results", "result 7")
        await after.durable()
        assert [await after.ward(number, result) for number in (7, 1)] == ["OPD", "3W"]


async def test_whenever_it_is_killed_nothing_is_missing_and_nothing_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The files are copied, as a SIGKILL would leave them, before and after every turn; each copy is read on."""
    path = tmp_path / "ledger.db"
    images: list[Path] = []
    real = Remembering._turn
    monkeypatch.setattr(remembered, "MOST", 2)

    async def turn(self: Remembering, id: int) -> None:
        if self._ledger.path == path:
            images.append(tmp_path / f"{len(images)}" / "ledger.db")
            crash_image(path, images[-1].parent)
        await real(self, id)

    monkeypatch.setattr(Remembering, "_turn", turn)
    async with house(path) as first:
        for number in range(12):
            await first.order(number % 5, f"W{number}")
            first.store("results", "result")
            if number % 3 == 0:
                await first.durable()
        await first.durable()
        await until(lambda: REMEMBER_LAG.of().read() == 0)  # type: ignore[misc]
    assert len(images) > 5
    for image in images:
        async with house(image) as again:
            result = again.store("results", "result")
            await again.durable()
            stored = again.ledger.channels["orders"].seq
            for number in range(5):
                newest = max((n for n in range(stored) if n % 5 == number), default=None)
                assert await again.ward(number, result) == (None if newest is None else f"W{newest}")
            assert await again.ledger.read(_counted) == (stored, stored)


def _counted(reader: Reader) -> tuple[int, int]:
    """Rows, and the messages that they are of."""
    query = "select count(*), count(distinct message) from remembered"
    found: tuple[int, int] = reader.connection.execute(query).fetchone()
    return found


async def test_while_the_ledger_cannot_be_written_a_result_waits_and_gets_its_order_then(here: House) -> None:
    await here.order(1, "3W")
    result = here.store("results", "result 1")
    await here.durable()
    here.ledger._connection.execute("pragma query_only = on")
    asked = asyncio.ensure_future(here.ward(1, result))
    await until(lambda: here.ledger.unwritable is not None or asked.done())
    here.ledger._connection.execute("pragma query_only = off")
    assert await asked == "3W"


async def test_a_long_stretch_without_anything_to_remember_is_not_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remembering, "SAVE_EVERY", 10)
    path = tmp_path / "ledger.db"
    async with house(path) as before:
        for _ in range(30):
            before.store("orders", "other")
        await before.durable()
        await until(lambda: REMEMBER_LAG.of().read() == 0)  # type: ignore[misc]
        upto = await before.ledger.read(lambda reader: remembered.upto(reader.connection))
    assert list(upto.values()) == [30]

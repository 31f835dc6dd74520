"""What a mapping splits is compared part by part in a running service, before and after it was started again."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from dataclasses import replace
from pathlib import Path

import pytest

from engine.config.edge import Listen
from engine.config.model import Channel, Compare, Shape, Tap
from engine.service.service import Service
from engine.simulate.old_engine import OldEngine
from tests.service.test_outputs import SPLIT, result, service
from tests.support.house import channel, emr, exchanged, until, written
from tests.support.ports import free_port

ORDERS = ("A", "B", "C")


class Bench:
    """A channel in parallel: the old engine is to make a message for each order, and so do we."""

    it: Service

    def __init__(self, folder: Path, old_engine: int, clinic: int, shape: Shape) -> None:
        self.folder = folder
        self.tap_port = free_port()
        to = replace(emr(clinic), name="emr", mapping="split")
        assert to.endpoint is not None
        tap = Tap("clinic", Listen(self.tap_port, "127.0.0.1"), to.endpoint, settle=0.2, shape=shape)
        self.port = free_port()
        self.channel: Channel = channel(
            "acme", port=self.port, old_engine=old_engine, phase="parallel", destinations=(to,), taps=(tap,),
            rollback="guarded", compare=Compare(key=("PID-3.1",), within=3.0),
        )  # fmt: skip

    @asynccontextmanager
    async def process(self) -> AsyncIterator[None]:
        """One life of the service."""
        async with service(self.folder, self.channel, split=SPLIT) as self.it:
            yield

    async def captured(self) -> None:
        """What we would send is kept."""
        course = self.it.ledger.channels["acme"].course("emr")
        assert course is not None
        await until(lambda: course.frontier == 1 and not course.open)
        await written(self.it)

    async def output(self, order: str, value: str = "") -> None:
        """What the old engine makes of one of the orders, as our mapping does, unless it says something else there."""
        made = result(1, order).replace(b"|EMR|C|", b"|CLINIC|C|")
        made = made.replace(b"OBR|1|", f"OBR|{1 + ORDERS.index(order)}|".encode())
        await exchanged(self.tap_port, made.replace(f"||{order}\r".encode(), f"||{value or order}\r".encode()))

    async def judged(self) -> tuple[int, int]:
        """How many inputs matched and how many did not, when there is a verdict."""
        comparer = self.it.comparisons.channels["acme"].comparer
        await until(lambda: comparer.counts()["clinic"].pending == 0)
        compared = self.it.ledger.channels["acme"].compared["clinic"]
        return compared.matched, compared.unexplained

    def found(self) -> list[tuple[str, str, int]]:
        with closing(sqlite3.connect(self.folder / "interlock.db")) as db:
            return db.execute("select path, kind, count from discrepancy where tap = 'clinic' order by path").fetchall()


@asynccontextmanager
async def bench(folder: Path, old_engine: OldEngine, shape: Shape = "1:n") -> AsyncIterator[Bench]:
    clinic = OldEngine()
    await clinic.start()
    try:
        yield Bench(folder, old_engine.port, clinic.port, shape)
    finally:
        await clinic.stop()


@pytest.mark.parametrize("again", [False, True])
async def test_what_both_sides_split_alike_matches(tmp_path: Path, old_engine: OldEngine, again: bool) -> None:
    async with bench(tmp_path, old_engine) as one:
        async with one.process():
            await exchanged(one.port, result(1, *ORDERS))
            await one.captured()
            for order in ORDERS[: 1 if again else 3]:
                await one.output(order)
            if not again:
                assert await one.judged() == (1, 0)
        async with one.process():
            for order in ORDERS[1 if again else 3 :]:
                await one.output(order)
            assert await one.judged() == (1, 0)
        assert one.found() == []


@pytest.mark.parametrize("again", [False, True])
async def test_a_fault_in_a_later_part_is_seen(tmp_path: Path, old_engine: OldEngine, again: bool) -> None:
    async with bench(tmp_path, old_engine) as one:
        async with one.process():
            await exchanged(one.port, result(1, *ORDERS))
            await one.captured()
            if not again:
                for order in ORDERS:
                    await one.output(order, "X" if order == "C" else "")
                assert await one.judged() == (0, 1)
        async with one.process():
            if again:
                for order in ORDERS:
                    await one.output(order, "X" if order == "C" else "")
                assert await one.judged() == (0, 1)
        assert one.found() == [("OBX-5", "transformation", 1)]


@pytest.mark.parametrize("shape", ["1:1", "1:n"])
async def test_parts_that_the_old_engine_does_not_make_are_seen(
    tmp_path: Path, old_engine: OldEngine, shape: Shape
) -> None:
    async with bench(tmp_path, old_engine, shape) as one, one.process():
        await exchanged(one.port, result(1, *ORDERS))
        await one.captured()
        await one.output("A")
        assert await one.judged() == (0, 1)
        assert one.found() == [("message-more", "missing_in_legacy", 1)]

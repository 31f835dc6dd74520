"""The shapes of taps in a running service, and what belongs to nobody at a tap of each transport."""

from __future__ import annotations

import io
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import orjson
import pytest

from engine.compare.discrepancies import State
from engine.config.address import Address
from engine.config.edge import Listen, Takes
from engine.config.endpoint import Endpoint
from engine.config.feed import Rule
from engine.config.model import Channel, Compare, OnLink, Shape, Tap
from engine.hl7.ack import parse_ack
from engine.ledger.sqlite import comparisons
from engine.mllp.framing import encode
from engine.observe import events
from engine.observe.events import Event, Log
from engine.observe.tap_events import OUTPUTS, OutputParked
from engine.service.service import Service
from engine.simulate.forwarding import stamped
from engine.simulate.messages import Messages
from engine.simulate.old_engine import OldEngine
from tests.service import test_file_taps
from tests.support.house import Peer, assert_balances, channel, configuration, emr, fed, feed, running, to, until
from tests.support.moving import Operator
from tests.support.ports import free_port
from tests.support.scripted import Scripted, ack

MESSAGES = Messages("oru", seed=9)
STRANGERS = Messages("oru", seed=77)


class Bench:
    """One channel with a tap; the old engine takes everything, and its outputs are the test's. fed: the channel is one
    of a feed, which copies what is for BOTH to another one that has no tap."""

    def __init__(self, folder: Path, shape: Shape, fed: bool = False) -> None:
        self.folder = folder
        self.port, self.tap_port = free_port(), free_port()
        self.clinic, self.old = OldEngine(), OldEngine()
        self.shape: Shape = shape
        self.fed = fed
        self.service: Service
        self._sent = 0

    @asynccontextmanager
    async def around(self) -> AsyncIterator[Bench]:
        """The clinic and the old engine."""
        await self.clinic.start()
        await self.old.start()
        try:
            yield self
        finally:
            await self.old.stop()
            await self.clinic.stop()

    @asynccontextmanager
    async def process(self) -> AsyncIterator[None]:
        """One life of the service."""
        destination = emr(self.clinic.port)
        assert destination.endpoint
        tap = Tap("clinic", Listen(self.tap_port, "127.0.0.1"), destination.endpoint, settle=0.2, shape=self.shape)
        options: dict[str, Any] = {
            "destinations": (destination,), "taps": (tap,), "rollback": "guarded", "compare": Compare(within=20.0),
        }  # fmt: skip
        if self.fed:
            rules = (Rule((("MSH-6", ("BOTH",)),), ("acme-results", "other")),)
            source = feed("lis", "acme-results", "other", port=self.port, old_engine=self.old.port, rules=rules)
            made = configuration(
                self.folder, fed("acme-results", source, **options), fed("other", source), feeds=(source,)
            )
        else:
            only = channel("acme-results", port=self.port, old_engine=self.old.port, **options)
            made = configuration(self.folder, only)
        async with running(made) as self.service:
            self.operator = Operator(self.service)
            yield

    async def send(self, number: int, note: str = "", both: bool = False) -> None:
        """An input."""
        peer = await Peer.connect(self.port)
        fields = noted(MESSAGES.message(number), note).split(b"|")
        fields[5] = b"BOTH" if both else fields[5]
        assert parse_ack(await peer.exchange(b"|".join(fields))).code == "AA"  # type: ignore[union-attr]
        await peer.close()

    async def output(self, number: int, note: str = "", messages: Messages = MESSAGES) -> None:
        """What the old engine makes of it."""
        self._sent += 1
        peer = await Peer.connect(self.tap_port)
        raw = stamped(noted(messages.message(number), note), f"OE{self._sent:08}")
        assert parse_ack(await peer.exchange(raw)).code == "AA"  # type: ignore[union-attr]
        await peer.close()

    async def decided(self, *expected: tuple[str, int | None]) -> None:
        """What became of every output so far, oldest first."""
        await until(lambda: len(recorded(self.folder)) >= len(expected))
        assert recorded(self.folder) == list(expected)

    async def live(self) -> None:
        await self.operator.waive_all("acme-results")
        run = await self.operator.run("cutover", "acme-results")
        assert run["state"] == "done", run

    async def accept(self, path: str) -> None:
        """A person answers for a discrepancy."""
        comparer, ledger = self.service.comparisons.channels["acme-results"].comparer, self.service.ledger
        await comparer.flush()
        book = ledger.channels["acme-results"]
        rows = await ledger.read(lambda reader: comparisons.listing(reader.connection, [book.id], "open", 9))
        (row,) = [row for row in rows if row.path == path]
        await comparer.settle(row, State.ACCEPTED, "the ward's copy, which it no longer reads", "ada")

    async def found(self) -> list[tuple[str, str, int]]:
        """(path, kind, count) of what the tap's comparison has found."""
        await self.service.comparisons.channels["acme-results"].comparer.flush()
        with closing(sqlite3.connect(self.folder / "interlock.db")) as connection:
            rows = connection.execute("select path, kind, count from discrepancy where tap = 'clinic' order by path")
            return rows.fetchall()


def noted(raw: bytes, note: str) -> bytes:
    return raw + f"NTE|1|L|{note}\r".encode() if note else raw


def recorded(folder: Path) -> list[tuple[str, int | None]]:
    with closing(sqlite3.connect(folder / "interlock.db")) as connection:
        return connection.execute("select decision, seq from tap_output order by id").fetchall()


async def test_a_further_output_is_forwarded_before_the_cut_and_for_what_came_before_it(tmp_path: Path) -> None:
    async with Bench(tmp_path, "1:n").around() as bench:
        async with bench.process():
            await bench.operator.verb("parallel", "acme-results")
            await bench.send(1)
            await bench.output(1)
            await bench.output(1, "a copy for the ward")
            await bench.decided(("forwarded", 1), ("forwarded", 1))
            assert await bench.found() == [("message-more", "missing_in_target", 1)]
            await bench.accept("message-more")
            await bench.live()
            await bench.send(1, "corrected")  # of the same key; the old engine does not get it
            await bench.output(1, "a copy for the archive")
            await bench.decided(*[("forwarded", 1)] * 3)
        async with bench.process():
            await bench.output(1, "a copy for the insurer")
            await bench.decided(*[("forwarded", 1)] * 4)
            assert await bench.found() == [("message-more", "missing_in_target", 3)]
            assert len(bench.clinic.control_ids) == 5
            await assert_balances(bench.service)


async def test_in_live_a_further_output_is_of_what_the_feed_gave_the_old_engine(tmp_path: Path) -> None:
    async with Bench(tmp_path, "1:n", fed=True).around() as bench, bench.process():
        await bench.operator.verb("parallel", "acme-results")
        await bench.send(1)
        await bench.output(1)
        await bench.live()
        await bench.send(1, "corrected")
        await bench.output(1, "a copy for the archive")
        await bench.decided(("forwarded", 1), ("forwarded", 1))
        await bench.send(1, "corrected again", both=True)
        await bench.output(1, "corrected again")
        await bench.decided(("forwarded", 1), ("forwarded", 1), ("captured", 3))


async def test_what_one_input_has_more_of_is_compared_with_no_later_one(tmp_path: Path) -> None:
    async with Bench(tmp_path, "1:n").around() as bench, bench.process():
        await bench.operator.verb("parallel", "acme-results")
        for number in (1, 2, 3):
            await bench.send(number)
            await bench.output(number)
            await bench.output(number, "a copy")
        await bench.decided(*[("forwarded", seq) for seq in (1, 1, 2, 2, 3, 3)])
        comparer = bench.service.comparisons.channels["acme-results"].comparer
        await until(lambda: comparer.counts()["clinic"].totals.matched == 3)
        assert await bench.found() == [("message-more", "missing_in_target", 3)]


async def test_an_input_without_an_output_holds_no_cutover_up_where_there_may_be_none(tmp_path: Path) -> None:
    async with Bench(tmp_path, "0..1").around() as bench, bench.process():
        await bench.operator.verb("parallel", "acme-results")
        await bench.send(1)
        await bench.send(2)
        await bench.output(2)
        await bench.decided(("forwarded", 2))
        await bench.live()
        await bench.output(1)  # late work
        await bench.decided(("forwarded", 2), ("forwarded", 1))


# -- parked and paged, over every transport


class Heard:
    """Takes the place of the log."""

    def __init__(self) -> None:
        self.parked: list[OutputParked] = []

    def write(self, event: Event) -> None:
        if isinstance(event, OutputParked):
            self.parked.append(event)


@pytest.fixture
def heard(monkeypatch: pytest.MonkeyPatch) -> Heard:
    listener = Heard()
    monkeypatch.setattr(events, "LOG", listener)
    return listener


def counted(channel: str, tap: str) -> float:
    return OUTPUTS.of(channel, tap, "parked").n


def assert_paged(heard: Heard, channel: str, tap: str, before: float) -> None:
    (event,) = heard.parked
    assert (event.level, event.channel, event.tap) == ("error", channel, tap)
    assert "no input" in event.reason
    assert counted(channel, tap) == before + 1


async def test_at_a_port_what_belongs_to_nobody_is_parked_and_paged(tmp_path: Path, heard: Heard) -> None:
    async with Bench(tmp_path, "1:n").around() as bench, bench.process():
        await bench.operator.verb("parallel", "acme-results")
        await bench.live()
        before = counted("acme-results", "clinic")
        await bench.output(5, messages=STRANGERS)
        assert recorded(tmp_path) == [("parked", None)], "it is acknowledged when it is durable"
        assert_paged(heard, "acme-results", "clinic", before)
        assert bench.clinic.control_ids == []


async def test_what_many_times_belongs_to_nobody_is_one_page_and_counted_each_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = io.StringIO()
    log = Log(lines, readable=False, clock=lambda: 0.0)
    async with Bench(tmp_path, "1:n").around() as bench, bench.process():
        await bench.operator.verb("parallel", "acme-results")
        await bench.live()
        before = counted("acme-results", "clinic")
        monkeypatch.setattr(events, "LOG", log)
        for number in (5, 6, 7):
            await bench.output(number, messages=STRANGERS)
        assert recorded(tmp_path) == [("parked", None)] * 3
        assert counted("acme-results", "clinic") == before + 3
        log.flush()
    said = [line for line in map(orjson.loads, lines.getvalue().splitlines()) if line["event"] == "output_parked"]
    assert [(line["level"], line.get("more")) for line in said] == [("error", None), ("error", 1)]


async def test_in_a_folder_what_belongs_to_nobody_is_parked_and_paged(tmp_path: Path, heard: Heard) -> None:
    bench = test_file_taps.Bench(tmp_path)
    async with bench.run():
        await bench.live()
        before = counted("acme-results", "clinic")
        bench.output(5, messages=STRANGERS)
        await bench.recorded(("parked", None))
        assert_paged(heard, "acme-results", "clinic", before)
        assert bench.there(bench.clinic) == {}


def on_link(port: int, engine: int, clinic: int) -> Channel:
    endpoint = Endpoint("clinic", Address("127.0.0.1", clinic), on_unknown="resend", probe="none")
    tap = Tap("clinic", OnLink(), endpoint, settle=0.2, shape="1:n")
    return channel(
        "orders", port=port, old_engine=engine, taps=(tap,), compare=Compare(within=2.0), destinations=(to(endpoint),),
        takes=Takes(("ORU^R01",)), rollback="none",
    )  # fmt: skip


async def test_on_our_connection_what_belongs_to_nobody_is_parked_and_paged(tmp_path: Path, heard: Heard) -> None:
    clinic, port = OldEngine(), free_port()
    await clinic.start()
    async with (
        Scripted(lambda payload: () if parse_ack(payload) else (ack(payload),)) as engine,
        running(configuration(tmp_path, on_link(port, engine.port, clinic.port))) as service,
    ):
        operator, peer = Operator(service), await Peer.connect(port)
        await operator.verb("parallel", "orders")
        await peer.exchange(MESSAGES.message(1))  # so that there is a connection
        await operator.waive_all("orders")
        run = await operator.run("cutover", "orders")
        assert run["state"] == "done", run
        before = counted("orders", "clinic")
        stranger = stamped(STRANGERS.message(5), "OE5")
        engine.open[0].write(encode(stranger))
        await until(lambda: any(parse_ack(each) for each in engine.payloads))
        assert recorded(tmp_path) == [("parked", None)]
        assert_paged(heard, "orders", "clinic", before)
        answer = parse_ack(engine.payloads[-1])
        assert answer is not None
        assert (answer.code, answer.control_id) == ("AA", "OE5")
        assert clinic.control_ids == []
        await peer.close()
    await clinic.stop()

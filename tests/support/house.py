"""A service in this process, on free ports, with as little configuration as a test needs."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import shutil
import sqlite3
import ssl
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from functools import cache
from pathlib import Path
from typing import Any

from engine.config.address import Address
from engine.config.edge import Ack, FromFeed, Listen, Source, Takes
from engine.config.endpoint import Endpoint
from engine.config.feed import Feed, Rule, Table
from engine.config.model import (
    Channel,
    Compare,
    Configuration,
    Destination,
    Duplicates,
    Legacy,
    Medplum,
    Replay,
    Rollback,
    Service,
    Tap,
    Target,
)
from engine.config.shipped import shipped_mappings
from engine.ledger.model import State
from engine.mapping.library import Library
from engine.mllp.framing import Decoder, Frame, encode
from engine.service.service import Service as Running
from engine.service.ways import Ways
from tests.support.ports import free_port

ORU = Takes(("ORU^R01",))
"""What a channel of results takes."""

NO_REPEATS = Duplicates(0.0)


def channel(
    id: str,
    *,
    port: int = 0,
    source: Source | None = None,
    old_engine: int | Endpoint | None = None,
    phase: str | None = None,
    ack: str | Ack | None = None,
    on_relay_timeout: str = "silent",
    ack_timeout: float = 5.0,
    destinations: tuple[Destination, ...] = (),
    mapping: str | None = None,
    accepts: tuple[str, ...] = (),
    takes: Takes | None = None,
    max_bytes: int = 32 << 20,
    frame_timeout: float = 60.0,
    taps: tuple[Tap, ...] = (),
    settle: float = 0.1,
    rollback: Replay | None = None,
    compare: Compare | None = None,
    duplicates: Duplicates = NO_REPEATS,
) -> Channel:
    """`port` or `source`, else some free port; `old_engine`: the port of one, or an endpoint; `ack`: whose answer, or
    all of it. What is sent several times is several messages, unless `duplicates` is given."""
    legacy = None
    if old_engine is not None:
        endpoint = old_engine if isinstance(old_engine, Endpoint) else old(old_engine, ack_timeout=ack_timeout)
        legacy = Legacy(endpoint, settle, taps)
    if not isinstance(ack, Ack):
        ack = Ack(ack or ("authoritative" if legacy else "stored"), on_relay_timeout)  # type: ignore[arg-type]
    return Channel(
        id=id,
        connection=id.partition("-")[0],
        title=id,
        direction="results",
        labels={},
        owner="test@example.org",
        timezone="America/Chicago",
        phase=phase or ("legacy" if legacy else "live"),
        source=source or Listen(port or free_port(), "127.0.0.1", frame_timeout=frame_timeout),
        takes=takes or Takes(accepts, max_bytes=max_bytes),
        ack=ack,
        identity={},
        legacy=legacy,
        target=Target(mapping, destinations) if destinations else None,
        rollback=Rollback(rollback) if rollback else None,
        file="test",
        raw={},
        compare=compare or Compare(),
        duplicates=duplicates,
    )


MEDPLUM = Destination("medplum", "medplum", None)


def live(id: str = "acme", **options: Any) -> Channel:
    """Results without an old engine. Their endpoint is nowhere, unless there are other `destinations`."""
    return channel(id, **{"destinations": (emr(1),), "accepts": ORU.accepts} | options)


def old(port: int, **options: Any) -> Endpoint:
    """The old engine's endpoint."""
    return Endpoint(f"old-{port}", Address("127.0.0.1", port), **{"ack_timeout": 5.0, "connect_timeout": 2.0} | options)


def emr(port: int, on_unknown: Any = "resend", **options: Any) -> Destination:
    options = {"ack_timeout": 5.0} | options
    return to(Endpoint(f"emr-{port}", Address("127.0.0.1", port), on_unknown=on_unknown, **options))


def to(endpoint: Endpoint) -> Destination:
    """An endpoint as a destination."""
    return Destination(endpoint.name, "file" if endpoint.place else "mllp", endpoint, order_by="channel")


def feed(
    id: str,
    *channels: str,
    port: int = 0,
    old_engine: int | Endpoint | None = None,
    rules: tuple[Rule, ...] = (),
    table: Table | None = None,
    ack: Ack | None = None,
    takes: Takes | None = None,
) -> Feed:
    """A feed of these channels, at some free port unless `port` is given; the first is its default."""
    legacy = old(old_engine) if isinstance(old_engine, int) else old_engine
    source, ack = Listen(port or free_port(), "127.0.0.1"), ack or Ack("authoritative" if legacy else "stored")
    return Feed(id, source, takes or Takes(), ack, legacy, rules, table, channels[0], tuple(sorted(channels)), "test")


def fed(id: str, by: Feed, **options: Any) -> Channel:
    """A channel of a feed, with the feed's way to the old engine."""
    options = {"ack": by.ack, "takes": by.takes} | options
    return channel(id, source=FromFeed(by.id), old_engine=by.legacy, **options)


def configuration(
    folder: Path, *channels: Channel, medplum: str | None = None, time_limit: float = 1.0, feeds: tuple[Feed, ...] = ()
) -> Configuration:
    project = Medplum(medplum, "sandbox-client", "sandbox-secret", time_limit) if medplum else None
    service = Service(folder / "channels", None, folder / "interlock.db", Address("127.0.0.1", 0), 0, project, folder)
    return Configuration(service, channels, {}, feeds)


@cache
def compiled() -> Path:
    """The shipped mappings, compiled once for all tests of a session: that takes a second."""
    folder = Path(tempfile.mkdtemp(prefix="interlock-mappings-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    Library.load(shipped_mappings(), None, folder / "mappings")
    return folder / "mappings"


def give_compiled(configuration: Configuration) -> None:
    """What a service finds beside its ledger at a later start."""
    service = configuration.service
    beside = service.ledger.with_suffix(".mappings")
    if service.medplum is not None and service.mappings is None and not beside.exists():
        beside.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(compiled(), beside)  # with its rights


@asynccontextmanager
async def running(configuration: Configuration, ways: Ways | None = None) -> AsyncIterator[Running]:
    give_compiled(configuration)
    service = Running(configuration, ways)
    async with asyncio.timeout(60):
        await service.start()
    try:
        yield service
    finally:
        async with asyncio.timeout(60):
            await service.stop()


@asynccontextmanager
async def served(
    folder: Path, first: Channel, *channels: Channel, **options: Any
) -> AsyncIterator[tuple[Running, Peer]]:
    """A service of these channels, and a sender at the port of their feed, or of the first of them. `options`: of the
    configuration."""
    made = configuration(folder, first, *channels, **options)
    async with running(made) as service:
        peer = await Peer.connect(port_of((*made.feeds, first)[0]))
        try:
            yield service, peer
        finally:
            await peer.close()


def port_of(door: Channel | Feed) -> int:
    """Where it listens."""
    assert isinstance(door.source, Listen)
    return door.source.port


async def exchanged(port: int, *payloads: bytes) -> list[bytes]:
    """What a sender hears that connects, sends these one after the other, and goes."""
    peer = await Peer.connect(port)
    answers = [await peer.exchange(payload) for payload in payloads]
    await peer.close()
    return answers


async def until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    """Wait for something that no event announces; fails loudly after `seconds`."""
    try:
        async with asyncio.timeout(seconds):
            while not condition():  # noqa: ASYNC110 - nothing announces it
                await asyncio.sleep(0.01)
    except TimeoutError:
        raise AssertionError(f"not within {seconds} s: {condition}\n{_awaited()}") from None


def _awaited() -> str:
    """Where each task stands: a line each, innermost place last."""
    lines = []
    for task in asyncio.all_tasks():
        places, waits = [], task.get_coro()
        while waits is not None:
            frame = getattr(waits, "cr_frame", None) or getattr(waits, "gi_frame", None)
            if frame is None:
                places.append(repr(waits))
                break
            places.append(f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}")
            waits = getattr(waits, "cr_await", None) or getattr(waits, "gi_yieldfrom", None)
        lines.append(f"  {task.get_name()}: {' > '.join(places)}")
    return "\n".join(sorted(lines))


async def written(service: Running) -> None:
    """What was told to the ledger before is durable."""
    async with asyncio.timeout(20):
        await service.ledger.transaction(lambda book: None)


async def assert_balances(service: Running) -> list[dict[str, Any]]:
    """The equation from both sources, and every total counted again from the rows. The rows of the equation."""
    await written(service)  # and what the numbers in memory already say with it
    books = list(service.ledger.channels.values())
    rows = await service.ledger.read(lambda reader: reader.balance(books))
    assert all(row["balanced"] for row in rows), rows
    assert await service.ledger.read(lambda reader: reader.rebuilt()) == []
    return rows


async def states(service: Running, channel: str, destination: str) -> dict[str, int]:
    rows = await assert_balances(service)
    return next(row["states"] for row in rows if (row["channel"], row["destination"]) == (channel, destination))


async def kept(service: Running, *columns: str) -> list[tuple[Any, ...]]:
    """What was kept as evidence, oldest first: these columns of `intake_event`."""
    await written(service)
    query = f"select {', '.join(columns)} from intake_event order by id"
    return await service.ledger.read(lambda reader: reader.connection.execute(query).fetchall())


def open_work(service: Running, channel: str, destination: str) -> list[State]:
    """The states of what is not settled at a destination."""
    course = service.ledger.channels[channel].course(destination)
    assert course is not None
    return [work.state for work in course.open.values()]


def outputs(folder: Path) -> list[tuple[str, int | None]]:
    """What became of the old engine's outputs at taps, and of which inputs they were; oldest first."""
    with closing(sqlite3.connect(folder / "interlock.db")) as connection:
        return connection.execute("select decision, seq from tap_output order by id").fetchall()


async def settled(service: Running, channel: str, destination: str, count: int, seconds: float = 20.0) -> None:
    """Until the first `count` messages of a channel are settled at a destination, and that is durable."""
    course = service.ledger.channels[channel].course(destination)
    assert course is not None
    await until(lambda: course.frontier >= count and not course.open, seconds)
    await written(service)  # its frontier moves before its receipts are in the ledger


class Peer:
    """A vendor's socket, byte by byte."""

    @classmethod
    async def connect(cls, port: int, tls: ssl.SSLContext | None = None, *, address: str | None = None) -> Peer:
        """`address`: from which it connects."""
        self = cls()
        options: dict[str, Any] = {"ssl": tls, "server_hostname": "localhost" if tls else None}
        if address is not None:
            options["local_addr"] = (address, 0)
        async with asyncio.timeout(10):
            self.reader, self.writer = await asyncio.open_connection("127.0.0.1", port, **options)
        self.decoder, self.frames = Decoder(), []
        return self

    async def exchange(self, payload: bytes, seconds: float = 10.0) -> bytes:
        self.send(payload)
        return await self.answer(seconds)

    def send(self, payload: bytes) -> None:
        self.writer.write(encode(payload))

    async def answer(self, seconds: float = 10.0) -> bytes:
        """The next frame. ConnectionError where there is none any more."""
        async with asyncio.timeout(seconds):
            while not self.frames:
                data = await self.reader.read(65536)
                if not data:
                    raise ConnectionError("closed")
                self.frames += [event.payload for event in self.decoder.feed(data) if isinstance(event, Frame)]
        return self.frames.pop(0)

    async def silence(self, seconds: float = 0.3) -> bool:
        """Whether nothing comes for so long."""
        try:
            await self.answer(seconds)
        except TimeoutError:
            return True
        return False

    async def closed(self, seconds: float = 10.0) -> bool:
        """Whether the other side ends the connection within that time, with nothing said before."""
        try:
            await self.answer(seconds)
        except OSError:  # among them ConnectionError, and TimeoutError
            return self.reader.at_eof() or self.reader.exception() is not None
        return False

    async def close(self) -> None:
        self.writer.close()
        with contextlib.suppress(OSError):
            async with asyncio.timeout(10):
                await self.writer.wait_closed()

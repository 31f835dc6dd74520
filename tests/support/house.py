"""A service in this process, on free ports, with as little configuration as a test needs."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from engine.config.address import Address
from engine.config.edge import Ack, Listen, Takes
from engine.config.endpoint import Endpoint
from engine.config.model import (
    Channel,
    Compare,
    Configuration,
    Destination,
    Legacy,
    Medplum,
    Replay,
    Rollback,
    Service,
    Tap,
    Target,
)
from engine.mllp.framing import Decoder, Frame, encode
from engine.service.service import Service as Running


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def channel(
    id: str,
    *,
    port: int,
    old_engine: int | None = None,
    phase: str | None = None,
    ack: str | None = None,
    on_relay_timeout: str = "silent",
    ack_timeout: float = 5.0,
    destinations: tuple[Destination, ...] = (),
    mapping: str | None = None,
    accepts: tuple[str, ...] = (),
    max_bytes: int = 32 << 20,
    frame_timeout: float = 60.0,
    taps: tuple[Tap, ...] = (),
    settle: float = 0.1,
    rollback: Replay | None = None,
    compare: Compare | None = None,
) -> Channel:
    legacy = None
    if old_engine is not None:
        endpoint = Endpoint(
            f"old-{old_engine}", Address("127.0.0.1", old_engine), ack_timeout=ack_timeout, connect_timeout=2
        )
        legacy = Legacy(endpoint, settle, taps)
    return Channel(
        id=id,
        connection=id.partition("-")[0],
        title=id,
        direction="results",
        labels={},
        owner="test@example.org",
        timezone="America/Chicago",
        phase=phase or ("legacy" if legacy else "live"),
        source=Listen(port, "127.0.0.1", frame_timeout=frame_timeout),
        takes=Takes(accepts, max_bytes=max_bytes),
        ack=Ack(ack or ("authoritative" if legacy else "stored"), on_relay_timeout),  # type: ignore[arg-type]
        identity={},
        legacy=legacy,
        target=Target(mapping, destinations) if destinations else None,
        rollback=Rollback(rollback) if rollback else None,
        file="test",
        raw={},
        compare=compare or Compare(),
    )


MEDPLUM = Destination("medplum", "medplum", None)


def emr(port: int, on_unknown: Any = "resend") -> Destination:
    endpoint = Endpoint(f"emr-{port}", Address("127.0.0.1", port), ack_timeout=5, on_unknown=on_unknown)
    return Destination(endpoint.name, "mllp", endpoint, order_by="channel")


def configuration(
    folder: Path, *channels: Channel, medplum: str | None = None, time_limit: float = 1.0
) -> Configuration:
    project = Medplum(medplum, "sandbox-client", "sandbox-secret", time_limit) if medplum else None
    service = Service(folder / "channels", None, folder / "interlock.db", Address("127.0.0.1", 0), 0, project, folder)
    return Configuration(service, channels, {})


@asynccontextmanager
async def running(configuration: Configuration) -> AsyncIterator[Running]:
    service = Running(configuration)
    await service.start()
    try:
        yield service
    finally:
        await service.stop()


async def until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    """Wait for something that no event announces; fails loudly after `seconds`."""
    try:
        async with asyncio.timeout(seconds):
            while not condition():  # noqa: ASYNC110 - nothing announces it
                await asyncio.sleep(0.01)
    except TimeoutError:
        raise AssertionError(f"not within {seconds} s: {condition}") from None


async def assert_balances(service: Running) -> list[dict[str, Any]]:
    """The equation from both sources, and every total counted again from the rows. The rows of the equation."""
    await service.ledger.transaction(lambda book: None)  # what the numbers in memory already say is durable
    books = list(service.ledger.channels.values())
    rows = await service.ledger.read(lambda reader: reader.balance(books))
    assert all(row["balanced"] for row in rows), rows
    assert await service.ledger.read(lambda reader: reader.rebuilt()) == []
    return rows


async def states(service: Running, channel: str, destination: str) -> dict[str, int]:
    rows = await assert_balances(service)
    return next(row["states"] for row in rows if (row["channel"], row["destination"]) == (channel, destination))


class Peer:
    """A vendor's socket, byte by byte."""

    @classmethod
    async def connect(cls, port: int) -> Peer:
        self = cls()
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", port)
        self.decoder, self.frames = Decoder(), []
        return self

    async def exchange(self, payload: bytes, seconds: float = 10.0) -> bytes:
        self.writer.write(encode(payload))
        return await self.answer(seconds)

    async def answer(self, seconds: float = 10.0) -> bytes:
        async with asyncio.timeout(seconds):
            while not self.frames:
                data = await self.reader.read(65536)
                if not data:
                    raise ConnectionError("closed")
                self.frames += [event.payload for event in self.decoder.feed(data) if isinstance(event, Frame)]
        return self.frames.pop(0)

    async def close(self) -> None:
        self.writer.close()
        await self.writer.wait_closed()

"""The three ways out of a service on which a peer's server is reached: a destination, the legacy path, a tap.

On each the test is the vendor, or the old engine that sends on, and `send` gives the answer that it gets.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from engine.config.edge import Listen, Takes
from engine.config.endpoint import Endpoint
from engine.config.model import Tap
from engine.hl7.ack import Answer, parse_ack
from engine.ledger.model import State
from engine.service.service import Service
from engine.simulate.old_engine import OldEngine
from tests.peers.texts import ACCEPTS
from tests.support.house import (
    Peer,
    channel,
    configuration,
    old,
    open_work,
    port_of,
    running,
    settled,
    states,
    to,
    until,
)
from tests.support.ports import free_port

CHANNEL = "acme-results"


class Way:
    """A running service, and a sender at the port that leads to the peer."""

    def __init__(self, service: Service, sender: Peer, destination: str | None) -> None:
        """`destination`: as the ledger has it; None where the ledger counts nothing."""
        self.service = service
        self._sender = sender
        self._destination = destination

    async def send(self, text: str, encoding: str = "utf-8") -> Answer:
        answer = parse_ack(await self._sender.exchange(text.encode(encoding)))
        assert answer is not None
        return answer

    async def opened(self) -> str:
        """What has become of the oldest message that was tried and is not settled, once there is one."""
        assert self._destination is not None
        to = self._destination

        def tried() -> list[str]:
            return [state.label for state in open_work(self.service, CHANNEL, to) if state is not State.SENDING]

        await until(lambda: bool(tried()))
        return tried()[0]

    async def settled(self, count: int) -> dict[str, int]:
        """What became of the first `count` messages, when that is known of all of them."""
        if self._destination is None:
            return {"delivered": count}
        await settled(self.service, CHANNEL, self._destination, count)
        return await states(self.service, CHANNEL, self._destination)


def endpoint(port: int, **options: Any) -> Endpoint:
    """A peer's server, to which what it may have taken is sent again."""
    return replace(old(port, **options), on_unknown="resend")


@asynccontextmanager
async def destination(tmp_path: Path, at: Endpoint) -> AsyncIterator[Way]:
    """A live channel: we answer the vendor, and deliver."""
    chan = channel(CHANNEL, destinations=(to(at),), takes=Takes(ACCEPTS))
    async with _way(tmp_path, chan, port_of(chan), at.name) as way:
        yield way


@asynccontextmanager
async def legacy_path(tmp_path: Path, at: Endpoint) -> AsyncIterator[Way]:
    """The peer is the old engine, and its answer is relayed."""
    chan = channel(CHANNEL, old_engine=at, takes=Takes(ACCEPTS))
    async with _way(tmp_path, chan, port_of(chan), "legacy") as way:
        yield way


@asynccontextmanager
async def tap(tmp_path: Path, at: Endpoint) -> AsyncIterator[Way]:
    """The old engine sends at the tap what is for the peer, and the peer's answer goes back to it."""
    engine, port = OldEngine(), free_port()
    await engine.start()
    between = Tap("peer", Listen(port, "127.0.0.1"), at, settle=0.2)
    chan = channel(CHANNEL, old_engine=engine.port, taps=(between,), destinations=(to(at),))
    try:
        async with _way(tmp_path, chan, port, None) as way:
            yield way
    finally:
        await engine.stop()


@asynccontextmanager
async def _way(tmp_path: Path, chan: Any, port: int, name: str | None) -> AsyncIterator[Way]:
    async with running(configuration(tmp_path, chan)) as service:
        sender = await Peer.connect(port)
        try:
            yield Way(service, sender, name)
        finally:
            await sender.close()


Open = Callable[[Path, Endpoint], AbstractAsyncContextManager[Way]]
WAYS: dict[str, Open] = {"a destination": destination, "the legacy path": legacy_path, "a tap": tap}

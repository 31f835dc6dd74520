"""A connection for one message ends when nothing more is to come for it, and never much later."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from engine.config.address import Address
from engine.config.edge import Ack, Listen, Sockets, Takes
from engine.config.endpoint import Endpoint
from engine.hl7.ack import parse_ack
from engine.simulate.messages import Messages
from tests.support.fake import DELIVERED, Fake, FakeWays
from tests.support.house import MEDPLUM, Peer, channel, configuration, live, old, port_of, running, served, until
from tests.support.ports import free_port
from tests.support.scripted import Scripted, ack

MESSAGES = Messages("oru", seed=81)
PATIENCE = 0.6  # seconds that the old engine's answer may take


def message(accept: bytes, application: bytes) -> bytes:
    """One with MSH-15 and MSH-16."""
    header, _, rest = MESSAGES.message(1).partition(b"\r")
    fields = header.split(b"|") + [b""] * 16
    fields[14], fields[15] = accept, application
    return b"|".join(fields[:18]) + b"\r" + rest


def door() -> Listen:
    return Listen(free_port(), "127.0.0.1", sockets=Sockets(one_message=True))


@asynccontextmanager
async def relaying(folder: Path, says: Callable[[bytes], Any]) -> AsyncIterator[Peer]:
    """A sender whose answers are the old engine's."""
    async with Scripted(says) as engine:
        chan = channel("acme", source=door(), old_engine=old(engine.port, ack_timeout=PATIENCE))
        async with served(folder, chan) as (_, peer):
            yield peer


async def until_closed(peer: Peer) -> tuple[list[str], float]:
    """The codes that come, and how long the connection stays after the last of them."""
    codes, last = [], time.monotonic()
    while True:
        try:
            codes.append(str(parse_ack(await peer.answer()).code))
        except ConnectionError:
            return codes, time.monotonic() - last
        last = time.monotonic()


async def test_the_applications_answer_comes_after_the_accept_acknowledgement(tmp_path: Path):
    async with relaying(tmp_path, lambda payload: (ack(payload, "CA"), 0.2, ack(payload, "AA"))) as peer:
        peer.send(message(b"AL", b"AL"))
        codes, stayed = await until_closed(peer)
        assert codes == ["CA", "AA"]
        assert stayed < 0.2


async def test_it_is_waited_for_no_longer_than_a_first_answer(tmp_path: Path):
    async with relaying(tmp_path, lambda payload: (ack(payload, "CA"),)) as peer:
        peer.send(message(b"AL", b"ER"))
        codes, stayed = await until_closed(peer)
        assert codes == ["CA"]
        assert PATIENCE - 0.1 < stayed < PATIENCE + 1


@pytest.mark.parametrize(
    ("accept", "application", "said"),
    [
        (b"AL", b"NE", "CA"),  # the application's answer is not wanted
        (b"AL", b"AL", "CE"),  # there will be none
        (b"AL", b"AL", "AA"),  # that was it
        (b"", b"", "CA"),  # nobody asked for two
    ],
)
async def test_where_none_is_to_come_it_ends_at_once(tmp_path: Path, accept: bytes, application: bytes, said: str):
    async with relaying(tmp_path, lambda payload: (ack(payload, said),)) as peer:
        peer.send(message(accept, application))
        codes, stayed = await until_closed(peer)
        assert codes == [said]
        assert stayed < PATIENCE / 2


async def test_where_the_second_one_goes_elsewhere_it_ends_at_once(tmp_path: Path):
    async with (
        Scripted(lambda payload: ()) as second,
        Scripted(lambda payload: (ack(payload, "CA"), 0.2, ack(payload, "AA"))) as engine,
    ):
        there = Endpoint("second", Address("127.0.0.1", second.port))
        chan = channel("acme", source=door(), old_engine=engine.port, ack=Ack("authoritative", to=there))
        async with served(tmp_path, chan) as (_, peer):
            peer.send(message(b"AL", b"AL"))
            codes, stayed = await until_closed(peer)
            assert codes == ["CA"]
            assert stayed < 2
            await until(lambda: len(second.payloads) == 1)


BATCH = b"BHS|^~\\&|LAB|F|EMR|C|20260101||||B1\r" + MESSAGES.message(1) + b"BTS|1\r"


@pytest.mark.parametrize(
    ("payload", "options"),
    [
        (message(b"NE", b"NE"), {}),
        (message(b"ER", b"ER"), {}),
        (message(b"NE", b"NE").replace(b"ORU^R01", b"ZZZ^Z01"), {}),  # refused, and not even that is wanted
        (BATCH, {"takes": Takes(("ORU^R01",), batch="none")}),
    ],
)
async def test_where_no_answer_is_due_it_ends_when_the_message_is_stored(
    tmp_path: Path, payload: bytes, options: dict[str, Any]
):
    async with served(tmp_path, live(source=door(), **options)) as (_, peer):
        peer.send(payload)
        codes, stayed = await until_closed(peer)
        assert codes == []
        assert stayed < 2


async def test_where_the_answer_goes_elsewhere_it_ends_when_the_message_is_stored(tmp_path: Path):
    async with Scripted(lambda payload: ()) as second:
        there = Endpoint("second", Address("127.0.0.1", second.port))
        async with served(tmp_path, live(source=door(), ack=Ack("stored", to=there))) as (_, peer):
            peer.send(MESSAGES.message(1))
            assert (await until_closed(peer))[0] == []
            await until(lambda: len(second.payloads) == 1)


async def test_where_the_old_engine_asked_for_no_answer_gives_none_it_ends(tmp_path: Path):
    async with relaying(tmp_path, lambda payload: ()) as peer:
        peer.send(message(b"NE", b"NE"))
        codes, stayed = await until_closed(peer)
        assert codes == []
        assert stayed < 2


async def test_our_own_accept_acknowledgement_is_the_only_answer_where_the_application_says_nothing(tmp_path: Path):
    chan = live(source=door(), destinations=(MEDPLUM,), ack=Ack("medplum"))
    config = configuration(tmp_path, chan)
    async with running(config, FakeWays(config, Fake(lambda work: DELIVERED))):
        peer = await Peer.connect(port_of(chan))
        peer.send(message(b"AL", b"ER"))
        codes, stayed = await until_closed(peer)
        assert codes == ["CA"]
        assert stayed < 2
        await peer.close()

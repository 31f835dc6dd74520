"""An endpoint through the running service: one sender for all its channels, its rate, its hours."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from engine.config.edge import Hours, Listen
from engine.config.model import Channel, Destination, Tap
from engine.delivery import hours
from engine.hl7.ack import parse_ack
from engine.service import ways
from engine.service.service import Service
from engine.service.view import View
from engine.simulate.messages import Messages
from tests.support.house import (
    Peer,
    channel,
    configuration,
    emr,
    live,
    port_of,
    running,
    settled,
    states,
    until,
)
from tests.support.ports import free_port
from tests.support.scripted import Scripted, ack

MESSAGES = Messages("oru", seed=121)


def channels(count: int, *destinations: Destination) -> tuple[Channel, ...]:
    return tuple(live(f"c{number}", destinations=destinations) for number in range(count))


async def send(service: Service, each: int) -> list[Peer]:
    """Messages to every channel at once, each on a connection of its own."""
    peers = []
    for place, chan in enumerate(service.configuration.channels):
        peer = await Peer.connect(port_of(chan))
        peers.append(peer)
        for number in range(each):
            peer.send(MESSAGES.message(1000 * place + number))
    for peer in peers:
        assert {parse_ack(await peer.answer()).code for _ in range(each)} == {"AA"}
    return peers


async def delivered(folder: Path, count: int, there: Destination, each: int) -> None:
    """So many channels get so many messages each, all at once, until all are at the endpoint."""
    async with running(configuration(folder, *channels(count, there))) as service:
        peers = await send(service, each)
        for number in range(count):
            await settled(service, f"c{number}", there.name, each)
        await asyncio.gather(*(peer.close() for peer in peers))


async def test_all_channels_share_the_one_connection_of_an_endpoint(tmp_path: Path):
    most = 0

    def says(payload: bytes) -> tuple[Any, ...]:
        nonlocal most
        most = max(most, clinic.connected)
        return (0.002, ack(payload))

    async with Scripted(says) as clinic:
        await delivered(tmp_path, 6, emr(clinic.port), 10)
        assert (most, set(clinic.sockets)) == (1, {1})
        for number in range(6):
            own = [MESSAGES.message(1000 * number + each) for each in range(10)]
            assert [payload for payload in clinic.payloads if payload in own] == own, "each channel in its order"


async def test_an_endpoint_gets_as_many_connections_as_it_may_and_never_more(tmp_path: Path):
    at_once = most = 0

    def says(payload: bytes) -> Iterator[Any]:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        yield 0.02
        at_once -= 1
        yield ack(payload)

    async with Scripted(says) as clinic:
        await delivered(tmp_path, 6, emr(clinic.port, connections=3), 5)
        assert most == 3
        assert set(clinic.sockets) == {1, 2, 3}


async def test_also_after_an_answer_that_never_came_there_is_one_connection(tmp_path: Path):
    silent = iter([(), ()])
    most = 0

    def says(payload: bytes) -> tuple[Any, ...]:
        nonlocal most
        most = max(most, clinic.connected)
        return next(silent, (ack(payload),))

    async with Scripted(says) as clinic:
        await delivered(tmp_path, 4, emr(clinic.port, ack_timeout=0.3), 3)
        assert (most, len(clinic.payloads)) == (1, 4 * 3 + 2)


async def test_what_a_tap_forwards_goes_through_the_endpoints_one_sender(tmp_path: Path):
    async with Scripted(lambda payload: (0.002, ack(payload))) as clinic, Scripted() as engine:
        there, tap = emr(clinic.port), free_port()
        assert there.endpoint
        legacy = channel(
            "old", old_engine=engine.port,
            taps=(Tap("clinic", Listen(tap, "127.0.0.1"), there.endpoint, settle=0.2),),
        )  # fmt: skip
        async with running(configuration(tmp_path, legacy, *channels(2, there))) as service:
            output = await Peer.connect(tap)
            peers = await send(service, 5)
            for number in range(9000, 9005):
                assert await output.exchange(MESSAGES.message(number)) == ack(MESSAGES.message(number))
            for number in range(2):
                await settled(service, f"c{number}", there.name, 5)
            assert len(clinic.payloads) == 15
            assert set(clinic.sockets) == {1}
            await asyncio.gather(*(peer.close() for peer in (*peers, output)))


async def test_an_endpoint_that_wants_a_connection_for_each_message(tmp_path: Path):
    async with Scripted() as clinic:
        there = emr(clinic.port, persistent=False)
        async with running(configuration(tmp_path, *channels(1, there))) as service:
            (peer,) = await send(service, 4)
            await settled(service, "c0", there.name, 4)
            assert clinic.sockets == [1, 2, 3, 4]
            await until(lambda: clinic.connected == 0)
            await peer.close()


async def test_an_endpoint_gets_no_more_in_a_second_than_its_rate_whatever_comes(tmp_path: Path):
    times: list[float] = []

    def says(payload: bytes) -> tuple[bytes]:
        times.append(asyncio.get_running_loop().time())
        return (ack(payload),)

    async with Scripted(says) as clinic:
        await delivered(tmp_path, 3, emr(clinic.port, rate=20.0), 7)
        assert times[-1] - times[0] >= 20 / 20.0 * 0.95


@contextmanager
def clock(monkeypatch: pytest.MonkeyPatch, at: str) -> Iterator[list[int]]:
    """The delivery hours' clock, in a test's hands: microseconds since 1970."""
    moment = [int(datetime.fromisoformat(at).replace(tzinfo=UTC).timestamp() * 1e6)]
    monkeypatch.setattr(ways, "now_us", lambda: moment[0])
    monkeypatch.setattr(hours, "LOOK_EVERY", 0.05)
    yield moment


OFFICE = Hours(("mon", "tue", "wed", "thu", "fri"), "08:00", "18:00", "America/Chicago")


async def test_outside_its_hours_messages_are_taken_and_wait_and_go_when_it_opens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    with clock(monkeypatch, "2026-01-05T13:59:00") as moment:  # Monday, 7:59 in Chicago
        async with Scripted() as clinic:
            there = emr(clinic.port, hours=OFFICE)
            async with running(configuration(tmp_path, *channels(2, there))) as service:
                peers = await send(service, 3)
                (found, _) = (await View(service, "0").status())["channels"]
                (row,) = found["destinations"]
                assert (row["breaker"], row["rests_until"]) == (None, "2026-01-05T14:00:00.000Z"), "planned, no trouble"
                assert await states(service, "c0", there.name) == {"waiting": 3}, "nothing is claimed"
                assert clinic.payloads == []
                moment[0] += 60_000_000
                for number in range(2):
                    await settled(service, f"c{number}", there.name, 3, 5.0)
                assert len(clinic.payloads) == 6
                moment[0] += 10 * 3600 * 1_000_000
                await until(lambda: service.ways.breakers[there.name].open)
                peers[0].send(MESSAGES.message(99))
                assert parse_ack(await peers[0].answer()).code == "AA"
                assert await states(service, "c0", there.name) == {"delivered": 3, "waiting": 1}
                await asyncio.gather(*(peer.close() for peer in peers))


async def test_an_endpoint_outside_its_hours_is_no_reason_to_make_the_sender_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Its answer would be the sender's; nothing can be asked now, so we answer ourselves."""
    with clock(monkeypatch, "2026-01-04T16:00:00"):  # a Sunday
        async with Scripted() as clinic:
            there = emr(clinic.port, hours=OFFICE)
            async with running(configuration(tmp_path, live("c0", destinations=(there,), ack=there.name))) as service:
                (peer,) = await send(service, 2)
                assert await states(service, "c0", there.name) == {"waiting": 2}
                await peer.close()


async def test_a_trouble_at_closing_time_does_not_open_the_endpoint_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The trials of its breaker are sendings too."""
    with clock(monkeypatch, "2026-01-05T23:59:00") as moment:  # Monday, 17:59 in Chicago
        away = free_port()
        there = emr(away, hours=OFFICE)
        async with running(configuration(tmp_path, *channels(1, there))) as service:
            (peer,) = await send(service, 1)
            await until(lambda: service.ways.breakers[there.name].open)
            moment[0] += 120_000_000
            await until(lambda: service.ways.breakers[there.name].rests_until is not None)
            async with Scripted(port=away) as clinic:
                await asyncio.sleep(1.5)  # longer than until the next trial, and the next attempt
                assert clinic.payloads == []
                moment[0] += 14 * 3600 * 1_000_000
                await settled(service, "c0", there.name, 1)
                assert len(clinic.payloads) == 1
            await peer.close()

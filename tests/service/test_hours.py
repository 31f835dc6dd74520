"""An endpoint through the running service: one sender for all its channels, its rate, its hours."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from engine.config.edge import Ack, Hours, Listen
from engine.config.model import Channel, Destination, Tap
from engine.delivery import hours
from engine.hl7.ack import parse_ack
from engine.ledger.course import Course
from engine.remedy.choosing import Chosen, chosen
from engine.remedy.deciding import Deciding
from engine.remedy.verb import Asked
from engine.service import ways
from engine.service.service import Service
from engine.service.view import View
from engine.simulate.messages import Messages
from tests.support.fake import crash_image
from tests.support.house import (
    Peer,
    channel,
    configuration,
    emr,
    fed,
    feed,
    live,
    old,
    port_of,
    running,
    settled,
    states,
    until,
    written,
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


async def test_the_old_engine_gets_no_more_than_its_rate_on_all_its_connections_together(tmp_path: Path):
    times: list[float] = []

    def says(payload: bytes) -> tuple[bytes]:
        times.append(asyncio.get_running_loop().time())
        return (ack(payload),)

    async with Scripted(says) as engine:
        there = old(engine.port, rate=20.0)
        source = feed("lis", "fed", old_engine=there, ack=Ack("stored"))
        legacy = [channel(name, old_engine=there, ack="stored") for name in ("one", "two")]
        made = configuration(tmp_path, *legacy, fed("fed", source), feeds=(source,))
        async with running(made) as service:
            peers = [await Peer.connect(port) for port in (*map(port_of, legacy), source.source.address.port)]
            for place, peer in enumerate(peers):
                for number in range(4):
                    peer.send(MESSAGES.message(100 * place + number))
            for name in ("one", "two", "fed"):
                await settled(service, name, "legacy", 4)
            assert set(engine.sockets) == {1, 2, 3}
            assert times[-1] - times[0] >= 11 / 20.0 * 0.95
            await asyncio.gather(*(peer.close() for peer in peers))


async def test_nothing_is_claimed_that_has_to_wait_for_the_endpoints_rate(tmp_path: Path):
    """So nobody has to ask after a crash whether it was taken."""
    async with Scripted() as clinic:
        there = emr(clinic.port, rate=1 / 60, on_unknown="park")
        made = channels(6, there)
        async with running(configuration(tmp_path, *made)) as service:
            peers = await send(service, 2)
            await until(lambda: len(clinic.payloads) == 1)
            await written(service)
            found = [await states(service, each.id, there.name) for each in made]
            assert [each for each in found if "delivered" in each] == [{"delivered": 1, "waiting": 1}]
            assert sum(each.get("waiting", 0) for each in found) == 11
            crash_image(service.ledger.path, tmp_path / "crashed")
            await asyncio.gather(*(peer.close() for peer in peers))
        async with running(configuration(tmp_path / "crashed", *channels(6, there))) as service:
            await until(lambda: len(clinic.payloads) == 2)
            await written(service)
            found = [await states(service, f"c{number}", there.name) for number in range(6)]
            assert sum(each.get("delivered", 0) for each in found) == 2
            assert sum(each.get("waiting", 0) for each in found) == 10


async def test_every_connection_of_an_endpoint_with_a_rate_is_used(tmp_path: Path):
    async with Scripted(lambda payload: (0.5, ack(payload))) as clinic:
        there = emr(clinic.port, connections=3, rate=50.0)
        async with running(configuration(tmp_path, *channels(3, there))) as service:
            peers = [await Peer.connect(port_of(each)) for each in service.configuration.channels]
            for number, peer in enumerate(peers):
                peer.send(MESSAGES.message(number))
            await until(lambda: len(clinic.payloads) == 3, 0.4)
            await asyncio.gather(*(peer.close() for peer in peers))


async def test_what_people_have_tried_again_waits_for_the_rate_unclaimed(tmp_path: Path):
    says = iter(["AR"] * 3)
    async with Scripted(lambda payload: (ack(payload, next(says, "AA")),)) as clinic:
        there = emr(clinic.port, rate=1000.0)
        async with running(configuration(tmp_path, *channels(3, there))) as service:
            peers = await send(service, 1)
            for number in range(3):
                await until(lambda number=number: service.ledger.channels[f"c{number}"].courses[0].open)
            service.ways._paces[there.name]._gap = 60.0
            await asyncio.sleep(0.002)  # its rate was another one
            items = chosen(service.ledger.channels, Chosen([f"c{number}" for number in range(3)]))
            await Deciding(service.ledger, ways.now_us).retry(items, Asked("ann", "a test", "here", None))
            await until(lambda: len(clinic.payloads) == 4)
            await settled(service, "c0", there.name, 1)
            assert [await states(service, f"c{number}", there.name) for number in (1, 2)] == [{"retrying": 1}] * 2
            service.ways._paces[there.name]._gap = 0.0
            await asyncio.gather(*(peer.close() for peer in peers))


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


async def test_what_is_claimed_and_not_sent_yet_when_the_hours_end_is_not_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    with clock(monkeypatch, "2026-01-05T23:59:00") as moment:  # Monday, 17:59 in Chicago
        async with Scripted(lambda payload: (0.3, ack(payload))) as clinic:
            there = emr(clinic.port, hours=OFFICE, on_unknown="park")
            async with running(configuration(tmp_path, *channels(4, there))) as service:
                peers = await send(service, 1)
                await until(lambda: len(clinic.payloads) == 1)
                await written(service)
                assert any(len(course.open) + course.in_flight() > 0 for course in courses(service)[1:])
                moment[0] += 120_000_000
                await settled(service, "c0", there.name, 1)
                assert await clinic_is_quiet(clinic, 1)
                assert sum(course.in_flight() for course in courses(service)) == 0, "nothing is said to be on its way"
                moment[0] += 14 * 3600 * 1_000_000
                for number in range(4):
                    await settled(service, f"c{number}", there.name, 1)
                assert sorted(clinic.payloads) == sorted(MESSAGES.message(1000 * number) for number in range(4))
                await asyncio.gather(*(peer.close() for peer in peers))


def courses(service: Service) -> list[Course]:
    return [course for book in service.ledger.channels.values() for course in book.courses]


async def clinic_is_quiet(clinic: Scripted, had: int) -> bool:
    """Whether it has got nothing more in the time in which it would answer."""
    await asyncio.sleep(0.4)
    return len(clinic.payloads) == had


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

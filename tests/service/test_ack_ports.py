"""Senders that hear our answers on connections of their own, which they make to a second port of ours."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from engine.config.edge import Ack, Framing, Listen, Tls
from engine.config.model import Channel
from engine.hl7.ack import parse_ack
from engine.intake import ack_port
from engine.intake.ack_port import AckPort
from engine.mllp.framing import STORED, encode
from engine.mllp.replies import NotSent
from engine.observe.intake_events import NOISE, TURNED_AWAY, UNSENT
from engine.service.service import Service
from engine.service.view import View
from engine.simulate.messages import Messages
from tests.support.certificates import Authority
from tests.support.house import (
    Peer,
    channel,
    configuration,
    fed,
    feed,
    kept,
    live,
    port_of,
    running,
    served,
    until,
)
from tests.support.ports import free_port
from tests.support.scripted import Scripted, ack
from tests.support.wanting import asking

MESSAGES = Messages("oru", seed=201)


def apart(**options: Any) -> Ack:
    """Answers at a second port."""
    return Ack("stored", listen=Listen(**{"port": free_port(), "host": "127.0.0.1"} | options))


def at(door: Channel) -> int:
    assert door.ack.listen is not None
    return door.ack.listen.port


def named(answer: bytes) -> tuple[str, str]:
    said = parse_ack(answer)
    assert said is not None
    return said.code, said.control_id


def answers_to(*numbers: int) -> list[tuple[str, str]]:
    return [("AA", MESSAGES.control_id(number)) for number in numbers]


@asynccontextmanager
async def heard(folder: Path, **options: Any) -> AsyncIterator[tuple[Service, Peer, Peer, Channel]]:
    """A channel, its sender, and the sender's ear."""
    chan = live(**{"ack": apart()} | options)
    async with served(folder, chan) as (service, sender):
        ear = await Peer.connect(at(chan))
        try:
            yield service, sender, ear, chan
        finally:
            await ear.close()


async def test_answers_are_heard_at_the_second_port_and_nowhere_else(tmp_path: Path) -> None:
    async with heard(tmp_path) as (service, sender, ear, _):
        for number in range(3):
            sender.send(MESSAGES.message(number))
        sender.send(MESSAGES.message(9).replace(b"ORU^R01", b"MDM^T02"))
        assert [named(await ear.answer()) for _ in range(3)] == answers_to(0, 1, 2)
        assert named(await ear.answer())[0] == "AR"
        assert await sender.silence()
        (connection,) = service.doors.ports["acme"].listener.connections
        assert connection.owed == 0
        shown = await View(service, "0").message("acme", 1)
        assert shown is not None
        assert shown["acknowledged"].startswith("AA at 127.0.0.1:")


async def test_an_accept_acknowledgement_comes_on_the_senders_own_connection(tmp_path: Path) -> None:
    async with heard(tmp_path) as (_, sender, ear, _chan):
        sender.send(asking(MESSAGES.message(1), "AL", "AL"))
        assert named(await sender.answer()) == ("CA", MESSAGES.control_id(1))
        assert named(await ear.answer()) == ("AA", MESSAGES.control_id(1))


async def test_the_old_engines_answers_are_heard_there_as_they_came(tmp_path: Path) -> None:
    async with Scripted() as engine:
        how = replace(apart(), source="authoritative")
        chan = channel("acme", old_engine=engine.port, ack=how)
        async with served(tmp_path, chan) as (_, sender):
            ear = await Peer.connect(at(chan))
            sender.send(MESSAGES.message(1))
            assert await ear.answer() == ack(MESSAGES.message(1))
            assert await sender.silence()
            await ear.close()


async def test_each_hosts_answers_go_to_that_host_alone(tmp_path: Path) -> None:
    """On another host's connection an answer could be taken for one to a message of theirs."""
    async with heard(tmp_path) as (_, one, ear_of_one, chan):
        two = await Peer.connect(port_of(chan), address="127.0.0.2")
        ear_of_two = await Peer.connect(at(chan), address="127.0.0.2")
        for turn in range(5):
            one.send(MESSAGES.message(2 * turn))
            two.send(MESSAGES.message(2 * turn + 1))
        assert [named(await ear_of_one.answer()) for _ in range(5)] == answers_to(0, 2, 4, 6, 8)
        assert [named(await ear_of_two.answer()) for _ in range(5)] == answers_to(1, 3, 5, 7, 9)
        for each in (two, ear_of_two):
            await each.close()


async def test_of_a_hosts_connections_the_newest_hears_it_as_long_as_it_is_there(tmp_path: Path) -> None:
    async with heard(tmp_path) as (service, sender, ear, chan):
        newer = await Peer.connect(at(chan))
        sender.send(MESSAGES.message(1))
        assert [named(await newer.answer())] == answers_to(1)
        await newer.close()
        await until(lambda: len(service.doors._acks["acme"]._listener.connections) == 1)
        sender.send(MESSAGES.message(2))
        assert [named(await ear.answer())] == answers_to(2)


async def test_what_is_answered_while_its_host_is_away_waits_for_it_in_order(tmp_path: Path) -> None:
    chan = live(ack=apart())
    async with served(tmp_path, chan) as (service, sender):
        stranger = await Peer.connect(at(chan), address="127.0.0.2")
        for number in range(3):
            sender.send(MESSAGES.message(number))
        await until(lambda: service.ledger.channels["acme"].seq == 3)
        assert await stranger.silence()
        ear = await Peer.connect(at(chan))
        sender.send(MESSAGES.message(3))
        assert [named(await ear.answer()) for _ in range(4)] == answers_to(0, 1, 2, 3)
        for each in (stranger, ear):
            await each.close()


async def test_one_that_waits_in_vain_is_given_up_and_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ack_port, "WAIT", 0.2)
    chan = live("unheard", ack=apart())
    async with served(tmp_path, chan) as (_, sender):
        before = UNSENT.of("unheard").n
        sender.send(MESSAGES.message(1))
        await until(lambda: UNSENT.of("unheard").n == before + 1)
        ear = await Peer.connect(at(chan))
        assert await ear.silence(), "whoever was not heard has repeated its message, or will"
        sender.send(MESSAGES.message(2))
        assert [named(await ear.answer())] == answers_to(2)
        await ear.close()


async def test_no_more_than_so_many_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ack_port, "MOST_WAITING", 2)
    chan = live("crowded", ack=apart())
    async with served(tmp_path, chan) as (_, sender):
        before = UNSENT.of("crowded").n
        for number in range(4):
            sender.send(MESSAGES.message(number))
        await until(lambda: UNSENT.of("crowded").n == before + 2)
        ear = await Peer.connect(at(chan))
        assert [named(await ear.answer()) for _ in range(2)] == answers_to(2, 3), "the oldest go first"
        await ear.close()


async def test_a_message_sent_there_is_neither_taken_nor_acknowledged(tmp_path: Path) -> None:
    async with heard(tmp_path, id="mixed") as (service, _, ear, _chan):
        before = NOISE.of("mixed").n
        ear.send(MESSAGES.message(1))
        ear.writer.write(b"hello")
        assert await ear.silence()
        await until(lambda: NOISE.of("mixed").n == before + len(MESSAGES.message(1)) + 5)
        assert service.ledger.channels["mixed"].seq == 0
        assert await kept(service, "kind", "raw") == [("noise", MESSAGES.message(1)), ("noise", b"hello")]


async def test_who_is_not_let_in_there_is_turned_away_and_told(tmp_path: Path) -> None:
    chan = live("shut", ack=apart(allow=("10.20.0.0/16",)))
    async with served(tmp_path, chan):
        before = TURNED_AWAY.of("shut").n
        ear = await Peer.connect(at(chan))
        assert await ear.closed()
        assert TURNED_AWAY.of("shut").n == before + 1
        await ear.close()


async def test_over_tls(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "tls")
    us, them = authority.issue("us"), authority.issue("lab")
    context = ssl.create_default_context(cafile=str(authority.ca))
    context.load_cert_chain(them.certificate, them.key)
    chan = live(ack=apart(tls=Tls(us.certificate, us.key, authority.ca, ("lab",))))
    async with served(tmp_path, chan) as (service, sender):
        ear = await Peer.connect(at(chan), context)
        sender.send(MESSAGES.message(1))
        assert [named(await ear.answer())] == answers_to(1)
        assert "acme/acks" in service.ways.certificates.days
        await ear.close()


async def test_in_release_2_it_is_written_in_blocks_and_the_senders_word_for_them_is_heard(tmp_path: Path) -> None:
    two = Framing(release=2)
    chan = live("second", ack=apart(framing=two), source=Listen(free_port(), "127.0.0.1", framing=two))
    async with served(tmp_path, chan) as (_, sender):
        ear = await Peer.connect(at(chan))
        before = UNSENT.of("second").n
        sender.send(MESSAGES.message(1))
        assert await sender.answer() == STORED
        assert [named(await ear.answer())] == answers_to(1)
        ear.writer.write(encode(b"\x15"))
        await until(lambda: UNSENT.of("second").n == before + 1)
        await ear.close()


async def test_in_release_2_a_sender_that_leaves_without_a_word_for_it_is_told_of(tmp_path: Path) -> None:
    two = Framing(release=2)
    chan = live("leaves", ack=apart(framing=two), source=Listen(free_port(), "127.0.0.1", framing=two))
    async with served(tmp_path, chan) as (service, sender):
        ear = await Peer.connect(at(chan))
        for number in (1, 2):
            sender.send(MESSAGES.message(number))
            assert await sender.answer() == STORED
            assert [named(await ear.answer())] == answers_to(number)
        ear.writer.write(encode(STORED))
        await ear.close()
        await until(lambda: UNSENT.of("leaves").n == 1)
        assert not service.doors._acks["leaves"]._uncommitted


async def test_the_channels_of_a_feed_answer_at_the_feeds_port(tmp_path: Path) -> None:
    by = feed("lis", "a", ack=apart())
    async with served(tmp_path, fed("a", by, destinations=live().target.destinations), feeds=(by,)) as (_, lis):  # type: ignore[union-attr]
        assert by.ack.listen is not None
        ear = await Peer.connect(by.ack.listen.port)
        lis.send(MESSAGES.message(1))
        assert [named(await ear.answer())] == answers_to(1)
        await ear.close()


@pytest.mark.parametrize("taken", ["acks", "messages"])
async def test_nobody_gets_in_while_either_port_is_somebody_elses(tmp_path: Path, taken: str) -> None:
    chan = live(ack=apart())
    port, other = (at(chan), port_of(chan)) if taken == "acks" else (port_of(chan), at(chan))
    async with (
        await asyncio.start_server(lambda *_: None, "127.0.0.1", port) as somebody,
        running(configuration(tmp_path, chan)) as service,
    ):
        view = View(service, "0")
        ready = await view.readiness()
        assert ready["ready"] is False
        reason = f"cannot listen on 127.0.0.1:{port}: Address already in use"
        assert ready["listeners"]["acme"] == reason
        (told,) = (await view.status())["channels"]
        assert (told["listening"], told["down"]) == (False, reason)
        with pytest.raises(ConnectionRefusedError):
            await Peer.connect(other)
        somebody.close()
        await somebody.wait_closed()
        await until(lambda: not service.doors.down)
        sender, ear = await Peer.connect(port_of(chan)), await Peer.connect(at(chan))
        sender.send(MESSAGES.message(1))
        assert [named(await ear.answer())] == answers_to(1)
        for each in (sender, ear):
            await each.close()


async def test_where_the_old_engine_still_has_the_ports_neither_is_ours(tmp_path: Path) -> None:
    chan = channel("acme", old_engine=1, phase="outside", ack=replace(apart(), source="authoritative"))
    async with running(configuration(tmp_path, chan)) as service:
        for port in (at(chan), port_of(chan)):
            with pytest.raises(ConnectionRefusedError):
                await Peer.connect(port)
        assert await service.doors.open_door("acme") is None
        ear = await Peer.connect(at(chan))
        await service.doors.close_door("acme", 1.0)
        assert await ear.closed()
        await ear.close()
        with pytest.raises(ConnectionRefusedError):
            await Peer.connect(at(chan))


async def test_what_would_be_answered_when_the_port_is_closed_is_told_at_once() -> None:
    told: list[Any] = []
    port = AckPort(Listen(1, "127.0.0.1"))
    port.send(SimpleNamespace(host="127.0.0.1"), b"AA", told.append)  # type: ignore[arg-type]
    assert told == [NotSent("closed")]

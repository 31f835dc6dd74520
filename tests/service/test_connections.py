"""Connections through the running service: who connects to whom, how many, for how long, and what shows of it."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path
from typing import Any

import pytest

from engine.config.address import Address
from engine.config.edge import Connect, Framing, Listen, Sockets
from engine.config.model import Channel
from engine.hl7.ack import parse_ack
from engine.mllp.framing import Decoder, Frame, encode
from engine.observe.events import Event
from engine.observe.intake_events import (
    CONNECTED,
    CONNECTIONS,
    LISTENING,
    PROBED,
    TURNED_AWAY,
    UNREACHED,
    SenderReached,
    SenderUnreached,
)
from engine.service.service import Service
from engine.service.view import View
from engine.simulate.messages import Messages
from tests.support.house import (
    ORU,
    Peer,
    channel,
    configuration,
    emr,
    fed,
    feed,
    live,
    port_of,
    running,
    served,
    settled,
    states,
    until,
)
from tests.support.ports import free_port
from tests.support.scripted import Scripted, ack

MESSAGES = Messages("oru", seed=71)


def listening(port: int = 0, id: str = "acme", **options: Any) -> Channel:
    return live(id, source=Listen(port or free_port(), "127.0.0.1", **options))


async def status(service: Service) -> dict[str, Any]:
    (found,) = (await View(service, "0").status())["channels"]
    return dict(found)


async def said(peer: Peer, number: int) -> str:
    return str(parse_ack(await peer.exchange(MESSAGES.message(number))).code)


class Sender:
    """A peer that listens, and sends on the connection that is made to it."""

    def __init__(self, port: int = 0) -> None:
        self.port = port
        self.answers: list[bytes] = []
        self.connects = 0
        self._decoder = Decoder()
        self._writer: asyncio.StreamWriter | None = None

    async def __aenter__(self) -> Sender:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *error: object) -> None:
        self._server.close()
        self.hang_up()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connects += 1
        self._writer = writer
        while data := await reader.read(65536):
            self.answers += [event.payload for event in self._decoder.feed(data) if isinstance(event, Frame)]
        writer.close()

    def send(self, payload: bytes) -> None:
        assert self._writer is not None
        self._writer.write(encode(payload))

    def hang_up(self) -> None:
        if self._writer is not None:
            self._writer.close()


def connecting(port: int) -> Channel:
    return live(source=Connect(Address("127.0.0.1", port), reconnect=0.1))


async def test_we_connect_out_receive_answer_and_connect_again(tmp_path: Path):
    async with Sender() as sender, running(configuration(tmp_path, connecting(sender.port))) as service:
        for turn in range(1, 4):
            await until(lambda turn=turn: sender.connects == turn)
            sender.send(MESSAGES.message(turn))
            await until(lambda turn=turn: len(sender.answers) == turn)
            assert (await status(service))["peers"] == [f"127.0.0.1:{sender.port}"]
            sender.hang_up()
        assert [parse_ack(answer).code for answer in sender.answers] == ["AA"] * 3
        assert service.ledger.channels["acme"].seq == 3


async def test_a_peer_that_is_not_there_yet_is_connected_to_once_it_is(tmp_path: Path):
    port = free_port()
    async with running(configuration(tmp_path, connecting(port))) as service:
        found = await status(service)
        assert found["peers"] == []
        async with Sender(port) as sender:
            await until(lambda: sender.connects == 1)
            sender.send(MESSAGES.message(1))
            await until(lambda: len(sender.answers) == 1)
        assert service.ledger.channels["acme"].seq == 1


async def test_a_peer_that_is_not_there_shows_as_down_with_the_reason_until_it_is(tmp_path: Path):
    port = free_port()
    listening, turned_away = LISTENING.of("acme"), TURNED_AWAY.of("acme").n
    async with running(configuration(tmp_path, connecting(port))) as service:
        view = View(service, "0")
        assert service.doors.down.keys() == {"acme"}
        await until(lambda: service.doors.down["acme"] == "connection refused")
        assert ((await status(service))["listening"], listening.n) == (False, 0)
        assert ((await view.readiness())["ready"], (await view.readiness())["listeners"]) == (
            False, {"acme": "connection refused"}
        )  # fmt: skip
        counted = UNREACHED.of("acme").n
        await until(lambda: UNREACHED.of("acme").n >= counted + 3)
        async with Sender(port) as sender:
            await until(lambda: sender.connects == 1 and not service.doors.down)
            assert ((await status(service))["listening"], listening.n) == (True, 1)
            assert (await view.readiness())["ready"] is True
            sender._server.close()
            sender.hang_up()
            await until(lambda: service.doors.down == {"acme": "connection refused"})
            assert listening.n == 0
    assert TURNED_AWAY.of("acme").n == turned_away, "nobody came, so nobody was turned away"


async def test_that_a_peer_is_not_there_is_said_once_and_again_after_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    said: list[Event] = []
    monkeypatch.setattr("engine.intake.port.emit", lambda event: (said.append(event), event.count()))
    port = free_port()
    address, counted = f"127.0.0.1:{port}", UNREACHED.of("acme").n
    line = SenderUnreached("acme", address, "connection refused")
    async with running(configuration(tmp_path, connecting(port))):
        await until(lambda: UNREACHED.of("acme").n >= counted + 4)
        assert said == [line]
        monkeypatch.setattr("engine.intake.port.AGAIN", 0.2)
        await until(lambda: said[1:] == [line])
        async with Sender(port):
            await until(lambda: SenderReached("acme", address) in said)


async def test_on_a_connection_that_we_made_the_old_engines_answers_are_relayed_too(tmp_path: Path):
    async with Scripted() as engine, Sender() as sender:
        chan = channel("acme", source=connecting(sender.port).source, old_engine=engine.port)
        async with running(configuration(tmp_path, chan)) as service:
            await until(lambda: sender.connects == 1)
            sender.send(MESSAGES.message(1))
            await until(lambda: sender.answers == [ack(MESSAGES.message(1))])
            assert await states(service, "acme", "legacy") == {"delivered": 1}


async def test_a_connection_for_each_message(tmp_path: Path):
    port = free_port()
    async with running(configuration(tmp_path, listening(port, sockets=Sockets(one_message=True)))) as service:
        for number in (1, 2):
            peer = await Peer.connect(port)
            assert await said(peer, number) == "AA"
            assert await peer.closed()
            await peer.close()
        assert service.ledger.channels["acme"].seq == 2


async def test_the_newest_connection_of_an_address_wins_and_the_older_one_gets_its_answer_first(tmp_path: Path):
    async with Scripted(lambda payload: (0.3, ack(payload))) as engine:
        port = free_port()
        source = listening(port, sockets=Sockets(newest_wins=True)).source
        async with running(configuration(tmp_path, channel("acme", source=source, old_engine=engine.port))) as service:
            older = await Peer.connect(port)
            older.send(MESSAGES.message(1))
            await until(lambda: len(engine.payloads) == 1)
            newer = await Peer.connect(port)
            newer.send(MESSAGES.message(2))
            assert await older.answer() == ack(MESSAGES.message(1))
            assert await older.closed()
            assert await newer.answer() == ack(MESSAGES.message(2))
            assert len((await status(service))["peers"]) == 1
            await older.close()
            await newer.close()


async def test_no_more_connections_than_the_limits_say(tmp_path: Path):
    port, ids = free_port(), "limits"
    async with running(configuration(tmp_path, listening(port, sockets=Sockets(most=2), id=ids))) as service:
        peers = [await Peer.connect(port) for _ in range(2)]
        for number, peer in enumerate(peers):
            assert await said(peer, number) == "AA"
        before = TURNED_AWAY.of(ids).n
        third = await Peer.connect(port)
        assert await third.closed()
        assert TURNED_AWAY.of(ids).n == before + 1
        await third.close()
        await peers[0].close()
        await until(lambda: CONNECTIONS.of(ids).n == 1)
        third = await Peer.connect(port)
        assert await said(third, 9) == "AA"
        assert len((await status(service))["peers"]) == 2
        for peer in (peers[1], third):
            await peer.close()


async def test_no_more_connections_of_one_address_than_its_limit(tmp_path: Path):
    port = free_port()
    async with running(configuration(tmp_path, listening(port, sockets=Sockets(per_address=1)))):
        first = await Peer.connect(port)
        assert await said(first, 1) == "AA"
        second = await Peer.connect(port)
        assert await second.closed()
        other = await Peer.connect(port, address="127.0.0.2")
        assert await said(other, 2) == "AA"
        for peer in (first, second, other):
            await peer.close()


async def test_a_connection_on_which_nothing_comes_is_closed_when_its_time_is_over(tmp_path: Path):
    async with served(tmp_path, listening(sockets=Sockets(idle=0.5))) as (_, peer):
        assert await said(peer, 1) == "AA"
        begun = asyncio.get_running_loop().time()
        assert await peer.closed()
        assert asyncio.get_running_loop().time() - begun > 0.3


async def test_whoever_waits_for_an_answer_is_not_idle(tmp_path: Path):
    async with Scripted(lambda payload: (0.9, ack(payload))) as engine:
        source = listening(sockets=Sockets(idle=0.3)).source
        async with served(tmp_path, channel("acme", source=source, old_engine=engine.port)) as (_, peer):
            assert await peer.exchange(MESSAGES.message(1)) == ack(MESSAGES.message(1))
            assert await peer.closed(), "and who has it is"


async def test_only_who_is_allowed_gets_in(tmp_path: Path):
    before = TURNED_AWAY.of("strict").n
    async with served(tmp_path, listening(allow=("127.0.0.2/32",), id="strict")) as (_, peer):
        assert await peer.closed()
        assert TURNED_AWAY.of("strict").n == before + 1


async def test_a_probe_is_no_peer_and_a_silent_peer_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("engine.mllp.server.QUIET", 0.5)
    port, id = free_port(), "probed"
    async with running(configuration(tmp_path, listening(port, id=id))) as service:
        before = CONNECTED.of(id).n, PROBED.of(id).n
        for _ in range(5):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            assert (await status(service))["peers"] == []
            writer.close()
        await until(lambda: PROBED.of(id).n == before[1] + 5)
        assert CONNECTED.of(id).n == before[0]
        peer = await Peer.connect(port)
        await until(lambda: CONNECTED.of(id).n == before[0] + 1)  # it has stayed
        assert len((await status(service))["peers"]) == 1
        await peer.close()


async def test_a_load_balancers_connections_never_count_while_they_say_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("engine.mllp.server.QUIET", 0.1)
    id, before = "balanced", CONNECTED.of("balanced").n
    async with served(tmp_path, listening(id=id, probes=("127.0.0.2/32",))) as (service, _):
        (port,) = (port_of(chan) for chan in service.configuration.channels)
        balancer = await Peer.connect(port, address="127.0.0.2")
        later = await Peer.connect(port)
        await until(lambda: CONNECTED.of(id).n == before + 2)  # those of another address, the later one last
        assert len((await status(service))["peers"]) == 2
        assert await said(balancer, 1) == "AA", "with its first byte it is one"
        assert len((await status(service))["peers"]) == 3
        for peer in (balancer, later):
            await peer.close()


def taken() -> tuple[socket.socket, int]:
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    sock.listen()
    return sock, sock.getsockname()[1]


async def test_a_port_that_cannot_be_had_shows_as_down_and_opens_by_itself(tmp_path: Path):
    holder, port = taken()
    async with running(configuration(tmp_path, listening(port, id="late"))) as service:
        view = View(service, "0")
        found = await status(service)
        assert (found["listening"], LISTENING.of("late").n) == (False, 0)
        assert "address already in use" in str(found["down"]).lower()
        readiness = await view.readiness()
        assert readiness["ready"] is False
        assert "in use" in readiness["listeners"]["late"].lower()
        holder.close()
        await until(lambda: LISTENING.of("late").n == 1)
        assert (await view.readiness())["ready"] is True
        assert (await status(service))["listening"] is True
        peer = await Peer.connect(port)
        assert await said(peer, 1) == "AA"
        await peer.close()


async def test_the_other_channels_do_not_wait_for_a_port_that_cannot_be_had(tmp_path: Path):
    holder, port = taken()
    other = free_port()
    async with running(configuration(tmp_path, listening(port, id="late"), listening(other, id="good"))):
        peer = await Peer.connect(other)
        assert await said(peer, 1) == "AA"
        await peer.close()
    holder.close()


async def test_a_feeds_port_that_cannot_be_had_shows_at_its_channels(tmp_path: Path):
    holder, port = taken()
    source = feed("lis", "east", "west", port=port)
    channels = [fed(name, source, destinations=(emr(1),), takes=ORU) for name in source.channels]
    async with running(configuration(tmp_path, *channels, feeds=(source,))) as service:
        found = (await View(service, "0").status())["channels"]
        assert [each["listening"] for each in found] == [False, False]
        assert (await View(service, "0").readiness())["ready"] is False
        holder.close()
        await until(lambda: service.doors.ports["lis"].down is None)
        assert (await View(service, "0").readiness())["ready"] is True


async def test_a_channel_that_is_outside_has_no_port_and_is_no_reason_not_to_be_ready(tmp_path: Path):
    holder, port = taken()
    chan = channel("acme", port=port, old_engine=1, phase="outside")
    async with running(configuration(tmp_path, chan)) as service:
        readiness = await View(service, "0").readiness()
        assert readiness["ready"] is True, readiness
        assert (await status(service))["listening"] is False
    holder.close()


async def test_a_port_of_another_framing(tmp_path: Path):
    async with served(tmp_path, listening(framing=Framing(b"\x02", b"\x03"))) as (_, peer):
        peer.writer.write(b"\x02" + MESSAGES.message(1) + b"\x03")
        answer = await asyncio.wait_for(peer.reader.readuntil(b"\x03"), 5)
        assert answer[:1] == b"\x02"
        assert parse_ack(answer[1:-1]).code == "AA"


async def test_a_sender_that_has_gone_still_has_its_message_delivered(tmp_path: Path):
    async with (
        Scripted(lambda payload: (0.3, ack(payload))) as engine,
        served(tmp_path, channel("acme", old_engine=engine.port)) as (service, peer),
    ):
        peer.send(MESSAGES.message(1))
        await until(lambda: len(engine.payloads) == 1)
        peer.writer.transport.abort()
        await settled(service, "acme", "legacy", 1)
        assert await states(service, "acme", "legacy") == {"delivered": 1}

"""TLS through the running service: listeners and endpoints, who is let in, and certificates that change or end."""

from __future__ import annotations

import asyncio
import shutil
import ssl
from pathlib import Path
from typing import Any

import pytest

from engine.config.edge import Listen, Takes, Tls
from engine.config.model import Channel
from engine.hl7.ack import parse_ack
from engine.mllp.framing import Decoder, Frame, encode
from engine.observe.intake_events import TURNED_AWAY
from engine.observe.service_events import CERTIFICATE_DAYS
from engine.service.view import View
from engine.simulate.messages import Messages
from tests.support.certificates import Authority, Pair
from tests.support.house import (
    Peer,
    channel,
    configuration,
    emr,
    free_port,
    old,
    running,
    settled,
    states,
    until,
)
from tests.support.scripted import Scripted, ack

MESSAGES = Messages("oru", seed=81)


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ours"))


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("theirs"), "Their Authority")


def trusting(authority: Authority, pair: Pair | None = None) -> ssl.SSLContext:
    """What a vendor connects with."""
    context = ssl.create_default_context(cafile=str(authority.ca))
    if pair is not None:
        context.load_cert_chain(pair.certificate, pair.key)
    return context


def live(port: int, tls: Tls, id: str = "acme") -> Channel:
    source = Listen(port, "127.0.0.1", tls=tls)
    return channel(id, source=source, destinations=(emr(1),), takes=Takes(("ORU^R01",)))


def server(pair: Pair, **options: Any) -> Tls:
    return Tls(pair.certificate, pair.key, **options)


class Clinic:
    """A TLS listener that acknowledges."""

    def __init__(self, authority: Authority, pair: Pair, *, wants: Authority | None = None) -> None:
        self.context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self.context.load_cert_chain(pair.certificate, pair.key)
        if wants is not None:
            self.context.verify_mode = ssl.CERT_REQUIRED
            self.context.load_verify_locations(wants.ca)
        self.authority = authority
        self.payloads: list[bytes] = []
        self.names: list[str] = []

    async def __aenter__(self) -> Clinic:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self.context)
        self.port = self._server.sockets[0].getsockname()[1]
        self._writers: list[asyncio.StreamWriter] = []
        return self

    async def __aexit__(self, *error: object) -> None:
        self._server.close()
        for writer in self._writers:
            writer.transport.abort()
        await asyncio.sleep(0)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.append(writer)
        certificate = writer.get_extra_info("peercert")
        if certificate:
            self.names.append(certificate["subject"][0][0][1])
        decoder = Decoder()
        try:
            while data := await reader.read(65536):
                for event in decoder.feed(data):
                    if isinstance(event, Frame):
                        self.payloads.append(event.payload)
                        writer.write(encode(ack(event.payload)))
        except OSError:
            pass
        writer.close()


async def test_a_listener_with_tls_and_one_without_side_by_side(tmp_path: Path, ours: Authority):
    port = free_port()
    async with running(configuration(tmp_path, live(port, server(ours.issue("listener"))))) as service:
        peer = await Peer.connect(port, trusting(ours))
        for number in range(3):
            assert parse_ack(await peer.exchange(MESSAGES.message(number))).code == "AA"
        (found,) = (await View(service, "0").status())["channels"]
        assert len(found["peers"]) == 1
        await peer.close()


async def test_a_peer_without_tls_is_turned_away_and_counted(tmp_path: Path, ours: Authority):
    port = free_port()
    async with running(configuration(tmp_path, live(port, server(ours.issue("listener")), "plain"))) as service:
        before = TURNED_AWAY.of("plain").n
        peer = await Peer.connect(port)
        peer.send(MESSAGES.message(1))
        assert await peer.closed()
        await until(lambda: TURNED_AWAY.of("plain").n == before + 1)
        assert service.ledger.channels["plain"].seq == 0
        await peer.close()


@pytest.mark.parametrize(
    ("name", "signed_by", "let_in"),
    [("vendor", "theirs", True), ("stranger", "theirs", False), ("vendor", "ours", False), (None, None, False)],
    ids=["the vendor's", "another name", "another authority", "none"],
)
async def test_mutual_tls_lets_in_who_has_the_right_certificate(
    tmp_path: Path, ours: Authority, theirs: Authority, name: str | None, signed_by: str | None, let_in: bool
):
    port, id = free_port(), f"mutual-{name}-{signed_by}"
    tls = server(ours.issue("listener"), ca=theirs.ca, names=("vendor",))
    pair = {"ours": ours, "theirs": theirs}[signed_by].issue(name, hosts=()) if name and signed_by else None
    async with running(configuration(tmp_path, live(port, tls, id))) as service:
        before = TURNED_AWAY.of(id).n
        try:
            peer = await Peer.connect(port, trusting(ours, pair))
        except (OSError, ssl.SSLError):
            assert not let_in
        else:
            if let_in:
                assert parse_ack(await peer.exchange(MESSAGES.message(1))).code == "AA"
            else:
                peer.send(MESSAGES.message(1))
                assert await peer.closed()
            await peer.close()
        assert service.ledger.channels[id].seq == int(let_in)
        if not let_in:
            await until(lambda: TURNED_AWAY.of(id).n == before + 1)


async def test_an_endpoint_with_mutual_tls(tmp_path: Path, ours: Authority, theirs: Authority):
    async with Clinic(theirs, theirs.issue("clinic"), wants=ours) as clinic:
        pair = ours.issue("interlock", hosts=())
        there = emr(clinic.port, tls=Tls(pair.certificate, pair.key, theirs.ca))
        port = free_port()
        chan = channel("acme", port=port, destinations=(there,), takes=Takes(("ORU^R01",)))
        async with running(configuration(tmp_path, chan)) as service:
            peer = await Peer.connect(port)
            for number in range(3):
                await peer.exchange(MESSAGES.message(number))
            await settled(service, "acme", there.name, 3)
            assert clinic.payloads == [MESSAGES.message(number) for number in range(3)]
            assert clinic.names == ["interlock"]
            await peer.close()


async def test_the_old_engine_over_tls(tmp_path: Path, theirs: Authority):
    async with Clinic(theirs, theirs.issue("old-engine")) as engine:
        port = free_port()
        chan = channel("acme", port=port, old_engine=old(engine.port, tls=Tls(ca=theirs.ca)))
        async with running(configuration(tmp_path, chan)) as service:
            peer = await Peer.connect(port)
            assert await peer.exchange(MESSAGES.message(1)) == ack(MESSAGES.message(1))
            assert await states(service, "acme", "legacy") == {"delivered": 1}
            await peer.close()


async def test_an_endpoint_that_is_not_who_it_says_gets_nothing(tmp_path: Path, ours: Authority, theirs: Authority):
    async with Clinic(theirs, theirs.issue("clinic")) as clinic:
        there = emr(clinic.port, tls=Tls(ca=ours.ca))
        port = free_port()
        chan = channel("acme", port=port, destinations=(there,), takes=Takes(("ORU^R01",)))
        async with running(configuration(tmp_path, chan)) as service:
            peer = await Peer.connect(port)
            await peer.exchange(MESSAGES.message(1))
            breaker = service.ways.breakers[there.name]
            await until(lambda: breaker.open)
            assert await states(service, "acme", there.name) == {"retrying": 1}, "provably nothing of it was sent"
            assert not any(
                b"MSH" in payload for payload in clinic.payloads
            )  # a ClientHello's bytes may look like frames
            await peer.close()


def put(pair: Pair, certificate: Path, key: Path) -> None:
    """As a renewal does: each file at once."""
    for source, target in ((pair.certificate, certificate), (pair.key, key)):
        shutil.copy(source, target.with_suffix(".new"))
        target.with_suffix(".new").replace(target)


def serial(peer: Peer) -> str:
    held = peer.writer.get_extra_info("ssl_object").getpeercert()
    return str(held["serialNumber"])


async def test_a_renewed_certificate_is_used_without_a_restart_and_without_a_cut(tmp_path: Path, ours: Authority):
    certificate, key = tmp_path / "c.pem", tmp_path / "k.pem"
    put(ours.issue("first", days=20), certificate, key)
    port = free_port()
    async with running(configuration(tmp_path, live(port, Tls(certificate, key), "renewed"))) as service:
        certificates = service.ways.certificates
        certificates.look()
        assert 19 < CERTIFICATE_DAYS.of("renewed").n < 20.1
        before = await Peer.connect(port, trusting(ours))
        assert parse_ack(await before.exchange(MESSAGES.message(1))).code == "AA"
        put(ours.issue("second", days=300), certificate, key)
        certificates.look()
        assert 299 < CERTIFICATE_DAYS.of("renewed").n < 300.1
        after = await Peer.connect(port, trusting(ours))
        assert serial(after) != serial(before)
        for peer in (before, after):
            assert parse_ack(await peer.exchange(MESSAGES.message(2))).code == "AA"
            await peer.close()


async def test_a_renewal_that_is_broken_leaves_the_old_certificate_in_use(tmp_path: Path, ours: Authority):
    certificate, key = tmp_path / "c.pem", tmp_path / "k.pem"
    put(ours.issue("first", days=20), certificate, key)
    port = free_port()
    async with running(configuration(tmp_path, live(port, Tls(certificate, key), "broken"))) as service:
        certificate.write_text("not a certificate")
        service.ways.certificates.look()
        service.ways.certificates.look()
        assert 19 < CERTIFICATE_DAYS.of("broken").n < 20.1
        peer = await Peer.connect(port, trusting(ours))
        assert parse_ack(await peer.exchange(MESSAGES.message(1))).code == "AA"
        await peer.close()


async def test_a_channel_and_an_endpoint_of_the_same_name_each_have_their_certificate(
    tmp_path: Path, ours: Authority, theirs: Authority
):
    """Names of channels and of endpoints are two lists."""
    async with Clinic(theirs, theirs.issue("clinic")) as clinic:
        certificate, key = tmp_path / "c.pem", tmp_path / "k.pem"
        put(ours.issue("first", days=20), certificate, key)
        ours_there, key_there = tmp_path / "client.pem", tmp_path / "client.key"
        put(ours.issue("interlock", hosts=(), days=40), ours_there, key_there)
        there = emr(clinic.port, tls=Tls(ours_there, key_there, theirs.ca))
        port = free_port()
        source = Listen(port, "127.0.0.1", tls=Tls(certificate, key))
        chan = channel(there.name, source=source, destinations=(there,), takes=Takes(("ORU^R01",)))
        async with running(configuration(tmp_path, chan)) as service:
            peer = await Peer.connect(port, trusting(ours))
            await peer.exchange(MESSAGES.message(1))
            await settled(service, there.name, there.name, 1)
            days = CERTIFICATE_DAYS.of(there.name)
            service.ways.certificates.look()
            assert 19 < days.n < 20.1, "the earliest of the two"
            put(ours.issue("second", days=300), certificate, key)
            service.ways.certificates.look()
            assert 39 < days.n < 40.1
            after = await Peer.connect(port, trusting(ours))
            assert serial(after) != serial(peer), "it was read again"
            put(ours.issue("interlock-2", hosts=(), days=90), ours_there, key_there)
            service.ways.certificates.look()
            assert 89 < days.n < 90.1
            await peer.close()
            await after.close()


async def test_an_expired_certificate_shows_as_days_below_zero(tmp_path: Path, ours: Authority):
    port = free_port()
    async with running(configuration(tmp_path, live(port, server(ours.issue("over", days=-3)), "over"))) as service:
        service.ways.certificates.look()
        assert -3.1 < CERTIFICATE_DAYS.of("over").n < -2.9


async def test_many_tls_peers_reconnect_at_once_and_all_are_served(tmp_path: Path, ours: Authority):
    port = free_port()
    async with running(configuration(tmp_path, live(port, server(ours.issue("listener"))))):
        for turn in range(2):
            peers = await asyncio.gather(*(Peer.connect(port, trusting(ours)) for _ in range(40)))
            answers = await asyncio.gather(
                *(peer.exchange(MESSAGES.message(100 * turn + number)) for number, peer in enumerate(peers))
            )
            assert {parse_ack(answer).code for answer in answers} == {"AA"}
            await asyncio.gather(*(peer.close() for peer in peers))


async def test_an_endpoint_that_wants_no_tls_gets_nothing_over_it(tmp_path: Path, theirs: Authority):
    async with Scripted() as clinic:
        there = emr(clinic.port, tls=Tls(ca=theirs.ca), connect_timeout=0.5)
        port = free_port()
        chan = channel("acme", port=port, destinations=(there,), takes=Takes(("ORU^R01",)))
        async with running(configuration(tmp_path, chan)) as service:
            peer = await Peer.connect(port)
            await peer.exchange(MESSAGES.message(1))
            await until(lambda: bool(service.ledger.channels["acme"].course(there.name).open))
            assert await states(service, "acme", there.name) == {"retrying": 1}
            # a ClientHello may look like frames, by chance
            assert not any(b"MSH" in payload for payload in clinic.payloads)
            await peer.close()

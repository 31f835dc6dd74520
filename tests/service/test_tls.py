"""TLS through the running service: listeners and endpoints, who is let in, and certificates that change or end."""

from __future__ import annotations

import asyncio
import shutil
import ssl
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from engine.cli.running import complaints
from engine.config.edge import Listen, Tls
from engine.config.model import Channel
from engine.hl7.ack import parse_ack
from engine.ledger.model import State
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
    live,
    old,
    open_work,
    running,
    served,
    settled,
    states,
    until,
)
from tests.support.ports import free_port
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


def secured(port: int, tls: Tls, id: str = "acme", **options: Any) -> Channel:
    return live(id, source=Listen(port, "127.0.0.1", tls=tls), **options)


def server(pair: Pair, **options: Any) -> Tls:
    return Tls(pair.certificate, pair.key, **options)


def nothing_of_it(payloads: list[bytes]) -> bool:
    """No message has come. A ClientHello may look like frames, by chance."""
    return not any(b"MSH" in payload for payload in payloads)


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
    with_tls = secured(port, server(ours.issue("listener")), "with")
    async with served(tmp_path, live("without"), with_tls) as (service, plain):
        peer = await Peer.connect(port, trusting(ours))
        for number in range(3):
            assert parse_ack(await peer.exchange(MESSAGES.message(number))).code == "AA"
            assert parse_ack(await plain.exchange(MESSAGES.message(number))).code == "AA"
        found = (await View(service, "0").status())["channels"]
        assert [len(each["peers"]) for each in found] == [1, 1]
        await peer.close()


async def test_a_peer_without_tls_is_turned_away_and_counted(tmp_path: Path, ours: Authority):
    before = TURNED_AWAY.of("plain").n
    async with served(tmp_path, secured(free_port(), server(ours.issue("listener")), "plain")) as (service, peer):
        peer.send(MESSAGES.message(1))
        assert await peer.closed()
        await until(lambda: TURNED_AWAY.of("plain").n == before + 1)
        assert service.ledger.channels["plain"].seq == 0


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
    async with running(configuration(tmp_path, secured(port, tls, id))) as service:
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
        async with served(tmp_path, live(destinations=(there,))) as (service, peer):
            for number in range(3):
                await peer.exchange(MESSAGES.message(number))
            await settled(service, "acme", there.name, 3)
            assert clinic.payloads == [MESSAGES.message(number) for number in range(3)]
            assert clinic.names == ["interlock"]


async def test_the_old_engine_over_tls(tmp_path: Path, theirs: Authority):
    async with (
        Clinic(theirs, theirs.issue("old-engine")) as engine,
        served(tmp_path, channel("acme", old_engine=old(engine.port, tls=Tls(ca=theirs.ca)))) as (service, peer),
    ):
        assert await peer.exchange(MESSAGES.message(1)) == ack(MESSAGES.message(1))
        assert await states(service, "acme", "legacy") == {"delivered": 1}


async def test_an_endpoint_that_is_not_who_it_says_gets_nothing(tmp_path: Path, ours: Authority, theirs: Authority):
    async with Clinic(theirs, theirs.issue("clinic")) as clinic:
        there = emr(clinic.port, tls=Tls(ca=ours.ca))
        async with served(tmp_path, live(destinations=(there,))) as (service, peer):
            await peer.exchange(MESSAGES.message(1))
            breaker = service.ways.breakers[there.name]
            await until(lambda: breaker.open)
            assert await states(service, "acme", there.name) == {"retrying": 1}, "provably nothing of it was sent"
            assert nothing_of_it(clinic.payloads)


def put(pair: Pair, folder: Path, name: str = "ours") -> Tls:
    """As a renewal does: each file at once. Where they are."""
    tls = Tls(folder / f"{name}.pem", folder / f"{name}.key")
    for source, target in ((pair.certificate, tls.certificate), (pair.key, tls.key)):
        assert target is not None
        shutil.copy(source, target.with_suffix(".new"))
        target.with_suffix(".new").replace(target)
    return tls


def serial(peer: Peer) -> str:
    held = peer.writer.get_extra_info("ssl_object").getpeercert()
    return str(held["serialNumber"])


async def test_a_renewed_certificate_is_used_without_a_restart_and_without_a_cut(tmp_path: Path, ours: Authority):
    port, tls = free_port(), put(ours.issue("first", days=20), tmp_path)
    async with running(configuration(tmp_path, secured(port, tls, "renewed"))) as service:
        certificates = service.ways.certificates
        certificates.look()
        assert 19 < CERTIFICATE_DAYS.of("renewed").n < 20.1
        before = await Peer.connect(port, trusting(ours))
        assert parse_ack(await before.exchange(MESSAGES.message(1))).code == "AA"
        put(ours.issue("second", days=300), tmp_path)
        certificates.look()
        assert 299 < CERTIFICATE_DAYS.of("renewed").n < 300.1
        after = await Peer.connect(port, trusting(ours))
        assert serial(after) != serial(before)
        for peer in (before, after):
            assert parse_ack(await peer.exchange(MESSAGES.message(2))).code == "AA"
            await peer.close()


async def test_a_renewal_that_is_broken_leaves_the_old_certificate_in_use(tmp_path: Path, ours: Authority):
    port, tls = free_port(), put(ours.issue("first", days=20), tmp_path)
    async with running(configuration(tmp_path, secured(port, tls, "broken"))) as service:
        tls.certificate.write_text("not a certificate")
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
        port, tls = free_port(), put(ours.issue("first", days=20), tmp_path)
        client = put(ours.issue("interlock", hosts=(), days=40), tmp_path, "client")
        there = emr(clinic.port, tls=replace(client, ca=theirs.ca))
        chan = secured(port, tls, there.name, destinations=(there,))
        async with running(configuration(tmp_path, chan)) as service:
            peer = await Peer.connect(port, trusting(ours))
            await peer.exchange(MESSAGES.message(1))
            await settled(service, there.name, there.name, 1)
            days = CERTIFICATE_DAYS.of(there.name)
            service.ways.certificates.look()
            assert 19 < days.n < 20.1, "the earliest of the two"
            put(ours.issue("second", days=300), tmp_path)
            service.ways.certificates.look()
            assert 39 < days.n < 40.1
            after = await Peer.connect(port, trusting(ours))
            assert serial(after) != serial(peer), "it was read again"
            put(ours.issue("interlock-2", hosts=(), days=90), tmp_path, "client")
            service.ways.certificates.look()
            assert 89 < days.n < 90.1
            await peer.close()
            await after.close()


async def test_an_expired_certificate_shows_as_days_below_zero(tmp_path: Path, ours: Authority):
    port = free_port()
    async with running(configuration(tmp_path, secured(port, server(ours.issue("over", days=-3)), "over"))) as service:
        service.ways.certificates.look()
        assert -3.1 < CERTIFICATE_DAYS.of("over").n < -2.9


async def test_an_expired_certificate_is_a_sentence_of_status(tmp_path: Path, ours: Authority):
    over = secured(free_port(), server(ours.issue("over", days=-3)), "over")
    good = secured(free_port(), server(ours.issue("good")), "good")
    async with running(configuration(tmp_path, over, good)) as service:
        assert complaints(await View(service, "0").status()) == [
            "over: a certificate has expired: who checks it does not connect (see the runbook: a certificate expires)"
        ]


async def test_files_that_do_not_fit_close_their_own_port_and_no_other(
    tmp_path: Path, ours: Authority, monkeypatch: pytest.MonkeyPatch
):
    """`validate` tells them; they may have changed since. As soon as they are right, peers come in."""
    monkeypatch.setattr("engine.service.opening.AGAIN", 0.02)
    port, tls = free_port(), put(ours.issue("first"), tmp_path)
    shutil.copy(ours.issue("another").key, tls.key)
    async with served(tmp_path, live("well"), secured(port, tls, "ill")) as (service, plain):
        assert parse_ack(await plain.exchange(MESSAGES.message(1))).code == "AA"
        reason = f"{tls.key}: is not the key of {tls.certificate}; wanted is the one that it was made with"
        assert service.doors.down == {"ill": reason}
        assert complaints(await View(service, "0").status()) == [
            f"ill: nothing can come in at 127.0.0.1:{port}: {reason}"
        ]
        service.ways.certificates.look()
        put(ours.issue("second"), tmp_path)
        await until(lambda: not service.doors.down)
        peer = await Peer.connect(port, trusting(ours))
        assert parse_ack(await peer.exchange(MESSAGES.message(2))).code == "AA"
        await peer.close()


async def test_nothing_is_sent_with_files_that_cannot_be_used_and_everything_as_soon_as_they_can(
    tmp_path: Path, ours: Authority, theirs: Authority
):
    async with Clinic(theirs, theirs.issue("clinic")) as clinic:
        tls = put(ours.issue("interlock", hosts=()), tmp_path)
        tls.key.write_text("nothing of use")
        there = emr(clinic.port, tls=replace(tls, ca=theirs.ca))
        async with served(tmp_path, live(destinations=(there,))) as (service, peer):
            assert parse_ack(await peer.exchange(MESSAGES.message(1))).code == "AA"
            await until(lambda: open_work(service, "acme", there.name) == [State.RETRYING])
            put(ours.issue("interlock", hosts=()), tmp_path)
            await settled(service, "acme", there.name, 1)


async def test_many_tls_peers_reconnect_at_once_and_all_are_served(tmp_path: Path, ours: Authority):
    port = free_port()
    async with running(configuration(tmp_path, secured(port, server(ours.issue("listener"))))):
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
        async with served(tmp_path, live(destinations=(there,))) as (service, peer):
            await peer.exchange(MESSAGES.message(1))
            await until(lambda: open_work(service, "acme", there.name) == [State.RETRYING])
            assert await states(service, "acme", there.name) == {"retrying": 1}
            assert nothing_of_it(clinic.payloads)

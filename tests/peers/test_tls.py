"""TLS with peers that nobody here wrote, both ways, each side with a certificate of its own.

@medplum/hl7 has no TLS, neither its client nor its server. hl7apy's server has none of its own.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.config.edge import Listen, Takes, Tls
from engine.config.model import Channel
from tests.peers.receivers import RECEIVERS_WITH_TLS, arrived, receiver
from tests.peers.senders import SENDERS_WITH_TLS, Answer, sender
from tests.peers.texts import ACCEPTS, control_id, large, result, same
from tests.peers.ways import destination, endpoint
from tests.support.certificates import Authority
from tests.support.house import channel, configuration, running
from tests.support.ports import free_port


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


def side(authority: Authority, name: str) -> Tls:
    """The certificate of one side, and whom it trusts."""
    pair = authority.issue(name)
    return Tls(pair.certificate, pair.key, authority.ca)


def ours(port: int, authority: Authority) -> Channel:
    source = Listen(port, "127.0.0.1", tls=side(authority, "interlock"))
    return channel("acme-results", source=source, takes=Takes(ACCEPTS))


@pytest.mark.parametrize("peer", SENDERS_WITH_TLS)
async def test_a_vendor_with_a_certificate_sends_over_tls(tmp_path: Path, authority: Authority, peer: str) -> None:
    port = free_port()
    async with (
        running(configuration(tmp_path, ours(port, authority))) as service,
        sender(peer, port, tls=side(authority, "vendor")) as vendor,
    ):
        for text in (result(1), large(2, 2_000_000), result(3)):
            assert await vendor.send(text) == [Answer("AA", control_id(text), "REFLAB")]
        assert service.ledger.channels["acme-results"].seq == 3


@pytest.mark.parametrize("peer", SENDERS_WITH_TLS)
async def test_a_vendor_without_a_certificate_sends_nothing(tmp_path: Path, authority: Authority, peer: str) -> None:
    port = free_port()
    async with (
        running(configuration(tmp_path, ours(port, authority))) as service,
        sender(peer, port, tls=Tls(ca=authority.ca)) as vendor,
    ):
        with pytest.raises(ConnectionError):
            await vendor.send(result(1))
        assert service.ledger.channels["acme-results"].seq == 0


@pytest.mark.parametrize("peer", RECEIVERS_WITH_TLS)
async def test_an_endpoint_that_wants_a_certificate_gets_everything_over_tls(
    tmp_path: Path, authority: Authority, peer: str
) -> None:
    texts = [result(1), large(2, 2_000_000), result(3)]
    async with receiver(peer, tls=side(authority, "endpoint")) as it:
        to = endpoint(it.port, tls=side(authority, "interlock"), persistent=False)
        async with destination(tmp_path, to) as out:
            for text in texts:
                await out.send(text)
            assert await out.settled(3) == {"delivered": 3}
            await arrived(it, 3)
            assert all(same(got, text) for got, text in zip(it.texts, texts, strict=True))


@pytest.mark.parametrize("peer", RECEIVERS_WITH_TLS)
async def test_an_endpoint_that_misses_our_certificate_is_known_to_have_nothing(
    tmp_path: Path, authority: Authority, peer: str
) -> None:
    """Over TLS 1.3 it refuses after we have begun to write."""
    async with (
        receiver(peer, tls=side(authority, "endpoint")) as it,
        destination(tmp_path, endpoint(it.port, tls=Tls(ca=authority.ca))) as out,
    ):
        await out.send(result(1))
        assert await out.opened() == "retrying"
        assert it.texts == []

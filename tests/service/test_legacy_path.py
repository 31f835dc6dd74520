"""Pass-through: the old engine gets every frame as it came, in order, and its answer goes back as it came."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.config.address import Address
from engine.config.feed import Rule
from engine.hl7.ack import parse_ack
from engine.mllp.framing import encode
from engine.simulate.messages import Messages
from engine.simulate.old_engine import Faults, OldEngine
from engine.simulate.vendor import Vendor
from tests.support.house import (
    Peer,
    assert_balances,
    channel,
    configuration,
    fed,
    feed,
    old,
    running,
    served,
    settled,
    states,
    until,
)
from tests.support.ports import free_port
from tests.support.scripted import Scripted, at_first


def message(number: int) -> bytes:
    return Messages("oru", seed=3).message(number)


async def test_the_old_engines_answer_is_relayed_byte_for_byte_once_it_is_durable(tmp_path: Path, old_engine):
    port = free_port()
    async with running(
        configuration(tmp_path, channel("acme-results", port=port, old_engine=old_engine.port))
    ) as service:
        peer = await Peer.connect(port)
        answers = [await peer.exchange(message(n)) for n in range(1, 6)]
        await peer.close()
        assert list(old_engine.payloads) == [message(n) for n in range(1, 6)]
        view = await service.ledger.read(lambda r: [r.receipts(id) for id in range(1, 6)])
        assert [rows[0].answer for rows in view] == answers
        assert await states(service, "acme-results", "legacy") == {"delivered": 5}


async def test_messages_of_fifty_connections_arrive_once_and_in_the_order_they_were_numbered(tmp_path, old_engine):
    port = free_port()
    async with running(
        configuration(tmp_path, channel("acme-results", port=port, old_engine=old_engine.port))
    ) as service:
        vendor = Vendor([Address("127.0.0.1", port)], Messages("oru"), count=500, connections=50)
        tally = await vendor.run()
        assert tally.acknowledged == 500
        numbered = await service.ledger.read(lambda r: [row[4] for row in r.messages(1, None, 1000)][::-1])
        assert old_engine.control_ids == numbered
        assert await states(service, "acme-results", "legacy") == {"delivered": 500}


async def test_a_no_of_the_old_engine_goes_to_the_sender_and_settles_the_message_as_refused(tmp_path):
    first = parse_id(message(1))
    engine = OldEngine(faults=Faults(by_id={first: ("ar",)}))
    await engine.start()
    port = free_port()
    async with running(configuration(tmp_path, channel("acme-results", port=port, old_engine=engine.port))) as service:
        peer = await Peer.connect(port)
        assert parse_ack(await peer.exchange(message(1))).code == "AR"
        assert parse_ack(await peer.exchange(message(2))).code == "AA"
        await peer.close()
        assert await states(service, "acme-results", "legacy") == {"refused": 1, "delivered": 1}
    await engine.stop()


def parse_id(payload: bytes) -> str:
    return payload.split(b"|")[9].decode()


@pytest.mark.parametrize("fault", ["wrong_id", "cut", "silent"])
async def test_an_answer_that_is_not_the_messages_own_leaves_it_unknown_and_it_is_sent_again(tmp_path, fault):
    engine = OldEngine(faults=Faults(by_id={parse_id(message(1)): (fault,)}))
    await engine.start()
    port = free_port()
    chan = channel("acme-results", port=port, old_engine=engine.port, ack_timeout=1.0)
    async with running(configuration(tmp_path, chan)) as service:
        peer = await Peer.connect(port)
        peer.writer.write(encode(message(1)))
        await until(lambda: len(engine.control_ids) == 2)
        assert engine.control_ids == [parse_id(message(1))] * 2
        await until(
            lambda: (
                service.ledger.channels["acme-results"].courses[0].frontier == 1
                and not service.ledger.channels["acme-results"].courses[0].open
            )
        )
        assert await states(service, "acme-results", "legacy") == {"delivered": 1}
        await peer.close()
    await engine.stop()


async def test_while_the_old_engine_is_down_senders_are_answered_and_it_gets_everything_in_order_later(tmp_path):
    old = free_port()
    port = free_port()
    chan = channel("acme-results", port=port, old_engine=old, ack_timeout=0.5, on_relay_timeout="ae")
    async with running(configuration(tmp_path, chan)) as service:
        vendor = Vendor([Address("127.0.0.1", port)], Messages("oru"), count=40, connections=4, pause=0.05)
        tally = await vendor.run()
        assert tally.acknowledged == 40
        engine = OldEngine(old)
        await engine.start()
        course = service.ledger.channels["acme-results"].courses[0]
        await until(lambda: course.frontier == service.ledger.channels["acme-results"].seq and not course.open)
        numbered = await service.ledger.read(lambda r: [row[4] for row in r.messages(1, None, 1000)][::-1])
        assert engine.control_ids == numbered
        await assert_balances(service)
        await engine.stop()


async def test_what_was_on_the_way_when_the_service_ended_is_sent_again_at_the_next_start(tmp_path):
    engine = OldEngine(faults=Faults(by_id={parse_id(message(1)): ("silent",)}))
    await engine.start()
    port = free_port()
    config = configuration(tmp_path, channel("acme-results", port=port, old_engine=engine.port, ack_timeout=30))
    async with running(config):
        peer = await Peer.connect(port)
        peer.writer.write(encode(message(1)) + encode(message(2)))
        await until(lambda: len(engine.control_ids) == 1)
        await peer.close()
    async with running(config) as service:
        course = service.ledger.channels["acme-results"].courses[0]
        await until(lambda: course.frontier == 2 and not course.open)
        assert engine.control_ids == [parse_id(message(n)) for n in (1, 1, 2)]
        assert await states(service, "acme-results", "legacy") == {"delivered": 2}
    await engine.stop()


MINE = "20260101120000123456789"

FORMS = {
    "no HL7": b"NACK",
    "nothing": b"",
    "a header without MSA": b"MSH|^~\\&|OLD|F|LAB|C|20260101||ACK|Z1|P|2.3\r",
    "a code of its own": b"MSH|^~\\&|OLD|F|LAB|C|20260101||ACK|Z1|P|2.3\rMSA|OK|" + MINE.encode() + b"\r",
    "MSA-2 cut off": b"MSH|^~\\&|OLD|F|LAB|C|20260101||ACK|Z1|P|2.3\rMSA|AA|" + MINE[:20].encode() + b"\r",
    "MSA-2 empty": b"MSH|^~\\&|OLD|F|LAB|C|20260101||ACK|Z1|P|2.3\rMSA|AA\r",
}


@pytest.mark.parametrize("form", FORMS)
async def test_an_answer_in_whatever_form_is_relayed_and_settles_its_message(tmp_path: Path, form: str) -> None:
    """Its partners read it; we need not."""
    said = FORMS[form]
    sent = message(1).replace(parse_id(message(1)).encode(), MINE.encode(), 1)
    async with (
        Scripted(lambda payload: (said,)) as engine,
        served(tmp_path, channel("acme", old_engine=engine.port)) as (service, vendor),
    ):
        for _ in range(3):
            assert await vendor.exchange(sent) == said
        await settled(service, "acme", "legacy", 3)
        assert await states(service, "acme", "legacy") == {"delivered": 3}
        assert engine.payloads == [sent] * 3, "nothing is sent twice by us"
        assert set(engine.sockets) == {1}


async def test_a_late_answer_in_no_form_is_not_the_next_messages(tmp_path: Path) -> None:
    """It comes after its message was given up, on a connection that is gone by then."""
    says = at_first(lambda first: (0.8, b"LATE"), then=lambda payload: (0.4, b"HERE"))
    async with (
        Scripted(says) as engine,
        served(tmp_path, channel("acme", old_engine=old(engine.port, ack_timeout=0.6))) as (service, vendor),
    ):
        vendor.send(message(1))
        vendor.send(message(2))
        await settled(service, "acme", "legacy", 2)
        assert engine.payloads == [message(1), message(1), message(2)]
        receipts = await service.ledger.read(lambda reader: [reader.receipts(id) for id in (1, 2)])
        assert [rows[-1].answer for rows in receipts] == [b"HERE", b"HERE"]


async def test_a_feeds_answer_in_no_form_settles_all_copies(tmp_path: Path) -> None:
    async with Scripted(lambda payload: (b"NACK",)) as engine:
        rule = Rule((("MSH-9", ("ORU^R01",)),), ("a", "b"))
        by = feed("lis", "a", "b", old_engine=engine.port, rules=(rule,))
        async with served(tmp_path, fed("a", by), fed("b", by), feeds=(by,)) as (service, lis):
            assert await lis.exchange(message(1)) == b"NACK"
            for id in "ab":
                await settled(service, id, "legacy", 1)
                assert await states(service, id, "legacy") == {"delivered": 1}
            assert engine.payloads == [message(1)]

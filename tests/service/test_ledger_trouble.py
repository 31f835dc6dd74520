"""What the senders see when the ledger, a row or a peer of theirs is in trouble."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from engine.hl7.ack import parse_ack
from engine.ledger.model import Message
from engine.ledger.sqlite.writer import Order
from engine.mllp.framing import encode
from engine.observe.ledger_events import FAILURES, WRITABLE
from engine.simulate.messages import Messages
from tests.support.house import Peer, assert_balances, channel, configuration, running, until
from tests.support.ports import free_port

MESSAGES = Messages("oru", seed=5)


async def test_while_the_ledger_cannot_be_written_nothing_is_acknowledged_and_afterwards_all_goes_on(
    tmp_path, old_engine
):
    port = free_port()
    async with running(configuration(tmp_path, channel("acme", port=port, old_engine=old_engine.port))) as service:
        peer = await Peer.connect(port)
        assert parse_ack(await peer.exchange(MESSAGES.message(1))).code == "AA"
        await until(lambda: not service.ledger.channels["acme"].courses[0].in_flight())
        connection = service.ledger._writer._connection
        connection.execute("pragma query_only = on")
        peer.writer.write(encode(MESSAGES.message(2)))
        await until(lambda: service.ledger.unwritable is not None)
        assert WRITABLE.of().n == 0
        with pytest.raises(TimeoutError):
            await peer.answer(1.0)
        connection.execute("pragma query_only = off")
        await until(lambda: service.ledger.unwritable is None)
        assert WRITABLE.of().n == 1
        assert parse_ack(await peer.exchange(MESSAGES.message(2))).control_id == MESSAGES.control_id(2)
        await peer.close()
        await until(lambda: not service.ledger.channels["acme"].courses[0].in_flight())
        assert old_engine.control_ids == [MESSAGES.control_id(1), MESSAGES.control_id(2)]
        await assert_balances(service)


async def test_a_message_that_does_not_fit_on_the_disk_is_not_acknowledged_and_smaller_ones_are(
    tmp_path: Path, old_engine
):
    port = free_port()
    async with running(configuration(tmp_path, channel("acme", port=port, old_engine=old_engine.port))) as service:
        large, small = await Peer.connect(port), await Peer.connect(port)
        assert parse_ack(await small.exchange(MESSAGES.message(1))).code == "AA"
        connection, failures = service.ledger._writer._connection, FAILURES.of().n
        pages = connection.execute("pragma page_count").fetchone()[0]
        connection.execute(f"pragma max_page_count = {pages + 4}")
        large.writer.write(encode(b"MSH|^~\\&|A|B|C|D|1||ORU^R01|BIG|P|2.3\rOBX|1|TX|||" + b"x" * 200_000))
        await until(lambda: FAILURES.of().n > failures)
        assert parse_ack(await small.exchange(MESSAGES.message(2))).code == "AA"
        with pytest.raises(TimeoutError):
            await large.answer(0.3)
        assert service.ledger.channels["acme"].seq == 2
        await large.close()
        await small.close()
        await assert_balances(service)


async def test_what_became_of_a_message_while_the_disk_was_full_is_recorded_once_there_is_room(tmp_path, old_engine):
    port = free_port()
    old_engine.faults = type(old_engine.faults)(delay=0.3)
    async with running(configuration(tmp_path, channel("acme", port=port, old_engine=old_engine.port))) as service:
        peer = await Peer.connect(port)
        peer.writer.write(encode(MESSAGES.message(1)))
        await until(lambda: old_engine.control_ids != [])
        connection = service.ledger._writer._connection
        connection.execute("pragma query_only = on")
        await until(lambda: service.ledger.unwritable is not None)
        connection.execute("pragma query_only = off")
        assert parse_ack(await peer.answer()).code == "AA"
        assert old_engine.control_ids == [MESSAGES.control_id(1)]
        await assert_balances(service)
        await peer.close()


async def test_one_bad_row_fails_alone_in_a_batch_of_250_channels(tmp_path, old_engine):
    chans = [channel(f"c{n}", port=free_port(), old_engine=old_engine.port, ack="stored") for n in range(250)]
    async with running(configuration(tmp_path, *chans)) as service:
        stored, failed = [], []
        service.doors.inlets["c7"].failed = failed.append
        service.ledger._put(Order(lambda book: __import__("time").sleep(0.2)))  # so that all of it is one batch
        for number, chan in enumerate(chans):
            message = Message(
                service.ledger.channels[chan.id], MESSAGES.message(number), 1, MESSAGES.control_id(number)
            )
            if chan.id == "c7":
                message.control_id = "\ud800"  # no text: SQLite refuses it
            service.ledger.store(message)
            stored.append(message)
        await until(lambda: len(failed) == 1)
        assert failed == [stored[7]]
        await until(lambda: len(old_engine.control_ids) == 249)
        await assert_balances(service)


async def test_a_peer_that_is_gone_when_its_batch_commits_spoils_no_other_acknowledgement(tmp_path, old_engine):
    port = free_port()
    chan = channel("acme", port=port, old_engine=old_engine.port, ack="stored")
    async with running(configuration(tmp_path, chan)) as service:
        peers = [await Peer.connect(port) for _ in range(50)]
        for number, peer in enumerate(peers):
            peer.writer.write(encode(MESSAGES.message(number)))
        await asyncio.sleep(0)
        for peer in peers[::2]:
            peer.writer.transport.abort()
        for number, peer in list(enumerate(peers))[1::2]:
            assert parse_ack(await peer.answer()).control_id == MESSAGES.control_id(number)
            await peer.close()
        await until(lambda: not service.ledger.channels["acme"].courses[0].in_flight())
        await assert_balances(service)


async def test_a_sender_that_pipelines_thousands_is_read_no_faster_than_it_is_answered(tmp_path, old_engine):
    port = free_port()
    chan = channel("acme", port=port, old_engine=old_engine.port, ack="stored")
    async with running(configuration(tmp_path, chan)) as service:
        peer = await Peer.connect(port)
        peer.writer.write(b"".join(encode(MESSAGES.message(n)) for n in range(2000)))
        ids = [parse_ack(await peer.answer()).control_id for _ in range(2000)]
        assert ids == [MESSAGES.control_id(n) for n in range(2000)]
        await until(lambda: service.ledger.channels["acme"].courses[0].frontier == 2000)
        assert old_engine.control_ids == ids
        await assert_balances(service)
        await peer.close()


async def test_only_one_service_runs_on_a_ledger(tmp_path, old_engine):
    from engine.ledger.sqlite.ledger import SqliteLedger
    from engine.ledger.sqlite.loading import LedgerError

    config = configuration(tmp_path, channel("acme", port=free_port(), old_engine=old_engine.port))
    async with running(config):
        with pytest.raises(LedgerError, match="in use by another running service"):
            SqliteLedger(config.service.ledger, lambda: 0)


async def test_the_ledger_is_its_users_alone_and_one_file_after_a_clean_stop(tmp_path, old_engine):
    config = configuration(tmp_path, channel("acme", port=free_port(), old_engine=old_engine.port, ack="stored"))
    ledger = config.service.ledger
    async with running(config):
        peer = await Peer.connect(config.channels[0].source.port)
        await peer.exchange(MESSAGES.message(1))
        await peer.close()
        rights = {file.name: file.stat().st_mode & 0o077 for file in ledger.parent.glob("interlock.db*")}
        assert len(rights) >= 3
        assert rights["interlock.db"] == rights["interlock.db-wal"] == 0
    assert not ledger.with_name("interlock.db-wal").exists()
    with closing(sqlite3.connect(f"file:{ledger}?mode=ro", uri=True)) as connection:
        assert connection.execute("select count(*) from message").fetchone() == (1,)

"""What must come before what: the claim before the first byte, the answer after the commit, the lane in its order,
also when the disk is slow, when a read fails, and when the process ends in between."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from engine.delivery.work import Work
from engine.hl7.ack import parse_ack
from engine.ledger.model import State
from engine.ledger.outcome import Outcome, Result
from engine.ledger.sqlite.committer import Committer
from engine.mllp.framing import encode
from engine.service.service import Service, StartError
from engine.simulate.messages import Messages
from engine.simulate.old_engine import Faults, OldEngine
from tests.support.fake import DELIVERED, Fake, FakeWays, crash_image
from tests.support.house import (
    MEDPLUM,
    Peer,
    assert_balances,
    channel,
    configuration,
    emr,
    open_work,
    running,
    settled,
    states,
    until,
)
from tests.support.ports import free_port

MESSAGES = Messages("oru", seed=31)


async def started(config: Any) -> Service:
    service = Service(config)
    await service.start()
    return service


@pytest.fixture
def slow_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each transaction takes 20 ms from its beginning to its commit."""
    real = Committer._commit

    def commit(self: Committer, unput: Any) -> BaseException | None:
        time.sleep(0.02)
        return real(self, unput)

    monkeypatch.setattr(Committer, "_commit", commit)


async def test_nothing_is_sent_before_its_claim_is_durable(tmp_path: Path, slow_disk: None):
    port, early = free_port(), []
    config = configuration(tmp_path, channel("acme", port=port, destinations=(MEDPLUM,)))
    fake = Fake()
    async with running(config, FakeWays(config, fake)) as service:
        with closing(sqlite3.connect(f"file:{config.service.ledger}?mode=ro", uri=True, isolation_level=None)) as seen:

            def answer(work: Work) -> Outcome | None:
                (claim,) = seen.execute("select max(claim) from progress").fetchone()
                if work.message.seq > claim:
                    early.append((work.message.seq, claim))
                asyncio.get_running_loop().call_later(0.001 * (work.message.seq % 40), work.done, work, DELIVERED)
                return None

            fake.answer = answer
            peer = await Peer.connect(port)
            peer.writer.write(b"".join(encode(MESSAGES.message(n)) for n in range(150)))
            await until(lambda: len(fake.sent) == 150 and service.runners[0].course.frontier == 150)
        assert early == []
        await peer.close()


async def test_no_acknowledgement_leaves_before_the_commit(tmp_path: Path, slow_disk: None, old_engine: OldEngine):
    port = free_port()
    chan = channel("acme", port=port, old_engine=old_engine.port, ack="stored")
    async with running(configuration(tmp_path, chan)) as service:
        peer = await Peer.connect(port)
        with closing(sqlite3.connect(f"file:{service.ledger.path}?mode=ro", uri=True, isolation_level=None)) as seen:
            for n in range(10):
                assert parse_ack(await peer.exchange(MESSAGES.message(n))).code == "AA"
                assert seen.execute("select count(*) from message").fetchone() == (n + 1,)
        await peer.close()


async def test_a_hundred_and_fifty_senders_of_one_channel_all_get_the_old_engines_answer(tmp_path: Path):
    engine = OldEngine(faults=Faults(delay=0.005))
    await engine.start()
    port = free_port()
    async with running(configuration(tmp_path, channel("acme", port=port, old_engine=engine.port))) as service:
        peers = [await Peer.connect(port) for _ in range(150)]
        answers = await asyncio.gather(*(peer.exchange(MESSAGES.message(n)) for n, peer in enumerate(peers)))
        assert [parse_ack(answer).control_id for answer in answers] == [MESSAGES.control_id(n) for n in range(150)]
        assert all(b"OLD" in answer for answer in answers)  # its own control ids, not ours
        assert len(engine.control_ids) == 150
        await asyncio.gather(*(peer.close() for peer in peers))
        await assert_balances(service)
    await engine.stop()


async def test_a_no_that_the_sender_has_keeps_the_message_from_medplum_also_after_a_crash(tmp_path: Path):
    engine = OldEngine(faults=Faults(by_id={MESSAGES.control_id(1): ("ar",)}))
    await engine.start()
    port, image = free_port(), tmp_path / "image"
    chan = channel("acme", port=port, old_engine=engine.port, phase="parallel", destinations=(MEDPLUM,))
    config = configuration(tmp_path, chan)
    async with running(config, FakeWays(config, Fake())) as service:
        relay = service.doors.inlets["acme"].settled

        def relayed(settlement: Any) -> None:
            relay(settlement)
            crash_image(service.ledger.path, image)

        service.doors.inlets["acme"].settled = relayed  # type: ignore[method-assign]
        peer = await Peer.connect(port)
        assert parse_ack(await peer.exchange(MESSAGES.message(1))).code == "AR"
        await peer.close()
    fake, config = Fake(), configuration(image, chan)
    async with running(config, FakeWays(config, fake)) as again:
        await settled(again, "acme", "medplum", 1)
        assert await states(again, "acme", "medplum") == {"refused": 1}
        assert fake.sent == []
    await engine.stop()


async def test_work_of_a_crash_keeps_its_place_in_the_lane(tmp_path: Path):
    """One patient's messages, all open at the crash, and a new one that arrives while they are taken up again."""
    port, image = free_port(), tmp_path / "image"
    chan = channel("acme", port=port, destinations=(MEDPLUM,))
    one_patient = [MESSAGES.message(1).replace(b"SIM001", b"S%03d" % n, 1) for n in range(1, 12)]
    config = configuration(tmp_path, chan)
    async with running(config, FakeWays(config, Fake(lambda work: Outcome(Result.NOT_TAKEN, "busy")))) as service:
        peer = await Peer.connect(port)
        for payload in one_patient[:-1]:
            await peer.exchange(payload)
        await until(lambda: len(open_work(service, "acme", "medplum")) == 10)
        crash_image(service.ledger.path, image)
        await peer.close()
    fake, config = Fake(), configuration(image, chan)
    async with running(config, FakeWays(config, fake)):
        peer = await Peer.connect(port)
        await peer.exchange(one_patient[-1])
        await until(lambda: len(fake.sent) == 11)
        assert fake.sent == list(range(1, 12))
        await peer.close()


async def test_where_the_endpoint_says_park_what_it_may_have_taken_is_not_sent_again(tmp_path: Path):
    engine = OldEngine(faults=Faults(by_id={MESSAGES.control_id(1): ("cut",)}))
    await engine.start()
    port = free_port()
    clinic = emr(engine.port, on_unknown="park")
    config = configuration(tmp_path, channel("acme", port=port, destinations=(clinic,), accepts=("ORU^R01",)))
    for _ in range(2):  # neither in this process nor in the next
        async with running(config) as service:
            peer = await Peer.connect(port)
            await peer.exchange(MESSAGES.message(1))
            await until(lambda: State.PARKED in open_work(service, "acme", clinic.name))
            await asyncio.sleep(0.7)  # longer than the first wait before a repetition
            await peer.close()
            assert engine.control_ids == [MESSAGES.control_id(1)]
    await engine.stop()


async def test_a_read_of_the_ledger_that_fails_delays_a_lane_and_does_not_end_it(tmp_path: Path, old_engine: OldEngine):
    port = free_port()
    chan = channel("acme", port=port, old_engine=old_engine.port, ack="stored")
    async with running(configuration(tmp_path, chan)) as service:
        real, failures = service.ledger.backlog, [sqlite3.OperationalError("disk I/O error")]

        async def backlog(*arguments: Any) -> Any:
            if failures:
                raise failures.pop()
            return await real(*arguments)

        service.ledger.backlog = backlog  # type: ignore[method-assign]
        peer = await Peer.connect(port)
        peer.writer.write(b"".join(encode(MESSAGES.message(n)) for n in range(200)))
        await until(lambda: service.runners[0].course.frontier == 200)
        assert failures == []
        assert old_engine.control_ids == [MESSAGES.control_id(n) for n in range(200)]
        await peer.close()


async def test_stopping_ends_also_while_the_ledger_cannot_be_written(tmp_path: Path, old_engine: OldEngine):
    port = free_port()
    service = await started(configuration(tmp_path, channel("acme", port=port, old_engine=old_engine.port)))
    service.ledger._writer._connection.execute("pragma query_only = on")
    peer = await Peer.connect(port)
    peer.writer.write(encode(MESSAGES.message(1)))
    await until(lambda: service.ledger.unwritable is not None)
    await peer.close()
    async with asyncio.timeout(20):
        await service.stop()


async def test_a_process_whose_term_is_over_writes_nothing_more_and_ends(tmp_path: Path, old_engine: OldEngine):
    port = free_port()
    service = await started(configuration(tmp_path, channel("acme", port=port, old_engine=old_engine.port)))
    with closing(sqlite3.connect(service.ledger.path)) as other:
        other.execute("update progress set term = term + 1")
        other.commit()
    peer = await Peer.connect(port)
    peer.writer.write(encode(MESSAGES.message(1)))
    async with asyncio.timeout(10):
        await service.ended.wait()
    assert type(service.fatal).__name__ == "StaleTermError"
    assert old_engine.control_ids == []
    await peer.close()
    await service.stop()


async def test_a_channel_whose_file_lost_what_its_phase_needs_does_not_start(tmp_path: Path, old_engine: OldEngine):
    port = free_port()
    before = channel("acme", port=port, old_engine=old_engine.port, phase="parallel", destinations=(emr(1),))
    async with running(configuration(tmp_path, before)):
        pass
    after = channel("acme", port=port, phase="live", destinations=(emr(1),), accepts=("ORU^R01",))
    with pytest.raises(StartError, match=r"no legacy:.*phase parallel"):
        await started(configuration(tmp_path, after))


async def test_a_refused_flood_is_read_no_faster_than_it_is_answered(tmp_path: Path, slow_disk: None):
    port = free_port()
    config = configuration(tmp_path, channel("acme", port=port, destinations=(emr(1),), accepts=("ADT^A01",)))
    async with running(config) as service:
        peer = await Peer.connect(port)
        queued = 0
        peer.writer.write(b"".join(encode(MESSAGES.message(n)) for n in range(3000)))
        for _ in range(3000):
            assert parse_ack(await peer.answer()).code == "AR"
            queued = max(queued, service.ledger._writer.queued)
        assert queued <= 600
        await peer.close()

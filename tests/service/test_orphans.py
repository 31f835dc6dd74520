"""While a worker of an earlier process has the delivery lock: everything is taken, nothing is sent, and nothing is
forgotten when it is free."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.delivery.runner import Runner
from engine.delivery.workers.lock import DeliveryLock
from engine.service.remedies import Remedies
from engine.simulate.old_engine import OldEngine
from tests.support.house import Peer, channel, configuration, emr, running, settled, until
from tests.support.ports import free_port

BY = {"who": "ann", "reason": "because", "origin": "test", "dry_run": False}


def message(n: int) -> bytes:
    return f"MSH|^~\\&|LAB|L|EMR|C|20260101||ORU^R01|C{n}|P|2.5\rPID|1||7^^^H\r".encode()


class Orphan:
    """Somebody else's hand on the lock of a ledger."""

    def __init__(self, folder: Path) -> None:
        self._lock = DeliveryLock(folder / "interlock.db")
        assert self._lock.held

    def ends(self) -> None:
        self._lock.release()


@pytest.fixture
async def clinic() -> OldEngine:
    clinic = OldEngine()
    await clinic.start()
    yield clinic
    await clinic.stop()


async def test_messages_are_acknowledged_and_sent_once_when_the_orphan_has_ended(
    tmp_path: Path, clinic: OldEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    orphan, port = Orphan(tmp_path), free_port()
    there = emr(clinic.port)
    monkeypatch.setattr(Runner, "start", _counted(Runner.start, started := []))
    async with running(configuration(tmp_path, channel("acme", port=port, destinations=(there,)))) as service:
        peer = await Peer.connect(port)
        for n in (1, 2, 3):
            assert b"MSA|AA" in await peer.exchange(message(n))
        await peer.close()
        assert (service.delivery.held, list(clinic.control_ids)) == (False, [])
        orphan.ends()
        await settled(service, "acme", there.name, 3)
        assert list(clinic.control_ids) == ["C1", "C2", "C3"]
        assert len(started) == 1


async def test_a_replay_that_was_ordered_meanwhile_is_carried_out(tmp_path: Path, clinic: OldEngine) -> None:
    port, there = free_port(), emr(clinic.port)
    declared = configuration(tmp_path, channel("acme", port=port, destinations=(there,)))
    async with running(declared) as service:
        peer = await Peer.connect(port)
        for n in (1, 2):
            await peer.exchange(message(n))
        await peer.close()
        await settled(service, "acme", there.name, 2)
    orphan = Orphan(tmp_path)
    async with running(declared) as service:
        await Remedies(service).replay("acme", there.name, numbers=[(1, 2)], search=None, confirm=None, **BY)
        orphan.ends()
        await until(lambda: len(clinic.control_ids) == 4 and not service.replaying.running())
        assert list(clinic.control_ids) == ["C1", "C2", "C1", "C2"]


def _counted(start, started):
    async def counted(self):
        started.append(self)
        await start(self)

    return counted

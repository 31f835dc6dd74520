"""While a worker of an earlier process has the delivery lock: everything is taken, nothing is sent, and nothing is
forgotten when it is free."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from engine.delivery.runner import Runner
from engine.delivery.workers.lock import DeliveryLock
from engine.observe.worker_events import WAITS
from engine.simulate.old_engine import OldEngine
from tests.support.house import channel, configuration, emr, exchanged, running, settled, until
from tests.support.moving import replay
from tests.support.ports import free_port


def message(n: int) -> bytes:
    return f"MSH|^~\\&|LAB|L|EMR|C|20260101||ORU^R01|C{n}|P|2.5\rPID|1||7^^^H\r".encode()


class Orphan:
    """Somebody else's hand on the lock of a ledger."""

    def __init__(self, folder: Path) -> None:
        self._lock = DeliveryLock(folder / "interlock.db")
        assert self._lock.held

    def ends(self) -> None:
        self._lock.release()


async def test_messages_are_acknowledged_and_sent_once_when_the_orphan_has_ended(
    tmp_path: Path, old_engine: OldEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    orphan, port = Orphan(tmp_path), free_port()
    there = emr(old_engine.port)
    monkeypatch.setattr(Runner, "start", _counted(Runner.start, started := []))
    async with running(configuration(tmp_path, channel("acme", port=port, destinations=(there,)))) as service:
        answers = await exchanged(port, *map(message, (1, 2, 3)))
        assert all(b"MSA|AA" in answer for answer in answers)
        assert (service.delivery.held, list(old_engine.control_ids)) == (False, [])
        orphan.ends()
        await settled(service, "acme", there.name, 3)
        assert list(old_engine.control_ids) == ["C1", "C2", "C3"]
        assert len(started) == 1


async def test_a_replay_that_was_ordered_meanwhile_is_carried_out(tmp_path: Path, old_engine: OldEngine) -> None:
    port, there = free_port(), emr(old_engine.port)
    declared = configuration(tmp_path, channel("acme", port=port, destinations=(there,)))
    async with running(declared) as service:
        await exchanged(port, *map(message, (1, 2)))
        await settled(service, "acme", there.name, 2)
    orphan = Orphan(tmp_path)
    async with running(declared) as service:
        await replay(service, there.name, 1, 2)
        await until(lambda: WAITS.of().n == 1)
        await asyncio.sleep(0.1)  # what does not happen is announced by nobody
        assert (service.delivery.held, list(old_engine.control_ids)) == (False, ["C1", "C2"])
        orphan.ends()
        await until(lambda: len(old_engine.control_ids) == 4 and not service.replaying.running())
        assert list(old_engine.control_ids) == ["C1", "C2", "C1", "C2"]


def _counted(start, started):
    async def counted(self):
        started.append(self)
        await start(self)

    return counted

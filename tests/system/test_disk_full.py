"""A ledger that cannot grow: nothing is acknowledged, it is loud, and it recovers without a restart."""

from __future__ import annotations

import asyncio
import resource
import urllib.request
from contextlib import closing
from pathlib import Path

import pytest

from engine.hl7.ack import parse_ack
from engine.ledger.sqlite.reader import Reader
from engine.simulate.messages import Messages
from engine.simulate.old_engine import OldEngine
from tests.support.house import Peer
from tests.support.ports import free_port
from tests.support.processes import Interlock

MESSAGES = Messages("oru", seed=4)


def metric(interlock: Interlock, name: str) -> float:
    with urllib.request.urlopen(f"http://127.0.0.1:{interlock.http}/metrics", timeout=5) as answer:
        lines = answer.read().decode().splitlines()
    return float(next(line.split()[-1] for line in lines if line.startswith(name + " ")))


def limit(interlock: Interlock, size: int) -> None:
    """No file of the process may grow beyond `size` bytes: to it, as if the disk were full."""
    assert interlock.process
    resource.prlimit(interlock.process.pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


@pytest.mark.system
async def test_a_full_disk_costs_acknowledgements_and_nothing_else(tmp_path: Path) -> None:
    old_engine = OldEngine()
    await old_engine.start()
    port = free_port()
    channel = {
        "direction": "results", "listen": {"host": "127.0.0.1", "port": port}, "phase": "legacy",
        "legacy": {"mllp": "old-engine"}, "ack": {"from": "stored"},
    }  # fmt: skip
    endpoints = {"old-engine": {"mllp": f"127.0.0.1:{old_engine.port}"}}
    with Interlock(tmp_path / "site", {"acme": channel}, endpoints=endpoints) as interlock:
        await asyncio.to_thread(interlock.start)
        peer = await Peer.connect(port)
        assert parse_ack(await peer.exchange(MESSAGES.message(1))).code == "AA"
        await asyncio.to_thread(interlock.wait_settled)
        limit(interlock, 4096)
        with pytest.raises(TimeoutError):
            await peer.exchange(MESSAGES.message(2), 2.0)
        assert await asyncio.to_thread(metric, interlock, "interlock_ledger_writable") == 0
        assert not await asyncio.to_thread(interlock.ready)
        limit(interlock, resource.RLIM_INFINITY)
        async with asyncio.timeout(10):
            while not await asyncio.to_thread(interlock.ready):  # noqa: ASYNC110 - another process
                await asyncio.sleep(0.05)
        assert await asyncio.to_thread(metric, interlock, "interlock_ledger_writable") == 1
        assert parse_ack(await peer.exchange(MESSAGES.message(2))).control_id == MESSAGES.control_id(2)
        await peer.close()
        await asyncio.to_thread(interlock.wait_settled)
        assert interlock.stop() == 0
        assert old_engine.control_ids == [MESSAGES.control_id(1), MESSAGES.control_id(2)]
        assert "the ledger" in interlock.log.read_text() or "ledger_unwritable" in interlock.log.read_text()
        with closing(Reader(interlock.ledger)) as reader:
            assert reader.rebuilt() == []
    await old_engine.stop()

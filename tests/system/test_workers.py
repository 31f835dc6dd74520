"""Workers as real processes of `interlock run`: killed, left behind, stopped; nothing is lost, doubled or reordered."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from engine.config.address import Address
from engine.ledger.sqlite.reader import Reader
from engine.simulate.messages import Messages
from engine.simulate.vendor import Vendor
from tests.support.house import until
from tests.support.ports import free_port
from tests.support.processes import Interlock
from tests.support.sandbox import Sandbox
from tests.system.test_sigkill import assert_lanes_in_order, hammered

PREFIX = "WK"


class Site:
    """One channel to Medplum, and its vendor."""

    def __init__(self, folder: Path, sandbox: Sandbox, workers: int) -> None:
        self.port = free_port()
        channel: dict[str, Any] = {
            "direction": "results",
            "listen": {"host": "127.0.0.1", "port": self.port, "accepts": ["ORU^R01"]},
            "target": {"destinations": [{"medplum": {}}]},
        }
        medplum = {
            "base_url": sandbox.base, "client_id": "sandbox-client", "client_secret": "sandbox-secret",
            "time_limit": "1s",
        }  # fmt: skip
        self.interlock = Interlock(folder / "site", {"acme": channel}, medplum=medplum, workers=workers)

    async def send(self, count: int) -> Vendor:
        """So many messages, all acknowledged."""
        vendor = Vendor([Address("127.0.0.1", self.port)], Messages("oru", seed=3, prefix=PREFIX), count=count,
                        connections=4, timeout=5, pause=0.05)  # fmt: skip
        async with asyncio.timeout(60):
            await vendor.run()
        assert len(vendor.acknowledged) == count
        return vendor

    def workers(self) -> list[int]:
        """The processes that intake has started."""
        pid = self.interlock.process.pid
        tasks = Path(f"/proc/{pid}/task").iterdir()
        return [int(child) for task in tasks for child in (task / "children").read_text().split()]

    async def delivered(self, sandbox: Sandbox, count: int) -> None:
        """Everything is settled, and there once, in order."""
        await asyncio.to_thread(self.interlock.wait_settled)
        assert self.interlock.get("/api/v1/status")["balanced"]
        assert {frozenset(row["states"].values()) for row in self.interlock.messages("acme")} == {
            frozenset({"delivered"})
        }
        assert self.interlock.stop() == 0
        assert_lanes_in_order(self.interlock.ledger)
        with closing(Reader(self.interlock.ledger)) as reader:
            assert reader.rebuilt() == []
        sandbox.assert_sound()
        assert len(sandbox.dump("DiagnosticReport")) == count


def running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"


@pytest.mark.system
async def test_a_worker_that_is_killed_loses_doubles_and_reorders_nothing(tmp_path: Path, sandbox: Sandbox) -> None:
    site = Site(tmp_path, sandbox, workers=2)
    with site.interlock as interlock:
        await asyncio.to_thread(interlock.start)
        sending = asyncio.create_task(site.send(120))
        for _ in range(3):
            await until(lambda: len(site.workers()) == 2)
            os.kill(site.workers()[0], signal.SIGKILL)
            await asyncio.sleep(0.4)  # any moment
        await sending
        await site.delivered(sandbox, 120)
        assert '"event":"worker_ended"' in interlock.log.read_text()


@pytest.mark.system
async def test_workers_end_when_intake_is_killed(tmp_path: Path, sandbox: Sandbox) -> None:
    site = Site(tmp_path, sandbox, workers=2)
    with site.interlock as interlock:
        await asyncio.to_thread(interlock.start)
        await until(lambda: len(site.workers()) == 2)
        left = site.workers()
        await site.send(40)
        interlock.kill()
        await until(lambda: not any(map(running, left)))
        await asyncio.to_thread(interlock.start)
        await site.delivered(sandbox, 40)


@pytest.mark.system
async def test_while_an_orphan_lives_messages_are_acknowledged_and_nothing_is_sent(
    tmp_path: Path, sandbox: Sandbox
) -> None:
    site = Site(tmp_path, sandbox, workers=1)
    with site.interlock as interlock:
        await asyncio.to_thread(interlock.start)
        await site.send(5)
        await asyncio.to_thread(interlock.wait_settled)
        (orphan,) = site.workers()
        os.kill(orphan, signal.SIGSTOP)  # it cannot see that intake has ended
        try:
            interlock.kill()
            await asyncio.to_thread(interlock.start)
            before = len(sandbox.dump("DiagnosticReport"))
            sending = Vendor([Address("127.0.0.1", site.port)], Messages("oru", seed=4, prefix="LATER"), count=5,
                             connections=1, timeout=5, pause=0.05)  # fmt: skip
            await sending.run()
            assert len(sending.acknowledged) == 5
            await until(lambda: '"event":"delivery_waits"' in interlock.log.read_text())
            assert interlock.open_messages() == 5
            assert len(sandbox.dump("DiagnosticReport")) == before
        finally:
            os.kill(orphan, signal.SIGCONT)
        await until(lambda: not running(orphan))
        await site.delivered(sandbox, 10)


@pytest.mark.system
async def test_the_end_of_the_service_ends_its_workers(tmp_path: Path, sandbox: Sandbox) -> None:
    site = Site(tmp_path, sandbox, workers=2)
    with site.interlock as interlock:
        await asyncio.to_thread(interlock.start)
        await until(lambda: interlock.log.read_text().count('"event":"worker_started"') == 2)
        left = site.workers()
        for each in left:  # as a terminal does that closes, and a service manager, to the whole group
            os.kill(each, signal.SIGHUP)
            os.kill(each, signal.SIGTERM)
        assert interlock.stop() == 0
        assert not any(map(running, left))
        assert '"event":"worker_ended"' not in interlock.log.read_text()


@pytest.mark.system
async def test_five_kills_under_load_with_workers_lose_double_and_reorder_nothing(
    tmp_path: Path, sandbox: Sandbox
) -> None:
    await hammered(tmp_path, sandbox, kills=5, seed=21, workers=2)

"""SIGKILL at any moment, under load: what was acknowledged is at both destinations, in order, and once."""

from __future__ import annotations

import asyncio
import random
import sqlite3
from contextlib import closing
from itertools import groupby
from pathlib import Path

import pytest

from engine.config.address import Address
from engine.delivery import lane
from engine.ledger.sqlite.reader import Reader
from engine.simulate.messages import Kind, Messages
from engine.simulate.old_engine import Faults, OldEngine
from engine.simulate.vendor import Vendor
from tests.support.ports import free_port
from tests.support.processes import Interlock
from tests.support.sandbox import Sandbox

KINDS: dict[str, Kind] = {"north-results": "oru", "south-results": "oru", "east-results": "oru", "west-orders": "oml",
                          "live-results": "oru"}  # fmt: skip
CONNECTIONS = 10  # of each channel
RATE = 8.0  # messages a second of each channel


def declared(kind: Kind, port: int, *, live: bool) -> dict[str, object]:
    accepts = ["ORU^R01"] if kind == "oru" else ["OML^O21"]
    channel: dict[str, object] = {
        "direction": "results" if kind == "oru" else "orders",
        "listen": {"host": "127.0.0.1", "port": port, "accepts": accepts},
        "target": {"destinations": [{"medplum": {}}]},
    }
    return channel if live else {**channel, "phase": "parallel", "legacy": {"mllp": "old-engine"}}


async def hammered(tmp_path: Path, sandbox: Sandbox, kills: int, seed: int) -> None:
    chance = random.Random(seed)
    old_engine = OldEngine(faults=Faults(delay=0.003, ae=0.02, cut=0.01, wrong_id=0.01, seed=seed))
    await old_engine.start()
    ports = {id: free_port() for id in KINDS}
    channels = {id: declared(kind, ports[id], live=id.startswith("live")) for id, kind in KINDS.items()}
    medplum = {
        "base_url": sandbox.base, "client_id": "sandbox-client", "client_secret": "sandbox-secret", "time_limit": "1s",
    }  # fmt: skip
    endpoints = {"old-engine": {"mllp": f"127.0.0.1:{old_engine.port}", "ack_timeout": "5s"}}
    with Interlock(tmp_path / "site", channels, endpoints=endpoints, medplum=medplum) as interlock:
        interlock.start()
        vendors = {
            id: Vendor(
                [Address("127.0.0.1", ports[id])], Messages(kind, seed=seed, prefix=id[:2].upper()), count=1_000_000,
                connections=CONNECTIONS, rate=RATE, timeout=5, pause=0.05,
            )
            for id, kind in KINDS.items()
        }  # fmt: skip
        sending = [asyncio.create_task(vendor.run()) for vendor in vendors.values()]
        for _ in range(kills):
            await asyncio.sleep(chance.uniform(0.05, 2.0))  # any moment
            interlock.kill()
            await asyncio.to_thread(interlock.start)
        for vendor in vendors.values():
            vendor.stop()
        await asyncio.gather(*sending)
        await asyncio.to_thread(interlock.wait_settled)
        assert interlock.get("/api/v1/status")["balanced"]
        stored = {id: interlock.messages(id) for id in KINDS}
        assert interlock.stop() == 0
        for id, vendor in vendors.items():
            assert len(vendor.acknowledged) > kills
            assert_settled(stored[id], vendor.acknowledged)
            if not id.startswith("live"):
                assert_order(stored[id], [at for at in old_engine.control_ids if at.startswith(id[:2].upper())])
        assert_lanes_in_order(interlock.ledger)
        with closing(Reader(interlock.ledger)) as reader:
            assert reader.rebuilt() == []
        results = {
            row["control_id"]
            for id, rows in stored.items()
            for row in rows
            if KINDS[id] == "oru" and "refused" not in row["states"].values()
        }
        sandbox.assert_sound()
        assert len(sandbox.dump("DiagnosticReport")) == len(results)
    await old_engine.stop()


def assert_settled(stored: list[dict[str, object]], acknowledged: list[str]) -> None:
    """Every acknowledged control id is in the ledger and delivered wherever it is due; what the old engine refused, and
    told the sender so, is delivered nowhere. A repeat by a vendor that heard no answer goes to the old engine only."""
    delivered = {row["control_id"] for row in stored if set(row["states"].values()) == {"delivered"}}  # type: ignore[attr-defined]
    assert set(acknowledged) <= delivered
    assert {frozenset(row["states"].values()) for row in stored} <= {  # type: ignore[attr-defined]
        frozenset({"delivered"}),
        frozenset({"refused"}),
        frozenset({"delivered", "duplicate"}),
        frozenset({"duplicate"}),
    }


def assert_order(stored: list[dict[str, object]], arrived: list[str]) -> None:
    """The old engine got the messages as they were numbered; one that may have been lost came twice, in its place."""
    assert [key for key, _ in groupby(arrived)] == [key for key, _ in groupby(row["control_id"] for row in stored)]


def assert_lanes_in_order(ledger: Path) -> None:
    """At Medplum each patient's messages were delivered in their order."""
    with closing(sqlite3.connect(ledger)) as connection:
        rows = connection.execute(
            "select m.channel, m.raw, r.seq from receipt r join message m on m.id = r.message"
            " join destination d on d.id = r.destination where d.name = 'medplum' and r.state = 10 order by r.id"
        ).fetchall()
    newest: dict[tuple[int, bytes], int] = {}
    for channel, raw, seq in rows:
        key = (channel, lane.patient(raw))
        assert seq > newest.get(key, 0)
        newest[key] = seq
    assert rows


@pytest.mark.system
async def test_ten_kills_under_load_lose_double_and_reorder_nothing(tmp_path: Path, sandbox: Sandbox) -> None:
    await hammered(tmp_path, sandbox, kills=10, seed=1)


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(2, 12))
async def test_a_hundred_kills_under_load_lose_double_and_reorder_nothing(
    tmp_path: Path, sandbox: Sandbox, seed: int
) -> None:
    await hammered(tmp_path, sandbox, kills=10, seed=seed)

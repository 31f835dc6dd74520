"""SIGKILL at any moment, under load: what was acknowledged is at its destinations, in order, and once."""

from __future__ import annotations

import asyncio
import random
import sqlite3
from contextlib import closing, suppress
from http.client import HTTPException
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest

from engine.config.address import Address
from engine.delivery import lane
from engine.ledger.sqlite.reader import Reader
from engine.mapping.v2.emission import control_id
from engine.simulate.messages import Kind, Messages
from engine.simulate.old_engine import Faults, OldEngine
from engine.simulate.vendor import Vendor
from tests.support.ports import free_port
from tests.support.processes import Interlock
from tests.support.sandbox import Sandbox
from tests.support.stepping import SPLIT

CLINIC = "clinic-results"  # live to an MLLP endpoint, in two parts, some of which a person has to send again
KINDS: dict[str, Kind] = {"north-results": "oru", "south-results": "oru", "east-results": "oru", "west-orders": "oml",
                          "live-results": "oru", "clinic-results": "oru"}  # fmt: skip
LIVE = {"live-results", CLINIC}
CONNECTIONS = 10  # of each channel
RATE = 8.0  # messages a second of each channel


REFUSED = range(2, 2000, 12)  # messages that the clinic refuses at first


class InTwo(Messages):
    """Messages with a second report, which become two at the clinic."""

    def message(self, number: int) -> bytes:
        raw = super().message(number)
        return raw + raw[raw.index(b"OBR|1|") :].replace(b"OBR|1|", b"OBR|2|", 1)


def messages(id: str, seed: int) -> Messages:
    return (InTwo if id == CLINIC else Messages)(KINDS[id], seed=seed, prefix=id[:2].upper())


def declared(id: str, port: int) -> dict[str, object]:
    kind = KINDS[id]
    accepts = ["ORU^R01"] if kind == "oru" else ["OML^O21"]
    channel: dict[str, object] = {
        "direction": "results" if kind == "oru" else "orders",
        "listen": {"host": "127.0.0.1", "port": port, "accepts": accepts},
        "target": {"destinations": [{"mllp": "clinic", "mapping": "each_report"} if id == CLINIC else {"medplum": {}}]},
    }
    return channel if id in LIVE else {**channel, "phase": "parallel", "legacy": {"mllp": "old-engine"}}


async def hammered(tmp_path: Path, sandbox: Sandbox, kills: int, seed: int, workers: int = 0) -> None:
    chance = random.Random(seed)
    old_engine = OldEngine(faults=Faults(delay=0.003, ae=0.02, cut=0.01, wrong_id=0.01, seed=seed))
    await old_engine.start()
    refused = {messages(CLINIC, seed).control_id(number): ("ar",) for number in REFUSED}
    clinic = OldEngine(faults=Faults(delay=0.002, cut=0.01, wrong_id=0.01, seed=seed, by_id=refused))
    await clinic.start()
    ports = {id: free_port() for id in KINDS}
    channels = {id: declared(id, ports[id]) for id in KINDS}
    medplum = {
        "base_url": sandbox.base, "client_id": "sandbox-client", "client_secret": "sandbox-secret", "time_limit": "1s",
    }  # fmt: skip
    endpoints = {
        "old-engine": {"mllp": f"127.0.0.1:{old_engine.port}", "ack_timeout": "5s"},
        "clinic": {"mllp": f"127.0.0.1:{clinic.port}", "ack_timeout": "5s", "on_unknown": "resend"},
    }
    settings = {"endpoints": endpoints, "medplum": medplum, "workers": workers, "mappings": "./mappings"}
    with Interlock(tmp_path / "site", channels, **settings) as interlock:
        (interlock.folder / "mappings" / "v2").mkdir(parents=True)
        (interlock.folder / "mappings" / "v2" / "each_report.yaml").write_text(SPLIT)
        interlock.start()
        vendors = {
            id: Vendor(
                [Address("127.0.0.1", ports[id])], messages(id, seed), count=1_000_000,
                connections=CONNECTIONS, rate=RATE, timeout=5, pause=0.05,
            )
            for id in KINDS
        }  # fmt: skip
        person = asyncio.create_task(retries(interlock))
        sending = [asyncio.create_task(vendor.run()) for vendor in vendors.values()]
        for _ in range(kills):
            await asyncio.sleep(chance.uniform(0.05, 2.0))  # any moment
            interlock.kill()
            await asyncio.to_thread(interlock.start)
        for vendor in vendors.values():
            vendor.stop()
        await asyncio.gather(*sending)
        await asyncio.to_thread(interlock.wait_settled)
        person.cancel()
        assert interlock.get("/api/v1/status")["balanced"]
        stored = {id: interlock.messages(id) for id in KINDS}
        assert interlock.stop() == 0
        for id, vendor in vendors.items():
            assert len(vendor.acknowledged) > kills
            assert_settled(stored[id], vendor.acknowledged)
            if id not in LIVE:
                assert_order(stored[id], [at for at in old_engine.control_ids if at.startswith(id[:2].upper())])
        assert_parts_in_order(interlock.ledger, stored[CLINIC], clinic.control_ids)
        assert_lanes_in_order(interlock.ledger)
        with closing(Reader(interlock.ledger)) as reader:
            assert reader.rebuilt() == []
        results = {
            row["control_id"]
            for id, rows in stored.items()
            for row in rows
            if KINDS[id] == "oru" and id != CLINIC and "refused" not in row["states"].values()
        }
        sandbox.assert_sound()
        assert len(sandbox.dump("DiagnosticReport")) == len(results)
    await old_engine.stop()
    await clinic.stop()


async def retries(interlock: Interlock) -> None:
    """A person who has everything that is dead sent again, whoever is killed meanwhile."""
    while True:
        await asyncio.sleep(0.1)
        with suppress(OSError, ConnectionError, HTTPException):  # a refusal among them: nothing is dead any more
            dead = await asyncio.to_thread(interlock.post, "/api/v1/open-work", {"state": "dead"})
            places = sorted({f"{row['channel']}/{row['seq']}" for row in dead})
            order = {"messages": places, "who": "ann", "reason": "sent again", "confirm": len(places)}
            if places:
                await asyncio.to_thread(interlock.post, "/api/v1/open-work/retry", order)


def assert_settled(stored: list[dict[str, Any]], acknowledged: list[str]) -> None:
    """Every acknowledged control id is in the ledger and delivered wherever it is due; what the old engine refused, and
    told the sender so, is delivered nowhere. A repeat by a vendor that heard no answer goes to the old engine only."""
    delivered = {row["control_id"] for row in stored if set(row["states"].values()) == {"delivered"}}
    assert set(acknowledged) <= delivered
    assert {frozenset(row["states"].values()) for row in stored} <= {
        frozenset({"delivered"}),
        frozenset({"refused"}),
        frozenset({"delivered", "duplicate"}),
        frozenset({"duplicate"}),
    }


def assert_order(stored: list[dict[str, Any]], arrived: list[str]) -> None:
    """The old engine got the messages as they were numbered; one that may have been lost came twice, in its place."""
    assert [key for key, _ in groupby(arrived)] == [key for key, _ in groupby(row["control_id"] for row in stored)]


def assert_parts_in_order(ledger: Path, stored: list[dict[str, Any]], arrived: list[str]) -> None:
    """The clinic got both parts of each message, one message after the other; one that may have been lost, or that a
    person had sent again, came again in its place, with the same control id. Each part has its one receipt."""
    with closing(sqlite3.connect(ledger)) as connection:
        (incarnation,) = connection.execute("select incarnation from ledger").fetchone()
        receipts = connection.execute(
            "select seq, part from receipt join destination d on d.id = destination"
            " where d.name = 'clinic' and state = 10"
        ).fetchall()
    sent = [row for row in stored if row["states"]["clinic"] == "delivered"]
    wanted = []
    for row in sent:
        wanted += [row["control_id"], control_id(incarnation, CLINIC, row["seq"], "clinic", part=2)]
    assert [key for key, _ in groupby(arrived)] == wanted
    assert sorted(receipts) == [(row["seq"], part) for row in sent for part in (1, 2)]
    again = [key for key, copies in groupby(arrived) if len(list(copies)) > 1]
    assert any(row["control_id"] in again for row in sent)


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
@pytest.mark.parametrize("seed", range(2, 21))
async def test_two_hundred_kills_under_load_lose_double_and_reorder_nothing(
    tmp_path: Path, sandbox: Sandbox, seed: int
) -> None:
    await hammered(tmp_path, sandbox, kills=10, seed=seed)

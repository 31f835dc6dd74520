"""The whole path: a vendor's message at Medplum and at the old engine, once, in order, whatever Medplum does."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from engine.config.address import Address
from engine.hl7.ack import parse_ack
from engine.ledger.model import State
from engine.service.service import Service
from engine.simulate.messages import Messages
from engine.simulate.vendor import Vendor
from tests.support.house import MEDPLUM, channel, configuration, emr, exchanged, running, states, until, written
from tests.support.ports import free_port
from tests.support.sandbox import Sandbox

MESSAGES = Messages("oru", seed=11)
ORDERS = Messages("oml", seed=11)


def live(port: int, **options: Any) -> Any:
    return channel("acme-results", port=port, destinations=(MEDPLUM,), **options)


def course(service: Service, name: str = "medplum") -> Any:
    return service.ledger.channels["acme-results"].course(name)


async def settled(service: Service, count: int, name: str = "medplum", seconds: float = 30.0) -> None:
    at = course(service, name)
    await until(lambda: at.frontier >= count and not any(w.state is not State.DEAD for w in at.open.values()), seconds)
    await written(service)


async def send(port: int, *payloads: bytes) -> list[str]:
    return [parse_ack(answer).code for answer in await exchanged(port, *payloads)]


async def test_a_result_is_acknowledged_mapped_and_found_at_medplum_with_its_tag(tmp_path: Path, sandbox: Sandbox):
    port = free_port()
    async with running(configuration(tmp_path, live(port), medplum=sandbox.base)) as service:
        assert await send(port, MESSAGES.message(1)) == ["AA"]
        await settled(service, 1)
        assert await states(service, "acme-results", "medplum") == {"delivered": 1}
        assert len(sandbox.dump("Observation")) == 5
        tag = {"system": "urn:interlock:message", "code": f"{service.ledger.incarnation}/acme-results/1"}
        for kind in ("Patient", "DiagnosticReport", "Observation", "Provenance"):
            assert all(tag in resource["meta"]["tag"] for resource in sandbox.dump(kind)), kind
        sandbox.assert_sound()


async def test_in_parallel_both_sides_get_it_and_the_emr_gets_nothing(tmp_path, sandbox, old_engine):
    port, clinic = free_port(), free_port()
    chan = channel(
        "acme-results", port=port, old_engine=old_engine.port, phase="parallel", destinations=(MEDPLUM, emr(clinic))
    )
    async with running(configuration(tmp_path, chan, medplum=sandbox.base)) as service:
        assert await send(port, *map(MESSAGES.message, range(1, 6))) == ["AA"] * 5
        await settled(service, 5)
        assert old_engine.control_ids == [MESSAGES.control_id(n) for n in range(1, 6)]
        assert await states(service, "acme-results", "medplum") == {"delivered": 5}
        assert await states(service, "acme-results", emr(clinic).name) == {"captured": 5}
        sandbox.assert_sound()


async def test_a_no_of_the_old_engine_keeps_the_message_from_medplum(tmp_path, sandbox, old_engine):
    port = free_port()
    old_engine.faults = type(old_engine.faults)(by_id={MESSAGES.control_id(2): ("ar",)})
    chan = channel("acme-results", port=port, old_engine=old_engine.port, phase="parallel", destinations=(MEDPLUM,))
    async with running(configuration(tmp_path, chan, medplum=sandbox.base)) as service:
        assert await send(port, *map(MESSAGES.message, (1, 2, 3))) == ["AA", "AR", "AA"]
        await settled(service, 3)
        assert await states(service, "acme-results", "medplum") == {"delivered": 2, "refused": 1}
        assert await states(service, "acme-results", "legacy") == {"delivered": 2, "refused": 1}
        assert len(sandbox.dump("DiagnosticReport")) == 2


TROUBLES: dict[str, list[dict[str, Any]]] = {
    "503": [{"status": 503, "count": 6}],
    "503 of a proxy": [{"status": 503, "html": True, "count": 5}],
    "429": [{"status": 429, "count": 5}],
    "401": [{"status": 401, "count": 8}],
    "403": [{"status": 403, "count": 3}],
    "409": [{"status": 409, "rate": 0.3, "count": 30}],
    "500": [{"status": 500, "count": 5}],
    "dropped before anything was done": [{"dropConnection": True, "count": 10}],
    "committed, the answer lost": [
        {"dropConnection": True, "afterCommit": True, "method": "POST", "rate": 0.4, "count": 8}
    ],
    "committed, 504 answered": [{"status": 504, "afterCommit": True, "method": "POST", "rate": 0.4, "count": 8}],
    "half an answer": [{"truncate": True, "rate": 0.3, "count": 8}],
    "committed after the client gave up": [
        {"dropConnection": True, "commitAfterMs": 700, "method": "POST", "path": "R4/?$", "rate": 0.5, "count": 5}
    ],
    "no tokens": [{"status": 503, "target": "token", "count": 3}],
}


@pytest.mark.parametrize("atomic", ["on", "off"])
@pytest.mark.parametrize("trouble", TROUBLES)
async def test_whatever_medplum_does_nothing_is_lost_doubled_or_left_dangling(tmp_path, sandbox, trouble, atomic):
    port = free_port()
    sandbox.config(transactions=atomic)
    try:
        async with running(configuration(tmp_path, live(port), medplum=sandbox.base, time_limit=1.0)) as service:
            sandbox.faults(*TROUBLES[trouble])
            vendor = Vendor([Address("127.0.0.1", port)], MESSAGES, count=30, connections=5)
            assert (await vendor.run()).acknowledged == 30
            await settled(service, 30, seconds=90)
            assert await states(service, "acme-results", "medplum") == {"delivered": 30}
            sandbox.assert_sound()
            assert len(sandbox.dump("DiagnosticReport")) == 30
            assert len(sandbox.dump("Observation")) == 150
    finally:
        sandbox.config(transactions="on")


async def test_an_order_and_its_result_meet_at_the_same_patient(tmp_path, sandbox):
    ports = free_port(), free_port()
    orders = channel("acme-orders", port=ports[0], destinations=(MEDPLUM,))
    async with running(configuration(tmp_path, orders, live(ports[1]), medplum=sandbox.base)) as service:
        assert await send(ports[0], ORDERS.message(1)) == ["AA"]
        await until(lambda: service.ledger.channels["acme-orders"].course("medplum").frontier == 1)
        assert await send(ports[1], MESSAGES.message(1)) == ["AA"]
        await settled(service, 1)
        (request,) = sandbox.dump("ServiceRequest")
        (report,) = sandbox.dump("DiagnosticReport")
        assert report["basedOn"][0]["reference"] == f"ServiceRequest/{request['id']}"
        assert report["subject"] == request["subject"]
        sandbox.assert_sound()


async def test_a_repeated_result_writes_nothing_new(tmp_path, sandbox):
    port = free_port()
    async with running(configuration(tmp_path, live(port), medplum=sandbox.base)) as service:
        await send(port, MESSAGES.message(1), MESSAGES.message(1), MESSAGES.message(1))
        await settled(service, 3)
        assert len(sandbox.dump("Observation")) == 5
        assert all(resource["meta"]["versionId"] for resource in sandbox.dump("Observation"))
        sandbox.assert_sound()


async def test_what_medplum_will_never_take_is_dead_and_only_its_patient_waits(tmp_path, sandbox):
    port = free_port()
    async with running(configuration(tmp_path, live(port), medplum=sandbox.base)) as service:
        sandbox.faults({"status": 422, "count": 1, "method": "POST", "path": "R4/?$"})
        await send(port, *map(MESSAGES.message, range(1, 9)))
        await until(lambda: course(service).frontier == 8)
        await until(lambda: all(w.state in (State.DEAD, State.PARKED) for w in course(service).open.values()))
        found = await states(service, "acme-results", "medplum")
        assert found["dead"] == 1
        assert found["delivered"] + found.get("parked", 0) == 7
        sandbox.assert_sound()


async def test_what_was_on_the_way_to_medplum_is_asked_for_at_the_next_start(tmp_path, sandbox):
    port = free_port()
    config = configuration(tmp_path, live(port), medplum=sandbox.base, time_limit=1.0)
    async with running(config):
        sandbox.faults({"delayMs": 800, "method": "POST", "path": "R4/?$"})
        await send(port, *map(MESSAGES.message, range(1, 5)))
    sandbox.faults()
    async with running(config) as service:
        await settled(service, 4)
        assert await states(service, "acme-results", "medplum") == {"delivered": 4}
        assert len(sandbox.dump("DiagnosticReport")) == 4
        sandbox.assert_sound()


async def test_during_an_outage_claims_stop_and_afterwards_everything_arrives(tmp_path, sandbox):
    port = free_port()
    async with running(configuration(tmp_path, live(port), medplum=sandbox.base)) as service:
        sandbox.faults({"status": 503})
        vendor = Vendor([Address("127.0.0.1", port)], MESSAGES, count=300, connections=10)
        assert (await vendor.run()).acknowledged == 300
        assert course(service).claim < 40
        assert service.ways.projects["medplum"].breaker.open
        sandbox.faults()
        await settled(service, 300, seconds=60)
        assert await states(service, "acme-results", "medplum") == {"delivered": 300}
        sandbox.assert_sound()


@pytest.mark.soak
@pytest.mark.parametrize("fault", [{"status": 503}, {"status": 429}, {"status": 401}, {"dropConnection": True}])
async def test_a_minute_without_medplum_at_twenty_messages_a_second(tmp_path, sandbox, fault):
    port = free_port()
    async with running(configuration(tmp_path, live(port), medplum=sandbox.base)) as service:
        vendor = Vendor([Address("127.0.0.1", port)], MESSAGES, count=1400, connections=10, rate=20)
        sending = asyncio.create_task(vendor.run())
        await settled(service, 40)
        sandbox.faults(fault)
        await asyncio.sleep(60)  # the outage
        sandbox.faults()
        assert (await sending).acknowledged == 1400
        await settled(service, 1400, seconds=120)
        assert await states(service, "acme-results", "medplum") == {"delivered": 1400}
        assert len(sandbox.dump("DiagnosticReport")) == 1400
        sandbox.assert_sound()


async def test_a_type_that_the_channel_does_not_take_is_dead_at_medplum_and_stops_nobody(tmp_path, sandbox, old_engine):
    port = free_port()
    chan = channel(
        "acme-results", port=port, old_engine=old_engine.port, phase="parallel", destinations=(MEDPLUM,),
        mapping="ORU_R01", accepts=("ORU^R01",),
    )  # fmt: skip
    async with running(configuration(tmp_path, chan, medplum=sandbox.base)) as service:
        await send(port, ORDERS.message(1), MESSAGES.message(1))
        await settled(service, 2)
        assert await states(service, "acme-results", "medplum") == {"dead": 1, "delivered": 1}
        assert sandbox.dump("ServiceRequest") != []
        assert len(sandbox.dump("DiagnosticReport")) == 1

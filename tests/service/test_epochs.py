"""A restart on a changed configuration: the ledger rules the phase, and a changed routing opens a new epoch."""

from __future__ import annotations

from pathlib import Path

from engine.service.service import Service
from engine.simulate.messages import Messages
from engine.simulate.old_engine import OldEngine
from tests.support.house import (
    MEDPLUM,
    assert_balances,
    channel,
    configuration,
    emr,
    exchanged,
    running,
    states,
    until,
)
from tests.support.ports import free_port
from tests.support.sandbox import Sandbox

MESSAGES = Messages("oru", seed=21)


async def send(port: int, *numbers: int) -> None:
    await exchanged(port, *map(MESSAGES.message, numbers))


async def idle(service: Service, name: str = "acme") -> None:
    book = service.ledger.channels[name]
    await until(lambda: all(c.frontier == book.seq and not c.open for c in book.courses if c.spans))


async def test_the_phase_in_yaml_is_only_the_first_epochs(tmp_path: Path, old_engine: OldEngine, sandbox: Sandbox):
    port = free_port()
    first = channel("acme", port=port, old_engine=old_engine.port, phase="legacy", destinations=(MEDPLUM,))
    async with running(configuration(tmp_path, first, medplum=sandbox.base)) as service:
        await send(port, 1)
        await idle(service)
    edited = channel("acme", port=port, old_engine=old_engine.port, phase="parallel", destinations=(MEDPLUM,))
    async with running(configuration(tmp_path, edited, medplum=sandbox.base)) as service:
        book = service.ledger.channels["acme"]
        assert [epoch.phase for epoch in book.epochs] == ["legacy"]
        await send(port, 2)
        await idle(service)
        assert await states(service, "acme", "legacy") == {"delivered": 2}
    assert sandbox.dump("Patient") == []


async def test_a_new_destination_gets_messages_from_its_epoch_on_and_none_from_before(tmp_path, old_engine, sandbox):
    port = free_port()
    first = channel("acme", port=port, old_engine=old_engine.port, phase="parallel", destinations=(emr(1),))
    async with running(configuration(tmp_path, first)) as service:
        await send(port, 1, 2)
        await idle(service)
    second = channel("acme", port=port, old_engine=old_engine.port, phase="parallel", destinations=(emr(1), MEDPLUM))
    async with running(configuration(tmp_path, second, medplum=sandbox.base)) as service:
        book = service.ledger.channels["acme"]
        assert [(epoch.number, epoch.first, epoch.phase) for epoch in book.epochs] == [
            (1, 1, "parallel"),
            (2, 3, "parallel"),
        ]
        await send(port, 3)
        await idle(service)
        rows = await assert_balances(service)
        assert [(row["epoch"], row["destination"], row["states"]) for row in rows] == [
            (1, "legacy", {"delivered": 2}),
            (1, emr(1).name, {"captured": 2}),
            (2, "legacy", {"delivered": 1}),
            (2, emr(1).name, {"captured": 1}),
            (2, "medplum", {"delivered": 1}),
        ]
        assert len(sandbox.dump("DiagnosticReport")) == 1


async def test_what_waits_in_an_old_epoch_goes_out_first_and_is_counted_there(tmp_path, sandbox):
    """The old engine is down while the configuration changes: its backlog belongs to the epoch it came in."""
    port, old = free_port(), free_port()
    first = channel("acme", port=port, old_engine=old, ack="stored", phase="parallel", destinations=(emr(1),))
    async with running(configuration(tmp_path, first)) as service:
        await send(port, *range(1, 101))
        await until(lambda: service.ledger.channels["acme"].seq == 100)
    second = channel("acme", port=port, old_engine=old, ack="stored", phase="parallel", destinations=(MEDPLUM,))
    engine = OldEngine(old)
    async with running(configuration(tmp_path, second, medplum=sandbox.base)) as service:
        await send(port, *range(101, 111))
        await engine.start()
        book = service.ledger.channels["acme"]
        await until(lambda: all(c.frontier == 110 and not c.open for c in book.courses if c.name != emr(1).name))
        rows = await assert_balances(service)
        found = {(row["epoch"], row["destination"]): row["states"] for row in rows}
        assert found[1, "legacy"] == {"delivered": 100}
        assert found[2, "legacy"] == {"delivered": 10}
        assert found[2, "medplum"] == {"delivered": 10}
        assert engine.control_ids == [MESSAGES.control_id(n) for n in range(1, 111)]
    await engine.stop()


async def test_an_unchanged_configuration_opens_no_epoch_and_the_next_term(tmp_path, old_engine):
    config = configuration(tmp_path, channel("acme", port=free_port(), old_engine=old_engine.port))
    terms = []
    for _ in range(3):
        async with running(config) as service:
            terms.append(service.ledger.term)
            assert len(service.ledger.channels["acme"].epochs) == 1
    assert terms == [1, 2, 3]

"""An old engine in front (`legacy: observed`): only a copy reaches us. Which steps such a channel may take, which not,
and how it comes to have its vendors' port."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from engine.config.address import Address
from engine.config.edge import Directory, Files, Listen
from engine.config.endpoint import Endpoint
from engine.config.model import Channel, Compare, Legacy, Tap
from engine.migration.refused import Refused
from engine.service.service import Service, StartError
from engine.simulate.alterations import FAULTS, own_stamps
from engine.simulate.messages import Messages
from engine.simulate.old_engine import OldEngine
from tests.support.house import (
    Peer,
    assert_balances,
    channel,
    configuration,
    emr,
    exchanged,
    fed,
    feed,
    port_of,
    running,
    states,
    until,
)
from tests.support.moving import Operator
from tests.support.ports import free_port

ID = "acme-results"
MESSAGES = Messages("oru", seed=31)
EMR = emr(1)
TO_TAKE_OVER = "then mllp: in place of observed: in its file, a restart, and interlock takeover"


def sent_to(port: int, phase: str, **options: Any) -> Channel:
    """A channel with a way to the old engine."""
    return channel(ID, **{"old_engine": port, "phase": phase, "destinations": (EMR,), "rollback": "none"} | options)


def observed(made: Channel) -> Channel:
    assert made.legacy is not None
    return replace(made, legacy=replace(made.legacy, endpoint=None), ack=replace(made.ack, source="stored"))


async def refused(operator: Operator, verb: str, **options: Any) -> str:
    with pytest.raises(Refused) as found:
        await operator.verb(verb, ID, **options)
    (sentence,) = found.value.sentences
    return sentence


# -- the file may say another thing only while the channel is outside


@pytest.mark.parametrize("phase", ["legacy", "parallel", "live"])
async def test_what_is_passed_on_is_not_made_a_copy(tmp_path: Path, old_engine: OldEngine, phase: str) -> None:
    """Else what is acknowledged would be sent by nobody, or by both."""
    made = sent_to(old_engine.port, phase)
    async with running(configuration(tmp_path, made)):
        await exchanged(port_of(made), MESSAGES.message(1))
    with pytest.raises(StartError, match=f"found observed: .* {ID} is in phase {phase}.*; expected legacy: as it was"):
        await Service(configuration(tmp_path, observed(made))).start()
    async with running(configuration(tmp_path, made)):
        await exchanged(port_of(made), MESSAGES.message(2))


@pytest.mark.parametrize("phase", ["legacy", "parallel"])
async def test_a_copy_is_not_passed_on_to_the_engine_it_came_from(
    tmp_path: Path, old_engine: OldEngine, phase: str
) -> None:
    made = sent_to(old_engine.port, phase)
    async with running(configuration(tmp_path, observed(made))):
        await exchanged(port_of(made), MESSAGES.message(1))
    with pytest.raises(StartError, match=f"found a way to the old engine.* {ID} is in phase {phase}.*observed: true"):
        await Service(configuration(tmp_path, made)).start()
    assert old_engine.control_ids == []


async def test_outside_either_may_become_the_other(tmp_path: Path) -> None:
    made = sent_to(free_port(), "outside")
    for each in (made, observed(made), made):
        async with running(configuration(tmp_path, each)) as service:
            assert Operator(service).phase(ID) == "outside"


# -- its steps


async def test_from_outside_it_is_led_to_parallel_and_back_by_verbs_that_say_so(tmp_path: Path) -> None:
    made = observed(sent_to(1, "outside"))
    async with running(configuration(tmp_path, made)) as service:
        operator = Operator(service)
        assert service.doors.ports[ID].down is not None
        way = "is outside, from where parallel cannot be reached: let its copies come first (interlock legacy)"
        assert await refused(operator, "parallel") == f"{ID} {way}"
        assert await refused(operator, "takeover", peers=["none"]) == (
            f"{ID} is outside, and the old engine is in front (legacy: observed): what came in would be passed on to"
            " nobody. For its vendors' port: mllp: in place of observed: in its file, a restart, and interlock"
            " takeover; for copies: interlock legacy"
        )
        await operator.waive_all(ID)
        assert "a cutover begins in parallel" in await refused(operator, "cutover")
        plan = await operator.plan("legacy", ID)
        assert plan["lines"] == [
            f"{ID}: from number 1 on: copies of what the old engine has, nothing to {EMR.name}",
            f"port {port_of(made)} is opened, for copies",
        ]
        done = await operator.verb("legacy", ID)
        assert done["said"] == [f"acme is legacy: {ID} from 1; port {port_of(made)} is open for copies"]
        await exchanged(port_of(made), MESSAGES.message(1))

        assert await refused(operator, "takeover", peers=["none"]) == (
            f"{ID} is legacy, and the old engine is in front (legacy: observed): what came in would be passed on to"
            f" nobody. For its vendors' port: interlock give-back, {TO_TAKE_OVER}"
        )
        assert "a cutover begins in parallel" in await refused(operator, "cutover")
        await operator.verb("parallel", ID)
        await exchanged(port_of(made), MESSAGES.message(2))
        await until(lambda: all(c.frontier == 2 for c in service.ledger.channels[ID].courses if c.spans))
        assert await states(service, ID, EMR.name) == {"captured": 1}

        way = f"interlock legacy and interlock give-back, {TO_TAKE_OVER}"
        assert (await refused(operator, "takeover", peers=["none"])).endswith(f"For its vendors' port: {way}")
        assert await refused(operator, "cutover") == f"{ID}: only a copy of the traffic reaches us: {way}"
        assert "is parallel: end the parallel run first (interlock legacy)" in await refused(operator, "give-back")
        assert "not live" in (await operator.verb("rollback", ID))["said"][0]
        await operator.verb("legacy", ID)
        run = await operator.run("give-back", ID)
        assert (run["state"], run["said"]) == ("done", f"outside: {ID} from 3; no more copies come in")
        await operator.verb("legacy", ID)  # a way back
        await exchanged(port_of(made), MESSAGES.message(3))
        await assert_balances(service)
    async with running(configuration(tmp_path, made)) as service:
        assert service.doors.is_open(ID)
        await exchanged(port_of(made), MESSAGES.message(4))


async def test_a_port_for_copies_that_somebody_else_has_is_said_and_tried_on(tmp_path: Path) -> None:
    made = observed(sent_to(1, "outside"))
    somebody = OldEngine(port_of(made))
    await somebody.start()
    async with running(configuration(tmp_path, made)) as service:
        done = await Operator(service).verb("legacy", ID)
        (said,) = done["said"]
        assert said.startswith(f"acme is legacy: {ID} from 1; port {port_of(made)} is not open for copies yet (")
        assert said.endswith(": Address already in use), and tried on")
        await somebody.stop()
        await until(lambda: service.doors.is_open(ID))


async def test_where_somebody_is_to_be_watched_its_end_waits_for_him(tmp_path: Path, old_engine: OldEngine) -> None:
    async with running(configuration(tmp_path, observed(sent_to(1, "legacy")))) as service:
        operator = Operator(service)
        run = await operator.run("give-back", ID, watch=f"127.0.0.1:{free_port()}", timeout_s=0.3)
        assert (run["state"], operator.phase(ID), service.doors.is_open(ID)) == ("failed", "legacy", True)
        run = await operator.run("give-back", ID, watch=f"127.0.0.1:{old_engine.port}")
        assert (run["state"], operator.phase(ID)) == ("done", "outside")


async def test_a_folder_of_copies_is_read_from_then_on(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    made = observed(sent_to(1, "outside", source=Files(Directory(folder), poll=0.05, stable=0.05)))
    (folder / "a.hl7").write_bytes(MESSAGES.message(1))
    async with running(configuration(tmp_path, made)) as service:
        await Operator(service).verb("legacy", ID)
        await until(lambda: service.ledger.channels[ID].seq == 1)


async def test_channels_of_a_feed_come_in_together(tmp_path: Path) -> None:
    lis = feed("lis", ID, "beta-results")
    made = [replace(fed(each, lis, phase="outside", destinations=(EMR,)), legacy=Legacy(None)) for each in lis.channels]
    async with running(configuration(tmp_path, *made, feeds=(lis,))) as service:
        operator = Operator(service)
        assert await refused(operator, "legacy") == (
            "the feed lis also carries beta-results, which would stay outside: move them together, with"
            " --connection beta"
        )
        await operator.verb("legacy", ID, "beta-results")
        await exchanged(port_of(lis), MESSAGES.message(1))
        assert {operator.phase(each.id) for each in made} == {"legacy"}


async def test_the_ports_of_its_connection_are_taken_over_without_it(tmp_path: Path, old_engine: OldEngine) -> None:
    orders = channel("acme-orders", old_engine=old_engine.port, phase="outside")
    async with running(configuration(tmp_path, orders, observed(sent_to(1, "outside")))) as service:
        operator = Operator(service)
        assert (await operator.run("takeover", ID, peers=["none"]))["state"] == "done"
        assert [operator.phase(each) for each in ("acme-orders", ID)] == ["legacy", "outside"]
        await operator.verb("legacy", ID)
        assert operator.phase(ID) == "legacy"


async def test_the_way_that_is_named_leads_to_the_vendors_port(tmp_path: Path, old_engine: OldEngine) -> None:
    """From a parallel run on copies to one behind our own port: nothing is lost, doubled or sent back."""
    made = sent_to(old_engine.port, "parallel")
    async with running(configuration(tmp_path, observed(made))) as service:
        copies = await Peer.connect(port_of(made))
        await copies.exchange(MESSAGES.message(1))
        operator = Operator(service)
        await operator.verb("legacy", ID)
        run = await operator.run("give-back", ID)
        assert run["state"] == "done"
        await copies.close()
    async with running(configuration(tmp_path, made)) as service:
        operator = Operator(service)
        id = await operator.begin("takeover", ID, peers=["127.0.0.1"])
        await operator.at_step(id, "watch")
        await exchanged(port_of(made), MESSAGES.message(2))
        assert (await operator.ended(id))["state"] == "done"
        await operator.verb("parallel", ID)
        await exchanged(port_of(made), MESSAGES.message(3))
        assert old_engine.control_ids == [MESSAGES.control_id(number) for number in (2, 3)]
        assert await states(service, ID, "legacy") == {"delivered": 1}


# -- what its parallel run is for


async def test_its_outputs_are_compared(tmp_path: Path) -> None:
    clinic = OldEngine()
    await clinic.start()
    real = Endpoint("clinic", Address("127.0.0.1", clinic.port), on_unknown="resend")
    tap = Tap("clinic", Listen(free_port(), "127.0.0.1"), real)
    to = replace(EMR, name="clinic", endpoint=real)
    made = observed(sent_to(1, "parallel", taps=(tap,), destinations=(to,), compare=Compare(within=0.5)))
    async with running(configuration(tmp_path, made)) as service:
        await exchanged(port_of(made), *(MESSAGES.message(number) for number in (1, 2, 3)))
        assert isinstance(tap.source, Listen)
        sent = own_stamps(MESSAGES.message(1)), FAULTS["wrong_unit"](own_stamps(MESSAGES.message(2)))
        await exchanged(tap.source.port, *sent)
        found = service.ledger.channels[ID]
        await until(lambda: "clinic" in found.compared and found.compared["clinic"].open_missing == 1)
        compared = found.compared["clinic"]
        assert (compared.matched, compared.unexplained, compared.open_clinical) == (1, 2, 2)
        assert len(clinic.control_ids) == 2  # the old engine's, each passed on once
    await clinic.stop()

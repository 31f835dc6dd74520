"""The probe tells an atomic project from one that is not, and leaves nothing behind."""

from __future__ import annotations

import pytest

from engine.ledger.outcome import Result
from tests.fhir.conftest import MakeDeliverer
from tests.fhir.outputs import oru
from tests.support.sandbox import Sandbox


@pytest.mark.parametrize(("feature", "atomic"), [("on", True), ("off", False)])
async def test_a_project_is_atomic_when_it_refuses_the_whole(
    sandbox: Sandbox, make_deliverer: MakeDeliverer, feature: str, atomic: bool
) -> None:
    sandbox.config(transactions=feature)
    seen = await make_deliverer().probe()
    assert (seen.ok, seen.atomic) == (True, atomic)
    stats = sandbox.stats()
    assert (stats["resources"], stats["points"] <= 20) == ({}, True)


@pytest.mark.parametrize(
    ("fault", "result"),
    [
        ({"status": 401}, Result.FAULT),
        ({"status": 403}, Result.FAULT),
        ({"status": 404, "html": True}, Result.FAULT),
        ({"status": 400, "html": True}, Result.FAULT),
        ({"status": 503}, Result.NOT_TAKEN),
        ({"dropConnection": True}, Result.NOT_TAKEN),
        ({"truncate": True}, Result.NOT_TAKEN),
    ],
)
async def test_what_keeps_us_out_is_told_and_never_taken_for_an_answer(
    sandbox: Sandbox, make_deliverer: MakeDeliverer, fault: dict[str, object], result: Result
) -> None:
    sandbox.config(transactions="off")
    sandbox.faults(fault)
    seen = await make_deliverer().probe()
    assert (seen.ok, seen.atomic, seen.result) == (False, None, result)
    assert seen.reason


async def test_nothing_is_written_before_the_project_is_known(sandbox: Sandbox, make_deliverer: MakeDeliverer) -> None:
    sandbox.faults({"status": 503})
    outcome = await make_deliverer().deliver(oru(), "i1/acme/1")
    assert outcome.result is Result.NOT_TAKEN
    assert sandbox.stats()["resources"] == {}


async def test_the_probe_is_repeated_every_hour(sandbox: Sandbox, make_deliverer: MakeDeliverer) -> None:
    now = [1000.0]
    deliverer = make_deliverer(clock=lambda: now[0])
    await deliverer.deliver(oru("A1"), "i1/acme/1")
    sandbox.config(transactions="off")
    await deliverer.deliver(oru("A2"), "i1/acme/2")
    assert deliverer.atomic is True
    now[0] += 3601
    await deliverer.deliver(oru("A3"), "i1/acme/3")
    assert deliverer.atomic is False
    sandbox.assert_sound()

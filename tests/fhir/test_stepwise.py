"""A project whose transactions are not atomic: everything arrives all the same, once."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from engine.fhir.deliverer import Deliverer
from engine.fhir.facts import Write
from engine.fhir.failure import Trouble
from engine.fhir.output import Entry
from engine.fhir.stepwise import steps, worst_of
from engine.fhir.transaction import Limits
from engine.ledger.outcome import Result
from tests.fhir.conftest import MakeDeliverer
from tests.fhir.outputs import named, oru
from tests.support.sandbox import Sandbox


@pytest.fixture(autouse=True)
def transactions_off(sandbox: Sandbox) -> None:
    sandbox.config(transactions="off")


async def test_the_project_is_seen_not_to_be_atomic_and_it_is_said_aloud(
    deliverer: Deliverer, capsys: pytest.CaptureFixture[str]
) -> None:
    seen = await deliverer.probe()
    assert (seen.ok, seen.atomic) == (True, False)
    assert "not_atomic" in capsys.readouterr().err


async def test_a_report_arrives_step_by_step_and_a_repeat_writes_nothing(
    sandbox: Sandbox, deliverer: Deliverer
) -> None:
    outcome = await deliverer.deliver(oru(order=True, specimen=True), "i1/acme/1")
    assert outcome.result is Result.DELIVERED, outcome.reason
    assert outcome.points == sandbox.stats()["points"] - 20  # all but the probe
    before = sandbox.stats()["versions"]
    assert (await deliverer.deliver(oru(order=True, specimen=True), "i1/acme/2")).result is Result.DELIVERED
    assert sandbox.stats()["versions"] == before
    assert len(sandbox.one("DiagnosticReport")["result"]) == 5
    sandbox.assert_sound()


async def test_an_entry_that_fails_is_read_and_the_next_attempt_completes(
    sandbox: Sandbox, deliverer: Deliverer
) -> None:
    bad = oru()
    named(bad, "DiagnosticReport").resource["status"] = None
    outcome = await deliverer.deliver(bad, "i1/acme/1")
    assert outcome.result is Result.NEVER
    assert sandbox.dump("Provenance") == []
    assert (await deliverer.deliver(oru(), "i1/acme/1")).result is Result.DELIVERED
    assert len(sandbox.dump("Observation")) == 5
    assert len(sandbox.dump("Provenance")) == 1
    sandbox.assert_sound()


@pytest.mark.parametrize("skip", [1, 2, 3, 4, 5])
async def test_a_break_at_any_step_leaves_nothing_twice(sandbox: Sandbox, deliverer: Deliverer, skip: int) -> None:
    await deliverer.probe()
    sandbox.faults({"dropConnection": True, "afterCommit": True, "skip": skip, "count": 1, "method": "POST"})
    outcome = await deliverer.deliver(oru(), "i1/acme/1")
    sandbox.faults()
    unknown = outcome.result is Result.UNKNOWN
    assert unknown or outcome.result is Result.NOT_TAKEN
    again = await deliverer.deliver(oru(), "i1/acme/1", unknown=unknown, since=asyncio.get_running_loop().time())
    assert again.result is Result.DELIVERED, again.reason
    assert len(sandbox.dump("Observation")) == 5
    assert len(sandbox.dump("Provenance")) == 1
    sandbox.assert_sound()


async def test_a_project_that_stops_being_atomic_is_noticed_in_the_first_answer(
    sandbox: Sandbox, make_deliverer: MakeDeliverer
) -> None:
    sandbox.config(transactions="on")
    deliverer = make_deliverer()
    assert (await deliverer.deliver(oru("A0"), "i1/acme/1")).result is Result.DELIVERED
    sandbox.config(transactions="off")
    bad = oru("A1")
    named(bad, "Observation").resource["status"] = None
    assert (await deliverer.deliver(bad, "i1/acme/2")).result is Result.NEVER
    assert deliverer.atomic is False
    assert (await deliverer.deliver(oru("A1"), "i1/acme/2")).result is Result.DELIVERED
    sandbox.assert_sound()


def write(urn: str, *refers: str) -> Write:
    resource: dict[str, Any] = {"resourceType": "Observation", "hasMember": [{"reference": one} for one in refers]}
    return Write(Entry("o", resource, {"reference": urn}, "fact", (("s", urn),), "overwrite"), resource, urn)


def test_nothing_goes_with_what_it_refers_to() -> None:
    a, b, c = (f"urn:uuid:00000000-0000-4000-8000-00000000000{n}" for n in "abc")
    made = steps([write(a, b), write(b, c), write(c)], Limits())
    assert [[one.urn for one in step] for step in made] == [[c], [b], [a]]
    with pytest.raises(Trouble, match="circle"):
        steps([write(a, b), write(b, a)], Limits())


def test_of_several_troubles_the_gravest_decides() -> None:
    never, later = Trouble(Result.NEVER, "n"), Trouble(Result.NOT_TAKEN, "l", status=409)
    assert worst_of([later, never]) is never
    assert worst_of([]) is None

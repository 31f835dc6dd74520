"""Messages larger than one transaction may be arrive whole, and go on where they broke off."""

from __future__ import annotations

import pytest

from engine.fhir.transaction import Limits
from engine.ledger.outcome import Result
from tests.fhir.conftest import MakeDeliverer
from tests.fhir.outputs import oru
from tests.support.sandbox import Sandbox


async def test_a_message_of_many_results_arrives_in_several_transactions(
    sandbox: Sandbox, make_deliverer: MakeDeliverer
) -> None:
    deliverer = make_deliverer(limits=Limits(entries=20))
    assert (await deliverer.deliver(oru(results=70), "i1/acme/1")).result is Result.DELIVERED
    assert len(sandbox.one("DiagnosticReport")["result"]) == 70
    sandbox.assert_sound()


async def test_more_than_fifty_updates_are_possible(sandbox: Sandbox, make_deliverer: MakeDeliverer) -> None:
    deliverer = make_deliverer()
    await deliverer.deliver(oru(results=60), "i1/acme/1")
    outcome = await deliverer.deliver(oru(results=60, issued="2026-03-02T00:00:00Z"), "i1/acme/2")
    assert outcome.result is Result.DELIVERED, outcome.reason
    assert sandbox.stats()["versions"]["Observation"] == 120
    sandbox.assert_sound()


@pytest.mark.parametrize("skip", [1, 2, 3, 4])
async def test_a_break_between_transactions_goes_on_where_it_was(
    sandbox: Sandbox, make_deliverer: MakeDeliverer, skip: int
) -> None:
    deliverer = make_deliverer(limits=Limits(entries=20))
    await deliverer.deliver(oru("A0"), "i1/acme/1")
    sandbox.faults({"status": 503, "skip": skip, "count": 1, "method": "POST"})
    outcome = await deliverer.deliver(oru(results=70), "i1/acme/2")
    assert outcome.result is Result.NOT_TAKEN
    assert (await deliverer.deliver(oru(results=70), "i1/acme/2")).result is Result.DELIVERED
    assert len(sandbox.dump("Provenance")) == 2
    sandbox.assert_sound()

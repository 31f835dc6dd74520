"""Anchors: a bounded cache that only saves requests, dependencies first, circles cut."""

from __future__ import annotations

from typing import Any

from engine.fhir.anchors import Cache, without_open_references
from engine.fhir.deliverer import Deliverer
from engine.fhir.output import Output
from engine.ledger.outcome import Result
from tests.fhir.outputs import entry, oru, patient
from tests.support.sandbox import Sandbox


def stored(id: str) -> dict[str, Any]:
    return {"resourceType": "Patient", "id": id, "meta": {"versionId": "1"}}


def test_the_least_lately_used_goes_first() -> None:
    cache = Cache(capacity=2)
    keys = [("Patient", "s", str(n)) for n in range(3)]
    cache.put(keys[0], stored("0"))
    cache.put(keys[1], stored("1"))
    cache.get(keys[0])
    cache.put(keys[2], stored("2"))
    assert [cache.get(key) is not None for key in keys] == [True, False, True]


def test_what_is_known_by_several_keys_is_the_same_by_each() -> None:
    cache = Cache()
    cache.put(("Patient", "s", "A"), {"resourceType": "Patient", "id": "1", "active": True}, b"merged", ("Patient/2",))
    cache.put(("Organization", "s", "A"), {"resourceType": "Organization", "id": "1"})  # an id is one of its type alone
    cache.put(("Patient", "s", "B"), {"resourceType": "Patient", "id": "1", "active": False})
    first, other = cache.get(("Patient", "s", "A")), cache.get(("Organization", "s", "A"))
    assert first is not None
    assert other is not None
    assert (b'"active":false' in first.stored, first.merged, first.way) == (True, b"merged", ("Patient/2",))
    assert b"Organization" in other.stored
    for key in (("Patient", "s", "A"), ("Patient", "s", "B"), ("Organization", "s", "A")):
        cache.forget(key)
    assert len(cache) == 0


def test_what_is_old_is_searched_again() -> None:
    now = [0.0]
    cache = Cache(life=10, clock=lambda: now[0])
    cache.put(("Patient", "s", "1"), stored("1"))
    now[0] = 11
    assert cache.get(("Patient", "s", "1")) is None
    assert len(cache) == 0


def test_a_property_that_refers_to_what_is_not_stored_is_left_out_whole() -> None:
    open_one = {"reference": "urn:uuid:1"}
    resource = {"a": [{"b": open_one, "use": "x"}], "c": {"reference": "Patient/1"}, "d": 1}
    assert without_open_references(resource) == {"c": {"reference": "Patient/1"}, "d": 1}


async def test_anchors_are_made_after_those_that_they_refer_to(sandbox: Sandbox, deliverer: Deliverer) -> None:
    who = patient()
    where = entry("Organization", "urn:o", "1", role="anchor", name="Acme")
    who.resource["managingOrganization"] = where.reference
    assert (await deliverer.deliver(Output([who, where]), "i1/adt/1")).result is Result.DELIVERED
    sandbox.assert_sound()


async def test_an_anchor_that_refers_to_a_fact_gets_the_reference_with_it(
    sandbox: Sandbox, deliverer: Deliverer
) -> None:
    def adt() -> Output:
        who = patient()
        stay = entry("Encounter", "urn:v", "V1", role="anchor", status="in-progress", subject=who.reference)
        ill = entry("Condition", "urn:c", "C1", subject=who.reference, encounter=stay.reference)
        stay.resource["class"] = {"code": "IMP"}
        stay.resource["diagnosis"] = [{"condition": ill.reference}]
        return Output([who, stay, ill])

    for n in (1, 2):
        outcome = await deliverer.deliver(adt(), f"i1/adt/{n}")
        assert outcome.result is Result.DELIVERED, outcome.reason
    stay, ill = sandbox.one("Encounter"), sandbox.one("Condition")
    assert stay["diagnosis"][0]["condition"]["reference"] == f"Condition/{ill['id']}"
    assert ill["encounter"]["reference"] == f"Encounter/{stay['id']}"
    assert sandbox.stats()["versions"] == {"Patient": 1, "Encounter": 2, "Condition": 1}
    sandbox.assert_sound()


async def test_a_known_anchor_costs_no_request(sandbox: Sandbox, deliverer: Deliverer) -> None:
    await deliverer.deliver(oru("A1"), "i1/acme/1")
    before = sandbox.stats()["requests"]
    await deliverer.deliver(oru("A2"), "i1/acme/2")
    assert sandbox.stats()["requests"] - before == 2  # one search, one transaction


async def test_an_anchor_without_an_identifier_is_never_sent(sandbox: Sandbox, deliverer: Deliverer) -> None:
    who = patient()
    who.key = ()
    assert (await deliverer.deliver(Output([who]), "i1/adt/1")).result is Result.NEVER
    assert sandbox.dump("Patient") == []

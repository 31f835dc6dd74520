"""Bundles keep the server's limits, and nothing is sent before what it refers to."""

from __future__ import annotations

from engine.fhir.facts import Write
from engine.fhir.output import Entry
from engine.fhir.transaction import Limits, chunks, concrete, entry_for, ordered, place_of
from tests.fhir.outputs import oru


def writes(results: int = 5) -> list[Write]:
    entries = [one for one in reversed(oru(results=results).entries) if one.role != "anchor"]
    return [Write(one, one.resource, one.reference["reference"]) for one in entries]


def types(group: list[Write]) -> list[str]:
    return [write.entry.type for write in group]


def test_the_report_comes_after_its_results_and_the_provenance_last() -> None:
    assert [kind for group in ordered(writes(2)) for kind in types(group)] == [
        "Observation",
        "Observation",
        "DiagnosticReport",
        "Provenance",
    ]


def test_what_does_not_fit_goes_in_several_bundles_with_the_report_in_the_last() -> None:
    parts = chunks(writes(7), Limits(entries=4))
    assert [len(part) for part in parts] == [4, 4, 1]
    assert types(parts[-1]) == ["Provenance"]
    assert "DiagnosticReport" in types(parts[1])


def test_at_most_the_allowed_number_of_updates_is_in_one_bundle() -> None:
    def update(n: int) -> Write:
        resource = {"resourceType": "Observation", "id": str(n), "meta": {"versionId": "1"}}
        return Write(Entry("o", resource, {"reference": f"Observation/{n}"}, "fact", (), "overwrite"), resource)

    assert [len(part) for part in chunks([update(n) for n in range(120)], Limits())] == [50, 50, 20]


def test_a_bundle_is_not_larger_than_the_server_takes() -> None:
    parts = chunks(writes(20), Limits(size=3000))
    assert len(parts) > 2
    assert sum(map(len, parts)) == 22


def test_a_circle_stays_together() -> None:
    first, second = ({"reference": f"urn:uuid:00000000-0000-4000-8000-00000000000{n}"} for n in (1, 2))
    a = Entry("a", {"resourceType": "Observation", "hasMember": [second]}, first, "fact", (), "overwrite")
    b = Entry("b", {"resourceType": "Observation", "derivedFrom": [first]}, second, "fact", (), "overwrite")
    circle = [Write(one, one.resource, one.reference["reference"]) for one in (a, b)]
    assert [len(group) for group in ordered(circle)] == [2]
    assert [len(part) for part in chunks(circle, Limits(entries=1))] == [2]


def test_an_update_goes_to_its_id_if_its_version_still_stands() -> None:
    resource = {"resourceType": "Observation", "id": "7", "meta": {"versionId": "v1", "lastUpdated": "t", "tag": []}}
    made = entry_for(Write(Entry("o", resource, {}, "fact", (), "overwrite"), resource))
    assert made["request"] == {"method": "PUT", "url": "Observation/7", "ifMatch": 'W/"v1"'}
    assert made["resource"]["meta"] == {"tag": []}


def test_a_later_bundle_refers_to_what_an_earlier_one_stored() -> None:
    body = b'{"a":{"reference":"urn:uuid:1"},"b":"urn:uuid:1"}'
    assert concrete(body, {"urn:uuid:1": "Observation/1"}) == b'{"a":{"reference":"Observation/1"},"b":"urn:uuid:1"}'


def test_a_location_is_a_place_in_every_form() -> None:
    for location in ("Observation/a-1", "http://x/fhir/R4/Observation/a-1", "Observation/a-1/_history/2"):
        assert place_of({"location": location}) == "Observation/a-1"
    assert place_of({}) is None

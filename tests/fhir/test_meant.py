"""Which stored anchor an entry means."""

from __future__ import annotations

from typing import Any

import pytest

from engine.fhir.meant import asked_by, foreign, keys_of_new, meant
from engine.fhir.output import Entry, Key, Resource

PLACER, FILLER, ORDER = "urn:emr", "urn:lab", "urn:interlock:acme:order"
TYPES = {PLACER: "PLAC", FILLER: "FILL"}


def resource(*numbers: str, code: str = "", **more: Any) -> Resource:
    """A request with numbers of the placer (P1), of the laboratory (F1) and of services (P1:GLU); glu: another site's
    code."""
    identifiers = []
    for number in numbers:
        system, value = pair(number)
        typed = {"type": {"coding": [{"code": TYPES[system]}]}} if system in TYPES else {}
        identifiers.append({"system": system, "value": value, **typed})
    system = "urn:local" if code.isupper() else "urn:other"
    told = {"code": {"coding": [{"system": system, "code": code}]}} if code else {}
    return {"resourceType": "ServiceRequest", "identifier": identifiers, "subject": WHO, **told, **more}


WHO = {"reference": "Patient/1"}


def pair(number: str) -> tuple[str, str]:
    return ORDER if ":" in number else PLACER if number[0] == "P" else FILLER, number


def keys(numbers: str) -> Key:
    return tuple(map(pair, numbers.split()))


def entry(key: str, formerly: str = "", code: str = "GLU", has: str = "") -> Entry:
    mine = resource(*(has or f"{key.split()[0]} {formerly}").split(), code=code)
    return Entry("order", mine, {}, "anchor", keys(key), "fill", apart="code", formerly=keys(formerly))


@pytest.mark.parametrize(
    ("found", "wanted"),
    [
        (["P1 GLU"], 0),
        (["P1 HGB"], None),  # another service under its number
        (["P1 glucose"], 0),  # which may be another site's word for it
        (["P1 glucose", "P1:GLU glu"], 1),
        (["P1 P1:HGB HGB"], None),  # that was told apart
        (["P1 HGB", "P1:GLU GLU"], 1),
        (["P1 HGB", "F1 GLU"], 1),  # the laboratory alone has numbered it
        (["P1 HGB", "P1 CHEM"], None),
        (["F1 GLU"], 0),
        (["F1"], 0),
        (["F1 HGB"], None),
        (["F1 P2 GLU"], None),  # the laboratory's number is another order's too
        (["F1 P2:GLU GLU"], None),  # and that of one that was told apart
        (["F1 GLU", "F1 GLU"], None),
        (["F1 P2 GLU", "F1 GLU"], 1),
        (["F1 GLU", "P1 F1 GLU"], 1),
        ([], None),
    ],
)
def test_an_order_is_found_by_its_best_number_that_nothing_speaks_against(found: list[str], wanted: int | None) -> None:
    stored = []
    for at, words in enumerate(found):
        *numbers, code = words.split() if words.split()[-1].isalpha() else [*words.split(), ""]
        stored.append(resource(*numbers, code=code, id=str(at)))
    mine = entry("P1 P1:GLU", "F1", has="P1 F1")
    assert [one["id"] for one in meant(mine, stored)] == ([] if wanted is None else [str(wanted)])


def test_only_the_one_of_its_number_becomes_something_else() -> None:
    mine = entry("P1 P1:GLU", "F1", has="P1 F1")
    mine.becomes = True
    hemoglobin, chemistry = resource("P1", "F1", code="HGB"), resource("P1:CHEM", "F1", code="CHEM")
    assert meant(mine, [hemoglobin]) == [hemoglobin]
    assert meant(mine, [hemoglobin, chemistry]) == []


def test_a_former_number_is_of_one_patient() -> None:
    mine, other = entry("P1 P1:GLU", "F1"), {"reference": "Patient/2"}
    assert meant(mine, [resource("F1", code="GLU", subject=other)]) == []
    assert meant(mine, [resource("P1", code="GLU", subject=other)]) != []


def test_a_number_that_was_taken_is_no_longer_its_own() -> None:
    mine = entry("P1 P1:GLU")
    assert foreign(mine, resource("P1:GLU", code="GLU")) == keys("P1")
    assert foreign(mine, resource("P1", code="GLU")) == foreign(mine, resource("F1", code="GLU")) == ()
    assert keys_of_new(mine, [resource("P1", "P1:HGB", code="HGB")]) == (keys("P1:GLU"), keys("P1"))


def test_what_has_one_key_is_asked_for_by_that_alone() -> None:
    plain = Entry("patient", resource("P1"), {}, "anchor", keys("P1 F1"), "fill")
    assert asked_by(plain) == keys("P1")
    stored = [resource("P1"), resource("P1")]
    assert meant(plain, stored) == stored  # several: for a person

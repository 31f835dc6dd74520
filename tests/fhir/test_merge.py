"""An update of an anchor never blanks what the message does not know; a corrected fact is replaced whole."""

from __future__ import annotations

from typing import Any

import pytest

from engine.fhir.merge import contradicts, merge_anchor, older, replace_fact, same


def patient(**content: Any) -> dict[str, Any]:
    return {"resourceType": "Patient", "id": "1", "meta": {"versionId": "v"}, **content}


def test_create_changes_nothing_that_exists() -> None:
    assert merge_anchor(patient(), patient(gender="male"), "create") is None


def test_fill_adds_what_is_missing_only() -> None:
    result = merge_anchor(patient(gender="male"), patient(gender="female", birthDate="1980"), "fill")
    assert result == patient(gender="male", birthDate="1980")


def test_overwrite_changes_what_the_message_knows_and_keeps_the_rest() -> None:
    result = merge_anchor(patient(gender="male", birthDate="1980"), patient(gender="female"), "overwrite")
    assert result == patient(gender="female", birthDate="1980")


@pytest.mark.parametrize("policy", ["fill", "overwrite"])
def test_nothing_new_is_no_change(policy: Any) -> None:
    known = patient(identifier=[{"system": "a", "value": "1"}], gender="male")
    assert merge_anchor(known, {**known, "meta": {"tag": []}}, policy) is None


@pytest.mark.parametrize("policy", ["fill", "overwrite"])
def test_identifiers_are_united(policy: Any) -> None:
    mine = patient(identifier=[{"system": "a", "value": "1"}])
    ours = patient(identifier=[{"system": "b", "value": "2"}, {"system": "a", "value": "1"}])
    result = merge_anchor(mine, ours, policy)
    assert result is not None
    assert [one["system"] for one in result["identifier"]] == ["a", "b"]


def test_links_between_patients_are_never_dropped() -> None:
    one, two = ({"other": {"reference": f"Patient/{n}"}, "type": "replaces"} for n in (1, 2))
    result = merge_anchor(patient(link=[one]), patient(link=[two]), "overwrite")
    assert result is not None
    assert result["link"] == [one, two]


def test_a_period_is_merged_and_a_code_is_replaced_whole() -> None:
    stored = {"resourceType": "Encounter", "period": {"start": "2026"}, "type": {"coding": ["A"], "text": "a"}}
    result = merge_anchor(stored, {"period": {"end": "2027"}, "type": {"coding": ["B"]}}, "overwrite")
    assert result is not None
    assert result["period"] == {"start": "2026", "end": "2027"}
    assert result["type"] == {"coding": ["B"]}


def test_of_a_choice_only_one_stands() -> None:
    result = merge_anchor(patient(deceasedBoolean=False), patient(deceasedDateTime="2026-01-01"), "overwrite")
    assert result == patient(deceasedDateTime="2026-01-01")
    assert merge_anchor(patient(deceasedBoolean=True), patient(deceasedDateTime="2026-01-01"), "fill") is None


def test_an_unknown_status_regresses_nothing() -> None:
    encounter = {"resourceType": "Encounter", "status": "finished"}
    assert merge_anchor(encounter, {"status": "unknown"}, "overwrite") is None
    changed = merge_anchor(encounter, {"status": "in-progress"}, "overwrite")  # a cancelled discharge
    assert changed is not None
    assert changed["status"] == "in-progress"


def test_a_corrected_value_loses_the_flag_of_the_old_one() -> None:
    stored = {"resourceType": "Observation", "id": "1", "valueString": "9", "interpretation": [{"text": "H"}]}
    result = replace_fact(stored, {"resourceType": "Observation", "valueQuantity": {"value": 5}})
    assert result == {"resourceType": "Observation", "id": "1", "valueQuantity": {"value": 5}}


def test_a_report_keeps_results_that_a_correction_does_not_repeat() -> None:
    def report(*ids: str, **content: Any) -> dict[str, Any]:
        results = [{"reference": f"Observation/{id}"} for id in ids]
        return {"resourceType": "DiagnosticReport", "id": "1", "result": results, **content}

    assert replace_fact(report("a", "b"), report("b", "c"))["result"] == report("a", "b", "c")["result"]
    assert same(replace_fact(report("a", "b"), report("b", "a")), report("a", "b"))
    assert replace_fact(report("a", conclusion="x"), report("a"))["conclusion"] == "x"
    assert replace_fact(report("a", presentedForm=[{"url": "u"}]), report("a"))["presentedForm"]


def test_ids_versions_and_tags_do_not_count_as_content() -> None:
    assert same(patient(gender="male"), {"resourceType": "Patient", "gender": "male"})
    assert not same(patient(gender="male"), patient())


@pytest.mark.parametrize(
    ("ours", "theirs", "verdict"),
    [
        ("2026-03-01T09:00:00Z", "2026-03-01T10:00:00Z", True),
        ("2026-03-01T10:30:00+01:00", "2026-03-01T09:00:00.000Z", False),
        ("2026-03-01T10:00:00+01:00", "2026-03-01T09:00:00Z", None),
        (None, "2026-03-01T09:00:00Z", None),
        ("2026-03-01T09:00:00", "2026-03-01T09:00:00Z", None),
    ],
)
def test_what_was_issued_first_is_older(ours: str | None, theirs: str, verdict: bool | None) -> None:
    assert older({"issued": ours}, {"issued": theirs}) is verdict


@pytest.mark.parametrize(
    ("ours", "theirs", "verdict"),
    [
        (("1980-02-03", "Muster"), ("1980-02-03", "Muster"), False),
        (("1980-02-03", "Muster"), ("1980-02-03", "Married"), False),
        (("1980-02-03", "MUSTER"), ("1981-02-03", "Muster"), False),
        (("1980-02-03", "Muster"), ("1981-02-03", "Other"), True),
        (("1980-02-03", "Muster"), ("1980-02", "Other"), False),
        (("1980-02-03", None), ("1981", "Other"), True),
        ((None, "Muster"), (None, "Other"), True),
        ((None, None), ("1980", "Other"), False),
    ],
)
def test_a_patient_matches_unless_all_that_is_known_contradicts(
    ours: tuple[str | None, str | None], theirs: tuple[str | None, str | None], verdict: bool
) -> None:
    def who(birth: str | None, family: str | None) -> dict[str, Any]:
        return {"birthDate": birth, "name": [{"family": family}] if family else []}

    assert contradicts(who(*ours), who(*theirs)) is verdict


def test_a_correction_that_says_nothing_of_the_specimen_keeps_it_with_the_contained_resource():
    blood = {"resourceType": "Specimen", "id": "specimen", "type": {"text": "Blood"}}
    existing = {
        "resourceType": "DiagnosticReport",
        "id": "1",
        "status": "final",
        "contained": [blood],
        "specimen": [{"reference": "#specimen"}],
    }
    corrected = replace_fact(existing, {"resourceType": "DiagnosticReport", "status": "corrected"})
    assert corrected["specimen"] == [{"reference": "#specimen"}]
    assert corrected["contained"] == [blood]
    other = {**blood, "type": {"text": "Serum"}}
    ours = {**corrected, "contained": [other]}
    assert replace_fact(existing, ours)["contained"] == [other]

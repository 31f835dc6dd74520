"""An update of an anchor never blanks what the message does not know; a corrected fact is replaced whole."""

from __future__ import annotations

from typing import Any

import pytest

from engine.fhir.merge import (
    add_parts,
    agrees,
    cleared,
    contradicts,
    merge_anchor,
    older,
    replace_fact,
    same,
    says_nothing,
)


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


# --- What is required, and what is not known


@pytest.mark.parametrize(
    ("value", "verdict"),
    [
        ("unknown", True),
        ("final", False),
        ({"system": "urn:nullflavor", "code": "UNK", "display": "unknown"}, True),
        ({"code": "IMP"}, False),
        ({"coding": [{"code": "unknown"}]}, True),
        ({"coding": [{"code": "unknown"}], "text": "Glucose"}, False),
        ({"coding": [{"code": "unknown"}, {"code": "GLU"}]}, False),
        ({"display": "unknown"}, True),
        ({"text": "unknown"}, True),
        ({"reference": "Patient/1"}, False),
        ([], False),
    ],
)
def test_a_default_says_nothing(value: Any, verdict: bool) -> None:
    assert says_nothing(value) is verdict


KNOWN = {"status": "finished", "class": {"code": "IMP"}, "subject": {"reference": "Patient/1"}}
DEFAULTS = {"status": "unknown", "class": {"code": "UNK"}, "subject": {"display": "unknown"}}


@pytest.mark.parametrize("policy", ["fill", "overwrite"])
def test_a_default_never_overwrites_and_always_gives_way(policy: Any) -> None:
    assert merge_anchor(dict(KNOWN), DEFAULTS, policy) is None
    assert merge_anchor(dict(DEFAULTS), KNOWN, policy) == KNOWN


def test_a_fact_keeps_what_a_correction_does_not_know_though_it_is_required() -> None:
    stored = {"resourceType": "Condition", "id": "1", "code": {"text": "a"}, **KNOWN}
    assert replace_fact(stored, {"resourceType": "Condition", "code": {"text": "b"}, **DEFAULTS}) == {
        "resourceType": "Condition", "id": "1", "code": {"text": "b"}, **KNOWN,
    }  # fmt: skip


# --- What is declared empty


@pytest.mark.parametrize("policy", ["fill", "overwrite"])
def test_an_element_that_is_declared_empty_goes_and_what_extends_it_too(policy: Any) -> None:
    stored = patient(birthDate="1980-01-01", _birthDate={"extension": []}, gender="male", address=[{"city": "Ulm"}])
    assert merge_anchor(stored, {}, policy, {"birthDate", "photo"}) == patient(gender="male", address=[{"city": "Ulm"}])
    assert merge_anchor(stored, {"birthDate": "1981"}, policy, {"birthDate"}) == patient(
        gender="male", address=[{"city": "Ulm"}], birthDate="1981"
    )


def test_what_nobody_can_do_without_is_never_declared_empty() -> None:
    stored = patient(identifier=[{"system": "a", "value": "1"}], link=[], extension=[{"url": "u"}], **KNOWN)
    assert merge_anchor(stored, {}, "overwrite", frozenset(stored)) is None


def test_a_part_of_an_element_is_declared_empty() -> None:
    home, work, cell = ({"value": use, "use": use} for use in ("home", "work", "mobile"))
    stored = {"hospitalization": {"dischargeDisposition": {"text": "a"}, "admitSource": {"text": "b"}}}
    gone = frozenset(("hospitalization.dischargeDisposition", "telecom[home]"))
    result = merge_anchor({**stored, "telecom": [home, work, cell]}, {}, "overwrite", gone)
    assert result == {"hospitalization": {"admitSource": {"text": "b"}}, "telecom": [work]}
    only = {"hospitalization": {"dischargeDisposition": {"text": "a"}}, "telecom": [home], "id": "1"}
    assert merge_anchor(only, {}, "overwrite", gone) == {"id": "1"}


def test_a_reports_conclusion_is_declared_empty() -> None:
    stored = {"resourceType": "DiagnosticReport", "id": "1", "conclusion": "x", "status": "final"}
    ours = {"resourceType": "DiagnosticReport", "status": "corrected"}
    assert replace_fact(stored, ours)["conclusion"] == "x"
    assert "conclusion" not in replace_fact(stored, ours, clears={"conclusion"})


# --- Lists that a message brings a part of


def test_numbers_for_home_and_for_work_are_two_fields() -> None:
    home, work, new = {"value": "1"}, {"value": "2", "use": "work"}, {"value": "3", "use": "home"}
    result = merge_anchor(patient(telecom=[home, work]), {"telecom": [new]}, "overwrite")
    assert result == patient(telecom=[new, work])
    assert merge_anchor(patient(telecom=[home]), {"telecom": [new]}, "fill") is None
    assert merge_anchor(patient(telecom=[work, home]), {"telecom": [home, work]}, "overwrite") is None


def test_each_kind_of_participant_is_a_field_of_its_own() -> None:
    def doctor(kind: str, name: str) -> dict[str, Any]:
        return {"type": [{"coding": [{"code": kind}]}], "individual": {"display": name}}

    stored = {"participant": [doctor("ATND", "a"), doctor("CON", "b"), doctor("CON", "c")]}
    result = merge_anchor(stored, {"participant": [doctor("CON", "d"), doctor("ADM", "e")]}, "overwrite")
    assert result == {"participant": [doctor("ATND", "a"), doctor("CON", "d"), doctor("ADM", "e")]}


def test_extensions_of_one_url_belong_together() -> None:
    def told(url: str, *values: str) -> list[dict[str, Any]]:
        return [{"url": url, "valueString": value} for value in values]

    stored = patient(extension=[*told("race", "a", "b"), *told("religion", "x")])
    result = merge_anchor(stored, {"extension": told("race", "b", "c", "d")}, "overwrite")
    assert result == patient(extension=[*told("race", "b", "c", "d"), *told("religion", "x")])
    assert merge_anchor(stored, {"extension": told("race", "a", "b")}, "overwrite") is None
    filled = merge_anchor(stored, {"extension": [*told("race", "c"), *told("birth", "y")]}, "fill")
    assert filled == patient(extension=[*stored["extension"], *told("birth", "y")])


def test_a_time_of_birth_belongs_to_its_date() -> None:
    first = {
        "birthDate": "1980-01-01",
        "_birthDate": {"extension": [{"url": "t", "valueDateTime": "1980-01-01T10:00Z"}]},
    }
    second = {
        "birthDate": "1980-01-02",
        "_birthDate": {"extension": [{"url": "t", "valueDateTime": "1980-01-02T11:00Z"}]},
    }
    assert merge_anchor(patient(**first), {"birthDate": "1980-01-02"}, "overwrite") == patient(birthDate="1980-01-02")
    assert merge_anchor(patient(**first), second, "overwrite") == patient(**second)
    assert merge_anchor(patient(birthDate="1980-01-01"), second, "fill") is None
    assert merge_anchor(patient(birthDate="1980-01-01"), first, "fill") == patient(**first)


# --- Contained resources


def test_contained_resources_are_those_that_are_pointed_at() -> None:
    def order(*names: str, contained: str = "", **content: Any) -> dict[str, Any]:
        inside = [{"resourceType": "Specimen", "id": name, "note": contained} for name in names]
        return {"resourceType": "ServiceRequest", "id": "1", "contained": inside, **content}

    stored = order("a", "b", specimen=[{"reference": "#a"}], subject={"reference": "#b"})
    result = merge_anchor(stored, order("c", contained="new", specimen=[{"reference": "#c"}]), "overwrite")
    assert result is not None
    assert [one["id"] for one in result["contained"]] == ["b", "c"]
    assert merge_anchor(stored, order("a", contained="new", specimen=[{"reference": "#a"}]), "fill") is None
    newer = merge_anchor(stored, order("a", contained="new", specimen=[{"reference": "#a"}]), "overwrite")
    assert newer is not None
    assert [one["note"] for one in newer["contained"]] == ["new", ""]
    bare = {"resourceType": "ServiceRequest", "id": "1", "subject": {"reference": "Patient/1"}}
    assert merge_anchor(bare, order("b", subject={"reference": "#b"}), "fill") is None


# --- Older reports


def test_an_older_report_adds_its_results_and_nothing_else() -> None:
    stored = {"resourceType": "DiagnosticReport", "status": "final", "result": [{"reference": "Observation/a"}]}
    ours = {
        "resourceType": "DiagnosticReport", "status": "preliminary", "specimen": [{"reference": "#s"}],
        "result": [{"reference": "Observation/a"}, {"reference": "urn:uuid:1"}],
    }  # fmt: skip
    assert add_parts(stored, ours) == {**stored, "result": ours["result"]}
    assert add_parts({"resourceType": "Observation"}, {**ours, "resourceType": "Observation"}) == {
        "resourceType": "Observation"
    }


def test_an_event_decides_where_no_time_of_issue_does() -> None:
    stored = {"meta": {"extension": [{"url": "urn:interlock:event", "valueDateTime": "2026-03-02"}]}}
    assert older({}, stored, "2026-03-01") is True
    assert older({}, stored, "") is None
    assert (
        older({"issued": "2026-03-05T00:00:00Z"}, {**stored, "issued": "2026-03-04T00:00:00Z"}, "2026-03-01") is False
    )


def test_who_is_the_same_agrees_in_what_both_know() -> None:
    assert agrees({"birthDate": "1980"}, {"birthDate": "1980-01-01"}) is True
    assert agrees({"birthDate": "1980"}, {"birthDate": "1981"}) is False
    assert agrees({"birthDate": "1980"}, {}) is None


def test_a_notice_without_a_document_leaves_the_document_as_it_is() -> None:
    stored = {"resourceType": "DocumentReference", "id": "1", "content": [{"attachment": {"data": "eA=="}}]}
    bare = [{"attachment": {"title": "unknown"}}]
    notice = {"resourceType": "DocumentReference", "status": "superseded", "content": bare}
    result = replace_fact(stored, notice)
    assert result["content"] == stored["content"]
    assert result["status"] == "superseded"


def test_participants_go_by_their_type() -> None:
    def one(code: str) -> dict[str, object]:
        return {"type": [{"coding": [{"code": code}]}], "individual": {"display": code}}

    stored = {"resourceType": "Encounter", "participant": [one("ATND"), one("REF")]}
    assert cleared(stored, {"participant[ATND]"})["participant"] == [one("REF")]

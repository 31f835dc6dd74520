"""Times are compared as far as they are known, and noted where nothing else is disturbed."""

from __future__ import annotations

import pytest

from engine.fhir.event_time import cleared_of, event_of, latest, linked_of, noted, older, timed


@pytest.mark.parametrize(
    ("ours", "theirs", "verdict"),
    [
        ("2026-03-01T09:00:00Z", "2026-03-01T10:00:00Z", True),
        ("2026-03-01T10:30:00+01:00", "2026-03-01T09:00:00Z", False),
        ("2026-03-01T10:00:00+01:00", "2026-03-01T09:00:00Z", None),
        ("2026-03-01T09:00:00.250Z", "2026-03-01T09:00:00.500Z", True),
        ("2026-03-01", "2026-03-01T09:00:00Z", None),
        ("2026-02-27", "2026-03-01T09:00:00Z", True),
        ("2026-03-02", "2026-03-01", False),
        ("2026-03-02", "2026-03-01T20:00:00Z", None),
        ("2026-03-01T09:00:00", "2026-03-01T10:00:00", True),
        ("2026-03", "2026-03-15", None),
        ("2025", "2026-03-15", True),
        ("2027", "2026-12-15", False),
        ("2026-03-01T09:00:00", "2026-03-01T09:00:00Z", None),
        ("2026-03-01T09:00:00", "2026-03-03T09:00:00Z", True),
        ("", "2026-03-01", None),
        ("2026-03-01", "", None),
        ("tomorrow", "2026-03-01", None),
        ("9999", "2026-03-01", None),
        ("0001-01-01", "2026-03-01", None),
    ],
)
def test_a_time_is_older_where_it_surely_is(ours: str, theirs: str, verdict: bool | None) -> None:
    assert older(ours, theirs) is verdict
    assert older(theirs, ours) is (None if verdict is None else not verdict)


def test_the_latest_time_is_kept_and_ours_where_nobody_knows() -> None:
    assert latest("2026-03-01T09:00:00Z", "2026-03-02T09:00:00Z") == "2026-03-02T09:00:00Z"
    assert latest("2026-03-02", "2026-03-02T09:00:00Z") == "2026-03-02"
    assert latest("", "2026-03-02") == "2026-03-02"
    assert latest("2026-03-02", "") == "2026-03-02"


def test_a_clock_that_runs_years_ahead_is_not_believed() -> None:
    assert event_of(timed({"resourceType": "Patient"}, "2999-01-01")) == ""
    assert event_of(timed({"resourceType": "Patient"}, "nonsense")) == ""


def test_notes_replace_notes_and_leave_the_rest() -> None:
    foreign = {"url": "urn:other", "valueString": "x"}
    first = noted({"source": "a", "extension": [foreign]}, event="2026", cleared=["telecom", "address"])
    patient = {"resourceType": "Patient", "meta": first}
    assert first["source"] == "a"
    assert first["extension"][0] == foreign
    assert event_of(patient) == "2026"
    assert linked_of(patient) == ""
    assert cleared_of(patient) == {"address", "telecom"}
    second = noted(first, linked="2025")
    assert [one["url"] for one in second["extension"]] == ["urn:other", "urn:interlock:linked"]
    assert noted({"source": "a"}) == {"source": "a"}


def test_a_resource_without_a_known_time_is_as_it_was() -> None:
    patient = {"resourceType": "Patient"}
    assert timed(patient, "") is patient
    assert event_of(timed(patient, "2026")) == "2026"
    assert patient == {"resourceType": "Patient"}

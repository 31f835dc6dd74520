"""The table of what can hurt somebody."""

from __future__ import annotations

import pytest

from engine.compare.severity import SET_IDS, TABLE, WHOLE, severity, worst
from engine.hl7.message import parse_path


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("OBX-5", "clinical"),
        ("OBX-5.2", "clinical"),  # of a field that is clinical as a whole
        ("PID-3", "clinical"),  # known by its components, sent without
        ("PID-3.1", "clinical"),
        ("PID-3.5", "business"),
        ("OBX-3.2", "cosmetic"),
        ("NTE", "clinical"),
        ("NTE-3", "clinical"),
        ("ZDS-4", "business"),
        ("ZDS", "business"),
        ("MSH-10", "cosmetic"),
        ("message", "clinical"),
    ],
)
def test_severity_by_path(path: str, expected: str) -> None:
    assert severity(path) == expected


def test_every_path_of_the_table_is_a_place_in_a_message() -> None:
    for path in (*TABLE, *SET_IDS):
        if path not in WHOLE and "-" in path:
            parse_path(path)
        elif path not in WHOLE:
            assert len(path) == 3
            assert path.isupper()


def test_what_the_design_calls_clinical_is() -> None:
    """Identity, code, value, unit, range, flag, status, order number."""
    named = [
        "PID-3.1",
        "PID-5.1",
        "PID-7",
        "PID-8",
        "OBX-3.1",
        "OBX-5",
        "OBX-6.1",
        "OBX-7",
        "OBX-8",
        "OBX-11",
        "OBR-25",
    ]
    assert {severity(path) for path in (*named, "ORC-2.1", "ORC-3.1", "OBR-2.1", "OBR-3.1", "OBR-4.1")} == {"clinical"}


def test_the_worst_of_some() -> None:
    assert worst(["cosmetic", "clinical", "business"]) == "clinical"
    assert worst([]) == "cosmetic"

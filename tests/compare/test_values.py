"""Two values that are written differently: the same, or not, and whether it takes a rule to say so."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.compare.values import common_type, likeness


@pytest.mark.parametrize(
    ("path", "one", "other", "type", "expected"),
    [
        ("PID-18", "a ", "a", "", ("padding", True)),
        ("PID-18.1", "007", "7", "", ("padding", False)),
        ("OBX-5", "7.10", "7.1", "NM", ("precision", True)),
        ("OBX-5", "7", "7.000", "NM", ("precision", True)),
        ("OBX-5", ".5", "0.5", "NM", ("precision", True)),
        ("OBX-5", "007", "7", "ST", ("padding", False)),
        ("OBX-5", "1:0320", "1:320", "ST", None),
        ("OBX-5", "10.10.2020", "10.1.2020", "ST", None),
        ("OBX-5", "1 2", "12", "ST", None),
        ("OBX-5", "100", "1", "NM", None),
        ("OBX-5", "-1", "1", "NM", None),
        ("OBX-7", "3.50-5.10", "3.5-5.1", "", ("precision", True)),
        ("OBX-7", "< 5.0", "<5", "", ("precision", True)),
        ("OBX-7", "3.5-5.1", "3.5-51", "", None),
        ("PID-3.1", "7.10", "7.1", "", None),
        ("OBX-3.1", "718-70", "718-7", "", None),
        ("PID-5.1", "Moss", "MOSS", "", ("case", True)),
        ("OBX-6.1", "mg", "Mg", "", ("case", False)),
        ("PID-8", '""', "", "", ("null", False)),
        ("OBX-14", "20260102101112", "20260102101112.000", "", ("time_precision", True)),
        ("OBX-14", "20260102101112", "202601021011", "", ("time_precision", True)),
        ("OBX-14", "20260102101112", "20260102", "", ("time_precision", False)),
        ("OBX-14", "20260102101112+0000", "20260102101112", "", ("time_zone", True)),
        ("OBX-14", "20260102101112+0000", "20260102111112+0100", "", ("time_zone", True)),
        ("OBX-14", "20260102101112+0000", "20260102101112+0100", "", None),
        ("OBX-14", "20260102101112", "20260102111112", "", None),
        ("OBX-14", "20260102101112", "soon", "", None),
        ("OBX-5", "202601021011", "20260102101100", "TS", ("time_precision", True)),
        ("OBX-5", "20260102", "20260103", "DT", None),
    ],
)
def test_likeness(path: str, one: str, other: str, type: str, expected: tuple[str, bool] | None) -> None:
    assert likeness(path, one, other, type) == expected
    assert likeness(path, other, one, type) == expected


def test_a_value_is_compared_by_its_type_where_both_sides_mean_that() -> None:
    assert common_type("NM", "NM") == "NM"
    assert common_type("NM", "ST") == common_type("ST", "NM") == ""
    for one, other in (("TS", "DTM"), ("DTM", "TS")):  # what an engine writes by its version of the standard
        assert likeness("OBX-5", "202601021011", "20260102101100", common_type(one, other)) == ("time_precision", True)


@given(st.text(max_size=20), st.text(max_size=20), st.sampled_from(["OBX-5", "OBX-7", "PID-5.1", "OBX-14", "PID-3.1"]))
def test_any_two_texts_can_be_asked_about(one: str, other: str, path: str) -> None:
    assert likeness(path, one, other, "NM") == likeness(path, other, one, "NM")


@given(st.decimals(allow_nan=False, allow_infinity=False, places=3), st.integers(0, 4))
def test_zeros_at_the_end_change_no_number(value: object, zeros: int) -> None:
    one, other = str(value), str(value) + "0" * zeros
    assert one == other or likeness("OBX-5", one, other, "NM") == ("precision", True)

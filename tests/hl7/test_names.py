"""Names: of the message's own version, and None where there is none."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hl7apy import SUPPORTED_LIBRARIES, load_library
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.hl7.names import VERSIONS, component_name, field_name, nearest, segment_name
from engine.hl7.segments import SEGMENTS


def test_the_versions_are_those_of_the_dictionary() -> None:
    assert sorted(VERSIONS) == sorted(SUPPORTED_LIBRARIES)


def test_every_segment_of_every_version_has_a_name() -> None:
    for version in VERSIONS:
        known = set(load_library(version).SEGMENTS) - {"ANYHL7SEGMENT"}
        assert known <= set(SEGMENTS)
        assert segment_name("MSH", version) == "Message Header"


@pytest.mark.parametrize(
    ("place", "version", "name"),
    [
        (("PID",), "2.5", "Patient Identification"),
        (("SPM",), "2.3", None),
        (("ZDS",), "2.5", None),
        (("PID", 5), "2.5.1", "Patient Name"),
        (("PID", 1), "2.5", "Set ID PID"),
        (("PID", 99), "2.5", None),
        (("ZDS", 1), "2.5", None),
        (("PID", 5, 2), "2.5", "Given Name"),
        (("PID", 5, 4), "2.5", "Suffix e.g. Jr or III"),
        (("PID", 3, 4), "2.3", "Assigning Authority"),
        (("PID", 1, 1), "2.5", None),
        (("OBX", 5, 2), "2.5", None),
    ],
)
def test_names(place: tuple[str, int, int], version: str, name: str | None) -> None:
    name_of = (segment_name, field_name, component_name)[len(place) - 1]
    assert name_of(*place, version) == name  # type: ignore[operator]


def test_a_name_is_of_its_version() -> None:
    assert field_name("OBR", 4, "2.1") == "Universal Service ID"
    assert field_name("OBR", 4, "2.5") == "Universal Service Identifier"


def test_obx_5_has_the_type_that_obx_2_says() -> None:
    assert component_name("OBX", 5, 2, "2.5", "CE") == "Text"
    assert component_name("OBX", 5, 5, "2.5", "ED") == "Data"
    assert component_name("PID", 5, 2, "2.5", "ED") == "Given Name"


@pytest.mark.parametrize(
    ("version", "known"),
    [
        *[(version, version) for version in VERSIONS],
        ("2.5.2", "2.5.1"),
        ("2.7.1", "2.7"),
        ("2.9", "2.8.2"),
        ("2.10", "2.8.2"),
        ("3", "2.8.2"),
        ("1.0", "2.1"),
        (" 2.4 ", "2.4"),
        ("", "2.5.1"),
        ("two", "2.5.1"),
        ("2." * 50, "2.5.1"),
    ],
)
def test_an_unknown_version_is_read_as_the_nearest_older_one(version: str, known: str) -> None:
    assert nearest(version) == known


@settings(deadline=None)
@given(st.text(max_size=6), st.integers(), st.integers(), st.text(max_size=8), st.none() | st.text(max_size=4))
def test_nothing_makes_it_raise(segment: str, field: int, component: int, version: str, kind: str | None) -> None:
    segment_name(segment, version)
    for name in (segment, "PID", "OBX"):
        field_name(name, field, version)
        component_name(name, field, component, version, kind)


def test_the_dictionary_is_loaded_when_it_is_first_asked_for() -> None:
    code = (
        "import sys; from engine.hl7 import names; before = 'hl7apy' in sys.modules;"
        "names.field_name('PID', 5, '2.3'); print(before, 'hl7apy.v2_3' in sys.modules, 'hl7apy.v2_5' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=60)
    assert done.stdout.split() == ["False", "True", "False"]


def test_without_the_dictionary_there_are_no_names() -> None:
    code = (
        "import sys; sys.modules['hl7apy'] = None; from engine.hl7 import names;"
        "print(names.field_name('PID', 5, '2.3'))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "None"

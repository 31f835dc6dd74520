"""What the simulated old engine does to messages: each alteration does what it says, and nothing else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.hl7.message import Message
from engine.simulate.alterations import FAULTS, HABITS
from engine.simulate.messages import Messages
from tests.compare.messages import REPORT

RAW = REPORT.encode()
REPORTS = [RAW, *(Messages(seed=9).message(number) for number in range(10))]


def changed(name: str, message: bytes = RAW) -> dict[str, tuple[str | None, str | None]]:
    """Fields that are another text afterwards: path → (before, after), of segments in their order."""
    before, after = (Message(raw.decode("utf-8", "replace")) for raw in (message, FAULTS[name](message)))
    found = {}
    for one, other in zip(before, after, strict=True):
        for number in range(max(len(one.fields), len(other.fields))):
            if one.get(number) != other.get(number):
                found.setdefault(f"{one.name}-{number}", (one.get(number), other.get(number)))
    return found


@pytest.mark.parametrize(
    ("name", "path", "before", "after"),
    [
        ("wrong_flag", "OBX-8", "H", "N"),
        ("wrong_value", "OBX-5", "104", "1041"),
        ("lost_comparator", "OBX-5", "<0.5", "0.5"),
        ("wrong_range", "OBX-7", "70-99", "70-90"),
        ("wrong_status", "OBX-11", "F", "P"),
        ("wrong_birth_date", "PID-7", "19710921", "19710922"),
        ("shifted_time", "OBR-7", "20261102081000-0600", "20261102091000-0600"),
        ("truncated_note", "NTE-3", "Specimen slightly hemolyzed; Dr. Élise Marchand was told by telephone at 8 a.m.",
         "Specimen slightly hemoly"),
    ],
)  # fmt: skip
def test_a_fault_alters_its_field(name: str, path: str, before: str, after: str) -> None:
    assert changed(name)[path] == (before, after)


@pytest.mark.parametrize(
    ("name", "places"),
    [
        ("wrong_unit", {"OBX-6"}),
        ("wrong_code", {"OBX-3"}),
        ("wrong_patient", {"PID-3"}),
        ("wrong_number", {"OBR-2"}),
        ("shifted_time", {"OBR-7", "OBX-14"}),
        ("damaged_charset", {"PID-5", "NTE-3"}),
        ("doubly_encoded", {"PID-5", "NTE-3"}),
    ],
)
def test_a_fault_alters_nothing_else(name: str, places: set[str]) -> None:
    assert set(changed(name)) == places


def test_a_lost_segment_is_one_segment_less() -> None:
    for name, segment in (("lost_result", b"OBX|"), ("lost_note", b"NTE|")):
        sent = FAULTS[name](RAW)
        assert sent.count(b"\r" + segment) == RAW.count(b"\r" + segment) - 1
        assert sent.count(b"\r") == RAW.count(b"\r") - 1


@pytest.mark.parametrize("name", [*FAULTS, *HABITS])
def test_an_alteration_is_a_function_of_the_message(name: str) -> None:
    alteration = {**FAULTS, **HABITS}[name]
    assert any(alteration(message) != message for message in REPORTS)
    assert [alteration(message) for message in REPORTS] == [alteration(message) for message in REPORTS]


@given(st.lists(st.text(st.sampled_from("MSHPIDOBX|^é7.0 "), max_size=30), max_size=6))
def test_any_text_can_be_altered(lines: list[str]) -> None:
    message = "\r".join(["MSH|^~\\&|A|B|C|D|2026||ORU^R01|1|P|2.5", *lines]).encode()
    for alteration in (*FAULTS.values(), *HABITS.values()):
        assert alteration(message).startswith(b"MSH|^~\\&|A|B|C|D|")


def test_lines_of_one_text_keep_their_order() -> None:
    text = [line for line in HABITS["segment_order"](RAW).split(b"\r") if b"8251-1" in line]
    assert [line.split(b"|")[5] for line in text] == [b"first line of the text", b"second line of the text"]

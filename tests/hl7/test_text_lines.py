"""Texts that are sent a line each."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.hl7.text_lines import Joined, joined

KNOWN = frozenset({"MSH", "PID", "OBR", "OBX", "NTE"})
HEAD = ["MSH|^~\\&|LAB", "PID|1", "OBR|1"]


def obx(number: int, line: str, *, kind: str = "TX", code: str = "DX", status: str = "F") -> str:
    return f"OBX|{number}|{kind}|{code}||{line}||||||{status}"


def test_the_lines_of_a_text_are_repetitions_of_one_obx() -> None:
    lines = [*HEAD, obx(1, "one"), obx(2, ""), obx(3, "two~three"), "NTE|1||x", obx(4, "four")]
    found = joined(lines, "|", "~", KNOWN)
    assert found == [*HEAD, obx(1, "one~~two~three"), "NTE|1||x", obx(4, "four")]
    assert isinstance(found, Joined)
    assert found.origins == [[0], [1], [2], [3, 4, 5, 5], [6], [7]]


@pytest.mark.parametrize(
    "other",
    [
        obx(2, "x", code="GROSS"), obx(2, "x", kind="FT"), obx(2, "x", kind="ST"), obx(2, "x", status="P"),
        obx(2, "x") + "|||20260507", obx(2, '""'), "OBX|2|TX|DX|2|x||||||F",
    ],
)  # fmt: skip
def test_what_differs_in_anything_else_stays_apart(other: str) -> None:
    lines = [*HEAD, obx(1, "one"), other]
    assert joined(lines, "|", "~", KNOWN) is lines


def test_a_segment_that_nobody_knows_ends_no_text() -> None:
    found = joined([obx(1, "one"), "ZZZ|1", obx(2, "two"), obx(3, "three", code="B")], "|", "~", KNOWN)
    assert found == [obx(1, "one~two"), "ZZZ|1", obx(3, "three", code="B")]
    assert isinstance(found, Joined)
    assert found.origins == [[0, 2], [1], [3]]
    lines = [obx(1, "one"), "ADD|more", obx(2, "two")]
    assert joined(lines, "|", "~", KNOWN) is lines


def test_a_text_with_corrected_lines_is_corrected() -> None:
    for first, second in (("F", "C"), ("C", "F")):
        found = joined([obx(1, "a", status=first), obx(2, "b", status=second)], "|", "~", KNOWN)
        assert found == [obx(1, "a~b", status="C")]


@given(st.lists(st.tuples(st.sampled_from(["TX", "FT", "ST"]), st.sampled_from("AB"), st.text("xy~", max_size=3))))
def test_no_line_is_lost_and_each_is_in_its_place(parts: list[tuple[str, str, str]]) -> None:
    lines = [obx(number, text, kind=kind, code=code) for number, (kind, code, text) in enumerate(parts)]
    found = joined(lines, "|", "~", KNOWN)
    texts = [(one.split("|")[2:4], turn) for one in found for turn in one.split("|")[5].split("~")]
    assert texts == [([kind, code], turn) for kind, code, text in parts for turn in text.split("~")]
    if isinstance(found, Joined):
        every = [(number, 1 if kind == "ST" else text.count("~") + 1) for number, (kind, _, text) in enumerate(parts)]
        assert [number for one in found.origins for number in one] == [n for n, times in every for _ in range(times)]

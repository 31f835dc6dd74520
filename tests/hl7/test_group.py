"""Groups: the grammar's own order without a word, everything else repaired aloud, nothing lost."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from engine.hl7.group import Group, Grouper, Node, Slot


def slot(text: str, *inside: Slot, after: str = "") -> Slot:
    name = text.rstrip("?*+")
    count = text[len(name) :]
    node = Node(name, list(inside)) if inside else None
    return Slot(name, count in ("*", "+") and bool(count), count in ("?", "*") and bool(count), after, node)


ORDER = slot(
    "ORDER+",
    slot("ORC?"),
    slot("OBR"),
    slot("NTE*"),
    slot("OBSERVATION*", slot("OBX"), slot("NTE*")),
    slot("SPECIMEN*", slot("SPM"), slot("SPECIMEN_OBSERVATION*", slot("OBX"), after="OBSERVATION")),
)
ROOT = Node("ORU", [slot("MSH"), slot("RESULT+", slot("PATIENT?", slot("PID"), slot("NTE*")), ORDER)])
NAMES = ["MSH", "PID", "ORC", "OBR", "OBX", "NTE", "SPM", "ZZZ"]


def shape(group: Group, lines: list[str]) -> list[Any]:
    """Nested names, for reading."""
    out: list[Any] = []
    for place, items in zip(group.node.slots, group.items, strict=True):
        for item in items:
            out.append({place.name: shape(item, lines)} if isinstance(item, Group) else lines[item])
    return out


def placed(group: Group) -> list[int]:
    """All segments in the tree."""
    return [n for items in group.items for item in items for n in (placed(item) if isinstance(item, Group) else [item])]


def grouped(text: str) -> tuple[list[Any], list[str]]:
    lines = text.split()
    group, repairs = Grouper(ROOT).group(lines)
    return shape(group, lines), [f"{repair.code} {lines[repair.segment]}" for repair in repairs]


def test_an_orderly_message_needs_no_repair() -> None:
    tree, repairs = grouped("MSH PID1 NTEp ORC1 OBR1 NTEo OBX1 NTEx OBX2 OBR2 OBX3")
    assert repairs == []
    first = {"ORDER": ["ORC1", "OBR1", "NTEo", {"OBSERVATION": ["OBX1", "NTEx"]}, {"OBSERVATION": ["OBX2"]}]}
    second = {"ORDER": ["OBR2", {"OBSERVATION": ["OBX3"]}]}
    assert tree == ["MSH", {"RESULT": [{"PATIENT": ["PID1", "NTEp"]}, first, second]}]


def test_results_behind_the_specimen_are_still_results() -> None:
    tree, repairs = grouped("MSH PID1 OBR1 SPM1 OBX1 OBX2")
    order = tree[1]["RESULT"][1]["ORDER"]
    assert order == ["OBR1", {"OBSERVATION": ["OBX1"]}, {"OBSERVATION": ["OBX2"]}, {"SPECIMEN": ["SPM1"]}]
    assert repairs == ["displaced-segment OBX1", "displaced-segment OBX2"]


def test_results_behind_results_and_specimen_are_the_specimens() -> None:
    tree, repairs = grouped("MSH PID1 OBR1 OBX1 SPM1 OBX2")
    specimen = {"SPECIMEN": ["SPM1", {"SPECIMEN_OBSERVATION": ["OBX2"]}]}
    assert tree[1]["RESULT"][1]["ORDER"] == ["OBR1", {"OBSERVATION": ["OBX1"]}, specimen]
    assert repairs == []


def test_a_result_without_an_order_opens_one() -> None:
    tree, repairs = grouped("MSH PID1 OBX1")
    assert tree[1]["RESULT"][1] == {"ORDER": [{"OBSERVATION": ["OBX1"]}]}
    assert repairs == ["missing-parent OBX1"]


def test_two_patients_have_their_own_orders() -> None:
    tree, _ = grouped("MSH PID1 OBR1 PID2 OBR2")
    assert [result["RESULT"][0]["PATIENT"] for result in tree[1:]] == [["PID1"], ["PID2"]]


def test_a_patient_behind_his_orders_does_not_take_them() -> None:
    tree, repairs = grouped("MSH OBR1 PID1 OBR2")
    assert tree[1:] == [{"RESULT": [{"ORDER": ["OBR1"]}]}, {"RESULT": [{"PATIENT": ["PID1"]}, {"ORDER": ["OBR2"]}]}]
    assert repairs == []


def test_what_the_grammar_does_not_know_is_reported() -> None:
    assert grouped("MSH PID1 ZZZ1 OBR1")[1] == ["unknown-segment ZZZ1"]


@given(st.lists(st.sampled_from(NAMES), max_size=25))
def test_no_segment_vanishes_in_silence(names: list[str]) -> None:
    group, repairs = Grouper(ROOT).group(names)
    unknown = [repair.segment for repair in repairs if repair.code == "unknown-segment"]
    assert sorted(placed(group) + unknown) == list(range(len(names)))


@given(st.lists(st.sampled_from(NAMES), max_size=12), st.lists(st.sampled_from(NAMES), max_size=12))
def test_a_grouper_remembers_nothing_of_the_message_before(first: list[str], second: list[str]) -> None:
    used = Grouper(ROOT)
    used.group(first)
    group, repairs = used.group(second)
    fresh, expected = Grouper(ROOT).group(second)
    assert shape(group, second) == shape(fresh, second)
    assert repairs == expected


def test_a_second_segment_where_one_may_stand_is_reported() -> None:
    _, repairs = grouped("MSH MSH PID1 OBR1")
    assert repairs == ["extra-segment MSH"]

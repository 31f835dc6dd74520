"""Which ORC is which OBR's, in whatever order they come.

In the short form of a message, `ORC:P1` is an ORC with the placer number P1, `OBR:/F1` an OBR with a filler number,
`OBR:P1^LAB/F1` one with both, and `OBX-a` an OBX that is told apart by a letter.
"""

from __future__ import annotations

import pytest

from engine.hl7.group import Group, Grouper, Node
from engine.hl7.message import Message
from tests.hl7.test_group import ADT, OML, ORU, OUL, message, slot

MDM = message(
    "MDM_T02",
    "MSH",
    "EVN",
    "PID",
    "PV1",
    slot("COMMON_ORDER*", "ORC", slot("TIMING*", "TQ1"), "OBR", "NTE*"),
    "TXA",
    slot("OBSERVATION*", "OBX", "NTE*"),
)
ORM = message(
    "ORM_O01",
    "MSH",
    slot(
        "PATIENT_ORDER+",
        slot("PATIENT?", "PID", "NTE*", slot("VISIT?", "PV1", "PV2?")),
        slot("ORDER+", "ORC?", slot("DETAIL?", "OBR?", "RXO?", "NTE*", "DG1*", slot("OBSERVATION*", "OBX"))),
    ),
)


def line(word: str, marks: str = "|^") -> str:
    """A segment of its short form."""
    name, _, numbers = word.partition(":")
    field, component = marks
    if name == "MSH":
        return f"MSH{field}{component}~\\&{field}A"
    placer, _, filler = (number.replace("^", component) for number in numbers.partition("/"))
    return field.join([name[:3], name[4:], placer, filler]).rstrip(field)


def brief(group: Group, words: list[str]) -> str:
    parts = []
    for items in group.items:
        parts += [f"({brief(item, words)})" if isinstance(item, Group) else words[item] for item in items]
    return " ".join(parts)


def grouped(text: str, root: Node = ORU, marks: str = "|^") -> tuple[str, list[str]]:
    words = f"MSH {text}".split()
    group, repairs = Grouper(root).group([line(word, marks) for word in words])
    tree = brief(group, words).removeprefix("MSH (").removesuffix(")")
    return tree, [f"{repair.code} {words[repair.segment]}" for repair in repairs]


# -- by number


@pytest.mark.parametrize(
    ("text", "tree", "moved"),
    [
        (  # all ORCs first, and then all OBRs
            "PID ORC:P1 ORC:P2 OBR:P1 OBX-a OBR:P2 OBX-b",
            "(PID) (ORC:P1 OBR:P1 (OBX-a)) (ORC:P2 OBR:P2 (OBX-b))",
            ["ORC:P1", "ORC:P2"],
        ),
        (
            "PID ORC:P1 ORC:P2 OBR:P2 OBX-b OBR:P1 OBX-a",
            "(PID) (ORC:P2 OBR:P2 (OBX-b)) (ORC:P1 OBR:P1 (OBX-a))",
            ["ORC:P1"],
        ),
        ("PID ORC:/F1 ORC:/F2 OBR:/F1 OBR:/F2", "(PID) (ORC:/F1 OBR:/F1) (ORC:/F2 OBR:/F2)", ["ORC:/F1", "ORC:/F2"]),
        (  # each ORC after its OBR
            "PID OBR:P1 OBX-a ORC:P1 OBR:P2 OBX-b ORC:P2",
            "(PID) (ORC:P1 OBR:P1 (OBX-a)) (ORC:P2 OBR:P2 (OBX-b))",
            ["ORC:P1", "ORC:P2"],
        ),
        ("PID OBR:P1 ORC:P1 OBX-a", "(PID) (ORC:P1 OBR:P1 (OBX-a))", ["ORC:P1"]),
        (  # all OBRs first, and then all ORCs
            "PID OBR:P1 OBX-a OBR:P2 OBX-b ORC:P2 ORC:P1",
            "(PID) (ORC:P1 OBR:P1 (OBX-a)) (ORC:P2 OBR:P2 (OBX-b))",
            ["ORC:P2", "ORC:P1"],
        ),
        (  # a note behind an ORC goes with it
            "PID ORC:P1 NTE-1 ORC:P2 NTE-2 OBR:P1 OBR:P2",
            "(PID) (ORC:P1 OBR:P1 NTE-1) (ORC:P2 OBR:P2 NTE-2)",
            None,
        ),
        (  # an ORC that is nowhere near
            "PID ORC:P3 ORC:P1 OBR:P1 ORC:P2 OBR:P2 OBR:P3",
            "(PID) (ORC:P1 OBR:P1) (ORC:P2 OBR:P2) (ORC:P3 OBR:P3)",
            ["ORC:P3"],
        ),
    ],
)
def test_the_same_number_pairs(text: str, tree: str, moved: list[str] | None) -> None:
    found, repairs = grouped(text)
    assert found == tree
    if moved is not None:
        assert repairs == [f"paired-by-number {name}" for name in moved]


@pytest.mark.parametrize(
    ("one", "other", "alike"),
    [
        ("A1", "A1", True),
        ("A1^EMR", "A1^EMR", True),
        ("A1^EMR", "A1", True),  # a side that names no authority says nothing against the other's
        ("A1^EMR", "A1^LIS", False),
        ("A1^EMR^1.2.3^ISO", "A1^EMR2^1.2.3^ISO", True),  # the same universal id under two local names
        ("A1^EMR^1.2.3^ISO", "A1^EMR^1.2.4^ISO", False),
        ("A1^^1.2.3^ISO", "A1^EMR", True),
        ("A1", "A2", False),
        ("A1", "a1", False),
        ("A1/F1", "A1/F1", True),
        ("A1/F1", "A1/F2", False),  # the child orders of one parent have its placer number
        ("A1/F1", "A2/F1", False),
        ("A1/F1", "/F1", True),
        ("A1/F1", "A1", True),
        ('""/F1', "A1/F1", True),
    ],
)
def test_when_numbers_are_the_same(one: str, other: str, alike: bool) -> None:
    _, repairs = grouped(f"PID ORC:{one} ORC:X1/X2 OBR:X1/X2 OBR:{other}")
    pairs = [f"paired-by-number ORC:{one}"] if alike else [f"unpaired-order ORC:{one}", f"unpaired-order OBR:{other}"]
    assert [repair for repair in repairs if "X1" not in repair] == pairs


def test_the_namespace_decides_among_equal_numbers() -> None:
    tree, _ = grouped("PID ORC:7^A ORC:7^B OBR:7^B OBR:7^A")
    assert tree == "(PID) (ORC:7^B OBR:7^B) (ORC:7^A OBR:7^A)"


def test_the_surer_match_wins() -> None:
    tree, _ = grouped("PID ORC:7^A ORC:7 OBR:7 OBR:7^A")
    assert tree == "(PID) (ORC:7 OBR:7) (ORC:7^A OBR:7^A)"


def test_children_of_one_order_pair_by_the_fillers_number() -> None:
    tree, _ = grouped("PID ORC:P/F0 ORC:P/F1 ORC:P/F2 OBR:P/F0 OBR:P/F2 OBX-b OBR:P/F1 OBX-a")
    assert tree == "(PID) (ORC:P/F0 OBR:P/F0) (ORC:P/F2 OBR:P/F2 (OBX-b)) (ORC:P/F1 OBR:P/F1 (OBX-a))"


def test_other_delimiters() -> None:
    tree, repairs = grouped("PID ORC:P1^A ORC:P2^A OBR:P2^A OBR:P1^A", marks="#$")
    assert tree == "(PID) (ORC:P2^A OBR:P2^A) (ORC:P1^A OBR:P1^A)"
    assert repairs == ["paired-by-number ORC:P1^A"]


def test_numbers_do_not_reach_from_patient_to_patient() -> None:
    tree, repairs = grouped("PID ORC:P1 ORC:P2 OBR:P2 PID OBR:P1")
    assert tree == "(PID) (ORC:P1) (ORC:P2 OBR:P2)) ((PID) (OBR:P1)"
    assert repairs == ["unpaired-order ORC:P1"]


def test_each_message_has_its_own_pairs() -> None:
    grouper = Grouper(ORU)
    for first, second in (("P1", "P2"), ("P2", "P1")):
        words = ["MSH", "PID", "ORC:P1", "ORC:P2", f"OBR:{first}", f"OBR:{second}"]
        group, _ = grouper.group([line(word) for word in words])
        assert brief(group, words) == f"MSH ((PID) (ORC:{first} OBR:{first}) (ORC:{second} OBR:{second}))"


# -- right orders are not read


def test_order_wins_over_numbers_where_it_is_right() -> None:
    """Microsoft#605: each OBR has the ORC before it. Senders put suffixes to their numbers."""
    tree, repairs = grouped("PID ORC:P1 OBR:P1-1 OBX-a ORC:P2 OBR:P2-1 OBX-b ORC OBR")
    assert tree == "(PID) (ORC:P1 OBR:P1-1 (OBX-a)) (ORC:P2 OBR:P2-1 (OBX-b)) (ORC OBR)"
    assert repairs == []


@pytest.mark.parametrize(
    ("text", "root"),
    [
        ("PID ORC:P1 OBR:P1 ORC:P2 OBR:P2", ORU),
        ("PID OBR:P1 OBX-a OBR:P2 OBX-b", ORU),
        ("PID ORC:P1 ORC:P2 ORC:P3", OML),  # cancels need no detail (4.5.1)
        ("PID ORC:P1 ORC:P2 OBR:P2", OML),
        ("PID ORC RXO ORC OBR:P2", ORM),
        ("PID SPM OBR:P1 ORC:P1 OBR:P2 ORC:P2", OUL),
        ("PID SPM OBR:P1 OBR:P2", OUL),
        ("EVN PID PV1 ORC OBR NTE ORC OBR TXA OBX-a", MDM),
        ("EVN PID PV1", ADT),
    ],
)
def test_right_orders_need_no_repair(text: str, root: Node) -> None:
    assert grouped(text, root)[1] == []


def test_an_order_that_is_only_held_stays_alone() -> None:
    tree, _ = grouped("PID ORC:P1 ORC:P2 OBR:P2 ORC:P3 OBR:P3", OML)
    assert tree == "(PID) (ORC:P1) (ORC:P2 (OBR:P2)) (ORC:P3 (OBR:P3))"


# -- by position


@pytest.mark.parametrize(
    ("text", "tree", "told"),
    [
        ("PID ORC-1 ORC-2 OBR-1 OBX-a OBR-2", "(PID) (ORC-1 OBR-1 (OBX-a)) (ORC-2 OBR-2)", ["ORC-1", "ORC-2"]),
        (
            "PID OBR-1 ORC-1 OBX-a OBR-2 ORC-2 OBX-b",
            "(PID) (ORC-1 OBR-1 (OBX-a)) (ORC-2 OBR-2 (OBX-b))",
            ["ORC-1", "ORC-2"],
        ),
        ("PID OBR-1 OBR-2 ORC-1 ORC-2", "(PID) (ORC-1 OBR-1) (ORC-2 OBR-2)", ["ORC-1", "ORC-2"]),
        (  # what the numbers leave over
            "PID ORC:P1 ORC-2 ORC-3 OBR-2 OBR-3 OBR:P1",
            "(PID) (ORC-2 OBR-2) (ORC-3 OBR-3) (ORC:P1 OBR:P1)",
            ["ORC-2", "ORC-3"],
        ),
        ("PID ORC:P1 ORC:P2 OBR:/F1 OBR:/F2", "(PID) (ORC:P1 OBR:/F1) (ORC:P2 OBR:/F2)", ["ORC:P1", "ORC:P2"]),
        (  # each block by itself
            "PID ORC-1 OBR-1 ORC-2 ORC-3 OBR-2 OBR-3",
            "(PID) (ORC-1 OBR-1) (ORC-2 OBR-2) (ORC-3 OBR-3)",
            ["ORC-2", "ORC-3"],
        ),
    ],
)
def test_without_numbers_their_order_pairs_if_counts_agree(text: str, tree: str, told: list[str]) -> None:
    found, repairs = grouped(text)
    assert found == tree
    assert [repair for repair in repairs if "by-order" in repair] == [f"paired-by-order {name}" for name in told]
    assert not any("unpaired" in repair for repair in repairs)


@pytest.mark.parametrize(
    ("text", "tree", "alone"),
    [
        (  # too many ORCs, and nothing says which
            "PID ORC-1 ORC-2 ORC-3 OBR-1 OBX-a OBR-2",
            "(PID) (ORC-1) (ORC-2) (ORC-3) (OBR-1 (OBX-a)) (OBR-2)",
            ["ORC-1", "ORC-2", "ORC-3", "OBR-1", "OBR-2"],
        ),
        ("PID ORC-1 ORC-2 OBR-1 OBR-2 OBR-3", None, ["ORC-1", "ORC-2", "OBR-1", "OBR-2", "OBR-3"]),
        ("PID ORC-1 ORC-2 OBR-2", "(PID) (ORC-1) (ORC-2 OBR-2)", ["ORC-1"]),
        ("PID ORC:P1 ORC:P2 OBR:P8 OBR:P9", None, ["ORC:P1", "ORC:P2", "OBR:P8", "OBR:P9"]),
        ("PID ORC:P1 ORC:P2 OBR:P9", "(PID) (ORC:P1) (ORC:P2) (OBR:P9)", ["ORC:P1", "ORC:P2", "OBR:P9"]),
        ("PID OBR:P1 ORC:P2", "(PID) (OBR:P1) (ORC:P2)", ["OBR:P1", "ORC:P2"]),
        ("PID ORC-1", "(PID) (ORC-1)", ["ORC-1"]),
        ("PID ORC-1 OBX-a", "(PID) (ORC-1 (OBX-a))", ["ORC-1"]),
    ],
)
def test_what_nothing_pairs_is_left_alone_and_told(text: str, tree: str | None, alone: list[str]) -> None:
    found, repairs = grouped(text)
    assert tree is None or found == tree
    assert repairs == [f"unpaired-order {name}" for name in alone]


# -- an OBR without an ORC


def test_an_obr_without_orc_among_others_has_none() -> None:
    tree, repairs = grouped("PID OBR:P1 OBX-a ORC:P2 OBR:P2 OBX-b")
    assert tree == "(PID) (OBR:P1 (OBX-a)) (ORC:P2 OBR:P2 (OBX-b))"
    assert repairs == []


@pytest.mark.parametrize(
    "text",
    [
        "PID ORC:P1 OBR:P1 OBX-a OBR:P1 OBX-b",  # one order of two tests
        "PID ORC:/F1 OBR:/F1 OBX-a OBR:/F1 OBX-b",
        "PID ORC:P1 OBR OBX-a OBR OBX-b",  # the number may stand in the ORC alone (4.5.1)
        "PID ORC OBR OBX-a OBR OBX-b",
        "PID ORC OBR:P1 OBX-a OBR:P2 OBX-b",
    ],
)
def test_one_orc_before_several_obrs_is_that_of_each(text: str) -> None:
    tree, repairs = grouped(text)
    orc, first, second = (word for word in text.split() if word[:2] == "OR" or word[:3] == "OBR")
    assert tree == f"(PID) ({orc} {first} (OBX-a)) ({orc} {second} (OBX-b))"
    assert repairs == [f"shared-order {second}"]


def test_it_is_so_until_the_next_orc() -> None:
    tree, _ = grouped("PID ORC:P1 OBR:P1 OBR:P1 ORC:P2 OBR:P2 OBR:P2", OML)
    assert tree == "(PID) (ORC:P1 (OBR:P1)) (ORC:P1 (OBR:P1)) (ORC:P2 (OBR:P2)) (ORC:P2 (OBR:P2))"


@pytest.mark.parametrize("number", ["P2", "P2/F1", "P1/F2"])
def test_unless_their_numbers_say_otherwise(number: str) -> None:
    tree, repairs = grouped(f"PID ORC:P1/F1 OBR:P1/F1 OBR:{number}")
    assert tree == f"(PID) (ORC:P1/F1 OBR:P1/F1) (OBR:{number})"
    assert repairs == []


def test_a_note_of_the_shared_orc_stands_once() -> None:
    tree, _ = grouped("PID ORC:P1 NTE-c OBR:P1 OBR:P1", OML)
    assert tree == "(PID) (ORC:P1 NTE-c (OBR:P1)) (ORC:P1 (OBR:P1))"


def test_an_orc_whose_obr_is_elsewhere_is_not_taken_by_the_next() -> None:
    tree, repairs = grouped("PID ORC:P1 OBR:P2 OBR:P1")
    assert tree == "(PID) (OBR:P2) (ORC:P1 OBR:P1)"
    assert repairs == ["paired-by-number ORC:P1"]


def test_an_orc_is_shared_by_number_too() -> None:
    tree, _ = grouped("PID ORC:P1 ORC:P2 OBR:P1 OBX-a OBR:P2 OBX-b OBR:P1 OBX-c")
    assert tree == "(PID) (ORC:P1 OBR:P1 (OBX-a)) (ORC:P2 OBR:P2 (OBX-b)) (ORC:P1 OBR:P1 (OBX-c))"


# -- what stands between an ORC and its OBR


@pytest.mark.parametrize(
    ("text", "tree", "repairs"),
    [
        (
            "PID ORC:P1 OBR:P1 OBX-a ORC:P2 OBX-b NTE-b OBR:P2 OBX-c",
            "(PID) (ORC:P1 OBR:P1 (OBX-a) (OBX-b NTE-b)) (ORC:P2 OBR:P2 (OBX-c))",
            ["displaced-segment OBX-b"],
        ),
        (  # in the first order they can be no other one's
            "PID ORC:P1 OBX-a OBR:P1 ORC:P2 OBR:P2",
            "(PID) (ORC:P1 OBR:P1 (OBX-a)) (ORC:P2 OBR:P2)",
            ["displaced-segment OBX-a"],
        ),
        (  # and so in all orders of this sender
            "PID ORC:P1 OBX-a OBR:P1 ORC:P2 OBX-b OBR:P2",
            "(PID) (ORC:P1 OBR:P1 (OBX-a)) (ORC:P2 OBR:P2 (OBX-b))",
            ["displaced-segment OBX-a", "displaced-segment OBX-b"],
        ),
        (
            "PID ORC:P1 OBR:P1 OBX-a ORC:P2 DG1-b OBR:P2 NTE-b OBX-b",
            "(PID) (ORC:P1 OBR:P1 (OBX-a)) (ORC:P2 OBR:P2 NTE-b DG1-b (OBX-b))",
            ["displaced-segment DG1-b"],
        ),
        (
            "PID ORC:P1 OBR:P1 OBX-a ORC:P2 SPM-b OBR:P2 OBX-b",
            "(PID) (ORC:P1 OBR:P1 (OBX-a)) (ORC:P2 OBR:P2 (OBX-b) (SPM-b))",
            ["displaced-segment SPM-b"],
        ),
        (
            "PID ORC:P1 OBR:P1 ORC:P2 PV1 OBR:P2 OBX-b",
            "(PID (PV1)) (ORC:P1 OBR:P1) (ORC:P2 OBR:P2 (OBX-b))",
            ["displaced-segment PV1"],
        ),
        (  # an ORC that has no OBR keeps what follows it
            "PID ORC:P1 OBR:P1 ORC:P2 OBX-b",
            "(PID) (ORC:P1 OBR:P1) (ORC:P2 (OBX-b))",
            ["unpaired-order ORC:P2"],
        ),
    ],
)
def test_between_an_orc_and_its_obr(text: str, tree: str, repairs: list[str]) -> None:
    assert grouped(text) == (tree, repairs)


def test_a_visit_between_the_blocks_does_not_part_them() -> None:
    tree, _ = grouped("EVN PID ORC:P1 ORC:P2 PV1 OBR:P1 OBR:P2 TXA OBX-a", MDM)
    assert tree == "MSH EVN PID PV1 (ORC:P1 OBR:P1) (ORC:P2 OBR:P2) TXA (OBX-a"


# -- grammars that have the ORC behind its OBR


@pytest.mark.parametrize(
    ("text", "orders"),
    [
        ("OBR:P1 ORC:P1 OBX-a OBR:P2 OBX-b", "(OBR:P1 ORC:P1 (OBX-a)) (OBR:P2 (OBX-b))"),
        ("OBR:P1 OBX-a OBR:P2 ORC:P2 OBX-b", "(OBR:P1 (OBX-a)) (OBR:P2 ORC:P2 (OBX-b))"),
        ("ORC:P1 OBR:P1 OBX-a ORC:P2 OBR:P2 OBX-b", "(OBR:P1 ORC:P1 (OBX-a)) (OBR:P2 ORC:P2 (OBX-b))"),
        ("ORC-1 OBR-1 OBX-a ORC-2 OBR-2 OBX-b", "(OBR-1 ORC-1 (OBX-a)) (OBR-2 ORC-2 (OBX-b))"),
        ("OBR:P1 OBR:P2 ORC:P1 ORC:P2", "(OBR:P1 ORC:P1) (OBR:P2 ORC:P2)"),
        ("OBR-1 OBR-2 ORC-1 ORC-2", "(OBR-1 ORC-1) (OBR-2 ORC-2)"),
        ("OBR:P1 ORC:P1 OBR:P1 OBX-b", "(OBR:P1 ORC:P1) (OBR:P1 ORC:P1 (OBX-b))"),
        ("OBR:P1 ORC:P9 ORC:P8 OBR:P2", "(OBR:P1) (ORC:P9) (ORC:P8) (OBR:P2)"),
    ],
)
def test_in_specimen_oriented_results(text: str, orders: str) -> None:
    assert grouped(f"PID SPM {text}", OUL)[0] == f"PID) (SPM {orders}"


def test_an_orc_begins_an_order_that_may_begin_with_a_group() -> None:
    container = slot("CONTAINER*", "SAC")
    order = slot("ORDER*", container, "ORC?", "OBR", slot("RESULT*", "OBX"))
    root = message("OUL_R21", "MSH", slot("PATIENT_RESULT+", slot("PATIENT?", "PID"), order))
    assert grouped("PID OBR:P1 OBX-a ORC:P2 OBR:P2", root) == ("(PID) (OBR:P1 (OBX-a)) (ORC:P2 OBR:P2)", [])
    assert grouped("PID SAC ORC:P1 OBR:P1 OBX-a", root) == ("(PID) ((SAC) ORC:P1 OBR:P1 (OBX-a))", [])


def test_a_specimen_parts_orders_where_it_leads_them() -> None:
    tree, _ = grouped("PID SPM-1 ORC:P1 OBR:P1 SPM-2 ORC:P2 OBR:P2", OUL)
    assert tree == "PID) (SPM-1 (OBR:P1 ORC:P1)) (SPM-2 (OBR:P2 ORC:P2)"


def test_many_orders_of_one_number_take_no_time() -> None:
    count = 2000
    words = ["MSH", "PID", *["ORC:P1"] * count, *["OBR:P1"] * count]
    group, _ = Grouper(ORU).group([line(word) for word in words])
    assert brief(group, words).count("(ORC:P1 OBR:P1)") == count


def test_what_is_read_is_what_came() -> None:
    assert Message("\r".join(map(line, ["MSH", "ORC:P1^A/F1"]))).get("ORC-2.2") == "A"

"""Groups: the grammar's own order without a word, everything else repaired aloud, nothing lost.

A segment is written by its name and a letter or number that tells it apart: `OBX1`.
"""

from __future__ import annotations

from typing import Any

import pytest

from engine.hl7.group import Group, Grouper, Node, Repair, Slot


def slot(text: str, *inside: Slot | str, after: str = "") -> Slot:
    name = text.rstrip("?*+")
    count = text[len(name) :]
    node = Node(name, [slot(one) if isinstance(one, str) else one for one in inside]) if inside else None
    return Slot(name, count in ("*", "+") and bool(count), count in ("?", "*") and bool(count), after, node)


def message(name: str, *inside: Slot | str) -> Node:
    root = slot(name, *inside).node
    assert root
    return root


OBSERVATION = slot("OBSERVATION*", "OBX", "PRT*", "NTE*")
SPECIMEN = slot(
    "SPECIMEN*",
    "SPM",
    "NTE*",
    "SAC*",
    slot("SPECIMEN_OBSERVATION*", "OBX", "PRT*", "NTE*", after="OBSERVATION"),
)
VISIT = slot("VISIT?", "PV1", "PV2?", "PRT*")
ORU = message(
    "ORU_R01",
    "MSH",
    "SFT*",
    slot(
        "PATIENT_RESULT+",
        slot("PATIENT?", "PID", "PD1?", "NTE*", "NK1*", VISIT),
        slot(
            "ORDER_OBSERVATION+",
            "ORC?",
            "OBR",
            "NTE*",
            slot("TIMING_QTY*", "TQ1", "TQ2*"),
            "CTD?",
            "DG1*",
            OBSERVATION,
            "FT1*",
            SPECIMEN,
        ),
    ),
    "DSC?",
)
OML = message(
    "OML_O21",
    "MSH",
    "NTE*",
    slot(
        "PATIENT_ORDER+",
        slot("PATIENT?", "PID", "PD1?", "NTE*", "NK1*", VISIT, slot("INSURANCE*", "IN1", "IN2?", "IN3*"), "AL1*"),
        slot(
            "ORDER+",
            "ORC?",
            "NTE*",
            slot(
                "OBSERVATION_REQUEST?",
                slot("TIMING*", "TQ1", "TQ2*"),
                "OBR",
                "NTE*",
                "DG1*",
                OBSERVATION,
                SPECIMEN,
            ),
            "FT1*",
            "BLG?",
        ),
    ),
)
OUL = message(
    "OUL_R22",
    "MSH",
    slot("PATIENT?", "PID", "NTE*"),
    slot("VISIT?", "PV1", "PV2?"),
    slot(
        "SPECIMEN+",
        "SPM",
        "OBX*",
        slot("CONTAINER*", "SAC", "INV?"),
        slot("ORDER+", "OBR", "ORC?", "NTE*", slot("TIMING*", "TQ1"), slot("RESULT*", "OBX", "NTE*")),
    ),
)
CONTAINERS = message(  # OUL^R22 for analysers that leave out the container
    "OUL_R22",
    "MSH",
    slot(
        "PATIENT_RESULT+",
        slot("PATIENT?", "PID", "NTE*"),
        slot("VISIT?", "PV1", "PV2?"),
        slot(
            "SPECIMEN+",
            "SPM",
            "NTE*",
            slot("CONTAINER*", "SAC?", "INV*", slot("ORDER*", "OBR", "ORC?", "NTE*", slot("RESULT*", "OBX", "NTE*"))),
        ),
    ),
)
EVENTS = message(  # ADT^A40 and the like: several patients
    "ADT_A39",
    "MSH",
    slot(
        "EVENT+",
        "EVN?",
        slot(
            "PERSON+",
            slot("PATIENT", "PID", "PD1?", "NTE*"),
            "NK1*",
            slot("VISIT?", "PV1", "PV2?", slot("PARTICIPATION*", "PRT")),
            slot("DIAGNOSIS*", "DG1"),
        ),
    ),
)
ADT = message(
    "ADT_A01", "MSH", "EVN", "PID", "PD1?", "NK1*", VISIT, "OBX*", "AL1*", "DG1*", slot("INSURANCE*", "IN1", "IN2?")
)


def shape(group: Group, lines: list[str]) -> list[Any]:
    """Nested names, for reading."""
    out: list[Any] = []
    for place, items in zip(group.node.slots, group.items, strict=True):
        for item in items:
            out.append({place.name: shape(item, lines)} if isinstance(item, Group) else lines[item])
    return out


def brief(group: Group, lines: list[str]) -> str:
    """The same as one text, a group in parentheses."""
    parts = []
    for items in group.items:
        parts += [f"({brief(item, lines)})" if isinstance(item, Group) else lines[item] for item in items]
    return " ".join(parts)


def placed(group: Group) -> list[int]:
    """All segments in the tree."""
    return [n for items in group.items for item in items for n in (placed(item) if isinstance(item, Group) else [item])]


def tree_of(text: str, root: Node = ORU) -> tuple[Group, list[Repair], list[str]]:
    lines = text.split()
    return *Grouper(root).group(list(lines)), lines


def grouped(text: str, root: Node = ORU) -> tuple[str, list[str]]:
    group, repairs, lines = tree_of(text, root)
    return brief(group, lines), [f"{repair.code} {lines[repair.segment]}" for repair in repairs]


def test_an_orderly_message_needs_no_repair() -> None:
    group, repairs, lines = tree_of("MSH PID1 NTEp ORC1 OBR1 NTEo OBX1 NTEx OBX2 ORC2 OBR2 OBX3")
    assert repairs == []
    first = {
        "ORDER_OBSERVATION": [
            "ORC1",
            "OBR1",
            "NTEo",
            {"OBSERVATION": ["OBX1", "NTEx"]},
            {"OBSERVATION": ["OBX2"]},
        ]
    }
    second = {"ORDER_OBSERVATION": ["ORC2", "OBR2", {"OBSERVATION": ["OBX3"]}]}
    assert shape(group, lines) == ["MSH", {"PATIENT_RESULT": [{"PATIENT": ["PID1", "NTEp"]}, first, second]}]


@pytest.mark.parametrize(
    ("root", "text", "tree"),
    [
        (
            ORU,
            "MSH PID1 PD1 NTEp NK1a NK1b PV1 PV2 OBR1 NTEo TQ1 OBX1 NTEx SPM1 NTEs SAC1 OBX2 PID2 OBR2 DSC",
            "MSH ((PID1 PD1 NTEp NK1a NK1b (PV1 PV2)) (OBR1 NTEo (TQ1) (OBX1 NTEx) (SPM1 NTEs SAC1 (OBX2))))"
            " ((PID2) (OBR2)) DSC",
        ),
        (
            OML,
            "MSH PID1 PV1 IN1a IN2a IN1b AL1 ORC1 NTEc TQ1 OBR1 NTEo DG1 OBX1 SPM1 FT1 BLG ORC2 OBR2 ORC3",
            "MSH ((PID1 (PV1) (IN1a IN2a) (IN1b) AL1)"
            " (ORC1 NTEc ((TQ1) OBR1 NTEo DG1 (OBX1) (SPM1)) FT1 BLG) (ORC2 (OBR2)) (ORC3))",
        ),
        (
            OUL,
            "MSH PID1 PV1 SPM1 OBXs SAC1 OBR1 ORC1 OBX1 OBR2 ORC2 NTE2 OBX2 SPM2 OBR3 ORC3",
            "MSH (PID1) (PV1) (SPM1 OBXs (SAC1) (OBR1 ORC1 (OBX1)) (OBR2 ORC2 NTE2 (OBX2))) (SPM2 (OBR3 ORC3))",
        ),
        (
            CONTAINERS,
            "MSH PID1 PV1 SPM1 OBR1 ORC1 OBX1 OBR2 OBX2 SPM2 SAC1 OBR3 SAC2 OBR4 PID2 SPM3",
            "MSH ((PID1) (PV1) (SPM1 ((OBR1 ORC1 (OBX1)) (OBR2 (OBX2)))) (SPM2 (SAC1 (OBR3)) (SAC2 (OBR4))))"
            " ((PID2) (SPM3))",
        ),
        (
            EVENTS,
            "MSH EVN PID1 PV1 PV2 PRT DG1 PID2 NK1 EVN PID3 PD1",
            "MSH (EVN ((PID1) (PV1 PV2 (PRT)) (DG1)) ((PID2) NK1)) (EVN ((PID3 PD1)))",
        ),
        (
            ADT,
            "MSH EVN PID PD1 NK1a PV1 PV2 OBX1 AL1 DG1 IN1a IN2a IN1b",
            "MSH EVN PID PD1 NK1a (PV1 PV2) OBX1 AL1 DG1 (IN1a IN2a) (IN1b)",
        ),
    ],
)
def test_the_standards_own_order(root: Node, text: str, tree: str) -> None:
    assert grouped(text, root) == (tree, [])


# -- results and specimens


def test_results_behind_the_specimen_are_still_results() -> None:
    tree, repairs = grouped("MSH PID1 PV1 ORC1 OBR1 SPM1 OBX1 NTE1 OBX2")  # LinuxForHealth#533
    assert tree == "MSH ((PID1 (PV1)) (ORC1 OBR1 (OBX1 NTE1) (OBX2) (SPM1)))"
    assert repairs == ["displaced-segment OBX1", "displaced-segment OBX2"]


def test_they_are_so_behind_each_specimen_of_an_order() -> None:
    tree, _ = grouped("MSH PID1 OBR1 SPM1 OBX1 SPM2 OBX2")
    assert tree == "MSH ((PID1) (OBR1 (OBX1) (OBX2) (SPM1) (SPM2)))"


def test_results_behind_results_and_specimen_are_the_specimens() -> None:
    assert grouped("MSH PID1 OBR1 OBX1 SPM1 OBX2") == ("MSH ((PID1) (OBR1 (OBX1) (SPM1 (OBX2))))", [])


def test_a_grammar_may_give_results_to_the_specimen_at_once() -> None:
    root = message("M", "MSH", slot("ORDER*", "OBR", slot("RESULT*", "OBX"), slot("SPECIMEN*", "SPM", "OBX*")))
    assert grouped("MSH OBR1 SPM1 OBX1 OBX2", root) == ("MSH (OBR1 (SPM1 OBX1 OBX2))", [])


def test_they_are_not_those_of_a_container_that_is_not_there() -> None:
    container = slot("CONTAINER*", "SAC", slot("CONTAINER_OBSERVATION*", "OBX"))
    specimen = slot("SPECIMEN*", "SPM", slot("SPECIMEN_OBSERVATION*", "OBX", after="OBSERVATION"), container)
    root = message("M", "MSH", slot("ORDER*", "OBR", OBSERVATION, specimen))
    assert grouped("MSH OBR1 SPM1 OBX1", root) == ("MSH (OBR1 (OBX1) (SPM1))", ["displaced-segment OBX1"])
    assert grouped("MSH OBR1 SPM1 SAC1 OBX1", root) == ("MSH (OBR1 (SPM1 (SAC1 (OBX1))))", [])


def test_a_container_behind_a_result_is_its_specimens() -> None:
    tree, repairs = grouped("MSH PID1 OBR1 SPM1 OBX1 SAC1")
    assert tree == "MSH ((PID1) (OBR1 (OBX1) (SPM1 SAC1)))"
    assert repairs == ["displaced-segment OBX1"]


def test_a_container_does_not_end_its_specimens_order() -> None:
    tree, repairs = grouped("MSH PID1 SPM1 OBR1 ORC1 SAC1 OBX1", OUL)
    assert tree == "MSH (PID1) (SPM1 (SAC1) (OBR1 ORC1 (OBX1)))"
    assert repairs == ["displaced-segment SAC1"]


@pytest.mark.parametrize(
    ("text", "tree", "repairs"),
    [
        ("MSH PID1 SPM1 OBR1 OBX1", "MSH ((PID1) (OBR1 (OBX1) (SPM1)))", ["displaced-segment SPM1"]),
        ("MSH PID1 ORC1 SPM1 OBR1 OBX1", "MSH ((PID1) (ORC1 OBR1 (OBX1) (SPM1)))", ["displaced-segment SPM1"]),
        (
            "MSH PID1 SPM1 NTEs ORC1 OBR1 OBX1 SPM2 ORC2 OBR2 OBX2",
            "MSH ((PID1) (ORC1 OBR1 (OBX1) (SPM1 NTEs)) (ORC2 OBR2 (OBX2) (SPM2)))",
            ["displaced-segment SPM1", "displaced-segment SPM2"],
        ),
        (
            "MSH PID1 SPM1 OBXs OBR1 OBX1 OBR2 OBX2",
            "MSH ((PID1) (OBR1 (OBX1) (SPM1 (OBXs))) (OBR2 (OBX2)))",
            ["displaced-segment SPM1"],
        ),
        ("MSH PID1 OBR1 OBX1 SPM1 OBR2 SPM2", "MSH ((PID1) (OBR1 (OBX1) (SPM1)) (OBR2 (SPM2)))", []),
    ],
)
def test_a_specimen_before_its_order(text: str, tree: str, repairs: list[str]) -> None:
    assert grouped(text) == (tree, repairs)


def test_a_specimen_that_no_order_follows() -> None:
    tree, repairs = grouped("MSH PID1 SPM1 OBX1")
    assert tree == "MSH ((PID1) ((OBX1) (SPM1)))"
    assert repairs == ["missing-parent SPM1", "displaced-segment OBX1"]


# -- notes, and what else belongs to what it follows


@pytest.mark.parametrize(
    ("root", "text", "tree", "repairs"),
    [
        (ORU, "MSH PID1 NTEp OBR1", "MSH ((PID1 NTEp) (OBR1))", []),
        (ORU, "MSH PID1 PV1 NTEv OBR1", "MSH ((PID1 NTEv (PV1)) (OBR1))", ["displaced-segment NTEv"]),
        (OML, "MSH PID1 PV1 NTEv ORC1 OBR1", "MSH ((PID1 NTEv (PV1)) (ORC1 (OBR1)))", ["displaced-segment NTEv"]),
        (ORU, "MSH PID1 ORC1 NTEc OBR1 OBX1", "MSH ((PID1) (ORC1 OBR1 NTEc (OBX1)))", ["displaced-segment OBR1"]),
        (
            ORU,
            "MSH PID1 ORC1 OBR1 OBX1 ORC2 NTE2 OBR2 OBX2",
            "MSH ((PID1) (ORC1 OBR1 (OBX1)) (ORC2 OBR2 NTE2 (OBX2)))",
            ["displaced-segment OBR2"],
        ),
        (OML, "MSH PID1 ORC1 NTEc OBR1 NTEo OBX1", "MSH ((PID1) (ORC1 NTEc (OBR1 NTEo (OBX1))))", []),
        (
            ORU,
            "MSH PID1 ORC1 TQ1 NTEt OBR1 NTEo OBX1",
            "MSH ((PID1) (ORC1 OBR1 NTEt NTEo (TQ1) (OBX1)))",
            ["displaced-segment NTEt", "displaced-segment OBR1", "displaced-segment NTEo"],
        ),
        (ORU, "MSH PID1 OBR1 TQ1 NTEt OBX1", "MSH ((PID1) (OBR1 NTEt (TQ1) (OBX1)))", ["displaced-segment NTEt"]),
        (
            OML,
            "MSH PID1 ORC1 TQ1 NTEt OBR1 OBX1",
            "MSH ((PID1) (ORC1 ((TQ1) OBR1 NTEt (OBX1))))",
            ["displaced-segment OBR1"],
        ),
        (ORU, "MSH PID1 OBR1 OBX1 SPM1 NTEs", "MSH ((PID1) (OBR1 (OBX1) (SPM1 NTEs)))", []),
        (
            ORU,
            "MSH PID1 OBR1 OBX1 NK1 NTEk NTEl OBX2",
            "MSH ((PID1 NTEk NTEl NK1) (OBR1 (OBX1) (OBX2)))",
            ["displaced-segment NK1", "displaced-segment NTEk", "displaced-segment NTEl"],
        ),
        (
            ORU,
            "MSH PID1 OBR1 PV1 PRTv OBX1 PRTx",
            "MSH ((PID1 (PV1 PRTv)) (OBR1 (OBX1 PRTx)))",
            ["displaced-segment PV1"],
        ),
        (
            EVENTS,
            "MSH EVN PID1 DG1 PV1 PRTv NTEv",
            "MSH (EVN ((PID1 NTEv) (PV1 (PRTv)) (DG1)))",
            None,
        ),
        (ORU, "MSH PID1 OBR1 OBX1 DG1 NTEd OBX2", "MSH ((PID1) (OBR1 NTEd DG1 (OBX1) (OBX2)))", None),
    ],
)
def test_a_note_belongs_to_what_it_follows(root: Node, text: str, tree: str, repairs: list[str] | None) -> None:
    found = grouped(text, root)
    assert found[0] == tree
    assert repairs is None or found[1] == repairs


def test_timing_behind_its_order_does_not_begin_another() -> None:
    tree, repairs = grouped("MSH PID1 ORC1 OBR1 TQ1 OBX1", OML)
    assert tree == "MSH ((PID1) (ORC1 ((TQ1) OBR1 (OBX1))))"
    assert repairs == ["displaced-segment TQ1"]


# -- the patient


@pytest.mark.parametrize(
    ("text", "tree", "repairs"),
    [
        ("MSH PID1 ORC1 PV1 PV2 OBR1 OBX1", "MSH ((PID1 (PV1 PV2)) (ORC1 OBR1 (OBX1)))", ["PV1", "PV2"]),
        ("MSH PID1 ORC1 OBR1 PV1 OBX1 NTE1", "MSH ((PID1 (PV1)) (ORC1 OBR1 (OBX1 NTE1)))", ["PV1"]),
        ("MSH PID1 PV1 PD1 NK1 OBR1", "MSH ((PID1 PD1 NK1 (PV1)) (OBR1))", ["PD1", "NK1"]),
        ("MSH PID1 PV1 OBR1 PV2", "MSH ((PID1 (PV1 PV2)) (OBR1))", ["PV2"]),
    ],
)
def test_what_belongs_to_the_patient_goes_back_to_him(text: str, tree: str, repairs: list[str]) -> None:
    assert grouped(text) == (tree, [f"displaced-segment {name}" for name in repairs])


def test_a_visit_before_its_patient() -> None:
    tree, repairs = grouped("MSH PV1 PID1 PD1 OBR1 OBX1")
    assert tree == "MSH ((PID1 PD1 (PV1)) (OBR1 (OBX1)))"
    assert repairs == ["missing-parent PV1", "displaced-segment PID1", "displaced-segment PD1"]


def test_a_visit_before_its_patient_in_a_flat_grammar() -> None:
    tree, repairs = grouped("MSH EVN PV1 PID NK1 DG1", ADT)
    assert tree == "MSH EVN PID NK1 (PV1) DG1"
    assert repairs == ["displaced-segment PID", "displaced-segment NK1"]


def test_a_visit_before_its_patient_where_each_has_a_group() -> None:
    tree, repairs = grouped("MSH EVN PV1 PID1 NK1 DG1 PID2", EVENTS)
    assert tree == "MSH (EVN ((PID1) NK1 (PV1) (DG1)) ((PID2)))"
    assert repairs == ["missing-parent PV1", "displaced-segment PID1", "displaced-segment NK1"]


@pytest.mark.parametrize(
    ("text", "tree", "repairs"),
    [
        (
            "MSH PV1 PID1 SPM1 OBR1 OBX1",
            "MSH ((PID1) (PV1) (SPM1 ((OBR1 (OBX1)))))",
            ["displaced-segment PID1"],
        ),
        (
            "MSH PID1 SPM1 PV1 OBR1 ORC1 OBX1",
            "MSH ((PID1) (PV1) (SPM1 ((OBR1 ORC1 (OBX1)))))",
            ["displaced-segment PV1"],
        ),
        (
            "MSH PID1 PV1a SPM1 OBR1 PV1b OBX1",
            "MSH ((PID1) (PV1a PV1b) (SPM1 ((OBR1 (OBX1)))))",
            ["extra-segment PV1b"],
        ),
    ],
)
def test_a_visit_begins_no_other_patient(text: str, tree: str, repairs: list[str]) -> None:
    assert grouped(text, CONTAINERS) == (tree, repairs)


def test_two_patients_have_their_own_orders() -> None:
    tree, repairs = grouped("MSH PID1 PV1a ORC1 OBR1 OBX1 PID2 PV1b ORC2 OBR2 ORC3 OBR3")
    assert tree == "MSH ((PID1 (PV1a)) (ORC1 OBR1 (OBX1))) ((PID2 (PV1b)) (ORC2 OBR2) (ORC3 OBR3))"
    assert repairs == []


def test_an_end_in_the_middle_does_not_join_patients() -> None:
    tree, repairs = grouped("MSH DSC PID1 OBR1 OBX1 NTE1 PID2 CTD2 OBR2 OBX2")
    assert tree == "MSH ((PID1) (OBR1 (OBX1 NTE1))) ((PID2) (OBR2 CTD2 (OBX2))) DSC"
    assert repairs[:2] == ["displaced-segment PID1", "displaced-segment PID2"]


def test_the_same_patient_again_is_another_group() -> None:
    assert grouped("MSH PID1 OBR1 PID1 OBR2") == ("MSH ((PID1) (OBR1)) ((PID1) (OBR2))", [])


def test_a_patient_behind_his_orders_does_not_take_them() -> None:
    assert grouped("MSH OBR1 PID1 OBR2") == ("MSH ((OBR1)) ((PID1) (OBR2))", [])


def test_a_result_without_an_order_opens_one() -> None:
    assert grouped("MSH PID1 OBX1 NTE1") == ("MSH ((PID1) ((OBX1 NTE1)))", ["missing-parent OBX1"])


def test_insurance_goes_back_to_the_one_before() -> None:
    tree, repairs = grouped("MSH PID1 IN1a IN1b AL1 IN2b IN3b IN1c ORC1 OBR1", OML)
    assert tree == "MSH ((PID1 (IN1a) (IN1b IN2b IN3b) (IN1c) AL1) (ORC1 (OBR1)))"
    assert repairs == ["displaced-segment IN2b", "displaced-segment IN1c"]


def test_a_diagnosis_behind_the_results_is_the_orders() -> None:
    tree, repairs = grouped("MSH PID1 ORC1 OBR1 OBX1 DG1 OBX2 ORC2 OBR2", OML)
    assert tree == "MSH ((PID1) (ORC1 (OBR1 DG1 (OBX1) (OBX2))) (ORC2 (OBR2)))"
    assert repairs == ["displaced-segment DG1"]


# -- more than one


@pytest.mark.parametrize(
    ("root", "text", "tree", "extra"),
    [
        (ORU, "MSH MSH PID1 OBR1", "MSH MSH ((PID1) (OBR1))", "MSH"),
        (ORU, "MSH PID1 PV1a PV1b OBR1", "MSH ((PID1 (PV1a PV1b)) (OBR1))", "PV1b"),
        (ORU, "MSH PID1 PV1a ORC1 OBR1 PV1b OBX1", "MSH ((PID1 (PV1a PV1b)) (ORC1 OBR1 (OBX1)))", "PV1b"),
        (ORU, "MSH PID1 OBR1 CTDa CTDb OBX1", "MSH ((PID1) (OBR1 CTDa CTDb (OBX1)))", "CTDb"),
        (OML, "MSH PID1 IN1 IN2a IN2b AL1", "MSH ((PID1 (IN1 IN2a IN2b) AL1))", "IN2b"),
        (OML, "MSH PID1 ORC1 OBR1 BLGa BLGb", "MSH ((PID1) (ORC1 (OBR1) BLGa BLGb))", "BLGb"),
        (ADT, "MSH EVN PID1 PID2 PV1", "MSH EVN PID1 PID2 (PV1)", "PID2"),
    ],
)
def test_a_second_segment_where_one_may_stand(root: Node, text: str, tree: str, extra: str) -> None:
    assert grouped(text, root) == (tree, [f"extra-segment {extra}"])


def test_the_repair_says_where_the_segment_was_wanted() -> None:
    _, repairs, _ = tree_of("MSH PID1 PV1a OBR1 PV1b NK1")
    assert [repair.wanted for repair in repairs] == ["one PV1 in VISIT", "NK1 in its place in PATIENT"]


# -- names


def test_what_the_grammar_does_not_know_is_reported() -> None:
    tree, repairs = grouped("MSH PID1 ZZZ1 OBR1 ZZZ2 OBX1 XXX1 NTE1")
    assert tree == "MSH ((PID1) (OBR1 (OBX1 NTE1)))"
    assert repairs == ["unknown-segment ZZZ1", "unknown-segment ZZZ2", "unknown-segment XXX1"]


def test_a_segment_of_their_own_has_its_place_where_the_grammar_gives_it_one() -> None:
    root = message("M", "MSH", "PID", "ZPI?", slot("ORDER*", "OBR", "ZOR*", slot("RESULT*", "OBX")))
    tree, repairs = grouped("MSH PID1 OBR1 ZOR1 OBX1 ZOR2 OBR2 ZPI1", root)
    assert tree == "MSH PID1 ZPI1 (OBR1 ZOR1 ZOR2 (OBX1)) (OBR2)"
    assert repairs == ["displaced-segment ZOR2", "displaced-segment ZPI1"]


def numbers(root: Node, *lines: str) -> tuple[list[int], list[tuple[str, int]]]:
    group, repairs = Grouper(root).group(list(lines))
    return placed(group), [(repair.code, repair.segment) for repair in repairs]


@pytest.mark.parametrize("line", ["pid|1", " PID|1", "PID |1", "\tpid \t|1", "Pid"])
def test_a_name_in_small_letters_or_with_blanks(line: str) -> None:
    found = numbers(ORU, "MSH|^~\\&|A", line, "OBR|1")
    assert found == ([0, 1, 2], [("segment-name", 1)])


@pytest.mark.parametrize("line", ["OBRwas done|at noon", "PIDX|1", "OBR was done", "OBX^1", "|OBX", " ", "ob"])
def test_a_line_of_text_is_no_segment(line: str) -> None:
    found = numbers(ORU, "MSH|^~\\&|A", "PID|1", line, "OBR|1")
    assert found == ([0, 1, 3], [("unknown-segment", 2)])


def test_names_with_other_delimiters() -> None:
    assert numbers(ORU, "MSH#^~\\&#A", "PID#1", "OBR#1", "OBX") == ([0, 1, 2, 3], [])


# -- continuation


def test_an_addendum_continues_the_segment_before() -> None:
    lines = ["MSH|^~\\&|A", "PID|1", "OBR|1", "OBX|1|FT|1||a long", "ADD| text", "ADD|, longer||N", "NTE|1||x"]
    group, repairs = Grouper(ORU).group(lines)
    assert lines[3] == "OBX|1|FT|1||a long text, longer||N"
    assert placed(group) == [0, 1, 2, 3, 6]
    assert repairs == []


def test_messages_of_the_same_segments_have_their_own_addenda() -> None:
    grouper = Grouper(ORU)
    for text in ("one", "another"):
        lines = ["MSH|^~\\&|A", "PID|1", "OBR|1", "OBX|1|FT|1||", f"ADD|{text}"]
        grouper.group(lines)
        assert lines[3] == f"OBX|1|FT|1||{text}"


@pytest.mark.parametrize("line", ["ADD", "ADD|"])
def test_an_addendum_to_come_is_reported(line: str) -> None:
    found = numbers(ORU, "MSH|^~\\&|A", "PID|1", "OBR|1", "OBX|1|FT|1||a long", line, "DSC|7|F")
    assert found == ([0, 1, 2, 3, 5], [("continued-message", 4), ("continued-message", 5)])


@pytest.mark.parametrize("line", ["DSC", "DSC|", 'DSC|""', "DSC||F"])
def test_a_message_that_does_not_go_on(line: str) -> None:
    assert numbers(ORU, "MSH|^~\\&|A", "PID|1", "OBR|1", line) == ([0, 1, 2, 3], [])


def test_an_addendum_to_nothing_is_no_segment() -> None:
    assert numbers(ORU, "ADD|x", "PID|1") == ([1], [("unknown-segment", 0)])


# -- what is remembered


def test_messages_of_the_same_segments_share_a_tree() -> None:
    grouper = Grouper(ORU)
    one = grouper.group(["MSH|^~\\&|A", "PID|1", "ORC|1|A", "OBR|1|A"])
    assert grouper.group(["MSH|^~\\&|B", "PID|2", "ORC|1|B", "OBR|1|C"]) is one


def test_no_more_is_remembered_than_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.hl7.group._STATES", 4)
    monkeypatch.setattr("engine.hl7.group._SHAPES", 2)
    grouper = Grouper(OML)
    _, _, text = tree_of("MSH PID1 PV1 IN1a IN2a AL1 ORC1 NTEc TQ1 OBR1 NTEo DG1 OBX1 SPM1 FT1 BLG ORC2 OBR2")
    whole = grouper.group(list(text))
    for end in range(1, len(text)):
        grouper.group(text[:end])
    again = grouper.group(list(text))
    assert brief(again[0], text) == brief(whole[0], text)
    assert again[1] == whole[1] == []

"""What each element is from, and what went nowhere, and why."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.mapping.library import Mapping, Unmappable
from engine.mapping.lineage import Lineage
from tests.mapping.folders import CONTEXT, FILES, mapping, rows, write

IDENTIFIED = "PID-3 -> identifier as CX[Identifier]('patient')"
HEADER = "MSH|^~\\&|LAB|||||x|ZZZ^Z01|1"


def trace(one: Mapping, *segments: str, header: str = HEADER) -> Lineage:
    return one.trace("\r".join([header, *segments]).encode(), CONTEXT)[1]


def origins(found: Lineage) -> dict[str, tuple[str, ...]]:
    return {origin.element: origin.places for origin in found.origins}


def lost(found: Lineage, segment: str = "PID") -> list[str]:
    return [found.path(leaf) for leaf in found.lost if found.name(leaf) == segment]


@pytest.mark.parametrize("pid", ["PID|||M1^^^ACME~M2||||1980|F", "PID|||M1^^^ACME~M2|| ||1980|F\\T\\"])
def test_an_element_tells_its_places(tmp_path: Path, pid: str) -> None:
    found = origins(trace(mapping(write(tmp_path)), pid))
    assert found["Patient[1].identifier[0].value"] == ("PID[1]-3[1].1",)
    assert found["Patient[1].identifier[0].system"] == ("PID[1]-3[1].4.1",) or found[
        "Patient[1].identifier[0].system"
    ] == ("PID[1]-3[1].4.1", "PID[1]-3[1].4.2")
    assert found["Patient[1].identifier[1].value"] == ("PID[1]-3[2].1",)
    assert found["Patient[1].birthDate"] == ("PID[1]-7[1].1.1",)


def test_an_element_tells_its_rule(tmp_path: Path) -> None:
    found = trace(mapping(write(tmp_path)), "PID|||M1||||1980")
    rules = {origin.element: origin.rule for origin in found.origins}
    assert rules["Patient[1].birthDate"] == "segments/PID.yaml:4: PID-7 -> birthDate"
    assert rules["Patient[1].identifier[0].value"] == "datatypes/CX.yaml:5: CX.1 -> value"


def test_the_output_is_the_same_as_without(tmp_path: Path) -> None:
    one = mapping(write(tmp_path))
    raw = f"{HEADER}\rPID|||M1~M1||||1980|X".encode()
    plain, traced = one.run(raw, CONTEXT), one.trace(raw, CONTEXT)[0]
    assert [entry.resource for entry in plain.entries] == [entry.resource for entry in traced.entries]
    assert plain.diagnostics == traced.diagnostics


WHY = [
    ("{PID-9 -> nothing: Nobody wants it}", "PID|||M1||||||x", "left-out", "Nobody wants it (segments/PID.yaml:4)"),
    ("PID-7 -> birthDate", "PID|||M1||||||x", "unread", "no rule reads PID-9"),
    ("PID-7 -> birthDate", "PID|||M1^2", "unread", "no rule of CX[Identifier] reads CX.2 (segments/PID.yaml:3)"),
    ("PID-5.1 -> name.text", "PID|||M1||a^b", "unread", "no rule reads PID-5.2"),
    (
        "PID-9 -> birthDate when PID-8 is valued",
        "PID|||M1||||||1980",
        "not-taken",
        "the rule at segments/PID.yaml:4, which is for when PID-8 is valued did not take it",
    ),
    ("PID-9 -> birthDate", "PID|||M1||||||x", "not-taken", "the rule at segments/PID.yaml:4 did not take it"),
]


@pytest.mark.parametrize(("row", "pid", "kind", "text"), WHY)
def test_what_went_nowhere_tells_why(tmp_path: Path, row: str, pid: str, kind: str, text: str) -> None:
    one = mapping(write(tmp_path, segments_PID=rows(IDENTIFIED, row)))
    found = trace(one, pid)
    assert len(lost(found)) == 1
    segment, leaf = "PID", next(leaf for leaf in found.lost if found.name(leaf) == "PID")
    reason = one.reasons().why(segment, leaf[1], leaf[3], leaf[4])
    assert (reason.kind, reason.text) == (kind, text)


def test_a_segment_without_a_place_is_lost(tmp_path: Path) -> None:
    one = mapping(write(tmp_path))
    assert lost(trace(one, "PID|||M1", "ZPI|a|b"), "ZPI") == ["ZPI[1]-1[1].1.1", "ZPI[1]-2[1].1.1"]
    assert one.reasons().why("ZPI", 1, 1, 1).text == "ZPI has no place in this message"


def test_of_what_else_chooses_from_only_the_chosen_is_taken(tmp_path: Path) -> None:
    one = mapping(write(tmp_path, segments_PID=rows(IDENTIFIED, "PID-9 else PID-10 -> birthDate")))
    assert lost(trace(one, "PID|||M1||||||1980|1990")) == ["PID[1]-10[1].1.1"]


def test_a_value_that_was_made_and_dropped_is_lost(tmp_path: Path) -> None:
    assert lost(trace(mapping(write(tmp_path)), "PID|||M1~^^^ACME")) == ["PID[1]-3[2].4.1"]


def test_what_two_rows_make_alike_is_not_lost(tmp_path: Path) -> None:
    assert lost(trace(mapping(write(tmp_path)), "PID|||M1^^^ACME~M1^^^ACME")) == []


def test_later_messages_of_a_connection_are_traced_as_the_first(tmp_path: Path) -> None:
    text = FILES["datatypes/CX.yaml"].replace("takes: [namespace]\n", "cached: true\n").replace("namespace", "'x'")
    line = "PID-3 -> identifier as CX[Identifier]"
    one = mapping(write(tmp_path, datatypes_CX=text, segments_PID=rows(line)))
    first = trace(one, "PID|||M1^2^^ACME")
    assert origins(trace(one, "PID|||M1^2^^ACME")) == origins(first)
    one.run(f"{HEADER}\rPID|||M1^2^^ACME".encode(), CONTEXT)
    assert lost(trace(one, "PID|||M1^2^^ACME")) == lost(first) == ["PID[1]-3[1].2.1"]


RAW = f"{HEADER}\rPID|||M1|||||F|what^ever|||||||5".encode()


def counted(folder: Path, unmapped: str) -> object:
    one = mapping(write(folder, segments_PID=rows(IDENTIFIED, "PID-8 -> gender table Sex", "PID-16 -> nothing")))
    return one.account(RAW, CONTEXT, unmapped)  # type: ignore[arg-type]


def test_lost_values_are_counted_by_field(tmp_path: Path) -> None:
    output = counted(tmp_path, "count")
    assert {field: n for field, n in output.lost.items() if field.startswith("PID")} == {"PID-9": 2}  # type: ignore[attr-defined]


def test_nothing_is_counted_where_nobody_asked(tmp_path: Path) -> None:
    assert counted(tmp_path, "ignore").lost == {}  # type: ignore[attr-defined]


def test_lost_values_can_be_kept(tmp_path: Path) -> None:
    patient = counted(tmp_path, "keep").entries[0].resource  # type: ignore[attr-defined]
    kept = {one["url"].rpartition("/")[2]: one["valueString"] for one in patient["extension"]}
    assert {"PID-9.1.1": "what", "PID-9.2.1": "ever"}.items() <= kept.items()


def test_a_message_with_lost_values_can_be_refused(tmp_path: Path) -> None:
    with pytest.raises(Unmappable, match="unmapped at"):
        counted(tmp_path, "refuse")


def test_what_decides_that_a_constant_stands_there_is_not_lost(tmp_path: Path) -> None:
    line = "active = true when PID-9 = 'Y'"
    one = mapping(write(tmp_path, segments_PID=rows(IDENTIFIED, line)))
    assert lost(trace(one, "PID|||M1||||||Y")) == []
    assert lost(trace(one, "PID|||M1||||||N")) == ["PID[1]-9[1].1.1"]


def test_what_is_no_text_is_not_kept(tmp_path: Path) -> None:
    one = mapping(write(tmp_path, segments_PID=rows(IDENTIFIED)))
    output = one.account(f"{HEADER}\rPID|||M1||||||\\X1B\\".encode(), CONTEXT, "keep")
    kept = output.entries[0].resource.get("extension", [])
    assert all(item["valueString"].isprintable() and item["valueString"] for item in kept)
    assert not any("PID-9" in item["url"] for item in kept)


def test_an_object_in_an_extension_is_traced(tmp_path: Path) -> None:
    row = "extension(religion):\n      - PID-5.1 -> extension('a').valueString"
    found = trace(mapping(write(tmp_path, segments_PID=rows(IDENTIFIED, row))), "PID|||M1||x")
    assert origins(found)["Patient[1].extension[0].extension"] == ("PID[1]-5[1].1",)
    assert lost(found) == []


def test_of_repetitions_that_a_row_walks_over_each_is_traced(tmp_path: Path) -> None:
    row = "PID-4 -> identifier needs value:\n      - this -> . as CX[Identifier]('other')"
    found = trace(mapping(write(tmp_path, segments_PID=rows(IDENTIFIED, row))), "PID|||M1|A^^^X~B^^^Y")
    assert lost(found) == []
    assert origins(found)["Patient[1].identifier[2].value"] == ("PID[1]-4[2].1",)


def test_what_is_contained_is_traced(tmp_path: Path) -> None:
    message = FILES["messages/ZZZ.yaml"].replace("    key: identifier\n", "    keyless: contain\n") + (
        "  note:\n    for: PATIENT\n    make: Flag\n    role: fact\n    rows:\n      - status = active\n"
        "      - PID-9 -> code.text\n      - patient -> subject\n    key: flag '{PID-9}'\n"
    )
    found = trace(mapping(write(tmp_path, messages_ZZZ=message)), "PID|||M1||||1980||x")
    assert origins(found)["Flag[1].contained[0].birthDate"] == ("PID[1]-7[1].1.1",)
    assert lost(found) == []


def test_a_text_of_many_segments_is_of_each_of_them(tmp_path: Path) -> None:
    message = FILES["messages/ZZZ.yaml"].replace(
        "    from: PID[Patient]\n",
        "    from: PID[Patient]\n    let:\n      all: all(NTE-3 where NTE-2 != 'X')\n"
        "    rows:\n      - all -> maritalStatus.text\n",
    )
    found = trace(mapping(write(tmp_path, messages_ZZZ=message)), "PID|||M1", "NTE|1||a", "NTE|2|X|b", "NTE|3||c")
    assert lost(found, "NTE") == [
        "NTE[1]-1[1].1.1",
        "NTE[2]-1[1].1.1",
        "NTE[2]-2[1].1.1",
        "NTE[2]-3[1].1.1",
        "NTE[3]-1[1].1.1",
    ]


def test_what_only_a_key_reads_stands_in_the_identifier(tmp_path: Path) -> None:
    message = FILES["messages/ZZZ.yaml"].replace("key: identifier", "key: patient '{PID-9}'")
    assert message != FILES["messages/ZZZ.yaml"]
    one = mapping(write(tmp_path, messages_ZZZ=message))
    assert one.reasons().why("PID", 9, 1, 1).kind == "key"
    output = one.account(f"{HEADER}\rPID|||M1||||||N9".encode(), CONTEXT, "count")
    assert output.entries[0].key[0][1] == "N9"
    assert "PID-9" not in output.lost


def test_a_line_of_a_text_is_told_where_it_came(tmp_path: Path) -> None:
    message = FILES["messages/ZZZ.yaml"].replace("[PID, NTE*]", "[PID, OBX*]") + "texts: joined\n"
    lines = ["OBX|1|TX|A||one", "OBX|2|TX|A||two~three", "QQQ|1", "OBX|3|ST|A||four"]
    found = trace(mapping(write(tmp_path, messages_ZZZ=message)), "PID|||M1", *lines)
    told = [found.path(leaf) for leaf in found.lost if leaf[1] == 5 and found.name(leaf) == "OBX"]
    assert told == ["OBX[1]-5[1].1.1", "OBX[2]-5[1].1.1", "OBX[2]-5[2].1.1", "OBX[3]-5[1].1.1"]
    raw = "\r".join([HEADER, "PID|||M1", *lines]).encode()
    output = mapping(write(tmp_path / "again", messages_ZZZ=message)).run(raw, CONTEXT)
    assert [one.where for one in output.diagnostics if one.code == "unknown-segment"] == ["QQQ in line 5"]


NOWHERE = "{PID-3 -> nothing: Said elsewhere}"


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        (NOWHERE, "unread"),
        (f"when PID-8 is valued:\n      - {NOWHERE}", "left-out"),
        ("{PID-3.2 -> nothing: Said elsewhere}", "left-out"),
    ],
)
def test_a_field_that_is_elsewhere_is_not_left_out_where_its_map_does_not_take_all(
    tmp_path: Path, line: str, kind: str
) -> None:
    one = mapping(write(tmp_path, segments_PID=rows(IDENTIFIED, line)))
    assert one.reasons().why("PID", 3, 2, 1).kind == kind

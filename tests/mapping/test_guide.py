"""The rows of HL7's guide beside the rules: which are realised, and what is told of the others."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from engine.mapping.guide import Answer, Guide, Outcome, compare, percent
from engine.mapping.library import Library
from tests.mapping.folders import rows, write

COLUMNS = ["map", "source", "target", "row", "v2_path", "v2_type", "fhir_path", "type_map", "vocab_map", "assignment"]
Told = tuple[str, str]


def guide(folder: Path, *lines: str, codes: tuple[str, ...] = ()) -> Path:
    """The guide's tables: `PID[Patient]|PID-3|CX|identifier[1]|CX[Identifier]||"literal"`, the last three optional."""
    tables: dict[str, list[list[str]]] = {"segments.csv": [], "datatypes.csv": []}
    for number, line in enumerate(lines, 1):
        name, path, type, element, *more = line.split("|")
        source, _, target = name.partition("[")
        type_map, vocabulary, literal = (*more, "", "", "")[:3]
        row = [name, source, target.strip("]").partition("-")[0], str(number), path, type, element]
        file = "datatypes.csv" if "." in path else "segments.csv"
        tables[file].append([*row, type_map, vocabulary, literal])
    folder.mkdir()
    for file, found in tables.items():
        table(folder / file, COLUMNS, found)
    table(folder / "codesystems.csv", ["map", "row", "v2_code", "fhir_code"], [code.split("|") for code in codes])
    return folder


def table(path: Path, columns: list[str], found: list[list[str]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([columns, *found])


def compared(folder: Path, *lines: str, codes: tuple[str, ...] = (), **changes: str) -> Guide:
    extra = changes.pop("more", "")
    maps = write(folder / "maps", **changes)
    if extra:
        (maps / "segments" / "more.yaml").write_text(extra)
    return compare(guide(folder / "guide", *lines, codes=codes), Library.load(maps).files())


def answers(folder: Path, *lines: str, **changes: str) -> list[Answer]:
    return compared(folder, *lines, **changes).answers


def outcomes(folder: Path, *lines: str, **changes: str) -> list[Outcome]:
    return [answer.outcome for answer in answers(folder, *lines, **changes)]


def patient(*lines: str) -> str:
    return rows("PID-3 -> identifier as CX[Identifier]('patient')", *lines)


# -- what is realised


def test_the_same_field_to_the_same_element(tmp_path: Path) -> None:
    (answer,) = answers(tmp_path, "PID[Patient]|PID-7|DTM|birthDate")
    assert (answer.outcome, answer.by) == ("realised", "segments/PID.yaml:4: PID-7 -> birthDate")
    assert str(answer.row) == "PID[Patient]:1 PID-7 -> birthDate"


@pytest.mark.parametrize("element", ["identifier[1]", "identifier[2]", "identifier[1].value", "Identifer"])
def test_however_it_is_written(tmp_path: Path, element: str) -> None:
    assert outcomes(tmp_path, f"PID[Patient]|PID-3|CX|{element}") == ["realised"]


def test_through_the_map_of_a_data_type(tmp_path: Path) -> None:
    found = answers(tmp_path, "PID[Patient]|PID-3|CX|identifier", "CX[Identifier]|CX.1|ST|[1].value")
    assert [answer.outcome for answer in found] == ["realised", "realised"]
    assert found[1].by == "datatypes/CX.yaml:5: CX.1 -> value"


def test_of_a_data_type_that_the_guide_maps_to_a_resource(tmp_path: Path) -> None:
    assert outcomes(tmp_path, "CX[Patient]|CX.1|ST|identifier.value") == ["realised"]


def test_a_value_alone_goes_to_an_element_of_its_type(tmp_path: Path) -> None:
    found = outcomes(tmp_path, "PID[Patient]|PID-7|DTM|birthDate", "DTM[date]|DTM.1|DTM|$value")
    assert found == ["realised", "realised"]


def test_a_text_of_ours_is_no_value_of_theirs(tmp_path: Path) -> None:
    own = patient("identifier:\n      - PID-19 -> value\n      - \"'urn:x' -> system\"")
    lines = ("PID[Patient]|PID-19|ST|identifier[2].value", "ST[uri]|ST.1|ST|$value")
    assert outcomes(tmp_path, *lines, segments_PID=own) == ["realised", "missing"]


def test_another_element_is_missing(tmp_path: Path) -> None:
    (answer,) = answers(tmp_path, "PID[Patient]|PID-7|DTM|deceasedDateTime")
    assert (answer.outcome, answer.by) == ("missing", "elsewhere: segments/PID.yaml:4: PID-7 -> birthDate")


def test_a_field_that_nobody_reads_is_missing(tmp_path: Path) -> None:
    (answer,) = answers(tmp_path, "PID[Patient]|PID-9|XPN|name")
    assert (answer.outcome, answer.by) == ("missing", "no rule")


def test_another_segment_of_the_guide_is_none_of_ours(tmp_path: Path) -> None:
    assert answers(tmp_path, "AIG[Appointment]|AIG-3|CWE|participant.type") == []


def test_rows_without_a_target_are_not_counted(tmp_path: Path) -> None:
    assert outcomes(tmp_path, "PID[Patient]|PID-7|DTM|birthDate", "PID[Patient]|PID-1|SI|") == ["realised"]


# -- extensions


URL = '"http://hl7.org/fhir/5.0/StructureDefinition/extension-religion"'


def test_an_extension_goes_by_the_end_of_its_url(tmp_path: Path) -> None:
    lines = ("PID[Patient]|PID-17|CWE|extension[2].url|||" + URL, "PID[Patient]|PID-17|CWE|extension[2].valueString")
    own = patient("PID-17 -> extension(religion).valueString")
    assert outcomes(tmp_path, *lines, segments_PID=own) == ["realised", "realised"]


def test_another_extension_is_another_element(tmp_path: Path) -> None:
    lines = ("PID[Patient]|PID-17|CWE|extension[2].url|||" + URL, "PID[Patient]|PID-17|CWE|extension[2].valueString")
    own = patient("PID-17 -> kept")
    assert outcomes(tmp_path, *lines, segments_PID=own) == ["missing", "missing"]


def test_an_extension_in_an_extension(tmp_path: Path) -> None:
    lines = (
        "PID[Patient]|PID-17|CWE|extension[2].url|||" + URL,
        'PID[Patient]|PID-17|CWE|extension[2].extension[1].url|||"code"',
        "PID[Patient]|PID-17|CWE|extension[2].extension[1].valueString",
    )
    right = "extension(religion):\n      - PID-17 -> extension('code').valueString"
    assert outcomes(tmp_path, *lines, segments_PID=patient(right)) == ["realised"] * 3


# -- constants


LITERAL = ("PID[Patient]|PID-19|ST|identifier[2].value", 'PID[Patient]|PID-19|ST|identifier[2].type.coding.code|||"SS"')
NUMBER = "identifier:\n      - PID-19 -> value\n      - type = kind#{code}"


def test_a_constant_beside_a_field_is_of_that_field(tmp_path: Path) -> None:
    own = patient(NUMBER.format(code="SS"))
    assert outcomes(tmp_path, *LITERAL, segments_PID=own) == ["realised", "realised"]


def test_another_code_is_missing(tmp_path: Path) -> None:
    found = answers(tmp_path, *LITERAL, segments_PID=patient(NUMBER.format(code="SB")))
    assert [answer.outcome for answer in found] == ["realised", "missing"]
    assert found[1].by.startswith("as SB, not SS: ")


def test_a_constant_of_the_whole_segment(tmp_path: Path) -> None:
    found = outcomes(tmp_path, "PID[Patient]|PID||active|||", segments_PID=patient("active = true"))
    assert found == ["realised"]


# -- other resources


MESSAGE = (
    "message: ZZZ\naccepts: [ZZZ^Z01]\ngroups: [MSH, PID, PV1]\nresources:\n"
    "  patient:\n    for: PID\n    make: Patient\n    role: anchor\n    from: PID[Patient]\n    key: identifier\n"
    "  encounter:\n    for: PV1\n    make: Encounter\n    role: anchor\n"
    "    rows:\n      - patient -> subject\n      - PV1-7 -> participant.individual as XX[Practitioner]\n"
    "      - status = unknown\n      - class = kind#O\n"
    "    key: visit '{PV1-19}'\n"
)
PARTY = "map: XX[Practitioner]\nkey: identifier\nrows: [XX.1 -> identifier.value, XX.2 -> name.family]\n"


def test_through_references(tmp_path: Path) -> None:
    """Of parties, and of resources that have blocks of their own."""
    lines = (
        "PV1[Encounter]|PV1-7|XX|participant[1].individual(Practitioner)",
        "PV1[Encounter]|PV1-7|XX|participant[1].individual(Practitioner.name)",
        "PV1[Encounter]|PV1-7|XX|participant[1].individual(RelatedPerson)",
        "PID[Encounter]|PID-7|DTM|subject(Patient.birthDate)",
        "PID[Encounter]|PID-7|DTM|serviceProvider(Organization.name)",
    )
    found = outcomes(tmp_path, *lines, messages_ZZZ=MESSAGE, datatypes_CX=_with_cx(PARTY))
    assert found == ["realised", "realised", "missing", "realised", "missing"]


def _with_cx(text: str) -> str:
    cx = "map: CX[Identifier]\ntakes: [namespace]\nneeds: [value]\nrows: [CX.1 -> value]\n"
    return f"{cx}---\n{text}"


# -- reasons


def test_a_rule_may_leave_a_field_out(tmp_path: Path) -> None:
    own = patient("{PID-9 -> nothing: No longer in use}")
    (answer,) = answers(tmp_path, "PID[Patient]|PID-9|XPN|name[2]", segments_PID=own)
    assert (answer.outcome, answer.by) == ("left out", "No longer in use (segments/PID.yaml:4)")


def test_without_a_reason_it_is_missing(tmp_path: Path) -> None:
    assert outcomes(tmp_path, "PID[Patient]|PID-9|XPN|name[2]", segments_PID=patient("PID-9 -> nothing")) == ["missing"]


def test_a_file_may_say_why_a_row_is_otherwise(tmp_path: Path) -> None:
    lines = ("PID[Patient]|PID-7|DTM|birthDate.extension[1].valueDateTime", "PID[Patient]|PID-9|XPN|name[2]")
    more = "guide:\n  PID[Patient]:\n    PID-7 -> birthDate.extension: days are enough\n    PID-9: no longer in use\n"
    found = answers(tmp_path, *lines, more=more)
    assert [(answer.outcome, answer.by) for answer in found] == [
        ("departs", "days are enough"),
        ("left out", "no longer in use"),
    ]


def test_a_file_may_say_why_a_map_is_not_made(tmp_path: Path) -> None:
    found = compared(
        tmp_path, "PID[Appointment]|PID-3|CX|participant.actor", more="guide:\n  PID[Appointment]: none here\n"
    )
    assert (found.answers, found.unmade) == ([], {"PID[Appointment]": "none here"})


def test_a_reason_that_nothing_wants_is_told(tmp_path: Path) -> None:
    more = (
        "guide:\n  PID[Patient]: {PID-7: realised all the same, PID-99: no such field}\n  XYZ[Patient]: no such map\n"
    )
    found = compared(tmp_path, "PID[Patient]|PID-7|DTM|birthDate", more=more)
    assert [line.rpartition(": ")[2] for line in found.stale] == [
        "PID[Patient] PID-7",
        "PID[Patient] PID-99",
        "XYZ[Patient]",
    ]
    assert "more.yaml:2: " in found.stale[0]


def test_what_r4_has_not_cannot_be_realised(tmp_path: Path) -> None:
    found = answers(tmp_path, "CX[Identifier]|CX.1|ST|[1].name", "PID[Patient]|PID-3|CX|identifier")
    assert (found[1].outcome, found[1].by) == (
        "departs",
        "R4 has no Identifier.name; datatypes/CX.yaml:5: CX.1 -> value",
    )


def test_a_share_counts_what_is_realised_and_what_departs_for_a_reason() -> None:
    assert percent(["realised", "departs", "left out", "missing"]) == 50
    assert percent([]) == 100


# -- codes


def test_the_codes_of_a_table(tmp_path: Path) -> None:
    found = compared(
        tmp_path,
        "PID[Patient]|PID-8|CWE|gender||Sex",
        codes=("Sex|1|F|female", "Sex|2|M|other", "Sex|3|N|other", "Sex|4|X|", "Other|1|A|a"),
        more="guide: {Sex: {N: nobody sends it}}",
    )
    assert [(code.v2, code.outcome, code.by) for code in found.codes] == [
        ("F", "realised", "Sex (tables/sex.yaml:2)"),
        ("M", "missing", ""),
        ("N", "departs", "nobody sends it"),
    ]


def test_the_codes_of_a_decision(tmp_path: Path) -> None:
    found = compared(
        tmp_path,
        "PID[Patient]|PID-9|CWE|active||Active",
        codes=("Active|1|X|true", "Active|2|Z|true"),
        segments_PID=patient("PID-9, PID-10 -> active decide Active"),
    )
    assert [code.outcome for code in found.codes] == ["realised", "missing"]


# -- the folder


def test_a_folder_without_the_tables_is_told(tmp_path: Path) -> None:
    files = Library.load(write(tmp_path / "maps")).files()
    with pytest.raises(ValueError, match=r"segments\.csv cannot be read"):
        compare(tmp_path, files)
    (tmp_path / "segments.csv").write_text("map,row\n")
    with pytest.raises(ValueError, match=r"segments\.csv: no column assignment, fhir_path"):
        compare(tmp_path, files)

"""Mistakes in mapping files, word for word: where, what was found, what would be right."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.mapping.library import Library, MappingError
from tests.mapping.folders import FILES, rows, write

MESSAGE = FILES["messages/ZZZ.yaml"]
ROW_MISTAKES = [
    ("PID-8 -> gendre table Sex", "3:14: found unknown element of Patient gendre; expected gender"),
    ("PID-5 -> name.famly", "3:19: found unknown element of HumanName famly; expected family"),
    ("PID-8 -> gender table Sexx", "3:27: found unknown table Sexx; expected Sex"),
    ("PID-8 -> gender", "3:5: found gender straight from a field; expected table or decide: only some codes are allowed here"),  # noqa: E501
    ("PID-3 -> identifier as CX[Identifer]('p')", "3:28: found unknown map CX[Identifer]; expected CX[Identifier]"),
    ("PID-3 -> identifier as CX[Identifier]", "3:28: found CX[Identifier] with 0 arguments; expected 1: namespace"),
    ("PID-3 -> name as CX[Identifier]('p')", "3:22: found CX[Identifier], which makes Identifier; expected a map that makes HumanName"),  # noqa: E501
    ("PID-3 -> identifier", "3:5: found identifier of type Identifier without a map; expected one of as CX[Identifier]"),  # noqa: E501
    ("PDI-3 -> birthDate", "3:5: found PDI-3; expected PID"),
    ("CX.3 -> birthDate", "3:5: found CX.3; expected a segment's path such as PID-3.1"),
    ("this -> birthDate", "3:5: found this; expected a path; `this` stands only under a row that walks over repetitions"),  # noqa: E501
    ("patinet -> birthDate", "3:5: found unknown name patinet; expected one of channel, connection, incarnation, received, sequence, version"),  # noqa: E501
    ("uper(PID-8) -> birthDate", "3:5: found unknown function uper; expected upper"),
    ("upper(PID-8, PID-9) -> birthDate", "3:5: found upper with 2 values; expected 1 value"),
    ("PID-7 -> birthDate when PID-8 is valud", "3:38: found valud; expected valued"),
    ("PID-7 -> birthDate when PID-8", "3:34: found nothing more; expected is valued, is not valued, repeats, =, != or in"),  # noqa: E501
    ("PID-7 -> birthDate when (PID-8 is valued", "3:45: found nothing more; expected )"),
    ("PID-7 -> birthDate when PID-8 ? 1", "3:35: found ? 1; expected a path, a name, 'text' or an operator"),
    ("PID-7 -> birthDate as date time", "3:27: found date time; expected a map such as CX[Identifier] or CX[Identifier]('patient')"),  # noqa: E501
    ("PID-7, PID-8 -> birthDate", "3:5: found several values; expected decide and the name of a decision table"),
    ("PID-7, PID-8 -> active decide Activ", "3:35: found unknown decision Activ; expected Active"),
    ("PID-7 -> active decide Active", "3:5: found 1 value; expected 2: a, b"),
    ("PID-17 -> extension(relgion).valueString", "3:15: found unknown extension relgion; expected religion"),
    ("gender = femal", "3:14: found unknown code of gender femal; expected female"),
    ("maritalStatus = knd#S", "3:21: found unknown system knd; expected kind"),
    ("PID-7 birthDate", "3:5: found PID-7 birthDate; expected FIELD -> path, path = constant, path: rows, switch, first, when or include"),  # noqa: E501
    ("include PID[Patiens]", "3:5: found unknown map PID[Patiens]; expected PID[Patient]"),
    ("PID-5 -> name.text when PID-8 = '{PID-8'", "3:38: found `{` without `}`; expected a value in braces: {value} or {value?}"),  # noqa: E501
    ("PID-5 -> name.text when PID-8 = 'PID-8}'", "3:43: found `}` without `{`; expected a value in braces: {value} or {value?}"),  # noqa: E501
    ("PID-5 -> name.text when PID-8 = '{PID-8}}'", "3:45: found `}` without `{`; expected a value in braces: {value} or {value?}"),  # noqa: E501
    ("PID-5 -> name.text when PID-8 = '{}'", "3:39: found nothing more; expected a path such as PID-3.1, a name, or 'text'"),  # noqa: E501
    ("PID-13 -> extension('bench').valueString", "3:15: found extension('bench'); expected a whole URL, or a name of extensions: without quotes; only in an extension it is short"),  # noqa: E501
    ("PID-13 -> name.extension('bench').valueString", "3:20: found extension('bench'); expected a whole URL, or a name of extensions: without quotes; only in an extension it is short"),  # noqa: E501
    ("PID-7 -> . as CX[Identifier]('p')", "3:19: found CX[Identifier], which makes Identifier; expected a map that makes Patient"),  # noqa: E501
]  # fmt: skip
MESSAGE_MISTAKES = [
    ("for: PATIENT", "for: PATENT", "8:10: found unknown group PATENT; expected PATIENT"),
    ("make: Patient", "make: Patent", "9:11: found unknown resource Patent; expected Patient"),
    ("role: anchor", "role: ancor", "10:11: found role ancor; expected anchor"),
    ("from: PID[Patient]", "frm: PID[Patient]", "11:5: found unknown key frm in resource patient; expected from"),
    ("from: PID[Patient]", "from: PV1[Patient]", "11:11: found unknown map PV1[Patient]; expected PID[Patient]"),
    ("    make: Patient\n", "", "8:5: found resource patient without make; expected make:"),
    ("  - MSH", "  - msh", "4:5: found msh; expected a segment or group: PID, NTE*, VISIT?, with its members"),
    ("key: identifier", "key: PID-3", "12:10: found PID-3; expected identifier, identifier TYPE, or system '{value}'"),
    ("key: identifier", "key: patient '{PID-3:{PID-4}'", "12:19: found `{` without `}`; expected a value in braces: {value} or {value?}"),  # noqa: E501
    ("key: identifier", "key: patient '{PID-33'", "12:19: found `{` without `}`; expected a value in braces: {value} or {value?}"),  # noqa: E501
    ("key: identifier", "key: patient '{person}'", "12:20: found unknown name person; expected version"),
    ("key: identifier", "key: idntifier MR", "12:10: found idntifier MR; expected identifier, identifier TYPE, or system '{value}'"),  # noqa: E501
    ("key: identifier", "key: patient 'a' else 'b'", "12:10: found patient 'a' else 'b'; expected identifier, identifier TYPE, or system '{value}'"),  # noqa: E501
    ("role: anchor", "role: anchor\n    becomes: PID-8 = 'F'", "7:3: found patient: becomes without apart; expected apart: the element that changes"),  # noqa: E501
    ("role: anchor", "role: fact\n    formerly: identifier", "7:3: found patient: formerly for a fact; expected formerly for an anchor"),  # noqa: E501
    ("key:", "apart: gendr\n    key:", "12:12: found apart: gendr; expected gender"),
    ("role: anchor", "role: fact\n    apart: maritalStatus", "11:12: found patient: apart for a fact; expected apart for an anchor"),  # noqa: E501
    ("key:", "series: birthdate\n    key:", "12:13: found series: birthdate; expected birthDate"),
    ("[ZZZ^Z01]", "[ZZZ-Z01, ZZZ, zzz^Z01]", "2:11: found ZZZ-Z01; expected a message type with its trigger: ORU^R01"),
    ("[ZZZ^Z01]", "[ZZZ-Z01, ZZZ, zzz^Z01]", "2:20: found ZZZ; expected a message type with its trigger: ORU^R01"),
    ("[ZZZ^Z01]", "[ZZZ-Z01, ZZZ, zzz^Z01]", "2:25: found zzz^Z01; expected a message type with its trigger: ORU^R01"),
    ("message: ZZZ", "mesage: ZZZ", "1:1: found unknown key mesage; expected one of map, table, csv, decision, message, systems, extensions, options, guide"),  # noqa: E501
    ("make: Patient", "make: Encounter", "7:3: found patient: no row sets class; expected class, which Encounter must have"),  # noqa: E501
]  # fmt: skip


def mistakes(folder: Path) -> list[str]:
    with pytest.raises(MappingError) as caught:
        Library.load(folder)
    return [line.removeprefix(f"{folder}/") for line in str(caught.value).split("\n")]


@pytest.mark.parametrize(("row", "said"), ROW_MISTAKES)
def test_a_mistake_in_a_row(tmp_path: Path, row: str, said: str) -> None:
    assert mistakes(write(tmp_path, segments_PID=rows(row))) == [f"segments/PID.yaml:{said}"]


@pytest.mark.parametrize(("right", "wrong", "said"), MESSAGE_MISTAKES)
def test_a_mistake_in_a_message(tmp_path: Path, right: str, wrong: str, said: str) -> None:
    found = mistakes(write(tmp_path, messages_ZZZ=MESSAGE.replace(right, wrong)))
    assert f"messages/ZZZ.yaml:{said}" in found


def test_a_type_of_message_has_one_mapping(tmp_path: Path) -> None:
    found = mistakes(
        write(tmp_path, messages_ZZZ=MESSAGE + "---\nmessage: YYY\nuse: ZZZ\naccepts: [YYY^Y01, ZZZ^Z01]\n")
    )
    assert found == [
        "messages/ZZZ.yaml:14:10: found YYY for ZZZ^Z01, as ZZZ is (messages/ZZZ.yaml:1); "
        "expected the name ZZZ, to take its place, or `use: ZZZ` without `accepts`, for channels that name it"
    ]


def test_a_quoted_row_has_its_place_behind_the_quote(tmp_path: Path) -> None:
    found = mistakes(write(tmp_path, segments_PID=rows('"PID-8 -> gendre"')))
    assert found == ["segments/PID.yaml:3:15: found unknown element of Patient gendre; expected gender"]


def test_a_table_may_not_give_a_code_that_its_element_does_not_take(tmp_path: Path) -> None:
    found = mistakes(write(tmp_path, tables_sex="table: Sex\ncodes: {F: female, M: mail}\n"))
    assert found == ["tables/sex.yaml:2:23: found unknown code of gender mail; expected male"]


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("[F, eff, sexes]", "6:12: found unknown system sexes; expected sex"),
        (
            "[F, eff, sex, more]",
            "6:12: found 4 words; expected [code, display, system], with quotes where a comma is in it",
        ),
    ],
)
def test_a_code_of_a_table_has_a_display_and_a_system_that_is_there(tmp_path: Path, target: str, said: str) -> None:
    table = f"---\ntable: Kind\ncodes: {{F: {target}}}\n---\nsystems: {{sex: http://example.org/sex}}\n"
    found = mistakes(write(tmp_path, segments_PID=rows("PID-10 -> maritalStatus table Kind") + table))
    assert found == [f"segments/PID.yaml:{said}"]


FOREIGN = [
    ("table: Sex\nsystem: marital\ncodes: {F: female}\n", "2:9: found system marital; expected a URI, such as http://loinc.org"),
    ("systems: {a: notauri}\n", "1:14: found a: notauri; expected a URI, such as http://loinc.org"),
    ("systems: {a: ~}\n", "1:14: found a: without a value; expected a URI, such as http://loinc.org"),
    ("extensions: {a: bench}\n", "1:17: found a: bench; expected a URI, such as http://loinc.org"),
    ("options: {o: {of: a, default: a, about: x}}\n", "1:19: found of: a; expected a list of words: [a, b]"),
    ("options: {o: {of: [a], default: b, about: x}}\n", "1:33: found default b; expected one of a"),
    ("table: Sex\ncodes:\n\t- a\n", "3:1: found character that cannot start any token; expected YAML"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "said"), FOREIGN)
def test_a_mistake_in_another_document(tmp_path: Path, text: str, said: str) -> None:
    found = mistakes(write(tmp_path, tables_sex=text))
    assert [line for line in found if line.startswith("tables/sex.yaml")] == [f"tables/sex.yaml:{said}"]


def test_an_extension_within_an_extension_has_a_short_url(tmp_path: Path) -> None:
    lines = rows("extension(religion):", "    - PID-17.1 -> extension('code').valueString")
    Library.load(write(tmp_path, segments_PID=lines.replace("  -     -", "      -")))
    Library.load(write(tmp_path, segments_PID=rows("PID-17 -> extension(religion).extension('code').valueString")))


def test_a_block_that_others_refer_to_is_not_dropped(tmp_path: Path) -> None:
    text = MESSAGE + (
        "  note:\n    for: PATIENT.NTE\n    make: Communication\n    role: fact\n"
        "    rows: [status = completed, patient -> subject]\n"
        "---\nmessage: YYY\nuse: ZZZ\naccepts: [YYY^Y01]\nresources: {patient: none}\n"
    )
    assert mistakes(write(tmp_path, messages_ZZZ=text)) == [
        "messages/ZZZ.yaml:22:22: found patient: none; expected none for note too, whose rows refer to it"
    ]
    Library.load(write(tmp_path, messages_ZZZ=text.replace("patient: none", "patient: none, note: none")))


def test_a_decision_has_a_cell_for_each_input(tmp_path: Path) -> None:
    text = "decision: Active\ninputs: [a, b]\nrows:\n  - [X, 'true']\notherwise: ''\n"
    assert mistakes(write(tmp_path, tables_order=text)) == [
        "tables/order.yaml:4:5: found 2 cells; expected 3: a, b and the result"
    ]


def test_what_is_no_yaml_is_said_with_its_place(tmp_path: Path) -> None:
    found = mistakes(write(tmp_path, tables_sex="table: Sex\ncodes: {F: female\n"))
    assert any(line.startswith("tables/sex.yaml:3:1: found did not find expected ',' or '}'") for line in found)


def test_all_mistakes_of_all_files_are_said_at_once(tmp_path: Path) -> None:
    folder = write(
        tmp_path, segments_PID=rows("PID-7 -> birthdate", "PID-8 -> gender table Sx"), systems="sistems: {}\n"
    )
    assert [line.split(" ")[0] for line in mistakes(folder)] == [
        "segments/PID.yaml:3:14:",
        "segments/PID.yaml:4:27:",
        "systems.yaml:1:1:",
    ]


def test_a_mistake_in_a_datatype_that_nobody_uses_is_found(tmp_path: Path) -> None:
    folder = write(tmp_path)
    (folder / "datatypes/ZZ.yaml").write_text("map: ZZ[HumanName]\nrows:\n  - ZZ.1 -> famly\n", encoding="utf-8")
    assert mistakes(folder) == ["datatypes/ZZ.yaml:3:13: found unknown element of HumanName famly; expected family"]


def test_a_name_that_many_have_must_say_which(tmp_path: Path) -> None:
    text = MESSAGE + (
        "  provenance:\n    for: MSH\n    make: Provenance\n    role: provenance\n    rows:\n"
        "      - patient -> target\n      - received -> recorded\n"
        "      - agent needs who:\n          - \"'x' -> who.display\"\n"
    )
    found = mistakes(write(tmp_path, messages_ZZZ=text))
    assert found == [
        "messages/ZZZ.yaml:13:3: found patient, of which there may be many here; "
        "expected each patient, first patient or only patient"
    ]

"""Where a channel differs from a mapping, by name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from engine.config.changes import Changes, as_written
from engine.config.nodes import Findings, compose_bytes
from engine.fhir.output import Output
from engine.mapping.library import Library, Mapping, MappingError
from tests.mapping.folders import CONTEXT, FILES, rows, write

HEADER = "MSH|^~\\&|LAB|||||x|ZZZ^Z01|1"
MESSAGE = FILES["messages/ZZZ.yaml"]


def changes(text: str, **options: str) -> Changes:
    node = compose_bytes(text.encode(), "channels/acme.yaml", Findings({}))
    return Changes(json.dumps(as_written(node)), tuple(sorted(options.items())), node=node)


def changed(folder: Path, text: str, **options: str) -> Mapping:
    return Library.load(folder).changed("ZZZ", changes(text, **options)).mapping("ZZZ")


def run(mapping: Mapping, *segments: str) -> Output:
    return mapping.run("\r".join([HEADER, *segments]).encode(), CONTEXT)


def patient(folder: Path, text: str, *segments: str) -> dict[str, object]:
    return run(changed(folder, text), *segments).entries[0].resource


def test_a_row_of_the_same_name_takes_the_place_of_the_shipped_one(tmp_path: Path) -> None:
    text = "PID[Patient]:\n  rows:\n    - PID-7 -> birthDate when PID-9 is valued\n"
    assert "birthDate" not in patient(write(tmp_path), text, "PID|||M1||||1980")
    assert patient(write(tmp_path), text, "PID|||M1||||1980||x")["birthDate"] == "1980"


def test_a_new_row_comes_before_the_others(tmp_path: Path) -> None:
    text = "PID[Patient]: {rows: [PID-10 -> birthDate]}"
    assert patient(write(tmp_path), text, "PID|||M1||||1980|||1990")["birthDate"] == "1990"
    assert patient(write(tmp_path), text, "PID|||M1||||1980")["birthDate"] == "1980"


def test_a_field_can_be_left_out(tmp_path: Path) -> None:
    text = "PID[Patient]: {rows: [{PID-7 -> nothing: Acme sends the day of the visit}]}"
    assert "birthDate" not in patient(write(tmp_path), text, "PID|||M1||||1980")


def test_the_mapping_itself_stays_as_it_was(tmp_path: Path) -> None:
    library = Library.load(write(tmp_path))
    library.changed("ZZZ", changes("PID[Patient]: {rows: [PID-7 -> nothing]}"))
    assert run(library.mapping("ZZZ"), "PID|||M1||||1980").entries[0].resource["birthDate"] == "1980"


def test_each_override_has_a_version_of_its_own(tmp_path: Path) -> None:
    folder = write(tmp_path)
    plain = Library.load(folder).mapping("ZZZ").version
    one = changed(folder, "PID[Patient]: {rows: [PID-7 -> nothing]}").version
    other = changed(folder, "tables: {Sex: {codes: {X: other}}}").version
    assert len({plain, one, other}) == 3
    assert one == changed(folder, "PID[Patient]:\n  rows:\n  - PID-7 -> nothing\n").version


def test_a_code_that_is_said_anew_is_of_the_tables_system_again(tmp_path: Path) -> None:
    table = "table: Kind\nsystem: http://example.org/kind\ncodes: {A: [B, bee, 'http://example.org/b'], C: D}\n"
    text = rows("PID-10 -> maritalStatus table Kind", "PID-3 -> identifier as CX[Identifier]('patient')")
    folder = write(tmp_path, segments_PID=f"{text}---\n{table}")
    found = patient(folder, "tables: {Kind: {codes: {A: E}}}", "PID|||M1|||||||A")["maritalStatus"]
    assert found == {"coding": [{"system": "http://example.org/kind", "code": "E"}]}


def test_a_table_gets_codes_and_keeps_the_others(tmp_path: Path) -> None:
    text = "tables: {Sex: {codes: {X: other, F: unknown}}}"
    genders = [patient(write(tmp_path), text, f"PID|||M1|||||{code}")["gender"] for code in "XFM"]
    assert genders == ["other", "unknown", "male"]


def test_a_decision_gets_rows_before_its_own(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    row = "PID[Patient]: {rows: ['PID-8, PID-7 -> active decide Active']}\n"
    text = row + "decisions: {Active: {rows: [[X, valued, 'false']]}}\n"
    assert patient(write(tmp_path / "a"), text, "PID|||M1||||1980|X")["active"] is False
    assert patient(write(tmp_path / "a"), text, "PID|||M1|||||X")["active"] is True


def test_a_resource_gets_rows_or_goes(tmp_path: Path) -> None:
    text = "resources: {patient: {rows: [active = true]}}"
    assert patient(write(tmp_path), text, "PID|||M1")["active"] is True
    assert run(changed(write(tmp_path), "resources: {patient: none}"), "PID|||M1").entries == []


SLOT = """
ZLB[Basic]: {rows: [ZLB-1 -> code.text]}
groups: {PATIENT: {PID: [ZLB*]}}
resources:
  remark: {for: ZLB, make: Basic, role: fact, from: "ZLB[Basic]", key: "remark '{ZLB-2}'"}
"""


def test_a_z_segment_gets_a_place_a_map_and_a_resource(tmp_path: Path) -> None:
    output = run(changed(write(tmp_path), SLOT), "PID|||M1", "ZLB|hello|1", "ZLB|again|2")
    found = [entry.resource["code"]["text"] for entry in output.entries if entry.name == "remark"]
    assert found == ["hello", "again"]
    assert output.diagnostics == []


def test_a_field_in_the_wrong_place_is_read_where_it_stands(tmp_path: Path) -> None:
    text = "fields: {PID-3: PID-2}"
    assert patient(write(tmp_path), text, "PID||M2")["identifier"][0]["value"] == "M2"  # type: ignore[index]
    assert patient(write(tmp_path), text, "PID||M2|M1")["identifier"][0]["value"] == "M1"  # type: ignore[index]


def test_an_option_is_chosen_by_the_channel(tmp_path: Path) -> None:
    rows = FILES["segments/PID.yaml"] + "  - active = true when option(deceased) = 'told'\n"
    folder = write(tmp_path, segments_PID=rows)
    (folder / "tables" / "options.yaml").write_text(
        "options: {deceased: {of: [told, silent], default: silent, about: Whether it is told.}}", encoding="utf-8"
    )
    assert "active" not in patient(folder, "{}", "PID|||M1")
    assert run(changed(folder, "{}", deceased="told"), "PID|||M1").entries[0].resource["active"] is True


MISTAKES = [
    ("PDI[Patient]: {rows: [PID-7 -> nothing]}", "1:1: found unknown map PDI[Patient]; expected PID[Patient]"),
    ("PID[Patient]: {row: []}", "1:16: found unknown key row in PID[Patient]; expected rows"),
    (
        "PID[Patient]: {rows: [PID-7 -> birthDat]}",
        "1:32: found unknown element of Patient birthDat; expected birthDate",
    ),
    ("table: {}", "1:1: found unknown part of an override table; expected tables"),
    ("tables: {Sax: {codes: {}}}", "1:10: found unknown table Sax; expected Sex"),
    ("tables: {Sex: {codes: {X: femal}}}", "1:27: found unknown code of gender femal; expected female"),
    ("decisions: {Actve: {rows: []}}", "1:13: found unknown decision Actve; expected Active"),
    ("resources: {patent: none}", "1:13: found unknown resource of ZZZ patent; expected patient"),
    ("resources: {patient: gone}", "1:22: found patient: gone; expected none, or what is said of a resource"),
    ("tables: {Sex: {system: sexes}}", "1:24: found system sexes; expected a URI, such as http://loinc.org"),
    ("groups: {PATENT: [ZLB]}", "1:10: found unknown group PATENT; expected PATIENT"),
    ("groups: {PATIENT: {PDI: [ZLB]}}", "1:20: found unknown slot of PATIENT PDI; expected PID"),
    ("fields: {PID-3: NTE-2}", "1:17: found PID-3: NTE-2; expected two fields of one segment, as PID-3: PID-2"),
]


def test_a_resource_that_others_refer_to_stays(tmp_path: Path) -> None:
    more = (
        "  note:\n    for: PATIENT.NTE\n    make: Communication\n    role: fact\n"
        "    rows: [status = completed, patient -> subject]\n    key: note '{NTE-1}'\n"
    )
    folder = write(tmp_path, messages_ZZZ=MESSAGE + more)
    with pytest.raises(MappingError) as caught:
        changed(folder, "resources:\n  patient: none\n")
    told = "channels/acme.yaml:2:12: found patient: none; expected none for note too, whose rows refer to it"
    assert str(caught.value) == told
    assert run(changed(folder, "resources: {patient: none, note: none}"), "PID|||M1").entries == []


@pytest.mark.parametrize(("text", "told"), MISTAKES)
def test_a_mistake_is_told_with_its_place_in_the_channels_file(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(MappingError) as caught:
        changed(write(tmp_path), text)
    assert any(f"channels/acme.yaml:{told}" in str(problem) for problem in caught.value.problems), caught.value

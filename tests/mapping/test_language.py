"""What the rows of a map mean."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.fhir.output import Key
from engine.mapping.library import Library, MappingError, Unmappable
from tests.mapping.folders import CONTEXT, FILES, mapping, patient, rows, run, write

MESSAGE = FILES["messages/ZZZ.yaml"]
IDENTIFIED = "PID-3 -> identifier as CX[Identifier]('patient')"
PID = "PID|||M1|||||F"


def made(
    tmp_path: Path, *lines: str, pid: str = PID, header: str = "MSH|^~\\&|LAB|||||x|ZZZ^Z01|1"
) -> dict[str, object]:
    return patient(write(tmp_path, segments_PID=rows(IDENTIFIED, *lines)), pid, header=header)


def test_a_row_moves_a_field_through_its_table(tmp_path: Path) -> None:
    assert made(tmp_path, "PID-8 -> gender table Sex")["gender"] == "female"


def test_a_code_that_the_table_does_not_know_is_left_out_and_told(tmp_path: Path) -> None:
    output = run(write(tmp_path), "PID|||M1|||||X")
    assert "gender" not in output.entries[0].resource
    assert [d.code for d in output.diagnostics] == ["unknown-code"]


@pytest.mark.parametrize(("otherwise", "told"), [("", 1), ("otherwise: ~\n", 0)])
def test_a_code_without_a_coding_is_listed_and_may_go_another_way(tmp_path: Path, otherwise: str, told: int) -> None:
    coded = (
        "PID-10 -> maritalStatus:\n"
        "      - first:\n"
        "          - PID-10 -> coding table Kind\n"
        "          - PID-10.1 -> coding.display"
    )
    table = f"table: Kind\nsystem: http://example.org/kind\ncodes: {{A: B}}\n{otherwise}"
    output = run(write(tmp_path, segments_PID=rows(IDENTIFIED, coded) + "---\n" + table), "PID|||M1|||||||X")
    assert output.entries[0].resource["maritalStatus"] == {"coding": [{"display": "X"}]}
    assert len(output.unmapped) == told


KINDS = """table: Kind
system: http://example.org/kind
codes: {A: [B, bee], C: [D, dee, other], E: [F, "", "http://example.org/third"]}
otherwise: [Z, zed, other]
---
systems: {other: http://example.org/other}
"""


@pytest.mark.parametrize(
    ("code", "coding"),
    [
        ("A", {"system": "http://example.org/kind", "code": "B", "display": "bee"}),
        ("C", {"system": "http://example.org/other", "code": "D", "display": "dee"}),
        ("E", {"system": "http://example.org/third", "code": "F"}),
        ("X", {"system": "http://example.org/other", "code": "Z", "display": "zed"}),
    ],
)
def test_a_code_of_a_table_may_have_a_system_of_its_own(tmp_path: Path, code: str, coding: dict[str, str]) -> None:
    text = rows(IDENTIFIED, "PID-10 -> maritalStatus table Kind") + "---\n" + KINDS
    assert patient(write(tmp_path, segments_PID=text), f"PID|||M1|||||||{code}")["maritalStatus"] == {
        "coding": [coding]
    }


@pytest.mark.parametrize(("value", "text"), [("A~C", "B"), ("C", "D"), ("A&x", None), ("X", "Z")])
def test_a_text_from_a_table_is_of_the_first_repetition(tmp_path: Path, value: str, text: str | None) -> None:
    table = "---\ntable: Kind\ncodes: {A: B, C: D, A&x: ~}\notherwise: Z\n"
    folder = write(tmp_path, segments_PID=rows(IDENTIFIED, "PID-10 -> maritalStatus.text table Kind") + table)
    found = patient(folder, f"PID|||M1|||||||{value}").get("maritalStatus", {})
    assert found == ({} if text is None else {"text": text})


def test_a_code_with_another_system_says_another_version(tmp_path: Path) -> None:
    text = rows(IDENTIFIED, "PID-10 -> maritalStatus table Kind") + "---\n" + KINDS
    before = Library.load(write(tmp_path / "before", segments_PID=text)).mapping("ZZZ").version
    moved = text.replace("example.org/other", "example.org/elsewhere")
    assert Library.load(write(tmp_path / "after", segments_PID=moved)).mapping("ZZZ").version != before


def test_a_time_that_is_none_is_left_out_and_told(tmp_path: Path) -> None:
    output = run(write(tmp_path), "PID|||M1||||19800231")
    assert "birthDate" not in output.entries[0].resource
    assert [(d.code, d.where) for d in output.diagnostics] == [("not-date", "PID-7")]


def test_all_repetitions_become_elements(tmp_path: Path) -> None:
    found = made(tmp_path, pid="PID|||M1~M2~~M3")
    assert [one["value"] for one in found["identifier"]] == ["M1", "M2", "M3"]  # type: ignore[attr-defined]


def test_an_earlier_row_is_not_overwritten(tmp_path: Path) -> None:
    found = made(tmp_path, "PID-7 -> birthDate", "PID-10 -> birthDate", pid="PID|||M1||||1980|||1990")
    assert found["birthDate"] == "1980"


def test_of_a_choice_the_first_row_that_yields_is_taken(tmp_path: Path) -> None:
    lines = ("PID-29 -> deceasedDateTime", "PID-30 -> deceasedBoolean")
    found = made(tmp_path, *lines, pid="PID|||M1" + "|" * 26 + "2020|Y")
    assert found["deceasedDateTime"] == "2020"
    assert "deceasedBoolean" not in found


def test_a_constant_of_a_condition_needs_no_field_but_that_of_the_condition(tmp_path: Path) -> None:
    lines = (
        "when PID-8 = 'F':\n      - active = true\n      - PID-30 -> deceasedBoolean",
        "PID-24 -> multipleBirthBoolean",
    )
    assert made(tmp_path, *lines)["active"] is True


def test_else_takes_the_first_that_is_valued(tmp_path: Path) -> None:
    assert made(tmp_path, "PID-4 else PID-7 -> birthDate", pid="PID|||M1||||1980")["birthDate"] == "1980"


@pytest.mark.parametrize(
    ("condition", "holds"),
    [
        ("PID-8 is valued", True),
        ("PID-9 is valued", False),
        ("PID-8 = 'F'", True),
        ("PID-8 != 'F'", False),
        ("PID-8 in ('M', 'F')", True),
        ("PID-8 not in ('M', 'F')", False),
        ("PID-8 = 'F' and (PID-9 is valued or not PID-7 is valued)", True),
        ("PID-3 repeats", True),
        ("PID-8 repeats", False),
        ("PID-3.2 is valued", False),
        ("lower(PID-8) = 'f'", True),
    ],
)
@pytest.mark.parametrize("escapes", ["", r"\E\ "])
def test_conditions_choose_rows(tmp_path: Path, condition: str, holds: bool, escapes: str) -> None:
    found = made(tmp_path, f"active = true when {condition}", pid=f"PID||{escapes}|M1~M2|||||F")
    assert ("active" in found) is holds


@pytest.mark.parametrize(("lines", "made"), [(["PID|||M1", "NTE|1||x"], 1), (["PID|||M1"], 0)])
def test_a_segment_is_valued_where_it_is_there(tmp_path: Path, lines: list[str], made: int) -> None:
    text = FILES["messages/ZZZ.yaml"].replace("PATIENT*: [PID, NTE*]", "PATIENT*: [PID, ZED*: [NTE]]")
    folder = write(tmp_path, messages_ZZZ=text + "    when: NTE is valued\n")
    assert len(run(folder, *lines).entries) == made


def test_rows_under_a_row_fill_one_element_for_each_repetition(tmp_path: Path) -> None:
    lines = ("PID-5 -> name:\n      - this.1 -> family".replace("this.1", "PID-5.1"), "active = true")
    found = made(tmp_path, *lines, pid="PID|||M1||One^x~Two")
    assert found["name"] == [{"family": "One"}, {"family": "Two"}]


def test_constants_never_stand_alone_in_an_element(tmp_path: Path) -> None:
    lines = ("PID-5 -> name needs family:\n      - PID-5.1 -> family\n      - use = official",)
    assert "name" not in made(tmp_path, *lines, pid="PID|||M1||^x")
    assert made(tmp_path / "b", *lines, pid="PID|||M1||a^x")["name"] == [{"family": "a", "use": "official"}]


def test_an_element_is_dropped_without_what_it_needs(tmp_path: Path) -> None:
    found = run(write(tmp_path), "PID|||^^^ACME~M2")
    assert [one["value"] for one in found.entries[0].resource["identifier"]] == ["M2"]


def test_first_takes_the_first_option_that_yields(tmp_path: Path) -> None:
    line = "first:\n      - PID-7 -> birthDate\n      - PID-9 -> birthDate\n      - birthDate = 1900"
    assert made(tmp_path, line, pid="PID|||M1||||x||1990")["birthDate"] == "1990"


def test_switch_runs_the_rows_of_the_code(tmp_path: Path) -> None:
    line = "switch PID-8:\n      F, G: gender = female\n      M: gender = male\n      else: gender = unknown"
    genders = [made(tmp_path / code, line, pid=f"PID|||M1|||||{code}")["gender"] for code in "GMX"]
    assert genders == ["female", "male", "unknown"]


def test_a_template_is_nothing_without_what_it_must_have(tmp_path: Path) -> None:
    line = "PID-5 -> name:\n      - \"'{PID-5.1}, {PID-5.2?}' -> text\""
    found = made(tmp_path, line, pid="PID|||M1||One^x~Two~^x")
    assert found["name"] == [{"text": "One, x"}, {"text": "Two, "}]


def test_extensions_go_by_name(tmp_path: Path) -> None:
    found = made(tmp_path, "PID-9 -> extension(religion).valueString", pid="PID|||M1||||||Shinto")
    assert found["extension"] == [{"url": "http://example.org/religion", "valueString": "Shinto"}]


def test_an_extension_of_a_primitive_stands_beside_it(tmp_path: Path) -> None:
    found = made(tmp_path, "PID-9 -> birthDate.extension(religion).valueString", pid="PID|||M1||||||x")
    assert found["_birthDate"] == {"extension": [{"url": "http://example.org/religion", "valueString": "x"}]}


def test_a_decision_is_made_by_the_first_row_that_fits(tmp_path: Path) -> None:
    assert made(tmp_path, "PID-8, PID-7 -> active decide Active", pid="PID|||M1|||||X")["active"] is True
    assert "active" not in made(tmp_path / "b", "PID-8, PID-7 -> active decide Active", pid="PID|||M1|||||Y")


def test_escapes_nulls_and_blanks_are_understood(tmp_path: Path) -> None:
    line = "PID-5 -> name:\n      - PID-5.1 -> family\n      - PID-5.2 -> given"
    found = made(tmp_path, line, pid='PID|||M1|| A\\T\\B ^""')
    assert found["name"] == [{"family": "A&B"}]


def test_the_senders_own_delimiters_are_used(tmp_path: Path) -> None:
    line = "PID-5 -> name:\n      - PID-5.1 -> family\n      - PID-5.2 -> given"
    found = made(tmp_path, line, pid="PID###M1##A*B!C", header="MSH#*!\\%#LAB#####x#ZZZ*Z01#1")
    assert found["name"] == [{"family": "A", "given": ["B"]}, {"family": "C"}]


def test_the_same_bytes_give_the_same_output(tmp_path: Path) -> None:
    one = mapping(write(tmp_path))
    raw = b"MSH|^~\\&|LAB|||||x|ZZZ^Z01|1\rPID|||M1\rPID|||M2"
    first, second = one.run(raw, CONTEXT), one.run(raw, CONTEXT)
    assert first == second
    names = [entry.reference["reference"] for entry in first.entries]
    assert len(set(names)) == 2
    assert all(name == name.lower() and len(name) == 45 for name in names)


def test_an_anchor_that_comes_twice_is_one_entry(tmp_path: Path) -> None:
    output = run(write(tmp_path), "PID|||M1~M2", "PID|||M1||||1980")
    assert len(output.entries) == 1
    assert output.entries[0].resource["birthDate"] == "1980"


def test_an_identifier_without_a_system_takes_the_channels(tmp_path: Path) -> None:
    assert run(write(tmp_path), "PID|||M1").entries[0].key == (("https://acme.example/mrn", "M1"),)


@pytest.mark.parametrize(
    ("authority", "system"),
    [
        ("ACME LAB", "urn:interlock:acme:ACME%20LAB"),
        ("ACME&2.16.840.1.113883.19.5&ISO", "urn:oid:2.16.840.1.113883.19.5"),
        ("2.16.840.1.113883.19.5", "urn:oid:2.16.840.1.113883.19.5"),
        ("&https://acme.example/mrn&URI", "https://acme.example/mrn"),
        ("&99D0000000&CLIA", "urn:interlock:acme:99D0000000"),
    ],
)
def test_an_authority_becomes_a_system(tmp_path: Path, authority: str, system: str) -> None:
    assert run(write(tmp_path), f"PID|||M1^^^{authority}").entries[0].key == ((system, "M1"),)


def test_a_resource_without_identity_is_no_entry(tmp_path: Path) -> None:
    output = run(write(tmp_path), "PID|1||||||1980")
    assert output.entries == []
    assert [d.code for d in output.diagnostics] == ["no-identity"]


def test_the_version_changes_with_what_is_used_and_only_with_that(tmp_path: Path) -> None:
    plain = mapping(write(tmp_path / "a")).version
    spaced = mapping(
        write(tmp_path / "b", tables_sex="# a comment\ntable: Sex\ncodes:  {F: female, M: male}\n")
    ).version
    other = mapping(write(tmp_path / "c", tables_sex="table: Sex\ncodes: {F: female}\n")).version
    unused = mapping(write(tmp_path / "d", tables_order=FILES["tables/order.yaml"].replace("X", "Y"))).version
    assert plain == spaced == unused != other


def test_a_site_folder_wins_by_name(tmp_path: Path) -> None:
    from engine.mapping.library import Library

    site = tmp_path / "site" / "tables"
    site.mkdir(parents=True)
    (site / "sex.yaml").write_text("table: Sex\ncodes: {F: other}\n", encoding="utf-8")
    library = Library.load(write(tmp_path / "shipped"), tmp_path / "site")
    output = library.mapping("zzz").run(b"MSH|^~\\&|LAB|||||x|ZZZ^Z01|1\r" + PID.encode(), CONTEXT)
    assert output.entries[0].resource["gender"] == "other"


@pytest.mark.parametrize(
    ("raw", "code"), [(b"", "no-header"), (b"PID|1", "no-header"), (b"MSH|^~\\&|\xff|||||x|ZZZ^Z01|1", "charset")]
)
def test_what_cannot_be_mapped_says_why(tmp_path: Path, raw: bytes, code: str) -> None:
    with pytest.raises(Unmappable) as caught:
        mapping(write(tmp_path)).run(raw, CONTEXT)
    assert caught.value.code == code


def test_a_displaced_segment_is_told(tmp_path: Path) -> None:
    output = run(write(tmp_path), "PID|||M1", "ZDS|x")
    assert [(d.code, d.where) for d in output.diagnostics] == [("unknown-segment", "ZDS in line 3")]


def test_a_field_can_be_kept_whole_in_an_extension(tmp_path: Path) -> None:
    found = made(tmp_path, "PID-9 -> kept", pid="PID|||M1||||||a^b&c~d")
    assert found["extension"] == [
        {
            "url": "https://interlock.example/v2/PID-9",
            "extension": [
                {"url": "1", "valueString": "a"},
                {"url": "2", "extension": [{"url": "1", "valueString": "b"}, {"url": "2", "valueString": "c"}]},
            ],
        },
        {"url": "https://interlock.example/v2/PID-9", "valueString": "d"},
    ]


@pytest.mark.parametrize(("number", "says"), [("^^^Y", "nothing"), ("", "the name")])
def test_what_is_not_mapped_may_say_why(tmp_path: Path, number: str, says: str) -> None:
    found = made(tmp_path, "PID-9 -> nothing: It says nothing")
    assert "extension" not in found


PARTY = (
    "map: PID[Organization]\nname: clinic\nkeyless: {keyless}\nkey: clinic '{{PID-4}}'\nrows:\n"
    "  - PID-9 -> name\n  - PID-10 -> contact.name.text\n---\n"
)


def test_a_resource_is_made_of_several_fields(tmp_path: Path) -> None:
    text = PARTY.format(keyless="contain").replace("PID-4", "PID-10")
    text += rows(IDENTIFIED, "PID-9, PID-10 -> managingOrganization as PID[Organization]")
    output = run(write(tmp_path, segments_PID=text), "PID|||M1||||||Clinic|Ada")
    patient, clinic = sorted(output.entries, key=lambda entry: entry.name, reverse=True)
    assert clinic.resource["name"] == "Clinic"
    assert patient.resource["managingOrganization"] is clinic.reference


def test_a_party_without_a_key_is_contained_with_all_it_says(tmp_path: Path) -> None:
    text = PARTY.format(keyless="contain").replace("PID-4", "PID-10")
    text += rows(IDENTIFIED, "PID-9, PID-10 -> managingOrganization as PID[Organization]")
    found = patient(write(tmp_path, segments_PID=text), "PID|||M1||||||Clinic")
    assert found["contained"] == [{"resourceType": "Organization", "name": "Clinic", "id": "clinic"}]
    assert found["managingOrganization"] == {"reference": "#clinic"}


def test_a_map_of_fields_reads_only_those_that_its_row_names(tmp_path: Path) -> None:
    text = PARTY.format(keyless="drop") + rows(IDENTIFIED, "PID-9 -> managingOrganization as PID[Organization]")
    with pytest.raises(MappingError, match="PID\\[Organization\\], which reads PID-4, PID-10 too"):
        run(write(tmp_path, segments_PID=text), "PID|||M1")


def test_a_message_may_use_another_and_say_where_it_differs(tmp_path: Path) -> None:
    folder = write(tmp_path)
    derived = (
        "message: YYY\nuse: ZZZ\naccepts: [YYY^Y01]\nresources:\n"
        "  patient: {rows: [active = true]}\n"
        "  note: {for: NTE, make: Basic, role: fact, before: patient, rows: NTE-3 -> code.text, "
        "key: \"note '{NTE-1}'\"}\n"
    )
    (folder / "messages" / "AAA.yaml").write_text(derived, encoding="utf-8")
    library = Library.load(folder)
    text = "MSH|^~\\&|LAB|||||x|YYY^Y01|1\rPID|||M1|||||F\rNTE|1||hello"
    output = library.mapping("YYY").run(text.encode(), CONTEXT)
    assert [entry.type for entry in output.entries] == ["Patient", "Basic"]
    assert output.entries[0].resource["active"] is True
    assert (
        "active"
        not in library.mapping("ZZZ").run(text.replace("YYY^Y01", "ZZZ^Z01").encode(), CONTEXT).entries[0].resource
    )


def test_a_message_may_leave_out_a_resource_of_the_one_it_uses(tmp_path: Path) -> None:
    folder = write(tmp_path)
    derived = "message: YYY\nuse: ZZZ\naccepts: [YYY^Y01]\nresources:\n  patient: none\n"
    (folder / "messages" / "AAA.yaml").write_text(derived, encoding="utf-8")
    text = "MSH|^~\\&|LAB|||||x|YYY^Y01|1\rPID|||M1|||||F"
    assert Library.load(folder).mapping("YYY").run(text.encode(), CONTEXT).entries == []


OPTIONS = "options:\n  sex-wanted: {of: ['yes', 'no'], default: 'yes', about: Whether it is.}\n"


def test_an_option_decides_when_the_mapping_is_made(tmp_path: Path) -> None:
    folder = write(tmp_path, segments_PID=rows(IDENTIFIED, "active = true when option(sex-wanted) = 'yes'"))
    (folder / "tables" / "options.yaml").write_text(OPTIONS, encoding="utf-8")
    assert patient(folder, "PID|||M1")["active"] is True
    (folder / "tables" / "options.yaml").write_text(OPTIONS.replace("default: 'yes'", "default: 'no'"))
    assert "active" not in patient(folder, "PID|||M1")


def test_all_lines_of_many_segments_become_one_text(tmp_path: Path) -> None:
    text = MESSAGE.replace("from: PID[Patient]", "from: PID[Patient]\n    rows: [all(NTE-3) -> maritalStatus.text]")
    lines = ("PID|||M1", "NTE|1||one~two", "NTE|2||three")
    assert patient(write(tmp_path, messages_ZZZ=text), *lines)["maritalStatus"] == {"text": "one\ntwo\nthree"}


@pytest.mark.parametrize(("evn", "event"), [("EVN|A01|20260102", "2026-01-02"), ("", "2026-05-07T08:00:00-05:00")])
def test_an_entry_says_when_its_event_was(tmp_path: Path, evn: str, event: str) -> None:
    text = MESSAGE.replace("  - MSH\n", "  - MSH\n  - EVN?\n")
    header = "MSH|^~\\&|LAB||||20260507080000||ZZZ^Z01|1"
    output = run(write(tmp_path, messages_ZZZ=text), *filter(None, (evn, "PID|||M1")), header=header)
    assert output.entries[0].event == event


def test_a_resource_may_know_a_better_time_of_its_event(tmp_path: Path) -> None:
    text = MESSAGE.replace("from: PID[Patient]", "from: PID[Patient]\n    event: PID-33 else MSH-7")
    output = run(write(tmp_path, messages_ZZZ=text), "PID|||M1" + "|" * 30 + "20250101")
    assert output.entries[0].event == "2025-01-01"


def test_a_message_that_uses_another_is_for_channels_that_name_it(tmp_path: Path) -> None:
    derived = "message: AAA\nuse: ZZZ\nresources:\n  patient:\n    rows: [active = true]\n"
    library = Library.load(write(tmp_path, messages_ZZZ=f"{MESSAGE}---\n{derived}---\n{derived.replace('AAA', 'ZZY')}"))
    found = library.for_message("ZZZ", "Z01")
    assert found is not None
    assert found.name == "ZZZ"
    raw = b"MSH|^~\\&|LAB|||||x|ZZZ^Z01|1\rPID|||M1"
    assert library.mapping("AAA").run(raw, CONTEXT).entries[0].resource["active"] is True
    assert "active" not in found.run(raw, CONTEXT).entries[0].resource


def test_an_explicit_null_clears_its_element_and_an_absent_field_nothing(tmp_path: Path) -> None:
    text = rows(IDENTIFIED, "PID-7 -> birthDate", "PID-8 -> gender table Sex", "PID-13 -> telecom.value")
    message = MESSAGE.replace("    key: identifier\n", "    update: fill\n    key: identifier\n")
    folder = write(tmp_path, segments_PID=text, messages_ZZZ=message)
    entry = run(folder, 'PID|||M1||||""|F').entries[0]
    assert entry.clears == {"birthDate"}
    assert "birthDate" not in entry.resource
    assert entry.resource["gender"] == "female"
    assert run(folder, "PID|||M1").entries[0].clears == frozenset()


def test_a_null_clears_only_what_its_field_fills(tmp_path: Path) -> None:
    lines = (
        "PID-13 -> telecom needs value:\n      - this -> value\n      - use = home",
        "PID-14 -> telecom needs value:\n      - this -> value\n      - use = work",
        "PID-6 -> maritalStatus.text",
    )
    message = MESSAGE.replace("    key: identifier\n", "    update: fill\n    key: identifier\n")
    folder = write(tmp_path, segments_PID=rows(IDENTIFIED, *lines), messages_ZZZ=message)
    assert run(folder, 'PID|||M1|||""|||||||""|555').entries[0].clears == {"maritalStatus.text", "telecom[home]"}


def test_what_comes_under_one_number_is_kept_apart_by_an_element(tmp_path: Path) -> None:
    text = MESSAGE.replace(
        "    key: identifier\n", "    apart: maritalStatus\n    key: [identifier, \"patient '{PID-3.1}:{PID-16}'\"]\n"
    )
    folder = write(tmp_path, messages_ZZZ=text, segments_PID=rows(IDENTIFIED, "PID-16 -> maritalStatus.text"))
    output = run(folder, *(f"PID|||M1|||||||||||||{status}" for status in "SMS"))
    assert [(entry.resource["maritalStatus"]["text"], keys(entry.key)) for entry in output.entries] == [
        ("S", ["M1", "M1:S"]),
        ("M", ["M1:M"]),
    ]
    assert [one["value"] for one in output.entries[1].resource["identifier"]] == ["M1:M"]


def keys(key: Key) -> list[str]:
    return [value for _, value in key]


def test_several_with_one_key_are_a_series(tmp_path: Path) -> None:
    text = MESSAGE.replace("role: anchor", "role: fact").replace("    key:", "    series: birthDate\n    key:")
    output = run(write(tmp_path, messages_ZZZ=text), "PID|||M1||||1980", "PID|||M1||||1990", "PID|||M2||||1990")
    assert [(keys(entry.key), keys(entry.formerly), entry.series) for entry in output.entries] == [
        (["M1"], [], "birthDate"),
        (["M1#2"], ["M1"], "birthDate"),
        (["M2"], [], "birthDate"),
    ]
    systems = [[one["system"].rpartition(":")[2] for one in entry.resource["identifier"]] for entry in output.entries]
    assert [found.count("series") for found in systems] == [1, 1, 0]


def test_anchors_of_a_series_are_told_apart_by_their_values(tmp_path: Path) -> None:
    text = MESSAGE.replace("    key:", "    series: birthDate\n    key:")
    output = run(write(tmp_path, messages_ZZZ=text), "PID|||M1||||1980", "PID|||M1||||1990", "PID|||M1||||1980")
    assert [(keys(entry.key), keys(entry.formerly)) for entry in output.entries] == [(["M1"], []), (["M1#2"], ["M1"])]


def test_an_anchor_may_have_been_stored_under_another_key(tmp_path: Path) -> None:
    formerly = "    formerly: person '{PID-4.1}'\n"
    text = MESSAGE.replace("    key: identifier\n", f"    key: person '{{PID-3.1}}'\n{formerly}")
    [entry] = run(write(tmp_path, messages_ZZZ=text), "PID|||M1|A1").entries
    assert (keys(entry.key), keys(entry.formerly)) == (["M1"], ["A1"])
    assert [one["value"] for one in entry.resource["identifier"]][-2:] == ["M1", "A1"]
    [entry] = run(tmp_path, "PID|||M1|M1").entries
    assert (keys(entry.key), keys(entry.formerly)) == (["M1"], [])


@pytest.mark.parametrize("lines", [("PID|||M1|A1", "PID|||A1"), ("PID|||A1", "PID|||M1|A1")])
def test_the_key_of_another_one_of_the_message_is_no_former_key(tmp_path: Path, lines: tuple[str, str]) -> None:
    formerly = "    formerly: person '{PID-4.1}'\n    keyless: contain\n"
    text = MESSAGE.replace("    key: identifier\n", f"    key: person '{{PID-3.1}}'\n{formerly}")
    entries = run(write(tmp_path, messages_ZZZ=text), *lines, "PID||||A1").entries
    assert {(*keys(entry.key), *keys(entry.formerly)) for entry in entries} == {("M1",), ("A1",)}
    [one] = [entry for entry in entries if keys(entry.key) == ["M1"]]
    assert [each["value"] for each in one.resource["identifier"] if "system" in each][-1] == "M1"


@pytest.mark.parametrize(("pid", "best"), [("PID|||M1|S1", "S1"), ("PID|||M1", "M1")])
def test_a_name_may_be_made_of_names_of_a_group(tmp_path: Path, pid: str, best: str) -> None:
    message = MESSAGE.replace("    key: identifier\n", "    key: person '{best}'\n")
    lets = "let:\n  second: PID-4.1\n  first: PID-3.1\n  best: second else first\n"
    folder = write(tmp_path, messages_ZZZ=message.replace("resources:\n", f"{lets}resources:\n"))
    assert run(folder, pid).entries[0].key == (("urn:interlock:acme:person", best),)


def test_all_lines_may_be_those_that_fit(tmp_path: Path) -> None:
    text = MESSAGE.replace(
        "from: PID[Patient]",
        "from: PID[Patient]\n    rows: [\"all(NTE-3 where NTE-2 = 'L') -> maritalStatus.text\"]",
    )
    lines = ("PID|||M1", "NTE|1|L|one", "NTE|2|P|two", "NTE|3|L|three")
    assert patient(write(tmp_path, messages_ZZZ=text), *lines)["maritalStatus"] == {"text": "one\nthree"}


NESTED = "PID-5 -> name needs period:\n      - period:\n          - PID-9 -> start\n          - PID-10 -> end"
FLAT = "PID-5 -> name:\n      - PID-9 -> period.start\n      - PID-10 -> period.end"


@pytest.mark.parametrize(
    ("start", "end", "kept"),
    [("20260101", "20260102", True), ("20260102", "20260101", False), ("202601021200-0500", "202601021600Z", False)],
)
@pytest.mark.parametrize("row", [NESTED, FLAT])
def test_a_period_never_ends_before_it_starts(tmp_path: Path, start: str, end: str, kept: bool, row: str) -> None:
    output = run(write(tmp_path, segments_PID=rows(IDENTIFIED, row)), f"PID|||M1||x||||{start}|{end}")
    period = output.entries[0].resource["name"][0]["period"]
    assert ("end" in period) is kept
    assert ("extension" in period) is not kept
    assert [one.code for one in output.diagnostics] == ([] if kept else ["period-order"])


def test_hexadecimal_becomes_base64(tmp_path: Path) -> None:
    found = made(tmp_path, "PID-9 -> photo:\n      - from_hex(PID-9) -> data", pid="PID|||M1||||||48656C6C6F")
    assert found["photo"] == [{"data": "SGVsbG8="}]


def test_only_refers_where_there_is_just_one(tmp_path: Path) -> None:
    text = (
        "message: ZZZ\naccepts: [ZZZ^Z01]\ngroups:\n  - MSH\n  - PATIENT*: [PID]\nresources:\n"
        "  patient: {for: PATIENT, make: Patient, role: anchor, from: 'PID[Patient]', key: identifier}\n"
        "  one: {for: MSH, make: Basic, role: fact, rows: [code.text = x, only patient -> subject], key: KEY}\n"
    )
    folder = write(tmp_path, messages_ZZZ=text.replace("KEY", "\"one '{MSH-10}'\""))
    assert "subject" in run(folder, "PID|||M1").entries[1].resource
    assert "subject" not in run(folder, "PID|||M1", "PID|||M2").entries[2].resource


def test_a_map_may_be_for_a_case_alone(tmp_path: Path) -> None:
    text = MESSAGE.replace("from: PID[Patient]", "from: [PID[Patient] when PID-8 = 'F']")
    text = text.replace("[PID[Patient] when PID-8 = 'F']", "\"PID[Patient] when PID-8 = 'F'\"")
    output = run(write(tmp_path, messages_ZZZ=text), "PID|||M1|||||M")
    assert output.entries == []
    assert [entry.name for entry in run(write(tmp_path, messages_ZZZ=text), "PID|||M1|||||F").entries] == ["patient"]


@pytest.mark.parametrize(
    ("text", "bounds"),
    [
        ("3.5-5.3", ["3.5", "5.3"]),
        ("3.5 - 5.3", ["3.5", "5.3"]),
        ("<10", [None, "10"]),
        (">= 4", ["4", None]),
        ("-2-3", ["-2", "3"]),
        ("5-3", [None, None]),
        ("negative", [None, None]),
        ("3.5-5.3 mmol/L", [None, None]),
        ("", [None, None]),
    ],
)
def test_bounds_are_told_of_plainly_numeric_ranges(tmp_path: Path, text: str, bounds: list[str | None]) -> None:
    lines = ("low(PID-9) -> maritalStatus.text", "high(PID-9) -> address.text")
    found = made(tmp_path, *lines, pid=f"PID|||M1||||||{text}")
    assert [found.get("maritalStatus", {}).get("text"), (found.get("address") or [{}])[0].get("text")] == bounds  # type: ignore[attr-defined,index]


NESTED_ROWS = (
    "PID-16 -> maritalStatus as CWE[CodeableConcept]",
    "PID-9 -> maritalStatus.extension(religion).valueString",
)


@pytest.mark.parametrize("escape", ["", "\\T\\"])
def test_what_a_map_made_of_a_value_is_never_changed_for_the_next_message(tmp_path: Path, escape: str) -> None:
    folder = write(tmp_path, segments_PID=rows(IDENTIFIED, *NESTED_ROWS))
    cwe = "map: CWE[CodeableConcept]\ncached: true\nrows:\n  - CWE.1 -> text\n"
    (folder / "datatypes" / "CWE.yaml").write_text(cwe, encoding="utf-8")
    one = mapping(folder)
    header = "MSH|^~\\&|LAB|||||x|ZZZ^Z01|1"
    first = one.run(f"{header}\rPID|||M1||||||secret{escape}|||||||S".encode(), CONTEXT)
    second = one.run(f"{header}\rPID|||M2||||||{escape}|||||||S".encode(), CONTEXT)
    assert "extension" in first.entries[0].resource["maritalStatus"]
    assert second.entries[0].resource["maritalStatus"].get("extension", []) in (
        [],
        [{"url": "http://example.org/religion", "valueString": "&"}],
    )


def test_a_null_inside_an_element_clears_nothing_of_the_resource(tmp_path: Path) -> None:
    line = "contact:\n      - PID-9 -> name.text\n      - PID-10 -> gender table Sex"
    message = MESSAGE.replace("    key: identifier\n", "    update: fill\n    key: identifier\n")
    folder = write(tmp_path, segments_PID=rows(IDENTIFIED, line), messages_ZZZ=message)
    assert run(folder, 'PID|||M1||||||""|F').entries[0].clears == frozenset()


def test_a_path_may_name_the_group_that_it_means(tmp_path: Path) -> None:
    text = MESSAGE.replace("PATIENT*: [PID, NTE*]", "PATIENT*: [PID, FIRST?: [NTE], OTHER*: [NTE]]")
    text += (
        "  other:\n    for: OTHER\n    make: Basic\n    role: fact\n    when: NTE-2 != FIRST.NTE-2\n"
        "    rows: NTE-3 -> code.text\n    key: other '{NTE-3}'\n"
    )
    output = run(write(tmp_path, messages_ZZZ=text), "PID|||M1", "NTE|1|L|a", "NTE|2|L|b", "NTE|3|P|c")
    assert [entry.key[0][1] for entry in output.entries if entry.name == "other"] == ["c"]


def test_a_map_that_is_first_used_in_an_option_is_the_same_as_elsewhere(tmp_path: Path) -> None:
    line = "first:\n      - PID-5 -> name as XPN[HumanName]\n      - PID-9 -> name as XPN[HumanName]"
    xpn = (
        "map: XPN[HumanName]\nrows:\n  - XPN.1 -> family\n  - first:\n      - XPN.2 -> given\n      - XPN.3 -> given\n"
    )
    folder = write(tmp_path, segments_PID=rows(IDENTIFIED, line))
    (folder / "datatypes" / "XPN.yaml").write_text(xpn, encoding="utf-8")
    source = mapping(folder).source
    body = source[source.index("def XPN_HumanName") :].split("\ndef ")[0]
    assert "= True" in body
    assert patient(folder, "PID|||M1||One^^x||||||Two")["name"] == [{"family": "One", "given": ["x"]}]
    alone = write(tmp_path / "b", segments_PID=rows(IDENTIFIED, "PID-5 -> name as XPN[HumanName]"))
    (alone / "datatypes" / "XPN.yaml").write_text(xpn, encoding="utf-8")
    other = mapping(alone).source
    assert other[other.index("def XPN_HumanName") :].split("\ndef ")[0].strip() == body.strip()


@pytest.mark.parametrize("cached", ["", "cached: true\n"])
def test_an_element_may_be_made_of_several_fields(tmp_path: Path, cached: str) -> None:
    text = f"map: PID[HumanName]\n{cached}needs: [family]\nrows:\n  - PID-9 -> family\n  - PID-10 -> given\n---\n"
    text += rows(IDENTIFIED, "PID-9, PID-10 -> name as PID[HumanName]")
    one = mapping(write(tmp_path, segments_PID=text))
    header = "MSH|^~\\&|LAB|||||x|ZZZ^Z01|1"

    def names(pid: str) -> object:
        raw = f"{header}\r{pid}".encode()
        plain, traced = one.run(raw, CONTEXT).entries[0].resource, one.trace(raw, CONTEXT)[0].entries[0].resource
        assert plain == traced
        return plain.get("name")

    for _ in range(2):
        assert names("PID|||M1||||||One|x") == [{"family": "One", "given": ["x"]}]
        assert names("PID|||M1|||||||x") is None


@pytest.mark.parametrize("escapes", ["", "\\T\\"])
def test_a_literal_may_have_lines(tmp_path: Path, escapes: str) -> None:
    found = made(tmp_path, "\"'a {PID-8}\\nb' -> maritalStatus.text\"", pid=f"{PID}|{escapes}")
    assert found["maritalStatus"] == {"text": "a F\nb"}


def test_a_code_that_is_nothing_on_purpose_is_no_text_either(tmp_path: Path) -> None:
    table = "---\ntable: Kind\nsystem: http://example.org/kind\ncodes: {A: B, N: ~}\n"
    folder = write(tmp_path, segments_PID=rows(IDENTIFIED, "PID-10 -> maritalStatus table Kind") + table)
    output = run(folder, "PID|||M1|||||||N")
    assert "maritalStatus" not in output.entries[0].resource
    assert not output.unmapped


@pytest.mark.parametrize(("high", "kept"), [("20", True), ("10", True), ("5", False)])
def test_a_range_never_begins_above_its_end(tmp_path: Path, high: str, kept: bool) -> None:
    message = MESSAGE.replace("make: Patient", "make: Observation").replace("    from: PID[Patient]\n", "")
    message += (
        "    rows:\n      - status = final\n      - code = unknown\n"
        "      - PID-3 -> identifier as CX[Identifier]('patient')\n"
        "      - valueRange needs low, high:\n          - low:\n              - PID-5 -> value\n"
        "          - high:\n              - PID-6 -> value\n"
    )
    output = run(write(tmp_path, messages_ZZZ=message), f"PID|||M1||10|{high}")
    assert ("valueRange" in output.entries[0].resource) == kept
    assert [one.code for one in output.diagnostics] == ([] if kept else ["range-order"])


def test_a_group_that_occurs_once_has_its_own_segments(tmp_path: Path) -> None:
    message = MESSAGE.replace("  - PATIENT*: [PID, NTE*]\n", "  - PATIENT: [PID, NTE*]\n  - BODY: [OBX, NTE*]\n")
    message += (
        "  note:\n    for: BODY\n    make: Communication\n    role: fact\n    from: NTE[Communication]\n"
        "    rows:\n      - status = completed\n    key: note '{OBX-1}'\n"
    )
    maps = rows(IDENTIFIED) + "---\nmap: NTE[Communication]\nrows:\n  - NTE-3 -> note.text\n"
    folder = write(tmp_path, segments_PID=maps, messages_ZZZ=message)
    output = run(folder, "PID|||M1", "NTE|1||of the patient", "OBX|1", "NTE|1||of the body")
    assert output.entries[1].resource["note"] == [{"text": "of the body"}]

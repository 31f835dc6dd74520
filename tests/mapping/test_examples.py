"""The shipped mappings keep what their examples promise, and an example that does not hold says what is otherwise."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent, indent

import pytest

from engine.mapping import examples
from engine.mapping.examples import Example, Fault, Verdict
from engine.mapping.library import Library
from engine.mapping.rule_coverage import RuleCoverage
from tests.mapping.folders import FILES, SHIPPED, rows, shipped, write

EXAMPLES = examples.load(SHIPPED / "examples")
MESSAGE = "MSH|^~\\&|LAB|||||x|ZZZ^Z01|1\nPID|1||M1||||19800228|F|||||||||C"
ROWS = rows(
    "PID-3 -> identifier as CX[Identifier]('patient')",
    "PID-7 -> birthDate",
    "PID-8 -> gender table Sex",
    "PID-17 -> extension(religion).valueString",
)


@pytest.fixture(scope="module")
def library() -> Library:
    return shipped()


@pytest.fixture
def small(tmp_path: Path) -> Library:
    return Library.load(write(tmp_path / "maps", segments_PID=ROWS))


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda one: f"{one.file.stem}: {one.name}")
def test_the_example_holds(example: Example, library: Library) -> None:
    assert list(map(str, examples.check(example, library).faults)) == []


def example(folder: Path, wanted: str, message: str = MESSAGE) -> Example:
    path = folder / "one.yaml"
    text = "name: one\nmessage: |\n" + indent(message, "  ") + "\n" + dedent(wanted)
    path.write_text(text, encoding="utf-8")
    (found,) = examples.load(folder)
    return found


def check(folder: Path, library: Library, wanted: str, message: str = MESSAGE) -> Verdict[Example]:
    return examples.check(example(folder, wanted, message), library)


def faults(folder: Path, library: Library, wanted: str, message: str = MESSAGE) -> list[str]:
    return list(map(str, check(folder, library, wanted, message).faults))


# -- what is compared


def test_some_elements_of_the_entries_of_a_type(tmp_path: Path, small: Library) -> None:
    wanted = "expect: {Patient: {birthDate: 1980-02-28, identifier.0.value: M1, deceasedBoolean: null}, Condition: []}"
    assert faults(tmp_path, small, wanted) == []
    assert faults(tmp_path, small, "expect: {Patient: {gender: male}, Flag: [{}]}") == [
        "Patient[1].gender: expected 'male', found 'female'",
        "Flag: expected 1, found 0; there are Patient",
    ]


def test_a_fault_knows_its_line(tmp_path: Path, small: Library) -> None:
    verdict = check(tmp_path, small, "expect:\n  Patient:\n    - gender: male\n")
    (fault,) = verdict.faults
    assert isinstance(fault, Fault)
    assert (Path(fault.place.file).name, fault.place.line, fault.place.column) == ("one.yaml", 7, 7)


def test_a_nested_value_is_compared_path_by_path(tmp_path: Path, small: Library) -> None:
    wanted = "expect: {Patient: {identifier: [{value: M2, system: (any), use: usual}, {value: M3}]}}"
    assert faults(tmp_path, small, wanted) == [
        "Patient[1].identifier.0.value: expected 'M2', found 'M1'",
        "Patient[1].identifier.0.use: expected 'usual', found nothing",
        "Patient[1].identifier.1: expected {'value': 'M3'}, found nothing",
    ]


def test_an_extension_goes_by_the_name_that_the_mappings_have_for_it(tmp_path: Path, small: Library) -> None:
    assert faults(tmp_path, small, "expect: {Patient: {extension(religion).valueString: C}}") == []
    named = "expect: {Patient: {\"extension('http://example.org/religion').valueString\": C}}"
    assert faults(tmp_path, small, named) == []


def test_an_entry_has_a_name_a_role_a_policy_and_a_key(tmp_path: Path, small: Library) -> None:
    wanted = "expect: {Patient: {entry.name: patient, entry.role: anchor, entry.policy: fill, entry.key: M1}}"
    assert faults(tmp_path, small, wanted) == ["Patient[1].entry.policy: expected 'fill', found 'create'"]
    assert faults(tmp_path, small, "expect: {Patient: {entry.clears: null, entry.drops: null}}") == []


def test_an_entry_may_blank_elements(tmp_path: Path) -> None:
    text = FILES["messages/ZZZ.yaml"] + "    update: overwrite\n"
    library = Library.load(write(tmp_path / "maps", segments_PID=ROWS, messages_ZZZ=text))
    message = MESSAGE.replace("|19800228|F|", '|""|""|')
    assert faults(tmp_path, library, "expect: {Patient: {entry.clears: [birthDate, gender]}}", message) == []


def test_a_yes_is_no_one(tmp_path: Path, small: Library) -> None:
    assert faults(tmp_path, small, "expect: {Patient: {gender: true}}") != []


def test_the_whole_output(tmp_path: Path, small: Library) -> None:
    wanted = """
        output:
          - Patient:
              birthDate: "1980-02-28"
              gender: female
              identifier: [{value: M1, system: (any)}]
              extension: [{url: http://example.org/religion, valueString: C}]
        types: [Patient]
        """
    assert faults(tmp_path, small, wanted) == []
    assert faults(tmp_path, small, wanted.replace("gender: female", "active: true")) == [
        "Patient[1].active: expected True, found nothing",
        "Patient[1].gender: expected nothing, found 'female'",
    ]
    assert faults(tmp_path, small, "output: []\ntypes: [Flag]") == [
        "output: expected nothing, found Patient",
        "types: expected Flag, found Patient",
    ]


def test_references_go_by_the_entries_that_they_point_at(tmp_path: Path) -> None:
    more = (
        "  note:\n    for: PATIENT.NTE\n    make: Communication\n    role: fact\n"
        "    rows: [status = completed, patient -> subject]\n    key: note '{NTE-1}'\n"
    )
    library = Library.load(write(tmp_path / "maps", messages_ZZZ=FILES["messages/ZZZ.yaml"] + more))
    message = MESSAGE + "\nNTE|1||x"
    assert faults(tmp_path, library, 'expect: {Communication: {subject.reference: "Patient[1]"}}', message) == []


def test_diagnostics_are_compared_as_they_are(tmp_path: Path, small: Library) -> None:
    message = MESSAGE.replace("|F|", "|Q|")
    assert faults(tmp_path, small, "diagnostics: [unknown-code]", message) == []
    assert faults(tmp_path, small, "diagnostics: []", message) == [
        "diagnostics: expected none, found unknown-code at PID-8"
    ]


# -- what the message is mapped by


def test_fields_whose_values_no_rule_takes(tmp_path: Path, small: Library) -> None:
    message = MESSAGE.replace("M1|||", "M1|X||")
    lost = "MSH-10, MSH-3, MSH-8, MSH-9, PID-1"
    assert faults(tmp_path, small, f"lost: [{lost}, PID-4]", message) == []
    assert faults(tmp_path, small, f"lost: [{lost}]", message) == [f"lost: expected {lost}, found {lost}, PID-4"]


def test_a_refusal_may_be_what_is_wanted(tmp_path: Path, small: Library) -> None:
    assert faults(tmp_path, small, "unmapped: refuse\nrefused: unmapped") == []
    assert faults(tmp_path, small, "refused: unmapped") == ["refused: expected 'unmapped', found an output"]
    assert faults(tmp_path, small, "unmapped: refuse\nrefused: charset") == [
        "refused: expected 'charset', found 'unmapped'"
    ]
    (told,) = faults(tmp_path, small, "unmapped: refuse\nexpect: {}")
    assert told.startswith("unmapped at ")


def test_a_message_that_no_mapping_accepts(tmp_path: Path, small: Library) -> None:
    message = MESSAGE.replace("ZZZ^Z01", "ZZZ^Z02")
    assert faults(tmp_path, small, "expect: {Patient: {}}", message) == ["no mapping for ZZZ^Z02"]
    assert faults(tmp_path, small, "refused: no-mapping", message) == []
    assert faults(tmp_path, small, "mapping: zzz\nexpect: {Patient: {gender: female}}", message) == []
    (told,) = faults(tmp_path, small, "mapping: yyy\nexpect: {}", message)
    assert told.startswith("no mapping yyy")


def test_what_a_channel_has_otherwise(tmp_path: Path, small: Library) -> None:
    override = 'override: {"PID[Patient]": {rows: [{PID-8 -> nothing: not wanted}]}}\n'
    assert faults(tmp_path, small, override + "expect: {Patient: {gender: null, birthDate: 1980-02-28}}") == []
    (told,) = faults(tmp_path, small, 'override: {"PID[Patient]": {rows: [PID-8 -> gendr]}}\nexpect: {}')
    assert "one.yaml:5:45: found unknown element of Patient gendr" in told


def test_options_as_a_channel_chooses_them(tmp_path: Path) -> None:
    options = "options: {sex: {of: [told, untold], default: told, about: Whether}}\n"
    lines = rows("PID-3 -> identifier as CX[Identifier]('patient')", "PID-7 -> birthDate when option(sex) = 'told'")
    folder = write(tmp_path / "maps", segments_PID=lines)
    (folder / "options.yaml").write_text(options)
    library = Library.load(folder)
    assert faults(tmp_path, library, "expect: {Patient: {birthDate: (any)}}") == []
    assert faults(tmp_path, library, "options: {sex: untold}\nexpect: {Patient: {birthDate: null}}") == []


# -- which rule it was


def test_a_traced_fault_names_the_rules(tmp_path: Path, small: Library) -> None:
    one = example(tmp_path, "expect: {Patient: {gender: male, identifier.0.value: M2, telecom: []}}")
    found = examples.check(one, small, traced=True).faults
    assert [fault.rules for fault in found if isinstance(fault, Fault)] == [
        ("segments/PID.yaml:5: PID-8 -> gender table Sex",),
        ("datatypes/CX.yaml:5: CX.1 -> value",),
        (),
    ]


# -- files that are no examples


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("name: x\n", "one.yaml:1:1: an example needs name, message and expect"),
        ("- a\n", "one.yaml:1:1: an example is a mapping with name, message and expect"),
        ("name: x\nmessage: x\nexpect: {}\nexpct: {}\n", "one.yaml:4:1: expct in an example; expect"),
        ("name: x\nmessage: x\nexpect: {}\nunmapped: lose\n", "one.yaml:4:11: unmapped is one of"),
        ("name: [\n", "one.yaml:2:1: "),
    ],
)
def test_what_is_no_example_is_told_with_its_place(tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "one.yaml").write_text(text)
    with pytest.raises(ValueError, match=r"one\.yaml") as error:
        examples.load(tmp_path)
    assert told in str(error.value)


@pytest.mark.parametrize(
    ("wanted", "told"),
    [
        ("{Observatoin: []}", "3:10: unknown resource type Observatoin; expected Observation"),
        ("{HumanName: []}", "3:10: unknown resource type HumanName; expected"),
        ("[Patient]", "3:9: expect is a mapping of resource types"),
        ("{Observation: {cod.text: ~}}", "3:24: unknown element of Observation cod; expected code"),
        ("{Flag: [{}, {_statu.extension: ~}]}", "3:22: unknown element of Flag _statu; expected status"),
        ("{Patient: {name.0.famly: ~}}", "3:20: unknown element of HumanName famly; expected family"),
        ("{Patient: {name.family: ~}}", "3:20: family in name.family; expected a number, as in name.0.family"),
        ("{Patient: {gender.0: ~}}", "3:20: 0 in gender.0; expected the name of an element"),
        ("{Patient: {extension(religion).valueStrin: ~}}", "3:20: unknown element of Extension valueStrin; expected"),
        ("{Patient: {entry.polcy: ~}}", "3:20: unknown part of an entry polcy; expected policy"),
        ("{Patient: {entry.key.0: ~}}", "3:20: unknown part of an entry key.0; expected key"),
    ],
)
def test_what_would_always_be_missing_is_told_with_its_place(tmp_path: Path, wanted: str, told: str) -> None:
    (tmp_path / "one.yaml").write_text(f"name: x\nmessage: x\nexpect: {wanted}\n")
    with pytest.raises(ValueError, match=r"one\.yaml") as error:
        examples.load(tmp_path)
    assert f"one.yaml:{told}" in str(error.value)


@pytest.mark.parametrize(
    "wanted",
    [
        "{Patient: {resourceType: Patient, _birthDate.extension.0.url: x, name.0._given.0.extension.0.valueString: x}}",
        "{Patient: {contained.0.name.0.family: x, contact.0.name.family: x, extension('x').extension(y).valueCode: x}}",
        "{List: {entry.0.item.reference: x, entry.key: x}, Flag: [~, {}], Condition: []}",
    ],
)
def test_paths_that_may_have_a_value(tmp_path: Path, wanted: str) -> None:
    (tmp_path / "one.yaml").write_text(f"name: x\nmessage: x\nexpect: {wanted}\n")
    assert len(examples.load(tmp_path)) == 1


def test_nearly_every_rule_of_the_shipped_mappings_has_an_example(library: Library) -> None:
    coverage = RuleCoverage(library.files())
    for one in EXAMPLES:
        verdict = examples.check(one, library, traced=True)
        coverage.add(verdict.used, verdict.left)
    found = {name: coverage.of(library.files().messages[name]).percent for name in library.names}
    assert {name: share for name, share in found.items() if share < 95} == {}

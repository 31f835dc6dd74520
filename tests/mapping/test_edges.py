"""What rows do beside each other: none changes what another means, and all readings give the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from engine.fhir.output import Output
from engine.mapping import library as libraries
from engine.mapping.library import Library, MappingError
from engine.mapping.run import known_by
from tests.mapping.folders import CONTEXT, FILES, mapping, rows, write

KEYED = FILES["messages/ZZZ.yaml"].replace("    key: identifier\n", "    key: patient '{PID-3.1}'\n")
HEADER = "MSH|^~\\&|LAB|||||x|ZZZ^Z01|1"
IDENTIFIED = "PID-3 -> identifier as CX[Identifier]('patient')"
TYPES = """\
map: EI[Identifier]
needs: [value]
rows:
  - EI.1 -> value
---
map: CE[Coding]
cached: true
needs: [code]
rows:
  - CE.1 -> code
---
map: DR[Period]
cached: true
rows:
  - DR.1 -> start
  - DR.3 -> kept
---
decision: A
inputs: [a]
rows:
  - [X, one]
otherwise: aaa
---
decision: B
inputs: [a]
rows:
  - [X, one]
otherwise: bbb
"""


def folder(path: Path, *lines: str, message: str = KEYED, more: str = "") -> Path:
    """The small folder with these rows of a PID, types for them, and what is put behind its message's one block."""
    made = write(path, segments_PID=rows(*lines), messages_ZZZ=message + more)
    (made / "datatypes" / "own.yaml").write_text(TYPES, encoding="utf-8")
    return made


def readings(folder: Path, *segments: str, monkeypatch: pytest.MonkeyPatch) -> list[Output]:
    """What is made fast, traced, and with care."""
    one, raw = mapping(folder), "\r".join([HEADER, *segments]).encode()
    found = [one.run(raw, CONTEXT), one.trace(raw, CONTEXT)[0]]
    monkeypatch.setattr(libraries, "_is_plain", lambda raw: False)
    return [*found, one.run(raw, CONTEXT)]


def alike(found: list[Output]) -> list[dict[str, Any]]:
    """The resources, which are the same in all readings."""
    made = [[entry.resource for entry in one.entries] for one in found]
    assert made[0] == made[1] == made[2]
    assert found[0].unmapped == found[1].unmapped == found[2].unmapped
    return made[0]


def test_parts_of_an_element_come_from_several_segments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    message = KEYED.replace("[PID, NTE*]", "[PID, PD1?]")
    message = message.replace("from: PID[Patient]", "from: ['PID[Patient]', 'PD1[Patient]']")
    made = folder(tmp_path, "PID-10 -> maritalStatus.text", message=message)
    (made / "segments" / "PD1.yaml").write_text("map: PD1[Patient]\nrows:\n  - PD1-3 -> maritalStatus.id\n")
    (patient,) = alike(readings(made, "PID|||M1|||||||A", "PD1|||B", monkeypatch=monkeypatch))
    assert patient["maritalStatus"] == {"text": "A", "id": "B"}


@pytest.mark.parametrize("needs", ["value", "value or type"])
def test_what_every_message_says_alike_needs_what_its_object_needs(
    tmp_path: Path, needs: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = f"identifier needs {needs}:\n      - PID-3.1 -> value\n      - local('x') -> system"
    (patient,) = alike(readings(folder(tmp_path, line), "PID|||M1", monkeypatch=monkeypatch))
    assert patient["identifier"][0] == {"value": "M1", "system": "urn:interlock:acme:x"}


def test_what_every_message_says_alike_makes_no_object(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    line = "identifier needs value:\n      - local('x') -> system"
    (patient,) = alike(readings(folder(tmp_path, line), "PID|||M1", monkeypatch=monkeypatch))
    assert [one["system"] for one in patient["identifier"]] == ["urn:interlock:acme:patient"]


def test_many_lines_may_stand_in_any_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = folder(tmp_path, IDENTIFIED, more="    rows:\n      - all(NTE-3) -> maritalStatus.text\n")
    (patient,) = alike(readings(made, "PID|||M1", "NTE|1||a", "NTE|2||b", monkeypatch=monkeypatch))
    assert patient["maritalStatus"] == {"text": "a\nb"}


def test_of_two_texts_of_many_lines_the_one_that_is_taken_is_traced(tmp_path: Path) -> None:
    more = (
        "    let:\n      note: \"all(NTE-3 where NTE-2 = 'L') else all(NTE-4)\"\n"
        "    rows:\n      - note -> maritalStatus.text\n"
    )
    one = mapping(folder(tmp_path, IDENTIFIED, more=more))
    output, lineage = one.trace(f"{HEADER}\rPID|||M1\rNTE|1|X|a|b".encode(), CONTEXT)
    assert output.entries[0].resource["maritalStatus"] == {"text": "b"}
    lost = [lineage.path(leaf) for leaf in lineage.lost if lineage.name(leaf) == "NTE"]
    assert "NTE[1]-3[1].1.1" in lost
    assert "NTE[1]-4[1].1.1" not in lost


TWICE = [
    (
        "first:\n      - when PID-8 = 'F':\n          - PID-3 -> identifier as EI[Identifier]\n"
        "          - PID-7 -> birthDate\n      - PID-4 -> identifier as EI[Identifier]",
        "PID|||M1|M1||||M",
    ),
    ("PID-3.1 -> identifier as EI[Identifier]\n  - PID-2 -> identifier as EI[Identifier]", "PID||a&b|a&b^c|"),
    (
        "PID-10 -> maritalStatus.coding as CE[Coding]\n  - PID-16 -> maritalStatus.coding as CE[Coding]",
        "PID|||M1|||||||A^x||||||A^x",
    ),
    ("PID-3 -> identifier as EI[Identifier]\n  - PID-4 -> identifier as EI[Identifier]", "PID|||M1|M1"),
]


@pytest.mark.parametrize(("lines", "pid"), TWICE)
def test_the_same_value_twice_is_the_same_in_every_reading(
    tmp_path: Path, lines: str, pid: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    alike(readings(folder(tmp_path, lines), pid, monkeypatch=monkeypatch))


NOTE = (
    "resources:\n  note:\n    for: NTE\n    make: Flag\n    role: fact\n    rows:\n      - status = active\n"
    "      - code = unknown\n      - subject.display = unknown\n    key: note '{NTE-1}'\n"
)
TEXTS = ["https://x/groups1", "g1s0", "e_note lines MSH PID_1 n_x group", 'is \\"e_note\\" i']


@pytest.mark.parametrize("text", TEXTS)
def test_a_literal_may_look_like_code(tmp_path: Path, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    more = f"    rows:\n      - \"'x {{PID-3.1}} {text}' -> maritalStatus.text\"\n      - \"'{text}' -> language\"\n"
    made = folder(tmp_path, IDENTIFIED, message=KEYED.replace("resources:\n", NOTE), more=more)
    patient = alike(readings(made, "PID|||M1", monkeypatch=monkeypatch))[-1]
    assert patient["maritalStatus"]["text"].startswith("x M1 ")


CASES = [
    "switch PID-8:\n      F: PID-10 -> maritalStatus.coding as CE[Coding]\n"
    "      else:\n        - {PID-10 -> nothing: on purpose}",
    "PID-10 -> maritalStatus.coding as CE[Coding] when PID-8 = 'F'\n  - {PID-10 -> nothing: on purpose}",
]


@pytest.mark.parametrize("line", CASES)
def test_what_goes_nowhere_in_some_case_is_left_out(tmp_path: Path, line: str) -> None:
    assert mapping(folder(tmp_path, IDENTIFIED, line)).reasons().why("PID", 10, 1, 1).kind == "left-out"


def test_what_is_put_right_is_not_shared(tmp_path: Path) -> None:
    more = (
        "  account:\n    for: PATIENT\n    make: Account\n    role: fact\n    rows:\n      - status = active\n"
        "      - PID-10 -> servicePeriod as DR[Period]\n      - PID-7 -> servicePeriod.end\n"
        "    key: account '{PID-3.1}'\n"
    )
    one = mapping(folder(tmp_path, IDENTIFIED, more=more))
    for number, born in (("M1", "1999"), ("M2", "1950")):
        output = one.run(f"{HEADER}\rPID|||{number}||||{born}|||2000^^q".encode(), CONTEXT)
        period = output.entries[-1].resource["servicePeriod"]
        assert [part["valueDateTime"] for part in period["extension"] if "valueDateTime" in part] == [born]


def test_decisions_of_the_same_rows_have_their_own_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = ("PID-8 -> maritalStatus.text decide A", "PID-8 -> language decide B")
    (patient,) = alike(readings(folder(tmp_path, *lines), "PID|||M1|||||Z", monkeypatch=monkeypatch))
    assert (patient["maritalStatus"]["text"], patient["language"]) == ("aaa", "bbb")


def test_a_block_is_not_conditioned_by_its_own_names(tmp_path: Path) -> None:
    with pytest.raises(MappingError, match="unknown name test"):
        Library.load(folder(tmp_path, IDENTIFIED, more="    let:\n      test: PID-3.1\n    when: test is valued\n"))


def test_a_system_that_is_none_is_no_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    line = "\"'{coding_system(PID-10.3, PID-10.14)?}x' -> maritalStatus.text\""
    (patient,) = alike(readings(folder(tmp_path, IDENTIFIED, line), "PID|||M1", monkeypatch=monkeypatch))
    assert patient["maritalStatus"] == {"text": "x"}


def test_a_chain_of_numbers_is_of_one_patient(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (patient,) = alike(readings(write(tmp_path), "PID|||M1", "PID|||M1~M2", "PID|||M2", monkeypatch=monkeypatch))
    assert [one["value"] for one in patient["identifier"]] == ["M1", "M2"]


def test_what_is_empty_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    line = "first:\n      - PID-9 -> kept\n      - PID-10 -> maritalStatus.text"
    (patient,) = alike(readings(folder(tmp_path, IDENTIFIED, line), "PID|||M1||||||^^|A", monkeypatch=monkeypatch))
    assert patient["maritalStatus"] == {"text": "A"}


@pytest.mark.parametrize(
    ("old", "new", "name"),
    [
        ("message: ZZZ", "message: ZZZ-1", "ZZZ-1"),
        ("  patient:", "  my-patient:", "my-patient"),
        ("resources:", "let: {a-b: PID-3.1}\nresources:", "a-b"),
    ],
)
def test_a_name_that_is_none_is_told(tmp_path: Path, old: str, new: str, name: str) -> None:
    with pytest.raises(MappingError, match=f"the name {name}; expected letters"):
        Library.load(folder(tmp_path, IDENTIFIED, message=KEYED.replace(old, new, 1)))


OWN, OTHER = {"system": "s", "value": "v"}, {"system": "s", "value": "taken"}


@pytest.mark.parametrize(
    ("identifier", "where", "wanted"),
    [
        (None, dict, OWN),
        (OTHER, dict, OWN),
        ({"system": "t", "value": "w"}, dict, {"system": "t", "value": "w"}),
        (None, list, [OWN]),
        ([OTHER], list, [OWN]),
        ([OTHER, OWN], list, [OWN]),
        (None, None, None),
    ],
)
def test_the_key_is_among_the_identifiers_and_none_of_anothers_is(identifier: Any, where: Any, wanted: Any) -> None:
    resource = {} if identifier is None else {"identifier": identifier}
    known_by(resource, ("s", "v"), where, {("s", "taken")})
    assert resource.get("identifier") == wanted

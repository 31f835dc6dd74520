"""Mistakes in v2 mappings, word for word: where, what was found, what would be right; all of them at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.mapping.problems import MappingError
from engine.mapping.v2.library import V2Library
from tests.mapping.v2.mapping import library

STEPS = [
    ("set: PID-5.1\n    too: x", "3:5: found unknown key too in set; expected to", "2:5: found set without to; expected to:"),  # noqa: E501
    ("sett: PID-5.1\n    to: x", "2:5: found unknown step sett; expected set"),
    ("set: PID-5.1\n    delete: PID-5", "2:5: found a step with 2 verbs; expected one of set, copy, move, delete, add, translate, lookup, each, split"),  # noqa: E501
    ("set: PID5\n    to: x", "2:10: found PID5; expected a path such as PID-3.1, OBX[2]-5 or PID-3[*].4"),
    ("set: PID\n    to: x", "2:10: found PID; expected a path such as PID-3.1, OBX[2]-5 or PID-3[*].4"),
    ("set: MSH-2\n    to: x", "2:10: found MSH-2; expected another field: MSH-1 and MSH-2 are the delimiters, which a message keeps"),  # noqa: E501
    ("set: PID-5\n    to:", "3:8: found nothing; expected a text; delete: clears"),
    ("set: PID-5\n    to: a}", "3:9: found a } alone; expected }} for the sign itself, or {PID-3.1} for a value"),
    ("set: PID-5\n    to: '{PID-3.}'", "3:16: found .; expected a path, a name, 'text' or an operator"),
    ("set: PID-5\n    to: '{recieved}'", "3:11: found unknown name recieved; expected received"),
    ("set: PID-5\n    to: '{uper(PID-3)}'", "3:11: found unknown function uper; expected upper"),
    ("set: PID-5\n    to: '{left(PID-3)}'", "3:11: found left with 1 arguments; expected 2"),
    ("set: PID-5\n    to: '{PID-3[*].1}'", "3:11: found PID-3[*].1, which may be several; expected one value; [*] stands in tests and in what is set"),  # noqa: E501
    ("set: PID-5\n    to: x\n    when: PID-8", "4:16: found nothing more; expected is valued, is empty, is null, =, !=, in or matches"),  # noqa: E501
    ("set: PID-5\n    to: x\n    when: PID-8 = ''", "4:19: found ''; expected is empty, or is valued"),
    ("set: PID-5\n    to: x\n    when: PID-8 matches '(a*)*'", "4:26: found (a*)*; expected no repetition within a repetition: it may take for ever"),  # noqa: E501
    ("copy: PID-3[*]\n    to: PID-4", "2:11: found PID-3[*]; expected one place; each: goes over several"),
    ("delete: PID-3[+]", "2:13: found PID-3[+]; expected a repetition that is there; [+] is one more, to write to"),
    ("copy: PID-3[+]\n    to: PID-4", "2:11: found PID-3[+]; expected a repetition that is there; [+] is one more, to write to"),  # noqa: E501
    ("set: PID-4\n    to: '{PID-3[+].1}'", "3:11: found PID-3[+].1; expected a repetition that is there; [+] is one more, to write to"),  # noqa: E501
    ("delete: MSH", "2:13: found MSH; expected a segment that a message can be without"),
    ("delete: PID-3\n    with: group", "3:11: found with group; expected for a segment, with: group (and what belongs to it, such as its NTE) or with: nothing"),  # noqa: E501
    ("delete: OBX", "2:13: found delete OBX alone; expected with: group (and what belongs to it, such as its NTE) or with: nothing"),  # noqa: E501
    ("translate: OBX-8\n    table: Flagz\n    unmapped: keep", "3:12: found unknown table Flagz; expected Flags"),
    ("translate: OBX-8\n    table: Flags", "2:16: found translate without unmapped; expected unmapped: keep, clear or refuse, or default: and a value"),  # noqa: E501
    ("translate: OBX-8\n    table: Flags\n    unmapped: drop", "4:15: found unknown unmapped drop; expected one of clear, keep, refuse"),  # noqa: E501
    ("translate: OBX-8\n    table: Flags\n    unmapped: keep\n    column: name", "5:13: found unknown column of Flags name; expected one of code, display"),  # noqa: E501
    ("translate: OBX-8\n    from: [OBX-3, OBX-4]\n    table: Flags\n    unmapped: keep", "3:11: found 2 values; expected 1: code"),  # noqa: E501
    ("lookup: PID-4\n    in: s\n    key: PID-3\n    value: v", "2:13: found lookup without missing; expected missing: keep, clear, refuse or later"),  # noqa: E501
    ("each: OBX[2]\n    steps: []", "2:11: found OBX[2]; expected a segment or a field, such as OBX or PID-3"),
    ("each: OBX\n    steps:\n      - split: OBR", "4:7: found split within each; expected split among the steps of the mapping"),  # noqa: E501
    ("split: NTE", "2:12: found NTE; expected a segment that others belong to, such as OBR, PID or OBX"),
    ("add: NTE-3\n    after: OBX", "2:10: found add NTE-3 after OBX; expected the names of segments, such as NTE"),
]  # fmt: skip


def mistakes(folder: Path, text: str) -> list[str]:
    with pytest.raises(MappingError) as caught:
        library(text, folder)
    return [line.removeprefix(f"{folder}/v2/m.yaml:") for line in str(caught.value).split("\n")]


@pytest.mark.parametrize(("step", "said"), [(step, sorted(said)) for step, *said in STEPS])
def test_a_mistake_in_a_step(tmp_path: Path, step: str, said: list[str]) -> None:
    assert mistakes(tmp_path, f"steps:\n  - {step}\n") == said


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("stepz: []\n", "1:1: found unknown key stepz in a v2 mapping; expected steps"),
        ("accepts: [ORUR01]\nsteps: []\n", "1:11: found ORUR01; expected a message type such as ORU^R01 or ORU"),
        ("filter: [{drop: PID-8 = 1}]\n", "1:10: found a filter without reason; expected reason:"),
        (
            "filter: [{reason: x}]\n",
            "1:10: found a filter with 0 of drop: and keep:; expected one of them, with a condition",
        ),
        ("steps: no\n", "1:8: found a scalar; expected a list of steps, each with - in front"),
        ("- set: x\n", "1:1: found a list; expected a v2 mapping: a mapping with "),
        ("steps: []\n---\nsteps: []\n", "3:1: found a second document; expected one mapping a file"),
    ],
)
def test_a_mistake_in_a_mapping(tmp_path: Path, text: str, said: str) -> None:
    assert said in mistakes(tmp_path, text)


def test_all_mistakes_of_all_files_are_told_at_once(tmp_path: Path) -> None:
    (tmp_path / "v2").mkdir()
    (tmp_path / "v2" / "a.yaml").write_text("steps:\n  - set: PID5\n    to: x\n  - dleete: PID-5\n")
    with pytest.raises(MappingError) as caught:
        library("steps:\n  - split: MSH\n", tmp_path)
    assert [(Path(each.file).name, each.line, each.column) for each in caught.value.problems] == [
        ("a.yaml", 2, 10), ("a.yaml", 4, 5), ("m.yaml", 2, 12)
    ]  # fmt: skip


def test_an_unknown_mapping_is_guessed(tmp_path: Path) -> None:
    with pytest.raises(KeyError, match="no v2 mapping n; one of m"):
        library("steps: []\n", tmp_path).mapping("n")


def test_the_sites_mapping_wins_by_name(tmp_path: Path) -> None:
    for folder, text in (("a", "steps: []\n"), ("b", "title: mine\nsteps: []\n")):
        library(text, tmp_path / folder)
    both = V2Library.load(tmp_path / "a", tmp_path / "b")
    assert both.mapping("m").version == V2Library.load(tmp_path / "b").mapping("m").version
    assert both.mapping("m").version != V2Library.load(tmp_path / "a").mapping("m").version

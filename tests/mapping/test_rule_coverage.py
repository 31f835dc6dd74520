"""Which rules examples have used."""

from __future__ import annotations

from pathlib import Path

from engine.mapping import examples
from engine.mapping.library import Library
from engine.mapping.rule_coverage import Covered, RuleCoverage
from tests.mapping.folders import rows, write

ROWS = rows(
    "PID-3 -> identifier as CX[Identifier]('patient')",
    "PID-7 -> birthDate",
    "PID-8 -> gender table Sex",
    "{PID-1 -> nothing: a number}",
    "{PID-9 -> nothing: no longer in use}",
    "active = true",
    "deceasedBoolean = false when PID-30 = 'N'",
    "name needs family:\n      - PID-5.1 -> family\n      - use = official",
)


def covered(folder: Path, *segments: str, own: str = ROWS) -> Covered:
    """By an example for each PID."""
    library = Library.load(write(folder / "maps", segments_PID=own))
    coverage = RuleCoverage(library.files())
    for segment in segments:
        text = f"name: a\nmessage: |\n  MSH|^~\\&|A|B|C|D|1||ZZZ^Z01|1\n  {segment}\nexpect: {{}}\n"
        (folder / "one.yaml").write_text(text)
        (example,) = examples.load(folder)
        verdict = examples.check(example, library, traced=True)
        coverage.add(verdict.used, verdict.left)
    return coverage.of(library.files().messages["ZZZ"])


def unused(found: Covered) -> list[str]:
    return [f"{place}: {text}" for place, text in found.unused]


def test_rows_that_set_nothing_are_told(tmp_path: Path) -> None:
    found = covered(tmp_path, "PID|||M1||||1980")
    assert unused(found) == [
        "segments/PID.yaml:5: PID-8 -> gender table Sex",
        "segments/PID.yaml:6: PID-1 -> nothing",
        "segments/PID.yaml:7: PID-9 -> nothing",
        "segments/PID.yaml:9: deceasedBoolean = false when PID-30 = 'N'",
        "segments/PID.yaml:10: name needs family",
        "segments/PID.yaml:11: PID-5.1 -> family",
        "segments/PID.yaml:12: use = official",
    ]


def test_rows_of_the_maps_that_are_used_count_too(tmp_path: Path) -> None:
    found = covered(tmp_path, "PID|||M1||||1980")
    assert found.rows == 12  # ten of PID, two of CX
    assert round(found.percent, 1) == 41.7


def test_one_example_after_the_other(tmp_path: Path) -> None:
    found = covered(tmp_path, "PID|1||M1||||1980|F|x", "PID|||M1||Doe" + "|" * 25 + "N")
    assert unused(found) == []
    assert found.percent == 100


def test_a_fallback_that_was_not_needed_is_told(tmp_path: Path) -> None:
    own = rows("PID-3 -> identifier as CX[Identifier]('patient')", "PID-7 -> birthDate", "PID-9 -> birthDate")
    assert unused(covered(tmp_path, "PID|||M1||||1980||1990", own=own)) == ["segments/PID.yaml:5: PID-9 -> birthDate"]


def test_only_the_case_that_came_is_used(tmp_path: Path) -> None:
    own = rows(
        "PID-3 -> identifier as CX[Identifier]('patient')",
        "switch PID-8:\n      F: gender = female\n      M: gender = male\n      else: []",
        "first:\n      - PID-7 -> birthDate\n      - PID-9 -> birthDate",
    )
    assert unused(covered(tmp_path, "PID|||M1|||||M|1980", own=own)) == [
        "segments/PID.yaml:5: gender = female",
        "segments/PID.yaml:9: PID-7 -> birthDate",
    ]

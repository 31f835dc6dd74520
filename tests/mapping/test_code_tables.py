"""A site's own codes, as CSV."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest

from engine.fhir.output import Output, UnmappedCode
from engine.mapping.library import Library, MappingError
from engine.mapping.maker import make_again
from engine.mapping.packing import Sources
from tests.mapping.folders import CONTEXT, FILES, rows, run, write

CWE = """map: CWE[CodeableConcept]
cached: true
rows:
  - coding needs code:
      - CWE.1 -> code
      - coding_system(CWE.3, CWE.14) -> system
  - CWE.2 else CWE.1 -> text
"""
TABLE = "csv: Marital\nfile: marital.csv\nsystem: http://example.org/marital\n"
LINES = "code,target_code,target_display,who\nM,married,Married,Ada\nS,single,,\nW,,,\n"
LINE = "PID-16 -> maritalStatus as CWE[CodeableConcept] table Marital"
IDENTIFIED = "PID-3 -> identifier as CX[Identifier]('patient')"


def folder(path: Path, lines: str = LINES, table: str = TABLE) -> Path:
    write(path, segments_PID=rows(IDENTIFIED, LINE))
    (path / "datatypes" / "CWE.yaml").write_text(CWE, encoding="utf-8")
    (path / "tables" / "marital.yaml").write_text(table, encoding="utf-8")
    (path / "tables" / "marital.csv").write_text(lines, encoding="utf-8")
    return path


def status(output: Output) -> object:
    return output.entries[0].resource["maritalStatus"]


def person(code: str) -> str:
    return "PID|||M1" + "|" * 13 + code


def test_a_local_code_gets_its_translation_and_keeps_itself(tmp_path: Path) -> None:
    found = status(run(folder(tmp_path), person("M^wed^L")))
    assert found == {
        "coding": [
            {"system": "http://example.org/marital", "code": "married", "display": "Married"},
            {"system": "urn:interlock:acme:L", "code": "M"},
        ],
        "text": "wed",
    }


@pytest.mark.parametrize("code", ["X", "W"])
@pytest.mark.parametrize("escape", ["", "\\T\\"])
def test_a_code_without_a_translation_stays_and_is_told(tmp_path: Path, code: str, escape: str) -> None:
    output = run(folder(tmp_path), person(f"{code}^odd{escape}^L"))
    assert status(output)["coding"] == [{"system": "urn:interlock:acme:L", "code": code}]  # type: ignore[index]
    assert output.unmapped == (UnmappedCode("Marital", "PID-16", code, "urn:interlock:acme:L"),)


def test_it_is_told_for_each_message_again(tmp_path: Path) -> None:
    one = Library.load(folder(tmp_path)).mapping("ZZZ")
    raw = f"MSH|^~\\&|LAB|||||x|ZZZ^Z01|1\r{person('X')}".encode()
    assert [len(one.run(raw, CONTEXT).unmapped) for _ in range(3)] == [1, 1, 1]


def test_a_line_may_be_for_one_system_alone(tmp_path: Path) -> None:
    lines = "code,system,target_code\nM,L,married\nM,http://loinc.org,other\n"
    path = folder(tmp_path, lines)
    (path / "tables" / "coding.yaml").write_text("table: CodingSystem\ncodes: {LN: http://loinc.org}\n")
    codes = [status(run(path, person(f"M^wed^{of}")))["coding"][0]["code"] for of in ("L", "LN", "XY")]  # type: ignore[index]
    assert codes == ["married", "other", "M"]


def test_the_content_is_part_of_the_version(tmp_path: Path) -> None:
    versions = {
        Library.load(folder(tmp_path / str(n), LINES + more)).mapping("ZZZ").version
        for n, more in enumerate(("", "D,divorced\n", "D,,\n"))
    }
    assert len(versions) == 2  # what is not mapped yet changes nothing


def test_a_cached_library_sees_a_changed_table(tmp_path: Path) -> None:
    path = folder(tmp_path / "m")
    Library.load(path, None, tmp_path / "cache")
    (path / "tables" / "marital.csv").write_text(LINES.replace("married", "wed"), encoding="utf-8")
    output = (
        Library.load(path, None, tmp_path / "cache")
        .mapping("ZZZ")
        .run(f"MSH|^~\\&|LAB|||||x|ZZZ^Z01|1\r{person('M')}".encode(), CONTEXT)
    )
    assert status(output)["coding"][0]["code"] == "wed"  # type: ignore[index]


def test_a_kept_mapping_has_its_tables(tmp_path: Path) -> None:
    path = folder(tmp_path)
    _, shelf = make_again(orjson.loads(Sources(path, None).fhir), ["ZZZ"])
    assert shelf.messages[0].version == Library.load(path).mapping("ZZZ").version


CSV, YAML = "tables/marital.csv", "tables/marital.yaml"
UNSAID = TABLE.replace("system: http://example.org/marital\n", "")
MISTAKES = [
    (LINES.replace("target_code", "target"), TABLE, f"{CSV}:1:1: found no column target_code"),
    (
        LINES + "M,again\n",
        TABLE,
        f"{CSV}:5:1: found a code a second time; expected each code once; it stands in line 2",
    ),
    (
        LINES.replace("single,,", "single,unmarried, or widowed,Ada"),
        TABLE,
        f"{CSV}:3:1: found 5 cells; expected 4, with quotes where ',' is in one",
    ),
    (LINES + ",again\n", TABLE, f"{CSV}:5:1: found a target_code without a code; expected the code that it is for"),
    (
        LINES.replace("single", "not  married"),
        TABLE,
        f"{CSV}:3:1: found the target_code 'not  married'; expected a code: no blanks but single ones in it",
    ),
    (LINES.replace("single", "sin\x07gle"), TABLE, f"{CSV}:3:1: found the target_code 'sin\\x07gle'"),
    (LINES.replace("single", "a\tb"), TABLE, f"{CSV}:3:1: found the target_code 'a\\tb'"),
    (LINES.replace("single", "a\xa0b"), TABLE, f"{CSV}:3:1: found the target_code 'a\\xa0b'"),
    (
        LINES,
        TABLE + "delimiter: ';;'\n",
        f"""{YAML}:4:12: found delimiter ';;'; expected one character, such as ";", or "\\t" for a tab""",
    ),
    (LINES, TABLE + "delimiter: ''\n", f"{YAML}:4:12: found delimiter ''"),
    (LINES, TABLE + "delimiter: '\"'\n", f"{YAML}:4:12: found delimiter '\"'"),
    (
        LINES,
        TABLE + "encoding: latin-x\n",
        f"{YAML}:4:11: found unknown encoding latin-x; expected utf-8, cp1252 or another of Python's",
    ),
    (LINES, TABLE + "encoding: base64\n", f"{YAML}:4:11: found unknown encoding base64"),
    (LINES, UNSAID, f"{CSV}:2:1: found a code without a target_system"),
    (LINES, TABLE.replace("marital.csv", "gone.csv"), f"{YAML}:2:7: found gone.csv, which cannot be read"),
]


@pytest.mark.parametrize(("lines", "table", "told"), MISTAKES)
def test_a_mistake_is_told_with_its_place(tmp_path: Path, lines: str, table: str, told: str) -> None:
    with pytest.raises(MappingError) as caught:
        Library.load(folder(tmp_path, lines, table))
    assert told in str(caught.value)
    assert len(caught.value.problems) == (2 if table == UNSAID else 1)


def test_bytes_of_another_encoding_are_a_mistake(tmp_path: Path) -> None:
    path = folder(tmp_path)
    (path / "tables" / "marital.csv").write_bytes(LINES.replace("Married", "Mari\u00e9").encode("cp1252"))
    with pytest.raises(MappingError, match="bytes that are not utf-8") as caught:
        Library.load(path)
    assert len(caught.value.problems) == 1  # and no column is said to be missing
    (path / "tables" / "marital.yaml").write_text(TABLE + "encoding: cp1252\n", encoding="utf-8")
    assert status(run(path, person("M")))["coding"][0]["display"] == "Mari\u00e9"  # type: ignore[index]


def test_empty_cells_at_the_end_of_a_line_are_no_mistake(tmp_path: Path) -> None:
    path = folder(tmp_path, LINES.replace("single,,", "single,,,, "))
    assert status(run(path, person("S")))["coding"][0]["code"] == "single"  # type: ignore[index]


def test_a_code_may_have_a_blank_in_it(tmp_path: Path) -> None:
    path = folder(tmp_path, LINES.replace("single", " not married "))
    assert status(run(path, person("S")))["coding"][0]["code"] == "not married"  # type: ignore[index]


def test_a_code_of_a_required_table_that_is_unknown_is_told(tmp_path: Path) -> None:
    output = run(write(tmp_path), "PID|||M1|||||X")
    assert output.unmapped == (UnmappedCode("Sex", "PID-8", "X", ""),)
    assert "Sex" in FILES["tables/sex.yaml"]

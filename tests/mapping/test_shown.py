"""What `interlock mapping show` prints is the mapping in effect, and can be read as one."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from engine.mapping.files import Files
from engine.mapping.library import Library
from engine.mapping.overrides import overridden
from engine.mapping.problems import Problems
from engine.mapping.shown import Shown, quoted
from engine.mapping.source import documents
from tests.mapping.folders import rows, shipped, write

LIBRARY = shipped()


def shown(folder: Path, override: str = "", **options: str) -> list[str]:
    base = Library.load(folder).files()
    problems = Problems()
    (said,) = documents(override or "{}", "/site/channels/acme.yaml", problems)
    found = overridden(base, said, "ZZZ", options, problems)
    problems.check()
    return list(Shown(found.files, base, found.moves).whole(["ZZZ"]))


def line(lines: list[str], begins: str) -> str:
    (found,) = (one.strip() for one in lines if one.strip().startswith(begins))
    return re.sub(r"\s{2,}", "  ", found)


def test_each_row_tells_where_it_stands(tmp_path: Path) -> None:
    lines = shown(write(tmp_path))
    assert line(lines, "- PID-7") == "- PID-7 -> birthDate  # segments/PID.yaml:4"
    assert line(lines, "- CX.1") == "- CX.1 -> value  # datatypes/CX.yaml:5"
    assert line(lines, "message:") == "message: ZZZ  # messages/ZZZ.yaml:1"


def test_what_a_message_does_not_use_is_not_shown(tmp_path: Path) -> None:
    folder = write(tmp_path)
    (folder / "tables" / "more.yaml").write_text("table: More\ncodes: {A: b}\n")
    assert not any("More" in one for one in shown(folder))


def test_a_row_of_the_channel_tells_what_it_stands_instead_of(tmp_path: Path) -> None:
    override = """
PID[Patient]:
  rows:
    - PID-7 -> birthDate when PID-9 is valued
    - PID-8 -> nothing: not wanted
    - PID-17 -> extension(religion).valueString
"""
    lines = shown(write(tmp_path), override)
    assert line(lines, "- PID-7") == (
        "- PID-7 -> birthDate when PID-9 is valued  # channels/acme.yaml:4, instead of segments/PID.yaml:4"
    )
    assert line(lines, "- PID-8") == (
        "- PID-8 -> nothing: not wanted  # channels/acme.yaml:5, instead of segments/PID.yaml:5"
    )
    assert line(lines, "- PID-17").endswith("# channels/acme.yaml:6, a new one")
    assert line(lines, "- PID-3").endswith("# segments/PID.yaml:3")


def test_codes_keys_and_fields_of_the_channel(tmp_path: Path) -> None:
    override = """
tables: {Sex: {codes: {F: male, X: other}}}
resources:
  patient:
    key: patient '{PID-3}'
fields: {PID-3: PID-2}
"""
    lines = shown(write(tmp_path), override)
    assert line(lines, "F:") == "F: male  # channels/acme.yaml:2, instead of tables/sex.yaml:2"
    assert line(lines, "X:") == "X: other  # channels/acme.yaml:2, a new one"
    assert line(lines, "M:") == "M: male"
    assert line(lines, "key:") == "key: patient '{PID-3}'  # instead of identifier"
    assert line(lines, "message:") == "message: ZZZ  # messages/ZZZ.yaml:1, with channels/acme.yaml:3"
    assert line(lines, "# fields") == "# fields that stand elsewhere: PID-3: PID-2"


def test_options_with_what_is_chosen(tmp_path: Path) -> None:
    own = rows("PID-3 -> identifier as CX[Identifier]('patient')", "PID-7 -> birthDate when option(age) = 'told'")
    folder = write(tmp_path, segments_PID=own)
    (folder / "options.yaml").write_text("options: {age: {of: [told, untold], default: told, about: Whether}}\n")
    assert not any("channel has it" in one for one in shown(folder))
    lines = shown(folder, age="untold")
    assert line(lines, "# untold") == "# untold, as the channel has it"
    assert line(lines, "default:") == "default: told"


def test_a_part_alone(tmp_path: Path) -> None:
    files = Library.load(write(tmp_path)).files()
    lines = list(Shown(files, files).part("Sex"))
    assert [re.sub(r" .*#.*", "", one) for one in lines] == ["table:", "codes:", "  F: female", "  M: male"]


@pytest.mark.parametrize("name", LIBRARY.names)
def test_it_is_the_mapping_itself(name: str, tmp_path: Path) -> None:
    """What is printed of a shipped mapping, read as files of a folder, compiles to the same code."""
    files = LIBRARY.files()
    for number, document in enumerate("\n".join(Shown(files, files).whole([name])).split("\n---\n")):
        folder = tmp_path / _folder(document, files)
        folder.mkdir(exist_ok=True)
        (folder / f"{number}.yaml").write_text(document, encoding="utf-8")
    assert _code(Library.load(tmp_path), name) == _code(LIBRARY, name)


def _folder(document: str, files: Files) -> str:
    """Where a document would stand: which of the two it is tells what a map reads."""
    found = re.match(r"map: (\S+)", document)
    return "tables" if found is None else "segments" if files.maps[found[1]].of_segment else "datatypes"


def _code(library: Library, name: str) -> list[str]:
    """Without comments, which have the numbers of lines."""
    return sorted(re.sub(r"#.*", "", one) for one in library.mapping(name).source.splitlines())


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("CX.1 -> value", "CX.1 -> value"),
        ("'a {PID-3}' -> value", "\"'a {PID-3}' -> value\""),
        ("a: b", '"a: b"'),
        ("", '""'),
        ("Y", '"Y"'),
        ('say "so" # now', '"say \\"so\\" # now"'),
    ],
)
def test_a_text_is_quoted_where_yaml_would_have_it_otherwise(text: str, written: str) -> None:
    assert quoted(text) == written

"""What mappings/README.md says is so: its rows make what stands beside them, its files load, its commands exist.

Tables with the heads `row | of | makes`, `value | of | gives` and `condition | holds for | not for` are tried with the
shipped mappings; so are the blocks of YAML: rows under comments `# of:` and `# makes:`, documents of a mapping folder,
pieces of channel files, and examples. An example is mapped as the channel's file says that stands before it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import typer
import yaml
from typer.testing import CliRunner

from engine.cli.main import app
from engine.config import loading
from engine.mapping import examples
from engine.mapping.library import Context, Library, MappingError
from engine.mapping.model import Key
from engine.mapping.problems import Problems
from engine.mapping.rows import RowReader
from engine.mapping.shown import value_text
from engine.mapping.source import documents
from tests.mapping import folders
from tests.mapping.folders import SHIPPED, shipped

README = SHIPPED / "README.md"
TEXT = README.read_text(encoding="utf-8")
KINDS = {"map", "table", "csv", "decision", "message", "systems", "extensions", "options", "guide"}
MADE = {
    "PID": ("Patient", ()),
    "OBX": ("Observation", ("status = unknown", "code = unknown")),
    "ORC": ("ServiceRequest", ("status = unknown", "intent = order", "subject.display = unknown")),
    "OBR": ("ServiceRequest", ("status = unknown", "intent = order", "subject.display = unknown")),
    "PV1": ("Encounter", ("status = unknown", 'class = null-flavor#UNK "unknown"')),
    "NTE": ("Communication", ("status = completed",)),
}
"""What rows on a segment are tried with: a resource, and what it must have besides."""

SETTINGS = "medplum: {base_url: 'http://127.0.0.1:8104', client_id: x, client_secret: x}\n"
CHANNEL = """
id: acme
connection: acme
direction: results
timezone: America/Chicago
listen: {port: 6101}
"""
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.M | re.S)
_CODE = re.compile(r"`([^`]*)`")
_OF = re.compile(r"^# of: +(.*)$", re.M)
_MAKES = re.compile(r"^# makes: +(.*)$", re.M)
_COMMAND = re.compile(r"(?:^ {4}|`)(interlock [^`#\n]*)", re.M)
_VALUE = re.compile(r"([A-Z][A-Z0-9]{2})-(\d+) = (.*)")


@dataclass(frozen=True)
class Block:
    """A fenced piece of the text."""

    kind: str
    text: str
    line: int


@dataclass(frozen=True)
class Case:
    """Rows, as YAML; the fields that they are tried on; what they make, None where only that is to be right."""

    rows: str
    of: str
    makes: Any
    line: int


def blocks(kind: str) -> list[Block]:
    found = ((match, TEXT.count("\n", 0, match.start()) + 1) for match in _FENCE.finditer(TEXT))
    return [Block(match[1], match[2], line) for match, line in found if match[1] == kind]


def tables(head: str) -> Iterator[tuple[int, list[str]]]:
    """Lines of the tables with a head: their number, and their cells."""
    inside = False
    for number, line in enumerate(TEXT.splitlines(), 1):
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")] if line.startswith("|") else []
        if " | ".join(cells[:3]) == head:
            inside = True
        elif not cells:
            inside = False
        elif inside and not set(line) <= set("|- :"):
            yield number, cells


def code(cell: str) -> list[str]:
    return _CODE.findall(cell)


def said(cell: str) -> Any:
    """The elements that a cell tells of."""
    return yaml.safe_load("{" + ", ".join(code(cell)) + "}")


def quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def cases() -> list[Case]:
    found = []
    for line, (row, of, makes, *_) in tables("row | of | makes"):
        found.append(Case(f"- {quoted(code(row)[0])}", "; ".join(code(of)), said(makes), line))
    for line, (value, of, gives, *_) in tables("value | of | gives"):
        row = quoted(f"{code(value)[0]} -> extension('urn:x').valueString")
        wanted = (
            {"extension": [{"url": "urn:x", "valueString": code(gives)[0]}]} if code(gives) else {"extension": None}
        )
        found.append(Case(f"- {row}", "; ".join(code(of)), wanted, line))
    for line, (condition, holds, other, *_) in tables("condition | holds for | not for"):
        row = f"- {quoted(f'''extension('urn:x').valueString = yes when {code(condition)[0]}''')}"
        yes = {"extension": [{"url": "urn:x", "valueString": "yes"}]}
        found.append(Case(row, "; ".join(code(holds)), yes, line))
        found.append(Case(row, "; ".join(code(other)), {"extension": None}, line))
    for block in blocks("yaml"):
        tried_on, made = _OF.search(block.text), _MAKES.search(block.text)
        if tried_on and made:
            found.append(Case(block.text, tried_on[1], yaml.safe_load("{" + made[1] + "}"), block.line))
    return found


CASES = cases()
DOCUMENTS = [
    one
    for one in blocks("yaml")
    if KINDS & set(re.findall(r"^(\w+):", one.text, re.M)) and "\nmessage: |" not in one.text
]


def fields(of: str) -> dict[str, dict[int, str]]:
    found: dict[str, dict[int, str]] = {}
    for part in of.split("; "):
        match = _VALUE.fullmatch(part)
        assert match, f"{part}: as PID-8 = F"
        found.setdefault(match[1], {})[int(match[2])] = match[3]
    return found


def tried(number: int, case: Case) -> str:
    """A message of its own for some rows, with their map."""
    owner = next(iter(fields(case.of)))
    resource, required = MADE[owner]
    indented = "\n".join(f"  {line}" for line in case.rows.splitlines())
    slots = ", ".join(f"'{name}?'" for name in MADE)
    needed = "".join(f"\n      - {quoted(row)}" for row in required) or " []"
    return (
        f"map: {owner}[{resource}-Readme-{number}]\nbeside: [{', '.join(MADE.keys() - {owner})}]\nrows:\n{indented}\n"
        f"---\nmessage: README{number}\naccepts: [ZZZ^Z{number}]\n"
        f"groups: [MSH, {slots}]\n"
        f"resources:\n  made:\n    for: README{number}\n    make: {resource}\n    role: fact\n"
        f"    from: {owner}[{resource}-Readme-{number}]\n    rows:{needed}\n    key: made '{{MSH-10}}'\n"
    )


@cache
def library() -> Library:
    """The shipped mappings with all that the text says on top."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "segments").mkdir()
        (folder / "tables").mkdir()
        for number, case in enumerate(CASES):
            (folder / "segments" / f"readme{number}.yaml").write_text(tried(number, case), encoding="utf-8")
        files = blocks("csv")
        for number, block in enumerate(DOCUMENTS):
            path = re.match(r"# (\S+\.yaml)", block.text)
            file = folder / (path[1] if path else f"segments/document{number}.yaml")
            file.parent.mkdir(exist_ok=True)
            file.write_text(block.text, encoding="utf-8")
            for table in (one for one in yaml.safe_load_all(block.text) if "csv" in one):
                (file.parent / table["file"]).write_text(files.pop(0).text, encoding="utf-8")
        loaded = Library.load(SHIPPED, folder)
        loaded.files()
        return loaded


def message(case: Case, number: int) -> bytes:
    lines = [f"MSH|^~\\&|LAB|ACME|||20260507080910||ZZZ^Z{number}|1|P|2.5.1"]
    for segment, values in fields(case.of).items():
        lines.append(f"{segment}|" + "|".join(values.get(field, "") for field in range(1, max(values) + 1)))
    return "\r".join(lines).encode()


def holds(wanted: Any, found: Any) -> bool:
    """Whether all that is wanted is there; in a list, each in its place."""
    if isinstance(wanted, dict) and isinstance(found, dict):
        return all(holds(value, found.get(name)) for name, value in wanted.items())
    if isinstance(wanted, list) and isinstance(found, list):
        return len(wanted) == len(found) and all(map(holds, wanted, found))
    return bool(str(wanted).replace("\\n", "\n") == found if isinstance(found, str) else wanted == found)


CONTEXT = Context("acme-results", "acme", {"patient": "https://acme.example/mrn"}, "America/Chicago", "auto", 0)


@pytest.mark.parametrize("number", range(len(CASES)), ids=[f"line-{case.line}" for case in CASES])
def test_rows_make_what_stands_beside_them(number: int) -> None:
    case = CASES[number]
    output = library().mapping(f"README{number}").run(message(case, number), CONTEXT)
    made = output.entries[-1].resource if output.entries else {}
    own = [one for one in made.get("identifier", ()) if one["system"] != "urn:interlock:acme:made"]
    assert holds(case.makes, made | {"identifier": own}), made


def test_every_form_of_row_is_there() -> None:
    forms = set()
    for case in CASES:
        problems = Problems()
        for source in documents(case.rows, str(README), problems):
            forms |= {type(row).__name__ for row in RowReader(problems).rows(source)}
        assert problems.found == []
    assert forms == {"Assign", "Constant", "Build", "Nothing", "Kept", "Switch", "First", "Include", "When"}


def test_every_block_of_yaml_is_tried() -> None:
    left = [one for one in blocks("yaml") if one not in DOCUMENTS and not _OF.search(one.text)]
    for block in left:
        keys = set(next(yaml.load_all(block.text, yaml.CSafeLoader)))
        assert "target" in keys or {"name", "message"} <= keys, f"line {block.line}: {keys}"
    assert len(blocks("csv")) == sum(
        block.text.count("\ncsv: ") + block.text.startswith("csv: ") for block in DOCUMENTS
    )


def told() -> list[tuple[int, str, dict[str, Any]]]:
    """Examples, each with what the channel before it has otherwise."""
    before: dict[str, Any] = {}
    found = []
    for block in blocks("yaml"):
        raw = next(yaml.load_all(block.text, yaml.CSafeLoader))
        if isinstance(raw, dict) and isinstance(raw.get("target"), dict):
            before = raw["target"]["mapping"]
        elif isinstance(raw, dict) and {"name", "message"} <= raw.keys():
            changes = {key: value for key, value in before.items() if key in ("override", "options", "unmapped")}
            found.append((block.line, block.text, changes))
    return found


@pytest.mark.parametrize(("line", "text", "changes"), told(), ids=[f"line-{line}" for line, _, _ in told()])
def test_an_example_holds(line: int, text: str, changes: dict[str, Any], tmp_path: Path) -> None:
    file = tmp_path / "example.yaml"
    more = yaml.safe_dump(changes) if changes else ""
    file.write_text("---\n".join(each + more for each in text.split("---\n")), encoding="utf-8")
    verdicts = [examples.check(one, library()) for one in examples.read(file)]
    assert [str(fault) for verdict in verdicts for fault in verdict.faults] == []


def channels() -> list[Block]:
    return [one for one in blocks("yaml") if re.search(r"^target:", one.text, re.M) and "map: " not in one.text]


@pytest.mark.parametrize("block", channels(), ids=[f"line-{one.line}" for one in channels()])
def test_an_override_is_one(block: Block, tmp_path: Path) -> None:
    (tmp_path / "channels").mkdir()
    (tmp_path / "interlock.yaml").write_text(SETTINGS, encoding="utf-8")
    (tmp_path / "channels" / "acme.yaml").write_text(CHANNEL + block.text, encoding="utf-8")
    [channel] = loading.load(tmp_path / "interlock.yaml", {}).channels
    assert channel.target is not None
    assert channel.target.changes.override or channel.target.changes.options
    library().changed(channel.target.mapping, channel.target.changes)


def test_map_has_the_channels_override(tmp_path: Path) -> None:
    (tmp_path / "channels").mkdir()
    (tmp_path / "interlock.yaml").write_text(SETTINGS, encoding="utf-8")
    override = "{'PID[Patient-Person]': {rows: [PID-8 -> nothing]}}"
    target = f"target: {{mapping: {{override: {override}}}, destinations: [medplum: {{}}]}}\n"
    (tmp_path / "channels" / "acme.yaml").write_text(CHANNEL + target, encoding="utf-8")
    settings = ["--config", str(tmp_path / "interlock.yaml")]
    made = CliRunner().invoke(app, ["map", "--channel", "acme", *settings, str(SHIPPED.parent / "samples/result.hl7")])
    assert made.exit_code == 0
    assert '"gender"' not in made.stdout


MISTAKES = [tuple(code(cell)[0] for cell in cells) for _, cells in tables("a row says | found | expected")]


@pytest.mark.parametrize(("row", "found", "expected"), MISTAKES)
def test_a_mistake_is_told_so(row: str, found: str, expected: str, tmp_path: Path) -> None:
    with pytest.raises(MappingError) as caught:
        Library.load(folders.write(tmp_path, segments_PID=folders.rows(row)))
    [problem] = [one for one in caught.value.problems if one.file.endswith("PID.yaml")]
    assert problem.found == found
    assert problem.wanted.startswith(expected.partition("…")[0].strip()) or expected.startswith("one of as")


def commands() -> list[str]:
    return list(dict.fromkeys(found.strip() for found in _COMMAND.findall(TEXT)))


@pytest.mark.parametrize("command", commands())
def test_a_command_is_one(command: str) -> None:
    words = re.sub(r"\[|\]|…", " ", command).split()[1:]
    found: Any = typer.main.get_command(app)
    while words and words[0] in getattr(found, "commands", {}):
        found = found.commands[words.pop(0)]
    verbs = getattr(found, "commands", {})
    assert not verbs or "list" in verbs, f"{command}: a verb of {sorted(verbs)}"
    known = {option for parameter in found.params for option in parameter.opts}
    assert {word for word in words if word.startswith("--")} <= known


def test_the_trace_is_one() -> None:
    """But for the numbers of lines."""
    [excerpt] = [block for block in blocks("text") if " <- " in block.text]
    sample = (SHIPPED.parent / "samples" / "result.hl7").read_bytes()
    mapping = shipped().mapping("ORU_R01")
    _, lineage = mapping.trace(sample, CONTEXT)
    reasons = mapping.reasons()
    lines = {f"{one.element} <- {', '.join(one.places)}  ({one.rule})" for one in lineage.origins}
    for leaf in lineage.lost:
        reason = reasons.why(lineage.name(leaf), *leaf[1:2], *leaf[3:])
        lines.add(f"{lineage.path(leaf)} -> nothing: {reason.kind}: {reason.text}")
    known = {re.sub(r"\.yaml:\d+", ".yaml", line) for line in lines}
    assert {re.sub(r"\.yaml:\d+", ".yaml", line) for line in excerpt.text.splitlines()} <= known


# -- the parts that follow from the files. `python -m tests.mapping.test_readme` writes them anew.

FAMILIES = {
    "results": {"ORU_R01", "OUL_R21", "OUL_R22"},
    "orders": {"ORM_O01", "OML_O21", "OMG_O19", "OML_O33"},
    "ADT": {"ADT_A01", "ADT_A39"},
}
OURS = "https://interlock.example/StructureDefinition/"
_NUMBER = re.compile(r"number\(([^()]*)\)")
_LAST = "{message}"


def options_part() -> str:
    lines = ["| option | of | default | |", "|---|---|---|---|"]
    for name, one in sorted(shipped().files().options.items()):
        of = " ".join(f"`{word}`" for word in one.of)
        lines.append(f"| `{name}` | {of} | `{one.chosen}` | {' '.join(one.about.split())} |")
    return "\n".join(lines)


def extensions_part() -> str:
    urls = set(shipped().files().extensions.values())
    names = sorted((url.removeprefix(OURS) for url in urls if "//interlock.example/" in url), key=str.lower)
    return ", ".join(f"`{name}`" for name in names) + "."


def keys_part() -> str:
    """A line for each way in which a type of resource is found again."""
    rows: dict[tuple[str, tuple[str, ...]], tuple[set[str], set[str]]] = {}
    for message in shipped().files().messages.values():
        for block in message.blocks:
            ways = tuple(way for way in map(_way, block.keys) if _LAST not in way)
            if block.role != "provenance" and ways:
                made, names = rows.setdefault((block.make[0], ways), (set(), set()))
                made.add(block.id)
                names.add(message.name)
    lines = ["| resource | made by | in | known by |", "|---|---|---|---|"]
    for (kind, ways), (made, names) in sorted(rows.items()):
        shown = "; ".join(f"`{way}`" for way in ways)
        lines.append(f"| {kind} | {', '.join(f'`{one}`' for one in sorted(made))} | {_families(names)} | {shown} |")
    return "\n".join(lines)


def _way(key: Key) -> str:
    if key.value is None:
        return f"identifier {key.type}".strip()
    return f"{key.system} {_NUMBER.sub(_short, value_text(key.value))}"


def _short(found: re.Match[str]) -> str:
    """A field in place of its parts: `number(PID-3.1, PID-3.4.1, PID-3.4.2)`."""
    parts = [part.split(".") for part in re.split(r", | else ", found[1])]
    common = [every[0] for every in zip(*parts, strict=False) if len(set(every)) == 1]
    return ".".join(common) if common else found[0]


def _families(names: set[str]) -> str:
    shown = []
    for family, of in FAMILIES.items():
        if of <= names:
            shown.append(family)
            names = names - of
    return ", ".join([*shown, *sorted(names)])


PARTS = {"options": options_part, "keys": keys_part, "extensions": extensions_part}


def with_parts(text: str) -> str:
    for name, part in PARTS.items():
        start, end = f"<!-- {name} -->\n", f"\n<!-- /{name} -->"
        before, after = text.split(start)[0], text.split(end)[1]
        text = before + start + part() + end + after
    return text


def test_the_parts_that_follow_from_the_files_are_new() -> None:
    assert with_parts(TEXT) == TEXT, "python -m tests.mapping.test_readme"


if __name__ == "__main__":
    README.write_text(with_parts(TEXT), encoding="utf-8")

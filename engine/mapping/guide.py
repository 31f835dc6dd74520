"""How much of HL7's v2-to-FHIR guide the mappings realise, row by row of its tables.

A row of the guide says which element a field (or a component of a data type) goes to. It is realised where a rule of
ours reads the same and sets the same element of the same type; how the rule comes by it, through which maps and
resources, makes no difference. What is not realised wants a reason, in the mapping files:

guide:
  PID[Appointment]: no appointments in a laboratory         # a whole map
  PID[Patient]:
    PID-8 -> gender.extension: another code is kept beside  # rows: their field, and how their element begins
    PID-35: animals are not people                          # all rows of a field
  AdministrativeSex: {X: no such code in FHIR}              # codes of a concept map

or a rule `PID-35 -> nothing: reason`.
"""

from __future__ import annotations

import csv
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path as File
from typing import Final, Literal

from engine.mapping.elements import Elements, Left, Setting, Step
from engine.mapping.files import Files
from engine.mapping.model import Table
from engine.mapping.problems import Place
from engine.mapping.schema import Element, Schema, r4

Outcome = Literal["realised", "departs", "left out", "missing"]
OUTCOMES: Final[tuple[Outcome, ...]] = ("realised", "departs", "left out", "missing")
_ROWS = ["map", "source", "target", "row", "v2_path", "v2_type", "fhir_path", "type_map", "vocab_map", "assignment"]
NEEDED: Final = {
    "segments.csv": _ROWS,
    "datatypes.csv": _ROWS,
    "codesystems.csv": ["map", "row", "v2_code", "fhir_code"],
}
"""The tables of the guide, as CSV, and the columns of them that are read."""

_INDEX = re.compile(r"\[[^\]}.)]*[\]}]?|=.*$")
_SLICE = re.compile(r":[A-Za-z-]+(?=\.|$)")
"""An extension within an extension, by its name."""
_WORDS = re.compile(r"[A-Za-z$][A-Za-z0-9-]*|[().]")
_LITERAL = re.compile(r'"([^"/:+ ]+)"')
_WHOLE_VALUE = frozenset({"$value", "$this"})


@dataclass(frozen=True, slots=True)
class Row:
    """A row of the guide that has a target. steps: of its element; empty for the thing itself. beyond: what R4 has
    not, where the element is none of R4's. literal: the code that the guide assigns, if it does. filled: what a row
    without steps fills. to: the types of the resource that the element refers to, where it ends there."""

    map: str
    number: int
    source: str
    target: str
    path: str
    element: str
    steps: tuple[Step, ...]
    beyond: str
    vocabulary: str
    literal: str
    filled: str
    to: frozenset[str]

    @property
    def id(self) -> str:
        return f"{self.map}:{self.number}"

    def __str__(self) -> str:
        return f"{self.id} {self.path} -> {self.element}"


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of a row. by: the rule, or the reason."""

    row: Row
    outcome: Outcome
    by: str


@dataclass(frozen=True, slots=True)
class Code:
    """A row of a concept map with a code of FHIR's."""

    map: str
    number: int
    v2: str
    fhir: str
    outcome: Outcome
    by: str


@dataclass(slots=True)
class Guide:
    """The guide beside the mappings. unmade: maps of the guide that are left out as a whole, and why. stale: reasons
    for what is not in the guide."""

    answers: list[Answer] = field(default_factory=list)
    codes: list[Code] = field(default_factory=list)
    unmade: dict[str, str] = field(default_factory=dict)
    stale: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Reason:
    """Why rows of the guide are not realised. map: of the guide. path: a field, or a code; "" for all. element: how the
    row's begins."""

    map: str
    path: str
    element: str
    reason: str
    place: Place

    def __str__(self) -> str:
        return f"{self.map} {self.path}".rstrip() + (f" -> {self.element}" if self.element else "")

    def fits(self, row: Row | None, name: str) -> bool:
        """Whether it is for a row; without one, for a map as a whole."""
        if row is None:
            return self.map == name and not self.path
        begins = _plain(row.element).startswith(_plain(self.element))
        return self.map == row.map and bool(self.path) and self.path in (row.path, row.source) and begins


def _reasons(files: Files) -> Iterator[Reason]:
    for name, said in files.guide.items():
        for what, reason in said:
            path, _, element = (part.strip() for part in what.text.partition("->"))
            yield Reason(name, path, element, reason.text, what.place)


def percent(outcomes: Sequence[Outcome]) -> float:
    """Of rows that are realised, or depart for a reason."""
    good = sum(one in ("realised", "departs") for one in outcomes)
    return 100 * good / len(outcomes) if outcomes else 100.0


def compare(folder: File, files: Files) -> Guide:
    """The guide's tables beside some mappings. Raises ValueError where the folder has not the tables."""
    return _Comparison(_Tables(folder), files).made()


class _Tables:
    """The rows of the CSV files."""

    def __init__(self, folder: File) -> None:
        self.segments = _read(folder, "segments.csv")
        self.datatypes = _read(folder, "datatypes.csv")
        self.codes = _read(folder, "codesystems.csv")
        self.types = {
            _path(row): row["v2_type"] for row in (*self.segments, *self.datatypes) if row["v2_type"] and _path(row)
        }


def _read(folder: File, name: str) -> list[dict[str, str]]:
    try:
        with (folder / name).open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file)
            missing = set(NEEDED[name]) - set(reader.fieldnames or ())
            if missing:
                raise ValueError(f"{folder / name}: no column {', '.join(sorted(missing))}")
            return [{key: (value or "").strip() for key, value in row.items() if key} for row in reader]
    except OSError as error:
        raise ValueError(f"{folder / name} cannot be read: {error.strerror}") from None


def _path(row: dict[str, str]) -> str:
    """`PID-3`, `CX.4`, or the segment or data type as a whole. The guide copies some paths from another data type."""
    found = re.fullmatch(r"[A-Z0-9]{2,3}([-.])(\d+)", row["v2_path"])
    if not found:
        return row["source"]
    dash = "-" if len(row["source"]) == 3 and found[1] == "-" and row["v2_path"].startswith(row["source"]) else "."
    return f"{row['source']}{dash}{found[2]}"


class _Comparison:
    def __init__(self, tables: _Tables, files: Files) -> None:
        self._tables, self._files = tables, files
        self._schema = r4()
        self._elements = Elements(files, self._schema, tables.types)
        self._settings: dict[str, list[Setting]] = defaultdict(list)
        for one in self._elements.settings:
            for read in one.reads:
                self._settings[read].append(one)
        self._left: dict[str, list[Left]] = defaultdict(list)
        for left in self._elements.left:
            for read in left.reads:
                self._left[read].append(left)
        self._reasons = list(_reasons(files))
        self._told: set[Reason] = set()
        self._tables_of: dict[str, list[Setting]] = defaultdict(list)

    def made(self) -> Guide:
        out = Guide()
        for name, raws in self._maps():
            whole = self._reason(None, name)
            rows = _Rows(raws, self._schema).made()
            if whole:
                out.unmade[name] = whole
                continue
            for row in rows:
                out.answers.append(self._answer(row))
        out.codes = list(self._codes({answer.row.vocabulary for answer in out.answers} - {""}))
        out.stale = [f"{one.place.file}:{one.place.line}: {one}" for one in self._reasons if one not in self._told]
        return out

    def _maps(self) -> Iterator[tuple[str, list[dict[str, str]]]]:
        """The guide's maps of segments and data types in use that have rows with a target."""
        segments = self._elements.segments
        types = {self._tables.types[path] for path in self._tables.types if path.partition("-")[0] in segments}
        types |= {found.owner for found in self._files.maps.values() if not found.of_segment} | self._elements.types
        for rows, used in ((self._tables.segments, segments), (self._tables.datatypes, types)):
            maps: dict[str, list[dict[str, str]]] = {}
            for row in rows:
                if row["source"] in used:
                    maps.setdefault(row["map"], []).append(row)
            yield from ((name, each) for name, each in maps.items() if any(map(_has_target, each)))

    # -- one row

    def _answer(self, row: Row) -> Answer:
        reading = self._settings.get(row.path, [])
        if row.path == row.source:  # the segment, or the data type, as a whole
            reading = [one for one in self._elements.settings if row.source in one.of]
        if row.literal:
            reading = [*reading, *self._constants(row)]
        fitting = [one for one in reading if self._fits(one, row)]
        if fitting and row.vocabulary:
            self._tables_of[row.vocabulary].extend(fitting)
        other = bool(fitting) and bool(row.literal) and all(one.code not in ("", row.literal) for one in fitting)
        if fitting and not other:
            dotted = "." in row.path
            return Answer(row, "realised", (dotted and fitting[0].inner) or fitting[0].rule)
        reason = self._reason(row, row.map)
        if reason:
            return Answer(row, "departs" if reading else "left out", reason)
        for left in self._left.get(row.path, []):
            if left.reason and row.target.lower() in (left.type.lower(), *map(str.lower, left.types)):
                return Answer(row, "left out", f"{left.reason} ({left.place})")
        here = [one for one in reading if any(row.target == step.owner for step in one.steps)]
        if other:
            return Answer(row, "missing", f"as {fitting[0].code}, not {row.literal}: {_rule_of(fitting[0], row)}")
        if here and row.beyond:
            return Answer(row, "departs", f"R4 has no {row.beyond}; {_rule_of(here[0], row)}")
        if here:
            return Answer(row, "missing", f"elsewhere: {_rule_of(here[0], row)}")
        return Answer(row, "missing", "no rule")

    def _constants(self, row: Row) -> Iterator[Setting]:
        """What is so whatever the fields say."""
        for one in self._elements.settings:
            if one.code == row.literal and not one.reads and row.source in one.of:
                yield one

    def _fits(self, one: Setting, row: Row) -> bool:
        if row.beyond and not row.steps:
            return False
        if not row.steps:
            if one.code:
                return False
            owners = {row.target, row.filled}
            return row.target.lower() == one.type.lower() or any(step.owner in owners for step in one.steps)
        for start, step in enumerate(one.steps):
            if row.steps[0].owner in (step.owner, "Extension") and self._alike(one, start, row, 0):
                return True
        return any(
            (tuple((s.owner, s.name) for s in row.steps[:cut]), row.steps[cut].owner) in self._elements.links
            and any(
                step.owner == row.steps[cut].owner and self._alike(one, start, row, cut)
                for start, step in enumerate(one.steps)
            )
            for cut in range(1, len(row.steps))
            if self._schema.is_resource(row.steps[cut].owner)
        )

    def _alike(self, one: Setting, start: int, row: Row, cut: int) -> bool:
        """Whether what a rule sets, from a step on, is a row's element, or is in it."""
        ours, wanted = one.steps[start:], row.steps[cut:]
        if not _alike(ours, wanted, one.whole):
            return False
        if not row.to or len(ours) < len(wanted):
            return True
        if len(ours) > len(wanted):
            found = {ours[len(wanted)].owner}
        else:
            steps = tuple((step.owner, step.name) for step in ours)
            found = {type for end, type in self._elements.links if end[-len(steps) :] == steps}
        # A role stands for the practitioner who has it; a reference may be made of an identifier.
        return (
            not found
            or bool(found & {*row.to, "Reference"})
            or ("PractitionerRole" in found and "Practitioner" in row.to)
        )

    def _reason(self, row: Row | None, name: str) -> str:
        """What the mapping files say of a row, or of a whole map."""
        for one in self._reasons:
            if one.fits(row, name):
                self._told.add(one)
                return one.reason
        return ""

    # -- codes

    def _codes(self, wanted: set[str]) -> Iterator[Code]:
        for raw in self._tables.codes:
            if raw["map"] in wanted and raw["v2_code"] and raw["fhir_code"]:
                yield self._code(raw["map"], int(raw["row"]), raw["v2_code"], raw["fhir_code"])

    def _code(self, name: str, number: int, v2: str, fhir: str) -> Code:
        by = self._translated(name, v2, fhir)
        if by:
            return Code(name, number, v2, fhir, "realised", by)
        for one in self._reasons:
            if one.map == name and one.path in ("", v2):
                self._told.add(one)
                return Code(name, number, v2, fhir, "departs", one.reason)
        return Code(name, number, v2, fhir, "missing", "")

    def _translated(self, name: str, v2: str, fhir: str) -> str:
        """What makes a code of FHIR's of one of v2's."""
        for one in self._tables_of[name]:
            table = self._files.tables.get(one.table)
            if table is not None:
                if table.codes.get(v2, table.otherwise or ("",))[0] == fhir:
                    return f"{table.name} ({_place(table, v2)})"
                continue
            decision = self._files.decisions.get(one.decision)
            if decision is not None:
                for cells, result, place in decision.rows:
                    if result == fhir and any(v2 in cell for cell in cells):
                        return f"{decision.name} ({place})"
                continue
            if one.code == fhir and v2 in one.when:
                return one.rule
            if v2 == fhir and not one.code:
                return f"as it is: {one.rule}"
        if fhir in ("true", "false") and v2 in ("Y", "N"):
            return "as every yes and no"
        return ""


def _rule_of(one: Setting, row: Row) -> str:
    """The rule that reads a row's field; of a component, the one in the data type's map."""
    return ("." in row.path and one.inner) or one.rule


def _place(table: Table, code: str) -> str:
    return str(table.places.get(code, table.place))


def _alike(ours: Sequence[Step], wanted: Sequence[Step], whole: bool) -> bool:
    if len(ours) < len(wanted) and not whole:
        return False
    return all(map(_same, ours, wanted))


def _same(one: Step, other: Step) -> bool:
    if one.name == "extension" == other.name:
        return not other.url or one.url == other.url
    return one.name == other.name or (other.name.endswith("[x]") and one.choice == other.name[:-3])


# -- the guide's way to write a path


def _plain(path: str) -> str:
    """Without the numbers of repetitions."""
    return _INDEX.sub("", path).replace("$this", "").lstrip(".").strip()


def _has_target(raw: dict[str, str]) -> bool:
    return bool(raw["fhir_path"] or raw["assignment"])


class _Rows:
    """The rows of one map of the guide."""

    def __init__(self, raws: list[dict[str, str]], schema: Schema) -> None:
        self._raws = [raw for raw in raws if _has_target(raw)]
        self._schema = schema
        self._urls = list(self._extensions())

    def made(self) -> list[Row]:
        return [self._row(raw) for raw in self._raws]

    def _row(self, raw: dict[str, str]) -> Row:
        path = _path(raw)
        element = raw["fhir_path"] or raw.get("fhir_note", "")
        target = raw["target"]
        words = _words(element)
        steps, beyond = self._steps(words, target, raw) if words[:1] != ["Operation"] else ((), "")
        literal = _LITERAL.fullmatch(raw["assignment"])
        coded = steps and steps[-1].name in ("code", "status", "use", "mode", "type", "intent", "role")
        return Row(
            raw["map"], int(raw["row"]), raw["source"], target, path, element, steps, beyond,
            raw["vocab_map"], literal[1] if literal and coded else "",
            raw["type_map"].partition("[")[2].strip("]").partition("-")[0], self._to(element),
        )  # fmt: skip

    def _to(self, element: str) -> frozenset[str]:
        """`Practitioner` of `asserter(Practitioner)`."""
        found = re.search(r"\(([A-Z][A-Za-z|]*)\)*$", _INDEX.sub("", element))
        types = found[1].split("|") if found else []
        return frozenset(one for one in types if self._schema.is_resource(one))

    def _steps(self, words: list[str], target: str, raw: dict[str, str]) -> tuple[tuple[Step, ...], str]:
        """The elements of a path, as far as R4 has them, and the first that it has not."""
        owner = next((name for name in self._schema.types if name.lower() == target.lower()), target)
        steps: list[Step] = []
        opened = False
        for number, word in enumerate(words):
            if word in "().":
                opened = word == "("
                continue
            if word in _WHOLE_VALUE or (word == "reference" and owner == "Reference"):
                continue
            if word[0].isupper() and (opened or not steps or owner == "Reference"):
                named = self._near(word, self._schema.types)
                if named is not None and (self._schema.is_resource(named) or not steps):
                    owner = named
                    continue
                if named is not None:
                    continue  # a data type, which is where we are
                return tuple(steps), word
            if owner == "Extension" and word in ("url", "uri"):
                break
            found = self._element(owner, word, words[number + 1 :])
            if found is None:
                return tuple(steps), f"{owner}.{word}" if not steps or owner != "Extension" else ""
            if isinstance(found, str):
                steps.append(Step(owner, f"{found}[x]", "", found))
                break
            url = self._url(words, number, raw) if _extends(found) else ""
            steps.append(Step(owner, found.name, url, found.choice))
            owner = "Element" if found.primitive else found.type
        return tuple(steps), ""

    def _element(self, owner: str, word: str, after: list[str]) -> Element | str | None:
        """An element of a type; of a choice without its type, the choice."""
        known = self._schema.types.get(owner, {})
        if word in known:
            return known[word]
        if any(one.choice == word for one in known.values()):
            typed = word + next((one for one in after if one not in "()."), "")
            return known.get(typed, word)
        lowered = {name.lower(): name for name in known}
        near = lowered.get(word.lower()) or self._near(word, known)
        return known[near] if near else None

    def _near(self, word: str, known: Iterable[str]) -> str | None:
        """What a word with a slip of the pen means."""
        names = {name.lower(): name for name in known}
        if word.lower() in names:
            return names[word.lower()]
        close = get_close_matches(word.lower(), names, n=1, cutoff=0.85)
        return names[close[0]] if close and len(word) > 5 else None

    # -- extensions, which the guide names in a row of their own

    def _extensions(self) -> Iterator[tuple[str, str, str]]:
        """(field, path of the extension, its url)"""
        for raw in self._raws:
            path = raw["fhir_path"].rstrip(")")
            if path.endswith((".url", ".uri")) and "xtension" in path:
                yield _path(raw), path.rpartition(".")[0], raw["assignment"].strip('"')

    def _url(self, words: list[str], number: int, raw: dict[str, str]) -> str:
        """The name of the extension at a word of a row's path."""
        depth = sum(word == "extension" for word in words[: number + 1])
        prefix = _up_to(raw["fhir_path"], depth)
        found = [(path, url) for path, where, url in self._urls if where == prefix]
        own = [url for path, url in found if path == _path(raw)]
        url = own[0] if own else found[0][1] if found else ""
        return Elements.tail(url)


def _up_to(path: str, depth: int) -> str:
    """A path up to its so-manieth extension."""
    for found in re.finditer(r"extension(\[[^\]]*\])?(:[A-Za-z-]+)?", path):
        depth -= 1
        if not depth:
            return path[: found.end()]
    return path


def _words(path: str) -> list[str]:
    return _WORDS.findall(_SLICE.sub(".extension", _INDEX.sub("", path)))


def _extends(element: Element) -> bool:
    return element.name in ("extension", "modifierExtension")

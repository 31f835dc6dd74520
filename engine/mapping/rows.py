"""Reads the rows of a map: one line of text each, like a line of the guide's table, or a line with rows under it.

PID-8 -> gender table AdministrativeSex         field → path, through a table
PID-3 -> identifier as CX[Identifier]('patient')    … through another map, with arguments
PID-30 -> deceasedBoolean when PID-29 is not valued
ORC-5, ORC-1 -> status decide OrderStatus       several values through a decision table
status = final                                  a constant; codes as SYSTEM#code "display"
PID-2 -> nothing: why                           not mapped, on purpose
PV1-20, PV1-21 -> kept                          whole, in extensions named after the fields
OBX-23, OBX-24 -> performer as OBX[Organization]    a resource, or an element, out of several fields
PV1-7 -> participant:  [rows]                   one element for each repetition, filled by rows
valueQuantity needs value:  [rows]              an element filled by rows, dropped without `value`
switch OBX-2:  {NM: row, "CE, CWE": [rows], else: …}
first:  [rows]                                  the first of them that yields something
when OBX-11 = 'X':  [rows]
include OBX[Value]
"""

from __future__ import annotations

import re

from engine.mapping.expression import Condition, Parser, Path, Template, Text, Value, template
from engine.mapping.model import (
    Assign,
    Build,
    Constant,
    First,
    Include,
    Kept,
    Key,
    Nothing,
    Row,
    Step,
    Switch,
    Target,
    Use,
    When,
)
from engine.mapping.problems import Place, Problems
from engine.mapping.source import Source

_CLAUSE = re.compile(r"(?:(?<=\s)|^)(as|table|decide|when|needs)(?=\s)")
_STEP = re.compile(r"([A-Za-z][A-Za-z0-9]*)(?:\(([^)]*)\))?")
_USE = re.compile(r"([A-Za-z][A-Za-z0-9_]*(?:\[[A-Za-z0-9.-]+\])?)\s*(?:\((.*)\))?")
_CODE = re.compile(r"([A-Za-z][\w-]*)#(\S+)(?:\s+\"([^\"]*)\")?")
_KEY = re.compile(r"([a-z][a-z-]*)\s+(?:'([^']*)'|\"([^\"]*)\"|([A-Z]+))")
FORMS = "FIELD -> path, path = constant, path: rows, switch, first, when or include"


class RowReader:
    """Turns sources into rows; what is wrong goes to `problems` and is left out."""

    def __init__(self, problems: Problems) -> None:
        self.problems = problems

    def rows(self, source: Source | None) -> tuple[Row, ...]:
        """The rows of a list, or of a single row."""
        if source is None:
            return ()
        found = (self._row(item) for item in source.items())
        return tuple(row for row in found if row is not None)

    def condition(self, text: str, place: Place) -> Condition | None:
        """A condition standing alone."""
        return Parser(text, place, self.problems).condition()

    def value(self, source: Source) -> Value | None:
        """A value standing alone."""
        return Parser(source.text, _inside(source), self.problems).value()

    def key(self, source: Source) -> Key | None:
        """`identifier`, `identifier PLAC` or `report '{OBR-3}:{OBR-4.1}'`."""
        place = _inside(source)
        if source.text == "identifier":
            return Key("", "", None, place)
        match = _KEY.fullmatch(source.text)
        if match is None or (match[4] and match[1] != "identifier"):
            self.problems.add(
                place, source.text or f"a {source.kind}", "identifier, identifier TYPE, or system '{value}'"
            )
            return None
        system, single, double, kind = match.groups()
        if kind:
            return Key("", kind, None, place)
        start = match.start(2 if single is not None else 3)
        value = template(single if single is not None else double, place.shifted(start), self.problems)
        return Key(system, "", value, place) if isinstance(value, Text | Template) else None

    def _row(self, source: Source) -> Row | None:
        if source.kind == "scalar":
            return self._line(source.text, _inside(source), None)
        pairs = source.pairs()
        if len(pairs) == 1:
            head, body = pairs[0]
            return self._line(head.text, _inside(head), body)
        self.problems.add(source.place, f"a {source.kind}", f"a row: {FORMS}")
        return None

    def _line(self, text: str, place: Place, body: Source | None) -> Row | None:
        word, _, rest = text.partition(" ")
        if word == "include":
            return Include(rest.strip(), place)
        if word in ("switch", "first", "when") and body is not None:
            return self._block(word, rest, place, body)
        if " -> " in text:
            return self._assign(text, place, body)
        if " = " in _before_clauses(text):
            return self._constant(text, place)
        if body is not None:
            return self._build(text, place, body)
        self.problems.add(place, text[:40], FORMS)
        return None

    def _block(self, word: str, rest: str, place: Place, body: Source) -> Row | None:
        inner = place.shifted(len(word) + 1)
        if word == "first":
            return First(self.rows(body), place)
        if word == "when":
            condition = self.condition(rest, inner)
            return None if condition is None else When(condition, self.rows(body), place)
        value = Parser(rest, inner, self.problems).value()
        if value is None or body.kind != "mapping":
            self.problems.add(body.place, f"a {body.kind}", "codes with their rows, and else")
            return None
        cases: list[tuple[tuple[str, ...], tuple[Row, ...]]] = []
        otherwise: tuple[Row, ...] = ()
        for key, rows in body.pairs():
            if key.text == "else":
                otherwise = self.rows(rows)
            else:
                cases.append((tuple(code.strip() for code in key.text.split(",")), self.rows(rows)))
        return Switch(value, tuple(cases), otherwise, place)

    def _assign(self, text: str, place: Place, body: Source | None) -> Row | None:
        left, _, right = text.partition(" -> ")
        values = Parser(left, place, self.problems).values()
        if values is None:
            return None
        offset = len(left) + 4
        reason = body.text if body is not None else ""
        if right.strip() == "nothing":
            return Nothing(tuple(values), reason, place)
        path, clauses = self._clauses(right, place.shifted(offset))
        if path[0] == "kept":
            return self._kept(values, clauses, reason, place, text)
        target = self.target(path[0], path[1])
        if target is None:
            return None
        use = self._use(*clauses["as"]) if "as" in clauses else None
        when = self.condition(*clauses["when"]) if "when" in clauses else None
        if ("as" in clauses and use is None) or ("when" in clauses and when is None):
            return None
        return Assign(
            tuple(values),
            target,
            use,
            clauses.get("table"),
            clauses.get("decide"),
            when,
            self.rows(body),
            _names(clauses),
            place,
            text,
        )

    def _kept(
        self, values: list[Value], clauses: dict[str, tuple[str, Place]], reason: str, place: Place, text: str
    ) -> Row | None:
        when = self.condition(*clauses["when"]) if "when" in clauses else None
        fields = tuple(value for value in values if isinstance(value, Path))
        if len(fields) < len(values) or clauses.keys() - {"when"} or ("when" in clauses and when is None):
            self.problems.add(place, text[:40], "fields alone: PV1-20, PV1-21 -> kept")
            return None
        return Kept(fields, when, reason, place, text)

    def _constant(self, text: str, place: Place) -> Row | None:
        left, _, right = text.partition(" = ")
        target = self.target(left.strip(), place)
        (value, at), clauses = self._clauses(right, place.shifted(len(left) + 3))
        when = self.condition(*clauses["when"]) if "when" in clauses else None
        if target is None or ("when" in clauses and when is None):
            return None
        match = _CODE.fullmatch(value)
        if match:
            return Constant(target, match[1], match[2], match[3] or "", when, at, text)
        return Constant(target, "", value.strip("'\""), "", when, at, text)

    def _build(self, text: str, place: Place, body: Source) -> Row | None:
        (path, at), clauses = self._clauses(text, place)
        target = self.target(path, at)
        when = self.condition(*clauses["when"]) if "when" in clauses else None
        if target is None or ("when" in clauses and when is None):
            return None
        return Build(target, self.rows(body), _names(clauses), when, place, text)

    def _clauses(self, text: str, place: Place) -> tuple[tuple[str, Place], dict[str, tuple[str, Place]]]:
        """The text before the first clause, and the clauses; `when` takes all that follows it."""
        marks = list(_CLAUSE.finditer(text))
        for index, mark in enumerate(marks):
            if mark.group(1) == "when":
                del marks[index + 1 :]
                break
        ends = [mark.start() for mark in marks[1:]] + [len(text)] * bool(marks)
        head = text[: marks[0].start()] if marks else text
        out: dict[str, tuple[str, Place]] = {}
        for mark, end in zip(marks, ends, strict=True):
            raw = text[mark.end() : end]
            skipped = len(raw) - len(raw.lstrip())
            if mark.group(1) in out:
                self.problems.add(place.shifted(mark.start()), f"{mark.group(1)} twice", "each clause once")
            out[mark.group(1)] = (raw.strip(), place.shifted(mark.end() + skipped))
        lead = len(head) - len(head.lstrip())
        return (head.strip(), place.shifted(lead)), out

    def target(self, text: str, place: Place) -> Target | None:
        """A FHIR path; `.` is the thing that the rows fill."""
        if text == ".":
            return Target((), place)
        steps, at = [], 0
        while at < len(text):
            match = _STEP.match(text, at)
            if match is None or (match.end() < len(text) and text[match.end()] != "."):
                self.problems.add(
                    place.shifted(at),
                    text or "nothing",
                    "a FHIR path such as name.family or extension(name).valueString",
                )
                return None
            steps.append(Step(match[1], match[2] or "", place.shifted(at)))
            at = match.end() + 1
        if not steps:
            self.problems.add(place, "nothing", "a FHIR path")
            return None
        return Target(tuple(steps), place)

    def _use(self, text: str, place: Place) -> Use | None:
        match = _USE.fullmatch(text)
        if match is None:
            self.problems.add(place, text, "a map such as CX[Identifier] or CX[Identifier]('patient')")
            return None
        arguments: list[Value] = []
        if match[2]:
            arguments = Parser(match[2], place.shifted(match.start(2)), self.problems).values() or []
        return Use(match[1], tuple(arguments), place)


def _inside(source: Source) -> Place:
    """Where the text of a scalar begins: behind its quote, if it has one."""
    return source.place if source.plain else source.place.shifted(1)


def _before_clauses(text: str) -> str:
    mark = re.search(r"\swhen\s", text)
    return text[: mark.start()] if mark else text


def _names(clauses: dict[str, tuple[str, Place]]) -> tuple[str, ...]:
    return tuple(name.strip() for name in clauses["needs"][0].split(",")) if "needs" in clauses else ()

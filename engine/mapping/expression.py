"""The little expression language of mapping rows: values, conditions, templates.

    value      := term { else term }                      the first that is valued
    term       := path | name | 'text with {value} parts' | function(value, …) | this
    path       := PID-3 | VISIT.PV1-2 (of a group) | PID-3.4 | PID-3.4.2 | CX.4 | CX.4.2
    condition  := test { and test } { or … }, with not and parentheses
    test       := value is [not] valued | value repeats | value = term | value != term | value [not] in (term, …)

`all(OBX-5 where OBX-2 = 'TX')` is the field of all such segments of the group, a line each.
A segment's name is valued where the segment is there, in the group or in one just below it.
A path means a field's first repetition, except where a row walks over all of them. In a template, `{x}` must be
valued or the whole template is not; `{x?}` may be missing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from engine.mapping.problems import Place, Problems


@dataclass(frozen=True, slots=True)
class Path:
    """A place in the message. owner: a segment (`PID`) or data type (`CX`); numbers count from 1, 0 = whole."""

    owner: str
    field: int
    component: int
    sub: int
    place: Place

    @property
    def dotted(self) -> bool:
        """Whether this is a path into a data type, whose owner keeps its dot."""
        return self.owner.endswith(".")

    def __str__(self) -> str:
        tail = "".join(f".{n}" for n in (self.component, self.sub) if n)
        return f"{self.owner}{self.field}{tail}" if self.dotted else f"{self.owner}-{self.field}{tail}"


@dataclass(frozen=True, slots=True)
class Name:
    """A name in scope: another resource of the message, a `let`, a parameter. how: `` one, `each`, `first`, `every`,
    `only` (the one, where there is just one)."""

    name: str
    how: str
    place: Place


@dataclass(frozen=True, slots=True)
class This:
    """The repetition that the enclosing row walks over."""

    place: Place


@dataclass(frozen=True, slots=True)
class Text:
    """A literal."""

    text: str
    place: Place


@dataclass(frozen=True, slots=True)
class Template:
    """Literals and values in turn; each value with whether it may be missing."""

    parts: tuple[str | tuple[Value, bool], ...]
    place: Place


@dataclass(frozen=True, slots=True)
class Call:
    """A function of values."""

    function: str
    arguments: tuple[Value, ...]
    place: Place
    where: Condition | None = None


@dataclass(frozen=True, slots=True)
class Else:
    """The first that is valued."""

    options: tuple[Value, ...]
    place: Place


Value = Path | Name | This | Text | Template | Call | Else


@dataclass(frozen=True, slots=True)
class Test:
    """One comparison. kind: valued, repeats, in."""

    kind: str
    value: Value
    options: tuple[Value, ...]
    negated: bool


@dataclass(frozen=True, slots=True)
class Logic:
    """kind: and, or, not."""

    kind: str
    parts: tuple[Condition, ...]


Condition = Test | Logic

_TOKEN = re.compile(
    r"\s*(?:(?P<text>'[^']*'|\"[^\"]*\")"
    r"|(?P<path>(?:[A-Z][A-Z0-9_]+\.)?[A-Z][A-Z0-9]{2}-\d+(?:\.\d+){0,2}|[A-Z][A-Z0-9]{0,2}\.\d+(?:\.\d+)?)"
    r"|(?P<word>[A-Za-z_][A-Za-z0-9_]*(?:-[a-z][a-z0-9]*)*)|(?P<number>-?\d+(?:\.\d+)?)|(?P<mark>!=|[(),=]))"
)
_PATH = re.compile(r"((?:[A-Z][A-Z0-9_]+\.(?=[A-Z0-9]{3}-))?[A-Z0-9]+)([-.])(\d+)(?:\.(\d+))?(?:\.(\d+))?")
_HOLE = re.compile(r"\{([^{}]*)\}")
_BRACE = re.compile(r"[{}]")
KEYWORDS = frozenset(
    {"is", "not", "valued", "in", "and", "or", "else", "repeats", "when", "where", "as", "table", "decide", "this"}
)


class Parser:
    """Reads one expression. Mistakes go to `problems`; the result is then None."""

    def __init__(self, text: str, place: Place, problems: Problems) -> None:
        self.text, self.place, self.problems = text, place, problems
        self.tokens = _tokens(text, place, problems)
        self.at = 0

    def value(self) -> Value | None:
        """The whole text as a value."""
        return self._whole(self._value())

    def values(self) -> list[Value] | None:
        """The whole text as values with commas between."""
        out = [self._value()]
        while self._take(","):
            out.append(self._value())
        if self._rest():
            return None
        return None if any(value is None for value in out) else [value for value in out if value is not None]

    def condition(self) -> Condition | None:
        """The whole text as a condition."""
        found = self._or()
        return None if found is None or self._rest() else found

    def _whole(self, value: Value | None) -> Value | None:
        return None if value is None or self._rest() else value

    def _rest(self) -> bool:
        if self.at < len(self.tokens):
            _, text, offset = self.tokens[self.at]
            self.problems.add(self.place.shifted(offset), f"{text}", "the end of the expression, or and, or, else")
            return True
        return False

    def _peek(self) -> str:
        return self.tokens[self.at][1] if self.at < len(self.tokens) else ""

    def _take(self, *texts: str) -> bool:
        if self._peek() in texts and self.at < len(self.tokens) and self.tokens[self.at][0] != "text":
            self.at += 1
            return True
        return False

    def _here(self) -> Place:
        offset = self.tokens[self.at][2] if self.at < len(self.tokens) else len(self.text)
        return self.place.shifted(offset)

    def _expected(self, wanted: str) -> None:
        if self.tokens or not self.text.strip():  # else it could not even be cut into words, which has been said
            self.problems.add(self._here(), self._peek() or "nothing more", wanted)

    def _value(self) -> Value | None:
        place = self._here()
        options = [self._term()]
        while self._take("else"):
            options.append(self._term())
        if any(option is None for option in options):
            return None
        found = tuple(option for option in options if option is not None)
        return found[0] if len(found) == 1 else Else(found, place)

    def _term(self) -> Value | None:
        place = self._here()
        if self.at >= len(self.tokens):
            self._expected("a path such as PID-3.1, a name, or 'text'")
            return None
        kind, text, offset = self.tokens[self.at]
        self.at += 1
        if kind == "text":
            return template(text[1:-1], self.place.shifted(offset + 1), self.problems)
        if kind == "path":
            return path(text, place)
        if kind == "number":
            return Text(text, place)
        if kind == "word" and text == "this":
            return This(place)
        if kind == "word" and text in ("each", "first", "only", "every") and self._next_is_word():
            self.at += 1
            return Name(self.tokens[self.at - 1][1], text, place)
        if kind == "word" and text not in KEYWORDS:
            return self._call(text, place) if self._take("(") else Name(text, "", place)
        self.at -= 1
        self._expected("a path such as PID-3.1, a name, or 'text'")
        return None

    def _next_is_word(self) -> bool:
        return self.at < len(self.tokens) and self.tokens[self.at][0] == "word" and self._peek() not in KEYWORDS

    def _call(self, function: str, place: Place) -> Value | None:
        arguments = [self._value()]
        while self._take(","):
            arguments.append(self._value())
        where = self._or() if function == "all" and self._take("where") else None
        if not self._take(")"):
            self._expected(")")
            return None
        if any(argument is None for argument in arguments):
            return None
        return Call(function, tuple(a for a in arguments if a is not None), place, where)

    def _or(self) -> Condition | None:
        return self._joined("or", self._and)

    def _and(self) -> Condition | None:
        return self._joined("and", self._not)

    def _joined(self, word: str, read: object) -> Condition | None:
        parts = [read()]  # type: ignore[operator]
        while self._take(word):
            parts.append(read())  # type: ignore[operator]
        if any(part is None for part in parts):
            return None
        return parts[0] if len(parts) == 1 else Logic(word, tuple(parts))

    def _not(self) -> Condition | None:
        if self._take("not"):
            part = self._not()
            return None if part is None else Logic("not", (part,))
        if self._take("("):
            inner = self._or()
            if not self._take(")"):
                self._expected(")")
                return None
            return inner
        return self._test()

    def _test(self) -> Condition | None:
        value = self._value()
        if value is None:
            return None
        if self._take("is"):
            negated = self._take("not")
            if not self._take("valued"):
                self._expected("valued")
                return None
            return Test("valued", value, (), negated)
        if self._take("repeats"):
            return Test("repeats", value, (), False)
        if self._take("=", "!="):
            negated = self.tokens[self.at - 1][1] == "!="
            other = self._term()
            return None if other is None else Test("in", value, (other,), negated)
        negated = self._take("not")
        if self._take("in"):
            return self._in(value, negated)
        self._expected("is valued, is not valued, repeats, =, != or in")
        return None

    def _in(self, value: Value, negated: bool) -> Condition | None:
        if not self._take("("):
            self._expected("( before the values of in")
            return None
        options = [self._term()]
        while self._take(","):
            options.append(self._term())
        if not self._take(")"):
            self._expected(")")
            return None
        if any(option is None for option in options):
            return None
        return Test("in", value, tuple(o for o in options if o is not None), negated)


def compared(condition: Condition) -> tuple[Value, ...]:
    """The values whose content decides, where a condition holds because they are one of some."""
    if isinstance(condition, Logic):
        return () if condition.kind == "not" else tuple(one for part in condition.parts for one in compared(part))
    return (condition.value,) if condition.kind == "in" and not condition.negated else ()


def path(text: str, place: Place) -> Path:
    """`PID-3.4.2` or `CX.4.2`. A data type's owner keeps its dot, to tell `CWE.1` from a segment's field."""
    match = _PATH.fullmatch(text)
    assert match is not None
    owner, dash, first, second, third = match.groups()
    if dash == ".":
        return Path(owner + ".", int(first), int(second or 0), 0, place)
    return Path(owner, int(first), int(second or 0), int(third or 0), place)


def template(text: str, place: Place, problems: Problems) -> Value | None:
    """The inside of quotes: literal text, with `{value}` parts if there are any."""
    stray = _BRACE.search(_HOLE.sub(lambda hole: " " * len(hole[0]), text))
    if stray:  # as a text, a key would be the same for all
        found = "`{` without `}`" if stray[0] == "{" else "`}` without `{`"
        problems.add(place.shifted(stray.start()), found, "a value in braces: {value} or {value?}")
        return None
    parts: list[str | tuple[Value, bool]] = []
    end = 0
    for hole in _HOLE.finditer(text):
        if hole.start() > end:
            parts.append(text[end : hole.start()])
        inner = hole.group(1)
        optional = inner.endswith("?")
        value = Parser(inner.removesuffix("?"), place.shifted(hole.start() + 1), problems).value()
        if value is None:
            return None
        parts.append((value, optional))
        end = hole.end()
    if end < len(text):
        parts.append(text[end:])
    return Template(tuple(parts), place) if end else Text(text, place)


def _tokens(text: str, place: Place, problems: Problems) -> list[tuple[str, str, int]]:
    out = []
    at = 0
    while text[at:].strip():
        match = _TOKEN.match(text, at)
        if match is None:
            offset = at + len(text[at:]) - len(text[at:].lstrip())
            problems.add(
                place.shifted(offset), f"{text[offset : offset + 12]}", "a path, a name, 'text' or an operator"
            )
            return []
        kind = match.lastgroup or ""
        out.append((kind, match.group(kind), match.start(kind)))
        at = match.end()
    return out


def paths(value: Value) -> Iterator[Path]:
    """All paths in a value."""
    return (one for one in _parts(value) if isinstance(one, Path))


def names(value: Value) -> Iterator[str]:
    """All names in a value."""
    return (one.name for one in _parts(value) if isinstance(one, Name))


def calls(value: Value) -> Iterator[Call]:
    """All functions in a value."""
    return (one for one in _parts(value) if isinstance(one, Call))


def _parts(value: Value) -> Iterator[Value]:
    match value:
        case Else():
            inner: Iterable[Value] = value.options
        case Call():
            yield value
            inner = value.arguments
        case Template():
            inner = (part[0] for part in value.parts if not isinstance(part, str))
        case _:
            yield value
            return
    for one in inner:
        yield from _parts(one)

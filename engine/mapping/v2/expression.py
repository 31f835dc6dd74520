"""The values and conditions of v2 mappings, read and compiled in one go.

    value      := term { else term }                      the first that is valued
    term       := path | name | 'text' | function(value, …)
    condition  := test { and test } { or … }, with not and parentheses
    test       := value is [not] valued | value is [not] empty | value is [not] null
                | value = term | value != term | value [not] in (term, …) | value [not] matches 'pattern'

Valued is what has a text; `""` is null, and neither valued nor empty. What is not valued equals nothing. A path with
[*] is true where one of its values is. A pattern must fit the whole value (pattern.py). In a template, `{x}` must be
valued or the whole is not; `{x?}` may be missing; `{{` is a brace.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TypeVar

from engine.mapping.problems import Place, Problems
from engine.mapping.v2 import path as paths
from engine.mapping.v2.conditions import FUNCTIONS, NAMES, Subject, Test, Value, among, matching, negated, state
from engine.mapping.v2.draft import Draft, leaf
from engine.mapping.v2.path import ALL, PATTERN, Around, Here
from engine.mapping.v2.pattern import Pattern

_T = TypeVar("_T")

_TOKEN = re.compile(
    rf"\s*(?:(?P<text>'[^']*'|\"[^\"]*\")|(?P<path>{PATTERN})|(?P<word>[A-Za-z_][A-Za-z0-9_]*)"
    r"|(?P<number>-?\d+(?:\.\d+)?)|(?P<mark>!=|[(),=]))"
)
_HOLE = re.compile(r"\{\{|\}\}|\{([^{}]*)\}")
_KEYWORDS = frozenset({"is", "not", "valued", "empty", "null", "in", "and", "or", "else", "matches"})


class Parser:
    """Reads one expression. Mistakes go to `problems`; the result is then None."""

    def __init__(self, text: str, place: Place, around: Around, problems: Problems) -> None:
        self._text, self._place, self._around, self._problems = text, place, around, problems
        self._tokens = self._cut()
        self._at = 0

    def value(self) -> Value | None:
        """The whole text as a value."""
        return self._whole(self._value())

    def condition(self) -> Test | None:
        """The whole text as a condition."""
        return self._whole(self._or())

    def _cut(self) -> list[tuple[str, str, int]]:
        out, at = [], 0
        while self._text[at:].strip():
            match = _TOKEN.match(self._text, at)
            if match is None:
                at += len(self._text[at:]) - len(self._text[at:].lstrip())
                wanted = "a path, a name, 'text' or an operator"
                self._problems.add(self._place.shifted(at), self._text[at : at + 12], wanted)
                return []
            kind = match.lastgroup or ""
            out.append((kind, match.group(kind), match.start(kind)))
            at = match.end()
        return out

    def _whole(self, found: _T | None) -> _T | None:
        if found is not None and self._at < len(self._tokens):
            self._expected("the end, or and, or, else")
            return None
        return found

    def _peek(self) -> str:
        kind, text, _ = self._tokens[self._at] if self._at < len(self._tokens) else ("", "", 0)
        return "" if kind == "text" else text

    def _take(self, *texts: str) -> str:
        found = self._peek()
        if found and found in texts:
            self._at += 1
            return found
        return ""

    def _here(self) -> Place:
        offset = self._tokens[self._at][2] if self._at < len(self._tokens) else len(self._text)
        return self._place.shifted(offset)

    def _expected(self, wanted: str) -> None:
        if self._tokens or not self._text.strip():  # else it could not even be cut into words, which has been said
            found = self._tokens[self._at][1] if self._at < len(self._tokens) else "nothing more"
            self._problems.add(self._here(), found, wanted)

    def _value(self) -> Value | None:
        options = [self._term()]
        while self._take("else"):
            options.append(self._term())
        found = [option for option in options if option is not None]
        if len(found) < len(options):
            return None
        return (
            found[0] if len(found) == 1 else lambda draft, here: next(filter(None, (v(draft, here) for v in found)), "")
        )

    def _term(self) -> Value | None:
        kind, text, _ = self._tokens[self._at] if self._at < len(self._tokens) else ("", "", 0)
        place = self._here()
        if kind in ("text", "number"):
            self._at += 1
            constant = text[1:-1] if kind == "text" else text
            if not constant:
                self._problems.add(place, text, "is empty, or is valued")
                return None
            return lambda draft, here: constant
        if kind == "path":
            self._at += 1
            return self._read(text, place)
        if kind == "word" and text not in _KEYWORDS:
            self._at += 1
            if self._take("("):
                return self._call(text, place)
            if text not in NAMES or self._around.alone:
                self._problems.unknown(place, "name", text, () if self._around.alone else NAMES)
                return None
            return NAMES[text]
        self._expected("a path such as PID-3.1, a name, or 'text'")
        return None

    def _read(self, text: str, place: Place) -> Value | None:
        found = paths.parse(text, place, self._problems)
        if found is None:
            return None
        if ALL in (found.nth, found.repetition):
            self._problems.add(
                place, f"{text}, which may be several", "one value; [*] stands in tests and in what is set"
            )
            return None
        read = paths.reader(found, self._around)
        return lambda draft, here: leaf(read(draft, here), draft)

    def _call(self, name: str, place: Place) -> Value | None:
        if name not in FUNCTIONS:
            self._problems.unknown(place, "function", name, FUNCTIONS)
            return None
        count, function = FUNCTIONS[name]
        value = self._value()
        rest: list[int | str] = []
        while value is not None and self._take(","):
            kind, text, _ = self._tokens[self._at] if self._at < len(self._tokens) else ("", "", 0)
            wanted = "number" if not rest else "text"
            good = text.isdigit() if wanted == "number" else kind == "text" and len(text) == 3
            if kind != wanted or not good:
                self._expected("a number of characters" if not rest else "one character in quotes, such as '0'")
                return None
            rest.append(int(text) if not rest else text[1])
            self._at += 1
        if value is None:
            return None
        if not self._take(")"):
            self._expected(")")
            return None
        if len(rest) + 1 != count:
            self._problems.add(place, f"{name} with {len(rest) + 1} arguments", f"{count}")
            return None
        return lambda draft, here: function(value(draft, here), *rest)

    def _or(self) -> Test | None:
        found = self._joined("or", self._and)
        if len(found) < 2:
            return found[0] if found else None
        return lambda draft, here: any(part(draft, here) for part in found)

    def _and(self) -> Test | None:
        found = self._joined("and", self._not)
        if len(found) < 2:
            return found[0] if found else None
        return lambda draft, here: all(part(draft, here) for part in found)

    def _joined(self, word: str, read: Callable[[], Test | None]) -> list[Test]:
        """The parts on both sides of a word; none where one of them is wrong."""
        parts = [read()]
        while self._take(word):
            parts.append(read())
        found = [part for part in parts if part is not None]
        return found if len(found) == len(parts) else []

    def _not(self) -> Test | None:
        if self._take("not"):
            return negated(self._not(), True)
        if self._take("("):
            inner = self._or()
            if inner is not None and not self._take(")"):
                self._expected(")")
                return None
            return inner
        return self._test()

    def _test(self) -> Test | None:
        values = self._subject()
        if values is None:
            return None
        if self._take("is"):
            other = bool(self._take("not"))
            kind = self._take("valued", "empty", "null")
            if not kind:
                self._expected("valued, empty or null")
                return None
            return negated(state(values, kind), other)
        if self._peek() in ("=", "!="):
            other = self._take("=", "!=") == "!="
            return negated(among(values, [self._term()]), other)
        other = bool(self._take("not"))
        if self._take("in"):
            return negated(among(values, self._options()), other)
        if self._take("matches"):
            return negated(matching(values, self._pattern()), other)
        self._expected("is valued, is empty, is null, =, !=, in or matches")
        return None

    def _subject(self) -> Subject | None:
        """What a test is about."""
        kind, text, _ = self._tokens[self._at] if self._at < len(self._tokens) else ("", "", 0)
        after = self._tokens[self._at + 1][1] if self._at + 1 < len(self._tokens) else ""
        if kind != "path" or after == "else":
            value = self._value()
            return None if value is None else Subject(value, None)
        place = self._here()
        self._at += 1
        found = paths.parse(text, place, self._problems)
        if found is None:
            return None
        if ALL in (found.nth, found.repetition):
            return Subject(None, paths.every(found, self._around))
        return Subject(paths.reader(found, self._around), None)

    def _options(self) -> list[Value | None]:
        if not self._take("("):
            self._expected("( before the values of in")
            return [None]
        out = [self._term()]
        while self._take(","):
            out.append(self._term())
        if None not in out and not self._take(")"):
            self._expected(")")
            return [None]
        return out

    def _pattern(self) -> Pattern | None:
        kind, text, _ = self._tokens[self._at] if self._at < len(self._tokens) else ("", "", 0)
        if kind != "text":
            self._expected("a pattern in quotes, such as 'ZZ.*'")
            return None
        self._at += 1
        try:
            return Pattern(text[1:-1])
        except ValueError as error:
            self._problems.add(self._place.shifted(self._tokens[self._at - 1][2] + 1), text[1:-1], str(error))
            return None


def template(text: str, place: Place, around: Around, problems: Problems) -> Value | None:
    """Text with `{value}` parts, as a value."""
    alone = re.search(r"[{}]", _HOLE.sub("", text))
    if alone:
        problems.add(place, f"a {alone[0]} alone", f"{alone[0] * 2} for the sign itself, or {{PID-3.1}} for a value")
        return None
    parts: list[str | tuple[Value, bool]] = []
    end, wrong = 0, False
    for hole in _HOLE.finditer(text):
        parts.append(text[end : hole.start()])
        end = hole.end()
        if hole[1] is None:
            parts.append(hole[0][0])
            continue
        inner = hole[1]
        value = Parser(inner.removesuffix("?"), place.shifted(hole.start() + 1), around, problems).value()
        wrong = wrong or value is None
        if value is not None:
            parts.append((value, inner.endswith("?")))
    parts.append(text[end:])
    return None if wrong else _filled([part for part in parts if part])


def _filled(parts: list[str | tuple[Value, bool]]) -> Value:
    if len(parts) == 1:
        only = parts[0]
        if isinstance(only, tuple):
            return only[0]
        return lambda draft, here: only

    def fill(draft: Draft, here: Here | None) -> str:
        out = []
        for part in parts:
            if isinstance(part, str):
                out.append(part)
                continue
            text = part[0](draft, here)
            if not text and not part[1]:
                return ""
            out.append(text)
        return "".join(out)

    return fill

"""Two HL7 v2 messages compared by meaning, field by field: what the old engine sent, and what we would have sent.

Empty fields and components at the end mean nothing and are not compared. Everything else that differs is a
`Difference` of a path that groups (`OBX-5`, `PID-3.1`, `NTE`: never an index, never a value), one for each path and
kind. Nothing is decided here by the bytes: text is decoded first, each side by its own charset and delimiters.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Final, Literal, TypeAlias

from engine.compare import align
from engine.compare.rules import STAMPED, Rules
from engine.compare.severity import SET_IDS, SEVERITIES, Severity, severity
from engine.compare.values import UNORDERED, Likeness, common_type, damaged, likeness
from engine.config.edge import Takes
from engine.hl7.charset import Undecodable, declared, decode
from engine.hl7.escape import STANDARD, Delimiters, escape, unescape
from engine.hl7.message import HEADERS, Message, Segment

Kind: TypeAlias = Literal[
    "formatting", "expected", "source_quality", "transformation", "missing_in_target", "missing_in_legacy"
]

ANYTHING: Final = Takes()
LONGEST_SHOWN: Final = 240  # characters of a value
BEFORE_SHOWN: Final = 40  # of them: before the first that differs
_UNREADABLE: Final = re.compile("[\ud800-\udfff]")
_LEVELS: Final = (2, 1, 4)  # of `Delimiters`: repetition, component, subcomponent
_EDGE: Final = b"\r\n\x0b\x1c\x00 \t"

Component: TypeAlias = list[str]
Repetition: TypeAlias = list[Component]


@dataclass(frozen=True, slots=True)
class Difference:
    """One place at which two messages say different things, or the same thing differently.

    rule: the reason of the rule that covers it (kind `expected`). legacy, target: the values, shortened; None where
    that side has no such segment. Patient data: for the screen of those who may see it, nowhere else.
    """

    path: str
    kind: Kind
    severity: Severity
    rule: str | None
    legacy: str | None
    target: str | None


@dataclass(frozen=True, slots=True)
class Comparison:
    """What a comparison came to. comparable: whether there was one; `why` not."""

    comparable: bool
    why: str
    differences: tuple[Difference, ...]

    @property
    def matched(self) -> bool:
        return self.comparable and not self.differences


EQUAL: Final = Comparison(True, "", ())


def compare(legacy: bytes, target: bytes, rules: Rules, takes: Takes = ANYTHING) -> Comparison:
    """The old engine's message against ours. takes: what the channel says of its charsets."""
    if legacy == target or _same_but_for_stamps(legacy, target):
        return EQUAL
    one, other = _text(legacy, _legacy_encoding(legacy, target, takes), takes), _text(target, takes.encoding, takes)
    for text, whose in ((one, "the old engine's output"), (other, "our output")):
        if not text.startswith("MSH"):
            return Comparison(False, f"{whose} does not begin with MSH", ())
    return Comparison(True, "", differences(Message(one), Message(other), rules))


def differences(legacy: Message, target: Message, rules: Rules) -> tuple[Difference, ...]:
    """All of them, one for each path and kind, in the order in which they were found."""
    found: dict[tuple[str, str], Difference] = {}
    for one in _Comparing(legacy, target, rules).all():
        known = found.get((one.path, one.kind))
        if known is None or SEVERITIES.index(one.severity) < SEVERITIES.index(known.severity):
            found[one.path, one.kind] = one
    return tuple(found.values())


def together(found: Sequence[Comparison | None]) -> Comparison | None:
    """Several comparisons as that of one message: each kind of difference once. None, where nothing was different, and
    one of them is not comparable."""
    differences = {(one.path, one.kind): one for each in reversed(found) if each for one in reversed(each.differences)}
    if not differences and not all(each is not None and each.comparable for each in found):
        return None
    return Comparison(True, "", tuple(reversed(differences.values())))


def whole_message(path: str, kind: Kind, rules: Rules) -> Difference:
    """A message that one side alone has, has once more, or has out of its place."""
    rule = rules.find(path)
    return Difference(path, "expected" if rule else kind, severity(path), rule.reason if rule else None, None, None)


# -- before anything is parsed


def _same_but_for_stamps(legacy: bytes, target: bytes) -> bool:
    """Whether the messages are the same bytes but for the header's stamps."""
    start, begin = legacy.find(b"\r"), target.find(b"\r")
    if start < 0 or legacy[start:].rstrip(_EDGE) != target[begin:].rstrip(_EDGE) or legacy[:9] != target[:9]:
        return False
    if legacy[:9] != b"MSH|^~\\&|":
        return False
    ones, others = legacy[:start].split(b"|"), target[:begin].split(b"|")
    if len(ones) != len(others):
        return False
    return all(a == b or at + 1 in STAMPED for at, (a, b) in enumerate(zip(ones, others, strict=True)))


def _legacy_encoding(legacy: bytes, target: bytes, takes: Takes) -> str:
    """The old engine's output is in the channel's encoding, unless it wrote another MSH-18 over it."""
    return takes.encoding if takes.encoding == "auto" or declared(legacy) == declared(target) else "auto"


def _text(raw: bytes, encoding: str, takes: Takes) -> str:
    """The message's text; bytes that are none stay what they are, so that the same ones on both sides are equal."""
    raw = raw.strip(_EDGE)
    try:
        return decode(raw, encoding, takes.undeclared)
    except Undecodable as error:
        return raw.decode(error.codec if _known(error.codec) else "utf-8", "surrogateescape")


def _known(codec: str) -> bool:
    try:
        codecs.lookup(codec)
    except LookupError:
        return False
    return True


# -- segments


class _Comparing:
    """One comparison at work."""

    def __init__(self, legacy: Message, target: Message, rules: Rules) -> None:
        self._restated = legacy.delimiters != target.delimiters
        self._legacy = restated(legacy) if self._restated else legacy
        self._target = restated(target) if self._restated else target
        self._marks = self._target.delimiters
        self._rules = rules

    def all(self) -> Iterator[Difference]:
        if self._restated:
            yield self._alike("MSH-2", Likeness("escapes", True), "", "")
        if align.same_structure(self._legacy, self._target):
            for one, other in zip(self._legacy.lines, self._target.lines, strict=True):
                yield from self._segments(one, other)
        else:
            yield from self._siblings(align.tree(self._legacy).children, align.tree(self._target).children)

    def _siblings(self, legacy: list[align.Node], target: list[align.Node]) -> Iterator[Difference]:
        found, lost, gained = align.pairs(legacy, target, self._marks.field)
        for name in align.displaced(found, target):
            yield self._alike(name, Likeness("order", True), "", "")
        for one, other in found:
            if one.name not in (align.GROUP, align.PATIENT):
                yield from self._segments(one.raw, other.raw)
            if one.children or other.children:
                yield from self._siblings(one.children, other.children)
        for node in lost:
            yield self._different(node.segment, "missing_in_target", node.raw, None)
        for node in gained:
            yield self._different(node.segment, "missing_in_legacy", None, node.raw)

    def _segments(self, one: str, other: str) -> Iterator[Difference]:
        if one == other:
            return
        name, legacy, target = one[:3], Segment(one, self._marks).fields, Segment(other, self._marks).fields
        value_type = common_type(legacy[2], target[2]) if name == "OBX" and len(legacy) > 2 < len(target) else ""
        header = name == "MSH"
        for number, (a, b) in enumerate(zip_longest(legacy, target, fillvalue="")):
            if a == b or (header and number in STAMPED):
                continue
            yield from self._field(f"{name}-{number}", a, b, value_type)

    # -- fields

    def _field(self, path: str, one: str, other: str, value_type: str) -> Iterator[Difference]:
        if path == "MSH-18" and one.strip() and other.strip():  # an absent one promises another character set
            yield self._alike(path, Likeness("escapes", True), one, other)
            return
        if path in SET_IDS and _number_or_nothing(one) and _number_or_nothing(other):
            yield self._alike(path, Likeness("order", True), one, other)
            return
        legacy, target = _parts(one, self._marks), _parts(other, self._marks)
        if legacy == target:
            yield from self._spelling(path, one, other)
            return
        if sorted(legacy) == sorted(target):
            yield self._alike(path, Likeness("order", path in UNORDERED), one, other)
            return
        if path in UNORDERED:
            legacy, target = _without_common(legacy, target)
        composite = any(len(repetition) > 1 for repetition in (*legacy, *target))
        nothing: Repetition = []
        for a, b in zip_longest(legacy, target, fillvalue=nothing):
            yield from self._repetition(path, a, b, composite, value_type)

    def _spelling(self, path: str, one: str, other: str) -> Iterator[Difference]:
        """The same text, with other escape sequences; or nothing but empty parts at the end."""
        mark = self._marks.escape
        if mark and (mark in one or mark in other) and not self._restated:
            yield self._alike(path, Likeness("escapes", True), one, other)

    def _repetition(
        self, path: str, one: Repetition, other: Repetition, composite: bool, value_type: str
    ) -> Iterator[Difference]:
        nothing: Component = []
        for number, (a, b) in enumerate(zip_longest(one, other, fillvalue=nothing), 1):
            if a == b:
                continue
            place = f"{path}.{number}" if composite else path
            uncoded = number == 2 and not (one and one[0] and one[0][0]) and not (other and other[0] and other[0][0])
            grade = severity(f"{path}.1") if uncoded else severity(place)  # the text stands for the code
            yield self._leaves(place, a, b, grade, value_type)

    def _leaves(self, path: str, one: Component, other: Component, grade: Severity, value_type: str) -> Difference:
        """The first of a component's parts that is not the same; else how they are."""
        how: Likeness | None = None
        for a, b in zip_longest(one, other, fillvalue=""):
            if a == b:
                continue
            alike = likeness(path, a, b, value_type)
            if alike is None:
                kind: Kind = "source_quality" if damaged(a) and damaged(b) else "transformation"
                return self._different(path, kind, "&".join(one), "&".join(other), grade)
            if how is None or not alike.harmless:
                how = alike
        assert how is not None
        return self._alike(path, how, "&".join(one), "&".join(other), grade)

    # -- what it is called

    def _alike(self, path: str, how: Likeness, one: str, other: str, grade: Severity | None = None) -> Difference:
        grade = grade or severity(path)
        shown = shortened(one, other)
        if rule := self._rules.find(path, how.how):
            return Difference(path, "expected", "cosmetic" if how.harmless else grade, rule.reason, *shown)
        if how.harmless:
            return Difference(path, "formatting", "cosmetic", None, *shown)
        return Difference(path, "transformation", grade, None, *shown)

    def _different(
        self, path: str, kind: Kind, one: str | None, other: str | None, grade: Severity | None = None
    ) -> Difference:
        rule = self._rules.find(path)
        grade = grade or severity(path)
        return Difference(
            path, "expected" if rule else kind, grade, rule.reason if rule else None, *shortened(one, other)
        )


def _number_or_nothing(text: str) -> bool:
    text = text.strip()
    return not text or (text.isascii() and text.isdigit())


def _parts(field: str, marks: Delimiters) -> list[Repetition]:
    """Repetitions of components of subcomponents, unescaped, without what is empty at the end."""
    if not field:
        return []
    _, component, repetition, _, sub = marks
    out = []
    for each in field.split(repetition) if repetition else (field,):
        parts = [_trimmed([unescape(leaf, marks) for leaf in (part.split(sub) if sub else (part,))])
                 for part in each.split(component)]  # fmt: skip
        while parts and not parts[-1]:
            parts.pop()
        out.append(parts)
    while out and not out[-1]:
        out.pop()
    return out


def restated(message: Message) -> Message:
    """The message in the standard's delimiters."""
    old = message.delimiters
    lines = []
    for segment in message:
        fields = segment.fields
        if segment.name in HEADERS:
            fields = [fields[0], "".join(STANDARD[1:]), *(_restated(field, old) for field in fields[3:])]
        else:
            fields = [_restated(field, old) for field in fields]
        lines.append(STANDARD.field.join(fields))
    return Message("\r".join(lines))


def _restated(field: str, old: Delimiters) -> str:
    def split(text: str, level: int) -> str:
        if level == len(_LEVELS):
            return escape(unescape(text, old))
        mark = old[_LEVELS[level]]
        parts = text.split(mark) if mark else [text]
        return STANDARD[_LEVELS[level]].join(split(part, level + 1) for part in parts)

    return split(field, 0)


def _trimmed(leaves: list[str]) -> Component:
    while leaves and not leaves[-1]:
        leaves.pop()
    return leaves


def _without_common(one: list[Repetition], other: list[Repetition]) -> tuple[list[Repetition], list[Repetition]]:
    rest = list(other)
    left = []
    for repetition in one:
        if repetition in rest:
            rest.remove(repetition)
        else:
            left.append(repetition)
    return left, rest


def shortened(one: str | None, other: str | None) -> tuple[str | None, str | None]:
    """Two values for a screen: around the first character that differs, where they are long."""
    one, other = _readable(one), _readable(other)
    if len(one or "") <= LONGEST_SHOWN and len(other or "") <= LONGEST_SHOWN:
        return one, other
    start = max(0, _first_difference(one or "", other or "") - BEFORE_SHOWN)
    return _excerpt(one, start), _excerpt(other, start)


def _readable(value: str | None) -> str | None:
    """What stands for bytes that are no text cannot be written anywhere."""
    return value if value is None or value.isascii() else _UNREADABLE.sub("\ufffd", value)


def _first_difference(one: str, other: str) -> int:
    return next((at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def _excerpt(value: str | None, start: int) -> str | None:
    if value is None:
        return None
    end = start + LONGEST_SHOWN
    return ("…" if start else "") + value[start:end] + ("…" if len(value) > end else "")


def worst_of(found: Iterable[Difference]) -> Severity:
    """The worst severity among what no rule covers; `cosmetic` where there is none."""
    return min((one.severity for one in found if one.kind != "expected"), key=SEVERITIES.index, default="cosmetic")

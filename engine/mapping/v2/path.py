"""Paths into a message: `PID-3.1`, `OBX[3]-5`, `PID-3[2].4.1`, `NTE[*]-3`; compiled to what reads and writes there.

A segment without a number is the first; inside `each`, the one in question, and else the one nearest to it
(groups.py). A field without one is its first repetition where a value is read, and all of it where it is copied,
moved or deleted whole. `[*]` are all of them; `PID-3[+]`, only to write to, is one repetition more.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from engine.hl7.message import HEADERS, NULL
from engine.mapping.library import Unmappable
from engine.mapping.problems import Place, Problems
from engine.mapping.v2.draft import Draft, Line

ALL, MORE = -1, -2
_NUMBER = {None: 0, "*": ALL, "+": MORE}
PATTERN = r"[A-Z][A-Z0-9]{2}(?:\[(?:[0-9]+|\*)\])?-[0-9]+(?:\[(?:[0-9]+|[*+])\])?(?:\.[0-9]+){0,2}"
_PATH = re.compile(
    r"([A-Z][A-Z0-9]{2})(?:\[([1-9][0-9]{0,3}|\*)\])?"
    r"(?:-([1-9][0-9]{0,2})(?:\[([1-9][0-9]{0,3}|[*+])\])?(?:\.([1-9][0-9]?))?(?:\.([1-9][0-9]?))?)?"
)
WANTED = "a path such as PID-3.1, OBX[2]-5 or PID-3[*].4"


class Here:
    """Where `each` stands: at a segment, and where it goes over a field, at one of its repetitions (from 0)."""

    __slots__ = ("line", "repetition")

    def __init__(self, line: Line, repetition: int = -1) -> None:
        self.line, self.repetition = line, repetition


@dataclass(frozen=True, slots=True)
class Around:
    """What stands around a step: the segment, and perhaps the field, that `each` goes over. alone: nothing is known but
    the message, neither its channel nor when it came."""

    segment: str = ""
    field: int = 0
    alone: bool = False


NOWHERE = Around()
ALONE = Around(alone=True)


@dataclass(frozen=True, slots=True)
class Path:
    """A place. nth, repetition: 0 where not given, ALL or MORE. field 0: the segment; component 0: all of them."""

    segment: str
    nth: int
    field: int
    repetition: int
    component: int
    sub: int
    text: str
    place: Place

    @property
    def whole(self) -> bool:
        """A field with all its repetitions."""
        return not (self.repetition or self.component)


Lines = Callable[[Draft, Here | None], list[Line]]
Read = Callable[[Draft, Here | None], str]


def parse(text: str, place: Place, problems: Problems, segment: bool = False, more: bool = False) -> Path | None:
    """The path; None, and a problem, where it is none. `segment`: a whole segment will do. `more`: [+] will do."""
    found = _PATH.fullmatch(text)
    if found is None or not (found[3] or segment):
        wanted = WANTED if not segment else f"a segment such as NTE, or {WANTED}"
        problems.add(place, text or "nothing", wanted)
        return None
    name, nth, field, repetition, component, sub = found.groups()
    if repetition == "+" and not more:
        problems.add(place, text, "a repetition that is there; [+] is one more, to write to")
        return None
    if name in HEADERS and field in ("1", "2"):
        problems.add(place, text, "another field: MSH-1 and MSH-2 are the delimiters, which a message keeps")
        return None
    return Path(
        name, _NUMBER[nth] if nth in _NUMBER else int(nth), int(field or 0),
        _NUMBER[repetition] if repetition in _NUMBER else int(repetition), int(component or 0), int(sub or 0),
        text, place,
    )  # fmt: skip


def lines(path: Path, around: Around) -> Lines:
    """Finds the segments that a path means: none, one, or all for `[*]`."""
    name, nth = path.segment, path.nth
    if around.segment == name and not nth:
        return lambda draft, here: [here.line] if here else []
    if around.segment:

        def visible(draft: Draft, here: Here | None) -> list[Line]:
            found = draft.groups.visible(name, here.line) if here else draft.all(name)
            return found if nth == ALL else found[nth - 1 : nth] if nth else found[:1]

        return visible
    if nth == ALL:
        return lambda draft, here: draft.all(name)
    if nth > 1:
        return lambda draft, here: draft.all(name)[nth - 1 : nth]

    def first(draft: Draft, here: Here | None) -> list[Line]:
        found = draft.first(name)
        return [] if found is None else [found]

    return first


def repetition_of(path: Path, around: Around) -> int | None:
    """The repetition that a path names; None where it is the one that `each` stands at."""
    if around.field and (around.segment, around.field) == (path.segment, path.field) and not path.repetition:
        return None if not path.nth else 0
    return path.repetition


def reader(path: Path, around: Around, whole: bool = False) -> Read:
    """Reads the raw value; `` where there is none. `whole`: a field with all its repetitions."""
    find, repetition = lines(path, around), repetition_of(path, around)
    field, component, sub = path.field, path.component, path.sub
    if repetition is not None and whole and path.whole:

        def read_field(draft: Draft, here: Here | None) -> str:
            for line in find(draft, here):
                fields = line.fields or line.cut(draft.mark)
                return fields[field] if field < len(fields) else ""
            return ""

        return read_field

    def read(draft: Draft, here: Here | None) -> str:
        for line in find(draft, here):
            fields = line.fields or line.cut(draft.mark)
            value = fields[field] if field < len(fields) else ""
            if not value:
                return ""
            at = here.repetition if repetition is None and here else max((repetition or 1) - 1, 0)
            return part(value, draft, at, component, sub)
        return ""

    return read


def every(path: Path, around: Around) -> Callable[[Draft, Here | None], list[str]]:
    """Reads the raw values of a path with `[*]`, those that are there."""
    find, repetition = lines(path, around), repetition_of(path, around)

    def read(draft: Draft, here: Here | None) -> list[str]:
        out = []
        for line in find(draft, here):
            fields = line.cut(draft.mark)
            value = fields[path.field] if path.field < len(fields) else ""
            count = len(repetitions(value, draft))
            if repetition == ALL:
                places = range(count)
            else:
                first = here.repetition if repetition is None and here else max((repetition or 1) - 1, 0)
                places = range(first, first + 1)
            out += [part(value, draft, at, path.component, path.sub) for at in places]
        return [value for value in out if value]

    return read


def repetitions(value: str, draft: Draft) -> list[str]:
    """A field's raw repetitions; none of an empty one."""
    mark = draft.marks.repetition
    if not value:
        return []
    return value.split(mark) if mark else [value]


def part(value: str, draft: Draft, repetition: int, component: int, sub: int) -> str:
    """The raw repetition (from 0), component or subcomponent of a field."""
    marks = draft.marks
    if marks.repetition and marks.repetition in value:
        found = value.split(marks.repetition)
        value = found[repetition] if repetition < len(found) else ""
    elif repetition:
        return ""
    if component:
        if marks.component in value:
            found = value.split(marks.component)
            value = found[component - 1] if component <= len(found) else ""
        elif component > 1:
            return ""
        if sub:
            found = value.split(marks.subcomponent) if marks.subcomponent else [value]
            value = found[sub - 1] if sub <= len(found) else ""
    return value


def fits(value: str, path: Path, draft: Draft) -> bool:
    """Whether a raw value has no more parts than there is room for at the path."""
    marks = draft.marks
    levels = [] if path.whole else [marks.repetition]
    levels += [marks.component] if path.component else []
    levels += [marks.subcomponent] if path.sub else []
    return not any(mark and mark in value for mark in levels)


Write = Callable[[Draft, Here | None, str], None]


def writer(path: Path, around: Around) -> Write:
    """Writes a raw value at all places that a path means. Where the segment is not there, there is none."""
    find, repetition = lines(path, around), repetition_of(path, around)
    field, component = path.field, path.component

    if repetition is not None and path.whole:

        def write_field(draft: Draft, here: Here | None, raw: str) -> None:
            for line in find(draft, here):
                line.put(field, raw, draft.mark)

        return write_field

    first = component > 0 and repetition in (0, 1)

    def write(draft: Draft, here: Here | None, raw: str) -> None:
        for line in find(draft, here):
            fields = line.fields or line.cut(draft.mark)
            old = fields[field] if field < len(fields) else ""
            if first and (not (mark := draft.marks.repetition) or mark not in old):  # the usual one, in short
                line.put(field, _replaced(old, component, path.sub, raw, draft), draft.mark)
                continue
            line.put(field, within(old, path, places(old, repetition, draft, here), raw, draft), draft.mark)

    return write


def places(old: str, repetition: int | None, draft: Draft, here: Here | None) -> list[int]:
    """The repetitions to write to, from 0."""
    if repetition is None:
        return [here.repetition] if here else []
    count = len(repetitions(old, draft))
    if repetition == ALL:
        return list(range(count))
    return [count if repetition == MORE else max(repetition - 1, 0)]


def within(old: str, path: Path, places: list[int], raw: str, draft: Draft) -> str:
    marks = draft.marks
    found = old.split(marks.repetition) if marks.repetition else [old]
    for at in places:
        if at >= len(found):
            if not marks.repetition:
                raise Unmappable("no-delimiter", "MSH-2", f"a repetition separator, for {path.text}")
            found.extend([""] * (at + 1 - len(found)))
        found[at] = _replaced(found[at], path.component, path.sub, raw, draft) if path.component else raw
    return marks.repetition.join(found) if marks.repetition else found[0]


def _replaced(old: str, component: int, sub: int, raw: str, draft: Draft) -> str:
    """A repetition with one component, or a part of it, changed. A null is gone once it has parts."""
    if old == NULL:
        old = ""
    marks = draft.marks
    found = old.split(marks.component)
    found.extend([""] * (component - len(found)))
    if not sub:
        found[component - 1] = raw
        return marks.component.join(found)
    if not marks.subcomponent and sub > 1:
        raise Unmappable("no-delimiter", "MSH-2", "a subcomponent separator")
    inner = found[component - 1].split(marks.subcomponent) if marks.subcomponent else [found[component - 1]]
    inner.extend([""] * (sub - len(inner)))
    inner[sub - 1] = raw
    found[component - 1] = marks.subcomponent.join(inner) if marks.subcomponent else raw
    return marks.component.join(found)

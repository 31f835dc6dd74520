"""Lineage: what each element of an output is from, and what became of each value of the message.

A traced run notes, for every element that a row sets, the row and the places of the values. Afterwards these notes are
joined with the output, since an element may move into another resource or be dropped on the way, and with the message,
since what no note tells of went nowhere. Only places, rules and reasons are told, never values.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson

from engine.fhir.output import Output
from engine.hl7.escape import Delimiters
from engine.hl7.message import HEADERS, NULL
from engine.hl7.text_lines import TEXT, Joined
from engine.mapping.convert import text as text_of

if TYPE_CHECKING:
    from engine.mapping.run import Run

KEPT = "https://interlock.example/v2/"
"""Where the extensions of fields that FHIR has no place for have their names."""
Leaf = tuple[int, int, int, int, int]
"""A value of a message: segment from 0; field, repetition, component, subcomponent from 1. As a place, 0 is all."""


class Place(NamedTuple):
    """What a rule reads. slot: which of the segments around it; -1: the value that a data type's map was given. parts:
    field, component, subcomponent, or of a value component, subcomponent. turned: of one repetition at a time."""

    slot: int
    parts: tuple[int, ...]
    turned: bool


class First(NamedTuple):
    """The first that is valued."""

    options: tuple[Tree, ...]


class Every(NamedTuple):
    """All of them together."""

    parts: tuple[Tree, ...]


Tree = Place | First | Every


class Rule(NamedTuple):
    """A row, what it reads, and whether whole or the first leaf of each."""

    row: Any
    tree: Tree
    whole: bool


class Into(NamedTuple):
    """The notes of a function whose result, `made`, became part of `target`."""

    notes: list[Taken]
    made: Any
    target: Any


Taken = tuple[Any, str | None, Rule, tuple[Any, ...] | None, int]
"""What a rule has taken: the object and the element that it set, or the notes of a function that it called, and None;
the rule; the fields of the segments that it reads, None in a function; the repetition. The element is `` for the whole
object."""


@dataclass(frozen=True, slots=True)
class Origin:
    """An element, the places of the values it was made of, and the rule that made it.

    element: `Observation[2].valueQuantity.value`, the second Observation of the output. places: `OBX[2]-5[1].1`; a part
    that is left out stands for all. rule: `segments/OBX.yaml:12: OBX-5 -> value`.
    """

    element: str
    places: tuple[str, ...]
    rule: str


@dataclass(slots=True)
class Lineage:
    """Of one message. lost: the values that are in no element; left out on purpose or not, `Reasons` tells. used: the
    rows that have set something."""

    origins: list[Origin]
    lost: list[Leaf]
    lines: Sequence[str]
    delimiters: Delimiters
    used: list[Any] = field(default_factory=list)

    def path(self, leaf: Leaf) -> str:
        """`OBX[2]-5[1].1.1` of a leaf."""
        segment, turn = _segment(self.lines, *leaf[:3])
        return f"{segment}-{leaf[1]}[{turn}].{leaf[3]}.{leaf[4]}"

    def name(self, leaf: Leaf) -> str:
        """Its segment's."""
        return self.lines[leaf[0]][:3]


def turned(tree: Tree) -> Tree:
    """Of one repetition of each field."""
    match tree:
        case Place():
            return tree._replace(turned=True) if tree.slot >= 0 else tree
        case First():
            return First(tuple(map(turned, tree.options)))
        case Every():
            return Every(tuple(map(turned, tree.parts)))


def moved(tree: Tree, slots: Sequence[int]) -> Tree:
    """The same of other slots."""
    match tree:
        case Place():
            return tree._replace(slot=slots[tree.slot]) if tree.slot >= 0 else tree
        case First():
            return First(tuple(moved(one, slots) for one in tree.options))
        case Every():
            return Every(tuple(moved(one, slots) for one in tree.parts))


def lineage(state: Run, output: Output, lines: Sequence[str]) -> Lineage:
    """What a traced run tells. lines: the message's segments as they came."""
    homes, valued = _Homes(output, state.moves), list(values(lines, state.delimiters))
    there = _Valued(valued)
    origins: list[Origin] = []
    taken: set[Leaf] = set()
    for holder, key, rule, places in _unfolded(state, there):
        found = homes.path(holder, key) if places else None
        if found is None:
            continue
        taken.update(places)
        shown = tuple(_shown(lines, place) for place in places)
        origins.append(Origin(found, shown, f"{rule.row.place}: {getattr(rule.row, 'text', '')}".removesuffix(": ")))
    used = list({id(row): row for row in _used(state.trace)}.values())
    return Lineage(origins, [leaf for leaf in valued if not _is_taken(leaf, taken)], lines, state.delimiters, used)


def _used(notes: Iterable[Taken]) -> Iterator[Any]:
    """The rows of notes, those of functions that were called too."""
    for what, key, rule, _, _ in notes:
        yield rule.row
        if key is None and what:
            yield from _used((what.notes or ()) if isinstance(what, Into) else what)


def lost(state: Run, output: Output, lines: Sequence[str]) -> list[Leaf]:
    """The values that are in no element: as `lineage`, and not what is from where."""
    homes, valued = _Homes(output, state.moves), list(values(lines, state.delimiters))
    taken: set[Leaf] = set()
    for holder, key, _, places in _unfolded(state, _Valued(valued)):
        if homes.holds(holder, key):
            taken.update(places)
    return [leaf for leaf in valued if not _is_taken(leaf, taken)]


def keep(output: Output, state: Run, lines: Sequence[str], left: Iterable[Leaf]) -> None:
    """Put values that no rule took into extensions named after their fields: of the resource that most of their
    segment went into, else of the message's Provenance."""
    homes = _of_segments(output, state)
    last = next((entry.resource for entry in reversed(output.entries)), None)
    for leaf in left:
        segment, field, repetition, component, sub = leaf
        resource = homes.get(segment, last)
        if resource is None:
            continue
        marks = state.delimiters
        whole = lines[segment].split(marks.field)[field - (lines[segment][:3] in HEADERS)]
        part = whole.split(marks.repetition)[repetition - 1] if marks.repetition else whole
        text = part.split(marks.component)[component - 1]
        text = text.split(marks.subcomponent)[sub - 1] if marks.subcomponent else text
        kept = text_of(state.text(text), state)
        name = lines[segment][:3]
        if kept is None or not (name.isalnum() and name.isascii()):
            continue
        url = f"{KEPT}{name}-{field}.{component}.{sub}"
        resource["extension"] = [*resource.get("extension", ()), {"url": url, "valueString": kept}]


def _of_segments(output: Output, state: Run) -> dict[int, dict[str, Any]]:
    """The resource that the most elements made of a segment went into."""
    roots = {id(entry.resource): entry.resource for entry in output.entries}
    counts: dict[int, Counter[int]] = {}
    for what, _, _, segments, _ in state.trace:
        for fields in segments or ():
            if id(fields) in state.places and id(what) in roots:
                counts.setdefault(state.places[id(fields)], Counter())[id(what)] += 1
    return {segment: roots[count.most_common(1)[0][0]] for segment, count in counts.items()}


class _Valued:
    """Whether there is a value at a place of a message."""

    def __init__(self, valued: Iterable[Leaf]) -> None:
        self._places: set[Leaf] | None = None
        self._valued = valued

    def __call__(self, place: Leaf) -> bool:
        if self._places is None:
            self._places = {
                (s, f, r if turns else 0, c if parts else 0, u if subs else 0)
                for s, f, r, c, u in self._valued
                for turns, parts, subs in _MASKS
            }
        return place in self._places


_MASKS = [(turns, parts, subs) for turns in (0, 1) for parts in (0, 1) for subs in (0, 1)]


def _unfolded(state: Run, there: _Valued) -> Iterator[tuple[Any, str, Rule, list[Leaf]]]:
    """Every note with the places that it is of."""
    known = state.places
    for what, key, rule, segments, turn in state.trace:
        numbers = [known.get(id(fields), -1) for fields in segments or ()]
        places = [place for place in _places(rule.tree, numbers, turn, rule.whole, (), there) if place[0] >= 0]
        if key is not None:
            yield what, key, rule, places
        elif what:
            yield from _inner(what, places, there)


def _inner(notes: list[Taken] | Into, base: list[Leaf], there: _Valued) -> Iterator[tuple[Any, str, Rule, list[Leaf]]]:
    """The notes of a function, of the value at some places or of the fields of a segment."""
    made: Any = None
    target: Any = None
    if isinstance(notes, Into):
        notes, made, target = notes
    for what, key, rule, _, turn in notes or ():
        if target is not None and what is made:
            what = target
        places = _places(rule.tree, [base[0][0]] if base else [], turn, rule.whole, base, there) if base else []
        if key is not None:
            yield what, key, rule, places
        elif what:
            yield from _inner(what, places, there)


def _places(tree: Tree, numbers: list[int], turn: int, whole: bool, base: Sequence[Leaf], there: _Valued) -> list[Leaf]:
    match tree:
        case Place(slot, parts, turned):
            if slot >= 0:
                field, component, sub = (*parts, 0, 0)[:3]
                repetition = turn if turned else 0 if whole and not component else 1
                found = [(numbers[slot], field, repetition, component, sub)]
            else:
                found = [_within(place, parts) for place in base]
            return found if whole else [(s, f, r or 1, c or 1, u or 1) for s, f, r, c, u in found]
        case First(options):
            for option in options:
                places = _places(option, numbers, turn, whole, base, there)
                if any(map(there, places)):
                    return places
            return []
        case Every(inner):
            return [place for one in inner for place in _places(one, numbers, turn, whole, base, there)]


def _within(place: Leaf, parts: tuple[int, ...]) -> Leaf:
    """A part of a value at a place."""
    segment, field, repetition, component, sub = place
    for part in parts:
        if not component:
            component = part
        else:
            sub = part
    return segment, field, repetition, component, sub


def values(lines: Iterable[str], delimiters: Delimiters) -> Iterator[Leaf]:
    """All values of a message that are not empty or null, but for MSH-1 and MSH-2."""
    _, split, again, _, sub = delimiters
    for segment, line in enumerate(lines):
        fields = line.split(delimiters.field)
        header = fields[0] in HEADERS
        if header:
            fields.insert(1, "")
        for number in range(3 if header else 1, len(fields)):
            if field := fields[number]:
                for turn, repetition in enumerate(field.split(again) if again else (field,), 1):
                    yield from _parts(segment, number, turn, repetition, split, sub)


def _parts(segment: int, field: int, turn: int, text: str, split: str, sub: str) -> Iterator[Leaf]:
    for number, component in enumerate(text.split(split), 1):
        if component:
            for place, leaf in enumerate(component.split(sub) if sub else (component,), 1):
                if leaf and leaf != NULL and not leaf.isspace():
                    yield segment, field, turn, number, place


def _is_taken(leaf: Leaf, taken: set[Leaf]) -> bool:
    """Whether a note is of it, or of more around it."""
    segment, field, repetition, component, sub = leaf
    return (
        leaf in taken
        or (segment, field, repetition, component, 0) in taken
        or (segment, field, repetition, 0, 0) in taken
        or (segment, field, 0, 0, 0) in taken
        or (segment, field, 0, component, sub) in taken
        or (segment, field, 0, component, 0) in taken
    )


class _Homes:
    """Where the objects of an output stand. moves: what became part of what."""

    def __init__(self, output: Output, moves: Iterable[tuple[Any, Any]]) -> None:
        self._paths: dict[int, str] = {}
        self._objects: list[dict[str, Any]] = []
        self._moves = {id(old): new for old, new in moves}
        self._equal: dict[bytes, str] = {}
        counts: dict[str, int] = {}
        for entry in output.entries:
            count = counts[entry.type] = counts.get(entry.type, 0) + 1
            self._stand(entry.resource, f"{entry.type}[{count}]")

    def path(self, holder: Any, key: str) -> str | None:
        """Of an element that was set, None where it is in no resource any more."""
        for _ in range(len(self._moves) + 1):
            found = self._paths.get(id(holder))
            if found is not None and not key:  # the whole
                return found
            if found is not None:
                return f"{found}.{key}" if key in holder else None
            if id(holder) not in self._moves:
                break
            holder = self._moves[id(holder)]
        equal = self._like(holder)  # what two rows make alike stands there once
        return f"{equal}.{key}" if equal else None

    def holds(self, holder: Any, key: str) -> bool:
        """Whether `path` tells one."""
        return self.path(holder, key) is not None

    def _stand(self, value: Any, path: str) -> None:
        if isinstance(value, dict):
            self._paths.setdefault(id(value), path)
            self._objects.append(value)
            for key, inner in value.items():
                if isinstance(inner, dict | list):
                    self._stand(inner, f"{path}.{key}")
        elif isinstance(value, list):
            for number, inner in enumerate(value):
                if isinstance(inner, dict):
                    self._stand(inner, f"{path}[{number}]")

    def _like(self, holder: dict[str, Any]) -> str | None:
        """The path of an object that is equal to one that was dropped."""
        if not self._equal:
            for one in self._objects:
                self._equal.setdefault(_content(one), self._paths[id(one)])
        return self._equal.get(_content(holder)) if holder else None


def _content(value: dict[str, Any]) -> bytes:
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)


def first_origin(lines: Sequence[str], number: int) -> int:
    """The number that a segment came with."""
    return lines.origins[number][0] if isinstance(lines, Joined) else number


def _segment(lines: Sequence[str], number: int, field: int, turn: int) -> tuple[str, int]:
    """A segment as it came, `OBX[2]`, and the repetition of the field in it: of a text each line may be another's."""
    if not isinstance(lines, Joined):
        name = lines[number][:3]
        return f"{name}[{sum(line[:3] == name for line in lines[: number + 1])}]", turn
    at, origins = lines.origins[number][0], lines.origins[number]
    if field == TEXT and 0 < turn <= len(origins):
        at = origins[turn - 1]
        turn -= origins.index(at)
    name = lines.names[at]
    return f"{name}[{lines.names[: at + 1].count(name)}]", turn


def _shown(lines: Sequence[str], place: Leaf) -> str:
    number, field, turn, component, sub = place
    segment, turn = _segment(lines, number, field, turn)
    again = f"[{turn}]" if turn else ""
    return f"{segment}-{field}{again}" + "".join(f".{part}" for part in (component, sub) if part)

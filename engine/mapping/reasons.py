"""Why a value is in no element of the output: read from the rows that could have taken it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Set
from dataclasses import dataclass

from engine.mapping.expression import Path, This, Value, paths
from engine.mapping.files import Files
from engine.mapping.model import Assign, First, Include, Kept, Map, Nothing, Row, Switch, When, under


@dataclass(frozen=True, slots=True)
class Reason:
    """kind: `left-out` (on purpose), `key` (it is what a resource is found by), `unread` (no rule reads it),
    `not-taken` (a rule did not apply)."""

    kind: str
    text: str


class Reasons:
    """Tells them for the messages of one mapping."""

    def __init__(
        self, files: Files, used: set[str], rows: tuple[Row, ...], segments: Set[str], keys: Iterable[Path] = ()
    ) -> None:
        """used: names of the maps. rows: of the message itself. segments: those of its grammar. keys: what the keys of
        its resources are made of."""
        self._files, self._segments = files, segments
        maps = [one for one in files.maps.values() if one.name in used and one.of_segment]
        self._keys = list(keys)
        self._conditional: set[int] = set()
        self._readers: dict[tuple[str, int], list[Row]] = {}
        for row in self._flat([*rows, *(row for one in maps for row in one.rows)]):
            for place in {(path.owner, path.field) for path in _paths(row)}:
                self._readers.setdefault(place, []).append(row)

    def why(self, segment: str, field: int, component: int, sub: int) -> Reason:
        """Why a value at a place is lost, if it is."""
        if segment not in self._segments:
            return Reason("unread", f"{segment} has no place in this message")
        reading = self._readers.get((segment, field), [])
        if not reading:
            for path in self._keys:
                if _fits(path, segment, field, component):
                    return Reason("key", f"it is in a resource's key ({path.place})")
            return Reason("unread", f"no rule reads {segment}-{field}")
        exact = [row for row in reading if any(_fits(path, segment, field, component) for path in _paths(row))]
        if not exact:
            return Reason("unread", f"no rule reads {segment}-{field}.{component}")
        taking = [row for row in exact if isinstance(row, Assign) and row.use is not None and not _condition(row)]
        if taking:  # that another rule has the field says nothing of the parts that its map does not take
            exact = [row for row in exact if not isinstance(row, Nothing) or self._is_of_a_case(row)]
        return self._best([self._told(row, component, sub) for row in exact])

    def _is_of_a_case(self, row: Nothing) -> bool:
        """Whether it is of a part, or stands under a condition: then it speaks of what no other rule has."""
        return id(row) in self._conditional or any(path.component for path in _paths(row))

    def _best(self, found: list[Reason]) -> Reason:
        order = {"left-out": 0, "not-taken": 1, "unread": 2}
        return min(found, key=lambda one: order[one.kind])

    def _told(self, row: Row, component: int, sub: int) -> Reason:
        place = str(row.place)
        if isinstance(row, Nothing):
            return Reason("left-out", f"{row.reason or 'it says nothing'} ({place})")
        whole = isinstance(row, Assign) and all(not p.component for v in row.values for p in paths(v))
        if isinstance(row, Assign) and row.use is not None and whole:
            inner = self._files.maps.get(row.use.name)
            if inner is not None and not inner.of_segment:
                found = self._in_type(inner, component, sub, place)
                return found if found.kind == "left-out" or not _condition(row) else self._not_taken(row)
        for one in self._flat(row.rows) if isinstance(row, Assign) and whole else ():
            inner = self._files.maps.get(one.use.name) if isinstance(one, Assign) and one.use else None
            if inner is not None and _passes_on(one):
                found = self._in_type(inner, component, sub, place)
                if found.kind == "left-out":
                    return found
        return self._not_taken(row)

    def _not_taken(self, row: Row) -> Reason:
        when = f", which is for when {_condition(row)}" if _condition(row) else ""
        return Reason("not-taken", f"the rule at {row.place}{when} did not take it")

    def _in_type(self, found: Map, component: int, sub: int, place: str) -> Reason:
        """Of a part of a value that a data type's map takes apart."""
        owner = f"{found.owner}."
        reading = [
            row
            for row in self._flat(found.rows)
            if _passes_on(row)
            or any(
                path.owner == owner and path.field == component and path.component in (0, sub) for path in _paths(row)
            )
        ]
        if not reading:
            return Reason("unread", f"no rule of {found.name} reads {owner}{component} ({place})")
        reasons = []
        for row in reading:
            if isinstance(row, Assign) and row.use is not None:
                inner = self._files.maps.get(row.use.name)
                if inner is not None:
                    parts = (component, sub) if _passes_on(row) else (sub, 0)
                    reasons.append(self._in_type(inner, *parts, str(row.place)))
                    continue
            reasons.append(self._told(row, sub, 0))
        return self._best(reasons)

    def _flat(self, rows: Iterable[Row]) -> Iterator[Row]:
        for row in rows:
            inner = list(under(row))
            match row:
                case Assign() | Nothing() | Kept():
                    yield row
                case When() | First() | Switch():
                    self._conditional |= {id(one) for one in inner if isinstance(one, Nothing)}
                case Include():
                    found = self._files.maps.get(row.name)
                    inner.extend(found.rows if found else ())
            yield from self._flat(inner)


def _passes_on(row: Row) -> bool:
    """Whether a row of a data type's map gives the whole value to another."""
    return isinstance(row, Assign) and row.use is not None and any(isinstance(value, This) for value in row.values)


def _condition(row: Row) -> str:
    _, _, found = getattr(row, "text", "").partition(" when ")
    return found


def _paths(row: Row) -> list[Path]:
    values: tuple[Value, ...] = row.values if isinstance(row, Assign | Nothing | Kept) else ()
    return [path for value in values for path in paths(value)]


def _reads(path: Path, segment: str, field: int) -> bool:
    return path.owner == segment and path.field == field


def _fits(path: Path, segment: str, field: int, component: int) -> bool:
    return _reads(path, segment, field) and path.component in (0, component)

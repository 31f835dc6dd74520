"""Which rules the examples have used: a row that set something, or that leaves out a field that had a value."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from engine.mapping.expression import paths
from engine.mapping.files import Files
from engine.mapping.model import (
    Assign,
    Build,
    Constant,
    Include,
    Kept,
    MessageMap,
    Nothing,
    Row,
    under,
)
from engine.mapping.problems import Place

Spot = tuple[str, int, int]
"""Where a row stands: file, line, column."""


@dataclass(frozen=True, slots=True)
class Covered:
    """The rows of one mapping, with all maps that it uses; of these, the ones that no example has used."""

    mapping: str
    rows: int
    unused: tuple[tuple[Place, str], ...]

    @property
    def percent(self) -> float:
        return 100 * (self.rows - len(self.unused)) / self.rows if self.rows else 100.0


class RuleCoverage:
    """Collects what the examples of some mappings use. A row that two mappings share is used where either has used it:
    it is one rule."""

    def __init__(self, files: Files) -> None:
        self._files = files
        self._used: set[Spot] = set()
        self._left: set[str] = set()

    def add(self, used: Iterable[Row], left: Iterable[str]) -> None:
        """What one example used. left: the places of rows that left a value out, and fields that have a value."""
        self._used.update(_spot(row.place) for row in used)
        self._left.update(left)

    def of(self, message: MessageMap) -> Covered:
        """Of one mapping."""
        rows = {_spot(row.place): row for row in self.rows(message)}
        unused = [row for spot, row in rows.items() if not self._has(spot, row)]
        unused.sort(key=lambda row: _spot(row.place))
        return Covered(message.name, len(rows), tuple((row.place, text_of(row)) for row in unused))

    def _has(self, spot: Spot, row: Row) -> bool:
        if not isinstance(row, Nothing):
            return spot in self._used
        read = {f"{path.owner}-{path.field}" for value in row.values for path in paths(value)}
        return bool(self._left & {str(row.place), *read})

    def rows(self, message: MessageMap) -> Iterator[Row]:
        """All rows of a mapping that do something, in its own blocks and in the maps that it uses."""
        seen: set[str] = set()
        for block in message.blocks:
            for name, *_ in block.maps:
                yield from self._map(name[name.rfind(".", 0, name.find("[")) + 1 :], seen)
            yield from self._rows(block.rows, seen)

    def _map(self, name: str, seen: set[str]) -> Iterator[Row]:
        found = self._files.maps.get(name)
        if found is not None and name not in seen:
            seen.add(name)
            yield from self._rows(found.rows, seen)

    def _rows(self, rows: Iterable[Row], seen: set[str]) -> Iterator[Row]:
        for row in rows:
            if isinstance(row, Assign | Build | Constant | Kept | Nothing):
                yield row
            yield from self._rows(under(row), seen)
            match row:
                case Assign() if row.use is not None:
                    yield from self._map(row.use.name, seen)
                case Include():
                    yield from self._map(row.name, seen)


def text_of(row: Row) -> str:
    """A row as it is written, in short."""
    if isinstance(row, Nothing):
        return f"{', '.join(map(str, row.values))} -> nothing"
    return str(getattr(row, "text", ""))


def _spot(place: Place) -> Spot:
    return place.file, place.line, place.column

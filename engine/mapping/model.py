"""What mapping files say, as data: rows, maps, tables, decisions, messages. Read, but no name looked up yet."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from engine.hl7.group import Node
from engine.mapping.expression import Condition, Name, Path, Template, Text, Value, paths
from engine.mapping.problems import Place
from engine.mapping.source import Source


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a FHIR path. url: for `extension(name)`, the name or quoted url."""

    name: str
    url: str
    place: Place


@dataclass(frozen=True, slots=True)
class Target:
    """A FHIR path relative to what the rows fill. Empty for `.`, the thing itself."""

    steps: tuple[Step, ...]
    place: Place

    def __str__(self) -> str:
        return ".".join(f"{s.name}({s.url})" if s.url else s.name for s in self.steps) or "."


@dataclass(frozen=True, slots=True)
class Use:
    """`as CX[Identifier]('patient')`: a map or a built-in, with arguments."""

    name: str
    arguments: tuple[Value, ...]
    place: Place


@dataclass(frozen=True, slots=True)
class Assign:
    """`PID-8 -> gender table AdministrativeSex when …`, perhaps with rows of its own."""

    values: tuple[Value, ...]
    target: Target
    use: Use | None
    table: tuple[str, Place] | None
    decide: tuple[str, Place] | None
    when: Condition | None
    rows: tuple[Row, ...]
    needs: tuple[str, ...]
    place: Place
    text: str


@dataclass(frozen=True, slots=True)
class Constant:
    """`status = final`, `type = participation#ATND "attender"`. system is `` for a plain value."""

    target: Target
    system: str
    code: str
    display: str
    when: Condition | None
    place: Place
    text: str


@dataclass(frozen=True, slots=True)
class Build:
    """`valueQuantity needs value:` with rows that fill it."""

    target: Target
    rows: tuple[Row, ...]
    needs: tuple[str, ...]
    when: Condition | None
    place: Place
    text: str


@dataclass(frozen=True, slots=True)
class Nothing:
    """`PID-1 -> nothing: why`: read by a person, and deliberately not mapped."""

    values: tuple[Value, ...]
    reason: str
    place: Place


@dataclass(frozen=True, slots=True)
class Kept:
    """`PV1-20 -> kept`: FHIR has no place for it, so it stays whole in an extension named after the field."""

    values: tuple[Path, ...]
    when: Condition | None
    reason: str
    place: Place
    text: str


@dataclass(frozen=True, slots=True)
class Switch:
    """`switch OBX-2:` with rows by code; `else` for the rest."""

    value: Value
    cases: tuple[tuple[tuple[str, ...], tuple[Row, ...]], ...]
    otherwise: tuple[Row, ...]
    place: Place


@dataclass(frozen=True, slots=True)
class First:
    """`first:` rows of which the first that yields something is taken."""

    options: tuple[Row, ...]
    place: Place


@dataclass(frozen=True, slots=True)
class Include:
    """`include OBX[Value]`: the rows of another map, here."""

    name: str
    place: Place


@dataclass(frozen=True, slots=True)
class When:
    """`when …:` with rows that share the condition."""

    condition: Condition
    rows: tuple[Row, ...]
    place: Place


Row = Assign | Constant | Build | Nothing | Kept | Switch | First | Include | When


def under(row: Row) -> Iterator[Row]:
    """The rows right under a row."""
    match row:
        case Assign() | Build() | When():
            yield from row.rows
        case First():
            yield from row.options
        case Switch():
            for _, inner in row.cases:
                yield from inner
            yield from row.otherwise


def every_row(rows: Iterable[Row]) -> Iterator[Row]:
    """All rows, those under others too."""
    for row in rows:
        yield row
        yield from every_row(under(row))


def read_by(rows: tuple[Row, ...]) -> Iterator[Path]:
    """All paths that rows read, in values; those of conditions alone are not among them."""
    for row in every_row(rows):
        match row:
            case Assign() | Nothing() | Kept():
                yield from (path for value in row.values for path in paths(value))
            case Switch():
                yield from paths(row.value)


def referred(rows: tuple[Row, ...]) -> Iterator[Name]:
    """All names that rows set elements to."""
    for row in every_row(rows):
        if isinstance(row, Assign):
            yield from (value for value in row.values if isinstance(value, Name))


@dataclass(frozen=True, slots=True)
class Key:
    """A way to identify a resource: by its identifiers (of a type), or a template in a system of the connection's."""

    system: str
    type: str
    value: Text | Template | None
    place: Place


@dataclass(frozen=True, slots=True)
class Map:
    """A segment's or data type's map. Of a resource, it also says how that is found again.

    of_segment: it reads a segment's fields, not a data type's components.
    """

    name: str
    owner: str
    target: str
    rows: tuple[Row, ...]
    cached: bool
    entry: str
    source: Source
    place: Place
    of_segment: bool
    takes: tuple[str, ...] = ()
    beside: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    keys: tuple[Key, ...] = ()
    update: str = "fill"
    keyless: str = "display"
    display: Value | None = None


@dataclass(frozen=True, slots=True)
class Table:
    """Code → (code, display). systems: of the targets that are not of `system`, each a URI or a name for one; "" is
    that of `otherwise`. by_system: the keys of some codes have their own system too (`code_tables.MARK`). form: of a
    table in a CSV file its columns, and what stands between them."""

    name: str
    system: str
    codes: dict[str, tuple[str, str]]
    places: dict[str, Place]
    otherwise: tuple[str, str] | None
    source: Source
    place: Place
    systems: dict[str, str] = field(default_factory=dict)
    by_system: bool = False
    form: tuple[tuple[str, ...], str] | None = None

    def codings(self, named: Mapping[str, str]) -> dict[str, dict[str, str]]:
        """Each code as a FHIR Coding. named: the URIs of systems by name."""
        return {code: self._coding(code, *target, named) for code, target in self.codes.items() if target[0]}

    def other(self, named: Mapping[str, str]) -> dict[str, str] | None:
        """What all other codes become."""
        return self._coding("", *self.otherwise, named) if self.otherwise and self.otherwise[0] else None

    def _coding(self, code: str, target: str, display: str, named: Mapping[str, str]) -> dict[str, str]:
        system = self.systems.get(code, self.system)
        return {"system": named.get(system, system), "code": target} | ({"display": display} if display else {})


@dataclass(frozen=True, slots=True)
class Decision:
    """Rows of cells, the first that fits decides. A cell is `any`, `valued`, `empty`, or codes."""

    name: str
    inputs: tuple[str, ...]
    rows: tuple[tuple[tuple[tuple[str, ...], ...], str, Place], ...]
    otherwise: str
    source: Source
    place: Place


@dataclass(frozen=True, slots=True)
class Option:
    """What a channel may choose: one of some words."""

    name: str
    of: tuple[str, ...]
    chosen: str
    about: str
    source: Source


@dataclass(frozen=True, slots=True)
class Block:
    """A resource of a message: where it is made from, of what, and what it is known by."""

    id: str
    entry: str
    scope: tuple[str, Place]
    make: tuple[str, Place]
    role: str
    update: str
    when: Condition | None
    maps: tuple[tuple[str, Place, Condition | None], ...]
    rows: tuple[Row, ...]
    keys: tuple[Key, ...]
    keyless: str
    lets: tuple[tuple[str, Value], ...]
    event: Value | None
    drops: tuple[tuple[str, Place], ...]
    apart: tuple[str, Place] | None
    becomes: Condition | None
    series: tuple[str, Place] | None
    formerly: tuple[Key, ...]
    place: Place


@dataclass(slots=True)
class MessageMap:
    """A message structure: what it is called on the wire, its groups, its resources in the order of the output.
    joined: whether texts that come a line each are put together. named: that it is only for channels that name it."""

    name: str
    accepts: tuple[str, ...]
    root: Node
    blocks: list[Block]
    source: Source
    place: Place
    lets: tuple[tuple[str, Value], ...] = field(default=())
    joined: bool = False
    named: bool = False

"""What the rules of all mappings set, element by element, and from which fields: for comparing them with other tables.

Rules are followed through the maps that they use: `PID-3 -> identifier as CX[Identifier]` sets `identifier.value` of a
Patient, and it reads PID-3, and CX.1 of it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import reduce

from engine.mapping.expression import Call, Condition, Else, Logic, Name, Path, Template, Test, Text, This, Value
from engine.mapping.files import Files
from engine.mapping.model import (
    Assign,
    Block,
    Build,
    Constant,
    First,
    Include,
    Kept,
    MessageMap,
    Nothing,
    Row,
    Switch,
    Target,
    When,
)
from engine.mapping.problems import Place
from engine.mapping.schema import Schema

NOTHING: frozenset[str] = frozenset()
KEPT = "kept"


@dataclass(frozen=True, slots=True)
class Step:
    """One element on a path. owner: the type that has it. url: the end of an extension's. choice: `value` of a
    valueQuantity."""

    owner: str
    name: str
    url: str
    choice: str


@dataclass(frozen=True, slots=True)
class Setting:
    """An element that a rule sets. reads: `PID-3`, `CX.1`. of: the segments and data types whose maps it stands in.
    type: of the element. whole: with all that is in it. inner: the row of the data type's map. code: where it is a
    constant; when: the codes that this is for."""

    reads: frozenset[str]
    of: frozenset[str]
    steps: tuple[Step, ...]
    type: str
    whole: bool
    rule: str
    inner: str = ""
    code: str = ""
    when: frozenset[str] = NOTHING
    table: str = ""
    decision: str = ""


@dataclass(frozen=True, slots=True)
class Left:
    """A field that is left out on purpose, in a map that makes `type`. types: those of the resources that refer to
    it."""

    reads: frozenset[str]
    type: str
    types: tuple[str, ...]
    reason: str
    place: Place


@dataclass(frozen=True, slots=True)
class _Here:
    """Where rows stand. this: what the row around them walks over, with its types. seen: what the conditions around
    them read; when: the codes they ask for. names: what names in scope read. blocks: types of
    the message's resources, by name."""

    type: str
    steps: tuple[Step, ...] = ()
    of: frozenset[str] = NOTHING
    this: frozenset[str] = NOTHING
    types: frozenset[str] = NOTHING
    seen: frozenset[str] = NOTHING
    when: frozenset[str] = NOTHING
    root: str = ""
    names: Mapping[str, frozenset[str]] | None = None
    blocks: Mapping[str, str] | None = None
    varies: frozenset[str] = NOTHING


class Elements:
    """Of all messages. segments: those whose maps are used. types: the data types of values that vary. links: from
    which element of a resource (as its steps) a resource of which type is referred to."""

    def __init__(self, files: Files, schema: Schema, types: Mapping[str, str]) -> None:
        """types: of fields and components, as far as they are known: `PID-3` is a CX."""
        self._files, self._schema, self._types = files, schema, types
        self._maps: dict[str, tuple[Setting, ...]] = {}
        self.left: list[Left] = []
        self.segments: set[str] = set()
        self.types: set[str] = set()
        self.links: set[tuple[tuple[tuple[str, str], ...], str]] = set()
        self.settings: list[Setting] = []
        for message in files.messages.values():
            self.segments |= {name for name in message.root.names() if len(name) == 3}
        known: set[Setting] = set()
        for message in files.messages.values():
            for block in message.blocks:
                for one in self._block(message, block):
                    if one not in known:
                        known.add(one)
                        self.settings.append(one)

    @staticmethod
    def tail(url: str) -> str:
        """The end of an extension's url, by which it is known however the url is written."""
        name = re.split(r"[/#]", url.strip().rstrip("."))[-1].removesuffix(".html").lower()
        return name.removeprefix("extension-").replace("-", "")

    # -- messages

    def _block(self, message: MessageMap, block: Block) -> Iterator[Setting]:
        of = frozenset(re.split(r"[.\[]", name.partition("[")[0])[-1] for name, *_ in block.maps)
        of |= {block.scope[0].rpartition(".")[2]}
        for name, *_ in block.maps:
            yield from self.map(re.sub(r"^.*\.(?=[A-Z0-9]+\[)", "", name))
        names: dict[str, frozenset[str]] = {}
        for name, value in (*message.lets, *block.lets):
            names[name] = self._reads(value, _Here("", names=names))
        blocks = {one.id: one.make[0] for one in message.blocks}
        here = _Here(block.make[0], of=of, root=block.make[0], names=names, blocks=blocks)
        yield from self._object(block.rows, here, False)

    def _link(self, steps: tuple[Step, ...], to: str) -> None:
        """Resources of a type are referred to from an element."""
        self.links.add((tuple((step.owner, step.name) for step in steps), to))

    # -- maps

    def map(self, name: str) -> tuple[Setting, ...]:
        """What a map sets, with all maps that it uses."""
        if name not in self._maps:
            self._maps[name] = ()  # for one that uses itself
            found = self._files.maps.get(name)
            if found is not None:
                here = _Here(found.target, of=frozenset({found.owner}), root=found.target)
                self._maps[name] = tuple(self._object(found.rows, here, not found.of_segment))
        return self._maps[name]

    def _object(self, rows: tuple[Row, ...], here: _Here, beside: bool) -> Iterator[Setting]:
        """Rows that fill one thing. beside: its constants are written where other rows have set something."""
        flat = list(self._flat(rows, here))
        made = [one for row, at in flat if not isinstance(row, Constant) for one in self._row(row, at)]
        yield from made
        others = reduce(frozenset.union, (one.reads for one in made), NOTHING) if beside else NOTHING
        for row, at in flat:
            if isinstance(row, Constant):
                yield from self._constant(row, at, others)

    def _flat(self, rows: Iterable[Row], here: _Here) -> Iterator[tuple[Row, _Here]]:
        """Rows without what groups them."""
        for row in rows:
            match row:
                case When():
                    yield from self._flat(row.rows, self._if(row.condition, here))
                case First():
                    yield from self._flat(row.options, here)
                case Switch():
                    seen = here.seen | self._reads(row.value, here)
                    varies = str(row.value) == "OBX-2" or getattr(row.value, "field", 0) == 2
                    for codes, inner in row.cases:
                        at = replace(here, seen=seen, when=here.when | set(codes))
                        if varies and getattr(row.value, "owner", "") == "OBX":
                            at = replace(at, varies=frozenset(codes))
                            self.types |= set(codes)
                        yield from self._flat(inner, at)
                    yield from self._flat(row.otherwise, replace(here, seen=seen))
                case Include():
                    found = self._files.maps.get(row.name)
                    if found is not None:
                        yield from self._flat(found.rows, replace(here, of=here.of | {found.owner}))
                case _:
                    when = getattr(row, "when", None)
                    yield row, self._if(when, here) if when is not None else here

    def _if(self, condition: Condition, here: _Here) -> _Here:
        reads, codes = self._asked(condition, here)
        return replace(here, seen=here.seen | reads, when=here.when | codes)

    def _asked(self, condition: Condition, here: _Here) -> tuple[frozenset[str], frozenset[str]]:
        if isinstance(condition, Logic):
            found = [self._asked(one, here) for one in condition.parts]
            return frozenset().union(*(r for r, _ in found)), frozenset().union(*(c for _, c in found))
        assert isinstance(condition, Test)
        codes = {one.text for one in condition.options if isinstance(one, Text)} if not condition.negated else set()
        return self._reads(condition.value, here), frozenset(codes)

    # -- rows

    def _row(self, row: Row, here: _Here) -> Iterator[Setting]:
        match row:
            case Assign():
                yield from self._assign(row, here)
            case Build():
                steps, type = self._target(row.target, here.type)
                inner = replace(here, type=type, steps=here.steps + steps)
                yield from self._object(row.rows, inner, True)
            case Kept():
                step = Step(here.type, "extension", KEPT, "")
                for path in row.values:
                    reads = self._reads(path, here)
                    yield Setting(reads, here.of, (*here.steps, step), "Extension", True, _rule(row))
            case Nothing():
                reads = reduce(frozenset.union, (self._reads(value, here) for value in row.values), NOTHING)
                types = tuple({step.owner for step in here.steps} | {here.root})
                self.left.append(Left(reads, here.type, types, row.reason, row.place))

    def _constant(self, row: Constant, here: _Here, others: frozenset[str]) -> Iterator[Setting]:
        steps, type = self._target(row.target, here.type)
        reads = here.seen | here.this | others
        yield Setting(reads, here.of, here.steps + steps, type, True, _rule(row), "", row.code, here.when)

    def _assign(self, row: Assign, here: _Here) -> Iterator[Setting]:
        reads = reduce(frozenset.union, (self._reads(value, here) for value in row.values), NOTHING)
        types = self._types_of(row.values[0], here)
        steps, type = self._target(row.target, here.type)
        full = here.steps + steps
        for value in row.values:
            if isinstance(value, Name) and value.name in (here.blocks or {}):
                self._link(full, (here.blocks or {})[value.name])
        if row.use is not None:
            yield from self._used(row, reads, types, full, here)
            return
        if row.rows:
            inner = replace(here, type=type, steps=full, this=reads, types=types)
            yield from self._object(row.rows, inner, True)
            return
        if not reads:
            reads = here.seen | here.this
        reads |= {f"{one}.1" for one in types}
        primitive = type[:1].islower()
        table = row.table[0] if row.table else ""
        decision = row.decide[0] if row.decide else ""
        code = row.values[0].text if isinstance(row.values[0], Text) else ""
        yield Setting(reads, here.of, full, type, not primitive, _rule(row), "", code, here.when, table, decision)

    def _used(
        self, row: Assign, reads: frozenset[str], types: frozenset[str], full: tuple[Step, ...], here: _Here
    ) -> Iterator[Setting]:
        """What the map that a row uses sets, as part of what the row sets."""
        assert row.use is not None
        found = self._files.maps.get(row.use.name)
        if found is None:
            return
        if self._schema.is_resource(found.target) and full:
            self._link(full, found.target)
        table = row.table[0] if row.table else ""
        for one in self.map(found.name):
            read = one.reads or reads  # of a constant among rows that the fields are for
            if not found.of_segment:
                read = one.reads | reads | _renamed(one.reads, found.owner, types)
            coded = table if one.steps and one.steps[-1].name in ("code", "coding") else one.table
            rule = _rule(row) if not found.of_segment else one.rule
            yield Setting(
                read, one.of | here.of, full + one.steps, one.type, one.whole, rule, one.inner or one.rule, one.code,
                one.when | here.when, coded, one.decision,
            )  # fmt: skip

    # -- values and targets

    def _target(self, target: Target, owner: str) -> tuple[tuple[Step, ...], str]:
        """The steps of a path, and the type of its end."""
        steps = []
        for number, one in enumerate(target.steps):
            element = self._schema.element(owner, one.name)
            if element is None:
                break
            url = one.url[1:-1] if one.url[:1] in "'\"" else self._files.extensions.get(one.url, one.url)
            steps.append(Step(owner, one.name, self.tail(url), element.choice))
            last = number == len(target.steps) - 1
            owner = "Element" if element.primitive and not last else element.type
        return tuple(steps), owner

    def _reads(self, value: Value, here: _Here) -> frozenset[str]:
        match value:
            case Path():
                return frozenset(self._places(value)) | self._varied(value, here)
            case This():
                return here.this
            case Name():
                return (here.names or {}).get(value.name, NOTHING)
            case Template():
                inner = (self._reads(part[0], here) for part in value.parts if not isinstance(part, str))
                return reduce(frozenset.union, inner, NOTHING)
            case Call():
                return reduce(frozenset.union, (self._reads(one, here) for one in value.arguments), NOTHING)
            case Else():
                return reduce(frozenset.union, (self._reads(one, here) for one in value.options), NOTHING)
        return NOTHING

    def _places(self, path: Path) -> Iterator[str]:
        """`PID-3`, and for a component of it `CX.4` as well, and so on."""
        place = f"{path.owner}{path.field}" if path.dotted else f"{path.owner}-{path.field}"
        yield place
        for part in (path.component, path.sub):
            owner = self._types.get(place)
            if not part or owner is None:
                return
            place = f"{owner}.{part}"
            yield place

    def _varied(self, path: Path, here: _Here) -> frozenset[str]:
        """What a component of OBX-5 is in the data types that the value may have here."""
        if path.owner != "OBX" or path.field != 5 or not path.component:
            return NOTHING
        return frozenset(f"{one}.{path.component}" for one in here.varies)

    def _types_of(self, value: Value, here: _Here) -> frozenset[str]:
        """The data types that a value may have."""
        if isinstance(value, This):
            return here.types
        if isinstance(value, Else):
            return reduce(frozenset.union, (self._types_of(one, here) for one in value.options), NOTHING)
        if isinstance(value, Call):
            return reduce(frozenset.union, (self._types_of(one, here) for one in value.arguments), NOTHING)
        if isinstance(value, Path):
            if value.owner == "OBX" and value.field == 5 and not value.component:
                return here.varies
            found = self._types.get(list(self._places(value))[-1])
            exact = value.component == 0 or value.dotted or found is not None
            return frozenset({found}) if found and exact else NOTHING
        return NOTHING


def _renamed(reads: frozenset[str], owner: str, types: frozenset[str]) -> frozenset[str]:
    """The same components of the data types that the map is used for."""
    start = f"{owner}."
    return frozenset(f"{one}.{read.removeprefix(start)}" for read in reads if read.startswith(start) for one in types)


def _rule(row: Row) -> str:
    return f"{row.place}: {getattr(row, 'text', '')}".rstrip(": ")

"""A message map as one Python function: the groups become nested loops, each resource a stretch of straight lines.

Only groups that repeat make a scope of their own; what occurs once is reached by its path. Names are lexical: from
inside a group, the resources and segments of the groups around it can be seen. `each x` and `first x` are those made
under the nearest group around both.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from engine.hl7.group import Node
from engine.mapping.convert import CONVERSIONS
from engine.mapping.emit import Emitter
from engine.mapping.expression import Path, calls, names, paths
from engine.mapping.far import needed
from engine.mapping.lineage import Place as Slot
from engine.mapping.lineage import Rule
from engine.mapping.model import Block, Map, MessageMap, Nothing, referred
from engine.mapping.problems import Place, Problems, guess
from engine.mapping.schema import Schema
from engine.mapping.scope import TEXT, Raw, Scope, every
from engine.mapping.writer import Unit, Writer

_WORD = re.compile(r"[A-Za-z_]\w*")
_LITERAL = re.compile(r"""f?(?:'(?:[^'\\\n]|\\.)*'|"(?:[^"\\\n]|\\.)*")""")
_GROUP = re.compile(r"(?:g\d+|group)(?=(?:s\d+)*$)")
_TAIL = re.compile(r"\bW_([A-Z][A-Z0-9]{2})\b")
_AREA = re.compile(r"g\d+|group")
SENT = Path("MSH", 7, 0, 0, Place("", 1, 1))


@dataclass(slots=True)
class Area:
    """A scope: the message, or a group that repeats. Slots and child areas are known by dotted names."""

    id: int
    name: str
    parent: Area | None
    segments: dict[str, tuple[tuple[int, ...], bool]] = field(default_factory=dict)
    children: dict[str, tuple[tuple[int, ...], Area]] = field(default_factory=dict)
    single: set[str] = field(default_factory=set)
    rare: set[str] = field(default_factory=set)  # segments that need not be there, and begin no group
    fetched: dict[str, str] = field(default_factory=dict)

    def chain(self) -> list[Area]:
        """This area and those around it, innermost first."""
        return [self, *(self.parent.chain() if self.parent else [])]

    def slot(self, name: str, near: str = "") -> tuple[str, tuple[int, ...], bool] | None:
        """A segment's slot by its name or the end of its dotted name. near: a group that occurs once, whose own comes
        first."""
        found = self.slot(f"{near}.{name}") if near in self.single else None
        if found is not None:
            return found
        for dotted, (path, many) in self.segments.items():
            if dotted == name or dotted.endswith("." + name):
                return dotted, path, many
        return None


def areas(root: Node) -> list[Area]:
    """All areas of a grammar, the message's own first."""
    out = [Area(0, root.name, None)]
    _fill(out[0], root, (), "", out)
    return out


def _fill(area: Area, node: Node, path: tuple[int, ...], prefix: str, out: list[Area]) -> None:
    for index, slot in enumerate(node.slots):
        here, name = (*path, index), prefix + slot.name
        if slot.node is None:
            area.segments.setdefault(name, (here, slot.many))
            if slot.optional and index > 0:
                area.rare.add(name)
        elif slot.many:
            child = Area(len(out), slot.name, area)
            out.append(child)
            area.children[name] = (here, child)
            _fill(child, slot.node, (), "", out)
        else:
            area.single.add(slot.name)
            _fill(area, slot.node, here, name + ".", out)


class Program:
    """Compiles one message map with an emitter."""

    def __init__(self, message: MessageMap, emitter: Emitter, schema: Schema, problems: Problems) -> None:
        self.message, self.emitter, self.schema, self.problems = message, emitter, schema, problems
        self.areas = areas(message.root)
        self.collected: set[tuple[str, int]] = set()
        self.homes: dict[str, tuple[Area, str]] = {}
        self.done: set[str] = set()
        self.closed: dict[str, Area] = {}
        self.widths: dict[str, int] = {}  # of segments: the highest number of a field that is read
        self.lets: dict[str, tuple[Area, Raw]] = {}
        self.written: list[str] = []  # the functions of the message's resources
        self.belongs = self._belongs()
        self.seen_blocks = [block for block in message.blocks if self._home(block)]

    def emit(self) -> Unit:
        """Write the message's function."""
        name = f"run_{self.message.name}"
        for block in self.seen_blocks:
            for other in referred(block.rows):
                if other.name in self.homes and other.how not in ("", "every"):
                    self.collected.add((other.name, self._nearest(self.homes[block.id][0], other.name).id))
        found = self.emitter.shop.write(name, lambda out: self._run(name, out))
        for unit in (found, *(self.emitter.shop.units[one] for one in self.written)):
            self._widen(unit)
        return found

    def _widen(self, unit: Unit) -> None:
        """Put in what stands for the fields that a segment has not: whoever cuts it first, it has all that are read."""
        code = "\n".join(unit.lines)
        tails = {name: (0, *("",) * self.widths.get(name, 0)) for name in set(_TAIL.findall(code))}
        names = {name: unit.constant(tail, "W") for name, tail in tails.items()}
        unit.lines = _TAIL.sub(lambda found: names[found[1]], code).split("\n")

    def _run(self, name: str, out: Writer) -> None:
        with out.block(f"def {name}(X, lines, group):"):
            self._area(self.areas[0], self.seen_blocks, "group", out)

    # -- where things are

    def _home(self, block: Block) -> bool:
        """Find the area of `for`, and the segment if it names one that repeats."""
        name, place = block.scope
        for area in self.areas:
            if name == area.name or name in area.single:
                self.homes[block.id] = (area, "")
                return True
        group, _, segment = name.rpartition(".")
        for area in self.areas:
            slot = area.slot(segment) if group in ("", area.name) or group in area.single else None
            if slot and (not group or group == area.name or slot[0].startswith(group + ".")):
                self.homes[block.id] = (area, slot[0] if slot[2] else "")
                return True
        known = {a.name for a in self.areas} | {s for a in self.areas for s in a.single | a.segments.keys()}
        self.problems.add(place, f"unknown group {name}", guess(name, known, "group"))
        return False

    def _area(self, area: Area, blocks: list[Block], variable: str, out: Writer) -> None:
        body = Writer(out.depth)
        if area.parent is None and "MSH" in area.segments:
            self._segment(area, SENT, False)
        self._lets(area, body)
        begun: set[int] = set()
        for block in blocks:
            home = self.homes[block.id][0]
            if home is area:
                self._block(block, area, variable, body)
                begun.clear()
                continue
            child = next(a for a in home.chain() if a.parent is area)
            if child.id in begun:
                continue
            begun.add(child.id)  # one loop over a group makes all that is made there before the next of the area's own
            path = next(path for path, other in area.children.values() if other is child)
            inside = self._inside(child, block, area, blocks)
            self.closed |= {name: child for name in self.done if child in self.homes[name][0].chain()}
            with body.block(f"for g{child.id} in {_items(variable, path)}:"):
                self._area(child, inside, f"g{child.id}", body)
        self._prologue(area, blocks, variable, out)
        out.lines.extend(body.lines)

    def _inside(self, child: Area, first: Block, area: Area, blocks: list[Block]) -> list[Block]:
        """What is made in a loop over a child group that begins with a block."""
        rest = blocks[blocks.index(first) :]
        own = next((n for n, other in enumerate(rest) if self.homes[other.id][0] is area), len(rest))
        return [other for other in rest[:own] if child in self.homes[other.id][0].chain()]

    def _lets(self, area: Area, out: Writer) -> None:
        """The message's own names that belong to this area."""
        for name, value in self.message.lets:
            if self.belongs[name] is area:
                out(f"n_{name} = {self.emitter.values.text(value, self._scope(None, area, {}))}")
                self.lets[name] = (area, Raw(f"n_{name}", TEXT))

    def _belongs(self) -> dict[str, Area]:
        """For each of the message's own names the innermost area that has a segment of its value, or a name."""
        found: dict[str, Area] = {}
        for name, value in self.message.lets:
            owners = sorted({path.owner for path in paths(value)})
            homes = [next((a for a in reversed(self.areas) if a.slot(one)), self.areas[0]) for one in owners]
            homes += [found[one] for one in names(value) if one in found]
            found[name] = max(homes, key=lambda one: len(one.chain()), default=self.areas[0])
        return found

    def _singles(self, area: Area, variable: str, out: Writer) -> None:
        """The slots of the groups that occur once, in variables; of one that is not there they are empty."""
        paths = {path[:-1] for path, _ in area.segments.values()} | {path[:-1] for path, _ in area.children.values()}
        every = {path[:size] for path in paths for size in range(1, len(path) + 1)}
        for path in sorted(every):
            items = _items(variable, path)
            out(f"{_inner(variable, path)} = {items}[0].items if {items} else EMPTY")

    def _prologue(self, area: Area, blocks: list[Block], variable: str, out: Writer) -> None:
        self._singles(area, variable, out)
        for name, number in sorted(self.collected):
            if number == area.id:
                out(f"all_{name}_{number} = []")
        rare: dict[tuple[int, ...], list[str]] = {}
        for dotted in area.fetched:
            path = area.segments[dotted][0]
            if dotted in area.rare and not self.emitter.shop.full:
                rare.setdefault(path[:-1], []).append(dotted)
            else:
                self._cut(area, dotted, _items(variable, path), out)
            if dotted == "MSH":
                out(f"X.begin(MSH[7], {self._sent()})")
        for holder, found in rare.items():
            self._rare(area, holder, found, variable, out)
        if self.emitter.shop.traced:
            for dotted, name in area.fetched.items():
                items = _items(variable, area.segments[dotted][0])
                with out.block(f"if {items}:"):
                    out(f"X.places[id({name})] = {items}[0]")

    def _cut(self, area: Area, dotted: str, items: str, out: Writer) -> None:
        """A segment's fields, in its variable."""
        name, tail = area.fetched[dotted], _tail(dotted)
        if self.emitter.shop.full:
            out(f"t = {items}")
            out(f"{name} = X.fields(lines, t[0], {tail}) if t else {tail}")
        elif dotted == "MSH":
            out(f"{name} = header(lines, {items}, {tail})")
        else:
            with out.block(f"if not (t := {items}):"):
                out(f"{name} = {tail}")
            with out.block(f"elif type({name} := lines[t[0]]) is str:"):
                out(f"lines[t[0]] = {name} = cut({name}, {tail})")

    def _rare(self, area: Area, holder: tuple[int, ...], found: list[str], variable: str, out: Writer) -> None:
        """Segments of a group that need not be there: one look tells that none of them is."""
        if len(found) < 2:
            for dotted in found:
                self._cut(area, dotted, _items(variable, area.segments[dotted][0]), out)
            return
        out(f"{', '.join(area.fetched[dotted] for dotted in found)} = {', '.join(map(_tail, found))}")
        mask = sum(1 << area.segments[dotted][0][-1] for dotted in found)
        group = f"{_items(variable, holder)}[0]" if holder else variable
        there = f"{_items(variable, holder)} and " if holder else ""
        with out.block(f"if {there}{group}.filled & {mask}:"):
            for dotted in found:
                name, items = area.fetched[dotted], _items(variable, area.segments[dotted][0])
                with out.block(f"if (t := {items}) and type({name} := lines[t[0]]) is str:"):
                    out(f"lines[t[0]] = {name} = cut({name}, {_tail(dotted)})")

    def _sent(self) -> str:
        """The text of EVN-2, when what the message tells of happened."""
        if "EVN" not in self.message.root.names():
            return '""'
        return f"event_time(lines, {'X.delimiters.field' if self.emitter.shop.full else repr('|')})"

    def _fetch(self, area: Area, dotted: str) -> str:
        """The variable with the fields of a segment that occurs once in an area."""
        if dotted not in area.fetched:
            area.fetched[dotted] = "MSH" if dotted == "MSH" else f"{dotted.replace('.', '_')}_{area.id}"
        return area.fetched[dotted]

    # -- one resource

    def _block(self, block: Block, area: Area, variable: str, out: Writer) -> None:
        type, place = block.make
        if not self.schema.is_resource(type):
            known = [name for name in self.schema.types if self.schema.is_resource(name)]
            self.problems.unknown(place, "resource", type, known)
            return
        _, segment = self.homes[block.id]
        out(f"# {block.id} for {block.scope[0]}")
        if not segment:
            self._make(block, area, variable, {}, out)
            self.done.add(block.id)
            return
        name = f"{segment.replace('.', '_')}_{area.id}x"
        with out.block(f"for i in {_items(variable, area.segments[segment][0])}:"):
            self._bind(segment, name, out)
            self._make(block, area, variable, {segment.rpartition(".")[2]: name}, out)
        self.done.add(block.id)

    def _bind(self, segment: str, name: str, out: Writer) -> None:
        if self.emitter.shop.full:
            out(f"{name} = X.fields(lines, i, {_tail(segment)})")
        else:
            with out.block(f"if type({name} := lines[i]) is str:"):
                out(f"lines[i] = {name} = cut({name}, {_tail(segment)})")
        if self.emitter.shop.traced:
            out(f"X.places[id({name})] = i")

    def _make(self, block: Block, area: Area, variable: str, bound: dict[str, str], out: Writer) -> None:
        """A resource as a function of its own, called with what it reads from around it.

        In one piece, a message's code has so many constants and such long jumps that every instruction gets slower.
        """
        shop, name = self.emitter.shop, f"{self.message.name}__{block.id}"
        scope = self._scope(block, area, bound)

        def write(inner: Writer) -> None:
            inner("def")  # its parameters are known when it is written
            inner.depth = 1
            self._body(block, area, variable, bound, scope, inner)

        unit = shop.write(name, write)
        self.written.append(name)
        self._required(block, scope)
        free = self._around(unit, block, area, bound)
        unit.lines = [f"def {name}({', '.join(['X', *free])}):", *unit.lines[1:]]
        maps = [(self._split(name, place), name, place) for name, place, _ in block.maps]
        present, usual = self._present(maps, area, bound, block)
        outside = self._scope(block, area, bound)  # without the names of the block's own
        condition = self.emitter.values.condition(block.when, outside) if block.when else ""
        made = f"{shop.call(unit)}({', '.join(['X', *free])})"
        asked = (condition, present) if usual else (present, condition)  # first what says no more often
        tests = [f"({test})" for test in asked if test]
        out(f"e_{block.id} = {made}" + (f" if {' and '.join(tests)} else None" if tests else ""))

    def _body(
        self, block: Block, area: Area, variable: str, bound: dict[str, str], scope: Scope, inner: Writer
    ) -> None:
        maps = [(self._split(name, place), name, place) for name, place, _ in block.maps]
        tests = {name: when for name, _, when in block.maps}
        inner(f"e_{block.id} = None")
        inner(f'r = {{"resourceType": {block.make[0]!r}}}')
        if scope.nulls:
            inner("X.cleared.clear()")
        for name, value in block.lets:
            fields = [path.field for one in calls(value) if one.function == "all" for path in paths(one)]
            noting = bool(fields) and self.emitter.shop.traced
            if noting:
                inner("noted = []")
            around = scope.inside(scope.target, scope.type, noting=noting)
            inner(f"l_{name} = {self.emitter.values.text(value, around)}")
            if noting:
                self._noted(fields, block.place, inner)
            scope.names[name] = Raw(f"l_{name}", TEXT)
        for (groups, segment), name, place in maps:
            one = self.emitter.map(name[len(groups) + 1 :] if groups else name, place)
            if one is None:
                continue
            when = tests[name]
            if when is None:
                self._apply(one, groups, segment, block, area, variable, bound, scope, inner)
                continue
            with inner.block(f"if {self.emitter.values.condition(when, scope)}:"):
                self._apply(one, groups, segment, block, area, variable, bound, scope, inner)
        self.emitter.rows(block.rows, scope, inner)
        with inner.block("if X.loose:"):
            inner("X.hold(r, 0)")
        named = [name.removeprefix(f"{groups}.") if groups else name for (groups, _), name, _ in maps]
        found = [self.emitter.files.maps[name] for name in named if name in self.emitter.files.maps]
        needs = {need for one in found for need in one.needs}
        for name in self.schema.required(block.make[0]):
            self._complete(block, name, needs, scope, inner)
        if needs:
            with inner.block(f"if {self.emitter.whole('r', tuple(sorted(needs)))}:"):
                self._identify(block, area, scope, inner)
        else:
            self._identify(block, area, scope, inner)
        inner(f"return e_{block.id}")

    def _noted(self, fields: list[int], place: Place, out: Writer) -> None:
        """The resource is made of fields of many segments."""
        rules = {field: Rule(Nothing((), "", place), Slot(0, (field,), False), True) for field in fields}
        name = self.emitter.shop.constant(rules, "R")
        out(f"X.trace.extend((r, '', {name}[field], (one,), 0) for field, one in noted)")

    def _complete(self, block: Block, name: str, needs: set[str], scope: Scope, out: Writer) -> None:
        """What FHIR requires and no row has set: of whom it is stays unknown; without anything else nothing is made."""
        element = self.schema.element(block.make[0], name)
        choices = [one.name for one in self.schema.types[block.make[0]].values() if one.choice == name]
        missing = " and ".join(f"{one!r} not in r" for one in (choices or [name]))
        if name in needs or scope.always & {*choices, name}:
            return
        if element is not None and element.type == "Reference":
            with out.block(f"if {missing}:"):
                value = '{"display": "unknown"}'
                out(f"r[{name!r}] = {f'[{value}]' if element.many else value}")
            return
        with out.block(f"if {missing}:"):
            out(f'X.note("incomplete", {block.id!r}, {name!r})')
            out("return None")

    def _around(self, unit: Unit, block: Block, area: Area, bound: dict[str, str]) -> list[str]:
        """What a resource's function reads from around it: of the variables that are set there those that it names."""
        code = "\n".join(line for line in unit.lines[1:] if not line.lstrip().startswith("#"))
        words, chain = set(_WORD.findall(_LITERAL.sub(_holes, code))), area.chain()
        known = [*bound.values(), *(name for one in chain for name in one.fetched.values())]
        known += [f"n_{name}" for name, home in self.belongs.items() if home in chain]
        known += [
            f"e_{one}" for one, (home, many) in self.homes.items() if one != block.id and home in chain and not many
        ]
        numbers = {one.id for one in chain}
        known += [f"all_{name}_{number}" for name, number in sorted(self.collected) if number in numbers]
        groups = tuple(_variable(one) for one in chain)
        known += sorted(word for word in words if (found := _GROUP.match(word)) and found[0] in groups)
        return [*(name for name in dict.fromkeys(known) if name in words), *(["lines"] if "lines" in words else [])]

    def _split(self, name: str, place: Place) -> tuple[str, str]:
        head, _, _ = name.partition("[")
        groups, _, segment = head.rpartition(".")
        return groups, segment

    def _present(self, maps: list[Any], area: Area, bound: dict[str, str], block: Block) -> tuple[str, bool]:
        """The condition that one of the block's own segments is there, and whether it usually is."""
        tests, usual = [], False
        for (groups, segment), _, _ in maps:
            if groups or segment in bound:
                continue
            slot = area.slot(segment, block.scope[0])
            if slot and not slot[2]:
                name = self._fetch(area, slot[0])
                usual = usual or slot[0] not in area.rare
                if f"{name}[0]" not in tests:
                    tests.append(f"{name}[0]")
        return "" if bound else " or ".join(tests), usual

    def _apply(
        self,
        found: Map,
        groups: str,
        segment: str,
        block: Block,
        area: Area,
        variable: str,
        bound: dict[str, str],
        scope: Scope,
        out: Writer,
    ) -> None:
        """One segment map, for each of its segments."""
        out(f"# {found.name}")
        place = next(place for name, place, _ in block.maps if name.endswith(found.name))
        if found.target != block.make[0]:
            self.problems.add(place, f"{found.name}, which makes {found.target}", f"a map that makes {block.make[0]}")
            return
        if segment in bound and not groups:
            self._mapped(found, block, area, bound, scope, out)
            return
        depth, here, holder = out.depth, area, variable
        within = ""
        for name in filter(None, groups.split(".")):
            step = next(((path, child) for path, child in here.children.values() if child.name == name), None)
            if step is not None:
                out(f"for h{step[1].id} in {_items(holder, step[0])}:")
                out.depth += 1
                holder, here, within = f"h{step[1].id}", step[1], ""
            elif name in here.single:
                within += f"{name}."
            else:
                known = [*here.single, *(child.name for _, child in here.children.values())]
                self.problems.unknown(place, "group", name, known)
                return
        slot = here.slot(within + segment, "" if groups else block.scope[0])
        if slot is None:
            self.problems.add(place, f"{segment} in {here.name}", guess(segment, here.segments, "segment"))
            return
        if not slot[2] and here is area:
            self._mapped(found, block, area, bound, scope, out, slot[0])
            return
        name = f"{segment}_{here.id}y"
        with out.block(f"for i in {_items(holder, slot[1])}:"):
            scope.written |= self.emitter.functions.filler(found, frozenset(scope.written)).writes  # by a turn before
            self._bind(segment, name, out)
            self._mapped(found, block, area, bound | {segment: name}, scope, out)
        out.depth = depth

    def _mapped(
        self, found: Map, block: Block, area: Area, bound: dict[str, str], scope: Scope, out: Writer, dotted: str = ""
    ) -> None:
        """Call a segment map's function. dotted: the slot of its segment, where that occurs once."""
        unit = self.emitter.functions.filler(found, frozenset(scope.written))
        scope.written |= unit.writes
        place = Place("", 1, 1)
        given = []
        for owner in (found.owner, *found.beside):
            most = max(unit.reads.get(owner, {1}))
            self._reads(owner, most)
            if owner == found.owner and dotted:
                given.append(self._fetch(area, dotted))
                continue
            beside = self._segment(area, Path(owner, most, 0, 0, place), True, block.scope[0])
            given.append(bound.get(owner) or beside or "")
        call = f"{self.emitter.shop.call(unit)}(X, r, {', '.join(given)})"
        if not dotted or needed(found.rows) != found.owner:
            out(call)
            return
        with out.block(f"if {given[0]}[0]:"):
            out(call)

    def _scope(self, block: Block | None, area: Area, bound: dict[str, str]) -> Scope:
        near = block.scope[0] if block else ""

        def fields(path: Path) -> str | None:
            if path.owner in bound:
                self._reads(path.owner, path.field)
                return bound[path.owner]
            return self._segment(area, path, False, near)

        def segments() -> list[str]:
            return [name.rpartition(".")[2] for one in area.chain() for name in one.segments]

        def entries() -> list[str]:
            return [other.id for other in self.message.blocks]

        def entry(name: str, how: str) -> str | None:
            return self._entry(block, area, name, how) if block else None

        names = {name: raw for name, (home, raw) in self.lets.items() if home in area.chain()}
        kind = block.make[0] if block else ""
        nulls = self.emitter.shop.full and block is not None and block.role == "anchor" and block.update != "create"
        return Scope(
            "r",
            kind,
            fields,
            segments,
            entry,
            entries,
            names=names,
            root="r",
            there=partial(self._there, area, near),
            everywhere=partial(self._everywhere, area),
            nulls=nulls,
        )

    def _everywhere(self, area: Area, name: str) -> str | None:
        """The numbers of all segments of a name in an area and those below it, in the message's order."""
        found = self._below(area, name, _variable(area))
        return f"sorted([{', '.join(found)}])" if found else None

    def _below(self, area: Area, name: str, variable: str) -> list[str]:
        """Starred pieces of a list, one for each slot."""
        slots = [path for dotted, (path, _) in area.segments.items() if dotted == name or dotted.endswith("." + name)]
        found = [f"*{_items(variable, path)}" for path in slots]
        for path, child in area.children.values():
            inner = self._below(child, name, f"o{child.id}")
            if inner:
                found.append(f"*(n for o{child.id} in {_items(variable, path)} for n in [{', '.join(inner)}])")
        return found

    def _there(self, area: Area, near: str, name: str) -> str | None:
        """The condition that a segment is in an area, one around it, or one just below it."""
        for one in area.chain():
            slot = one.slot(name, near)
            if slot is not None:
                return _items(_variable(one), slot[1])
        for path, child in area.children.values():
            slot = child.slot(name)
            if slot is not None:
                return f"any({_items('one', slot[1])} for one in {_items(_variable(area), path)})"
        return None

    def _segment(self, area: Area, path: Path, beside: bool, near: str = "") -> str | None:
        for one in area.chain():
            slot = one.slot(path.owner, near)
            if slot is not None:
                self._reads(path.owner, path.field)
                return self._fetch(one, slot[0])
        return self.emitter.shop.constant((0, *("",) * 63), "W") if beside else None

    def _reads(self, segment: str, field: int) -> None:
        self.widths[segment] = max(self.widths.get(segment, 0), field)

    def _entry(self, block: Block, area: Area, name: str, how: str) -> str | None:
        if how == "every":
            return every(name, how)
        home = self.homes.get(name)
        if home is None:
            return None
        if not how:
            if home[0] in area.chain() and not home[1]:
                if name in self.closed and self.closed[name] in area.chain():
                    self._interrupted(block, name)
                elif name in self.done:
                    return f"e_{name}"
                self.problems.add(
                    block.place, f"{name}, used in {block.id} before it is made", f"{name} above {block.id}"
                )
                return "None"
            place = next(b.place for b in self.message.blocks if b.id == block.id)
            self.problems.add(
                place, f"{name}, of which there may be many here", f"each {name}, first {name} or only {name}"
            )
            return "None"
        nearest = self._nearest(area, name)
        if name in self.closed and self.closed[name] in nearest.chain():
            self._interrupted(block, name)
        return f"all_{name}_{nearest.id}"

    def _nearest(self, area: Area, name: str) -> Area:
        """The innermost area around both an area and a resource's."""
        return next(one for one in area.chain() if one in self.homes[name][0].chain())

    def _interrupted(self, block: Block, name: str) -> None:
        found = f"{name}, made in an earlier turn through the group than {block.id}"
        self.problems.add(block.place, found, f"no resource of an outer group between {name} and {block.id}")

    def _identify(self, block: Block, area: Area, scope: Scope, out: Writer) -> None:
        """The entry, by its key."""
        if block.formerly and block.role != "anchor":
            self.problems.add(block.place, f"{block.id}: formerly for a {block.role}", "formerly for an anchor")
        if block.becomes and not block.apart:
            self.problems.add(block.place, f"{block.id}: becomes without apart", "apart: the element that changes")
        apart, series = self._single(block, "apart", block.apart), self._single(block, "series", block.series)
        if apart:
            self._services(block, apart, scope, out)
        else:
            self.emitter.functions.keys(block.keys, scope, out, first=block.role == "fact")
        if series and block.role == "anchor":
            out("former = [*key]")
            out(f"key = X.another(r, key, {series!r})")
        if block.formerly:
            self._formerly(block, scope, out)
        name = f"e_{block.id}"
        with out.block("if key:"):
            if block.role == "anchor":
                out(f"{name} = X.anchor({block.entry!r}, r, {block.update!r}, key)")
            else:
                tell = f", {series!r}" if series else ""
                out(f"{name} = X.fact({block.entry!r}, r, key, {self._where(block)}{tell})")
        with out.block("else:"):
            if block.keyless == "contain" and not block.keys:
                out(f"{name} = X.contained({block.entry!r}, r, {block.role!r})")
            else:
                out(f"{name} = X.keyless({block.entry!r}, r, {block.role!r}, {block.keyless == 'contain'})")
        self._tell(block, scope, name, out)
        lists = [number for other, number in sorted(self.collected) if other == block.id]
        if lists:
            with out.block(f"if {name} is not None:"):
                for number in lists:
                    out(f"all_{block.id}_{number}.append({name})")

    def _where(self, block: Block) -> str:
        """What the resource has its identifiers in."""
        element = self.schema.element(block.make[0], "identifier")
        return "None" if element is None else "list" if element.many else "dict"

    def _single(self, block: Block, word: str, said: tuple[str, Place] | None) -> str:
        """The element that tells apart what has one key: of anchors any single one, of a series one that is a value."""
        if said is None:
            return ""
        (name, place), kind = said, block.make[0]
        element = self.schema.element(kind, name)
        if element is None or element.many or (word == "series" and not element.primitive):
            every = self.schema.types.get(kind, {}).values()
            known = [one.name for one in every if not one.many and (word == "apart" or one.primitive)]
            self.problems.add(place, f"{word}: {name}", guess(name, known, f"such element of {kind}"))
        elif word == "apart" and block.role != "anchor":
            self.problems.add(place, f"{block.id}: apart for a {block.role}", "apart for an anchor")
        return name

    def _services(self, block: Block, element: str, scope: Scope, out: Writer) -> None:
        """The first key that no other of the message has whose element differs."""
        out("taken = set()")
        depth = out.depth
        for way, key in enumerate(block.keys):
            out(f"way = {way}")
            self.emitter.functions.keys((key,), scope, out, first=True)
            out(f"taken |= (others := X.others(r, key, {element!r}))")
            out("if others or not key:")
            out.depth += 1
        out("key = ()")
        out.depth = depth
        out("former = sorted(taken)")
        with out.block("if key:"):
            out(f"known_by(r, key[0], {self._where(block)}, taken)")
            for way, (one, more) in enumerate(zip(block.keys, block.keys[1:], strict=False)):
                if one.value is None and more.value is not None:
                    with out.block(f"if way == {way}:"):
                        out("number = key")
                        self.emitter.functions.keys((more,), scope, out, first=True)
                        out("key = number if not key or key[0] in number else (*number, *key)")

    def _formerly(self, block: Block, scope: Scope, out: Writer) -> None:
        """The keys that it may have been stored by, beside its own: those that it has lost to others, too."""
        out("number = key")
        if block.apart is None and block.series is None:
            out("former = []")
        for one in block.formerly:
            self.emitter.functions.keys((one,), scope, out, first=True)
            out("former += key")
            if one.value is not None and block.apart is None:
                with out.block("if number and key:"):
                    out(f"known_by(r, key[0], {self._where(block)})")
        out("key = number")

    def _tell(self, block: Block, scope: Scope, name: str, out: Writer) -> None:
        """What the delivery is to know of the entry besides the resource."""
        told = []
        if block.event is not None:
            self.emitter.shop.unit.namespace["as_dateTime"] = CONVERSIONS["dateTime"][1]
            event = self.emitter.values.text(block.event, scope)
            told.append(f"{name}.event = (t := {event}) and (X.times.get(t) or as_dateTime(t, X)) or X.event")
        if block.role == "anchor":
            elements = [(word, said[0]) for word, said in (("apart", block.apart), ("series", block.series)) if said]
            told += [f"{name}.{word} = {element!r}" for word, element in elements]
            if elements or block.formerly:
                told.append(f"X.formerly({name}, former)")
            if block.becomes is not None:
                told.append(f"{name}.becomes = bool({self.emitter.values.condition(block.becomes, scope)})")
        if block.drops:
            for drop, place in block.drops:
                if self.schema.element(block.make[0], drop.partition(".")[0]) is None:
                    known = self.schema.types.get(block.make[0], {})
                    self.problems.unknown(place, f"element of {block.make[0]}", drop, known)
            told.append(f"{name}.drops = {tuple(drop for drop, _ in block.drops)!r}")
        if scope.nulls:
            told.append(f"{name}.clears = frozenset(X.cleared)")
        if told:
            with out.block(f"if {name} is not None:"):
                for line in told:
                    out(line)

    def _required(self, block: Block, scope: Scope) -> None:
        for need in self.schema.required(block.make[0]):
            if not any(path == need or path.startswith(need) for path in scope.written):
                self.problems.add(
                    block.place, f"{block.id}: no row sets {need}", f"{need}, which {block.make[0]} must have"
                )


def _holes(literal: re.Match[str]) -> str:
    """What a literal has of code: the values in an f-string."""
    return " ".join(re.findall(r"\{([^{}]*)\}", literal[0])) if literal[0][0] == "f" else "''"


def _tail(segment: str) -> str:
    """What stands for empty fields at the end of a segment, until it is known how many are read."""
    return f"W_{segment.rpartition('.')[2]}"


def _variable(area: Area) -> str:
    """The variable of the group that an area is."""
    return f"g{area.id}" if area.parent else "group"


def _items(variable: str, path: tuple[int, ...]) -> str:
    """What stands in a slot of a group, or of groups that occur once in it."""
    if len(path) == 1:
        return f"{variable}.items[{path[0]}]"
    if not _AREA.fullmatch(variable):
        return f"walk({variable}, {path!r})"
    return f"{_inner(variable, path[:-1])}[{path[-1]}]"


def _inner(variable: str, path: tuple[int, ...]) -> str:
    """The variable of the slots of a group that occurs once."""
    return variable + "".join(f"s{slot}" for slot in path)

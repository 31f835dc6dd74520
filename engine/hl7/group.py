"""From the flat list of a message's segments to the tree of its groups, tolerantly, and never losing a segment.

The grammar is data: for each message structure one tree that takes in all versions of HL7 v2. A segment goes to the
first place, seen from the innermost open group outward, that the grammar allows next. Where there is none it is put at
its nearest legal parent all the same: the innermost open group that has a place for it at any depth. That is aside of
the reading, which goes on where it was; only notes and the like (NTE, PRT, ROL) go with what they follow.

Nothing of this is done in silence. The repairs, by their codes:

    displaced-segment   it stands in another part of the message than its place is in
    missing-parent      the groups that lead to its place had to be opened without their own first segment
    extra-segment       its place takes one only, and has one: it is kept beside that, but only the first is mapped
    unknown-segment     the grammar has no place for it anywhere, or it is no segment: it is in no group
    segment-name        its name is written in small letters or with blanks
    continued-message   the rest of the message, or of this segment, comes in another message (DSC, ADD; 2.10.2)
    paired-by-number    an ORC away from its OBR, with the same placer or filler number
    paired-by-order     ORCs and OBRs apart and without numbers, as many of the ones as of the others
    shared-order        an OBR without an ORC, behind one that has an ORC: it has that too
    unpaired-order      an ORC that should have an OBR, or an OBR that should have an ORC, and nothing says which

How ORC and OBR are paired is in `engine.hl7.order_pairs`. A segment is continued by an ADD behind it (2.10.2); the
grouper puts them together.

A right message costs little: each (state, segment name) is decided once and remembered, and so is the whole tree for
each sequence of segments. The number of states is bounded.
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from engine.hl7.message import NULL
from engine.hl7.order_pairs import BREAK, COMPANIONS, Orders, Repair

__all__ = ["Group", "Grouper", "Node", "Repair", "Slot"]

_SHAPES = 512  # remembered for each structure
_SHAPE_LENGTH = 64  # segments; longer messages hardly repeat
_STATES = 4096  # remembered for each structure
_NAME_LENGTH = 16  # characters in which the end of a segment's name is looked for

_WHOLE, _SURE, _WEAK = 2, 1, 0
"""How surely a segment begins a group. Nothing is left out before it; it is what the group must have, or only single
segments are left out; whole groups are, so that it is more likely of the group before than of another one."""

_Way = tuple[int, ...]
"""Slots from a group down to a segment's own."""


@dataclass(slots=True)
class Slot:
    """A place in a group: for a segment (`node` is None) or a group.

    after: the place is open only once an enclosing group has something of this name, read in its own place.
    """

    name: str
    many: bool = False
    optional: bool = False
    after: str = ""
    node: Node | None = None


@dataclass(slots=True)
class Node:
    """A group of the grammar."""

    name: str
    slots: list[Slot] = field(default_factory=list)

    def names(self) -> frozenset[str]:
        """All segments that it has a place for, at any depth."""
        return frozenset(name for slot in self.slots for name in (slot.node.names() if slot.node else (slot.name,)))

    def starts(self) -> dict[str, tuple[_Way, int]]:
        """The segments that begin it: the way to each, and how surely.

        These are those at its front that come once, those that it must have, and those that begin its groups. What may
        repeat and need not be there (notes, timings) begins nothing as long as there is another group that it may
        belong to.
        """
        out: dict[str, tuple[_Way, int]] = {}
        front = True
        sure = _WHOLE
        for index, slot in enumerate(self.slots):
            if slot.node is None:
                front = front and (index == 0 or not slot.many)
                if front or not slot.optional:
                    out.setdefault(slot.name, ((index,), sure))
            elif not (slot.optional and slot.many):
                for name, (way, inner) in slot.node.starts().items():
                    out.setdefault(name, ((index, *way), min(sure if slot.optional else max(sure, _SURE), inner)))
            if not slot.optional:
                break
            if not slot.many:
                sure = min(sure, _WEAK if slot.node else _SURE)
        return out

    def may_start(self, way: _Way) -> bool:
        """Whether the first segment of one of its groups may begin it, all that would come before being optional."""
        if not all(slot.optional for slot in self.slots[: way[0]]):
            return False
        node = self.slots[way[0]].node
        return node.may_start(way[1:]) if node else way[0] == 0 or not self.slots[way[0]].optional


class Group:
    """One occurrence of a group. `items[k]` holds what stands in its k-th slot: segment numbers, or groups; bit k of
    `filled` tells whether there is any."""

    __slots__ = ("filled", "items", "node")

    def __init__(self, node: Node) -> None:
        self.node = node
        self.items: list[Any] = [()] * len(node.slots)
        self.filled = 0

    def add(self, slot: int, item: Any) -> None:
        """Put a segment's number, or a group, into a slot."""
        if self.items[slot]:
            self.items[slot].append(item)
        else:
            self.items[slot] = [item]
            self.filled |= 1 << slot

    def sort(self) -> None:
        """Bring the segments of each slot into the order of the message."""
        for items in self.items:
            if len(items) > 1 and type(items[0]) is int:
                items.sort()
            for item in items:
                if type(item) is Group:
                    item.sort()


class _Level(NamedTuple):
    """An open group: how far it has been read (-1: nothing), which slots before that are still to be filled, and what
    it holds that others wait for."""

    node: Node
    at: int
    gaps: frozenset[int] = frozenset()
    holds: frozenset[str] = frozenset()

    def __hash__(self) -> int:
        return hash((id(self.node), *self[1:]))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Level) and self.node is other.node and self[1:] == other[1:]


_State = tuple[_Level, ...]


class _Step(NamedTuple):
    """What to do with a segment: how many groups stay open, which are opened in them, and where it goes.

    fills: that is a place that was left out before.
    """

    keep: int
    opens: tuple[tuple[int, Node], ...]
    slot: int
    fills: bool
    after: _Table


class _Table:
    """What to do next in one state, by segment name; None where the grammar has no place for it next.

    fills: what to do with those of them whose place was left out before.
    """

    __slots__ = ("fills", "state", "steps")

    def __init__(self, state: _State) -> None:
        self.state = state
        self.fills: dict[str, _Step] = {}
        self.steps: dict[str, _Step | None] = {}


class _Place(NamedTuple):
    """Where a segment may go that has no place next: from an open group by a way through others, of which the first
    `there` are there already. The best is the smallest."""

    cost: int
    length: int
    distance: int
    depth: int
    way: _Way
    there: int


_CODES = ("displaced-segment", "missing-parent", "extra-segment")


class Grouper:
    """Groups messages of one structure."""

    def __init__(self, root: Node) -> None:
        self.root = root
        self._grammar = _Grammar(root)
        self._orders = Orders(root)
        self._shapes: dict[tuple[str, ...], tuple[Group, list[Repair]]] = {}

    def group(self, lines: list[str]) -> tuple[Group, list[Repair]]:
        """The tree of the segments (raw, in order), and the repairs that it took.

        Messages of the same segments share one tree, which nobody may change. A segment that is continued is put
        together in `lines`. An ORC that several orders share stands in each of them.
        """
        if len(lines) > _SHAPE_LENGTH:
            return self._group(lines)[0]
        shape = tuple([line[:4] for line in lines])
        known = self._shapes.get(shape)
        if known is not None:
            return known
        found, alike = self._group(lines)
        if alike:
            if len(self._shapes) >= _SHAPES:
                self._shapes.clear()
            self._shapes[shape] = found
        return found

    def _group(self, lines: list[str]) -> tuple[tuple[Group, list[Repair]], bool]:
        """And whether all messages of the same segments are grouped alike."""
        names, repairs, read = self._names(lines)
        found = self._orders.arrange(names, lines)
        reading = _Reading(self._grammar, self._orders.order, names, repairs)
        if found is None:
            reading.read(range(len(names)))
        else:
            repairs += found.repairs
            reading.read(found.sequence)
            reading.root.sort()
            read = read or found.by_number
        if repairs:
            repairs.sort(key=lambda repair: repair.segment)
        return (reading.root, repairs), not read

    def _names(self, lines: list[str]) -> tuple[list[str], list[Repair], bool]:
        """The segments' names, empty where the grammar has none of it, and whether anything else was looked at."""
        begins = [line[:4] for line in lines]
        mark = begins[0][3:] if lines else ""
        known = self._grammar.names
        right = {begin: begin[:3] for begin in set(begins) if begin[:3] in known and begin[3:] in ("", mark)}
        names = [right.get(begin, "") for begin in begins]
        if "" not in names and "DSC" not in names:
            return names, [], False
        repairs: list[Repair] = []
        read = False
        before = -1  # the segment that an ADD continues
        for index, line in enumerate(lines):
            name, rest = _cut(line, mark)
            if name == "ADD" and name not in known and before >= 0:
                read = True
                lines[before] += rest
                if not rest:
                    wanted = f"the rest of {names[before] or 'the segment'} in this message"
                    repairs.append(Repair("continued-message", index, wanted))
                names[index] = ""
                continue
            if name not in known:
                repairs.append(Repair("unknown-segment", index, f"a segment of {self.root.name}"))
                name = ""
            elif mark and name != names[index]:
                repairs.append(Repair("segment-name", index, f"{name}, in capital letters and without blanks"))
            if name == "DSC":
                read = True
                if mark and rest.split(mark, 1)[0].strip() not in ("", NULL):
                    repairs.append(Repair("continued-message", index, "the whole in one message"))
            names[index], before = name, index
        return names, repairs, read


def _cut(line: str, mark: str) -> tuple[str, str]:
    """A segment's name as it should be written, and its fields."""
    if not mark:
        return line[:3], ""
    end = line.find(mark, 0, _NAME_LENGTH)
    if end < 0:
        return line[:_NAME_LENGTH].strip().upper(), ""
    return line[:end].strip().upper(), line[end + 1 :]


class _Grammar:
    """What a structure's grammar allows in which state; remembered."""

    def __init__(self, root: Node) -> None:
        self.root = root
        self.names = root.names()
        self._within: dict[int, frozenset[str]] = {}
        self._starts: dict[int, dict[str, tuple[_Way, int]]] = {}
        self._ways: dict[tuple[int, str], list[_Way]] = {}
        self._awaited: set[str] = set()
        self._study(root)
        self._tables: dict[_State, _Table] = {}

    def _study(self, node: Node) -> None:
        self._within[id(node)] = node.names()
        self._starts[id(node)] = node.starts()
        for slot in node.slots:
            self._awaited.add(slot.after)
            if slot.node:
                self._study(slot.node)

    def table(self, state: _State) -> _Table:
        """What to do in a state."""
        found = self._tables.get(state)
        if found is None:
            if len(self._tables) >= _STATES:
                self._tables.clear()
            found = self._tables[state] = _Table(state)
        return found

    def start(self) -> _Table:
        """What to do with a message's first segment."""
        return self.table((_Level(self.root, -1),))

    # -- the next place

    def step(self, state: _State, name: str) -> _Step | None:
        """What the grammar allows next: if it can, without leaving out the first segments of a group."""
        return self._next(state, name, _WHOLE) or self._next(state, name, _WEAK)

    def _next(self, state: _State, name: str, surely: int) -> _Step | None:
        for depth in range(len(state) - 1, -1, -1):
            level = state[depth]
            for index in range(max(level.at, 0), len(level.node.slots)):
                slot = level.node.slots[index]
                if (index == level.at and not slot.many) or not self._is_open(slot, state[: depth + 1]):
                    continue
                way, sure = self.into(slot, name)
                if way is not None and sure >= (max(surely, _SURE) if index == level.at else surely):
                    return self._go(state, depth, (index, *way))
            for index in sorted(level.gaps):  # before another group is opened for it
                way, _ = self.into(level.node.slots[index], name)
                if way is not None:
                    return self._go(state, depth, (index, *way), True)
        return None

    def into(self, slot: Slot, name: str) -> tuple[_Way | None, int]:
        """The way into a slot for a segment that is of it or begins its group, and how surely."""
        if slot.node is None:
            return (() if slot.name == name else None), _WHOLE
        return self._starts[id(slot.node)].get(name, (None, _WEAK))

    def _is_open(self, slot: Slot, state: _State) -> bool:
        return not slot.after or any(slot.after in level.holds for level in state)

    def _go(self, state: _State, depth: int, way: _Way, fills: bool = False) -> _Step:
        levels = list(state[: depth + 1])
        opens = []
        for slot in way[:-1]:
            levels[-1] = self._moved(levels[-1], slot)
            node = levels[-1].node.slots[slot].node
            assert node is not None
            opens.append((slot, node))
            levels.append(_Level(node, -1))
        levels[-1] = self._moved(levels[-1], way[-1])
        return _Step(depth + 1, tuple(opens), way[-1], fills, self.table(tuple(levels)))

    def _moved(self, level: _Level, to: int) -> _Level:
        if to < level.at:
            return level._replace(gaps=level.gaps - {to})
        skipped = level.gaps.union(range(level.at + 1, to))
        name = level.node.slots[to].name
        holds = level.holds | {name} if name in self._awaited else level.holds
        return _Level(level.node, to, _gaps(level.node, to, skipped), holds)

    # -- the nearest legal parent

    def place(self, stack: list[Group], state: _State, name: str, sealed: set[int]) -> _Place:
        """Where a segment goes that has no place next: in the innermost open group that has any.

        One further out is better, if it is free and no group has to be opened for it without its first segment, where
        the inner one is taken, or where it would have to be opened so and another one there is not open yet (`after`).
        """
        for heedful in (True, False):
            second: _Place | None = None
            for depth in range(len(stack) - 1, -1, -1):
                ways = every = self.ways(stack[depth].node, name)
                if heedful:
                    ways = [way for way in every if self._is_passable(way, state[: depth + 1])]
                if not ways:
                    continue
                best = min(self._place(stack[depth], state[depth], depth, way, sealed) for way in ways)
                if best.cost == 0 or (best.cost == 1 and second is None and len(ways) == len(every)):
                    return best
                second = second or best
            if second:
                return second
        raise AssertionError(f"{name} has a place in {self.root.name}")

    def ways(self, node: Node, name: str) -> list[_Way]:
        """All ways to places for a segment."""
        key = (id(node), name)
        found = self._ways.get(key)
        if found is None:
            found = self._ways[key] = []
            for index, slot in enumerate(node.slots):
                if slot.node is None:
                    found += [(index,)] if slot.name == name else []
                elif name in self._within[id(slot.node)]:
                    found += [(index, *way) for way in self.ways(slot.node, name)]
        return found

    def _is_passable(self, way: _Way, state: _State) -> bool:
        node = state[-1].node
        for index in way:
            slot = node.slots[index]
            if not self._is_open(slot, state):
                return False
            if slot.node:
                node = slot.node
        return True

    def _place(self, group: Group, level: _Level, depth: int, way: _Way, sealed: set[int]) -> _Place:
        distance = (level.at - way[0]) if way[0] <= level.at else way[0]
        new = 0  # how many of the groups on the way are there when a new one can be opened, plus one
        for there, index in enumerate(way[:-1]):
            slot = group.node.slots[index]
            assert slot.node is not None
            begins = self._begins(slot.node, way[there + 1 :])
            items = group.items[index]
            if not items or id(items[-1]) in sealed:
                return _Place(0 if begins >= 0 else 1, len(way), distance, depth, way, there)
            if begins >= _SURE and slot.many:
                new = there + 1
            group = items[-1]
        if not group.items[way[-1]] or group.node.slots[way[-1]].many:
            return _Place(0, len(way), distance, depth, way, len(way) - 1)
        if new:
            return _Place(0, len(way), distance, depth, way, new - 1)
        return _Place(2, len(way), distance, depth, way, len(way) - 1)

    def _begins(self, node: Node, way: _Way) -> int:
        return next((sure for start, sure in self._starts[id(node)].values() if start == way), -1)

    def behind(self, stack: list[Group], state: _State, place: _Place, groups: list[Group]) -> _Table | None:
        """What to do behind a place in groups of its own; None where it lies back, before what is being read."""
        if len(place.way) == 1:
            return None
        if len(stack) > place.depth + 1:
            slots = stack[place.depth].node.slots
            if any(slot.node is stack[place.depth + 1].node for slot in slots[place.way[0] + 1 :]):
                return None
        inner = [self.level(group) for group in groups[place.depth + 1 :]]
        return self.table((*state[: place.depth], self._moved(state[place.depth], place.way[0]), *inner))

    def level(self, group: Group) -> _Level:
        """How far a group has been read, by what it holds."""
        slots = group.node.slots
        held = [index for index, items in enumerate(group.items) if items]
        gaps = _gaps(group.node, held[-1], set(range(held[-1])).difference(held))
        holds = self._awaited.intersection(slots[index].name for index in held)
        return _Level(group.node, held[-1], gaps, frozenset(holds))


def _gaps(node: Node, at: int, skipped: Set[int]) -> frozenset[int]:
    """What of the slots that were left out is still to come to this group, and to no other one of its kind: what it
    must have; and as long as it has nothing of that, what comes once."""
    slots = node.slots
    must = next((index for index, slot in enumerate(slots) if not slot.optional), -1)
    return frozenset(n for n in skipped if not slots[n].optional or (at < must and not slots[n].many))


class _Reading:
    """One message on its way into its tree."""

    def __init__(self, grammar: _Grammar, order: Node | None, names: Sequence[str], repairs: list[Repair]) -> None:
        self.grammar, self.order, self.names, self.repairs = grammar, order, names, repairs
        self.root = Group(grammar.root)
        self.stack = [self.root]
        self.table = grammar.start()
        self.aside: list[tuple[Group, int]] = []  # where the last segment is, if not where the reading is
        self.sealed: set[int] = set()

    def read(self, sequence: Sequence[int]) -> None:
        """Put segments into the tree."""
        names = [*self.names, ""]  # the last is that of `BREAK`
        stack, steps, aside = self.stack, self.table.steps, False
        for index in sequence:
            step = steps.get(names[index])
            if step is None or aside:
                step = self._unusual(index, names[index])
                stack, steps, aside = self.stack, self.table.steps, bool(self.aside)
                if step is None:
                    continue
            if step.keep < len(stack):
                del stack[step.keep :]
            group = stack[-1]
            for slot, node in step.opens:
                child = Group(node)
                group.add(slot, child)
                stack.append(child)
                group = child
            group.add(step.slot, index)
            self.table = step.after
            steps = step.after.steps

    def _unusual(self, index: int, name: str) -> _Step | None:
        """What to do with a segment that does not simply come next; None where that is done."""
        if index == BREAK:
            self._break()
            return None
        if not name:
            return None
        if self.aside and name in COMPANIONS and self._beside(index, name):
            return None
        self.aside = []
        table = self.table
        if name not in table.steps:
            step = self.grammar.step(table.state, name)
            if step and step.fills:
                table.fills[name], step = step, None
            table.steps[name] = step
        if table.steps[name] is None:
            if name in table.fills:
                self._fill(index, table.fills[name])
            else:
                self._repair(index, name)
        return table.steps[name]

    def _fill(self, index: int, step: _Step) -> None:
        """Put a segment into a place that was left out before."""
        del self.stack[step.keep :]
        for slot, node in step.opens:
            group = self.stack[-1]
            if group.node.slots[slot].many or not group.items[slot]:
                group.add(slot, Group(node))
            self.stack.append(group.items[slot][-1])
        self.stack[-1].add(step.slot, index)
        inner = [self.grammar.level(group) for group in self.stack[step.keep :]]
        self.table = self.grammar.table((*step.after.state[: step.keep], *inner))
        self._tell("displaced-segment", index, self.stack[-1].node)

    def _repair(self, index: int, name: str) -> None:
        place = self.grammar.place(self.stack, self.table.state, name, self.sealed)
        groups = self.stack[: place.depth + 1]
        opened: Node | None = None
        for there, slot in enumerate(place.way[:-1]):
            group = groups[-1]
            if there >= place.there:
                node = group.node.slots[slot].node
                assert node is not None
                opened = opened or node
                group.add(slot, Group(node))
            groups.append(group.items[slot][-1])
        groups[-1].add(place.way[-1], index)
        table = self.grammar.behind(self.stack, self.table.state, place, groups)
        if table is None:
            self.aside = list(zip(groups[place.depth :], place.way, strict=True))
        else:
            self.stack, self.table = groups, table
            if opened and place.cost and opened.may_start(place.way[place.there + 1 :]):
                return
        self._tell(_CODES[place.cost], index, groups[-1].node)

    def _beside(self, index: int, name: str) -> bool:
        """Put a note to what it follows, if that has a place for it."""
        for group, at in reversed(self.aside):
            for slot in sorted(range(len(group.node.slots)), key=lambda n: (n < at, n)):
                place = group.node.slots[slot]
                way, _ = self.grammar.into(place, name)
                if way is None or not (place.many or not group.items[slot]):
                    continue
                here = group
                for step in (slot, *way)[:-1]:
                    node = here.node.slots[step].node
                    assert node is not None
                    here.add(step, Group(node))
                    here = here.items[step][-1]
                here.add((slot, *way)[-1], index)
                if slot < at:
                    self._tell("displaced-segment", index, group.node)
                return True
        return False

    def _break(self) -> None:
        """What follows belongs to another order."""
        self.aside = []
        for depth, group in enumerate(self.stack):
            if depth and group.node is self.order:
                del self.stack[depth:]
                self.table = self.grammar.table(self.table.state[:depth])
                self.sealed.add(id(group))
                return

    def _tell(self, code: str, index: int, node: Node) -> None:
        name = self.names[index]
        wanted = f"one {name} in {node.name}" if code == "extra-segment" else f"{name} in its place in {node.name}"
        self.repairs.append(Repair(code, index, wanted))

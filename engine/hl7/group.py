"""From the flat list of a message's segments to the tree of its groups, tolerantly, and never losing a segment.

The grammar is data: for each message structure one tree that takes in all versions of HL7 v2. A segment goes to the
first place, seen from the innermost open group outward, that the grammar allows next. Where there is none it is put at
its nearest legal parent all the same, and the repair is reported:

    displaced-segment   the place exists in an open group, but earlier than something that was already read
    missing-parent      the groups that lead to its place had to be opened without their own first segment
    extra-segment       its place takes one only, and is taken
    unknown-segment     the grammar has no place for it anywhere; it is in no group

Each (state, segment name) is decided once and remembered; the number of states is bounded by the grammar.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

_SHAPES = 512  # remembered for each structure
_SHAPE_LENGTH = 64  # segments; longer messages hardly repeat


@dataclass(slots=True)
class Slot:
    """A place in a group: for a segment (`node` is None) or a group.

    after: the place is open only once an enclosing group has something of this name.
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

    def starters(self) -> set[str]:
        """The segments that may begin it."""
        out: set[str] = set()
        for slot in self.slots:
            out |= slot.node.starters() if slot.node else {slot.name}
            if not slot.optional:
                break
        return out

    def names(self) -> set[str]:
        """All segments that it has a place for, at any depth."""
        return {name for slot in self.slots for name in (slot.node.names() if slot.node else {slot.name})}


class Group:
    """One occurrence of a group. `items[k]` holds what stands in its k-th slot: segment numbers, or groups."""

    __slots__ = ("items", "node")

    def __init__(self, node: Node) -> None:
        self.node = node
        self.items: list[Any] = [()] * len(node.slots)

    def add(self, slot: int, item: Any) -> None:
        """Put a segment's number, or a group, into a slot."""
        if self.items[slot]:
            self.items[slot].append(item)
        else:
            self.items[slot] = [item]


class Repair(NamedTuple):
    """A segment that did not stand where the grammar wants it. `segment` counts from 0."""

    code: str
    segment: int
    wanted: str


class _Level(NamedTuple):
    """An open group: how far it has been read (-1: nothing), and what it holds that occurs once or is of interest."""

    node: Node
    at: int
    holds: frozenset[str]

    def __hash__(self) -> int:
        return hash((id(self.node), self.at, self.holds))

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, _Level) and self.node is other.node and self.at == other.at and self.holds == other.holds
        )


_State = tuple[_Level, ...]


class _Step(NamedTuple):
    keep: int
    opens: tuple[tuple[int, Node, bool], ...]
    slot: int
    repair: str
    wanted: str
    after: _Table


class _Table:
    """What to do next in one state, by segment name."""

    __slots__ = ("state", "steps")

    def __init__(self, state: _State) -> None:
        self.state = state
        self.steps: dict[str, _Step] = {}


class Grouper:
    """Groups messages of one structure."""

    def __init__(self, root: Node) -> None:
        self.root = root
        self._names = root.names()
        self._interest = frozenset(_interests(root))
        self._tables: dict[_State, _Table] = {}
        self._start = self._table((_Level(root, -1, frozenset()),))
        self._shapes: dict[tuple[str, ...], tuple[Group, list[Repair]]] = {}

    def group(self, lines: Sequence[str]) -> tuple[Group, list[Repair]]:
        """The tree of the segments (raw, in order), and the repairs that it took.

        Messages of the same segments share one tree, which nobody may change.
        """
        if len(lines) > _SHAPE_LENGTH:
            return self._group(lines)
        shape = tuple([line[:3] for line in lines])
        found = self._shapes.get(shape)
        if found is None:
            if len(self._shapes) >= _SHAPES:
                self._shapes.clear()
            found = self._shapes[shape] = self._group(lines)
        return found

    def _group(self, lines: Sequence[str]) -> tuple[Group, list[Repair]]:
        root = Group(self.root)
        stack = [root]
        repairs: list[Repair] = []
        table = self._start
        for index, line in enumerate(lines):
            name = line[:3]
            step = table.steps.get(name)
            if step is None:
                if name not in self._names:
                    repairs.append(Repair("unknown-segment", index, f"a segment of {self.root.name}"))
                    continue
                step = table.steps[name] = self._decide(table.state, name)
            if step.repair:
                repairs.append(Repair(step.repair, index, step.wanted))
            if step.keep < len(stack):
                del stack[step.keep :]
            group = stack[-1]
            for slot, node, many in step.opens:
                if many or not group.items[slot]:
                    child = Group(node)
                    group.add(slot, child)
                else:  # a repair goes back into a group that occurs once
                    child = group.items[slot][-1]
                stack.append(child)
                group = child
            group.add(step.slot, index)
            table = step.after
        return root, repairs

    def _table(self, state: _State) -> _Table:
        return self._tables.setdefault(state, _Table(state))

    def _decide(self, state: _State, name: str) -> _Step:
        ranked = (_next_place, _earlier_place, _any_place, _taken_place)
        codes = ("", "displaced-segment", "missing-parent", "extra-segment")
        for repair, find in zip(codes, ranked, strict=True):
            for depth in range(len(state) - 1, -1, -1):
                path = find(state, depth, name)
                if path:
                    return self._step(state, depth, path, repair, name)
        raise AssertionError(f"{name} has a place in {self.root.name}")  # _any_place finds all that names() has

    def _step(self, state: _State, depth: int, path: list[int], repair: str, name: str) -> _Step:
        """Follow `path`, slots from the group at `depth` down to the segment's own."""
        levels = list(state[: depth + 1])
        opens = []
        for slot in path[:-1]:
            levels[-1] = self._moved(levels[-1], slot)
            place = levels[-1].node.slots[slot]
            node = place.node
            assert node is not None
            opens.append((slot, node, place.many))
            levels.append(_Level(node, -1, frozenset()))
        levels[-1] = self._moved(levels[-1], path[-1])
        wanted = f"{name} in its place in {levels[-1].node.name}"
        return _Step(depth + 1, tuple(opens), path[-1], repair, wanted, self._table(tuple(levels)))

    def _moved(self, level: _Level, slot: int) -> _Level:
        place = level.node.slots[slot]
        held = level.holds
        if place.name in self._interest or not place.many:
            held = held | {place.name}
        return _Level(level.node, max(level.at, slot), held)


def _interests(node: Node) -> set[str]:
    names = {slot.after for slot in node.slots if slot.after}
    for slot in node.slots:
        if slot.node:
            names |= _interests(slot.node)
    return names


def _open(slot: Slot, state: _State) -> bool:
    return not slot.after or any(slot.after in level.holds for level in state)


def _next_place(state: _State, depth: int, name: str) -> list[int] | None:
    """The way to the next place that the grammar allows."""
    level = state[depth]
    for index, slot in enumerate(level.node.slots):
        if index < level.at or (index == level.at and not slot.many) or not _open(slot, state[: depth + 1]):
            continue
        if slot.node is None and slot.name == name:
            return [index]
        if slot.node and name in slot.node.starters():
            return [index, *_descend(slot.node, name)]
    return None


def _earlier_place(state: _State, depth: int, name: str) -> list[int] | None:
    """The way to any place of this group, in whatever order, that the segment may begin or fill."""
    for index, slot in enumerate(state[depth].node.slots):
        if not _open(slot, state[: depth + 1]):
            continue
        if slot.node is None and slot.name == name and _free(slot, state[depth]):
            return [index]
        if slot.node and slot.many and name in slot.node.starters():
            return [index, *_descend(slot.node, name)]
    return None


def _any_place(state: _State, depth: int, name: str) -> list[int] | None:
    """The shortest way down to any free place for the segment."""
    return _way_down(state[depth], name, True)


def _taken_place(state: _State, depth: int, name: str) -> list[int] | None:
    """The shortest way down to any place for the segment, free or not."""
    return _way_down(state[depth], name, False)


def _free(slot: Slot, level: _Level) -> bool:
    return slot.many or slot.name not in level.holds


def _way_down(level: _Level, name: str, free: bool) -> list[int] | None:
    ways: list[tuple[list[int], Node]] = [([], level.node)]
    while ways:
        way, node = ways.pop(0)
        for index, slot in enumerate(node.slots):
            if free and not way and not _free(slot, level):
                continue
            if slot.node is None and slot.name == name:
                return [*way, index]
            if slot.node:
                ways.append(([*way, index], slot.node))
    return None


def _descend(node: Node, name: str) -> list[int]:
    for index, slot in enumerate(node.slots):
        if slot.node is None and slot.name == name:
            return [index]
        if slot.node and name in slot.node.starters():
            return [index, *_descend(slot.node, name)]
    raise AssertionError(f"{name} begins {node.name}")

"""What a name or path means where it stands: the lexical scope of rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from engine.mapping.expression import Path
from engine.mapping.lineage import Tree, turned

FIELD, REPETITION, COMPONENT, TEXT = "field", "repetition", "component", "text"
"""How far a raw value still has parts: repetitions, components, subcomponents, none."""


@dataclass(frozen=True, slots=True)
class Raw:
    """A Python expression for a raw value, how far it still has parts, and what it is from where that is traced.

    leaf: an expression for its first leaf, where there is one that is cheaper than to cut the value. there: one for
    whether it is valued.
    """

    code: str
    level: str
    note: Note | None = None
    leaf: str = ""
    there: str = ""


@dataclass(frozen=True, slots=True)
class Note:
    """What a value is from. owners: the variables that the tree's slots stand for. turn: that of the repetition."""

    tree: Tree
    owners: tuple[str, ...] = ()
    turn: str = "0"
    whole: bool = True

    def turned(self, turn: str) -> Note:
        """Of one repetition of each field."""
        return Note(turned(self.tree), self.owners, turn, self.whole)

    def first(self) -> Note:
        """Of the first repetition, unless it is of one that is walked over."""
        return self.turned("1") if self.turn == "0" else self

    def leaf(self) -> Note:
        """Of the first leaf alone."""
        return Note(self.tree, self.owners, self.turn, False)


def every(name: str, how: str) -> str | None:
    """`every fact`, `every anchor`: what can be named from anywhere."""
    return f"X.every({name!r})" if how == "every" and name in ("fact", "anchor") else None


@dataclass(slots=True)
class Scope:
    """Names, and what they are, around some rows.

    target: the variable of the object being filled; type: its FHIR type. fields: gives the variable of a segment's
    fields, or None. owner: the data type whose components are `c` (empty in a segment's rows). walked: fields that an
    enclosing row walks over. there: gives the condition that a segment is in the group or just below it;
    everywhere: the numbers of those in the group, however deep. nulls: whether an explicit null of a field clears the
    element that it would fill. notes: the list that what is traced goes to. always: elements
    that are set in any case, by constants. written: elements that earlier rows may
    have set, which later ones must not overwrite. merged: whether a row may have set others, by what a map makes.
    noting: whether it is noted what `all` gathers. length: so many components there are at the least.
    """

    target: str
    type: str
    fields: Callable[[Path], str | None]
    segments: Callable[[], list[str]]
    entry: Callable[[str, str], str | None]
    entries: Callable[[], list[str]]
    owner: str = ""
    names: dict[str, Raw] = field(default_factory=dict)
    walked: dict[tuple[str, int], Raw] = field(default_factory=dict)
    this: Raw | None = None
    written: set[str] = field(default_factory=set)
    root: str = ""
    cached: bool = False
    there: Callable[[str], str | None] = lambda name: None
    everywhere: Callable[[str], str | None] = lambda name: None
    notes: str = "X.trace"
    always: set[str] = field(default_factory=set)
    nulls: bool = False
    merged: bool = False
    noting: bool = False
    length: int = 1

    def inside(self, target: str, type: str, **changes: object) -> Scope:
        """The scope of an object within this one."""
        values = {name: getattr(self, name) for name in self.__slots__}
        values.update(target=target, type=type, written=set(), merged=False, **changes)
        return Scope(**values)

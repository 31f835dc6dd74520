"""What belongs to what in a message, by the names of its segments alone, whatever its structure.

    MSH
      PID                     a patient, with PD1, NK1, PV1, AL1, IN1 …
        ORC OBR               an order: both together, or one of them
          OBX, SPM, TQ1 …     an item of the order, or of the patient
            NTE, PRT, Z…      a companion: of whatever stands before it

A line's key is (patient, order, item), each counted from 1; 0 is none.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain, product
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from engine.mapping.v2.draft import Line

Key = tuple[int, int, int]

HEADER, PATIENT, ORDER, ITEM, COMPANION = range(5)
_RANKS = {"MSH": HEADER, "SFT": HEADER, "UAC": HEADER, "DSC": HEADER, "PID": PATIENT, "ORC": ORDER, "OBR": ORDER}
_COMPANIONS = frozenset({"NTE", "PRT", "ROL", "PV2", "IN2", "IN3", "SAC", "TQ2", "RXR", "RXC"})


_LEADERS = frozenset({"OBX", "SPM", "IN1", "TQ1", "RXO", "RXE", "RXA", "FT1"})


def leads(name: str) -> bool:
    """Whether others usually belong to a segment, so that without it they would be taken for another one's."""
    return rank(name) in (PATIENT, ORDER) or name in _LEADERS


def rank(name: str) -> int:
    """How deep a segment stands: HEADER, PATIENT, ORDER, ITEM or COMPANION."""
    found = _RANKS.get(name)
    if found is not None:
        return found
    return COMPANION if name in _COMPANIONS or name[:1] == "Z" else ITEM


class Groups:
    """Gives the lines their keys, and finds from one line what others belong to it or above it."""

    def __init__(self, lines: Sequence[Line]) -> None:
        self._lines = list(lines)
        self._by: dict[tuple[object, str], list[Line]] = {}
        self._members: dict[tuple[int, ...], list[Line]] = {}
        _Counter().count(lines)

    @property
    def specimens_first(self) -> bool:
        """Whether a specimen leads its orders, as in OUL^R22, and not the other way round."""
        return any(line.name == "SPM" and not line.key[1] for line in self._lines)

    def _index(self) -> None:
        for line in self._lines:
            patient, order, item = line.key
            self._note(line.key, line)
            if not item or rank(line.name) != COMPANION:
                self._note((patient, order), line)
                self._note(patient, line)

    def _note(self, scope: object, line: Line) -> None:
        self._by.setdefault((scope, line.name), []).append(line)

    def visible(self, name: str, here: Line) -> list[Line]:
        """The segments of a name that one means where `here` is the one in question: its own, else those of its order,
        of its patient, of the message."""
        if not self._by:
            self._index()
        patient, order, item = here.key
        if rank(name) == COMPANION:
            return self._living(here.key, name)
        scopes: list[object] = [(patient, order)] if order else [] if item else [patient]
        for scope in (*scopes, (patient, 0), (0, 0)):
            found = self._living(scope, name)
            if found:
                return found
        return []

    def belonging(self, here: Line) -> list[Line]:
        """A segment with what belongs to it: an OBR with its ORC, OBX, NTE …"""
        level = rank(here.name)
        if level in (HEADER, COMPANION):
            return [here]
        if not self._members:
            for line in self._lines:
                for size in (PATIENT, ORDER, ITEM):
                    self._members.setdefault(line.key[:size], []).append(line)
        return [line for line in self._members[here.key[:level]] if not line.gone]

    def add(self, new: Line, after: Line) -> bool:
        """Take in a new segment behind another one; False where everything is to be counted again."""
        found = self._by.get((after.key, new.name), [])
        if (
            rank(new.name) != COMPANION
            or not after.key[2]
            or (found and after not in found and rank(after.name) == COMPANION)
        ):
            return False
        new.key = after.key
        if self._by:
            at = found.index(after) + 1 if after in found else 0
            self._by.setdefault((after.key, new.name), found).insert(at, new)
        self._members.clear()
        self._lines.insert(self._lines.index(after) + 1, new)
        return True

    def _living(self, scope: object, name: str) -> list[Line]:
        return [line for line in self._by.get((scope, name), ()) if not line.gone]


def parts(lines: Sequence[Line], name: str) -> list[list[Line]]:
    """The lines of each message that one is split into: one for each group of `name`, with what all of them share.

    What is in no such group and beside none, as a patient without orders, becomes a message of its own: nothing is
    left out.
    """
    led = {line.key for line in lines if line.name == name}
    level = rank(name)
    at: dict[Key, list[int]] = {}  # where the lines of each key stand
    for place, line in enumerate(lines):
        at.setdefault(_cut(line.key, level if level < ITEM or line.key in led else ORDER), []).append(place)
    shared = {each for key in at for each in _above(key) if each != key}
    ends = [key for key in at if key not in shared]
    if len(ends) < 2:
        return [list(lines)]
    return [[lines[place] for place in sorted(chain(*(at.get(each, ()) for each in _above(end))))] for end in ends]


def _cut(key: Key, level: int) -> Key:
    return key if level == ITEM else (key[0], key[1] if level == ORDER else 0, 0)


def _above(key: Key) -> set[Key]:
    """The keys of all that is part of what has this key: any of its numbers may be none."""
    patient, order, item = key
    return set(product({0, patient}, {0, order}, {0, item}))


class _Counter:
    """Counts patients, orders and items while it goes through the lines."""

    def __init__(self) -> None:
        self._key: Key = (0, 0, 0)
        self._patients = self._orders = self._items = 0
        self._waits_for_obr = False

    def count(self, lines: Iterable[Line]) -> None:
        for line in lines:
            level = rank(line.name)
            if level == HEADER:
                line.key = (0, 0, 0)
                continue
            if level == PATIENT:
                self._patients += 1
                self._key, self._waits_for_obr = (self._patients, 0, 0), False
            elif level == ORDER:
                self._order(line.name)
            elif level == ITEM:
                self._items += 1
                self._key = (*self._key[:2], self._items)
            line.key = self._key

    def _order(self, name: str) -> None:
        """An OBR goes with the ORC before it, if that has none yet."""
        joins = name == "OBR" and self._waits_for_obr
        if not joins:
            self._orders += 1
        self._key = (self._key[0], self._orders, 0)
        self._waits_for_obr = name == "ORC"

"""Which ORC belongs to which OBR, where their order leaves it open.

Most messages have them in the order that their grammar wants, and nothing is read for those. Elsewhere, between one
patient (PID) and the next, the segments are put into the order that they were meant in:

* ORC and OBR with the same number belong together. Placer (ORC-2, OBR-2) and filler number (ORC-3, OBR-3) count, each
  with its namespace; one that both have and that differs says that they do not (child orders have their parent's
  placer number, and filler numbers of their own). A side without a namespace agrees with any.
* Those without numbers pair by position; where ORCs stand in one block and as many OBRs in another, one after another.
* What still has no partner is left alone and told, where it should have one: an ORC is never guessed for an OBR.
* An ORC that is followed by several OBRs belongs to each of them, unless their numbers say otherwise: chapter 7 lets an
  OBR do without an ORC, and senders use that for an order of several tests. It then stands in each of their groups.
* OBX, with what follows them, that stand between an ORC and its OBR belong to the order before; in the first order,
  and where a sender always writes so, to their own. All else there is the ORC's own.
* Specimens that stand before their orders in a grammar that has them inside are put behind the first of those.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple

from engine.hl7.escape import STANDARD, Delimiters
from engine.hl7.message import NULL, delimiters_of

if TYPE_CHECKING:
    from engine.hl7.group import Node

BREAK: Final = -1
"""In a sequence: what follows belongs to another order than what stands before."""
COMPANIONS: Final = frozenset({"NTE", "PRT", "ROL"})
"""Segments that may follow nearly any other, and belong to it."""
_HEAD = COMPANIONS | {"TQ1", "TQ2"}  # behind an ORC these are the order's own
_DETAILS = frozenset({"RXO", "RXE", "RXD", "RXG", "RXA", "ODS", "ODT", "RQD", "RQ1", "BPO", "BPX", "BTX"})
_CANDIDATES = 64  # ORCs of one number that are looked at for an OBR


class Repair(NamedTuple):
    """A segment that did not stand where the grammar wants it. `segment` counts from 0."""

    code: str
    segment: int
    wanted: str


class Arrangement(NamedTuple):
    """Segments in the order that they were meant in.

    sequence: their numbers, and `BREAK`; an ORC stands once for each order that it is shared by.
    by_number: fields were read, so that it holds for this message only.
    """

    sequence: Sequence[int]
    repairs: list[Repair]
    by_number: bool


@dataclass(slots=True, eq=False)
class _Part:
    """An ORC or OBR with what follows it up to the next one. C: an ORC, B: an OBR, X: an order of another kind.

    head: the segment itself with its companions. tail: all else. behind: a specimen that came before. how: the repair
    that found the partner. shares: the partner has an OBR of its own. place: among the parts.
    """

    kind: str
    at: int
    head: list[int]
    tail: list[int] = field(default_factory=list)
    behind: list[int] = field(default_factory=list)
    partner: _Part | None = None
    how: str = ""
    shares: bool = False
    place: int = 0


class Orders:
    """The orders of one grammar.

    order: the group that has both ORC and OBR; None where the grammar has none. obr_first: its ORC stands behind its
    OBR, as in OUL^R22. must: each has to have an OBR.
    """

    def __init__(self, root: Node) -> None:
        way = _way(root)
        self.order = way[-1][0] if way else None
        self.inside: frozenset[str] = frozenset()
        self.obr_first = self.must = False
        self._ends = {"PID"}  # what stands before these is no part of the orders behind
        if self.order is None:
            return
        self.inside = self.order.names()
        for node, index in way[:-1]:
            within = node.slots[index]
            if within.node and within.many and within.node is not self.order:
                self._ends |= within.node.starts().keys() - self.inside
        slots = self.order.slots
        orc = next(index for index, slot in enumerate(slots) if slot.name == "ORC")
        obr = next(
            index for index, slot in enumerate(slots) if "OBR" in (slot.node.names() if slot.node else slot.name)
        )
        self.obr_first, self.must = obr < orc, not slots[obr].optional
        self._plain = re.compile("(?:BC|X)*|B*" if self.obr_first else "(?:CB|X)*|B*")

    def arrange(self, names: Sequence[str], lines: Sequence[str]) -> Arrangement | None:
        """The order in which to group the segments; None where it is theirs whatever is in them.

        Segments without a name, which the grammar does not know, are no part of it and change nothing.
        """
        if self.order is None or self._is_orderly([name for name in names if name] if "" in names else names):
            return None
        sequence: list[int] = []
        repairs: list[Repair] = []
        numbers = _Numbers(lines)
        region: list[int] = []
        for index, name in enumerate(names):
            if name in self._ends:
                sequence += _Region(self, names, region, numbers, repairs).sequence()
                sequence.append(index)
                region = []
            elif name:
                region.append(index)
        sequence += _Region(self, names, region, numbers, repairs).sequence()
        if not repairs and not numbers.read and sequence == [index for index, name in enumerate(names) if name]:
            return None
        return Arrangement(sequence, repairs, numbers.read)

    def _is_orderly(self, names: Sequence[str]) -> bool:
        """Whether there is nothing to do, at a glance: most messages have an ORC with each OBR, or none at all."""
        orcs = [at for at, name in enumerate(names) if name == "ORC"]
        if "SPM" in names and (not orcs or names.count("PID") > 1 or names.index("SPM") < orcs[0]):
            return False
        if self.obr_first:
            return not orcs or (names.count("OBR") == len(orcs) and all(names[at - 1] == "OBR" for at in orcs))
        return not orcs or (names.count("OBR") == len(orcs) and all(names[at + 1 : at + 2] == ["OBR"] for at in orcs))

    def is_plain(self, kinds: str) -> bool:
        """Whether ORCs and OBRs stand as the grammar wants them, with one another or without any ORC."""
        return self._plain.fullmatch(kinds) is not None


def _way(root: Node) -> list[tuple[Node, int]]:
    """The groups that lead to the outermost one that has a place for both ORC and OBR, each with the slot that is taken
    in it; none where there is none."""
    ways: list[list[tuple[Node, int]]] = [[(root, 0)]]
    while ways:
        way = ways.pop(0)
        node = way[-1][0]
        if any(slot.node is None and slot.name == "ORC" for slot in node.slots) and "OBR" in node.names():
            return way
        for index, slot in enumerate(node.slots):
            if slot.node:
                ways.append([*way[:-1], (node, index), (slot.node, 0)])
    return []


class _Region:
    """What stands between one patient and the next."""

    def __init__(
        self, orders: Orders, names: Sequence[str], region: list[int], numbers: _Numbers, repairs: list[Repair]
    ) -> None:
        self.orders, self.names, self.region, self.numbers, self.repairs = orders, names, region, numbers, repairs
        self.front: list[int] = []
        self.parts: list[_Part] = []
        self._cut()
        for place, part in enumerate(self.parts):
            part.place = place

    def sequence(self) -> list[int]:
        """The segments in the order that they were meant in."""
        kinds = "".join([part.kind for part in self.parts])
        if "B" not in kinds:
            if self.orders.must and "C" in kinds:
                self._alone([part for part in self.parts if part.kind == "C"])
            return self.region
        plain = self.orders.is_plain(kinds)
        between = any(part.behind or (part.kind == "C" and part.tail) for part in self.parts)
        if plain and (self.orders.obr_first or not between):
            return self.region
        self._pair(kinds, plain)
        return self._written()

    # -- cutting

    def _cut(self) -> None:
        first = next((self.names[at] for at in self.region if self.names[at] in ("ORC", "OBR", "SPM")), "")
        early = first == "SPM" and "SPM" in self.orders.inside and not self.orders.obr_first
        waiting: list[int] = []
        for at in self.region:
            name = self.names[at]
            if name in ("ORC", "OBR"):
                self.parts.append(_Part("C" if name == "ORC" else "B", at, [at]))
                if name == "OBR":
                    self.parts[-1].behind, waiting = waiting, []
            elif early and (name == "SPM" or (waiting and not self._after_order(waiting))):
                waiting.append(at)
            elif self.parts:
                self._follow(self.parts[-1], at, name)
            else:
                self.front.append(at)
        if waiting:  # no order follows
            (self.parts[-1].tail if self.parts else self.front).extend(waiting)

    def _after_order(self, waiting: list[int]) -> bool:
        """Whether an ORC or OBR has come since a specimen was set aside."""
        return bool(self.parts) and self.parts[-1].at > waiting[-1]

    def _follow(self, part: _Part, at: int, name: str) -> None:
        if part.kind == "C" and name in _DETAILS:
            part.kind = "X"
        if not part.tail and name in (COMPANIONS if part.kind == "B" else _HEAD):
            part.head.append(at)
        else:
            part.tail.append(at)

    # -- pairing

    def _pair(self, kinds: str, plain: bool) -> None:
        runs = list(self._runs())
        if plain:
            for orcs, obrs in runs:
                self._join(orcs[0], obrs[0], "")
            return
        _by_number(self.parts, self.numbers, 1 if self.orders.obr_first else -1)
        turned = list(self._runs(turned=True)) if self._is_turned(kinds) else []
        if turned and all(len(_free(orcs)) == len(_free(obrs)) for orcs, obrs in turned):
            runs = turned
        for orcs, obrs in runs:
            self._by_position(orcs, obrs, runs is turned)
        if not self.orders.obr_first and runs is not turned:
            for orcs, obrs in runs:
                self._share(orcs, obrs)
        self._tell()

    def _runs(self, turned: bool = False) -> Iterator[tuple[list[_Part], list[_Part]]]:
        """ORCs in a row with the OBRs in a row that follow them, or go before where the grammar has the OBR first.

        turned: the other way round.
        """
        first = "B" if self.orders.obr_first is not turned else "C"
        before: list[_Part] = []
        behind: list[_Part] = []
        for part in [*self.parts, None]:
            if part is None or part.kind == "X" or (part.kind == first and behind):
                if before and behind:
                    yield (before, behind) if first == "C" else (behind, before)
                before, behind = [], []
            if part is not None and part.kind != "X":
                (before if part.kind == first else behind).append(part)

    def _is_turned(self, kinds: str) -> bool:
        """Whether the sender seems to write each ORC behind its OBR, or before where the grammar has it behind."""
        ends = kinds.strip("X")
        return ends[0] + ends[-1] == ("CB" if self.orders.obr_first else "BC")

    def _by_position(self, orcs: list[_Part], obrs: list[_Part], turned: bool) -> None:
        orc, obr = (orcs[0], obrs[-1]) if self.orders.obr_first is not turned else (orcs[-1], obrs[0])
        left, open_ = _free(orcs), _free(obrs)
        beside = not orc.partner and not obr.partner
        if len(orcs) == 1 and beside and not turned:
            self._join(orc, obr, "")
        elif left and len(left) == len(open_):
            pairs = list(zip(left, open_, strict=True))
            if not any(self.numbers.differ(one.at, other.at) for one, other in pairs):
                for one, other in pairs:
                    self._join(one, other, "paired-by-order")
        elif len(obrs) == 1 and beside and not self.numbers.differ(orc.at, obr.at):
            self._join(orc, obr, "")

    def _share(self, orcs: list[_Part], obrs: list[_Part]) -> None:
        if len(orcs) != 1 or orcs[0].partner not in obrs:
            return
        for obr in obrs:
            if not obr.partner and not self.numbers.differ(orcs[0].at, obr.at):
                obr.partner, obr.shares = orcs[0], True

    def _join(self, orc: _Part, obr: _Part, how: str) -> None:
        orc.partner, obr.partner, orc.how = obr, orc, how

    def _tell(self) -> None:
        orcs = [part for part in self.parts if part.kind == "C"]
        obrs = [part for part in self.parts if part.kind == "B"]
        for orc in orcs:
            beside = orc.place - 1 if self.orders.obr_first else orc.place + 1
            if orc.partner and orc.how and orc.partner.place != beside:
                same = "with the same number" if orc.how == "paired-by-number" else "at the same place in their row"
                self.repairs.append(Repair(orc.how, orc.at, f"ORC beside its OBR; paired with the OBR {same}"))
        for obr in obrs:
            if obr.shares:
                self.repairs.append(Repair("shared-order", obr.at, "an ORC of its own; it has that of the OBR before"))
        if _free(orcs) and (self.orders.must or _free(obrs)):
            self._alone(_free(orcs) + _free(obrs))

    def _alone(self, parts: list[_Part]) -> None:
        for part in parts:
            other = "OBR" if part.kind == "C" else "ORC"
            self.repairs.append(Repair("unpaired-order", part.at, f"{other} with the same number"))

    # -- writing

    def _written(self) -> list[int]:
        self._settle()
        out = list(self.front)
        before = ""
        for part in self.parts:
            if part.kind == "C" and part.partner:
                continue
            lacks = "" if part.partner else "C" if part.kind == "B" else "B"
            if before and lacks and (before != lacks or (lacks == "B" and self.orders.obr_first)):
                out.append(BREAK)  # else the one would be taken for the other's
            before = lacks
            out += self._order(part)
        return out

    def _order(self, part: _Part) -> list[int]:
        orc = part.partner
        if part.kind != "B" or orc is None:
            return [*part.head, *part.tail, *part.behind]
        own = [orc.at] if part.shares else orc.head
        head = [*part.head[:1], *own, *part.head[1:]] if self.orders.obr_first else [*own, *part.head]
        return [*head, *part.tail, *part.behind]

    def _settle(self) -> None:
        """Give what stands between an ORC and its OBR to one of the orders."""
        for part in self.parts:
            self._displaced([at for at in part.behind if self.names[at] == "SPM"])
        own = False
        for place, part in enumerate(self.parts):
            obr = part.partner
            if part.kind != "C" or not obr or not part.tail:
                continue
            if obr.at < part.at:
                obr.tail += part.tail
                continue
            before = next((one for one in reversed(self.parts[:place]) if one.kind == "B"), None)
            results = self._results(part.tail)
            own = own or (before is None and results > 0)
            if before is not None and not own:
                before.tail += part.tail[:results]
                self._displaced([at for at in part.tail[:results] if self.names[at] == "OBX"])
                part.tail = part.tail[results:]
            self._displaced([at for at in part.tail if self.names[at] in self.orders.inside])
            cut = next((n for n, at in enumerate(part.tail) if self.names[at] == "SPM"), len(part.tail))
            obr.tail, obr.behind = [*part.tail[:cut], *obr.tail], [*part.tail[cut:], *obr.behind]

    def _results(self, tail: list[int]) -> int:
        """How many segments at the begin are OBX and what follows those."""
        count = 0
        for at in tail:
            if self.names[at] != "OBX" and (not count or self.names[at] not in COMPANIONS):
                break
            count += 1
        return count

    def _displaced(self, segments: list[int]) -> None:
        for at in segments:
            if self.names[at] not in COMPANIONS:
                self.repairs.append(Repair("displaced-segment", at, f"{self.names[at]} behind its OBR"))


def _free(parts: list[_Part]) -> list[_Part]:
    return [part for part in parts if not part.partner]


def _by_number(parts: list[_Part], numbers: _Numbers, beside: int) -> None:
    """Pair those whose numbers agree, the most certain first; among equals neighbours, then in their order.

    beside: where an OBR's ORC should stand, seen from it.
    """
    known: dict[tuple[int, str], list[_Part]] = {}
    for part in parts:
        if part.kind == "C":
            for kind, number in enumerate(numbers.of(part.at)):
                if number:
                    known.setdefault((kind, number[0]), []).append(part)
    for wanted in (4, 3, 2, 1):
        for obr in parts:
            if obr.kind != "B" or obr.partner:
                continue
            found = [orc for orc in _candidates(known, numbers.of(obr.at)) if numbers.agree(orc.at, obr.at) == wanted]
            near = parts[obr.place + beside] if 0 <= obr.place + beside < len(parts) else None
            orc = near if near in found and near and not near.partner else next(iter(_free(found)), None)
            if orc:
                orc.partner, obr.partner, orc.how = obr, orc, "paired-by-number"
            elif found:
                obr.partner, obr.shares = found[0], True


def _candidates(known: dict[tuple[int, str], list[_Part]], sought: tuple[tuple[str, ...], ...]) -> list[_Part]:
    """The ORCs that have one of an OBR's numbers: where they are many, those that are still free, and one."""
    out: list[_Part] = []
    for kind, number in enumerate(sought):
        orcs = known.get((kind, number[0]), []) if number else []
        if len(orcs) > _CANDIDATES and not _free(orcs[:_CANDIDATES]):
            known[kind, number[0]] = orcs = [*_free(orcs), orcs[0]]
        out += orcs[:_CANDIDATES]
    return out


class _Numbers:
    """The order numbers of a message's ORC and OBR: both have the placer's in field 2 and the filler's in field 3."""

    def __init__(self, lines: Sequence[str]) -> None:
        self._lines = lines
        self._marks: Delimiters | None = None
        self._known: dict[int, tuple[tuple[str, ...], tuple[str, ...]]] = {}

    @property
    def read(self) -> bool:
        """Whether anything was looked at."""
        return self._marks is not None

    def of(self, at: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Placer and filler number of a segment: number, namespace, universal id, its type; empty where not valued."""
        found = self._known.get(at)
        if found is None:
            if self._marks is None:
                self._marks = delimiters_of(self._lines[0]) if self._lines[0][3:4] else STANDARD
            fields = self._lines[at].split(self._marks.field, 4)
            found = self._known[at] = self._number(fields, 2), self._number(fields, 3)
        return found

    def _number(self, fields: list[str], field: int) -> tuple[str, ...]:
        assert self._marks is not None
        value = fields[field] if len(fields) > field else ""
        if self._marks.repetition:
            value = value.split(self._marks.repetition, 1)[0]
        parts = [part.strip().replace(NULL, "") for part in value.split(self._marks.component)]
        return tuple([*parts, "", ""][:3]) if parts[0] else ()

    def agree(self, orc: int, obr: int) -> int:
        """How surely both are of one order: 4 where both numbers are the same, 0 where none is or one differs."""
        sides = [_same(one, other) for one, other in zip(self.of(orc), self.of(obr), strict=True)]
        return 0 if -1 in sides else sum(sides)

    def differ(self, orc: int, obr: int) -> bool:
        """Whether a number that both have says that they are of different orders."""
        return any(_same(one, other) < 0 for one, other in zip(self.of(orc), self.of(obr), strict=True))


def _same(one: tuple[str, ...], other: tuple[str, ...]) -> int:
    """Of two numbers: 2 the same, 1 the same as far as known, -1 different, 0 not both valued."""
    if not one or not other:
        return 0
    if one == other:
        return 2
    if one[0] != other[0]:
        return -1
    for place in (2, 1):  # the universal id says more than its local name
        if one[place] and other[place]:
            return 1 if one[place] == other[place] else -1
    return 1

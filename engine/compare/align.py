"""Which segment of one message is which of the other: by their keys, never by their place alone.

An order's segments (ORC, OBR and what follows) are a group, known by its numbers and code; a result is known by its
code and sub-id within its order; a note by what it follows. What finds no partner by its key is paired with the most
similar that is left, so that a wrong code is a wrong code and not one result lost and another one gained. Neither side
comes first: exchanged, they have the same partners.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from difflib import SequenceMatcher
from itertools import chain
from typing import Final

from engine.hl7.escape import Delimiters
from engine.hl7.message import Message

KEYS: Final[dict[str, tuple[tuple[int, int], ...]]] = {
    "OBX": ((3, 1), (4, 0)),
    "OBR": ((2, 1), (3, 1), (4, 1)),
    "ORC": ((2, 1), (3, 1)),
    "SPM": ((2, 0),),
    "DG1": ((3, 1),),
    "AL1": ((3, 1),),
    "NK1": ((2, 1), (3, 1)),
    "PRT": ((4, 1), (5, 1)),
    "IN1": ((2, 1), (3, 1)),
}
"""(field, component) by which segments of a name are told apart; the others are taken in order."""

SINGLE: Final = frozenset({"MSH", "MSA", "EVN", "PID", "PD1", "PV1", "PV2", "MRG", "QRD", "QPD", "QAK"})
"""Segments that a message (or a patient in it) has one of: they belong together, however unlike."""

ALIKE: Final = 0.5  # share of equal fields from which two segments of a name can be the same
GROUP: Final = "(order)"
PATIENT: Final = "(patient)"
MOST_COMPARED: Final = 2500  # pairs; beyond it what is left is paired in order

Key = tuple[str, ...]


class Node:
    """A segment with what belongs to it, or a group of segments; `raw` is then the one that names the group."""

    __slots__ = ("children", "key", "name", "raw")

    def __init__(self, name: str, raw: str, key: Key) -> None:
        self.name = name
        self.raw = raw
        self.key = key
        self.children: list[Node] = []

    @property
    def segment(self) -> str:
        """The name that people know it by."""
        return self.raw[:3]


Pair = tuple[Node, Node]


def segment_key(raw: str, delimiters: Delimiters) -> Key:
    """What tells a segment from others of its name."""
    places = KEYS.get(raw[:3])
    if places is None:
        return ()
    fields = raw.split(delimiters.field)
    return tuple(_part(fields, field, component, delimiters.component) for field, component in places)


def _part(fields: list[str], field: int, component: int, mark: str) -> str:
    if field >= len(fields):
        return ""
    value = fields[field]
    return (value.split(mark, component)[component - 1] if component and mark else value).strip()


def same_structure(legacy: Message, target: Message) -> bool:
    """Whether the segments correspond line by line: nearly always, and then no tree is needed."""
    if len(legacy.lines) != len(target.lines):
        return False
    for one, other in zip(legacy.lines, target.lines, strict=True):
        if one == other:
            continue
        if one[:3] != other[:3]:
            return False
        if one[:3] in KEYS and segment_key(one, legacy.delimiters) != segment_key(other, target.delimiters):
            return False
    return True


# -- the tree


def tree(message: Message) -> Node:
    """The message's segments in their groups."""
    root = Node("", "", ())
    patient = root
    place = root  # where the next segment goes
    last: Node | None = None  # what a note belongs to
    for raw in message.lines:
        node = Node(raw[:3], raw, segment_key(raw, message.delimiters))
        if node.name == "NTE" and last is not None:
            last.children.append(node)
            continue
        if node.name == "PID" and any(child.name == "PID" for child in root.children):
            patient = place = Node(PATIENT, raw, ())
            root.children.append(patient)
        elif node.name == "ORC" or (node.name == "OBR" and _closed(place)):
            place = Node(GROUP, raw, ())
            patient.children.append(place)
        if node.name == "OBR" and place.name == GROUP:
            place.raw, place.key = raw, node.key
        elif node.name == "ORC":
            place.key = node.key
        place.children.append(node)
        last = node
    return root


def _closed(place: Node) -> bool:
    """Whether an OBR begins a group of its own here."""
    return place.name != GROUP or any(child.name == "OBR" for child in place.children)


# -- pairing


def pairs(legacy: Sequence[Node], target: Sequence[Node], field: str) -> tuple[list[Pair], list[Node], list[Node]]:
    """Siblings of one message with those of the other, in the first one's order, and what each side alone has.
    field: the separator."""
    if len(legacy) == len(target) and all(
        one.name == other.name and one.key == other.key for one, other in zip(legacy, target, strict=True)
    ):
        return list(zip(legacy, target, strict=True)), [], []
    theirs = _by_key(target)
    partner: dict[int, Node] = {}
    for place, ones in _by_key(legacy).items():
        if others := theirs.get(place):
            for one, other in _of_one_key(ones, others, field):
                partner[id(one)], partner[id(other)] = other, one
    lost, gained = _alone(legacy, partner), _alone(target, partner)
    if lost and gained:
        for one, other in _similar(lost, gained, field):
            partner[id(one)], partner[id(other)] = other, one
        lost, gained = _alone(lost, partner), _alone(gained, partner)
    return [(node, partner[id(node)]) for node in legacy if id(node) in partner], lost, gained


def _alone(nodes: Sequence[Node], partner: dict[int, Node]) -> list[Node]:
    return [node for node in nodes if id(node) not in partner]


def _by_key(nodes: Sequence[Node]) -> dict[tuple[str, Key], list[Node]]:
    table: dict[tuple[str, Key], list[Node]] = {}
    for node in nodes:
        table.setdefault((node.name, node.key), []).append(node)
    return table


def _of_one_key(ones: list[Node], others: list[Node], field: str) -> Iterable[Pair]:
    """Segments of one key, in order: lines of a text. Where one side has more, the equal ones find each other first.
    The pairs are the same whichever side that is, but not which of the two comes first in them."""
    if len(ones) == len(others):
        return zip(ones, others, strict=True)
    fewer, more = sorted((ones, others), key=len)
    texts, more_texts = ([_text(node.raw, field) for node in nodes] for nodes in (fewer, more))
    blocks = SequenceMatcher(None, texts, more_texts, autojunk=False).get_opcodes()
    return chain.from_iterable(zip(fewer[a:b], more[c:d], strict=False) for _, a, b, c, d in blocks)


def _text(raw: str, field: str) -> str:
    """A segment without its number, which changes where another one is lost."""
    return raw.split(field, 2)[-1]


def _similar(lost: list[Node], gained: list[Node], field: str) -> Iterator[Pair]:
    """Pairs among what no key paired: the most similar first, and of those that are as similar the first."""
    taken: set[int] = set()
    for _, one, other in sorted(_ranked(lost, gained, field), key=lambda row: -row[0]):
        if id(one) not in taken and id(other) not in taken:
            taken |= {id(one), id(other)}
            yield one, other


def _ranked(lost: list[Node], gained: list[Node], field: str) -> Iterator[tuple[float, Node, Node]]:
    """(likeness, one, other) of all that can be the same."""
    many = len(lost) * len(gained) > MOST_COMPARED
    for at, one in enumerate(lost):
        for other in gained[at : at + 1] if many else gained:
            if one.name != other.name:
                continue
            share = 1.0 if one.name in SINGLE else _share(one.raw, other.raw, field)
            if share >= ALIKE:
                yield share, one, other


def _share(one: str, other: str, field: str) -> float:
    """The share of filled fields that are equal, the first (which only numbers) apart."""
    first, second = one.split(field)[2:], other.split(field)[2:]
    filled = max(sum(map(bool, first)), sum(map(bool, second)))
    equal = sum(1 for a, b in zip(first, second, strict=False) if a and b and a.strip() == b.strip())
    return equal / filled if filled else 1.0


def displaced(found: list[Pair], target: Sequence[Node]) -> list[str]:
    """The names of the segments that stand in another order, seen from the side from which they are fewer: what was
    moved, and not what it has passed. found: all pairs, in the order of the first message."""
    places = {id(node): at for at, node in enumerate(target)}
    order = [places[id(other)] for _, other in found]
    there = _behind(order)
    if not there:
        return []
    back = sorted(range(len(order)), key=order.__getitem__)
    names = sorted({target[at].segment for at in there}), sorted({found[at][0].segment for at in _behind(back)})
    return min(names, key=lambda each: (len(each), each))


def _behind(order: Iterable[int]) -> list[int]:
    """What stands behind a greater one."""
    furthest = -1
    found = []
    for place in order:
        if place < furthest:
            found.append(place)
        else:
            furthest = place
    return found

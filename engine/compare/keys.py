"""By what an output is known to be an input's: the values of a few fields, read from the bytes without parsing all.

A message of several orders has the values of each of them, in no order, so that an engine which writes its segments
in another order still makes the same key.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final, TypeAlias

from engine.config.model import Compare, Direction
from engine.hl7.message import HEADERS, parse_path

Key: TypeAlias = tuple[bytes, ...]
Sketch: TypeAlias = frozenset[int]

BY_DIRECTION: Final[Mapping[Direction, tuple[str, ...]]] = MappingProxyType(
    {
        "results": ("OBR-3.1", "OBR-25", "OBR-4.1"),
        "orders": ("ORC-1", "ORC-2.1"),
        "adt": ("MSH-9.2", "PID-3.1"),
        "query": ("MSH-10",),
    }
)
"""The key where a channel's `compare:` names none."""

SKETCHED: Final = 1000  # values that stand for a message when it is asked which of two is more like a third
_BETWEEN: Final = re.compile(rb"[|^&~\r\n]")
_POINT: Final = ord(".")


class Keys:
    """Reads the keys of one channel."""

    def __init__(self, paths: Sequence[str]) -> None:
        """`paths`: fields or components, `OBR-3.1`. ValueError where one is no path."""
        places: dict[bytes, list[tuple[int, int]]] = {}
        for path in paths:
            segment, field, _, component, _, _ = parse_path(path)
            field -= segment in HEADERS
            places.setdefault(segment.encode(), []).append((field, component))
        self._places = {name: (max(field for field, _ in wanted), wanted) for name, wanted in places.items()}

    @classmethod
    def of(cls, compare: Compare, direction: Direction) -> Keys:
        """The channel's own, or those that are usual for its direction."""
        return cls(compare.key or BY_DIRECTION[direction])

    def read(self, raw: bytes) -> Key:
        """The key of a message; empty where it has none of the segments. Blanks around a value do not count."""
        bar, component, repetition = raw[3:4] or b"|", raw[4:5], raw[5:6]
        found: set[bytes] = set()
        for line in raw.split(b"\r" if b"\r" in raw else b"\n"):
            place = self._places.get(line[:3])
            if place is None:
                continue
            fields = line.split(bar, place[0] + 1)
            values = [_value(fields, field, part, component, repetition) for field, part in place[1]]
            found.add(line[:3] + b"|" + b"|".join(values))
        return tuple(sorted(found)) if len(found) > 1 else tuple(found)


def _value(fields: list[bytes], field: int, part: int, component: bytes, repetition: bytes) -> bytes:
    if field >= len(fields):
        return b""
    value = fields[field]
    if repetition and repetition in value:
        value = value.split(repetition, 1)[0]
    if part and component:
        parts = value.split(component, part)
        value = parts[part - 1] if part <= len(parts) else b""
    return value.strip()


def body(raw: bytes) -> bytes:
    """The message without its header, which each engine stamps."""
    end = raw.find(b"\r")
    return raw[end:].rstrip(b"\r\n\x1c \x00") if end > 0 else raw


def sketch(raw: bytes) -> Sketch:
    """The message's values, as numbers: all of them, of a very long one always the same ones. Of this process only."""
    found = set(_BETWEEN.split(body(raw)))  # once each: most stand there several times
    values = {hash(_plain(value) if _POINT in value else value.strip()) for value in found if len(value) > 1}
    return frozenset(values if len(values) <= SKETCHED else sorted(values)[:SKETCHED])


def _plain(value: bytes) -> bytes:
    """A value without blanks around it, a number or time without last zeros behind its point: habits, not content."""
    value = value.strip()
    return value.rstrip(b"0").rstrip(b".") if value.endswith((b"0", b".")) else value


def likeness(one: Sketch, other: Sketch) -> float:
    """The share of values that two messages have in common, 0 to 1."""
    both = len(one | other)
    return len(one & other) / both if both else 1.0


def apart(one: Sketch, other: Sketch) -> int:
    """How many values one of two messages has and the other has not."""
    return len(one ^ other)

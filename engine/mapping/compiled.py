"""Compiled mappings as plain bytes and data: what is left to be known at run time, and what a cache can keep."""

from __future__ import annotations

import marshal
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import CodeType, FunctionType
from typing import Any

from engine.hl7.group import Node, Slot
from engine.mapping import convert, lineage, run
from engine.mapping.writer import Unit

_RUNTIME = {
    name: getattr(run, name)
    for name in (
        "as_key", "clock", "component", "cut", "decide", "digits", "encoded", "event_time", "first", "from_hex",
        "front", "gathered", "head", "header", "high", "identifiers", "in_order", "in_size", "joined", "kept",
        "known_by", "leaf", "link", "low", "media_type", "nulls", "part", "received", "repeats", "subcomponent",
        "taken_over", "time", "translated", "walk",
    )
} | {"authority": convert.authority, "coding_system": convert.coding_system,
     "as_string": convert.text, "NUL": "\0", "EMPTY": ((),) * 64, "Into": lineage.Into}  # fmt: skip

LANGUAGE = 2
"""Part of every version: goes up when the same files come to mean something else."""

Part = tuple[CodeType, dict[str, Any], list[str], list[str]]
"""A unit: its code, its constants, the conversions that it uses, the units that it calls."""


@dataclass(frozen=True, slots=True)
class Compiled:
    """One message's mapping. coding: names of coding systems, in capitals, and their URIs. run: its unit. joined:
    whether texts that come a line each are put together. named: that it is only for channels that name it."""

    name: str
    accepts: tuple[str, ...]
    version: str
    coding: dict[str, str]
    root: Node
    run: str
    joined: bool = False
    named: bool = False

    def data(self) -> tuple[Any, ...]:
        """Everything as data that `marshal` takes."""
        return self.name, self.accepts, self.version, self.coding, _plain(self.root), self.run, self.joined, self.named

    @staticmethod
    def of(data: tuple[Any, ...]) -> Compiled:
        """What `data` was made of."""
        name, accepts, version, coding, root, run, *how = data
        return Compiled(name, accepts, version, coding, _node(root), run, *how)


@dataclass(frozen=True, slots=True)
class Shelf:
    """All that was compiled: the messages, and by variant the units that they share.

    A variant is (full, traced). The fast one (False, False) is always here, the careful one where it was wanted.
    """

    messages: tuple[Compiled, ...]
    parts: dict[tuple[bool, bool], Mapping[str, Part]]

    def packed(self) -> bytes:
        """Everything, but for what is traced, which names the rows themselves."""
        parts = {full: dict(self.parts[full, False]) for full in (False, True) if (full, False) in self.parts}
        return marshal.dumps(([one.data() for one in self.messages], parts))

    @staticmethod
    def of(data: bytes) -> Shelf:
        """What `data` was made of."""
        messages, parts = marshal.loads(data)
        return Shelf(
            tuple(Compiled.of(each) for each in messages), {(full, False): found for full, found in parts.items()}
        )


class Written(Mapping[str, Part]):
    """Units as parts, by name; each is compiled when it is asked for."""

    def __init__(self, units: dict[str, Unit]) -> None:
        self._units = units

    def __getitem__(self, name: str) -> Part:
        unit = self._units[name]
        conversions = [name for name, value in unit.namespace.items() if callable(value)]
        constants = {name: value for name, value in unit.namespace.items() if not callable(value)}
        return unit.code, constants, conversions, sorted(unit.calls)

    def __iter__(self) -> Iterator[str]:
        return iter(self._units)

    def __len__(self) -> int:
        return len(self._units)


def link(found: Mapping[str, Part], name: str) -> Callable[..., None]:
    """A unit as a function, with all that it needs."""
    namespace: dict[str, Any] = dict(_RUNTIME)
    waiting = [name]
    while waiting:
        one = waiting.pop()
        if one in namespace:
            continue
        code, constants, conversions, calls = found[one]
        namespace |= constants
        namespace |= {each: convert.CONVERSIONS[each.removeprefix("as_")][1] for each in conversions}
        namespace[one] = FunctionType(code, namespace)
        waiting.extend(calls)
    whole: Callable[..., None] = namespace[name]
    return whole


def _plain(node: Node) -> tuple[Any, ...]:
    slots = [(s.name, s.many, s.optional, s.after, s.node and _plain(s.node)) for s in node.slots]
    return node.name, slots


def _node(data: tuple[Any, ...]) -> Node:
    name, slots = data
    return Node(name, [Slot(s[0], s[1], s[2], s[3], s[4] and _node(s[4])) for s in slots])

"""A compiled mapping as plain bytes and data: what is left to be known at run time, and what a cache can keep."""

from __future__ import annotations

import marshal
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from engine.hl7.group import Node, Slot
from engine.mapping import convert, run
from engine.mapping.writer import Module

_RUNTIME = {
    name: getattr(run, name)
    for name in (
        "clock", "component", "decide", "digits", "encoded", "event_time", "fields", "first", "gathered",
        "head", "header", "identifiers", "joined", "kept", "nulls",
        "link", "received", "translated", "walk",
    )
} | {"authority": convert.authority, "coding_system": convert.coding_system, "number": convert.number,
     "as_string": convert.text, "NUL": "\0"}  # fmt: skip


LANGUAGE = 1
"""Part of every version: goes up when the same files come to mean something else."""


@dataclass(frozen=True, slots=True)
class Compiled:
    """One message's mapping.

    coding: names of coding systems, in capitals, and their URIs. bodies: the fast variant (False) and, where it was
    made, the careful one (True), each as `pack` gives it.
    """

    name: str
    accepts: tuple[str, ...]
    version: str
    coding: dict[str, str]
    root: Node
    bodies: dict[bool, bytes]

    def data(self) -> tuple[Any, ...]:
        """Everything as data that `marshal` takes."""
        return self.name, self.accepts, self.version, self.coding, _plain(self.root), self.bodies

    @staticmethod
    def of(data: tuple[Any, ...]) -> Compiled:
        """What `data` was made of."""
        name, accepts, version, coding, root, bodies = data
        return Compiled(name, accepts, version, coding, _node(root), bodies)


def pack(module: Module, name: str) -> bytes:
    """A module's code and constants; conversions by their names."""
    code = compile(module.source(), f"<mapping {name}{' full' if module.full else ''}>", "exec")
    conversions = [name for name, value in module.namespace.items() if callable(value)]
    constants = {name: value for name, value in module.namespace.items() if not callable(value)}
    return marshal.dumps((code, constants, conversions))


def unpack(body: bytes) -> Callable[..., None]:
    """The function `run` of a packed module."""
    code, constants, conversions = marshal.loads(body)
    functions = {name: convert.CONVERSIONS[name.removeprefix("as_")][1] for name in conversions}
    namespace = {**_RUNTIME, **constants, **functions}
    exec(code, namespace)
    found: Callable[..., None] = namespace["run"]
    return found


def _plain(node: Node) -> tuple[Any, ...]:
    slots = [(s.name, s.many, s.optional, s.after, s.node and _plain(s.node)) for s in node.slots]
    return node.name, slots


def _node(data: tuple[Any, ...]) -> Node:
    name, slots = data
    return Node(name, [Slot(s[0], s[1], s[2], s[3], s[4] and _node(s[4])) for s in slots])

"""Python source, line by line, and the functions that a mapping is made of.

Each map becomes one function (a unit), written once however many messages use it. Units find each other by their names;
constants have names made of their content. So units written at different times fit together.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import blake2b
from types import CodeType
from typing import Any

_MOST = 8192
_codes: dict[bytes, CodeType] = {}


class Writer:
    """Lines at a depth of indentation."""

    def __init__(self, depth: int = 0) -> None:
        self.lines: list[str] = []
        self.depth = depth
        self._begun: list[int] = []

    def __call__(self, line: str) -> None:
        """Write one line."""
        self.lines.append("    " * self.depth + line)

    def block(self, head: str) -> Writer:
        """Write `head` and indent what follows; an empty block gets a `pass`."""
        self(head)
        return self

    def __enter__(self) -> None:
        self.depth += 1
        self._begun.append(len(self.lines))

    def __exit__(self, *_: object) -> None:
        if self._begun.pop() == len(self.lines):
            self("pass")
        self.depth -= 1


@dataclass(slots=True)
class Unit:
    """A function, and what is to be known of it.

    lines: its source. namespace: the constants in it. calls: the units it needs. used: the content it was made of, its
    callees' too. reads: by segment, the fields it reads. writes: the elements it may set. party: whether it, or what it
    calls, makes entries of the message. flags: objects, and the variables that say whether an option has added to them.
    guards: the values that were compared before the row that is being written.
    """

    name: str
    lines: list[str] = field(default_factory=list)
    namespace: dict[str, Any] = field(default_factory=dict)
    calls: set[str] = field(default_factory=set)
    used: dict[str, Any] = field(default_factory=dict)
    reads: dict[str, set[int]] = field(default_factory=dict)
    writes: frozenset[str] = frozenset()
    party: bool = False
    heads: set[tuple[str, str]] = field(default_factory=set)
    hoisted: frozenset[tuple[str, str]] = frozenset()
    caches: dict[str, str] = field(default_factory=dict)
    flags: list[tuple[str, str]] = field(default_factory=list)
    guards: list[tuple[Any, ...]] = field(default_factory=list)
    count: int = 0

    def constant(self, value: Any, prefix: str = "K") -> str:
        """The name of a constant; equal ones share it. They are never changed at run time."""
        name = f"{prefix}_{blake2b(repr(value).encode(), digest_size=6).hexdigest()}"
        self.namespace[name] = value
        return name

    @property
    def source(self) -> str:
        """Its Python."""
        return "\n".join(self.lines) + "\n"

    @property
    def code(self) -> CodeType:
        """Its function's code; compiled once, however many mappings and channels have the same."""
        source = self.source
        key = blake2b(source.encode(), digest_size=16).digest()
        known = _codes.get(key)
        if known is None:
            if len(_codes) >= _MOST:
                _codes.clear()
            known = _codes[key] = compile(source, f"<mapping {self.name}>", "exec").co_consts[0]
        return known


_DEEP = " " * 12
"""What stands so deep is hardly ever reached."""


def _head(variable: str, number: str) -> str:
    field = f"{variable}[{number}]"
    return f"({field} and ({field} if {field}.isalnum() else head({field})))"


def _asked(lines: list[str], text: str) -> int:
    return sum(line.count(text) for line in lines)


class Workshop:
    """Where units are written, one inside another.

    full: for messages with escapes, nulls, stray blanks, other delimiters. traced: with notes of what came from where.
    """

    def __init__(self, full: bool, traced: bool = False) -> None:
        self.full, self.traced = full, traced
        self.units: dict[str, Unit] = {}
        self._open: list[Unit] = []

    @property
    def unit(self) -> Unit:
        """The one being written."""
        return self._open[-1]

    def write(self, name: str, write: Callable[[Writer], None], heads: frozenset[str] = frozenset()) -> Unit:
        """A unit by what `write` writes. heads: parameters of whose fields the first leaves may be had once, in front.

        Where such leaves are asked for twice on most ways through it, it is written a second time, as only the first
        tells.
        """
        unit = self._written(name, write, frozenset())
        near = [line for line in unit.lines if not line.startswith(_DEEP)]
        hoisted = frozenset(key for key in unit.heads if key[0] in heads and _asked(near, _head(*key)) > 1)
        if hoisted:
            unit = self._written(name, write, hoisted)
        self.units[name] = unit
        return unit

    def _written(self, name: str, write: Callable[[Writer], None], hoisted: frozenset[tuple[str, str]]) -> Unit:
        unit = Unit(name, hoisted=hoisted)
        out = Writer()
        self._open.append(unit)
        try:
            write(out)
        finally:
            self._open.pop()
        head, body = out.lines[0], out.lines[1:]
        front = self._front(unit, body)
        unit.lines = [head, *front, *body]
        return unit

    def _front(self, unit: Unit, body: list[str]) -> list[str]:
        """What is looked up once."""
        out = Writer(1)
        near = [line for line in body if not line.startswith(_DEEP)]
        for name, variable in unit.caches.items():
            if _asked(near, variable) > 1:
                out(f"{variable} = X.coded[{name!r}]")
            else:  # where it is hardly used, it is looked up there, if at all
                body[:] = [line.replace(variable, f"X.coded[{name!r}]") for line in body]
        for variable, number in sorted(unit.hoisted):
            name = f"h_{variable}_{number}"
            out(f"{name} = {variable}[{number}]")
            with out.block(f"if {name} and not {name}.isalnum():"):
                out(f"{name} = head({name})")
        return out.lines

    def call(self, unit: Unit) -> str:
        """The name of a unit, which the one being written calls."""
        self.unit.calls.add(unit.name)
        self.unit.used |= unit.used
        self.unit.party |= unit.party
        return unit.name

    def constant(self, value: Any, prefix: str = "K") -> str:
        """The name of a constant; equal ones share it. They are never changed at run time."""
        return self.unit.constant(value, prefix)

    def cache(self, name: str) -> str:
        """The variable of the connection's cache of that name."""
        return self.unit.caches.setdefault(name, f"cache_{len(self.unit.caches)}_")

    def head(self, variable: str, number: str) -> str:
        """The first leaf of a field of a segment; a variable of its own where it is asked for often."""
        self.unit.heads.add((variable, number))
        if (variable, number) in self.unit.hoisted:
            return f"h_{variable}_{number}"
        return _head(variable, number)

    def temporary(self) -> str:
        """A variable name not used yet."""
        self.unit.count += 1
        return f"t{self.unit.count}"

    def mark(self) -> int:
        """How many variables are in use."""
        return self.unit.count

    def release(self, mark: int) -> None:
        """Make the names of those after `mark` free."""
        self.unit.count = mark

    def closure(self, name: str) -> dict[str, Unit]:
        """A unit and all that it needs, by name."""
        found: dict[str, Unit] = {}
        waiting = [name]
        while waiting:
            name = waiting.pop()
            if name not in found:
                found[name] = self.units[name]
                waiting.extend(found[name].calls)
        return found

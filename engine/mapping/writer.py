"""Python source, line by line."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class Writer:
    """Lines at a depth of indentation."""

    def __init__(self, depth: int = 0) -> None:
        self.lines: list[str] = []
        self.depth = depth

    def __call__(self, line: str) -> None:
        """Write one line."""
        self.lines.append("    " * self.depth + line)

    @contextmanager
    def block(self, head: str) -> Iterator[None]:
        """Write `head` and indent what follows; an empty block gets a `pass`."""
        self(head)
        before = len(self.lines)
        self.depth += 1
        try:
            yield
            if len(self.lines) == before:
                self("pass")
        finally:
            self.depth -= 1


class Module:
    """The source of one mapping: functions, and constants that are made once and shared."""

    def __init__(self, full: bool) -> None:
        self.full = full
        self.functions: list[str] = []
        self.names: dict[str, str] = {}
        self.namespace: dict[str, Any] = {}
        self._constants: dict[str, str] = {}
        self.caches: dict[str, str] = {}
        self.locals: dict[str, str] = {}
        self.heads: Counter[tuple[str, str]] = Counter()
        self.hoisted: frozenset[tuple[str, str]] = frozenset()
        self._count = 0

    def constant(self, value: Any, prefix: str = "K") -> str:
        """The name of a constant; equal ones share it. They are never changed at run time."""
        key = prefix + repr(value)
        if key not in self._constants:
            self._constants[key] = f"{prefix}{len(self._constants)}"
            self.namespace[self._constants[key]] = value
        return self._constants[key]

    def cache(self, name: str) -> str:
        """The variable, in `run`, of the connection's cache of that name."""
        return self.caches.setdefault(name, f"cache{len(self.caches)}")

    def head(self, variable: str, number: str) -> str:
        """The first leaf of a field of a segment; a variable of its own where it is asked for often."""
        self.heads[variable, number] += 1
        if (variable, number) in self.hoisted:
            return f"h_{variable}_{number}"
        return f"({variable}[{number}] and head({variable}[{number}]))"

    def local(self, name: str) -> str:
        """The variable, in `run`, of a system of the connection's own."""
        return self.locals.setdefault(name, f"local{len(self.locals)}")

    def temporary(self) -> str:
        """A variable name not used yet."""
        self._count += 1
        return f"t{self._count}"

    def mark(self) -> int:
        """How many variables are in use."""
        return self._count

    def release(self, mark: int) -> None:
        """Make the names of those after `mark` free."""
        self._count = mark

    def source(self) -> str:
        """All functions."""
        return "\n\n".join(self.functions) + "\n"

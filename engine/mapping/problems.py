"""Mistakes in mapping files: each with its place, what was found, what would be right; all of them, not the first."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import PurePath

from engine.config.problem import Problem

FOLDERS = ("messages", "segments", "datatypes", "tables")
_ONE = re.compile(r"\b1 values\b")


class MappingError(Exception):
    """All problems of all mapping files, in order of place. Nothing was compiled."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = sorted(set(problems))
        super().__init__("\n".join(map(str, self.problems)))


@dataclass(frozen=True, slots=True)
class Place:
    """Where something stands; line and column count from 1."""

    file: str
    line: int
    column: int

    def __str__(self) -> str:
        """`segments/PID.yaml:12`: as seen from the folder of mappings."""
        parts = PurePath(self.file).parts
        known = [number for number, part in enumerate(parts[:-1]) if part in FOLDERS]
        return f"{'/'.join(parts[known[-1] :] if known else parts[-1:])}:{self.line}"

    def shifted(self, columns: int) -> Place:
        """Further right on the same line."""
        return Place(self.file, self.line, self.column + columns)


class Problems:
    """Collects what is wrong while loading goes on."""

    def __init__(self) -> None:
        self.found: list[Problem] = []

    def add(self, place: Place, found: str, wanted: str) -> None:
        """Note one mistake."""
        found = found.removeprefix("found ")  # some of YAML's own texts begin with what a problem says before them
        self.found.append(Problem(place.file, place.line, place.column, _counted(found), _counted(wanted)))

    def unknown(self, place: Place, kind: str, name: str, known: Iterable[str]) -> None:
        """Note a name that nobody knows, with a guess what was meant."""
        self.add(place, f"unknown {kind} {name}", guess(name, known, kind))

    def check(self) -> None:
        """Raise `MappingError` if anything was noted."""
        if self.found:
            raise MappingError(self.found)


def _counted(text: str) -> str:
    """A text with `1 value` instead of `1 values`, so that whoever counts need not see to it."""
    return _ONE.sub("1 value", text)


def guess(name: str, known: Iterable[str], kind: str) -> str:
    """What would be right: the nearest known name, else some of them."""
    names = sorted(set(known))
    lowered = {other.lower(): other for other in names}
    near = get_close_matches(name.lower(), lowered, n=1, cutoff=0.6)
    if near:
        return f"{lowered[near[0]]}"
    if not names:
        return f"no {kind} here"
    return "one of " + ", ".join(names[:12]) + (" …" if len(names) > 12 else "")

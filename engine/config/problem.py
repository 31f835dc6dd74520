"""A mistake in a configuration file: where it stands, what was found, what would be right."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """`line` and `column` count from 1; `file` is as the user would type it from where he stands. A variable of the
    environment has line 0: `file` is `environment NAME`."""

    file: str
    line: int
    column: int
    found: str
    wanted: str

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}:{self.column}" if self.line else self.file
        return f"{place}: found {self.found}; expected {self.wanted}"


class ConfigError(Exception):
    """All problems of all files, in order. Nothing has been started."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = sorted(problems)
        super().__init__("\n".join(map(str, self.problems)))


@dataclass(frozen=True, slots=True, order=True)
class Note:
    """Something that is right but worth knowing: a key that this version checks and does not act upon yet."""

    file: str
    line: int
    column: int
    text: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}: note: {self.text}"

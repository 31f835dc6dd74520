"""Courses that share an endpoint take turns: no more is claimed for it than it has room for, and who has waited longest
is next. So what is claimed is sent at once, and a crash leaves few messages of which nobody knows whether they were.

Like the book's other numbers these change inside a transaction, and are put back when it fails.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from engine.ledger.course import Course

Turn: TypeAlias = "tuple[Course, tuple[int, int, int] | None]"
"""A course that may claim its next number, or one open part of it that is to be claimed anew."""


class Turns:
    """One endpoint's. `waiting`: whoever wants to claim, in order."""

    def __init__(self, room: Callable[[], int]) -> None:
        """`room`: how many messages may be claimed at this moment, with those that are. Where that may grow without a
        settlement, whoever knows of it has the ledger look again (`Ledger.take_turns`)."""
        self.waiting: dict[Turn, None] = {}
        self._room = room
        self._courses: list[Course] = []

    def join(self, course: Course) -> None:
        course.turns = self
        self._courses.append(course)

    def left(self) -> int:
        """How many more may be claimed."""
        return self._room() - sum(course.in_flight() for course in self._courses)

"""What a difference is measured by: the places that do not matter, and the ways of writing that do not.

Every rule has a reason and is reported with the comparison. A difference that a rule covers is `expected`; only the
header's own stamps are passed over without a word, since every message has them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, get_args

from engine.config.model import Compare, Ignored, Tolerance

TOLERANCES: Final[tuple[Tolerance, ...]] = get_args(Tolerance)
"""The ways in which two values can be the same and not look it."""

STAMPS: Final = (
    Ignored("MSH-7", "each engine stamps its own time of sending"),
    Ignored("MSH-10", "each engine numbers what it sends"),
)
"""What never tells anything, in any channel."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule, as it is reported. how: `ignore` or a tolerance. path: None = anywhere."""

    path: str | None
    how: str
    reason: str


class Rules:
    """The rules of one channel."""

    def __init__(self, stated: tuple[Rule, ...]) -> None:
        stamps = tuple(Rule(stamp.path, "ignore", stamp.reason) for stamp in STAMPS)
        self.all: tuple[Rule, ...] = (*stamps, *stated)
        """Built-in and declared, in that order."""
        self._at: Mapping[tuple[str, str | None], Rule] = {(rule.how, rule.path): rule for rule in reversed(stated)}

    @classmethod
    def of(cls, compare: Compare) -> Rules:
        """The rules that a channel's `compare:` declares, beside those that always hold."""
        ignored = (Rule(rule.path, "ignore", rule.reason) for rule in compare.ignore)
        tolerated = (Rule(rule.path, rule.how, rule.reason) for rule in compare.tolerate)
        return cls((*ignored, *tolerated))

    def find(self, path: str, how: str | None = None) -> Rule | None:
        """The rule that covers a difference at a path, if any; the nearest place counts. how: the tolerance that would
        make it none."""
        places = (path, path.partition(".")[0], path.partition("-")[0])
        for wanted in ("ignore", how) if how else ("ignore",):
            for place in (*places, None):
                if rule := self._at.get((wanted, place)):
                    return rule
        return None


STAMPED: Final = frozenset(int(stamp.path.partition("-")[2]) for stamp in STAMPS)
"""The header fields that are passed over, as numbers."""

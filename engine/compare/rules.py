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


_ROUTE = "by whom and for whom an acknowledgement is: its sender knows whom it has written to"
_MANNER = "each engine writes the header of an acknowledgement in its own manner; senders act on MSA and ERR"
_TEXT = "a text for people, which no sender acts on"
_FORM: Final = (
    ("MSH-3 MSH-4 MSH-5 MSH-6", _ROUTE),
    ("MSH-1 MSH-2 MSH-8 MSH-9.2 MSH-9.3 MSH-12 MSH-13 MSH-14 MSH-15 MSH-16 MSH-17 MSH-18 MSH-19 MSH-20", _MANNER),
    ("MSH-21 MSH-22 MSH-23 MSH-24 MSH-25 SFT UAC", _MANNER),
    ("MSA-3 MSA-4 MSA-5 ERR-7 ERR-8", _TEXT),
)
FORM: Final = tuple(Ignored(path, reason) for paths, reason in _FORM for path in paths.split())
"""The mere form of an acknowledgement. What its sender acts on is not in it: MSA-1, MSA-2, MSA-6, what ERR says and
where, the message type and processing id, and whatever segments bring data."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule, as it is reported. how: `ignore` or a tolerance. path: None = anywhere."""

    path: str | None
    how: str
    reason: str


class Rules:
    """The rules of one channel."""

    def __init__(self, stated: tuple[Rule, ...], built_in: tuple[Rule, ...] = ()) -> None:
        """built_in: rules beside the stamps that hold where none is stated."""
        stamps = tuple(Rule(stamp.path, "ignore", stamp.reason) for stamp in STAMPS)
        self.all: tuple[Rule, ...] = (*stamps, *built_in, *stated)
        """Built-in and declared, in that order."""
        self._at: Mapping[tuple[str, str | None], Rule] = {
            (rule.how, rule.path): rule for rule in reversed((*stated, *built_in))
        }

    @classmethod
    def of(cls, compare: Compare) -> Rules:
        """The rules that a channel's `compare:` declares, beside those that always hold."""
        return cls(_stated(compare))

    @classmethod
    def of_answers(cls, compare: Compare) -> Rules:
        """The rules for the answers to a channel's senders: what it declares, and that mere form does not count."""
        return cls(_stated(compare), tuple(Rule(one.path, "ignore", one.reason) for one in FORM))

    def find(self, path: str, how: str | None = None) -> Rule | None:
        """The rule that covers a difference at a path, if any; the nearest place counts. how: the tolerance that would
        make it none."""
        places = (path, path.partition(".")[0], path.partition("-")[0])
        for wanted in ("ignore", how) if how else ("ignore",):
            for place in (*places, None):
                if rule := self._at.get((wanted, place)):
                    return rule
        return None


def _stated(compare: Compare) -> tuple[Rule, ...]:
    ignored = (Rule(rule.path, "ignore", rule.reason) for rule in compare.ignore)
    tolerated = (Rule(rule.path, rule.how, rule.reason) for rule in compare.tolerate)
    return (*ignored, *tolerated)


STAMPED: Final = frozenset(int(stamp.path.partition("-")[2]) for stamp in STAMPS)
"""The header fields that are passed over, as numbers."""

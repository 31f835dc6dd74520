"""Classes of differences: what a person looks at, explains, has fixed or accepts. Pure; times in microseconds.

A discrepancy is all differences of one signature: channel, tap, path, kind. It is open until somebody settles it. One
that was fixed and comes again is open again; so is any that comes again worse than it was when somebody settled it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from typing import Final, NamedTuple

from engine.compare.diff import Difference
from engine.compare.severity import SEVERITIES, Severity, worst
from engine.ledger.course import Compared

DAY: Final = 86_400_000_000  # microseconds
DUE: Final[Mapping[Severity, int]] = {"clinical": DAY, "business": 7 * DAY, "cosmetic": 30 * DAY}
"""How long a discrepancy may be open, by severity."""

BY_RULE: Final = "rule"
"""Who settled what a rule covers."""


class State(Enum):
    """Whether a discrepancy still needs a person."""

    OPEN = "open"
    EXPLAINED = "explained"  # understood, and as it should be
    FIXED = "fixed"  # a mapping was mended; it must not come again
    ACCEPTED = "accepted"  # a difference that stays, and somebody answers for it


SETTLED: Final = frozenset({State.EXPLAINED, State.FIXED, State.ACCEPTED})


class Signature(NamedTuple):
    """What makes differences of a channel the same. tap: empty for the answers to the sender."""

    tap: str
    path: str
    kind: str


@dataclass(frozen=True, slots=True)
class Discrepancy:
    """A row of `discrepancy`. due: when an open one is overdue. why, who, settled_at: of its present state."""

    signature: Signature
    severity: Severity
    state: State
    owner: str
    first_at: int
    last_at: int
    count: int
    due: int
    why: str = ""
    who: str = ""
    settled_at: int | None = None

    @property
    def settled(self) -> bool:
        return self.state in SETTLED

    @property
    def missing(self) -> bool:
        """Whether one side alone has something whole: a message, a segment."""
        return self.signature.kind.startswith("missing_")


class SettleError(ValueError):
    """What somebody wants to do to a discrepancy makes no sense. The sentence says why."""


def seen(known: Discrepancy | None, tap: str, difference: Difference, owner: str, at: int) -> Discrepancy:
    """The discrepancy once more: one message that shows it."""
    if known is None:
        return _first(tap, difference, owner, at)
    worse = SEVERITIES.index(difference.severity) < SEVERITIES.index(known.severity)
    severity = worst((known.severity, difference.severity))
    more = replace(known, severity=severity, last_at=max(known.last_at, at), count=known.count + 1)
    if known.state is State.FIXED or (worse and known.settled and known.who != BY_RULE):
        return replace(more, state=State.OPEN, due=at + DUE[severity], why="", who="", settled_at=None)
    if known.state is State.OPEN and worse:
        return replace(more, due=min(known.due, at + DUE[severity]))
    return more


def _first(tap: str, difference: Difference, owner: str, at: int) -> Discrepancy:
    signature = Signature(tap, difference.path, difference.kind)
    due = at + DUE[difference.severity]
    if difference.kind == "expected":
        why = difference.rule or ""
        return Discrepancy(signature, difference.severity, State.EXPLAINED, owner, at, at, 1, due, why, BY_RULE, at)
    return Discrepancy(signature, difference.severity, State.OPEN, owner, at, at, 1, due)


def unseen(known: Discrepancy, at: int) -> Discrepancy:
    """One message less: what was missed has come after all. Where none is left, nothing is to be settled any more."""
    left = replace(known, count=max(0, known.count - 1))
    if left.count or left.state is not State.OPEN:
        return left
    return replace(left, state=State.EXPLAINED, why="all of them came, later than within", who=BY_RULE, settled_at=at)


def settle(known: Discrepancy, state: State, why: str, who: str, at: int, owner: str | None = None) -> Discrepancy:
    """Put a discrepancy into a state, or hand it to another owner. SettleError where that makes no sense."""
    if known.signature.kind == "expected":
        raise SettleError("a rule of the channel's file covers it; change the rule instead")
    if state is not State.OPEN and not why.strip():
        raise SettleError("say why: a discrepancy is settled with a reason")
    changed = replace(known, owner=known.owner if owner is None else owner)
    if state is known.state and state is State.OPEN:
        return changed
    if state is State.OPEN:
        return replace(changed, state=state, due=at + DUE[known.severity], why=why, who=who, settled_at=None)
    return replace(changed, state=state, why=why, who=who, settled_at=at)


def explained(differences: Iterable[Difference], known: Mapping[Signature, Discrepancy], tap: str) -> bool:
    """Whether every difference of a message is expected, or of a discrepancy that is settled."""
    return all(one.kind == "expected" or known[Signature(tap, one.path, one.kind)].settled for one in differences)


@dataclass(frozen=True, slots=True)
class Totals:
    """Messages of one tap by what became of their comparison."""

    matched: int = 0
    explained: int = 0
    unexplained: int = 0
    not_comparable: int = 0


def summed(totals: Totals, late: int, known: Iterable[Discrepancy]) -> Compared:
    """What a gate looks at. late: inputs past their time without a verdict; known: the tap's discrepancies."""
    open_ = [one for one in known if one.state is State.OPEN]
    return Compared(
        totals.matched, totals.explained, totals.unexplained, totals.not_comparable, late,
        open_clinical=sum(one.severity == "clinical" for one in open_),
        open_missing=sum(one.missing for one in open_),
    )  # fmt: skip

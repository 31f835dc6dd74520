"""What the API wants to know before somebody decides: gate, comparison, reconciliation, audit.

`Evidence` is implemented by the service. Times are ISO 8601 in UTC with a `Z`. Values of messages stand in one place
only: the examples of a discrepancy.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, NotRequired, Protocol, TypedDict

from engine.api.moving import Selection, Sentence
from engine.api.shape import Within
from engine.migration.selection import Selector

STATES = ("open", "explained", "fixed", "accepted")
State = Literal["open", "explained", "fixed", "accepted"]


# -- requests


class Selected(TypedDict):
    """A question about channels."""

    selector: Selection


class DiscrepancyQuestion(Selected):
    """state: only those in it; null or left out = every one. limit: at most so many."""

    state: NotRequired[State | None]
    limit: NotRequired[Annotated[int, Within(1, 10000)]]


class Settlement(TypedDict):
    """What a person decides about a discrepancy. owner: who takes care of it; null or left out = as it was."""

    state: State
    reason: Sentence
    who: Sentence
    owner: NotRequired[Annotated[str, Within(1, 200)] | None]


class ManifestItem(TypedDict):
    """One message of the other side's list. channel: null or left out where the list does not say."""

    control_id: Annotated[str, Within(1, 1000)]
    channel: NotRequired[str | None]


class ReconcileQuestion(Selected):
    """manifest: the control ids that the vendor or the old engine counts; null or left out = the equation alone."""

    manifest: NotRequired[list[ManifestItem] | None]


# -- answers


class WaiverRow(TypedDict):
    """Who lets a check pass, why, and until when."""

    who: str
    why: str
    until: str


class CheckRow(TypedDict):
    """One check. outcome: pass, fail, no data, not measured or waived. at: when it was measured.

    when: `before` and `at switch`, one or both.
    """

    check: str
    title: str
    outcome: str
    said: str
    at: str | None
    when: list[str]
    waiver: WaiverRow | None


class GateRow(TypedDict):
    """The gate of one channel."""

    channel: str
    passed: bool
    checks: list[CheckRow]


class RuleRow(TypedDict):
    """A declared rule that silences a difference. how: `ignore`, or what is tolerated."""

    path: str | None
    how: str
    reason: str


class ComparedRow(TypedDict):
    """The comparison at one tap; `tap` is empty for the answers to the sender.

    match: (matched + explained) of what was compared, 0 to 1; null where nothing was. lag_s: seconds from our sending
    to the old engine's output.
    """

    channel: str
    tap: str
    matched: int
    explained: int
    unexplained: int
    not_comparable: int
    pending: int
    match: float | None
    lag_s: float | None
    rules: list[RuleRow]


class DiscrepancyRow(TypedDict):
    """One class of difference. path: a field such as OBX-5, never a value. due: until when it wants a decision."""

    id: int
    channel: str
    tap: str
    path: str
    kind: str
    severity: str
    state: str
    owner: str | None
    count: int
    first: str
    last: str
    due: str | None
    reason: str | None


class ExampleRow(TypedDict):
    """One message that shows it: what the old engine said there, and what we say; null = nothing."""

    seq: int
    at: str
    control_id: str | None
    legacy: str | None
    target: str | None


class DiscrepancyDetail(DiscrepancyRow):
    """With examples, which hold patient data."""

    examples: list[ExampleRow]


class EquationRow(TypedDict):
    """One channel, epoch and destination: stored from intake's counter, states counted from what became of them.

    said: what became of them, in the words of that phase.
    """

    channel: str
    epoch: int
    phase: str
    destination: str
    stored: int
    states: dict[str, int]
    balanced: bool
    said: str


class ItemRow(TypedDict):
    """One message that is missing, extra or doubled. seq: null where we never stored it."""

    channel: str | None
    seq: int | None
    control_id: str | None
    said: str


class ReconcileReport(TypedDict):
    """clean: the equation holds, nobody is needed, and both lists say the same.

    missing: the other side has it and we do not; extra: we have it and the other side does not; doubled: we have it
    more often. problems, summary: sentences.
    """

    clean: bool
    equation: list[EquationRow]
    problems: list[str]
    missing: list[ItemRow]
    extra: list[ItemRow]
    doubled: list[ItemRow]
    summary: list[str]


class AuditRow(TypedDict):
    """One thing that was done. origin: from where; hash: of the chain up to it.

    before, after: what its subject was and became; empty, a word, or JSON.
    """

    id: int
    at: str
    who: str
    origin: str
    verb: str
    subject: str
    why: str
    before: str
    after: str
    hash: str


class AuditVerdict(TypedDict):
    """ok: no row was edited, removed or cut off. head: the hash of the newest row. problems: each such row."""

    ok: bool
    rows: int
    head: str
    problems: list[str]


class Evidence(Protocol):
    """The questions. Refused is raised where channels are named that do not exist."""

    async def gate(self, selector: Selector) -> list[dict[str, Any]]:
        """A `GateRow` each; facts that may be gathered are gathered anew."""
        ...

    async def compare(self, selector: Selector) -> list[dict[str, Any]]:
        """A `ComparedRow` for each tap."""
        ...

    async def discrepancies(self, selector: Selector, *, state: str | None, limit: int) -> list[dict[str, Any]]:
        """A `DiscrepancyRow` each, the worst first."""
        ...

    async def discrepancy(self, id: int) -> dict[str, Any] | None:
        """A `DiscrepancyDetail`, or None where there is no such one."""
        ...

    async def settle_discrepancy(
        self, id: int, *, state: str, reason: str, owner: str | None, who: str, origin: str
    ) -> dict[str, Any] | None:
        """The `DiscrepancyRow` as it is then, or None where there is no such one. Raises Refused."""
        ...

    async def reconcile(self, selector: Selector, manifest: list[tuple[str, str | None]] | None) -> dict[str, Any]:
        """A `ReconcileReport`. manifest: (control id, channel or None) each."""
        ...

    async def audit(self, *, limit: int, before: int | None) -> list[dict[str, Any]]:
        """An `AuditRow` each, newest first. before: only ids below it."""
        ...

    async def verify_audit(self) -> dict[str, Any]:
        """An `AuditVerdict`, from every row."""
        ...

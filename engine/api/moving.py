"""What the API wants done by a running service: the verbs that move connections, and the runs they start.

`Moving` is implemented by the service. What may not be done raises `engine.migration.refused.Refused`.
Times are ISO 8601 in UTC with a `Z`; durations are seconds.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, NotRequired, Protocol, TypedDict

from engine.api.shape import Within
from engine.migration.selection import Selector

Seconds = Annotated[float, Within(0.001, 10 * 365 * 86400.0)]
Sentence = Annotated[str, Within(1, 2000)]


class Selection(TypedDict):
    """Which channels, as a request says it: those named and those of the connections, or all; labels narrow them."""

    ids: NotRequired[list[str]]
    connections: NotRequired[list[str]]
    labels: NotRequired[dict[str, str]]
    all: NotRequired[bool]


class NoOptions(TypedDict):
    """A verb that has none."""


class HoldOptions(TypedDict):
    """for_s: how long at most, in seconds; left out = the service's own limit."""

    for_s: NotRequired[Seconds]


class CutoverOptions(TypedDict):
    """carry: open work that need not settle first: `all`, a destination, or CHANNEL/SEQ. timeout_s: of the wait."""

    carry: NotRequired[list[Annotated[str, Within(1, 200)]]]
    timeout_s: NotRequired[Seconds]


class RollbackOptions(TypedDict):
    """replay: instead of the file's policy. override_until: go back though `rollback_until` has passed."""

    replay: NotRequired[Literal["guarded", "undelivered", "all", "none"]]
    override_until: NotRequired[bool]
    timeout_s: NotRequired[Seconds]


class TakeoverOptions(TypedDict):
    """peers: who is to come back: `[WHERE=]ADDRESS` or `[WHERE=]none`, where WHERE is a channel, a feed or a port; left
    out = as this machine's kernel knows. timeout_s: after which the ports are given back."""

    peers: NotRequired[list[Annotated[str, Within(1, 200)]]]
    timeout_s: NotRequired[Seconds]


class GiveBackOptions(TypedDict):
    """watch: HOST:PORT, where the old listener must answer. timeout_s: after which our ports are opened again."""

    watch: NotRequired[Annotated[str, Within(1, 300)]]
    timeout_s: NotRequired[Seconds]


class AbortOptions(TypedDict):
    """run: this one; left out = the runs of the selected channels."""

    run: NotRequired[Annotated[int, Within(1, 2**53)]]


class CheckOptions(TypedDict):
    """check: which check of the gate. for_s: how long it counts, in seconds."""

    check: Annotated[str, Within(1, 100)]
    for_s: NotRequired[Seconds]


class Order(TypedDict):
    """What somebody wants done. reason: wanted unless it is a dry run, which only says what would be done."""

    selector: Selection
    who: Sentence
    reason: NotRequired[Annotated[str, Within(0, 2000)]]
    dry_run: NotRequired[bool]


class PlainOrder(Order):
    """Of a verb without options."""

    options: NotRequired[NoOptions]


class HoldOrder(Order):
    """Of hold and drain."""

    options: NotRequired[HoldOptions]


class TakeoverOrder(Order):
    """Of takeover."""

    options: NotRequired[TakeoverOptions]


class GiveBackOrder(Order):
    """Of give-back."""

    options: NotRequired[GiveBackOptions]


class CutoverOrder(Order):
    """Of cutover."""

    options: NotRequired[CutoverOptions]


class RollbackOrder(Order):
    """Of rollback."""

    options: NotRequired[RollbackOptions]


class AbortOrder(Order):
    """Of abort."""

    options: NotRequired[AbortOptions]


class CheckOrder(Order):
    """Of attest and waive."""

    options: CheckOptions


VERBS: dict[str, tuple[Any, str]] = {
    "takeover": (TakeoverOrder, "The vendors' ports become ours; the old engine works behind them"),
    "give-back": (GiveBackOrder, "The old listener has the ports again"),
    "parallel": (PlainOrder, "Do the old engine's work beside it, and compare"),
    "legacy": (PlainOrder, "The parallel run ends: the old engine alone works. Or: an observed channel's copies come"),
    "hold": (HoldOrder, "Freeze: store and acknowledge, send nothing new"),
    "release": (PlainOrder, "Lift a hold"),
    "drain": (HoldOrder, "Wait until what is on the way is settled, and let nothing new begin meanwhile"),
    "cutover": (CutoverOrder, "From the parallel run to live: we send, the old engine no longer does"),
    "rollback": (RollbackOrder, "From live back to the parallel run: the old engine sends again"),
    "abort": (AbortOrder, "End a run; what it had not switched stays as it was"),
    "note": (PlainOrder, "Write a remark into the audit record"),
    "attest": (CheckOrder, "State, by name, what no machine can measure for a check of the gate"),
    "waive": (CheckOrder, "Let the gate pass without a check, by name, with a reason, for a time"),
    "legal-hold": (PlainOrder, "Remove nothing of the channels by age, until it is lifted"),
    "legal-release": (PlainOrder, "Lift a legal hold"),
}
"""Verb → the shape of an order of it, and what it does."""


class Plan(TypedDict):
    """What a verb does to one connection, in the operator's words.

    lines: what will be waited for, sent where, twice, or not at all. refused: what stands against it; none where it
    may be done. already: where there is nothing to do, why. counts: the figures behind the lines.
    """

    connection: str
    channels: list[str]
    lines: list[str]
    refused: list[str]
    already: str | None
    counts: dict[str, Any]


class Run(TypedDict):
    """One verb on its way at one connection. state: running, done, aborted or failed.

    said: one line that names what is waited for and how to release it; it is shown after the connection's name.
    version: grows with every change.
    """

    id: int
    verb: str
    connection: str
    channels: list[str]
    state: str
    step: str
    said: str
    who: str
    why: str
    started: str
    deadline: str | None
    ended: str | None
    version: int


class Answer(TypedDict):
    """What became of an order: plans, the runs it started or found, and sentences."""

    verb: str
    dry_run: bool
    plans: list[Plan]
    runs: list[Run]
    said: list[str]


class Moving(Protocol):
    """The orders. The shapes named here are what a plain dict must hold."""

    async def verb(
        self,
        verb: str,
        selector: Selector,
        *,
        options: dict[str, Any],
        reason: str,
        who: str,
        origin: str,
        dry_run: bool,
    ) -> dict[str, Any]:
        """An `Answer`, at once: a run goes on after it. verb: one of VERBS.

        options: of that verb's shape; those that were not given are not in it.
        origin: where the order came from, for the audit record. Raises Refused; then nothing has changed.
        """
        ...

    async def runs(self, *, active: bool) -> list[dict[str, Any]]:
        """A `Run` each, newest first; only those that have not ended where `active`."""
        ...

    async def run(self, id: int, *, after: int | None, wait: float) -> dict[str, Any] | None:
        """A `Run`, once its version is above `after` or `wait` seconds are over; None where there is no such run."""
        ...

"""One attempt to bring one message to Medplum, as plain values: all that its carrier has to know, in any process."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from engine.ledger.gaps import Code, Gaps
from engine.ledger.outcome import Outcome, Result


class Attempt(NamedTuple):
    """received: microseconds since 1970. tag: the message's mark at the project, the same at every attempt.
    unknown: an earlier attempt may have been taken; it ended at `since`, in seconds of the monotonic clock, which all
    processes of a machine share. again: an earlier attempt may have brought a part of it. mapping: the version by which
    it is mapped."""

    channel: str
    seq: int
    raw: bytes
    received: int
    incarnation: str
    tag: str
    delivery: int = 1
    unknown: bool = False
    again: bool = False
    since: float = 0.0
    mapping: str = ""


RECALLED = Outcome(Result.NOT_TAKEN, "the project is in trouble", local=True)


class Carrier(Protocol):
    """What maps messages and writes them to one project. It never raises, and whoever hears an outcome must not."""

    def slot(self, attempt: Attempt) -> int:
        """Which of the processes that carry would have it."""

    def carry(self, attempt: Attempt, done: Callable[[Outcome], None], slot: int | None = None) -> None:
        """Try once, in the process of that slot; its own unless it is named. `done` hears the outcome on the event
        loop, later; never, where the carrier is closed before."""

    def recall(self) -> None:
        """The project is in trouble: what has not begun yet comes back as not taken."""

    async def reach(self) -> tuple[bool, str]:
        """Whether the project answers and lets us in; and why not."""

    async def close(self) -> None:
        """End what is on the way: it stays claimed."""


def values(outcome: Outcome) -> tuple[Any, ...]:
    """An outcome as values that go from one process to another."""
    return (
        outcome.result.value, outcome.reason, outcome.answer, outcome.after, outcome.points, outcome.trouble,
        outcome.local, outcome.aside, outcome.passes, _plain(outcome.gaps),
    )  # fmt: skip


def outcome_of(values: tuple[Any, ...]) -> Outcome:
    """The outcome that `values` was made of."""
    result, *rest = values
    rest[-1] = _gaps_of(rest[-1])
    return Outcome(Result(result), *rest)


def _plain(gaps: Gaps | None) -> tuple[Any, ...] | None:
    return None if gaps is None else (tuple(tuple(code) for code in gaps.codes), gaps.lost)


def _gaps_of(values: tuple[Any, ...] | None) -> Gaps | None:
    return None if values is None else Gaps(tuple(Code(*code) for code in values[0]), values[1])

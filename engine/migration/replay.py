"""What a rollback makes of the numbers of its live epochs: which the old engine gets after all, which count as done,
which a person decides. Pure: from the ledger's numbers and a policy.

Nothing here is decided by a message's content: only by what became of it at the real endpoints, which no longer changes
once nothing is on its way there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import Enum
from itertools import pairwise

from engine.config.model import Replay as Policy
from engine.ledger.course import ChannelBook, Course
from engine.ledger.model import OpenWork, State
from engine.ledger.routing import LEGACY, Grant, Mode
from engine.migration.drain import real


class Done(Enum):
    """What our side has done with a number at one real endpoint."""

    DELIVERED = "delivered"  # or settled otherwise: it is not ours to send any more
    NOT = "not delivered"
    OVERTAKEN = "not delivered, and a later one of its lane was"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Closing:
    """One open part at a real endpoint, and what it becomes there."""

    course: Course
    key: tuple[int, int, int]
    state: State
    why: str


@dataclass(slots=True)
class Replay:
    """The whole of it, for one channel. Counts are messages.

    again: the old engine gets them. twice: of those, an endpoint that has it gets it again. held: of those, the taps
    hold back what comes of them, since the endpoint has it. never: nobody sends them. asked: a person decides.
    """

    channel: str
    first: int
    last: int
    policy: Policy
    grants: list[Grant] = field(default_factory=list)
    closings: list[Closing] = field(default_factory=list)
    again: int = 0
    twice: int = 0
    held: int = 0
    never: int = 0
    asked: int = 0

    @property
    def deferred(self) -> int:
        return max(0, self.last - self.first + 1)


def replay(book: ChannelBook, last: int, policy: Policy, run: int) -> Replay:
    """What a rollback up to `last` does. Nothing may be on its way to a real endpoint."""
    first = _first_deferred(book, last)
    plan = Replay(book.name, first, last, policy)
    courses = [course for course in real(book) if any(_live(book, span.epoch) for span in course.spans) or course.open]
    seen = [_Seen(book, course, first, last) for course in courses]
    for each in seen:
        plan.closings += each.closings()
        plan.grants += each.grants(run)
    points = {first, last + 1}.union(*(each.points() for each in seen))
    for low, high in _stretches(points, first, last):
        mode = _mode(policy, [each.done(low) for each in seen])
        _add(plan.grants, Grant(LEGACY, low, high, mode, run, guarded=policy == "guarded"))
        _count(plan, mode, [each.done(low) for each in seen], high - low + 1)
    return plan


def _mode(policy: Policy, done: list[Done]) -> Mode:
    """What becomes of a number on the way to the old engine."""
    if policy == "none":
        return Mode.SUPERSEDE
    if Done.UNKNOWN in done:
        return Mode.ASK
    if policy in ("all", "guarded"):
        return Mode.SEND
    if all(each is Done.NOT for each in done):
        return Mode.SEND
    return Mode.SUPERSEDE if all(each is Done.DELIVERED for each in done) else Mode.ASK


def _count(plan: Replay, mode: Mode, done: list[Done], count: int) -> None:
    has_it = Done.DELIVERED in done
    if Done.UNKNOWN in done:
        plan.asked += count
    elif mode is Mode.SEND:
        plan.again += count
        if has_it and plan.policy == "guarded":
            plan.held += count
        elif has_it:
            plan.twice += count
    elif mode is Mode.ASK:
        plan.asked += count
    elif done and not has_it:
        plan.never += count


def _first_deferred(book: ChannelBook, last: int) -> int:
    """The first number that was deferred on the way to the old engine and that no rollback has taken up yet."""
    old = book.course(LEGACY)
    taken = old.totals if old else {}
    ends = [*(epoch.first - 1 for epoch in book.epochs[1:]), last]
    firsts = [
        epoch.first
        for epoch, end in zip(book.epochs, ends, strict=True)
        if epoch.first <= end and _live(book, epoch.number) and epoch.number not in taken
    ]
    return min(firsts, default=last + 1)


def _live(book: ChannelBook, number: int) -> bool:
    route = book.epochs[number - 1].routing.route(LEGACY)
    return route is not None and route.mode is Mode.DEFER


class _Seen:
    """One real endpoint, as it stands."""

    def __init__(self, book: ChannelBook, course: Course, first: int, last: int) -> None:
        self._course = course
        self._last = last
        self._open: dict[int, OpenWork] = {
            work.seq: work
            for work in list(course.open.values())
            if first <= work.seq <= last and work.delivery == 1 and _live(book, work.epoch)
        }
        self._again = [work for work in list(course.open.values()) if work.delivery > 1]
        self._unsent = max(first, course.claim + 1)

    def done(self, seq: int) -> Done:
        work = self._open.get(seq)
        if work is None:
            return Done.NOT if seq >= self._unsent else Done.DELIVERED
        if _may_have_left(work):
            return Done.UNKNOWN
        return Done.OVERTAKEN if self._overtaken(seq) else Done.NOT

    def _overtaken(self, seq: int) -> bool:
        """Whether a later number was settled here: with one lane, every later one is of the same lane."""
        return any(later not in self._open for later in range(seq + 1, self._unsent))

    def points(self) -> set[int]:
        return {self._unsent, *(seq for seq in self._open), *(seq + 1 for seq in self._open)}

    def closings(self) -> Iterable[Closing]:
        for work in self._again:
            state = State.PARKED if _may_have_left(work) else State.SUPERSEDED
            yield Closing(self._course, work.key, state, "a rollback: what people had sent again is left")
        for work in self._open.values():
            if not _may_have_left(work):
                yield Closing(self._course, work.key, State.SUPERSEDED, "a rollback: the other side has it")
            else:
                why = "a rollback: it may have been taken here; a person decides"
                yield Closing(self._course, work.key, State.PARKED, why)

    def grants(self, run: int) -> Iterable[Grant]:
        """So that these numbers are never sent from here again, and the taps know what the endpoint has not got."""
        name = self._course.name
        for seq in sorted(self._open):
            ask = self.done(seq) in (Done.UNKNOWN, Done.OVERTAKEN)
            yield Grant(name, seq, seq, Mode.ASK if ask else Mode.SUPERSEDE, run)
        if self._unsent <= self._last:
            yield Grant(name, self._unsent, self._last, Mode.SUPERSEDE, run)


def _may_have_left(work: OpenWork) -> bool:
    """Unknown, or parked because it was; or the endpoint has a part of it."""
    return work.state is State.UNKNOWN or (work.state is State.PARKED and work.blocks) or work.so_far > 0


def _stretches(points: set[int], first: int, last: int) -> Iterable[tuple[int, int]]:
    """The stretches between the points, within first…last."""
    cuts = sorted(point for point in points if first <= point <= last + 1)
    return [(low, high - 1) for low, high in pairwise(cuts)]


def _add(grants: list[Grant], grant: Grant) -> None:
    """Add a grant, joined with the one before where it says the same."""
    before: Callable[[Grant], tuple[str, Mode, bool]] = lambda g: (g.destination, g.mode, g.guarded)  # noqa: E731
    if grants and before(grants[-1]) == before(grant) and grants[-1].last + 1 == grant.first:
        grant = Grant(grant.destination, grants.pop().first, grant.last, grant.mode, grant.run, grant.guarded)
    grants.append(grant)

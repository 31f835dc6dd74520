"""What a drain, a cutover or a rollback still waits for, from the ledger's numbers. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from engine.ledger.course import ChannelBook, Course
from engine.ledger.model import OpenWork, State
from engine.ledger.routing import LEGACY, Route

STUCK = frozenset({State.DEAD, State.PARKED})
"""Open, and nothing will happen by itself: a person decides, or it is carried."""
MOST_NAMED = 20


@dataclass(frozen=True, slots=True)
class Carried:
    """Open work that need not settle before a cutover, as the approver names it: `all`, a destination, CHANNEL/SEQ.

    On the way to the old engine and to real endpoints only what is stuck can be carried: what still moves there would
    be sent by both sides, or not at all. Medplum settles its own in its own epoch.
    """

    names: frozenset[str] = frozenset()

    def covers(self, course: Course, work: OpenWork) -> bool:
        named = self.covers_all(course) or f"{course.channel.name}/{work.seq}" in self.names
        return named and (work.state in STUCK or not _exclusive(course))

    def covers_all(self, course: Course) -> bool:
        return "all" in self.names or course.name in self.names


NOBODY = Carried()
"""Nothing is carried."""


@dataclass(frozen=True, slots=True)
class Left:
    """What is left at one destination, at or below a number. `stuck`: numbers that want a person, or to be carried."""

    destination: str
    states: Counter[str] = field(default_factory=Counter)
    stuck: tuple[int, ...] = ()

    @property
    def count(self) -> int:
        return sum(self.states.values())

    def said(self, channel: str) -> str:
        """`acme-results → legacy: 3 waiting, 1 sending`."""
        what = ", ".join(f"{count} {state}" for state, count in self.states.items() if count)
        return f"{channel} → {self.destination}: {what}"


def below(course: Course, at: int) -> int:
    """How many numbers up to `at` are due on a course and above its frontier: waiting, or on the way."""
    total = 0
    for span in course.spans:
        last = at if span.last is None else min(at, span.last)
        total += max(0, last - max(span.first - 1, course.frontier))
    return total


def left(course: Course, at: int, carried: Carried = NOBODY) -> Left:
    """Everything open up to `at` that is not carried."""
    states: Counter[str] = Counter()
    stuck = []
    on_the_way = below(course, min(at, course.claim))
    if _exclusive(course) or not carried.covers_all(course):
        states["sending"] += on_the_way
        states["waiting"] += below(course, at) - on_the_way
    for work in list(course.open.values()):
        if work.seq <= at and not carried.covers(course, work):
            states[work.state.label] += 1
            if work.state in STUCK:
                stuck.append(work.seq)
    return Left(course.name, +states, tuple(sorted(stuck)))


def _exclusive(course: Course) -> bool:
    """Whether only one side may send there: to the old engine, or to a real endpoint."""
    route = route_of(course.channel, course)
    return route is None or route.kind == LEGACY or route.real


def before_cutover(book: ChannelBook, at: int, carried: Carried) -> list[Left]:
    """What must still settle at or below `at`, a destination each: all on the way to the old engine; at real endpoints
    what may have left; and whatever nobody carries."""
    return [found for course in book.courses if (found := left(course, at, carried)).count]


def settled(books: Iterable[ChannelBook]) -> str:
    """What a drain has come to: `a up to 12 is settled, b up to 7 is settled but for 1 dead at medplum`."""
    return ", ".join(_settled(book, book.barrier.at) for book in books if book.barrier)


def _settled(book: ChannelBook, at: int) -> str:
    rest = [
        f"{count} {state} at {found.destination}"
        for found in before_cutover(book, at, NOBODY)
        for state, count in found.states.items()
    ]
    return f"{book.name} up to {at} is settled" + (f" but for {', '.join(rest)}" if rest else "")


def at_real_endpoints(book: ChannelBook) -> list[Left]:
    """What is on its way to a real endpoint this moment: its outcome must be known before the other side may send."""
    found = []
    for course in real(book):
        sending = course.in_flight()
        if sending:
            found.append(Left(course.name, Counter({State.SENDING.label: sending})))
    return found


def flight(book: ChannelBook, at: int, carried: Carried) -> dict[str, dict[str, int]]:
    """Destination → state → how many are open at or below `at` and not carried: the gate's fact `in_flight`."""
    return {course.name: dict(left(course, at, carried).states) for course in book.courses}


def real(book: ChannelBook) -> Iterator[Course]:
    """The courses to endpoints that the old engine sends to as well."""
    for course in book.courses:
        route = route_of(book, course)
        if route and route.real:
            yield course


def route_of(book: ChannelBook, course: Course) -> Route | None:
    """The newest route that names the course's destination."""
    for epoch in reversed(book.epochs):
        if route := epoch.routing.route(course.name):
            return route
    return None


def carriable(book: ChannelBook, at: int) -> list[tuple[Course, OpenWork]]:
    """What is open and will not settle by itself, or need not settle before a cutover: at most MOST_NAMED."""
    found = [
        (course, work)
        for course in book.courses
        for work in sorted(course.open.copy().values(), key=lambda work: work.seq)
        if work.seq <= at and (work.state in STUCK or not _exclusive(course))
    ]
    return found[:MOST_NAMED]

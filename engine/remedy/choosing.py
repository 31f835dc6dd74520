"""Which open work people mean, and what may be done with it. Functions of the ledger's numbers."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from engine.ledger.book import OpenKey
from engine.ledger.course import ChannelBook, Course
from engine.ledger.model import OpenWork, State
from engine.ledger.routing import Mode
from engine.migration.refused import Refused


@dataclass(frozen=True, slots=True)
class Chosen:
    """Open work that is meant: its messages by channel and number (none: all of the channels), at one destination
    (None: where they want a person; a named message that wants none, where it is open, if that is one place), in one
    state (None: those that want a person)."""

    channels: Sequence[str]
    messages: Sequence[tuple[str, int]] = ()
    destination: str | None = None
    state: State | None = None


@dataclass(frozen=True, slots=True)
class Item:
    """One open part of a message."""

    course: Course
    work: OpenWork

    @property
    def place(self) -> str:
        return f"{self.course.channel.name}/{self.work.seq}"

    @property
    def key(self) -> OpenKey:
        return self.work.key

    @property
    def behind(self) -> int:
        """How many messages of its channel wait for it here: with one lane everything after it; with several what has
        joined them, and is parked."""
        course, work = self.course, self.work
        if course.window == 1:
            return course.channel.seq - work.seq if work.blocks else 0
        return course.runner.behind(work.key) if course.runner is not None else 0


def waits_for_a_person(course: Course, work: OpenWork) -> bool:
    """Whether nothing but a person moves it: dead, parked because it may have been taken, or left by a rollback."""
    if work.state is State.DEAD:
        return True
    return work.state is State.PARKED and (work.blocks or course.mode(work.seq, work.delivery) is Mode.ASK)


def why_open(course: Course, work: OpenWork) -> str:
    """Why it is open, and that its channel stands still for it."""
    stops = course.channel.stopped and any(work is each for each in course.channel.stopping())
    return f"{work.why}; its channel is stopped" if stops else work.why


def chosen(books: Mapping[str, ChannelBook], wanted: Chosen) -> list[Item]:
    """The work that is meant, in order. Raises Refused where a message is named that is not open."""
    if not wanted.messages:
        names = [name for name in wanted.channels if name in books]
        return [item for name in names for item in _of(books[name], wanted, None)]
    named: dict[str, set[int]] = {}
    for name, seq in wanted.messages:
        named.setdefault(name, set()).add(seq)
    there: dict[tuple[str, int], list[Item]] = {}
    for name in named.keys() & books.keys():
        for item in _of(books[name], wanted, named[name]):
            there.setdefault((name, item.work.seq), []).append(item)
    found: list[Item] = []
    missing: list[tuple[str, int]] = []
    unclear: list[str] = []
    for name, seq in wanted.messages:
        items = there.get((name, seq), [])
        if not items:
            missing.append((name, seq))
        mine = [item for item in items if waits_for_a_person(item.course, item.work)]
        if wanted.destination is None and wanted.state is None and not mine and len(items) > 1:
            unclear.append(f"{name}/{seq} ({', '.join(item.course.name for item in items)})")
        found += mine if wanted.destination is None and wanted.state is None and mine else items
    if missing:
        raise Refused(" ".join(_why_not_there(books, missing, wanted.destination)))
    if unclear:
        raise Refused(
            f"Open at several destinations, and waiting for a person at none: {'; '.join(unclear)}. Say --at."
        )
    return found


def _why_not_there(
    books: Mapping[str, ChannelBook], missing: Sequence[tuple[str, int]], destination: str | None
) -> Iterator[str]:
    """A sentence for each case. No rows of open work stand for what waits, or is sent for the first time."""
    cases: dict[str, list[str]] = {"waiting": [], "sending": [], "not open": []}
    for name, seq in missing:
        courses = [each for each in books[name].courses if destination in (None, each.name)] if name in books else []
        cases[_case(courses, seq)].append(f"{name}/{seq}")
    where = f" at {destination}" if destination else ""
    if waiting := cases["waiting"]:
        yield (
            f"Waiting{where}, and not begun: {_few(waiting)}. What waits for its turn is sent when it comes, and cannot"
            " be decided about before: `hold` the channel to keep it from going out, or wait until it has been tried."
        )
    if sending := cases["sending"]:
        yield f"On its way{where} at this moment: {_few(sending)}."
    if others := cases["not open"]:
        yield f"Not open{where}: {_few(others)}."


def _case(courses: Sequence[Course], seq: int) -> str:
    due = [course for course in courses if course.spans and seq <= course.channel.seq]
    if any(course.frontier < seq <= course.claim and seq not in course.done for course in due):
        return "sending"
    waits = any(seq > course.claim and course.mode(seq) is not Mode.OFF for course in due)
    return "waiting" if waits else "not open"


def _few(named: Sequence[str]) -> str:
    return ", ".join(named[:20]) + (" …" if len(named) > 20 else "")


def _of(book: ChannelBook, wanted: Chosen, numbers: Collection[int] | None) -> Iterator[Item]:
    for course in book.courses:
        if wanted.destination is not None and course.name != wanted.destination:
            continue
        for work in sorted(course.open.values(), key=lambda work: work.key):
            if numbers is not None and work.seq not in numbers:
                continue
            if wanted.state is not None and work.state is not wanted.state:
                continue
            if wanted.state is None and numbers is None and not waits_for_a_person(course, work):
                continue
            yield Item(course, work)


def standing_against_retry(item: Item) -> str | None:
    """Why it can't be tried again now."""
    state = item.work.state
    if state is State.SENDING:
        return f"{item.place} is on its way to {item.course.name} at this moment"
    if state is State.PARKED and not waits_for_a_person(item.course, item.work):
        return f"{item.place} waits behind an earlier message of its lane at {item.course.name}: settle that one"
    if item.course.runner is None:
        return f"{item.course.name} is no longer configured in {item.course.channel.name}"
    return None


def standing_against_discard(item: Item) -> str | None:
    """Why it can't be discarded now."""
    if item.work.state is State.SENDING:
        return f"{item.place} is on its way to {item.course.name} at this moment"
    return None

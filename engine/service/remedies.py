"""What people do about single messages of a service, as the API asks for it (`engine.api.remedies.Remedies`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from engine.ledger.course import ChannelBook, Course
from engine.ledger.model import State
from engine.ledger.sqlite import replays
from engine.ledger.sqlite.replays import AS_IS, ReplayRow
from engine.migration.refused import Refused
from engine.migration.selection import Selector, select
from engine.remedy.choosing import Chosen, Item, chosen, waits_for_a_person, why_open
from engine.remedy.deciding import Deciding
from engine.remedy.planning import plan as plan_replay
from engine.remedy.replaying import MOST
from engine.remedy.verb import Asked, Plan
from engine.service.moments import iso, now_us
from engine.service.searching import Searching

if TYPE_CHECKING:
    from engine.service.service import Service

MOST_LISTED = 1000


class Remedies:
    """The verbs of one service."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._ledger = service.ledger
        self._deciding = Deciding(service.ledger, now_us)
        self._replaying = service.replaying

    async def work(
        self, *, selector: Selector | None, messages: list[tuple[str, int]], destination: str | None, state: str | None
    ) -> list[dict[str, Any]]:
        items = self._items(selector, messages, destination, state)[:MOST_LISTED]
        received = await self._received([item.work.message for item in items])
        return [_row(item, received.get(item.work.message)) for item in items]

    async def decide(
        self, verb: str, *, selector: Selector | None, messages: list[tuple[str, int]], destination: str | None,
        state: str | None, who: str, reason: str, origin: str, dry_run: bool, confirm: int | None,
    ) -> dict[str, Any]:  # fmt: skip
        items = self._items(selector, messages, destination, state)
        plan = self._deciding.plan_retry(items) if verb == "retry" else self._deciding.plan_discard(items)
        if dry_run:
            return _answer(plan)
        asked = Asked(who, reason, origin, confirm)
        plan.check(asked)
        act = self._deciding.retry if verb == "retry" else self._deciding.discard
        done = await act(items, asked)
        self._moved(items)
        return _answer(plan, done)

    async def edit(
        self,
        message: tuple[str, int],
        destination: str,
        raw: bytes,
        *,
        who: str,
        reason: str,
        origin: str,
        dry_run: bool,
    ) -> dict[str, Any]:
        items = self._items(None, [message], destination, None)
        if len(items) > 1:
            raise Refused(
                f"{message[0]}/{message[1]} is open at {destination} in several deliveries: settle one first."
            )
        plan = await self._deciding.plan_edit(items[0], raw)
        if dry_run:
            return _answer(plan)
        asked = Asked(who, reason, origin)
        plan.check(asked)
        await self._deciding.edit(items[0], raw, asked)
        return _answer(plan, 1)

    async def replay(
        self, channel: str, destination: str, *, numbers: list[tuple[int, int]], search: dict[str, Any] | None,
        who: str, reason: str, origin: str, dry_run: bool, confirm: int | None, mapping: str = AS_IS,
    ) -> dict[str, Any]:  # fmt: skip
        book, course = self._course(channel, destination)
        meant = await self._found(channel, search) if search is not None else _numbers(numbers, book.seq)
        found = await self._replaying.look(book, course, meant, mapping)
        plan = plan_replay(book, course, found)
        if dry_run:
            return _answer(plan)
        asked = Asked(who, reason, origin, confirm)
        plan.check(asked)
        row = await self._replaying.begin(book, course, found, asked)
        return _answer(plan, 0, row)

    async def replays(self) -> list[dict[str, Any]]:
        rows = await self._ledger.read(lambda reader: replays.rows(reader.connection))
        running = self._replaying.running()
        return [_replay(running.get(row.id, row)) for row in rows]

    async def stop_replay(self, id: int, *, who: str, reason: str, origin: str) -> dict[str, Any]:
        return _replay(await self._replaying.end(id, Asked(who, reason, origin)))

    # -- inside

    def _items(
        self, selector: Selector | None, messages: list[tuple[str, int]], destination: str | None, state: str | None
    ) -> list[Item]:
        books = self._ledger.channels
        names = [*books]
        if selector is not None and selector != Selector():
            names = [each.id for each in select(selector, self._service.configuration.channels)]
        wanted = State[state.upper()] if state else None
        return chosen(books, Chosen(names, messages, destination, wanted))

    def _course(self, channel: str, destination: str) -> tuple[ChannelBook, Course]:
        book = self._ledger.channels.get(channel)
        if book is None:
            raise Refused(f"There is no channel {channel}: one of {', '.join(sorted(self._ledger.channels))}.")
        course = book.course(destination)
        if course is None:
            raise Refused(
                f"{channel} has no destination {destination}: one of {', '.join(each.name for each in book.courses)}."
            )
        return book, course

    async def _found(self, channel: str, search: dict[str, Any]) -> list[int]:
        """The numbers of the channel's messages that a search finds."""
        if search.pop("before", None) is not None:
            raise Refused("A replay takes all that a search finds: leave out before.")
        searching = Searching(self._ledger, self._service.configuration.channels)
        selection = searching.selection(**search | {"channel": channel})
        numbers: list[int] = []
        if selection is None:
            return numbers
        async for page in self._service.follower.matching(selection):
            numbers += [row.seq for row in page]
            if len(numbers) > MOST:
                raise Refused(f"These are more than {MOST:,} messages: search for fewer.")
        return sorted(numbers)

    async def _received(self, ids: Sequence[int]) -> dict[int, int]:
        rows = await self._ledger.read(lambda reader: reader.heads(list(ids)))
        return {row[0]: row[3] for row in rows}

    def _moved(self, items: Sequence[Item]) -> None:
        for item in items:
            self._replaying.settled(item.course)


def _numbers(stretches: Sequence[tuple[int, int]], newest: int) -> list[int]:
    """Each once, in order. Raises Refused where there are too many."""
    if sum(min(last, newest) - first + 1 for first, last in stretches if first <= newest) > MOST:
        raise Refused(f"These are more than {MOST:,} messages: replay fewer at a time.")
    found = {seq for first, last in stretches for seq in range(first, min(last, newest) + 1)}
    if not found:
        raise Refused(f"There are no such messages: the newest is {newest}.")
    return sorted(found)


def _row(item: Item, received: int | None) -> dict[str, Any]:
    work, course = item.work, item.course
    return {
        "channel": course.channel.name, "seq": work.seq, "destination": course.name, "part": work.part,
        "parts": work.parts, "delivery": work.delivery, "revision": work.revision, "state": work.state.label,
        "person": waits_for_a_person(course, work), "why": why_open(course, work), "tries": work.tries,
        "due": iso(work.due) if work.due else None, "received": iso(received) if received else "",
        "behind": item.behind,
    }  # fmt: skip


def _answer(plan: Plan, done: int = 0, row: ReplayRow | None = None) -> dict[str, Any]:
    return {"plan": plan.as_dict(), "done": done, "replay": _replay(row) if row else None}


def _replay(row: ReplayRow) -> dict[str, Any]:
    return {
        "id": row.id, "channel": row.channel, "destination": row.destination, "total": row.total, "begun": row.begun,
        "state": row.state, "who": row.who, "why": row.why, "at": iso(row.at), "mapping": row.mapping,
        "ended": iso(row.ended) if row.ended else None,
    }  # fmt: skip

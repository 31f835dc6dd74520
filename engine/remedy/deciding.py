"""`retry`, `edit-and-retry` and `discard`: what a person decides about work that is open."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence

from engine.hl7.peek import peek
from engine.ledger.audit import Entry
from engine.ledger.book import Book
from engine.ledger.course import ChannelBook
from engine.ledger.model import Message, OpenWork, State
from engine.ledger.routing import LEGACY, Grant, Mode
from engine.ledger.sqlite.ledger import SqliteLedger
from engine.migration.refused import Refused
from engine.observe.events import emit
from engine.observe.migration_events import ChannelReleased
from engine.remedy.choosing import Item, standing_against_discard, standing_against_retry
from engine.remedy.verb import Asked, Plan

MOST_IN_ONE = 200  # messages in one transaction


class Deciding:
    """Verbs about open work, on one ledger."""

    def __init__(self, ledger: SqliteLedger, now: Callable[[], int]) -> None:
        """`now`: microseconds since 1970."""
        self._ledger = ledger
        self._now = now
        self._editing = asyncio.Lock()

    # -- plans

    def plan_retry(self, items: Sequence[Item]) -> Plan:
        plan = Plan("retry", len(items), [], [why for item in items if (why := standing_against_retry(item))])
        for (channel, name, state), count in _counted(items).items():
            plan.lines.append(f"{channel}: {count} {state} at {name}: tried again now, in their order")
        if asks := [item for item in items if _left_by_a_rollback(item)]:
            plan.lines.append(
                f"{len(asks)} of them a rollback has left to a person: they are sent from here, by a grant of their own"
            )
        if unknown := sum(map(_may_have_left, items)):
            plan.lines.append(f"{unknown} of them may have been taken already: the receiver may get them twice")
        if bound := sum(1 for item in items if _stays_bound(item.work)):
            plan.lines.append(f"{bound} of them by the mapping that made what went before; a new one is for a replay")
        if len(items) > bound:
            plan.lines.append("what is sent is made by the mapping as it is now")
        plan.lines += _going_on(items)
        return plan

    def plan_discard(self, items: Sequence[Item]) -> Plan:
        plan = Plan("discard", len(items), [], [why for item in items if (why := standing_against_discard(item))])
        for (channel, name, state), count in _counted(items).items():
            plan.lines.append(
                f"{channel}: {count} {state} at {name}: not sent there any more; what waits behind them goes on"
            )
        if begun := [item for item in items if item.work.so_far]:
            plan.lines.append(f"of {len(begun)} the receiver has the first parts already; the others are not sent")
        plan.lines += _going_on(items)
        return plan

    async def plan_edit(self, item: Item, raw: bytes) -> Plan:
        plan = Plan("edit-and-retry", 1)
        if why := standing_against_retry(item):
            plan.refused.append(why)
        message = await self._message(item)
        before, new = message.raw, peek(raw)
        control_id = message.control_id or "" if message.damaged else peek(before).control_id
        if not new.ok:
            plan.refused.append(f"what was given is no HL7 v2 message: {new.problem}")
        elif new.control_id != control_id:
            plan.refused.append("MSH-10 differs: to its receiver that would be another message; leave it as it was")
        elif raw == before:
            plan.refused.append("nothing was changed")
        else:
            plan.lines.append(
                f"{item.place} goes to {item.course.name} with other bytes: {', '.join(changes(before, raw))}"
            )
            plan.lines.append("as it came it stays in the ledger; other destinations are not touched")
            plan.lines.append("it is made by the mapping as it is now")
            plan.lines += _going_on([item])
            if item.work.so_far:
                plan.refused.append("the receiver has parts of it as it was: discard the rest, or retry it as it is")
        return plan

    # -- acts

    async def retry(self, items: Sequence[Item], asked: Asked) -> int:
        """How many were begun again; those that something else came for in between are left as they are."""
        return await self._each("retry", items, asked, self._revive, standing_against_retry)

    async def discard(self, items: Sequence[Item], asked: Asked) -> int:
        at = self._now()

        def close(book: Book, item: Item) -> None:
            book.close_open(item.course, item.key, State.DISCARDED, f"discarded by {asked.who}: {asked.why}", at)

        return await self._each("discard", items, asked, close, standing_against_discard)

    async def edit(self, item: Item, raw: bytes, asked: Asked) -> int:
        """The number of the new revision."""
        # One after the other: each has a number of its own, and its lanes are known before the next one comes.
        async with self._editing:
            return await self._edit(item, raw, asked)

    async def _edit(self, item: Item, raw: bytes, asked: Asked) -> int:
        message = item.work.message
        last = await self._ledger.read(
            lambda reader: reader.connection.execute(
                "select coalesce(max(revision), 1) from revision where message = ?", (message,)
            ).fetchone()[0]
        )
        revision = int(last) + 1

        def act(book: Book, item: Item) -> None:
            book.put("add_revision", message, revision, self._now(), asked.who, asked.why, raw)
            self._revive(book, item, revision)

        await self._each("edit-and-retry", [item], asked, act, standing_against_retry)
        return revision

    def _revive(self, book: Book, item: Item, revision: int | None = None) -> None:
        course, work = item.course, item.work
        if _left_by_a_rollback(item):
            guarded = course.name == LEGACY  # what the old engine makes of it, our side may have sent
            grant = Grant(course.name, work.seq, work.seq, Mode.SEND, 0, guarded)
            book.grant(course.channel, grant, at=self._now(), who="a person", why="retry")
        book.revive(course, item.key, why="tried again by a person", revision=revision)

    async def _each(
        self, verb: str, items: Sequence[Item], asked: Asked, act: Callable[[Book, Item], None],
        against: Callable[[Item], str | None],
    ) -> int:  # fmt: skip
        done = 0
        for at in range(0, len(items), MOST_IN_ONE):
            some = items[at : at + MOST_IN_ONE]

            def transaction(book: Book, some: Sequence[Item] = some) -> tuple[list[Item], list[ChannelBook]]:
                good = [each for item in some if (each := _as_it_is(item)) and against(each) is None]
                for item in good:
                    act(book, item)
                    book.audit(self._entry(verb, item, asked))
                return good, self._released(book, good, asked)

            good, released = await self._ledger.transaction(transaction)
            done += len(good)
            for item in good:
                runner = item.course.runner
                if runner is None:
                    continue
                if item.key in item.course.open:
                    await runner.revive(item.key)
                else:
                    runner.forget()
            for channel in released:
                emit(ChannelReleased(channel.name, asked.who))
                for course in channel.courses:
                    if course.runner is not None:
                        course.runner.resume()
        if not done:
            raise Refused("Something else came in between: look again.")
        return done

    def _released(self, book: Book, decided: Sequence[Item], asked: Asked) -> list[ChannelBook]:
        """The channels that had stopped by themselves and go on, in the transaction that decides the last of what
        stopped them."""
        released = []
        for channel in dict.fromkeys(item.course.channel for item in decided):
            if channel.stopped and not channel.stopping():
                book.hold(channel, None)
                book.audit(Entry(self._now(), asked.who, asked.origin, "release", channel.name, asked.why))
                released.append(channel)
        return released

    def _entry(self, verb: str, item: Item, asked: Asked) -> Entry:
        before = f"{item.work.state.label}: {item.work.why}" if item.work.why else item.work.state.label
        subject = f"{item.place} at {item.course.name}"
        return Entry(self._now(), asked.who, asked.origin, verb, subject, asked.why, before, "")

    async def _message(self, item: Item) -> Message:
        message: Message = await self._ledger.message(item.course.channel, item.work.message, item.work.revision)
        return message


def changes(before: bytes, after: bytes) -> list[str]:
    """The fields that differ, by name and never by content: `PID-5`, `OBX[2]-5`; a segment that came or went."""
    old, new = _segments(before), _segments(after)
    separator = before[3:4]
    found: list[str] = []
    for at in range(max(len(old), len(new))):
        one, other = (each[at] if at < len(each) else b"" for each in (old, new))
        if one == other:
            continue
        name = (other or one)[:3].decode("ascii", "replace")
        if one[:3] != other[:3]:
            found.append(f"segment {at + 1} ({name if name.isalnum() else '?'}) and what follows")
            break
        fields, others = one.split(separator), other.split(separator)
        base = 1 if name == "MSH" else 0
        for number in range(max(len(fields), len(others))):
            if fields[number : number + 1] != others[number : number + 1]:
                found.append(f"{name}-{number + base} (segment {at + 1})")
    return found[:30] or ["the ends of lines"]


def _segments(raw: bytes) -> list[bytes]:
    return [segment for segment in raw.replace(b"\r\n", b"\r").replace(b"\n", b"\r").split(b"\r") if segment]


def _may_have_left(item: Item) -> bool:
    return item.work.state is State.UNKNOWN or (item.work.state is State.PARKED and item.work.blocks)


def _stays_bound(work: OpenWork) -> bool:
    """Whether it is made by an earlier mapping whatever a person does: parts before it went out, or a replay as-was
    asked for it."""
    return work.bound is not None and bool(work.so_far or work.delivery > 1)


def _left_by_a_rollback(item: Item) -> bool:
    return item.course.mode(item.work.seq, item.work.delivery) is Mode.ASK


def _going_on(items: Sequence[Item]) -> list[str]:
    """What becomes of channels that have stopped by themselves."""
    lines = []
    meant = {id(item.work) for item in items}
    for channel in dict.fromkeys(item.course.channel for item in items if item.course.channel.stopped):
        left = [work for work in channel.stopping() if id(work) not in meant]
        if left:
            lines.append(f"{channel.name}: stays stopped, {len(left)} more are dead where that stops it")
        else:
            lines.append(f"{channel.name}: had stopped by itself, and goes on")
    return lines


def _as_it_is(item: Item) -> Item | None:
    """The same work now."""
    work = item.course.open.get(item.key)
    return Item(item.course, work) if work is not None else None


def _counted(items: Sequence[Item]) -> Counter[tuple[str, str, str]]:
    return Counter((item.course.channel.name, item.course.name, item.work.state.label) for item in items)

"""`hold` and `release`: a freeze of single channels. A hold beats everything: a run that waits is stopped by it, in the
same transaction."""

from __future__ import annotations

from engine.ledger.book import Book
from engine.ledger.course import ChannelBook, Hold
from engine.ledger.sqlite.journal import RunRow
from engine.migration.conductor import Conductor
from engine.migration.gate.words import iso
from engine.migration.runs import ABORTED, DONE, HANDOVERS, RUNNING, end
from engine.migration.selection import Group
from engine.migration.verbs.verb import Acted, Asked, Plan, books, entry, span, until
from engine.observe import migration_events as events
from engine.observe.events import emit

LIMIT = 15 * 60.0  # seconds; then it pages


class HoldVerb:
    """Freeze: stored and acknowledged, nothing new sent."""

    name = "hold"
    whole = False

    async def plan(self, conductor: Conductor, group: Group, asked: Asked) -> Plan:
        plan = Plan(group)
        free = [(channel, book) for channel, book in books(conductor, group) if _is_free(book)]
        if not free:
            who = ", ".join(f"{book.name} by {book.hold.who}" for _, book in books(conductor, group) if book.hold)
            plan.already = f"held already: {who}"
            return plan
        seconds = (until(conductor, asked, LIMIT) - conductor.world.now()) / 1e6
        for channel, _ in free:
            rate = conductor.world.rate(channel)
            waiting = f"; about {rate * seconds:.0f} will wait then" if rate else ""
            plan.lines.append(
                f"{channel.id}: new messages are stored, acknowledged by Interlock and wait; what is on the way ends;"
                f" pages after {span(seconds)}{waiting}"
            )
        for row in conductor.runs.of(channel.id for channel, _ in free):
            if row.verb in HANDOVERS:
                plan.lines.append(f"run {row.id} ({row.verb} of {row.connection}) goes on; it opens no epoch meanwhile")
            else:
                plan.lines.append(f"stops run {row.id} ({row.verb} of {row.connection}): its barrier is lifted")
        return plan

    async def act(self, conductor: Conductor, plan: Plan, asked: Asked) -> Acted:
        moment = conductor.world.now()
        limit = until(conductor, asked, LIMIT)

        def act(book: Book) -> list[RunRow]:
            stopped: list[RunRow] = []
            for channel, mine in books(conductor, plan.group):
                if not _is_free(mine):
                    continue
                if mine.barrier is not None:
                    row = conductor.runs.row(mine.barrier.run)
                    others = [conductor.book(name) for name in row.channels]
                    stopped.append(
                        end(book, row, others, ABORTED, f"stopped by a hold of {asked.who} on {mine.name}", moment)
                    )
                    book.audit(entry(conductor, f"{row.verb} aborted", row.connection, asked, f"run {row.id}", "hold"))
                book.hold(mine, Hold(limit, asked.who, asked.why, moment))
                book.audit(entry(conductor, "hold", channel.id, asked, "", f"until {iso(limit)}"))
            return stopped

        for row in await conductor.world.ledger.transaction(act):
            conductor.ended(row)
        for channel, mine in books(conductor, plan.group):
            emit(events.ChannelHeld(channel.id, asked.who, (limit - moment) / 1e6))
            if mine.hold is not None:
                conductor.left_of_hold(mine, mine.hold)  # its time runs from here on
            conductor.world.frozen(channel)
        names = ", ".join(channel.id for channel in plan.group.channels)
        return Acted([f"held: {names}; go on with: interlock release {names.replace(',', '')}"])


class ReleaseVerb:
    """Lift a hold, or the barrier of a drain."""

    name = "release"
    whole = False

    async def plan(self, conductor: Conductor, group: Group, asked: Asked) -> Plan:
        plan = Plan(group)
        for channel, book in books(conductor, group):
            if book.hold is not None:
                waits = sum(course.unsettled() for course in book.courses)
                plan.lines.append(
                    f"{channel.id}: delivery goes on, {waits} are open (held by {book.hold.who}: {book.hold.why})"
                )
        for row in _drains(conductor, group):
            plan.lines.append(f"ends run {row.id} (drain of {row.connection}): its barrier is lifted")
        if not plan.lines:
            plan.already = f"nothing of {group.connection} is held"
        return plan

    async def act(self, conductor: Conductor, plan: Plan, asked: Asked) -> Acted:
        held = [channel for channel, book in books(conductor, plan.group) if book.hold is not None]
        for row in _drains(conductor, plan.group):
            await conductor.end(
                row.id, DONE, f"released by {asked.who}", who=asked.who, why=asked.why, origin=asked.origin
            )

        def act(book: Book) -> None:
            for channel in held:
                mine = conductor.book(channel.id)
                if mine.hold is not None:
                    book.hold(mine, None if mine.stopped else mine.standstill(conductor.world.now()))
                    book.audit(entry(conductor, "release", channel.id, asked))

        if held:
            await conductor.world.ledger.transaction(act)
        for channel in held:
            emit(events.ChannelReleased(channel.id, asked.who))
            conductor.world.resumed(channel)
        return Acted([f"released: {', '.join(channel.id for channel in plan.group.channels)}"])


def _is_free(book: ChannelBook) -> bool:
    """Whether a person's hold finds no other person's. A channel that stopped by itself is held by that one then: what
    is decided about its dead message does not let it go on."""
    return book.hold is None or book.stopped


def _drains(conductor: Conductor, group: Group) -> list[RunRow]:
    rows = conductor.runs.of(channel.id for channel in group.channels)
    return [row for row in rows if row.verb == "drain" and row.state == RUNNING]

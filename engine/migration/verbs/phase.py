"""`parallel` and `legacy`: begin a parallel run, and end it. Nothing has to be waited for: a message belongs to the
epoch of its number, and the old engine is the one to send in both.

A channel whose old engine is in front goes from `outside` to `legacy` by the verb of that name: its port is for copies,
and there is no vendor's to be taken over.
"""

from __future__ import annotations

import json
from collections.abc import Iterable

from engine.config.model import Channel
from engine.ledger.book import Book
from engine.ledger.course import ChannelBook
from engine.ledger.routing import Epoch, Mode
from engine.ledger.sqlite.loading import LedgerError
from engine.migration.conductor import Conductor
from engine.migration.doors import Door, doors
from engine.migration.phases import Phase
from engine.migration.refused import Refused
from engine.migration.selection import Group
from engine.migration.verbs.handing import left_out
from engine.migration.verbs.verb import Acted, Asked, Plan, books, entry
from engine.observe.events import emit
from engine.observe.service_events import EpochOpened


class PhaseVerb:
    """A move between `legacy` and `parallel`, or of copies' channels from `outside` to `legacy`."""

    whole = True

    def __init__(self, name: str, phase: Phase, comes_from: Phase) -> None:
        self.name = name
        self._phase = phase
        self._from = comes_from

    async def plan(self, conductor: Conductor, group: Group, asked: Asked) -> Plan:
        """A channel that is `live` already while others of its connection begin (one was added later) stays so."""
        plan = Plan(group)
        found = books(conductor, group)
        moving = [channel for channel, book in found if self._takes(channel, book)]
        if all(book.epoch.phase == self._phase.value for _, book in found):
            plan.already = f"{group.connection} is {self._phase.value} already"
            return plan
        for channel, book in found:
            phase = book.epoch.phase
            if phase == self._phase.value or (phase == Phase.LIVE.value and moving):
                plan.lines.append(f"{channel.id} is {phase}, and stays so")
            elif channel not in moving:
                plan.refused.append(_wrong(channel, phase, self._phase.value))
            elif channel.target is None and self._phase is Phase.PARALLEL:
                plan.refused.append(f"{channel.id} has no target: there is nothing to do beside the old engine")
            elif book.hold is not None:
                plan.refused.append(f"{channel.id} is held by {book.hold.who}: release it first")
            elif runs := conductor.runs.of([channel.id]):
                plan.refused.append(f"{channel.id} belongs to run {runs[0].id}, which goes on: abort it first")
            else:
                plan.lines.append(self._line(conductor, channel))
        coming = _outside(conductor, moving)
        plan.refused += left_out(conductor, coming)
        plan.lines += [f"{door.said} is opened, for copies" for door in doors(coming, conductor.world.feeds)]
        return plan

    def _takes(self, channel: Channel, book: ChannelBook) -> bool:
        """Whether a channel is where the verb takes it from."""
        coming = channel.observed and self._phase is Phase.LEGACY and book.epoch.phase == Phase.OUTSIDE.value
        return coming or book.epoch.phase == self._from.value

    def _line(self, conductor: Conductor, channel: Channel) -> str:
        first = conductor.book(channel.id).seq + 1
        routing = conductor.world.routing(channel, self._phase)
        said = {
            Mode.SEND: "sent to", Mode.CAPTURE: "made for, and not sent to,", Mode.OFF: "nothing to"
        }  # fmt: skip
        ways = [f"{said[route.mode]} {route.destination}" for route in routing.routes]
        ways = ["copies of what the old engine has", *ways] if channel.observed else ways
        taps = "; what the old engine sends to its taps is forwarded" if routing.taps else ""
        compared = " and compared" if routing.taps and self._phase is Phase.PARALLEL else ""
        return f"{channel.id}: from number {first} on: {', '.join(ways)}{taps}{compared}"

    async def act(self, conductor: Conductor, plan: Plan, asked: Asked) -> Acted:
        world, moving = conductor.world, []
        coming = _outside(conductor, plan.group.channels)
        for channel, mine in books(conductor, plan.group):
            if self._takes(channel, mine):
                routing = world.routing(channel, self._phase)
                _, courses, sql = world.ledger.prepare(channel.id, routing, world.windows(channel))
                moving.append((channel, mine, routing, courses, sql))

        def act(book: Book) -> list[str]:
            if moved := [mine.name for channel, mine, *_ in moving if self._is_moving(conductor, book, channel, mine)]:
                return moved  # somebody else was faster
            for channel, mine, routing, courses, _ in moving:
                before = mine.epoch.phase
                epoch = Epoch(0, 0, self._phase.value, routing, who=asked.who, why=asked.why, at=world.now())
                opened = book.switch(mine, epoch, courses)
                after = json.dumps({"phase": self._phase.value, "from": opened.first})
                book.audit(entry(conductor, self.name, channel.id, asked, before, after))
            return []

        try:
            moved = await world.ledger.transaction(act, tuple(row for *_, sql in moving for row in sql))
        except LedgerError as error:
            raise Refused(str(error)) from error
        if moved:
            return Acted([f"{', '.join(moved)} had been moved meanwhile, or is being moved; nothing is changed"])
        for channel, mine, *_ in moving:
            emit(EpochOpened(channel.id, self._phase.value, mine.epoch.first, asked.who))
            await world.moved(channel)
        firsts = ", ".join(f"{mine.name} from {mine.epoch.first}" for _, mine, *_ in moving)
        opened = [await _opened(conductor, door) for door in doors(coming, world.feeds)]
        return Acted(["; ".join([f"{plan.group.connection} is {self._phase.value}: {firsts}", *opened])])

    def _is_moving(self, conductor: Conductor, book: Book, channel: Channel, mine: ChannelBook) -> bool:
        return not self._takes(channel, mine) or bool(conductor.handing(book, mine.name))


def _outside(conductor: Conductor, channels: Iterable[Channel]) -> list[Channel]:
    """Of these, the ones whose port is not open yet."""
    return [channel for channel in channels if conductor.book(channel.id).epoch.phase == Phase.OUTSIDE.value]


async def _opened(conductor: Conductor, door: Door) -> str:
    """Open what copies come in at, in words."""
    if why := await conductor.world.open_door(door.channels[0]):
        return f"{door.said} is not open for copies yet ({why}), and tried on"
    return f"{door.said} is open for copies"


def _wrong(channel: Channel, phase: str, wanted: str) -> str:
    port = "let its copies come first (interlock legacy)"
    if not channel.observed:
        port = "take its port over first (interlock takeover)"
    how = {"live": "roll it back first", "outside": port, "legacy": "begin a parallel run first"}
    return f"{channel.id} is {phase}, from where {wanted} cannot be reached: {how.get(phase, 'there is no way back')}"

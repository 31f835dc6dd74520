"""`parallel` and `legacy`: begin a parallel run, and end it. Nothing has to be waited for: a message belongs to the
epoch of its number, and the old engine is the one to send in both."""

from __future__ import annotations

import json

from engine.ledger.book import Book
from engine.ledger.course import ChannelBook
from engine.ledger.routing import Epoch, Mode
from engine.ledger.sqlite.loading import LedgerError
from engine.migration.conductor import Conductor
from engine.migration.phases import Phase
from engine.migration.refused import Refused
from engine.migration.selection import Group
from engine.migration.verbs.verb import Acted, Asked, Plan, books, entry
from engine.observe.events import emit
from engine.observe.service_events import EpochOpened


class PhaseVerb:
    """A move between `legacy` and `parallel`."""

    whole = True

    def __init__(self, name: str, phase: Phase, comes_from: Phase) -> None:
        self.name = name
        self._phase = phase
        self._from = comes_from

    async def plan(self, conductor: Conductor, group: Group, asked: Asked) -> Plan:
        """A channel that is `live` already while others of its connection begin (one was added later) stays so."""
        plan = Plan(group)
        found = books(conductor, group)
        moving = [channel.id for channel, book in found if book.epoch.phase == self._from.value]
        if all(book.epoch.phase == self._phase.value for _, book in found):
            plan.already = f"{group.connection} is {self._phase.value} already"
            return plan
        for channel, book in found:
            phase = book.epoch.phase
            if phase == self._phase.value or (phase == Phase.LIVE.value and moving):
                plan.lines.append(f"{channel.id} is {phase}, and stays so")
            elif phase != self._from.value:
                plan.refused.append(_wrong(channel.id, phase, self._phase.value))
            elif channel.target is None and self._phase is Phase.PARALLEL:
                plan.refused.append(f"{channel.id} has no target: there is nothing to do beside the old engine")
            elif book.hold is not None:
                plan.refused.append(f"{channel.id} is held by {book.hold.who}: release it first")
            elif runs := conductor.runs.of([channel.id]):
                plan.refused.append(f"{channel.id} belongs to run {runs[0].id}, which goes on: abort it first")
            else:
                plan.lines.append(self._line(conductor, channel.id, group))
        return plan

    def _line(self, conductor: Conductor, id: str, group: Group) -> str:
        channel = next(channel for channel in group.channels if channel.id == id)
        first = conductor.book(id).seq + 1
        routing = conductor.world.routing(channel, self._phase)
        said = {
            Mode.SEND: "sent to", Mode.CAPTURE: "made for, and not sent to,", Mode.OFF: "nothing to"
        }  # fmt: skip
        ways = [f"{said[route.mode]} {route.destination}" for route in routing.routes]
        taps = "; what the old engine sends to its taps is forwarded" if routing.taps else ""
        compared = " and compared" if routing.taps and self._phase is Phase.PARALLEL else ""
        return f"{id}: from number {first} on: {', '.join(ways)}{taps}{compared}"

    async def act(self, conductor: Conductor, plan: Plan, asked: Asked) -> Acted:
        world, moving = conductor.world, []
        for channel, mine in books(conductor, plan.group):
            if mine.epoch.phase == self._from.value:
                routing = world.routing(channel, self._phase)
                _, courses, sql = world.ledger.prepare(channel.id, routing, world.windows(channel))
                moving.append((channel, mine, routing, courses, sql))

        def act(book: Book) -> list[str]:
            if moved := [mine.name for _, mine, *_ in moving if self._is_moving(conductor, book, mine)]:
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
        return Acted([f"{plan.group.connection} is {self._phase.value}: {firsts}"])

    def _is_moving(self, conductor: Conductor, book: Book, mine: ChannelBook) -> bool:
        return mine.epoch.phase != self._from.value or bool(conductor.handing(book, mine.name))


def _wrong(channel: str, phase: str, wanted: str) -> str:
    how = {
        "live": "roll it back first", "outside": "take its port over first (interlock takeover)",
        "legacy": "begin a parallel run first",
    }  # fmt: skip
    return f"{channel} is {phase}, from where {wanted} cannot be reached: {how.get(phase, 'there is no way back')}"

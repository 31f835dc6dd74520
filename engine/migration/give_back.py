"""The steps of a give-back: shut our ports, watch the old listener and its peers as far as they can be seen, or have
our ports again."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from engine.config.address import Address
from engine.config.edge import Listen
from engine.ledger.book import Book
from engine.ledger.sqlite.journal import RunRow
from engine.migration.doors import Door
from engine.migration.gate.words import count, listed
from engine.migration.phases import Phase
from engine.migration.runs import DONE, FAILED, Ended, Failed
from engine.migration.steps import BACK, CLOSE, FAR, POLL, WATCH, Ends, TurnBack, named

if TYPE_CHECKING:
    from engine.migration.handover import Handover

LOOK = 5.0  # seconds in which the old listener must show on this machine, where nobody knows whether it is here
AGAIN = 10.0  # seconds in which a port that was given back in vain must be ours again, before that is said


class GiveBack:
    """What a give-back does in each of its steps."""

    def __init__(self, handover: Handover) -> None:
        self._handover = handover
        self._conductor = handover.conductor
        self._world = handover.world
        self.steps: dict[str, Callable[[RunRow], Awaitable[None]]] = {
            CLOSE: self._close, WATCH: self._watch, BACK: self._back,
        }  # fmt: skip

    async def _close(self, row: RunRow) -> None:
        def goes_on(book: Book) -> RunRow:
            became = replace(row, step=WATCH)
            book.put("put_run", *became.values())
            return became

        while not await self._handover.outside(row, goes_on):
            self._handover.going(row.id, "")
            await asyncio.sleep(POLL)

    async def _watch(self, row: RunRow) -> None:
        await self._listener(row)
        here = [door for door in self._listening(row) if (await self._world.here(door.channels[0])).listens]
        await self._peers(row, here)
        await self._conductor.end(row.id, DONE, f"outside: {self._conductor.firsts(row)}; {self._seen(row, here)}")

    async def _listener(self, row: RunRow) -> None:
        """Until the old listener is there; for a moment only, where nobody knows whether it could be seen."""
        began = self._world.tick()
        unknown = not row.options["watch"] and not any(row.options["here"].values())
        while absent := await self._absent(row):
            if unknown and self._world.tick() - began > LOOK:
                return
            self._handover.going(row.id, f"{absent}: start the old listener now")
            await asyncio.sleep(FAR)

    async def _absent(self, row: RunRow) -> str | None:
        """What there is not yet of the old listener, as far as it can be seen; None where it is there."""
        if watch := str(row.options["watch"]):
            host, _, port = watch.rpartition(":")
            why = await self._world.answers(Address(host.strip("[]"), int(port)))
            return f"nobody answers at {watch} ({why})" if why else None
        wanted = [door for door in self._listening(row) if row.options["here"].get(door.name)] or self._listening(row)
        gone = [door.said for door in wanted if not (await self._world.here(door.channels[0])).listens]
        return f"nobody listens at {listed(gone)} of this machine" if gone else None

    async def _peers(self, row: RunRow, here: list[Door]) -> None:
        """Until each has been seen at the old listener. From here on our ports cannot be had any more."""
        missing = {(door.name, address): door for door in here for address in row.options["peers"][door.name]}
        while True:
            for key, door in list(missing.items()):
                if key[1] in (await self._world.here(door.channels[0])).peers:
                    del missing[key]
            if not missing:
                return
            who = named([address for _, address in missing])
            try:
                self._handover.going(row.id, f"not back at the old listener: {who}")
            except (TurnBack, Failed) as over:
                ends = over.ends if isinstance(over, TurnBack) else Ends(FAILED, "the time is over")
                said = f"{ends.said}; outside: the old listener has its port again, and {who} did not come back to it"
                await self._conductor.end(row.id, ends.state, said, who=ends.who, why=ends.why, origin=ends.origin)
                raise Ended from None
            await asyncio.sleep(FAR)

    def _listening(self, row: RunRow) -> list[Door]:
        return [door for door in self._handover.doors(row) if isinstance(door.source, Listen) and not door.copies]

    def _seen(self, row: RunRow, here: list[Door]) -> str:
        doors = [door for door in self._handover.doors(row) if not door.copies]
        if not doors:
            return "no more copies come in"
        unseen = [
            f"{door.said} ({named(peers)})" for door in doors
            if door not in here and (peers := row.options["peers"][door.name])
        ]  # fmt: skip
        if unseen:
            return f"not watched: whether the peers came back to the old listener at {listed(unseen)}"
        peers = sum(len(row.options["peers"][door.name]) for door in doors)
        return f"{count(peers, 'recorded peer')} back at the old listener" if peers else "nobody was connected"

    async def _back(self, row: RunRow) -> None:
        """Our ports again."""
        ends = Ends(**row.options["ends"])
        await self._legacy(row, ends)
        until = self._world.tick() + AGAIN
        every = self._handover.doors(row)
        while shut := [why for door in every if (why := await self._world.open_door(door.channels[0]))]:
            if self._world.tick() > until:
                break
            await asyncio.sleep(POLL)
        ours = f"not ours again yet ({shut[0]}), and tried on" if shut else "ours again"
        said = f"{ends.said}; legacy: {listed(door.said for door in every)}: {ours}"
        await self._conductor.end(row.id, ends.state, said, who=ends.who, why=ends.why, origin=ends.origin)

    async def _legacy(self, row: RunRow, ends: Ends) -> None:
        """The epochs of those that are outside already."""
        switching = self._conductor.switching
        gone = [channel for channel in self._conductor.of(row) if self._handover.is_outside(channel.id)]
        ready = switching.prepared(gone, Phase.LEGACY)

        def act(book: Book) -> list[str]:
            if held := self._handover.held(row):
                return held
            for channel in gone:
                switching.open(book, channel, row, ready, Phase.LEGACY, {"run": row.id}, barred=False)
            return []

        while gone and (held := await self._handover.transaction(act, ready.sql)):
            self._conductor.runs.say(row.id, f"{ends.said}: our port again, when {held[0]} is released")
            await asyncio.sleep(POLL)
        for channel in gone:
            await switching.follow(channel, row.id)

"""The steps of a takeover: open the ports, watch the recorded peers come back, or give the ports back."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from engine.config.edge import Files
from engine.ledger.audit import Entry
from engine.ledger.book import Book
from engine.ledger.sqlite.journal import RunRow
from engine.migration.doors import Door
from engine.migration.gate.check import Fact
from engine.migration.gate.words import count, listed
from engine.migration.phases import Phase
from engine.migration.runs import DONE, end
from engine.migration.steps import BACK, OPEN, POLL, WATCH, Ends, named
from engine.migration.world import Seen

if TYPE_CHECKING:
    from engine.migration.handover import Handover


class Takeover:
    """What a takeover does in each of its steps."""

    def __init__(self, handover: Handover) -> None:
        self._handover = handover
        self._conductor = handover.conductor
        self._world = handover.world
        self._before: dict[int, dict[str, Mapping[str, Seen]]] = {}  # run → door → what was seen before it began
        self.steps: dict[str, Callable[[RunRow], Awaitable[None]]] = {
            OPEN: self._open, WATCH: self._watch, BACK: self._back,
        }  # fmt: skip

    async def begin(self, row: RunRow) -> None:
        """The run, and the epochs `legacy` of its channels, in one transaction."""
        channels = self._conductor.of(row)
        switching = self._conductor.switching
        ready = switching.prepared(channels, Phase.LEGACY)
        told = {"run": row.id, "peers": row.options["peers"], "here": row.options["here"]}

        def opens(book: Book) -> None:
            for channel in channels:
                switching.open(book, channel, row, ready, Phase.LEGACY, told, barred=False)

        self._before[row.id] = {
            door.name: dict(self._world.seen(door.channels[0])) for door in self._handover.doors(row)
        }  # fmt: skip
        await self._conductor.begin(row, also=opens, ready=ready)

    async def _open(self, row: RunRow) -> None:
        await self._note(row)
        while True:
            shut = [
                (door, why) for door in self._handover.doors(row)
                if (why := await self._world.open_door(door.channels[0]))
            ]  # fmt: skip
            if not shut:
                break
            said = "; ".join(f"{door.said} is not ours yet ({why})" for door, why in shut)
            self._handover.going(row.id, f"{said}: the old {_holder(shut[0][0])} has to stop now")
            await asyncio.sleep(POLL)
        await self._handover.step(row, WATCH)

    async def _watch(self, row: RunRow) -> None:
        while True:
            row = self._conductor.runs.row(row.id)
            every = self._handover.doors(row)
            fresh = {door.name: back for door in every if (back := self._came_back(row, door))}
            if fresh:
                known = row.options["back"]
                now = {name: sorted({*known[name], *fresh.get(name, ())}) for name in known}
                await self._handover.put(replace(row, options={**row.options, "back": now}))
                continue
            if not any(_missing(row, door) for door in every):
                break
            standing = [self._standing(row, door, len(every) > 1) for door in every]
            self._handover.going(row.id, "; ".join(said for said in standing if said))
            await asyncio.sleep(POLL)
        await self._note(row)
        peers = sum(len(addresses) for addresses in row.options["peers"].values())
        watched = f"{count(peers, 'recorded peer')} back" if peers else "nobody was expected, and nothing was watched"
        await self._conductor.end(row.id, DONE, f"legacy: {self._conductor.firsts(row)}; {watched}")

    async def _back(self, row: RunRow) -> None:
        """Everything as it was. What came meanwhile stays due on the legacy path."""
        while not await self._handover.outside(row, lambda book: self._ended(book, row)):  # noqa: ASYNC110
            await asyncio.sleep(POLL)  # until it is released, which announces nothing to a run

    def _ended(self, book: Book, row: RunRow) -> RunRow:
        ends = Ends(**row.options["ends"])
        books = [self._conductor.book(name) for name in row.channels]
        came = sum(mine.seq - mine.epoch.first + 1 for mine in books)
        ports = listed(door.said for door in self._handover.doors(row))
        left = f"; what came meanwhile ({count(came, 'message')}) goes on to the old engine" if came else ""
        said = f"{ends.said}; outside: {ports} is given back{left}"
        book.audit(
            Entry(self._world.now(), ends.who or row.who, ends.origin or row.origin, f"{row.verb} {ends.state}",
                  f"{row.connection}: {', '.join(row.channels)}", ends.why or said, f"run {row.id}", "")
        )  # fmt: skip
        return end(book, row, [], ends.state, said, self._world.now())

    def _came_back(self, row: RunRow, door: Door) -> list[str]:
        """Those that have had a message answered since the port is ours, and were not seen to before."""
        seen = self._world.seen(door.channels[0])
        before = self._before.get(row.id, {}).get(door.name, {})
        return [
            address for address in _missing(row, door)
            if seen.get(address, Seen()).answered > before.get(address, Seen()).answered
        ]  # fmt: skip

    def _standing(self, row: RunRow, door: Door, named_: bool) -> str:
        seen = self._world.seen(door.channels[0])
        missing = _missing(row, door)
        silent = [address for address in missing if seen.get(address, Seen()).connected]
        told = {
            "back": row.options["back"][door.name], "connected and silent": silent,
            "not seen": [address for address in missing if address not in silent],
        }  # fmt: skip
        said = "; ".join(f"{what}: {named(addresses)}" for what, addresses in told.items() if addresses)
        return f"{door.said}: {said}" if named_ and said else said

    async def _note(self, row: RunRow) -> None:
        """For the gate: who was there before the takeover, and who has not come back."""
        now = self._world.now()
        for door in self._handover.doors(row):
            value = {"run": row.id, "peers": row.options["peers"][door.name], "missing": _missing(row, door)}
            for channel in door.channels:
                await self._conductor.record(channel, [Fact("takeover", value, now)])


def _missing(row: RunRow, door: Door) -> list[str]:
    back = row.options["back"][door.name]
    return [address for address in row.options["peers"][door.name] if address not in back]


def _holder(door: Door) -> str:
    return "reader" if isinstance(door.source, Files) else "listener"

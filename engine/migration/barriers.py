"""What the runs behind barriers wait for: a drain, a cutover and a rollback.

Claims above a barrier wait, those at or below it go on. Senders are acknowledged all the while.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from engine.config.model import Channel
from engine.ledger.routing import LEGACY
from engine.ledger.sqlite.journal import RunRow
from engine.migration import drain
from engine.migration.drain import NOBODY, Carried, Left
from engine.migration.phases import Phase
from engine.migration.runs import DONE, Ended, Failed
from engine.migration.switching import replayed

if TYPE_CHECKING:
    from engine.migration.conductor import Conductor

POLL = 0.05  # seconds between looks at what a run waits for
WHAT_NOW = "to give up: interlock abort --run {id}"


class Barriers:
    """The drivers of these runs, for one conductor."""

    def __init__(self, conductor: Conductor) -> None:
        self._conductor = conductor
        self._world = conductor.world
        self._channels = {channel.id: channel for channel in conductor.world.channels}
        self.runs: dict[str, Callable[[int], Awaitable[None]]] = {
            "drain": self._drain, "cutover": self._cutover, "rollback": self._rollback,
        }  # fmt: skip

    async def _drain(self, id: int) -> None:
        row = self._conductor.runs.row(id)
        if row.step != "drained":
            await self._wait(id, lambda row: self._left(row, NOBODY))
        books = [self._conductor.book(name) for name in row.channels]
        self._conductor.runs.say(id, f"drained: {drain.settled(books)}; new messages are stored, acknowledged and wait"
                                     f" (go on: interlock release --connection {row.connection})")  # fmt: skip
        if row.step != "drained":  # said before: whoever sees this step finds the words with it
            await self._conductor.step(id, "drained")
        while self._conductor.left(self._conductor.alive(id)) > 0:  # noqa: ASYNC110 - the clock announces nothing
            await asyncio.sleep(POLL)
        await self._conductor.end(id, DONE, "its time was over: lifted, delivery goes on")

    async def _cutover(self, id: int) -> None:
        carried = Carried(frozenset(self._conductor.runs.row(id).options.get("carry", ())))
        await self._wait(id, lambda row: self._left(row, carried))
        await self._conductor.step(id, "settle")
        channels = self._conductor.of(self._conductor.runs.row(id))
        await self._quiet(id)
        while True:
            for channel in channels:
                await self._conductor.gather(channel)
            if all(self._yet(channel) <= 0 for channel in channels):
                break
            await self._quiet(id)  # something came meanwhile: the facts are gathered again after it
        switching = self._conductor.switching
        await switching.switch(id, Phase.LIVE, lambda book, row, ready: switching.to_live(book, row, ready, carried))

    async def _rollback(self, id: int) -> None:
        if self._conductor.runs.row(id).step != "replay":
            await self._wait(id, lambda row: [
                (name, found) for name in row.channels for found in drain.at_real_endpoints(self._conductor.book(name))
            ])  # fmt: skip
            await self._conductor.switching.switch(id, Phase.PARALLEL, self._conductor.switching.to_parallel)
        await self._replayed(id)

    async def _wait(self, id: int, still: Callable[[RunRow], list[tuple[str, Left]]]) -> None:
        """Until nothing of it is left. Raises Ended, Failed."""
        limit = self._conductor.left(self._conductor.alive(id))
        while True:
            row = self._conductor.alive(id)
            waiting = still(row)
            if not waiting:
                return
            self._conductor.runs.say(id, self._waits_for(row, waiting, limit))
            if self._conductor.left(row) <= 0:
                raise Failed(f"the time is over: {_listed(waiting)} did not settle")
            await asyncio.sleep(POLL)

    async def _quiet(self, id: int) -> None:
        """Until nothing has come from the old engine for as long as its taps (or its queue) need to be quiet."""
        while True:
            row = self._conductor.alive(id)
            loud = [(channel, seconds) for channel in self._conductor.of(row) if (seconds := self._yet(channel)) > 0]
            if not loud:
                return
            channel, seconds = max(loud, key=lambda each: each[1])
            unpaired = sum(self._world.unpaired(channel) for channel in self._conductor.of(row))
            open_pairs = f"; {unpaired} inputs without an output are listed, not waited for" if unpaired else ""
            said = f"settle: {channel.id} must be quiet for {seconds:.1f} s more{open_pairs}"
            self._conductor.runs.say(id, f"{said} ({WHAT_NOW.format(id=id)})")
            if self._conductor.left(row) <= 0:
                raise Failed(f"the time is over: {channel.id} was not quiet")
            await asyncio.sleep(min(POLL, seconds))

    def _yet(self, channel: Channel) -> float:
        return self._world.settle_time(channel) - self._world.quiet_for(channel) if channel.legacy else 0.0

    async def _replayed(self, id: int) -> None:
        """Until the old engine has what the rollback granted it. Nothing is barred any more."""
        counts: Counter[str] = Counter(self._conductor.runs.row(id).options.get("counts", {}))
        while True:
            row = self._conductor.alive(id)
            lasts = row.options.get("lasts", {})
            left = [
                (name, found)
                for name in row.channels
                if (old := self._conductor.book(name).course(LEGACY)) is not None
                and (found := drain.left(old, lasts.get(name, 0))).count > len(found.stuck)
            ]
            if not left:
                break
            self._conductor.runs.say(id, f"replay: {_listed(left)}; the old engine is the one to send again")
            await asyncio.sleep(POLL)
        await self._conductor.end(id, DONE, f"parallel; {replayed(counts)}")

    # -- words

    def _left(self, row: RunRow, carried: Carried) -> list[tuple[str, Left]]:
        found = []
        for name in row.channels:
            book = self._conductor.book(name)
            if book.barrier is None:
                raise Ended
            for each in drain.before_cutover(book, book.barrier.at, carried):
                if row.verb != "drain" or each.count > len(each.stuck):
                    found.append((name, each))
        return found

    def _waits_for(self, row: RunRow, waiting: list[tuple[str, Left]], limit: float) -> str:
        spent, limit = limit - self._conductor.left(row), max(0.0, limit)
        stuck = [f"{name}/{seq}" for name, each in waiting for seq in each.stuck][:5]
        way_out = "a person" if row.verb == "drain" else "a person, or --carry"
        person = f"; {', '.join(stuck)} want {way_out}" if stuck else ""
        return (
            f"{row.step} {spent:.0f} s of {limit:.0f} s: waits for {_listed(waiting)}{self._at_pace(waiting)}{person}"
            f" ({WHAT_NOW.format(id=row.id)})"
        )

    def _at_pace(self, waiting: list[tuple[str, Left]]) -> str:
        times = [
            pace * each.count
            for name, each in waiting
            if (pace := self._world.pace(self._channels[name], each.destination)) is not None
        ]
        return f", about {max(times):.0f} s at the measured pace" if times and max(times) >= 1 else ""


def _listed(waiting: list[tuple[str, Left]]) -> str:
    first = "; ".join(each.said(name) for name, each in waiting[:4])
    return first + (f"; and {len(waiting) - 4} more" if len(waiting) > 4 else "")

"""The runs that hand ports over: `takeover`, from the old listener to us, and `give-back`, from us to the old listener.

    takeover    open ---- every port is ours -------------> watch --- every recorded peer is back --> done
                open, watch --- time over, abort, fault --> back ---- ports shut, then `outside` ---> failed, aborted
    give-back   close --- ports shut, then `outside` -----> watch --- seen, or not to be seen ------> done
                close, watch -- time over, abort, fault --> back ---- `legacy`, then ports open ----> failed, aborted

A takeover is in phase `legacy` from its first transaction on: nothing can come in before the port is open, so that no
message is ever without a place. A port is shut before the epoch `outside`, for the same reason. There is no barrier:
nothing is withheld meanwhile. A freeze is not passed: what would open an epoch waits until it is released.

Each step is durable before it is taken and can be taken again, so a run goes on after a restart where it was. Only the
run's own task writes its row; an abort is a wish, which the run follows at its next look.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from engine.ledger.book import Book
from engine.ledger.sqlite.journal import RunRow
from engine.ledger.sqlite.loading import LedgerError
from engine.migration.doors import Door, doors
from engine.migration.gate.words import SECOND, listed
from engine.migration.give_back import GiveBack
from engine.migration.phases import Phase
from engine.migration.runs import FAILED, GIVE_BACK, RUNNING, TAKEOVER, Ended, Failed
from engine.migration.steps import BACK, Ends, TurnBack
from engine.migration.takeover import Takeover
from engine.observe import migration_events as events
from engine.observe.events import emit
from engine.observe.service_events import Fault

if TYPE_CHECKING:
    from engine.migration.conductor import Conductor

GRACE = 60.0  # seconds that what was begun may take to be answered when a port is shut
WHAT_NOW = " (to give up: interlock abort --run {id})"

Step = Callable[[RunRow], Awaitable[None]]


class Handover:
    """The driver of these runs, for one conductor."""

    def __init__(self, conductor: Conductor) -> None:
        self.conductor = conductor
        self.world = conductor.world
        self._takeover = Takeover(self)
        self._steps: dict[str, dict[str, Step]] = {TAKEOVER: self._takeover.steps, GIVE_BACK: GiveBack(self).steps}
        self._wanted: dict[int, Ends] = {}

    async def begin(self, row: RunRow) -> None:
        """Begin a run. A takeover opens its epochs in the same transaction. Raises Failed where it may not begin."""
        if row.verb == TAKEOVER:
            await self._takeover.begin(row)
        else:
            await self.conductor.begin(row)

    async def abort(self, id: int, ends: Ends) -> bool:
        """Have a run turn back. True once that is durable; False where it has ended instead."""
        runs = self.conductor.runs
        self._wanted[id] = ends
        live = runs.get(id)
        while live is not None and live.row.state == RUNNING and live.row.step != BACK:
            live = await runs.wait(id, live.version, GRACE)
        self._wanted.pop(id, None)
        return live is not None and live.row.state == RUNNING

    async def drive(self, id: int) -> None:
        """Take one step after the other. Raises Ended, Failed."""
        while True:
            row = self.conductor.alive(id)
            try:
                await self._steps[row.verb][row.step](row)
            except Ended:
                raise
            except Exception as error:
                if row.step == BACK:
                    await self._as_it_was(row)
                    raise
                await self._turn(row.id, _ends(error))

    # -- for the steps

    def going(self, id: int, said: str) -> None:
        """Say what is waited for. Raises TurnBack where somebody wants it, Failed where the time is over, Ended."""
        row = self.conductor.alive(id)
        left = self.conductor.left(row)
        if ends := self._wanted.pop(id, None):
            raise TurnBack(ends)
        if said:
            limit, what_now = (row.deadline - row.started) / SECOND, WHAT_NOW.format(id=id)
            self.conductor.runs.say(id, f"{row.step} {limit - left:.0f} s of {limit:.0f} s: {said}{what_now}")
        if left <= 0:
            raise Failed(f"the time is over: {said}" if said else "the time is over")

    async def step(self, row: RunRow, step: str) -> None:
        await self.put(replace(row, step=step))
        emit(events.RunStep(row.id, row.verb, step))

    async def put(self, row: RunRow) -> None:
        await self.transaction(lambda book: book.put("put_run", *row.values()))
        self.conductor.runs.became(row)

    async def transaction(self, act: Callable[[Book], Any], sql: tuple[tuple[str, tuple[Any, ...]], ...] = ()) -> Any:
        try:
            return await self.world.ledger.transaction(act, sql)
        except LedgerError as error:
            raise Failed(str(error)) from error

    async def outside(self, row: RunRow, then: Callable[[Book], RunRow]) -> bool:
        """Shut the ports and open the epochs `outside`; `then` gives the run's row after it, in the same transaction.
        False where a freeze is in the way. A port that others need stays open, and its channels stay where they are.
        """
        runs, switching = self.conductor.runs, self.conductor.switching
        if held := self.held(row):
            runs.say(row.id, f"{row.step}: {held[0]} is held: release it, then its port is given back")
            return False
        leaving = [door for door in self.doors(row) if not self._shared(row, door)]
        runs.say(row.id, f"{row.step}: what was begun at {listed(door.said for door in leaving)} is being answered")
        for door in leaving:
            await self.world.shut_door(door.channels[0], GRACE)
        channels = [channel for door in leaving for channel in door.channels]
        ready = switching.prepared(channels, Phase.OUTSIDE)

        def act(book: Book) -> RunRow | None:
            if self.held(row):
                return None
            became = then(book)
            for channel in channels:
                told = {"run": row.id, "peers": row.options["peers"]}
                switching.open(book, channel, row, ready, Phase.OUTSIDE, told, barred=False)
            return became

        became = await self.transaction(act, ready.sql)
        if became is None:
            return False
        runs.became(became)
        for channel in channels:
            await switching.follow(channel, row.id)
        if became.state != RUNNING:
            self.conductor.ended(became)
        return True

    def doors(self, row: RunRow) -> list[Door]:
        return doors(self.conductor.of(row), self.world.feeds)

    def held(self, row: RunRow) -> list[str]:
        return [name for name in row.channels if self.conductor.book(name).hold is not None]

    def is_outside(self, channel: str) -> bool:
        return self.conductor.book(channel).epoch.phase == Phase.OUTSIDE.value

    # -- inside

    def _shared(self, row: RunRow, door: Door) -> bool:
        feed = self.world.feeds.get(door.name)
        return feed is not None and any(
            name not in row.channels and not self.is_outside(name) for name in feed.channels
        )  # fmt: skip

    async def _turn(self, id: int, ends: Ends) -> None:
        row = self.conductor.runs.row(id)
        await self.step(replace(row, options={**row.options, "ends": asdict(ends)}), BACK)

    async def _as_it_was(self, row: RunRow) -> None:
        """It could not turn back either: no port stays shut in a phase in which it is ours."""
        for door in self.doors(row):
            if not all(self.is_outside(channel.id) for channel in door.channels):
                await self.world.open_door(door.channels[0])


def _ends(error: Exception) -> Ends:
    if isinstance(error, TurnBack):
        return error.ends
    if isinstance(error, Failed):
        return Ends(FAILED, str(error))
    emit(Fault.of(error))
    return Ends(FAILED, "a defect of the product")

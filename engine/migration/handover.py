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

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from engine.config.address import Address
from engine.config.edge import Files, Listen
from engine.ledger.audit import Entry
from engine.ledger.book import Book
from engine.ledger.sqlite.journal import RunRow
from engine.ledger.sqlite.loading import LedgerError
from engine.migration.doors import Door, doors
from engine.migration.gate.check import Fact
from engine.migration.gate.words import SECOND, count, listed
from engine.migration.phases import Phase
from engine.migration.runs import DONE, FAILED, GIVE_BACK, RUNNING, TAKEOVER, Ended, Failed, end
from engine.migration.world import Seen
from engine.observe import migration_events as events
from engine.observe.events import emit
from engine.observe.service_events import Fault

if TYPE_CHECKING:
    from engine.migration.conductor import Conductor

OPEN, CLOSE, WATCH, BACK = "open", "close", "watch", "back"
FIRST = {TAKEOVER: OPEN, GIVE_BACK: CLOSE}
"""The step that each begins with."""

POLL = 0.05  # seconds between looks at what a run waits for, and between attempts to have a port
FAR = 0.5  # seconds between looks at what is not ours: another machine, or the kernel's tables
GRACE = 60.0  # seconds that what was begun may take to be answered when a port is shut
LOOK = 5.0  # seconds in which the old listener must show on this machine, where nobody knows whether it is here
AGAIN = 10.0  # seconds in which a port that was given back in vain must be ours again
NAMED = 5  # addresses that a sentence names
WHAT_NOW = " (to give up: interlock abort --run {id})"


@dataclass(frozen=True, slots=True)
class Ends:
    """How a run that turns back will end."""

    state: str
    said: str
    who: str = ""
    why: str = ""
    origin: str = ""


class TurnBack(Exception):
    """Somebody wants the run to turn back."""

    def __init__(self, ends: Ends) -> None:
        self.ends = ends
        super().__init__(ends.said)


class Handover:
    """The driver of these runs, for one conductor."""

    def __init__(self, conductor: Conductor) -> None:
        self._conductor = conductor
        self._world = conductor.world
        self._wanted: dict[int, Ends] = {}
        self._before: dict[int, dict[str, Mapping[str, Seen]]] = {}

    async def begin(self, row: RunRow) -> None:
        """Begin a run. A takeover opens its epochs in the same transaction. Raises Failed where it may not begin."""
        if row.verb != TAKEOVER:
            await self._conductor.begin(row)
            return
        channels = self._conductor.of(row)
        switching = self._conductor.switching
        ready = switching.prepared(channels, Phase.LEGACY)
        told = {"run": row.id, "peers": row.options["peers"], "here": row.options["here"]}

        def opens(book: Book) -> None:
            for channel in channels:
                switching.open(book, channel, row, ready, Phase.LEGACY, told, barred=False)

        self._before[row.id] = {door.name: dict(self._world.seen(door.channels[0])) for door in self._doors(row)}
        await self._conductor.begin(row, also=opens, ready=ready)

    async def abort(self, id: int, ends: Ends) -> bool:
        """Have a run turn back. True once that is durable; False where it has ended instead."""
        runs = self._conductor.runs
        self._wanted[id] = ends
        live = runs.get(id)
        while live is not None and live.row.state == RUNNING and live.row.step != BACK:
            live = await runs.wait(id, live.version, GRACE)
        self._wanted.pop(id, None)
        return live is not None and live.row.state == RUNNING

    async def drive(self, id: int) -> None:
        """Take one step after the other. Raises Ended, Failed."""
        steps: dict[tuple[bool, str], Callable[[RunRow], Awaitable[None]]] = {
            (True, OPEN): self._open, (True, WATCH): self._watch_us, (True, BACK): self._give_back,
            (False, CLOSE): self._close, (False, WATCH): self._watch_them, (False, BACK): self._open_again,
        }  # fmt: skip
        while True:
            row = self._conductor.alive(id)
            try:
                await steps[row.verb == TAKEOVER, row.step](row)
            except Ended:
                raise
            except TurnBack as turned:
                await self._turn(row.id, turned.ends)
            except Failed as failed:
                if row.step == BACK:
                    raise
                await self._turn(row.id, Ends(FAILED, str(failed)))
            except Exception as error:
                if row.step == BACK:
                    raise
                emit(Fault.of(error))
                await self._turn(row.id, Ends(FAILED, "a defect of the product"))

    # -- takeover

    async def _open(self, row: RunRow) -> None:
        await self._note(row)
        while True:
            shut = [(door, why) for door in self._doors(row) if (why := await self._world.open_door(door.channels[0]))]
            if not shut:
                break
            said = "; ".join(f"{door.said} is not ours yet ({why})" for door, why in shut)
            self._going(row.id, f"{said}: the old {_holder(shut[0][0])} has to stop now")
            await asyncio.sleep(POLL)
        await self._step(row.id, WATCH)

    async def _watch_us(self, row: RunRow) -> None:
        while True:
            row = self._conductor.runs.row(row.id)
            fresh = {door.name: back for door in self._doors(row) if (back := self._came_back(row, door))}
            if fresh:
                known = row.options["back"]
                back_now = {name: sorted({*known[name], *fresh.get(name, ())}) for name in known}
                await self._put(replace(row, options={**row.options, "back": back_now}))
                continue
            missing = [(door, self._missing(row, door)) for door in self._doors(row)]
            if not any(absent for _, absent in missing):
                break
            self._going(row.id, "; ".join(self._standing(row, door, len(missing) > 1) for door, _ in missing))
            await asyncio.sleep(POLL)
        await self._note(row)
        peers = sum(len(addresses) for addresses in row.options["peers"].values())
        watched = f"{count(peers, 'recorded peer')} back" if peers else "nobody was expected, and nothing was watched"
        await self._conductor.end(row.id, DONE, f"legacy: {self._conductor.firsts(row)}; {watched}")

    async def _give_back(self, row: RunRow) -> None:
        """The takeover has failed: everything as it was. What came meanwhile stays due on the legacy path."""
        while not await self._outside(row, ended=True):  # noqa: ASYNC110 - a release announces nothing to a run
            await asyncio.sleep(POLL)

    def _came_back(self, row: RunRow, door: Door) -> list[str]:
        """Those that have had a message answered since the port is ours, and were not seen to before."""
        seen = self._world.seen(door.channels[0])
        before = self._before.get(row.id, {}).get(door.name, {})
        return [
            address for address in self._missing(row, door)
            if seen.get(address, Seen()).answered > before.get(address, Seen()).answered
        ]  # fmt: skip

    def _missing(self, row: RunRow, door: Door) -> list[str]:
        back = row.options["back"][door.name]
        return [address for address in row.options["peers"][door.name] if address not in back]

    def _standing(self, row: RunRow, door: Door, named: bool) -> str:
        seen = self._world.seen(door.channels[0])
        missing = self._missing(row, door)
        silent = [address for address in missing if seen.get(address, Seen()).connected]
        told = {
            "back": row.options["back"][door.name], "connected and silent": silent,
            "not seen": [address for address in missing if address not in silent],
        }  # fmt: skip
        said = "; ".join(f"{what}: {_named(addresses)}" for what, addresses in told.items() if addresses)
        return f"{door.said}: {said}" if named and said else said

    async def _note(self, row: RunRow) -> None:
        """For the gate: who was there before the takeover, and who has not come back."""
        now = self._world.now()
        for door in self._doors(row):
            value = {"run": row.id, "peers": row.options["peers"][door.name], "missing": self._missing(row, door)}
            for channel in door.channels:
                await self._conductor.record(channel, [Fact("takeover", value, now)])

    # -- give-back

    async def _close(self, row: RunRow) -> None:
        while not await self._outside(row, ended=False):
            self._going(row.id, "")
            await asyncio.sleep(POLL)

    async def _watch_them(self, row: RunRow) -> None:
        watch, began = row.options["watch"], self._world.now()
        while True:
            absent = await self._absent(row, watch)
            unknown = not watch and not any(row.options["here"].values())
            if not absent:
                break
            if unknown and self._world.now() - began > LOOK * SECOND:
                break
            self._going(row.id, f"{absent}: start the old listener now")
            await asyncio.sleep(FAR)
        here = [door for door in self._listening(row) if (await self._world.here(door.channels[0])).listens]
        while missing := await self._not_there(row, here):
            try:
                self._going(row.id, f"not back at the old listener: {_named(missing)}")
            except (TurnBack, Failed):
                said = f"outside: the old listener has its port again, and {_named(missing)} did not come back to it"
                await self._conductor.end(row.id, FAILED, said)
                raise Ended from None
            await asyncio.sleep(FAR)
        await self._conductor.end(row.id, DONE, f"outside: {self._conductor.firsts(row)}; {self._seen(row, here)}")

    async def _absent(self, row: RunRow, watch: str) -> str | None:
        """What there is not yet of the old listener, as far as it can be seen; None where it is there."""
        if watch:
            host, _, port = watch.rpartition(":")
            why = await self._world.answers(Address(host.strip("[]"), int(port)))
            return f"nobody answers at {watch} ({why})" if why else None
        wanted = [door for door in self._listening(row) if row.options["here"].get(door.name)] or self._listening(row)
        gone = [door.said for door in wanted if not (await self._world.here(door.channels[0])).listens]
        return f"nobody listens at {listed(gone)} of this machine" if gone else None

    async def _not_there(self, row: RunRow, here: list[Door]) -> list[str]:
        missing = []
        for door in here:
            there = (await self._world.here(door.channels[0])).peers
            missing += [address for address in row.options["peers"][door.name] if address not in there]
        return missing

    def _seen(self, row: RunRow, here: list[Door]) -> str:
        unseen = [
            f"{door.said} ({_named(peers)})" for door in self._doors(row)
            if door not in here and (peers := row.options["peers"][door.name])
        ]  # fmt: skip
        if unseen:
            return f"not watched: whether the peers came back to the old listener at {listed(unseen)}"
        peers = sum(len(addresses) for addresses in row.options["peers"].values())
        return f"{count(peers, 'recorded peer')} back at the old listener" if peers else "nobody was connected"

    async def _open_again(self, row: RunRow) -> None:
        """The give-back has failed: our ports again."""
        ends = Ends(**row.options["ends"])
        channels = self._conductor.of(row)
        switching = self._conductor.switching
        ready = switching.prepared(channels, Phase.LEGACY)

        gone = [channel for channel in channels if self._phase(channel.id) == Phase.OUTSIDE.value]

        def act(book: Book) -> list[str]:
            if held := self._held(row):
                return held
            for channel in gone:
                switching.open(book, channel, row, ready, Phase.LEGACY, {"run": row.id}, barred=False)
            return []

        while gone and (held := await self._transaction(act, ready.sql)):
            self._conductor.runs.say(row.id, f"{ends.said}: our port again, when {held[0]} is released")
            await asyncio.sleep(POLL)
        for channel in gone:
            await switching.follow(channel, row.id)
        until = self._world.now() + AGAIN * SECOND
        while shut := [why for door in self._doors(row) if (why := await self._world.open_door(door.channels[0]))]:
            if self._world.now() > until:
                break
            await asyncio.sleep(POLL)
        ours = f"not ours again yet ({shut[0]}), and tried on" if shut else "ours again"
        ports = listed(door.said for door in self._doors(row))
        said = f"{ends.said}; legacy: {ports}: {ours}"
        await self._conductor.end(row.id, ends.state, said, who=ends.who, why=ends.why, origin=ends.origin)

    # -- both

    async def _outside(self, row: RunRow, *, ended: bool) -> bool:
        """Shut the ports, and open the epochs `outside`; the run ends with that, or goes on to watch. False where a
        freeze is in the way."""
        runs = self._conductor.runs
        if held := self._held(row):
            runs.say(row.id, f"{row.step}: {held[0]} is held: release it, then its port is given back")
            return False
        runs.say(row.id, f"{row.step}: what was begun at {listed(d.said for d in self._doors(row))} is being answered")
        for door in self._doors(row):
            if not self._shared(row, door):
                await self._world.shut_door(door.channels[0], GRACE)
        channels = self._conductor.of(row)
        switching = self._conductor.switching
        ready = switching.prepared(channels, Phase.OUTSIDE)

        def act(book: Book) -> RunRow | None:
            if self._held(row):
                return None
            told = {"run": row.id, "peers": row.options["peers"]}
            came = self._came(row)
            for channel in channels:
                switching.open(book, channel, row, ready, Phase.OUTSIDE, told, barred=False)
            return self._ends(book, row, came) if ended else self._goes_on(book, row)

        became = await self._transaction(act, ready.sql)
        if became is None:
            return False
        runs.became(became)
        for channel in channels:
            await switching.follow(channel, row.id)
        if ended:
            self._conductor.ended(became)
        return True

    def _ends(self, book: Book, row: RunRow, came: int) -> RunRow:
        ends = Ends(**row.options["ends"])
        ports = listed(door.said for door in self._doors(row))
        left = f"; what came meanwhile ({count(came, 'message')}) goes on to the old engine" if came else ""
        said = f"{ends.said}; outside: {ports} is given back{left}"
        book.audit(
            Entry(self._world.now(), ends.who or row.who, ends.origin or row.origin, f"{row.verb} {ends.state}",
                  f"{row.connection}: {', '.join(row.channels)}", ends.why or said, f"run {row.id}", "")
        )  # fmt: skip
        return end(book, row, [], ends.state, said, self._world.now())

    def _goes_on(self, book: Book, row: RunRow) -> RunRow:
        became = replace(row, step=WATCH)
        book.put("put_run", *became.values())
        return became

    def _came(self, row: RunRow) -> int:
        books = [self._conductor.book(name) for name in row.channels]
        return sum(book.seq - book.epoch.first + 1 for book in books)

    def _shared(self, row: RunRow, door: Door) -> bool:
        """Whether a channel of another run's or phase comes in by it as well: then it stays open."""
        feed = self._world.feeds.get(door.name)
        return feed is not None and any(
            name not in row.channels and self._phase(name) != Phase.OUTSIDE.value for name in feed.channels
        )

    def _held(self, row: RunRow) -> list[str]:
        return [name for name in row.channels if self._conductor.book(name).hold is not None]

    def _phase(self, channel: str) -> str:
        return self._conductor.book(channel).epoch.phase

    def _doors(self, row: RunRow) -> list[Door]:
        return doors(self._conductor.of(row), self._world.feeds)

    def _listening(self, row: RunRow) -> list[Door]:
        return [door for door in self._doors(row) if isinstance(door.source, Listen)]

    def _going(self, id: int, said: str) -> None:
        """Say what is waited for. Raises TurnBack where somebody wants it, Failed where the time is over, Ended."""
        row = self._conductor.alive(id)
        now = self._world.now()
        if ends := self._wanted.pop(id, None):
            raise TurnBack(ends)
        if said:
            spent, limit = (now - row.started) / SECOND, (row.deadline - row.started) / SECOND
            time = f"{row.step} {spent:.0f} s of {limit:.0f} s: "
            self._conductor.runs.say(id, f"{time}{said}{WHAT_NOW.format(id=id)}")
        if row.deadline <= now:
            raise Failed(f"the time is over: {said}" if said else "the time is over")

    async def _turn(self, id: int, ends: Ends) -> None:
        row = self._conductor.runs.row(id)
        await self._put(replace(row, step=BACK, options={**row.options, "ends": asdict(ends)}))
        emit(events.RunStep(id, row.verb, BACK))

    async def _step(self, id: int, step: str) -> None:
        row = self._conductor.runs.row(id)
        await self._put(replace(row, step=step))
        emit(events.RunStep(id, row.verb, step))

    async def _put(self, row: RunRow) -> None:
        await self._transaction(lambda book: book.put("put_run", *row.values()))
        self._conductor.runs.became(row)

    async def _transaction(self, act: Callable[[Book], Any], sql: tuple[tuple[str, tuple[Any, ...]], ...] = ()) -> Any:
        try:
            return await self._world.ledger.transaction(act, sql)
        except LedgerError as error:
            raise Failed(str(error)) from error


def _holder(door: Door) -> str:
    return "reader" if isinstance(door.source, Files) else "listener"


def _named(addresses: list[str]) -> str:
    more = f" and {len(addresses) - NAMED} more" if len(addresses) > NAMED else ""
    return ", ".join(addresses[:NAMED]) + more

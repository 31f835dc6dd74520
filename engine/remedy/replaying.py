"""`replay`: messages that are settled at a destination go there once more, as a new delivery of each.

A replay is a row with its messages and how far it has come. A few of its messages are open at a time, so that new ones
of the channel are not kept waiting, and a hundred thousand cost no memory; they go in their order, behind what stands
in their lanes. After a restart it goes on where it was.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from engine.ledger.audit import Entry
from engine.ledger.book import Book, OpenKey
from engine.ledger.course import ChannelBook, Course
from engine.ledger.sqlite import replays
from engine.ledger.sqlite.ledger import SqliteLedger
from engine.ledger.sqlite.loading import LedgerError
from engine.ledger.sqlite.replays import AS_IS, AS_WAS, DONE, RUNNING, STOPPED, ReplayRow
from engine.migration.refused import Refused
from engine.observe.events import emit
from engine.observe.service_events import Fault
from engine.remedy.choosing import waits_for_a_person
from engine.remedy.planning import Found, look_up, ranges, sort_out
from engine.remedy.verb import Asked

MOST = 1_000_000  # messages of one replay
RETRY = 1.0  # seconds until what could not be written is tried again


class Replaying:
    """The replays of one ledger."""

    def __init__(self, ledger: SqliteLedger, now: Callable[[], int]) -> None:
        self._ledger = ledger
        self._now = now
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._moved: dict[Course, asyncio.Event] = {}
        self._rows: dict[int, ReplayRow] = {}
        self._stopping: set[int] = set()
        self._last = 0

    async def start(self) -> None:
        """Go on with what an earlier process left."""
        self._last, rows = await self._ledger.read(
            lambda r: (replays.last(r.connection), replays.rows(r.connection, running=True))
        )
        for row in rows:
            self._begin(row)

    async def stop(self) -> None:
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    def settled(self, course: Course) -> None:
        """A replayed message is through there, or waits for a person."""
        if moved := self._moved.get(course):
            moved.set()

    # -- planning

    async def look(self, book: ChannelBook, course: Course, numbers: Sequence[int], mapping: str = AS_IS) -> Found:
        """Which of these messages can be replayed there. mapping: AS_IS or AS_WAS."""
        stored = await self._ledger.read(lambda r: replays.stored(r.connection, book.id, numbers))
        found = sort_out(course, numbers, stored, self._ledger.kept.get(book.id), mapping)
        seqs = {stored[seq]: seq for seq in found.numbers}
        before = await self._ledger.read(lambda r: replays.before(r.connection, list(seqs), course.id))
        look_up(course, found, {seqs[id]: one for id, one in before.items()}, self._ledger.mappings)
        return found

    # -- acting

    async def begin(self, book: ChannelBook, course: Course, found: Found, asked: Asked) -> ReplayRow:
        self._last += 1
        row = ReplayRow(
            self._last, book.name, course.name, ranges(found.numbers), 0, len(found.numbers), 0, RUNNING, asked.who,
            asked.why, asked.origin, self._now(), None, found.mapping,
        )  # fmt: skip

        def act(ledger: Book) -> None:
            ledger.put("put_replay", *row.values(book.id))
            what = json.dumps({"replay": row.id, "numbers": row.numbers, "count": row.total, "mapping": row.mapping})
            subject = f"{book.name} to {course.name}"
            ledger.audit(Entry(row.at, asked.who, asked.origin, "replay", subject, asked.why, "", what))

        await self._ledger.transaction(act)
        self._begin(row)
        return row

    async def end(self, id: int, asked: Asked) -> ReplayRow:
        """Begin no more of a replay. What is open of it stays so."""
        gone = Refused(f"There is no replay {id} that goes on.")
        if id not in self._rows or id in self._stopping:
            raise gone
        self._stopping.add(id)  # it is not cut off in the middle of a step: what that opens, a runner must get to know
        for moved in self._moved.values():
            moved.set()
        try:
            await asyncio.wait([self._tasks[id]])
            if id not in self._rows:  # that was its last step
                raise gone
            return await self._ended(id, STOPPED, asked)
        finally:
            self._stopping.remove(id)

    def running(self) -> Mapping[int, ReplayRow]:
        return self._rows

    def _begin(self, row: ReplayRow) -> None:
        self._rows[row.id] = row
        task = asyncio.get_running_loop().create_task(self._run(row.id), name=f"replay {row.id}")
        self._tasks[row.id] = task

    async def _run(self, id: int) -> None:
        row = self._rows[id]
        book = self._ledger.channels[row.channel]
        course = book.course(row.destination)
        if course is None:
            return
        moved = self._moved.setdefault(course, asyncio.Event())
        numbers = [seq for first, last in row.numbers for seq in range(first, last + 1) if seq > row.upto]
        at = from_id = 0
        while id not in self._stopping:
            moved.clear()
            try:
                if at == len(numbers):
                    await self._ended(id, DONE, None)
                    return
                room = self._room(course)
                if room <= 0 or course.runner is None:
                    await moved.wait()
                    continue
                some = numbers[at : at + room]
                from_id = await self._open(id, book, course, some, from_id)
                at += len(some)
            except LedgerError:  # the channel no longer sends there, or the ledger cannot be written
                await asyncio.sleep(RETRY)
            except Exception as error:  # or it cannot be read
                emit(Fault.of(error))
                await asyncio.sleep(RETRY)

    @staticmethod
    def _room(course: Course) -> int:
        most = max(1, course.window // 2)  # the rest of the window is for what is new
        again = [work for work in course.open.values() if work.delivery > 1]
        return most - sum(1 for work in again if course.window == 1 or not waits_for_a_person(course, work))

    async def _open(self, id: int, book: ChannelBook, course: Course, numbers: Sequence[int], from_id: int) -> int:
        """from_id: none of these messages has a lower id. What that is of those behind them."""
        found = await self._ledger.read(
            lambda r: replays.deliveries(r.connection, book.id, numbers, course.id, from_id)
        )
        row = self._rows[id]

        def act(ledger: Book) -> tuple[ReplayRow, list[OpenKey]]:
            keys = []
            kept = self._ledger.kept.get(book.id)
            for seq, last in found.items():
                if kept is not None and kept.bytes_gone(seq):
                    continue
                delivery = max([2, last.delivery + 1, *(key[2] + 1 for key in course.open if key[0] == seq)])
                bound = last.made_by if row.mapping == AS_WAS else None
                keys.append(ledger.replay(course, last.message, seq, delivery, last.revision, f"replay {id}", bound))
            moved = replace(row, upto=numbers[-1], begun=row.begun + len(keys))
            ledger.put("move_replay", *moved.moved())
            return moved, keys

        self._rows[id], keys = await self._ledger.transaction(act)
        await course.runner.take_up(keys)
        return max((last.message for last in found.values()), default=from_id)

    async def _ended(self, id: int, state: str, asked: Asked | None) -> ReplayRow:
        row = self._rows[id]
        ended = replace(row, state=state, ended=self._now())

        def act(ledger: Book) -> None:
            ledger.put("move_replay", *ended.moved())
            if asked is not None:
                subject = f"replay {id} of {row.channel}"
                said = f"{ended.begun} of {ended.total} begun"
                ledger.audit(
                    Entry(self._now(), asked.who, asked.origin, "replay stopped", subject, asked.why, "", said)
                )

        await self._ledger.transaction(act)
        del self._rows[id], self._tasks[id]
        return ended

"""`tap forward`, `tap give` and `tap discard`: what a person decides about an output that a tap has kept for them.

Each decision is one transaction with its row of the audit record, and is made once. What is to be sent is marked as
`sending` before the first byte, and its outcome recorded after the last: where a process ends in between, the endpoint
may have the output, and nobody but a person who says so has it sent again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import NamedTuple

from engine.compare.comparer import Comparer
from engine.compare.copies import reached
from engine.compare.file_tap import FileTap
from engine.compare.tap import TapPort
from engine.compare.tapping import Fate, fate
from engine.config.edge import FromFeed
from engine.files.inbox import PARKED
from engine.ledger.audit import Entry
from engine.ledger.book import Book
from engine.ledger.course import ChannelBook
from engine.ledger.model import Message, State, TapOutput
from engine.ledger.outcome import Outcome, Result
from engine.ledger.routing import Mode
from engine.ledger.sqlite import comparisons, parked
from engine.ledger.sqlite.large import LARGE
from engine.ledger.sqlite.ledger import SqliteLedger
from engine.ledger.sqlite.parked import CAPTURED, DISCARDED, FORWARDED, GIVEN, SENDING, UNKNOWN, ParkedRow
from engine.migration.gate.words import iso
from engine.migration.refused import Refused
from engine.observe.events import emit
from engine.observe.tap_events import OutputDecided
from engine.remedy.verb import Asked, Plan


class At(NamedTuple):
    """A tap that is open. comparer: None where outputs are not attributed to inputs at present."""

    port: TapPort | FileTap
    comparer: Comparer | None


class Parked:
    """The verbs, on one ledger. Each returns its plan; where nobody asks for more (None), that is all it does."""

    def __init__(self, ledger: SqliteLedger, now: Callable[[], int], at: Callable[[str, str], At | None]) -> None:
        """`now`: microseconds since 1970. `at`: the tap of a channel by its name, None where there is none now."""
        self._ledger = ledger
        self._now = now
        self._at = at
        self._deciding = asyncio.Lock()  # what one has looked at no other changes before it is decided
        self._sending: set[int] = set()

    # -- what there is

    async def row(self, id: int) -> ParkedRow | None:
        """An output that was parked."""
        found = await self._ledger.read(lambda reader: parked.row(reader.connection, id))
        return self.now(found) if found else None

    def now(self, row: ParkedRow) -> ParkedRow:
        """A row as it is: what an earlier process was sending when it ended may have been taken."""
        ours = row.state != SENDING or row.id in self._sending
        return row if ours else row.becomes(UNKNOWN, row.who, row.why, row.decided)

    def book(self, row: ParkedRow) -> ChannelBook:
        return next(book for book in self._ledger.channels.values() if book.id == row.channel)

    # -- forward

    async def forward(self, row: ParkedRow, asked: Asked | None, *, again: bool) -> Plan:
        """Send it to its endpoint. again: although it may have been taken already."""
        with ExitStack() as under_way:
            async with self._deciding:
                row = await self._again(row)
                plan = await self._plan_forward(row, again)
                if asked is None:
                    return plan
                plan.check(asked)
                at = self._at(self.book(row).name, row.tap)
                assert at is not None
                assert isinstance(at.port, TapPort)
                message = Message(self.book(row), await self._bytes(row), row.at, row.control_id)
                sending = self._becomes(row, SENDING, asked, said="")
                under_way.enter_context(self._under_way(row.id, at.port))
                await self._record(row, sending, asked, "forward")
            outcome = await at.port.send_kept(message)
            await self._record(sending, self._ended(row, outcome, asked), asked, "forward")
        return plan

    @contextmanager
    def _under_way(self, id: int, port: TapPort) -> Iterator[None]:
        self._sending.add(id)
        port.by_hand += 1
        try:
            yield
        finally:
            port.by_hand -= 1
            self._sending.discard(id)

    async def _plan_forward(self, row: ParkedRow, again: bool) -> Plan:
        plan, book = Plan("tap forward", 1, refused=self._against(row)), self.book(row)
        at = self._at(book.name, row.tap)
        if at is None:
            plan.refused.append(f"{book.name} has no tap {row.tap} now, so that its endpoint is not known: discard it")
            return plan
        if isinstance(at.port, FileTap):
            plan.refused.append(_by_hand(row, at.port))
            return plan
        if book.hold is not None:
            plan.refused.append(f"{book.name} is held by {book.hold.who}: release it first")
        if book.barrier is not None:
            plan.refused.append(f"run {book.barrier.run} goes on in {book.name}: wait for its end")
        if row.seq is not None and (why := await self._ours(book, at.port.destination, row.seq)):
            plan.refused.append(why)
        if row.state == UNKNOWN and not again:
            plan.refused.append(
                f"it may have been taken already{_said(row)}: ask the endpoint whether it has it, by its control id;"
                " then forward it --again, or discard it"
            )
        plan.lines.append(f"output {row.id} goes to {row.tap} once, through its one sender; its answer is kept")
        if row.state == UNKNOWN:
            plan.lines.append(f"it may have been taken already{_said(row)}: then {row.tap} gets it twice")
        if row.seq is None:
            plan.lines.append("it belongs to no input that is known: nobody has looked whether our side has sent it")
            if book.epoch.phase == "live":
                since = f"{book.name} is live: from {book.name}/{book.epoch.first} on our side sends"
                plan.lines.append(f"{since}; where this is of such a message, {row.tap} gets it twice")
        else:
            plan.lines.append(f"it belongs to {book.name}/{row.seq}, which our side has not sent there")
        return plan

    async def _ours(self, book: ChannelBook, destination: str | None, seq: int) -> str | None:
        """Why an output of an input may not be sent as well: our side has sent that, or may yet."""
        place = f"{book.name}/{seq}"
        if fate(book, seq, destination) is Fate.CAPTURE:
            return f"{place} is ours to send: what the old engine makes of it is not sent as well; discard it"
        course = book.course(destination) if destination else None
        if course is None:
            return None
        sends = course.mode(seq) in (Mode.SEND, Mode.ASK)
        if sends and any(work.seq == seq for work in course.open.values()):
            return f"{place} is open at {course.name} on our side: decide that first (interlock dead)"
        channel, name = book.id, course.name
        id = await self._ledger.read(lambda reader: reader.id_of(channel, seq))
        found = {} if id is None else (await self._ledger.read(lambda reader: reader.settled([id])))[id]
        delivered = found.get(name) == State.DELIVERED.label
        return f"{name} has {place} from our side: discard it" if delivered else None

    def _ended(self, row: ParkedRow, outcome: Outcome, asked: Asked) -> ParkedRow:
        """What an output became by an attempt. One that was in doubt stays so until it is taken."""
        if outcome.result is Result.DELIVERED:
            return self._becomes(row, FORWARDED, asked, said=outcome.reason, answer=outcome.answer)
        doubt = UNKNOWN if outcome.result is Result.UNKNOWN else row.state
        return self._becomes(row, doubt, asked, said=outcome.reason, answer=outcome.answer)

    # -- give

    async def give(self, row: ParkedRow, channel: str, seq: int, asked: Asked | None) -> Plan:
        """It belongs to an input, and is compared as any other output of that."""
        async with self._deciding:
            row = await self._again(row)
            plan, book = Plan("tap give", 1, refused=self._against(row)), self.book(row)
            at = self._at(book.name, row.tap)
            if at is None:
                plan.refused.append(f"{book.name} has no tap {row.tap} now: nothing is compared there; discard it")
            elif not plan.refused:
                await self._plan_give(plan, row, at, channel, seq)
            if asked is None:
                return plan
            plan.check(asked)
            assert at is not None
            ours = fate(book, seq, at.port.destination) is Fate.CAPTURE
            output = TapOutput(
                book, row.tap, await self._bytes(row), row.at, socket=row.socket, control_id=row.control_id,
                decision=GIVEN, seq=seq, answer=row.acknowledged,
            )  # fmt: skip
            if len(output.raw) > LARGE:
                await self._ledger.lay_down(output)
            becomes = self._becomes(row, CAPTURED if ours else row.state, asked, given=seq)
            await self._record(row, becomes, asked, "give", output)
        if at.comparer is not None:
            await at.comparer.given(row.tap, output.id, output.raw, output.at, seq)
        return plan

    async def _plan_give(self, plan: Plan, row: ParkedRow, at: At, channel: str, seq: int) -> None:
        book, place = self.book(row), f"{channel}/{seq}"
        if wrong := await self._misfit(book, row, at, channel, seq):
            plan.refused.append(wrong)
            return
        compared = at.comparer is not None and book.epoch_of(seq).phase == "parallel"
        plan.lines.append(
            f"output {row.id} belongs to {place}"
            + (" and is compared as any other output of it" if compared else "; of that phase nothing is compared")
        )
        what = fate(book, seq, at.port.destination)
        if what is Fate.CAPTURE:
            plan.lines.append(f"{place} is ours to send: the output is kept, not sent, and waits no more")
        elif what is Fate.FORWARD:
            plan.lines.append(f"the old engine is the one to send {place}: forward it next, or discard it")
        else:
            plan.lines.append(f"whether {row.tap} has {place} is not known: it goes on waiting for a decision")

    async def _misfit(self, book: ChannelBook, row: ParkedRow, at: At, channel: str, seq: int) -> str | None:
        """Why an output cannot be of an input."""
        place, name = f"{channel}/{seq}", book.name
        if row.seq is not None:
            by = ": a person has given it" if row.given is not None else ""
            return f"output {row.id} belongs to {name}/{row.seq} already{by}"
        if channel != name:
            return f"output {row.id} came to a tap of {name}: {place} is another channel's"
        if not 1 <= seq <= book.seq:
            return f"There is no {place}: the newest is {book.seq}."
        number = book.id
        id = await self._ledger.read(lambda reader: reader.id_of(number, seq))
        if id is None:
            return f"{place} is no longer kept"
        if await self._ledger.read(lambda reader: reader.received(id)) > row.at:
            return f"{place} came after output {row.id}: it cannot be of it"
        fed = isinstance(at.port.channel.source, FromFeed)  # which may have given another channel's copy to it
        if not fed and not reached(book, seq):
            return f"the old engine never got {place}: nothing of it can come from there"
        tap = row.tap
        there = await self._ledger.read(lambda reader: comparisons.outputs(reader.connection, number, tap, seq))
        if there and at.port.tap.shape != "1:n":
            return f"{place} has its output at this tap already"
        return None

    # -- discard

    async def discard(self, row: ParkedRow, asked: Asked | None) -> Plan:
        """It is not sent, and waits no more."""
        async with self._deciding:
            row = await self._again(row)
            plan = Plan("tap discard", 1, refused=self._against(row))
            plan.lines.append(f"output {row.id} is not sent, and waits no more; it is kept as long as other outputs")
            if row.state == UNKNOWN:
                plan.lines.append(f"it may have been taken already{_said(row)}")
            if asked is not None:
                plan.check(asked)
                await self._record(row, self._becomes(row, DISCARDED, asked), asked, "discard")
            return plan

    # -- inside

    def _against(self, row: ParkedRow) -> list[str]:
        """Why nobody may decide about it at all."""
        if row.ended is not None:
            return [f"output {row.id} is {row.state} already, by {row.who} at {iso(row.ended)}: {row.why}"]
        return [f"output {row.id} is on its way to {row.tap} now, by {row.who}"] if row.state == SENDING else []

    async def _again(self, row: ParkedRow) -> ParkedRow:
        """As it is now that nobody else decides."""
        found = await self.row(row.id)
        if found is None:
            raise Refused(f"Output {row.id} is no longer kept.")
        return found

    async def _bytes(self, row: ParkedRow) -> bytes:
        raw = await self._ledger.read(lambda reader: comparisons.output(reader.connection, row.id))
        if raw is None:
            raise Refused(f"Output {row.id} is no longer kept.")
        return raw

    def _becomes(self, row: ParkedRow, state: str, asked: Asked, **more: object) -> ParkedRow:
        return row.becomes(state, asked.who, asked.why, self._now(), **more)

    async def _record(
        self, before: ParkedRow, after: ParkedRow, asked: Asked, verb: str, output: TapOutput | None = None
    ) -> None:
        """A step, its row of the audit record and, where it was given to an input, its place there: one transaction."""
        book = self.book(before)
        given = output is not None
        entry = Entry(
            self._now(), asked.who, asked.origin, f"tap {verb}", f"{book.name} tap {before.tap} output {before.id}",
            asked.why, before.state, f"{book.name}/{after.given}" if given else after.state,
        )  # fmt: skip

        def act(ledger: Book) -> None:
            if output is not None:
                ledger.output(output)
            ledger.put("put_tap_decision", *after.values())
            ledger.audit(entry)

        await self._ledger.transaction(act)
        if after.ended is not None:
            emit(OutputDecided(book.name, before.tap, after.state, asked.who))


def _said(row: ParkedRow) -> str:
    return f" ({row.who}: {row.said or 'no answer is known'})"


def _by_hand(row: ParkedRow, tap: FileTap) -> str:
    folder = f"{tap.address}/{PARKED}"
    return f"output {row.id} came in a file, which stands in {folder}: put that into {row.tap} by hand, then discard it"

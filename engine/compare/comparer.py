"""One channel's comparison at work: told what comes and goes on the event loop, it compares beside, and records.

Being told is cheap and never waits. Comparing happens in a task of its own, one message at a time, in turn with all
other channels; verdicts go to the ledger in batches. What a crash loses is only memory: the verdicts that are missing
are made from the ledger's rows when it starts again.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from engine.compare.answers import compare_answers
from engine.compare.copies import Copy, in_front
from engine.compare.correlate import Correlator
from engine.compare.diff import Comparison, Kind, compare, together, whole_message
from engine.compare.discrepancies import Discrepancy, State, Totals
from engine.compare.kept import Kept, settled
from engine.compare.keys import Keys, body
from engine.compare.pairs import pair
from engine.compare.recorder import Recorder
from engine.compare.records import Mark, Verdict, Word
from engine.compare.rules import Rule, Rules
from engine.compare.severity import MESSAGE, MORE, ORDER, TWICE
from engine.compare.side import Came, Case, Output, Side
from engine.compare.slots import Input, Slot
from engine.compare.tapping import NO_SOCKET
from engine.config.edge import FromFeed
from engine.config.model import Channel, Tap
from engine.delivery.lane import patient
from engine.hl7.peek import peek
from engine.intake.judge import Flaw
from engine.ledger.book import Book
from engine.ledger.course import ChannelBook
from engine.ledger.interface import Ledger
from engine.ledger.model import Message
from engine.ledger.routing import LEGACY, Epoch, Mode
from engine.ledger.sqlite import comparisons
from engine.ledger.sqlite.schema import BLOCK
from engine.observe.events import emit
from engine.observe.service_events import Fault

ANSWERS: Final = ""
"""The name under which the answers to the sender are compared."""

LINGER: Final = 0.25  # seconds in which verdicts gather before they are written
MOST_GATHERED: Final = 256  # verdicts that are written without waiting for more
AGAIN_AFTER: Final = 1.0  # seconds until what failed is tried again
HELD_BYTES: Final = 256 * 1024  # of outputs without a verdict that a channel keeps in memory
HELD_INPUTS: Final = 96 * 1024  # bytes of inputs that it keeps
MOST_GRANTED: Final = 20_000  # inputs that a rollback has given back and whose output is still to come
MOST_UNMISSED: Final = 500  # other inputs for which no output need come
MOST_ANSWERS: Final = 1000  # answers that wait to be compared; more are not
LARGE: Final = 128 * 1024  # bytes from which a comparison has a thread of its own
SURE_AFTER: Final = 5_000_000  # microseconds until what is settled without an output is certain to have none
REMEMBERED: Final = 64  # inputs with a verdict that a new process knows of
SPREAD: Final = 8 << BLOCK  # messages of all channels among which these are looked for


@dataclass(frozen=True, slots=True)
class Counts:
    """A tap's comparison now. pending: inputs without a verdict; late: of them, those whose time is over; lag: seconds
    that nearly all outputs take, None without data."""

    totals: Totals
    pending: int
    late: int
    lag: float | None


class Comparer:
    """One channel."""

    def __init__(
        self,
        channel: Channel,
        book: ChannelBook,
        ledger: Ledger,
        clock: Callable[[], int],
        *,
        judge: Callable[[bytes], Flaw | None] = lambda raw: None,
        turn: asyncio.Lock | None = None,
    ) -> None:
        """clock: microseconds since 1970. judge: what `live` would refuse a message for. turn: taken for each message,
        shared by all channels of a process."""
        self.rules = Rules.of(channel.compare)
        self._answer_rules = Rules.of_answers(channel.compare)
        self._channel = channel
        self._book = book
        self._clock = clock
        self._judge = judge
        self._turn = turn or asyncio.Lock()
        self._keys = Keys.of(channel.compare, channel.direction)
        self._within = int(channel.compare.within * 1e6)
        self._kept = Kept(book, ledger, isinstance(channel.source, FromFeed))
        self._sides = {tap.name: self._side(tap) for tap in channel.taps}
        self._recorder = Recorder(book, channel.owner, ledger, self._marks)
        self._jobs: deque[tuple[Side, Case]] = deque()
        self._answers: deque[tuple[Message, bytes]] = deque()
        self._inputs: deque[tuple[Input, int]] = deque()  # those whose bytes may be held, and how many
        self._inputs_held = 0
        self._outputs_held = 0
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def _side(self, tap: Tap) -> Side:
        """A tap beside the destination that serves the same endpoint."""
        destinations = self._channel.destinations
        ours = next((one.name for one in destinations if one.endpoint and one.endpoint.name == tap.forward.name), None)
        compare = self._channel.compare
        return Side(tap.name, ours, Correlator(compare.within, compare.nth, tap.shape, self._kept.reached), tap.shape)

    # -- beginning and ending

    async def start(self) -> None:
        """Read back what has no verdict yet, then begin. Before the channel's ports are opened."""
        marks = await self._recorder.load()
        for tap, side in self._sides.items():
            side.seen = marks.get(tap, Mark())
        await self._read_back()
        await self._recorder.announce()
        old = self._book.course(LEGACY)
        self._inherited = old.claim if old is not None else 0
        self._task = asyncio.get_running_loop().create_task(self._work(), name=f"compare {self._channel.id}")
        self._wake.set()

    @property
    def inherits(self) -> bool:
        """Whether an input that went to the old engine before the start still waits for its output."""
        return any(next(iter(side.pending), self._inherited + 1) <= self._inherited for side in self._sides.values())

    async def stop(self) -> None:
        """End. What has no verdict gets it when the channel is started again."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _read_back(self) -> None:
        """Inputs without a verdict, and the last ones that have one; then the outputs without a verdict."""
        marks = {tap: side.seen for tap, side in self._sides.items()}
        words = {
            tap: await self._kept.query(comparisons.judged, tap, mark.seq - REMEMBERED) for tap, mark in marks.items()
        }
        oldest = min(marks.values(), key=lambda mark: mark.seq, default=Mark())
        async for message in self._kept.inputs(max(0, oldest.seq - REMEMBERED), max(0, oldest.id - SPREAD)):
            pending = []
            for tap, side in self._sides.items():
                word = words[tap].get(message.seq)
                if word is None and message.seq > marks[tap].seq:
                    pending.append(side)
                else:
                    side.correlator.remember(self._input(message, 1), word == "missing_in_legacy")
            if pending:
                input = self._held(message, len(pending), await self._kept.elsewhere(message))
                for side in pending:
                    side.expect(input, self._clock())
        for tap, side in self._sides.items():
            await self._read_outputs(side, max(0, marks[tap].seq - REMEMBERED), words[tap])
        for first, last in self._kept.granted(MOST_GRANTED):
            await self._read_unmissed(first, last, MOST_GRANTED, granted=True)
        if copied := self._kept.copied(MOST_UNMISSED):
            await self._read_unmissed(*copied, MOST_UNMISSED, granted=False)

    async def _read_unmissed(self, first: int, last: int, most: int, granted: bool) -> None:
        """What a rollback has given back, or a feed copied, and the old engine may have got: its output may still come,
        or come again."""
        came = {tap: await self._kept.query(comparisons.attributed, tap, first, last) for tap in self._sides}
        again = {tap: set(seqs[-REMEMBERED:]) for tap, seqs in came.items()}
        waits = {tap: set(seqs) for tap, seqs in came.items()}
        async for message in self._kept.between(first, last):
            copies = await self._kept.elsewhere(message)
            for tap, side in self._sides.items():
                if message.seq not in waits[tap]:
                    side.correlator.await_any(self._held(message, 1 if granted else 0, copies), most, granted)
                elif message.seq in again[tap]:
                    side.correlator.remember(self._input(message, 1), expected=granted)

    async def _read_outputs(self, side: Side, after: int, words: dict[int, str]) -> None:
        came = await self._kept.query(comparisons.came, side.tap, after)
        side.keep_silent({seq for seq, word in words.items() if word == "matched"} - {one.seq for one in came})
        for one in came:
            if one.id == one.first:
                side.correlator.came(one.seq)
        for row in await self._kept.query(comparisons.unjudged_outputs, side.tap, after):
            if case := side.restored(Output(row.id, row.at, None), row.seq or 0):
                self._look(side, case)
        await self._read_repeated(side, came, await self._kept.query(comparisons.shown, after))
        for row in await self._kept.query(comparisons.strays, side.tap, self._clock() - self._within):
            self._stray(side, row.id, row.at)

    async def _read_repeated(self, side: Side, came: list[comparisons.CameRow], shown: set[int]) -> None:
        """What came twice, and was not recorded. Of what wants an answer only within one process: what came again after
        it ended may be the repetition of what was not answered. A further output is none, and is found in any case."""
        before: dict[int, comparisons.CameRow] = {}
        for one in came:
            last = before.get(one.seq)
            before[one.seq] = one
            if side.correlator.several or one.socket == NO_SOCKET:
                further = await self._is_further(side, one)
                if further and side.correlator.several:
                    if one.id not in shown and self._expected(one.seq) and not await self._is_part(side, one):
                        self._find(side, one.seq, one.id, MORE, "missing_in_target")
                    continue
            if last is None or not _answered(last) or _term(one) != _term(last) or one.id in shown:
                continue
            if self._expected(one.seq):
                first, again = await self._kept.legacy(one.first), await self._kept.legacy(one.id)
                same = side.correlator.several or (first and again and body(first) == body(again))
                self._find(side, one.seq, one.id, TWICE if same else MESSAGE, "missing_in_target")

    async def _is_further(self, side: Side, one: comparisons.CameRow) -> bool:
        """Whether an output from before is another one than its input's first."""
        raw = await self._kept.legacy(one.id)
        return raw is not None and side.came_before(one.seq, raw, taken=one.socket == NO_SOCKET)

    async def _is_part(self, side: Side, one: comparisons.CameRow) -> bool:
        """Whether a further output is what one of ours is compared with: of an input without a verdict, or one that was
        judged by it."""
        if case := side.unjudged(one.seq):
            return side.add(Output(one.id, case.outputs[0].at, None), one.seq) is not None
        slot = side.correlator.slot(one.seq)
        if slot is None or side.destination is None:
            return False
        ours = await self._kept.target(slot.input.id, side.destination)
        return len(slot.further or ()) < len(ours)

    # -- what it is told

    def stored(self, message: Message, copies: Sequence[Copy] = ()) -> None:
        """An input is durable. copies: where else a feed put its frame."""
        if self._expected(message.seq):
            self._expect(message, None, copies)
            return
        sides = [side for side in self._sides.values() if side.lacks(message.seq, False)]
        self._await_any(message, sides, 0, MOST_UNMISSED, copies=copies)

    def sending(self, message: Message) -> None:
        """An input goes to the old engine: now, and perhaps long after it came, what is made of it may come."""
        seq, now = message.seq, self._clock()
        if self._expected(seq):
            self._expect(message, now)
        elif self._kept.is_granted(seq):
            sides = [side for side in self._sides.values() if _ungranted(side.correlator.slot(seq))]
            self._await_any(message, sides, len(sides), MOST_GRANTED, granted=True)
        for side in self._sides.values():
            side.correlator.sent(seq, now)

    def moved(self) -> None:
        """An epoch was opened. Inputs that were told before belong to it now: some of them are no longer to be
        compared, and get no verdict; others are."""
        now, book = self._clock(), self._book
        for side in self._sides.values():
            for case in [case for case in side.pending.values() if not self._expected(case.seq)]:
                self._drop(side, case)
            for slot in [slot for slot in side.correlator.unmissed() if self._expected(slot.input.seq)]:
                slot.input.taps += 1
                side.expect(slot.input, now)
            if book.epoch.phase == "parallel":
                told = side.correlator.slot
                side.untold = {seq for seq in range(book.epoch.first, book.seq + 1) if told(seq) is None}
        self._wake.set()

    def captured(self, seq: int, destination: str, raw: bytes, part: int = 1, parts: int = 1) -> None:
        """What we would have sent for an input is known, up to `part` of `parts`; where they are several, they are read
        back from the ledger."""
        for side in self._sides.values():
            case = side.unjudged(seq) if side.destination == destination else None
            if case is None or case.ours or part < parts:
                continue
            case.ours, case.target = True, self._hold(raw) if parts == 1 else None
            if side.unready.pop(seq, None):
                self._queue(side, case)

    def refused(self, seq: int) -> None:
        """The old engine said no to an input, or will never get it: no output will come."""
        for side in self._sides.values():
            if case := side.refused(seq):
                self._close(side, case, "not_comparable")

    def answered(self, message: Message, answer: bytes) -> None:
        """The old engine's answer to an input, as it was relayed to the sender."""
        if self._book.epoch_of(message.seq).phase != "parallel":
            return
        if len(self._answers) >= MOST_ANSWERS:
            self._add(Verdict(ANSWERS, message.seq, 0, "not_comparable", (), self._clock()))
            return
        self._answers.append((message, answer))
        self._wake.set()

    def attribute(self, tap: str, raw: bytes, at: int) -> int | None:
        """The input that an output belongs to, None where that is not known. at: when it came (microseconds)."""
        return self._sides[tap].attribute(raw, self._keys.read(raw), at, peek(raw).control_id)

    def tapped(self, tap: str, output_id: int, raw: bytes, at: int, seq: int | None, *, answered: bool = True) -> None:
        """An output that is stored. answered: the old engine got an answer to it, and will not repeat it."""
        side = self._sides[tap]
        if seq is None:
            self._stray(side, output_id, at)
            return
        output = Output(output_id, at, self._hold(raw))
        came, case = side.tapped(output, raw, seq, answered)
        if case is not None:
            self._look(side, case)
            return
        self._let_go(output.raw)
        if came is Came.TWICE:
            self._find(side, seq, output_id, TWICE, "missing_in_target")
        elif came is Came.FURTHER:
            self._find(side, seq, output_id, MORE, "missing_in_target")
        elif came is Came.MORE or came is Came.ALONE:
            self._find(side, seq, output_id, MESSAGE, "missing_in_target")

    async def given(self, tap: str, output_id: int, raw: bytes, at: int, seq: int) -> None:
        """An output that a person has given to an input, and is stored as one of it. Its input may be so old that
        nothing of it is remembered here."""
        side = self._sides[tap]
        if side.correlator.slot(seq) is None and self._expected(seq):
            word = await self._kept.query(comparisons.verdict, tap, seq)
            ids = await self._kept.query(comparisons.outputs, tap, seq)
            earlier = [await self._kept.legacy(id) for id in ids if id != output_id]
            inputs = [message async for message in self._kept.between(seq, seq)]
            for message in inputs:  # what nobody waits for is soon forgotten again: from here on nothing is awaited
                side.correlator.remember(self._input(message, 1), word == "missing_in_legacy")
            for one in filter(None, earlier):
                side.came_before(seq, one, taken=True)
            if word == "matched" and not earlier:
                side.keep_silent({seq})
        side.correlator.give(seq, raw, at)
        self.tapped(tap, output_id, raw, at, seq)

    def unkept(self, tap: str, seq: int, answered: bool) -> None:
        """An output of an input came, and could not be stored: there is nothing to compare, and nothing is missed."""
        side = self._sides[tap]
        if case := side.unkept(seq, answered):
            self._close(side, case, "not_comparable")

    def tick(self, now: int) -> None:
        """Look for inputs whose time is over. now: microseconds since 1970; about once a second."""
        for side in self._sides.values():
            for case in side.expired(now, self._kept.sent):
                self._look(side, case)
            for case in [one for one in side.unready.values() if self._is_ready(side, one, now)]:
                del side.unready[case.seq]
                self._queue(side, case)
            if self._recorder.news(side.tap, side.mark(set(), now).late):
                self._wake.set()

    # -- what it tells

    def counts(self) -> dict[str, Counts]:
        """By tap; `` is the answers to the sender."""
        now, totals = self._clock(), self._recorder.totals
        taps = {
            tap: Counts(totals(tap), len(side.pending), side.mark(set(), now).late, side.correlator.lag())
            for tap, side in self._sides.items()
        }
        return {**taps, ANSWERS: Counts(totals(ANSWERS), len(self._answers), 0, None)}

    def rules_of(self, tap: str) -> tuple[Rule, ...]:
        """The rules by which a tap's messages are compared, or the answers (``)."""
        return (self._answer_rules if tap == ANSWERS else self.rules).all

    def lag(self, tap: str) -> float | None:
        """Seconds that nearly all of a tap's outputs take after their inputs; None without data."""
        return self._sides[tap].correlator.lag()

    # -- what a person does

    async def settle(
        self,
        row: comparisons.DiscrepancyRow,
        state: State,
        why: str,
        who: str,
        owner: str | None = None,
        also: Callable[[Book], None] = lambda book: None,
    ) -> Discrepancy:
        """Put one of the channel's discrepancies into a state, its messages counted again, in one transaction with what
        `also` does. SettleError where that makes no sense."""
        async with self._recorder.lock:
            while self._recorder.waiting:
                await self._write()
            return await self._recorder.settle(row, state, why, who, self._clock(), owner, also)

    async def flush(self) -> None:
        """Compare and write everything that is ready."""
        async with self._recorder.lock:
            while await self._one():
                pass
            await self._write()
            while self._recorder.waiting:
                await self._write()

    # -- inside: what waits

    def _expect(self, message: Message, since: int | None, copies: Sequence[Copy] = ()) -> None:
        """An output must come at every tap that has not heard so yet."""
        sides = [side for side in self._sides.values() if side.lacks(message.seq, True)]
        if sides:
            input = self._held(message, len(sides), copies)
            for side in sides:
                side.expect(input, since)

    def _await_any(
        self,
        message: Message,
        sides: list[Side],
        taps: int,
        most: int,
        granted: bool = False,
        copies: Sequence[Copy] = (),
    ) -> None:
        """An output may come, and is not missed."""
        if sides:
            input = self._held(message, taps, copies)
            for side in sides:
                side.correlator.await_any(input, most, granted)

    def _held(self, message: Message, taps: int, copies: Sequence[Copy] = ()) -> Input:
        """An input with its bytes, until newer ones need the room."""
        input = self._input(message, taps, copies)
        self._inputs.append((input, len(message.raw)))
        self._inputs_held += len(message.raw)
        while self._inputs_held > HELD_INPUTS:
            oldest, size = self._inputs.popleft()
            self._inputs_held -= size
            oldest.lighten()
        return input

    def _input(self, message: Message, taps: int, copies: Sequence[Copy] = ()) -> Input:
        seq, id, at, raw = message.seq, message.id, message.received, message.raw
        return Input(seq, id, at, self._keys.read(raw), patient(raw), message.control_id, raw, taps, copies)

    def _expected(self, seq: int) -> bool:
        """Whether the old engine works on it, and the work is to be compared."""
        if self._book.epoch_of(seq).phase != "parallel":
            return False
        legacy = self._book.course(LEGACY)
        return in_front(self._book, seq) or (legacy is not None and legacy.mode(seq) is Mode.SEND)

    def _hold(self, raw: bytes) -> bytes | None:
        """The bytes, where there is room for them in memory."""
        if self._outputs_held + len(raw) > HELD_BYTES:
            return None
        self._outputs_held += len(raw)
        return raw

    def _let_go(self, *held: bytes | None) -> None:
        self._outputs_held -= sum(len(raw) for raw in held if raw is not None)

    def _look(self, side: Side, case: Case) -> None:
        """The old engine's part is decided: compare, or wait for ours."""
        if case.ours or case.late or self._decided(side, case.seq):
            self._queue(side, case)
        else:
            side.unready[case.seq] = case

    def _decided(self, side: Side, seq: int) -> bool:
        """Whether nothing more will come from us: it is in the ledger, or it will never be."""
        return side.destination is None or settled(self._book, side.destination, seq)

    def _is_ready(self, side: Side, case: Case, now: int) -> bool:
        """Whether what has waited is to be looked at again, though nothing has come."""
        return not (case.short and now < case.slot.due) and self._decided(side, case.seq)

    def _queue(self, side: Side, case: Case) -> None:
        self._jobs.append((side, case))
        self._wake.set()

    def _marks(self, done: dict[str, set[int]]) -> dict[str, Mark]:
        """How far each tap is, once the verdicts of `done` are durable; the answers have no such mark."""
        now = self._clock()
        marks = {tap: side.mark(done.get(tap, set()), now) for tap, side in self._sides.items()}
        return {**marks, ANSWERS: Mark()}

    # -- inside: verdicts

    def _stray(self, side: Side, output: int, at: int) -> None:
        """An output of no input that we know. Soon after the comparison began, its input may be older than that."""
        epoch = self._book.epoch
        if epoch.phase == "parallel" and at > self._since(epoch) + self._within:
            self._find(side, 0, output, MESSAGE, "missing_in_target")

    def _since(self, epoch: Epoch) -> int:
        """When the phase of an epoch began: a changed routing table is no new beginning."""
        began = epoch.at
        for earlier in reversed(self._book.epochs):
            if earlier.phase != epoch.phase:
                break
            began = earlier.at
        return began

    def _find(self, side: Side, seq: int, output: int, path: str, kind: Kind) -> None:
        """Something beside the verdicts."""
        found = whole_message(path, kind, self.rules)
        self._add(Verdict(side.tap, seq, output, "", (found,), self._clock()))

    def _missing(self, side: Side, case: Case, kind: Kind) -> None:
        word: Word = "missing_in_legacy" if kind == "missing_in_legacy" else "different"
        self._close(side, case, word, Comparison(True, "", (whole_message(MESSAGE, kind, self.rules),)))

    def _drop(self, side: Side, case: Case) -> None:
        """A case is to have no verdict: its input is another epoch's."""
        self._empty(case)
        side.drop(case)

    def _close(self, side: Side, case: Case, word: Word, comparison: Comparison | None = None) -> None:
        """A case has its verdict."""
        differences = comparison.differences if comparison else ()
        if case.slot.overtaken and word in ("matched", "different"):
            word, differences = "different", (*differences, whole_message(ORDER, "transformation", self.rules))
        output, case.judged = next((one.id for one in case.outputs), 0), True
        case.slot.missed = word == "missing_in_legacy"
        self._empty(case)
        self._add(Verdict(side.tap, case.seq, output, word, differences, self._clock(), case.late))

    def _empty(self, case: Case) -> None:
        """Its bytes are not needed any more."""
        self._let_go(*(one.raw for one in case.outputs), case.target)
        case.outputs, case.target = (), None

    def _add(self, verdict: Verdict) -> None:
        self._recorder.waiting.append(verdict)
        self._wake.set()

    # -- the task

    async def _work(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            try:
                await self._round()
            except Exception as error:
                emit(Fault.of(error))
                await asyncio.sleep(AGAIN_AFTER)
                self._wake.set()

    async def _round(self) -> None:
        """Compare all that is ready, then write it."""
        going = True
        while going:
            async with self._recorder.lock:
                going = await self._one()
                if len(self._recorder.waiting) >= MOST_GATHERED:
                    await self._write()
            await asyncio.sleep(0)  # others have their turn
        await asyncio.sleep(LINGER)
        async with self._recorder.lock:
            await self._write()

    async def _write(self) -> None:
        done = await self._recorder.write()
        for tap, side in self._sides.items():
            side.done(done.get(tap, set()))
        await self._recorder.count_again()

    async def _one(self) -> bool:
        """Compare one message or answer. False where there is none."""
        if not self._jobs and not self._answers:
            return False
        async with self._turn:
            if self._jobs:
                await self._judge_case(*self._jobs[0])
                self._jobs.popleft()
            else:
                self._judge_answer(*self._answers.popleft())
        return True

    async def _judge_case(self, side: Side, case: Case) -> None:
        if case.judged:
            return
        if not self._expected(case.seq):
            self._drop(side, case)
            return
        if side.destination is None:
            self._close(side, case, "not_comparable")
            return
        outputs, held, id = case.outputs, case.target, case.slot.input.id
        ours = [held] if held is not None else await self._kept.target(id, side.destination)
        if _has_changed(case, outputs):
            return
        case.short = side.correlator.several and 0 < len(case.outputs) < len(ours) and not case.late
        waits = case.short and self._clock() < case.slot.due
        if waits or (not ours and not self._sure(case)):
            side.unready[case.seq] = case
        elif not case.outputs:
            await self._judge_missed(side, case, ours)
        elif not ours:
            self._missing(side, case, "missing_in_target")
        else:
            await self._judge_both(side, case, ours)

    async def _judge_missed(self, side: Side, case: Case, ours: list[bytes]) -> None:
        """No output came in time. It is not missed where neither side made one, or the old engine refused the input.
        Where the tap says that there may be none, and a rule of ours keeps it back, the two sides agree."""
        id, destination = case.slot.input.id, side.destination
        taken = await self._kept.taken(case.slot.input)
        agreed = not ours and side.shape == "0..1" and destination and await self._kept.filtered(id, destination)
        if _has_changed(case, ()):
            return
        if not taken:
            self._close(side, case, "not_comparable")
        elif ours:
            self._missing(side, case, "missing_in_legacy")
        else:
            case.slot.silent = True
            self._close(side, case, "matched" if agreed else "not_comparable")

    async def _judge_both(self, side: Side, case: Case, ours: list[bytes]) -> None:
        """What both sides made, each output beside its own; what is left on one side is a discrepancy."""
        outputs = case.outputs
        theirs = [one.raw if one.raw is not None else await self._kept.legacy(one.id) for one in outputs]
        if _has_changed(case, outputs):
            return
        legacy = [raw for raw in theirs if raw is not None]
        if len(legacy) < len(theirs):  # the bytes of one are gone
            self._close(side, case, "not_comparable")
            return
        paired = pair(legacy, ours, self._keys.read)
        found = [await self._compared(legacy[one], ours[other]) for one, other in paired.both]
        if _has_changed(case, outputs):
            return
        if paired.target:
            found.append(Comparison(True, "", (whole_message(MORE, "missing_in_legacy", self.rules),)))
        both = together(found)
        self._close(side, case, _word(both), both)
        for one in paired.legacy:
            self._find(side, case.seq, outputs[one].id, MORE, "missing_in_target")

    async def _compared(self, legacy: bytes, target: bytes) -> Comparison | None:
        """The comparison; None where the two are beyond it, which must not stop all others."""
        takes = self._channel.takes
        try:
            if max(len(legacy), len(target)) > LARGE:
                return await asyncio.to_thread(compare, legacy, target, self.rules, takes)
            return compare(legacy, target, self.rules, takes)
        except Exception as error:
            emit(Fault.of(error))
            return None

    def _judge_answer(self, message: Message, answer: bytes) -> None:
        flaw = self._judge(message.raw) if message.flaw else None
        found = compare_answers(message.raw, answer, flaw, self._answer_rules, message.received // 1_000_000)
        self._add(Verdict(ANSWERS, message.seq, 0, _word(found), found.differences, self._clock()))

    def _sure(self, case: Case) -> bool:
        """Whether an output of ours that the ledger has not will not be there in a moment."""
        since = case.outputs[0].at if case.outputs else case.slot.due
        return self._clock() > since + SURE_AFTER


def _has_changed(case: Case, outputs: tuple[Output, ...]) -> bool:
    """Whether the case of these outputs is another one since the ledger was asked about it: it has its verdict, is to
    have none, or one more output came, with which it is looked at again."""
    return case.judged or case.outputs is not outputs


def _answered(one: comparisons.CameRow) -> bool:
    """Whether the old engine got all the answer that it waited for."""
    return one.answered or one.socket == NO_SOCKET


def _term(one: comparisons.CameRow) -> int:
    """The process that an output came to: connections are numbered so."""
    return one.socket >> 32


def _ungranted(slot: Slot | None) -> bool:
    """Whether what a rollback gives back is not known as that yet, and its output has not come."""
    return slot is None or not (slot.granted or slot.outputs)


def _word(found: Comparison | None) -> Word:
    if found is None or not found.comparable:
        return "not_comparable"
    return "different" if found.differences else "matched"

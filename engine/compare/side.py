"""One tap's part of a channel's comparison: which inputs wait for a verdict, and for what. No I/O, no clock.

An input is ready when the old engine's output is there and ours is. An input whose time is over without an output is
missed. What comes twice, late, or beside another one is found as well.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from itertools import takewhile

from engine.compare.correlate import Correlator
from engine.compare.keys import Key, body
from engine.compare.records import Mark
from engine.compare.slots import Input, Slot
from engine.config.model import Shape


class Came(Enum):
    """What an output is to the input that it belongs to."""

    FIRST = "first"
    LATE = "late"  # its input had been given up
    TWICE = "twice"  # the same once more
    MORE = "more"  # another one for an input that has its own
    FURTHER = "further"  # the same, where an input may have several
    ALONE = "alone"  # it came after all, and the verdict was that neither side makes one
    PART = "part"  # the same, as long as its input has no verdict: it becomes a part of that
    AGAIN = "again"  # the one before had no answer, and this is its repetition
    NOTHING = "nothing"  # no verdict is due for its input


@dataclass(frozen=True, slots=True)
class Output:
    """What a tap got: the ledger's number of it, when, and its bytes where they are held in memory."""

    id: int
    at: int
    raw: bytes | None


@dataclass(slots=True, eq=False)
class Case:
    """An input on its way to a verdict. outputs: the old engine's. ours: whether all of ours are there; target: the
    bytes, where it is one and they are held in memory. short: the old engine has made fewer than we so far. judged: it
    has its verdict, which may not be durable yet."""

    slot: Slot
    outputs: tuple[Output, ...] = ()
    ours: bool = False
    target: bytes | None = None
    short: bool = False
    judged: bool = False
    late: bool = False

    @property
    def seq(self) -> int:
        return self.slot.input.seq


class Side:
    """A tap. destination: which of ours serves the same endpoint; None where nothing does.

    shape, how many outputs the old engine makes of an input:
    1:1   one. Where ours is there and its is not, that is a discrepancy: `missing_in_legacy`. Where neither side made
          one, nothing is missed, but nothing is proved either: the input is reported as not comparable.
    0..1  one or none. Where ours is there and its is not, the same discrepancy: we would send what it keeps back. Where
          both kept it back, ours by a rule, they agree: the input has matched.
    1:n   one or more. They are compared with ours, each with its own (`pairs`), as soon as there are as many as ours,
          or their time is over. What one side alone has is a discrepancy, `message-more`: ours is part of the verdict,
          theirs is one of its own, and so is whatever comes after the verdict.

    Where one is due and we make several, what we would send more is such a discrepancy as well, and no wait.
    """

    def __init__(self, tap: str, destination: str | None, correlator: Correlator, shape: Shape = "1:1") -> None:
        self.tap = tap
        self.shape = shape
        self.destination = destination
        self.correlator = correlator
        self.pending: OrderedDict[int, Case] = OrderedDict()  # inputs without a durable verdict, in order
        self.unready: dict[int, Case] = {}  # the old engine's part is decided, ours is not there yet
        self.seen = Mark()  # the newest input that was to be compared
        self.untold: set[int] = set()  # older ones that are to be compared as well, and are still to come

    def lacks(self, seq: int, expected: bool) -> bool:
        """Whether it has not been told of an input, or not that its output must come."""
        slot = self.correlator.slot(seq)
        if not expected:
            return slot is None
        if slot is None:
            return seq > self.seen.seq or seq in self.untold
        return not (slot.expected or slot.outputs or slot.given_up)

    def expect(self, input: Input, since: int | None = None) -> None:
        """An input whose output must come. since: from when on it is waited for."""
        self.untold.discard(input.seq)
        in_order = input.seq > self.seen.seq
        self.pending[input.seq] = Case(self.correlator.expect(input, since))
        if in_order:
            self.seen = Mark(input.seq, input.id)
        else:
            self.pending = OrderedDict(sorted(self.pending.items()))

    def drop(self, case: Case) -> None:
        """It is to have no verdict after all."""
        case.judged, case.slot.expected = True, False
        self.pending.pop(case.seq, None)
        self.unready.pop(case.seq, None)

    def unjudged(self, seq: int) -> Case | None:
        """The case of an input that has no verdict yet."""
        case = self.pending.get(seq)
        return None if case is None or case.judged else case

    def attribute(self, raw: bytes, key: Key, at: int, control_id: str | None) -> int | None:
        """The input that an output belongs to."""
        slot = self.correlator.attribute(raw, key, at, control_id)
        return slot.input.seq if slot else None

    def tapped(self, output: Output, raw: bytes, seq: int, answered: bool) -> tuple[Came, Case | None]:
        """An output that is stored; the case, where it gets its verdict by it. answered: its sender got an answer, and
        will not repeat it."""
        slot = self.correlator.slot(seq)
        if slot is None or not slot.expected:
            return Came.NOTHING, None
        repeats, slot.unanswered = slot.unanswered, not answered
        if case := self._awaited(slot):
            case.outputs = (output,)
            return (Came.LATE if case.late else Came.FIRST), case
        mark = hash(body(raw))
        if slot.silent:
            slot.silent = False
            return Came.ALONE, None
        if slot.body is None:  # it was before this process began, which may have ended before it was answered
            slot.body, repeats = mark, True
        if mark != slot.body and not slot.recorded(mark):
            if case := self.add(output, seq):
                return Came.PART, case
            return (Came.FURTHER if self.correlator.several else Came.MORE), None
        return (Came.AGAIN if repeats else Came.TWICE), None

    def add(self, output: Output, seq: int) -> Case | None:
        """A further output; the case, where its input may have several and has no verdict yet."""
        case = self.unjudged(seq) if self.correlator.several else None
        if case is not None:
            case.outputs += (output,)
        return case

    def unkept(self, seq: int, answered: bool) -> Case | None:
        """An output came that could not be stored; the case, where it would have got its verdict by it."""
        slot = self.correlator.slot(seq)
        if slot is None or not slot.expected:
            return None
        slot.unanswered = not answered
        return self._awaited(slot)

    def _awaited(self, slot: Slot) -> Case | None:
        """The case of an input that still waits for its output, or was given up without one."""
        case = self.unjudged(slot.input.seq)
        if case is not None and not case.outputs:
            return case
        if not slot.missed:
            return None
        slot.missed = False
        return Case(slot, late=True)

    def restored(self, output: Output, seq: int) -> Case | None:
        """An output that came before this process began; the case, where it gets its verdict by it."""
        case, slot = self.unjudged(seq), self.correlator.slot(seq)
        if case is not None and not case.outputs:
            self.correlator.restore(seq)
            case.outputs = (output,)
            return case
        if slot is None or not slot.missed:
            return None
        slot.missed, slot.outputs = False, 1
        return Case(slot, (output,), late=True)

    def keep_silent(self, seqs: set[int]) -> None:
        """Before this process began, the verdict was that neither side makes an output of them."""
        for slot in filter(None, map(self.correlator.slot, seqs)):
            slot.silent, slot.outputs = True, 0

    def came_before(self, seq: int, raw: bytes, taken: bool) -> bool:
        """An output that came before this process began, told in order; whether it is a further one, and none of those
        before. taken: it does not come again. Else it may: it may not have been answered."""
        slot, mark = self.correlator.slot(seq), hash(body(raw))
        if slot is None:
            return False
        slot.unanswered = not taken
        if slot.body is None:
            slot.body = mark
            return False
        slot.add(mark, self.correlator.several)
        return mark != slot.body and not slot.recorded(mark)

    def refused(self, seq: int) -> Case | None:
        """The old engine said no: nothing will come. The case, where it has waited for something."""
        return self.unjudged(seq) if self.correlator.give_up(seq) else None

    def expired(self, now: int, sent: Callable[[int], bool]) -> list[Case]:
        """Those whose time is over. sent: whether the old engine has an input."""
        over = (self.unjudged(slot.input.seq) for slot in self.correlator.expired(now, sent))
        return [case for case in over if case is not None]

    def done(self, seqs: set[int]) -> None:
        """Their verdicts are durable."""
        for seq in seqs:
            self.pending.pop(seq, None)

    def mark(self, done: set[int], now: int) -> Mark:
        """How far everything has its verdict, once those of `done` are durable."""
        late = sum(
            1 for case in takewhile(lambda one: one.slot.due <= now, self.pending.values()) if case.seq not in done
        )
        first = next((case for seq, case in self.pending.items() if seq not in done), None)
        if first is None:
            return Mark(self.seen.seq, self.seen.id, late)
        return Mark(first.seq - 1, first.slot.input.id, late)

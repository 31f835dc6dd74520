"""Which input an output of the old engine belongs to. In memory, no I/O, no clock: times come in as values.

An output belongs to an input with its key, that came before it and has none yet: the oldest, unless another one that
waits is more like it, so that one lost output does not move all later ones; or one that has its output already, so that
one sent twice does not either. Where no key fits, since a fault may have hit the key itself, it belongs to the input
that is nearly the same; and else to nobody.

Where an input may have several outputs (`1:n`), the first ones are given in the same order, but none to an input from
before the newest one that has its output, and none to one that the old engine has not got yet. What is left is a
further output: it belongs to the newest input with its key that has one, and moves no later one.

An input whose output must come within a time waits as long. One whose output is not missed waits until it comes, or
until too many newer ones do: what a rollback gives back to the old engine may come out of it a day later.
"""

from __future__ import annotations

from bisect import insort
from collections import OrderedDict, deque
from collections.abc import Callable
from itertools import chain, islice
from statistics import quantiles
from typing import Final

from engine.compare.keys import Key, Sketch, apart, body, likeness, sketch
from engine.compare.slots import Input, Slot
from engine.config.model import Shape

KNOWN: Final = 500  # inputs remembered after their output came, or their time was over
KNOWN_FOR: Final = 3  # times `within`
CLEARLY: Final = 2  # values that must be more alike in another one than in the oldest: one that changed is two
CLEARLY_NEARER: Final = 0.03  # by how much the likeness of the nearest must be above that of the next
NEARLY_THE_SAME: Final = (
    0.93  # likeness from which a key that does not fit is forgiven; two orders of one patient: 0.92
)
SEARCHED: Final = 100  # inputs that are looked at
SERVED: Final = 10  # of those with an output and its key
LAGS: Final = 200  # pairs by which the lag is measured
FEWEST_LAGS: Final = 5
PATIENTS: Final = 2000  # whose last output is remembered


class Correlator:
    """The pairing at one tap."""

    def __init__(
        self,
        within: float,
        nth: bool = True,
        shape: Shape = "1:1",
        reached: Callable[[Input], bool] = lambda input: True,
    ) -> None:
        """within: seconds that an output may take. nth: of several inputs of one key the oldest is served first; else
        an output belongs to the newest. reached: whether the old engine may have an input."""
        self.several = shape == "1:n"
        self._within = int(within * 1e6)
        self._nth = nth
        self._reached = reached
        self._waiting: OrderedDict[int, Slot] = OrderedDict()  # for a time
        self._lasting: OrderedDict[int, Slot] = OrderedDict()  # until it comes
        self._by_key: dict[Key, list[Slot]] = {}
        self._known: OrderedDict[int, Slot] = OrderedDict()
        self._known_by_key: dict[Key, list[Slot]] = {}
        self._lags: deque[float] = deque(maxlen=LAGS)
        self._last: OrderedDict[bytes, int] = OrderedDict()  # patient -> the highest number whose output came

    def expect(self, input: Input, since: int | None = None) -> Slot:
        """An output must come. since: from when on its time counts, the input's own unless given."""
        self.forget(input.seq)
        slot = Slot(input, True, (input.at if since is None else since) + self._within)
        self._waiting[input.seq] = slot
        insort(self._by_key.setdefault(input.key, []), slot, key=_number)
        return slot

    def await_any(self, input: Input, most: int, granted: bool = False) -> Slot:
        """An output may come, whenever. most: how many such inputs are kept; the oldest is forgotten."""
        self.forget(input.seq)
        slot = self._lasting[input.seq] = Slot(input, False, 0, granted)
        insort(self._by_key.setdefault(input.key, []), slot, key=_number)
        while len(self._lasting) > most:
            self.forget(next(iter(self._lasting)))
        return slot

    def unmissed(self) -> list[Slot]:
        """Those that wait and are not missed, oldest first."""
        return list(self._lasting.values())

    def sent(self, seq: int, now: int) -> None:
        """The old engine gets an input now: its time counts from here."""
        slot = self.slot(seq)
        if slot is None or slot.outputs:
            return
        slot.sent = now
        if seq in self._waiting:
            slot.due = now + self._within
            self._waiting.move_to_end(seq)

    def attribute(self, raw: bytes, key: Key, at: int, control_id: str | None) -> Slot | None:
        """The input that an output belongs to, which is then served; None where there is none. The first output of a
        slot has `outputs` = 1 afterwards."""
        slot = self._find(raw, key, at, control_id)
        if slot is not None:
            self._take(slot, raw, at)
        return slot

    def give(self, seq: int, raw: bytes, at: int) -> None:
        """A person says that an output belongs to an input."""
        if slot := self.slot(seq):
            self._take(slot, raw, at)

    def remember(self, input: Input, missed: bool = False, expected: bool = True) -> None:
        """An input whose output came before this process began, or was missed: what comes late, or again, finds it."""
        slot = self.expect(input)
        slot.expected, slot.missed, slot.outputs = expected, missed, 0 if missed else 1
        self._leave(slot)
        input.lighten()

    def restore(self, seq: int) -> None:
        """The output of an input that waits came before this process began."""
        if slot := self._waiting.get(seq):
            slot.outputs = 1
            self._leave(slot)
            self._has_its_own(slot.input)

    def came(self, seq: int) -> None:
        """Before this process began, the output of an input did; told in the order in which they came."""
        if slot := self.slot(seq):
            self._in_order(slot)

    def slot(self, seq: int) -> Slot | None:
        return self._waiting.get(seq) or self._lasting.get(seq) or self._known.get(seq)

    def expired(self, now: int, sent: Callable[[int], bool] = lambda seq: True) -> list[Slot]:
        """Those whose time is over. They wait no longer, and stay known: what comes late still finds them.

        sent: whether the old engine has an input; the time of one that it has not begins anew.
        """
        over: list[Slot] = []
        unsent: list[Slot] = []
        for slot in self._waiting.values():
            if slot.due > now:
                break
            (over if sent(slot.input.seq) else unsent).append(slot)
        for slot in unsent:
            slot.due, slot.sent = now + self._within, 0
            self._waiting.move_to_end(slot.input.seq)
        for slot in over:
            self._leave(slot)
            slot.input.lighten()
        self._prune(now)
        return over

    def give_up(self, seq: int) -> Slot | None:
        """Nothing will come for it."""
        slot = self._waiting.get(seq) or self._lasting.get(seq)
        if slot is not None:
            self._leave(slot)
            slot.expected, slot.given_up = False, True
        return slot

    def forget(self, seq: int) -> None:
        if slot := self._waiting.pop(seq, None) or self._lasting.pop(seq, None):
            _take_out(self._by_key, slot)
        if slot := self._known.pop(seq, None):
            _take_out(self._known_by_key, slot)

    def lag(self) -> float | None:
        """Seconds that nearly all recent outputs took after their inputs (the 95th percentile); None without data."""
        if len(self._lags) < FEWEST_LAGS:
            return None
        return quantiles(self._lags, n=20)[-1]

    # -- finding

    def _find(self, raw: bytes, key: Key, at: int, control_id: str | None) -> Slot | None:
        every = [slot for slot in self._by_key.get(key, ())[:SEARCHED] if slot.input.at <= at]
        waiting = [slot for slot in every if self._reached(slot.input)] if self.several else every
        known = self._known_by_key.get(key, [])
        if known:
            mark = hash(body(raw))
            again = next((slot for slot in reversed(known) if slot.is_known(mark)), None)
            if again is not None:  # the same once more, unless an equal input waits for it
                return next((slot for slot in waiting if slot.input.body == again.input.body), again)
        late = [slot for slot in known if not slot.outputs and (slot.expected or slot.granted)]
        served = [slot for slot in known[-SERVED:] if slot.outputs]
        if self.several and (slot := self._one_of_several(waiting, late, served, raw)):
            return slot
        if candidates := every + late:
            return self._best(candidates, served, raw)
        return self._nearly(raw, at, control_id) or (known[-1] if known else None)

    def _best(self, slots: list[Slot], served: list[Slot], raw: bytes) -> Slot:
        """The first in the order of keys, unless another one, or one that has its output, is clearly more like it."""
        chosen = slots[0] if self._nth else slots[-1]
        if len(slots) + len(served) == 1:
            return chosen
        mark = sketch(raw)
        chosen = _clearly(chosen, slots, mark)
        return _clearly(chosen, served, mark)

    def _one_of_several(self, waiting: list[Slot], late: list[Slot], served: list[Slot], raw: bytes) -> Slot | None:
        """Of the inputs with an output's key, the one that it belongs to where each may have several: the next after
        the newest that has an output, else that one; unless another is clearly more like it."""
        newest = max(served, key=_number, default=None)
        since = newest.input.seq if newest else 0
        after = [slot for slot in waiting if slot.input.seq > since] or [s for s in late if s.input.seq > since]
        chosen = (after[0] if self._nth else after[-1]) if after else newest
        if chosen is None or len(waiting) + len(late) + len(served) == 1:
            return chosen
        mark = sketch(raw)
        return _clearly(_clearly(chosen, waiting + late, mark), served, mark)

    def _nearly(self, raw: bytes, at: int, control_id: str | None) -> Slot | None:
        """The input without an output that has the same control id, or is nearly the same and nothing else is."""
        newest = self._newest(at)
        if same := next((slot for slot in newest if control_id and slot.input.control_id == control_id), None):
            return same
        mark = sketch(raw)
        ranked = sorted(((likeness(slot.input.sketch(), mark), slot) for slot in newest), key=lambda row: -row[0])
        if not ranked or ranked[0][0] < NEARLY_THE_SAME:
            return None
        doubtful = len(ranked) > 1 and ranked[1][0] > ranked[0][0] - CLEARLY_NEARER
        return None if doubtful else ranked[0][1]

    def _newest(self, at: int) -> list[Slot]:
        every = chain(reversed(self._waiting.values()), reversed(self._lasting.values()))
        return list(islice((slot for slot in every if slot.input.at <= at), SEARCHED))

    # -- what comes of it

    def _take(self, slot: Slot, raw: bytes, at: int) -> None:
        slot.add(hash(body(raw)), self.several)
        if slot.outputs == 1:
            self._serve(slot, at)

    def _serve(self, slot: Slot, at: int) -> None:
        input = slot.input
        if input.seq in self._waiting or input.seq in self._lasting:
            if not slot.expected:  # it had no time of its own: it is known for as long as any other
                slot.due = at + self._within
            self._leave(slot)
            self._has_its_own(input)
            if slot.sent:
                self._lags.append(max(0, at - slot.sent) / 1e6)
        self._in_order(slot)

    def _has_its_own(self, input: Input) -> None:
        """What an input was like need not be known any longer, unless further outputs of it may come."""
        if not self.several:
            input.served()

    def _in_order(self, slot: Slot) -> None:
        """Whether the output of a later input of the same patient came before."""
        input = slot.input
        if not input.patient:
            return
        last = self._last.get(input.patient, 0)
        slot.overtaken = input.seq < last
        self._last[input.patient] = max(last, input.seq)
        self._last.move_to_end(input.patient)
        if len(self._last) > PATIENTS:
            self._last.popitem(last=False)

    def _leave(self, slot: Slot) -> None:
        """From the waiting to the known."""
        (self._waiting if slot.input.seq in self._waiting else self._lasting).pop(slot.input.seq)
        _take_out(self._by_key, slot)
        self._known[slot.input.seq] = slot
        self._known_by_key.setdefault(slot.input.key, []).append(slot)
        while len(self._known) > KNOWN:
            self.forget(next(iter(self._known)))

    def _prune(self, now: int) -> None:
        while self._known:
            seq, slot = next(iter(self._known.items()))
            if slot.due + (KNOWN_FOR - 1) * self._within > now:
                return
            self.forget(seq)


def _number(slot: Slot) -> int:
    """After a restart inputs are not always told in the order of their numbers."""
    return slot.input.seq


def _take_out(table: dict[Key, list[Slot]], slot: Slot) -> None:
    slots = table[slot.input.key]
    slots.remove(slot)
    if not slots:
        del table[slot.input.key]


def _clearly(chosen: Slot, slots: list[Slot], mark: Sketch) -> Slot:
    """Whichever is clearly nearer to an output than the one that was chosen; that one, where none is."""
    own = chosen.input.sketch()
    if not own or not slots or slots == [chosen]:
        return chosen
    sketches = ((slot.input.sketch(), slot) for slot in slots)
    known = [(apart(like, mark), slot) for like, slot in sketches if like]  # what nobody remembers is like nothing
    if not known:
        return chosen
    distance, nearest = min(known, key=lambda row: row[0])
    return nearest if apart(own, mark) - distance >= CLEARLY else chosen

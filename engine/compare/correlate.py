"""Which input an output of the old engine belongs to. In memory, no I/O, no clock: times come in as values.

An output belongs to an input with its key, that came before it and has none yet: the oldest, unless another one that
waits is more like it, so that one lost output does not move all later ones. Where no key fits, since a fault may have
hit the key itself, it belongs to the input that is nearly the same; and else to nobody.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Iterable
from statistics import quantiles
from typing import Final

from engine.compare.keys import Key, Sketch, body, likeness, sketch

KNOWN: Final = 1000  # inputs remembered after their output came, or their time was over
KNOWN_FOR: Final = 3  # times `within`
CLEARLY: Final = 0.03  # by how much another one must be more like the output than the oldest
NEARLY_THE_SAME: Final = (
    0.93  # likeness from which a key that does not fit is forgiven; two orders of one patient: 0.92
)
SEARCHED: Final = 100  # inputs that are looked at
LAGS: Final = 200  # pairs by which the lag is measured
FEWEST_LAGS: Final = 5
PATIENTS: Final = 2000  # whose last output is remembered


class Input:
    """An input that an output may come for. One object serves all taps of a channel.

    at: when it came, or was sent again (microseconds). raw: its bytes while they are held; then only their sketch.
    taps: how many still wait for an output of it.
    """

    __slots__ = ("_sketch", "at", "body", "control_id", "id", "key", "patient", "raw", "seq", "taps")

    def __init__(
        self, seq: int, id: int, at: int, key: Key, patient: bytes, control_id: str | None, raw: bytes, taps: int = 1
    ) -> None:
        self.seq = seq
        self.id = id
        self.at = at
        self.key = key
        self.patient = patient
        self.control_id = control_id
        self.raw: bytes | None = raw
        self.body = hash(body(raw))
        self.taps = taps
        self._sketch: Sketch | None = None

    def lighten(self) -> None:
        """Let go of the bytes: it may have to wait for long."""
        self.sketch()
        self.raw = None

    def served(self) -> None:
        """One tap has its output. After the last, nobody asks any more what it was like."""
        self.taps -= 1
        if self.taps <= 0:
            self.raw = self._sketch = None

    def sketch(self) -> Sketch:
        """What is left of it for a comparison; nothing, once it is served."""
        if self._sketch is None and self.raw is not None:
            self._sketch = sketch(self.raw)
        return self._sketch or frozenset()


class Slot:
    """An input at one tap.

    expected: an output must come, and is missed. due: from when on (microseconds). outputs: how many came. body: of
    the first of them. overtaken: the output of a later input of the same patient came before. missed: the verdict was
    that none came. unanswered: the last output got no answer, so that the old engine will repeat it. prompt: the old
    engine got it at once, so that its lag says something.
    """

    __slots__ = ("body", "due", "expected", "input", "missed", "outputs", "overtaken", "prompt", "unanswered")

    def __init__(self, input: Input, expected: bool, due: int) -> None:
        self.input = input
        self.expected = expected
        self.due = due
        self.outputs = 0
        self.body: int | None = None
        self.overtaken = False
        self.missed = False
        self.unanswered = False
        self.prompt = True


class Correlator:
    """The pairing at one tap."""

    def __init__(self, within: float, nth: bool = True) -> None:
        """within: seconds that an output may take. nth: of several inputs of one key the oldest is served first; else
        an output belongs to the newest."""
        self._within = int(within * 1e6)
        self._nth = nth
        self._waiting: OrderedDict[int, Slot] = OrderedDict()
        self._by_key: dict[Key, list[Slot]] = {}
        self._known: OrderedDict[int, Slot] = OrderedDict()
        self._known_by_key: dict[Key, list[Slot]] = {}
        self._lags: deque[float] = deque(maxlen=LAGS)
        self._last: OrderedDict[bytes, int] = OrderedDict()  # patient -> the highest number whose output came

    def expect(self, input: Input, expected: bool = True, since: int | None = None) -> Slot:
        """An input was stored, or is sent again. since: from when on its time counts, its own unless given."""
        self.forget(input.seq)
        slot = Slot(input, expected, (input.at if since is None else since) + self._within)
        self._waiting[input.seq] = slot
        self._by_key.setdefault(input.key, []).append(slot)
        return slot

    def attribute(self, raw: bytes, key: Key, at: int, control_id: str | None) -> Slot | None:
        """The input that an output belongs to, which is then served; None where there is none. The first output of a
        slot has `outputs` = 1 afterwards."""
        slot = self._find(raw, key, at, control_id)
        if slot is None:
            return None
        slot.outputs += 1
        if slot.outputs == 1:
            slot.body = hash(body(raw))
            self._serve(slot, at)
        return slot

    def remember(self, input: Input, missed: bool = False) -> None:
        """An input whose output came before this process began, or was missed: what comes late, or again, finds it."""
        slot = self.expect(input)
        slot.missed, slot.outputs = missed, 0 if missed else 1
        self._leave(slot)
        input.lighten()

    def restore(self, seq: int) -> None:
        """The output of an input that waits came before this process began."""
        if slot := self._waiting.get(seq):
            slot.outputs = 1
            self._leave(slot)
            slot.input.served()

    def slot(self, seq: int) -> Slot | None:
        return self._waiting.get(seq) or self._known.get(seq)

    def expired(self, now: int, sent: Callable[[int], bool] = lambda seq: True) -> list[Slot]:
        """Those whose time is over. They wait no longer, and stay known: what comes late still finds them.

        sent: whether the old engine has an input; the time of one that it has not begins anew.
        """
        over: list[Slot] = []
        unsent: list[Slot] = []
        for slot in self._waiting.values():
            if slot.due > now:
                break
            (over if not slot.expected or sent(slot.input.seq) else unsent).append(slot)
        for slot in unsent:
            slot.due, slot.prompt = now + self._within, False
            self._waiting.move_to_end(slot.input.seq)
        for slot in over:
            self._leave(slot)
            slot.input.lighten()
        self._prune(now)
        return over

    def give_up(self, seq: int) -> Slot | None:
        """Nothing will come for it."""
        slot = self._waiting.get(seq)
        if slot is not None:
            self._leave(slot)
            slot.expected = False
        return slot

    def forget(self, seq: int) -> None:
        if slot := self._waiting.pop(seq, None):
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
        waiting = [slot for slot in self._by_key.get(key, ())[:SEARCHED] if slot.input.at <= at]
        known = self._known_by_key.get(key, [])
        if known:
            mark = hash(body(raw))
            again = next((slot for slot in reversed(known) if slot.outputs and slot.body == mark), None)
            if again is not None:  # the same once more, unless an equal input waits for it
                return next((slot for slot in waiting if slot.input.body == again.input.body), again)
        late = [slot for slot in known if slot.expected and not slot.outputs]
        if candidates := waiting + late:
            return self._best(candidates, raw)
        return self._nearly(raw, at, control_id) or (known[-1] if known else None)

    def _best(self, slots: list[Slot], raw: bytes) -> Slot:
        """The first in the order of keys, unless another one is clearly more like it."""
        first = slots[0] if self._nth else slots[-1]
        if len(slots) == 1:
            return first
        mark = sketch(raw)
        best = max(slots, key=lambda slot: likeness(slot.input.sketch(), mark))
        clear = likeness(first.input.sketch(), mark) + CLEARLY
        return best if likeness(best.input.sketch(), mark) > clear else first

    def _nearly(self, raw: bytes, at: int, control_id: str | None) -> Slot | None:
        """The input without an output that has the same control id, or is nearly the same and nothing else is."""
        newest = _newest(self._waiting.values(), at)
        if same := next((slot for slot in newest if control_id and slot.input.control_id == control_id), None):
            return same
        mark = sketch(raw)
        ranked = sorted(((likeness(slot.input.sketch(), mark), slot) for slot in newest), key=lambda row: -row[0])
        if not ranked or ranked[0][0] < NEARLY_THE_SAME:
            return None
        doubtful = len(ranked) > 1 and ranked[1][0] > ranked[0][0] - CLEARLY
        return None if doubtful else ranked[0][1]

    # -- what comes of it

    def _serve(self, slot: Slot, at: int) -> None:
        input = slot.input
        if input.seq in self._waiting:
            self._leave(slot)
            input.served()
            if slot.prompt:
                self._lags.append((at - input.at) / 1e6)
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
        del self._waiting[slot.input.seq]
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


def _take_out(table: dict[Key, list[Slot]], slot: Slot) -> None:
    slots = table[slot.input.key]
    slots.remove(slot)
    if not slots:
        del table[slot.input.key]


def _newest(slots: Iterable[Slot], at: int) -> list[Slot]:
    causal = [slot for slot in slots if slot.input.at <= at]
    return causal[: -SEARCHED - 1 : -1]

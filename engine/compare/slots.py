"""Inputs as a tap's pairing knows them: what each was like, and what has come of it. No I/O, no clock."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Final

from engine.compare.copies import Copy
from engine.compare.keys import Key, Sketch, body, sketch

MOST_FURTHER: Final = 50  # further outputs of one input that are known again


class Input:
    """An input that an output may come for. One object serves all taps of a channel.

    at: when it came (microseconds). raw: its bytes while they are held; then only their sketch.
    taps: how many still wait for an output of it. 0: nobody needs to know what it was like once its bytes are let go.
    copies: where else a feed put its frame.
    """

    __slots__ = ("_sketch", "at", "body", "control_id", "copies", "id", "key", "patient", "raw", "seq", "taps")

    def __init__(
        self,
        seq: int,
        id: int,
        at: int,
        key: Key,
        patient: bytes,
        control_id: str | None,
        raw: bytes,
        taps: int = 1,
        copies: Sequence[Copy] = (),
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
        self.copies = copies
        self._sketch: array[int] | None = None

    def lighten(self) -> None:
        """Let go of the bytes: it may have to wait for long."""
        if self.raw is not None and self.taps > 0:
            self._sketch = array("q", sketch(self.raw))
        self.raw = None

    def served(self) -> None:
        """One tap has its output. After the last, what it was like is known as long as its bytes are held."""
        self.taps -= 1
        if self.taps <= 0:
            self._sketch = None

    def sketch(self) -> Sketch:
        """What is left of it for a comparison; nothing, where nobody needed it."""
        if self._sketch is not None:
            return frozenset(self._sketch)
        return sketch(self.raw) if self.raw is not None else frozenset()


class Slot:
    """An input at one tap.

    expected: an output must come, and is missed. due: from when on (microseconds). granted: a rollback has given it
    back to the old engine. sent: when the old engine got it, as far as that is known (microseconds; 0: it is not).
    outputs: how many came. body: of the first of them. further: of the others where an input may have several, and
    whether each is recorded. overtaken: the output of a later input of the same patient came before. missed: the
    verdict was that none came. silent: it was that neither side made one. given_up: the old engine said no.
    unanswered: the last output got no answer, so that the old engine will repeat it.
    """

    __slots__ = (
        "body", "due", "expected", "further", "given_up", "granted", "input", "missed", "outputs", "overtaken", "sent",
        "silent", "unanswered",
    )  # fmt: skip

    def __init__(self, input: Input, expected: bool, due: int, granted: bool = False) -> None:
        self.input = input
        self.expected = expected
        self.due = due
        self.granted = granted
        self.sent = 0 if granted else input.at
        self.outputs = 0
        self.body: int | None = None
        self.further: dict[int, bool] | None = None
        self.overtaken = False
        self.missed = False
        self.silent = False
        self.given_up = False
        self.unanswered = False

    def add(self, mark: int, several: bool) -> None:
        """Another output of it came; `mark` is of its body."""
        self.outputs += 1
        if self.outputs == 1:
            self.body = mark
        elif several and mark != self.body:
            self.further = self.further or {}
            self.further.setdefault(mark, False)
            if len(self.further) > MOST_FURTHER:
                del self.further[next(iter(self.further))]

    def recorded(self, mark: int) -> bool:
        """Whether a further output with that body has been recorded before; from now on it has."""
        if self.further is None:
            return False
        before = self.further.get(mark, False)
        self.further[mark] = True
        return before

    def is_known(self, mark: int) -> bool:
        """Whether an output with that body came before."""
        return self.outputs > 0 and (mark == self.body or (self.further is not None and mark in self.further))

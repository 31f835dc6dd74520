"""Which output of the old engine stands beside which of ours, where an input has several on one side or both. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from engine.compare.keys import Key, body


@dataclass(frozen=True, slots=True)
class Paired:
    """Outputs of one input, by their places among all of that side. both: (the old engine's, ours)."""

    both: tuple[tuple[int, int], ...]
    legacy: tuple[int, ...]
    target: tuple[int, ...]


def pair(legacy: Sequence[bytes], target: Sequence[bytes], key: Callable[[bytes], Key]) -> Paired:
    """Those that say the same belong together, then those of one key, then what is left; each in the order in which
    they were made."""
    if len(legacy) == len(target) == 1:
        return Paired(((0, 0),), (), ())
    theirs, ours = list(range(len(legacy))), list(range(len(target)))
    both = []
    for like in (body, key, _anything):
        marks = {at: like(legacy[at]) for at in theirs}
        for at in list(ours):
            mark = like(target[at])
            if (other := next((one for one in theirs if marks[one] == mark), None)) is not None:
                both.append((other, at))
                theirs.remove(other)
                ours.remove(at)
    return Paired(tuple(sorted(both)), tuple(theirs), tuple(ours))


def _anything(raw: bytes) -> bytes:
    return b""

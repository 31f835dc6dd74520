"""How much is left of a time that was agreed on: of a run, of a hold.

Its end is durable, and a moment of the wall clock: over a restart nothing else counts. Within a process the time that
passes is the machine's own. The rest is taken from the wall clock once, when the process first hears of it, and is
never more than the whole; after that the wall clock may be set, forward or back, and nothing ends early or late.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable

from engine.migration.gate.words import SECOND


class Deadlines:
    """Those of one process."""

    def __init__(self, now: Callable[[], int], tick: Callable[[], float]) -> None:
        """now: the wall clock, in microseconds since 1970. tick: seconds of a clock that nobody sets."""
        self._now = now
        self._tick = tick
        self._ends: dict[Hashable, tuple[int, float]] = {}

    def left(self, what: Hashable, began: int, until: int) -> float:
        """Seconds that are left; below 0: how long it is over. began, until: microseconds since 1970; a new `until` is
        a new deadline."""
        known = self._ends.get(what)
        if known is None or known[0] != until:
            rest = min(until - self._now(), until - began) / SECOND
            known = self._ends[what] = until, self._tick() + rest
        return known[1] - self._tick()

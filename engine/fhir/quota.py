"""Medplum's FHIR quota: points a minute, told in every answer's RateLimit header; obeyed before the server refuses.

    RateLimit: "requests";r=59990;t=60, "fhirInteractions";r=49800;t=42

`r` is what is left, `t` the seconds until the window starts anew. There is no Retry-After.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable

from engine.fhir.failure import Trouble
from engine.ledger.outcome import Result

READ, HISTORY, SEARCH, WRITE = 1, 10, 20, 100
DEFAULT_WAIT_S = 1.0  # for a 429 that does not say how long

_POLICY = re.compile(r'"?(\w+)"?\s*;\s*r=(\d+)\s*;\s*t=(\d+)')
_INTERACTIONS = re.compile(r'\bfhirInteractions"?\s*;\s*r=(\d+)\s*;\s*t=(\d+)')  # the one that matters in every answer


def parse(header: str) -> dict[str, tuple[int, int]]:
    """Policy → (left, seconds until reset). What can't be read is left out."""
    return {name: (int(left), int(seconds)) for name, left, seconds in _POLICY.findall(header)}


class Quota:
    """What is known of the quota of one client. Points that are reserved count as used until their answer is here."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._left: int | None = None
        self._reset_at = 0.0
        self._reserved = 0
        self._blocked_until = 0.0

    @property
    def left(self) -> int | None:
        """Points left in this window; None where the server told none, or the window is over."""
        return self._left if self._left is not None and self._clock() < self._reset_at else None

    def reserve(self, points: int) -> None:
        """Take points for what is about to be sent; give them back by `release` when it is over.

        Raises Trouble(NOT_TAKEN) with the seconds until the window ends when they are not there. A message that
        needs more than a whole window holds goes at the start of one, when what is left is not known yet.
        """
        now = self._clock()
        if now < self._blocked_until:
            raise _spent(self._blocked_until - now)
        left = self.left
        if left is not None and self._reserved + points > left:
            raise _spent(self._reset_at - now)
        self._reserved += points

    def release(self, points: int) -> None:
        self._reserved = max(0, self._reserved - points)

    def heard(self, header: str | None, status: int) -> float | None:
        """Learn from an answer's header. Returns the seconds to wait when it was a refusal (429), else None."""
        now = self._clock()
        told = _INTERACTIONS.search(header) if header else None
        if told is not None:
            self._left, self._reset_at = int(told[1]), now + int(told[2])
        if status != 429:
            return None
        spent = [seconds for left, seconds in parse(header or "").values() if left == 0]
        wait = float(max(spent)) if spent else DEFAULT_WAIT_S
        self._blocked_until = max(self._blocked_until, now + wait)
        return wait


def _spent(seconds: float) -> Trouble:
    return Trouble(Result.NOT_TAKEN, "quota of this minute is spent", after=max(0.0, seconds))

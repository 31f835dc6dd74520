"""An endpoint's breaker: when the endpoint itself is in trouble, its courses stop claiming, and one message at a
time asks whether it is back.

    CLOSED --- trouble, MOST_TROUBLES in a row, or a fault ---> OPEN
    OPEN   --- the wait is over, one part is sent -----------> PROBING
    PROBING -- it got through -------------------------------> CLOSED, and all that waited goes on
    PROBING -- it did not -----------------------------------> OPEN, for longer
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from enum import Enum

from engine.ledger.outcome import Outcome, Result
from engine.observe.delivery_events import BreakerClosed, BreakerOpened
from engine.observe.events import emit

MOST_TROUBLES = 3
FIRST_WAIT = 0.5  # seconds
LONGEST_WAIT = 10.0


class Position(Enum):
    """Whether the endpoint is used."""

    CLOSED = "closed"  # everything goes through
    OPEN = "open"  # nothing goes through
    PROBING = "probing"  # one part is on its way to ask


class Breaker:
    """One endpoint's breaker. `on_change` hears True when it opens and False when it closes."""

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint
        self.position = Position.CLOSED
        self.reason = ""
        self.listeners: list[Callable[[bool], None]] = []
        self._troubles = 0
        self._wait = FIRST_WAIT
        self.coming = 0  # parts that failed and will ask to be tried again
        self._queue: deque[Callable[[], bool]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._resting = False

    @property
    def open(self) -> bool:
        return self.position is not Position.CLOSED

    def heard(self, outcome: Outcome) -> None:
        """Take an attempt's outcome into account."""
        if outcome.result is Result.FAULT or outcome.trouble:
            self._trouble(outcome)
        else:  # whatever it said of the message, the endpoint is there
            self._troubles = 0
            if self.position is Position.PROBING:
                self._close()

    def enqueue(self, attempt: Callable[[], bool]) -> None:
        """Have `attempt` called when the endpoint is to be asked again. It says whether it really began something."""
        self._queue.append(attempt)

    def trial_gone(self) -> None:
        """The part that was to ask no longer exists: another one asks."""
        if self.position is Position.PROBING:
            self._probe()

    def rest(self, reason: str) -> None:
        """Use the endpoint no more until `rise`, and do not ask it either: it may not be used now."""
        if self._resting:
            return
        self._resting = True
        self.stop()
        was_open, self.position, self.reason = self.open, Position.OPEN, reason
        if not was_open:
            self._opened()

    def rise(self) -> None:
        """It may be used again."""
        if self._resting:
            self._resting = False
            self._close()

    def stop(self) -> None:
        if self._timer:
            self._timer.cancel()

    def _trouble(self, outcome: Outcome) -> None:
        self._troubles += 1
        if self._resting:
            return
        if self.position is Position.CLOSED:
            if outcome.result is not Result.FAULT and self._troubles < MOST_TROUBLES and outcome.after is None:
                return
            self.reason = outcome.reason
            self._opened()
        elif self.position is Position.PROBING:
            self._wait = min(LONGEST_WAIT, self._wait * 2)
        else:
            return  # something that was still on its way when it opened
        self.position = Position.OPEN
        self._ask_in(max(self._wait, outcome.after or 0.0))

    def _opened(self) -> None:
        emit(BreakerOpened(endpoint=self.endpoint, reason=self.reason))
        for listener in self.listeners:
            listener(True)

    def _ask_in(self, seconds: float) -> None:
        self.stop()
        self._timer = asyncio.get_running_loop().call_later(seconds, self._probe)

    def _probe(self) -> None:
        self.position = Position.PROBING
        while self._queue:
            if self._queue.popleft()():
                return
        if self.coming:  # somebody will
            self.position = Position.OPEN
            self._ask_in(FIRST_WAIT)
            return
        self._close()  # nobody waits: the next message asks
        self._troubles = MOST_TROUBLES - 1

    def _close(self) -> None:
        self.stop()
        self.position = Position.CLOSED
        self._wait = FIRST_WAIT
        emit(BreakerClosed(endpoint=self.endpoint))
        for listener in self.listeners:
            listener(False)
        waiting, self._queue = self._queue, deque()
        for attempt in waiting:
            attempt()

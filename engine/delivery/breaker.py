"""An endpoint's breaker: when the endpoint itself is in trouble, its courses stop claiming, and one message at a
time asks whether it is back.

    CLOSED --- trouble, MOST_TROUBLES in a row, or a fault ---> OPEN
    OPEN   --- the wait is over, one part is sent -----------> PROBING
    PROBING -- it got through -------------------------------> CLOSED, and all that waited goes on
    PROBING -- it did not -----------------------------------> OPEN, for longer

Outside the endpoint's delivery hours it *rests*: OPEN as well, and nobody asks. That is planned and no trouble.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from datetime import datetime
from enum import Enum

from engine.ledger.outcome import Outcome, Result
from engine.observe.delivery_events import BreakerClosed, BreakerOpened, HoursBegun, HoursOver
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
    """One endpoint's breaker. `listeners` hear True when it opens and False when it closes. `reason`: of its being
    open. `rests_until`: when the endpoint's hours begin, while it rests."""

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint
        self.position = Position.CLOSED
        self.reason = ""
        self.rests_until: datetime | None = None
        self.listeners: list[Callable[[bool], None]] = []
        self._troubles = 0
        self._wait = FIRST_WAIT
        self.hasteners: list[Callable[[], None]] = []  # have tried now what waits for its time
        self.coming = 0  # parts that failed and will ask to be tried again
        self._queue: deque[Callable[[], bool]] = deque()
        self._timer: asyncio.TimerHandle | None = None

    @property
    def open(self) -> bool:
        return self.position is not Position.CLOSED

    @property
    def asks_in(self) -> float | None:
        """Seconds until the endpoint is asked again; None where it is closed, rests, or is being asked."""
        if self.position is not Position.OPEN or self.rests_until is not None or self._timer is None:
            return None
        return max(0.0, self._timer.when() - asyncio.get_running_loop().time())

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

    def here(self) -> None:
        """The endpoint has just shown itself: nothing need wait for its time."""
        for hasten in tuple(self.hasteners):
            hasten()
        if self.position is Position.OPEN and self.rests_until is None:
            self.stop()
            self._probe()

    def rest(self, until: datetime) -> None:
        """Use the endpoint no more until `rise`, and do not ask it either: it may not be used now."""
        if self.rests_until is not None:
            return
        self.stop()
        self.position, self.rests_until = Position.OPEN, until
        self.reason = f"closed until {until:%a %H:%M %Z}"
        emit(HoursOver(endpoint=self.endpoint, until=until.isoformat(timespec="minutes")))
        self._tell(opened=True)  # also where it was open: what was to ask does not

    def rise(self) -> None:
        """It may be used again."""
        if self.rests_until is not None:
            self.rests_until = None
            self._troubles = 0
            emit(HoursBegun(endpoint=self.endpoint))
            self._go_on()

    def stop(self) -> None:
        if self._timer:
            self._timer.cancel()

    def _trouble(self, outcome: Outcome) -> None:
        self._troubles += 1
        if self.rests_until is not None:
            return
        if self.position is Position.CLOSED:
            if outcome.result is not Result.FAULT and self._troubles < MOST_TROUBLES and outcome.after is None:
                return
            self.reason = outcome.reason
            emit(BreakerOpened(endpoint=self.endpoint, reason=self.reason))
            self.position = Position.OPEN
            self._tell(opened=True)
        elif self.position is Position.PROBING:
            self._wait = min(LONGEST_WAIT, self._wait * 2)
        else:
            return  # something that was still on its way when it opened
        self.position = Position.OPEN
        self._ask_in(max(self._wait, outcome.after or 0.0))

    def _tell(self, *, opened: bool) -> None:
        for listener in self.listeners:
            listener(opened)

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
        emit(BreakerClosed(endpoint=self.endpoint))
        self._go_on()

    def _go_on(self) -> None:
        self.stop()
        self.position = Position.CLOSED
        self._wait = FIRST_WAIT
        self._tell(opened=False)
        waiting, self._queue = self._queue, deque()
        for attempt in waiting:
            attempt()

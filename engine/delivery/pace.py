"""How many messages an endpoint gets in a second: one pace for all that we send to it, on whatever connections."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable


class Pace:
    """One endpoint's."""

    def __init__(self, rate: float = 0.0) -> None:
        """`rate`: messages a second, 0 for as many as it takes."""
        self._gap = 1.0 / rate if rate else 0.0
        self._next = 0.0  # when the next message may go, in seconds of the event loop's clock
        self._asking: deque[Callable[[], None]] = deque()
        self._timer: asyncio.TimerHandle | None = None

    @property
    def limited(self) -> bool:
        return self._gap > 0

    @property
    def due(self) -> bool:
        """Whether a message may go now."""
        return not self._gap or asyncio.get_running_loop().time() >= self._next

    def take(self) -> bool:
        """Send a message now. False where none may go yet."""
        if not self._gap:  # as nearly always
            return True
        if not self.due:
            return False
        self._next = asyncio.get_running_loop().time() + self._gap
        return True

    def tell(self, asking: Callable[[], None]) -> None:
        """Have it called once, when a message may go; of several who ask, the first one first."""
        if asking not in self._asking:
            self._asking.append(asking)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_at(self._next, self._go_on)

    def stop(self) -> None:
        self._asking.clear()
        if self._timer is not None:
            self._timer.cancel()

    def _go_on(self) -> None:
        self._timer = None
        while self._asking and self.due:  # who does not use it leaves it to the next
            self._asking.popleft()()
        if self._asking:
            self.tell(self._asking[0])

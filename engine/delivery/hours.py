"""When an endpoint may be sent to. Outside its hours its breaker rests, so that nothing is claimed for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from engine.config.edge import Hours
from engine.delivery.breaker import Breaker

LOOK_EVERY = 5.0  # seconds
DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
RESTING = "outside its delivery hours"


def inside(hours: Hours, at: int) -> bool:
    """Whether a moment (microseconds since 1970) lies within. An end that is not after the start is the next day's."""
    local = datetime.fromtimestamp(at / 1e6, UTC).astimezone(ZoneInfo(hours.zone))
    time, over = local.strftime("%H:%M"), hours.end <= hours.start
    if hours.start <= time and (over or time < hours.end):
        return _on(hours, local)
    return over and time < hours.end and _on(hours, local - timedelta(days=1))


def _on(hours: Hours, day: datetime) -> bool:
    return not hours.days or DAYS[day.weekday()] in hours.days


class Schedule:
    """Lets a breaker rest outside the hours, and rise within them."""

    def __init__(self, breaker: Breaker, hours: Hours, now: Callable[[], int]) -> None:
        """`now`: microseconds since 1970."""
        self._breaker = breaker
        self._hours = hours
        self._now = now
        self._timer: asyncio.TimerHandle | None = None

    def look(self) -> None:
        """Now, and from now on by itself."""
        if inside(self._hours, self._now()):
            self._breaker.rise()
        else:
            self._breaker.rest(RESTING)
        self._timer = asyncio.get_running_loop().call_later(LOOK_EVERY, self.look)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

"""When an endpoint may be sent to. Outside its hours its breaker rests, so that nothing is claimed for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, time, timedelta
from zoneinfo import ZoneInfo

from engine.config.edge import Hours
from engine.delivery.breaker import Breaker

LOOK_EVERY = 5.0  # seconds; a minute is a multiple of it
DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
A_WEEK = 8  # days within which hours begin again, whatever the day


def inside(hours: Hours, at: int) -> bool:
    """Whether a moment (microseconds since 1970) lies within. An end that is not after the start is the next day's."""
    local = datetime.fromtimestamp(at / 1e6, UTC).astimezone(ZoneInfo(hours.zone))
    clock, over = local.strftime("%H:%M"), hours.end <= hours.start
    if hours.start <= clock and (over or clock < hours.end):
        return _on(hours, local)
    return over and clock < hours.end and _on(hours, local - timedelta(days=1))


def begins(hours: Hours, after: int) -> datetime:
    """When the hours begin next after a moment (microseconds since 1970), in their zone. Where a clock is put forward
    over that time, the moment at which it would have been."""
    zone = ZoneInfo(hours.zone)
    now = datetime.fromtimestamp(after / 1e6, zone)
    start_of_day = time.fromisoformat(hours.start)
    for days in range(A_WEEK + 1):
        start = datetime.combine(now.date() + timedelta(days=days), start_of_day, zone)
        if start.timestamp() > now.timestamp() and _on(hours, start):
            return start.astimezone(UTC).astimezone(zone)  # a time that the clock shows
    raise AssertionError("hours without a day")


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
        """Now, and from now on by itself: also as each minute begins, as hours do."""
        now = self._now()
        if inside(self._hours, now):
            self._breaker.rise()
        else:
            self._breaker.rest(begins(self._hours, now))
        self._timer = asyncio.get_running_loop().call_later(LOOK_EVERY - now / 1e6 % LOOK_EVERY, self.look)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

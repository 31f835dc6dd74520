"""When a window is open. Pure: by the clock on the wall in the channel's time zone.

A window belongs to the day on which it opens, also where it passes midnight, and is open without a break. Where the
clock goes forward, a time that it skips counts as the moment of the change; where it goes back, a window opens when
the clock shows its start for the first time, and closes when it shows its end for the last.
Instants are microseconds since 1970.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

from engine.config.model import Window
from engine.migration.gate.words import SECOND

WEEKDAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
DAY_MINUTES = 24 * 60
HORIZON = 16  # days: a weekly window may fall into the hour that the clock skips


def inside(window: Window, zone: str, at: int) -> bool:
    """Whether the window is open at this instant. It closes at its end, not after it."""
    return any(opening <= at < closing for opening, closing in _stretches(window, zone, at, 1))


def next_opening(window: Window, zone: str, at: int) -> int | None:
    """When it opens next; `at` itself while it is open. None where it never does within `HORIZON` days."""
    openings = (opening for opening, closing in _stretches(window, zone, at, HORIZON) if closing > at)
    first = next(openings, None)
    return None if first is None else max(first, at)


def next_closing(window: Window, zone: str, at: int) -> int | None:
    """When it closes, or closes next; None where it never does within `HORIZON` days."""
    found: int | None = None
    for opening, closing in _stretches(window, zone, at, HORIZON):
        if found is not None and opening > found:
            return found
        if closing > at:
            found = closing
    return None if found is None or inside(window, zone, found) else found


def clock(zone: str, at: int) -> str:
    """`Sat 01 Mar 01:00 CST`, as people of the place say it."""
    return _local(zone, at).strftime("%a %d %b %H:%M %Z")


def _local(zone: str, at: int) -> datetime:
    return datetime.fromtimestamp(at // SECOND, UTC).astimezone(ZoneInfo(zone))


def _minutes(text: str) -> int:
    hours, minutes = text.split(":")
    return int(hours) * 60 + int(minutes)


def _opens_on(window: Window, day: date) -> bool:
    return not window.days or WEEKDAYS[day.weekday()] in window.days


def _stretches(window: Window, zone: str, at: int, days: int) -> Iterator[tuple[int, int]]:
    """(opening, closing) of the days from the one before `at` to `days` after it, in order."""
    start, end = _minutes(window.start), _minutes(window.end)
    first = _local(zone, at).date()
    for number in range(-1, days + 1):
        day = first + timedelta(days=number)
        if _opens_on(window, day):
            opening = _shown(zone, day, start)[0]
            closing = _shown(zone, day, end if start < end else end + DAY_MINUTES)[1]
            if opening < closing:
                yield opening, closing


def _shown(zone: str, day: date, minute: int) -> tuple[int, int]:
    """The first and the last instant at which the clock shows this minute of the day, or passes over it."""
    tz = ZoneInfo(zone)
    wall = datetime.combine(day + timedelta(days=minute // DAY_MINUTES), time(minute // 60 % 24, minute % 60))
    first, last = (wall.replace(tzinfo=tz, fold=fold).astimezone(UTC) for fold in (0, 1))
    if last < first:  # passed over: the change lies between the two
        first = last = _change(tz, last, first)
    return _micros(first), _micros(last)


def _change(tz: ZoneInfo, before: datetime, after: datetime) -> datetime:
    """The first instant with the offset of `after`, to the second."""
    offset = after.astimezone(tz).utcoffset()
    while after - before > timedelta(seconds=1):
        middle = (before + (after - before) / 2).replace(microsecond=0)
        before, after = (before, middle) if middle.astimezone(tz).utcoffset() == offset else (middle, after)
    return after


def _micros(moment: datetime) -> int:
    return int(moment.timestamp()) * SECOND

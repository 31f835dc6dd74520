"""How the gate writes numbers, moments and spans of time in its sentences."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime

SECOND = 1_000_000  # in microseconds
MINUTE, HOUR, DAY = 60.0, 3600.0, 86400.0  # in seconds


def span(seconds: float) -> str:
    """`40 s`, `12 min`, `5 h`, `3 d`: one unit, as people say it."""
    seconds = max(0.0, seconds)
    if seconds < 2 * MINUTE:
        return f"{seconds:.0f} s"
    if seconds < 2 * HOUR:
        return f"{seconds / MINUTE:.0f} min"
    return f"{seconds / HOUR:.0f} h" if seconds < 2 * DAY else f"{seconds / DAY:.0f} d"


def iso(microseconds: int) -> str:
    """A moment since 1970 as the API and the audit record write it: UTC, with milliseconds and a Z."""
    moment = datetime.fromtimestamp(microseconds / 1e6, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def count(number: int, what: str) -> str:
    """`1 message`, `1,204 messages`."""
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"


def listed(parts: Iterable[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    *first, last = [*parts] or [""]
    return f"{', '.join(first)} and {last}" if first else last

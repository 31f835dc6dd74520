"""Moments: now, and as the API writes them."""

from __future__ import annotations

import time
from datetime import UTC, datetime


def now_us() -> int:
    """Microseconds since 1970."""
    return time.time_ns() // 1000


def iso(microseconds: int) -> str:
    """A moment as the API writes it: UTC, with milliseconds and a Z."""
    moment = datetime.fromtimestamp(microseconds / 1e6, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")

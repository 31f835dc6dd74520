"""Moments: now, and as the API writes them."""

from __future__ import annotations

import time

from engine.migration.gate.words import iso

__all__ = ["iso", "now_us"]


def now_us() -> int:
    """Microseconds since 1970."""
    return time.time_ns() // 1000

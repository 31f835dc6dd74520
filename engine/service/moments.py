"""Moments as the API writes them."""

from __future__ import annotations

from datetime import UTC, datetime


def iso(microseconds: int) -> str:
    """A moment as the API writes it: UTC, with milliseconds and a Z."""
    moment = datetime.fromtimestamp(microseconds / 1e6, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")

"""Durations, sizes and rates as people write them: `30s`, `10m`, `32MiB`, `10/s`. Pure."""

from __future__ import annotations

import re

SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
BYTES = {"B": 1, "KB": 1000, "MB": 1000**2, "GB": 1000**3, "KiB": 1024, "MiB": 1024**2, "GiB": 1024**3}

_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?(ms|s|m|h|d)")
_RATE = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?/ ?(s|m)")
_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?(B|KB|MB|GB|KiB|MiB|GiB)")


def duration(text: str) -> float | None:
    """Seconds, or None where the text is no duration. A unit is required: a bare 30 says nothing."""
    match = _DURATION.fullmatch(text)
    return float(match[1]) * SECONDS[match[2]] if match else None


def size(text: str) -> int | None:
    """Bytes, or None where the text is no size."""
    match = _SIZE.fullmatch(text)
    return int(float(match[1]) * BYTES[match[2]]) if match else None


def rate(text: str) -> float | None:
    """Messages a second, or None where the text is no rate or is zero: nothing would ever be sent."""
    match = _RATE.fullmatch(text)
    return (float(match[1]) / SECONDS[match[2]] or None) if match else None

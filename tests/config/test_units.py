from __future__ import annotations

import pytest

from engine.config.units import duration, size


@pytest.mark.parametrize(
    ("text", "seconds"), [("250ms", 0.25), ("30s", 30), ("1.5m", 90), ("72h", 259200), ("2 d", 172800)]
)
def test_a_duration_is_a_number_and_a_unit(text: str, seconds: float) -> None:
    assert duration(text) == seconds


@pytest.mark.parametrize("text", ["30", "s", "-5s", "1h30m", "5 min", ""])
def test_anything_else_is_no_duration(text: str) -> None:
    assert duration(text) is None


@pytest.mark.parametrize(("text", "count"), [("512B", 512), ("1KB", 1000), ("1KiB", 1024), ("32MiB", 33554432)])
def test_a_size_is_a_number_and_a_unit(text: str, count: int) -> None:
    assert size(text) == count


@pytest.mark.parametrize("text", ["32", "32M", "MiB", "-1KB", "32mib"])
def test_anything_else_is_no_size(text: str) -> None:
    assert size(text) is None

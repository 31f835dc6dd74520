"""What lies in a folder."""

from __future__ import annotations

from pathlib import Path


def names(path: Path) -> list[str]:
    """Everything in it, hidden or not, in alphabetical order."""
    return sorted(each.name for each in path.iterdir())

"""Where the mappings are that come with the product."""

from __future__ import annotations

from pathlib import Path

import engine


def shipped_mappings() -> Path:
    """The folder of the shipped mappings: beside `engine/` in a checkout, inside the package in an installed wheel."""
    package = Path(engine.__file__).resolve().parent
    checkout = package.parent / "mappings"
    return checkout if checkout.is_dir() and (package.parent / "pyproject.toml").is_file() else package / "mappings"

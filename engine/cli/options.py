"""Options that several verbs share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from engine.cli.console import usage

Config = Annotated[
    Path, typer.Option("--config", help="The settings file.", metavar="FILE", envvar="INTERLOCK_CONFIG", dir_okay=False)
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]

SETTINGS_FILE = Path("interlock.yaml")


def settings_of(config: Path) -> Path:
    """The settings file, which is there. Stops where nobody has one under this name."""
    if not config.exists():
        here = " here" if config.parent == Path() else ""
        usage(f"there is no {config}{here}; give --config FILE")
    return config

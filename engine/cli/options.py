"""Options that several verbs share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Config = Annotated[
    Path, typer.Option("--config", help="The settings file.", metavar="FILE", envvar="INTERLOCK_CONFIG", dir_okay=False)
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]

SETTINGS_FILE = Path("interlock.yaml")

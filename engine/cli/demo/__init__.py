"""`interlock demo`: a migration from its first message to its last count, simulated on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def demo(
    connections: Annotated[int, typer.Option(help="How many connections of two channels.", min=2, max=400)] = 250,
    minutes: Annotated[float, typer.Option(help="About how long it takes, after the start.", min=0.5, max=120)] = 4.0,
    rate: Annotated[float, typer.Option(help="Orders a second, of all clinics together.", min=0.1, max=2000)] = 20.0,
    keep: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="An empty folder for configuration, ledger, logs and journals, which stay."),
    ] = None,
    medplum: Annotated[bool, typer.Option(help="Start a Medplum sandbox, where Node is installed.")] = True,
    seed: Annotated[int, typer.Option(help="Another number, another world.")] = 1,
) -> None:
    """Migrate simulated connections and count what reaches their endpoints.

    Vendors, an old engine with faults of its own, a laboratory, clinics and a Medplum sandbox are simulated; the
    service between them is the real one, and is told what to do through its API, as an operator would.
    """
    from engine.cli.demo.stage import Wanted, run

    raise typer.Exit(run(Wanted(connections, minutes, rate, keep, medplum, seed)))

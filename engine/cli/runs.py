"""runs: what is on its way, and what was."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from engine.cli.console import REFUSED, WIDTH, Stop, out, out_json, second, table, wrapped
from engine.cli.options import SETTINGS_FILE, Config, Json


def runs(
    id: Annotated[int | None, typer.Argument(metavar="ID", help="Only this one.", min=1, show_default=False)] = None,
    active: Annotated[bool, typer.Option("--active", help="Only those that have not ended.")] = False,
    follow: Annotated[bool, typer.Option("--follow", help="Stay until they have ended.")] = False,
    config: Config = SETTINGS_FILE,
    json: Json = False,
) -> None:
    """List the runs that verbs began, newest first."""
    from engine.cli.following import status_of, watch

    rows = _asked(config, id, active)
    going = [run for run in rows if run["state"] == "running"]
    if follow and going:
        ended = {run["id"]: run for run in watch(config, going, quiet=json)}
        rows = [ended.get(run["id"], run) for run in rows]
        going = list(ended.values())
    if json:
        out_json(rows if id is None else rows[0])
    elif id is not None:
        out("\n".join(told(rows[0])))
    elif not follow:
        out(listed(rows) if rows else "no runs")
    if status_of(going):
        raise typer.Exit(REFUSED)


def _asked(config: Any, id: int | None, active: bool) -> list[dict[str, Any]]:
    from engine.cli.service_client import Missing, ask

    if id is None:
        rows: list[dict[str, Any]] = ask(config, "/api/v1/runs?active=true" if active else "/api/v1/runs")
        return rows
    try:
        return [ask(config, f"/api/v1/runs/{id}")]
    except Missing:
        raise Stop(f"there is no run {id}; see `interlock runs`") from None


def listed(rows: list[dict[str, Any]]) -> str:
    head = ["RUN", "VERB", "CONNECTION", "STATE", "STARTED", "WHAT"]
    lines = [
        [
            str(run["id"]),
            run["verb"],
            run["connection"],
            run["state"],
            second(run["started"]),
            run["said"] or run["step"],
        ]
        for run in rows
    ]
    return table(head, lines, right=("RUN",), width=WIDTH)


def told(run: dict[str, Any]) -> list[str]:
    """One run, with who wanted it and why."""
    lines = [
        f"run {run['id']}: {run['verb']} of {run['connection']}, {run['state']}",
        *wrapped(f"channels  {', '.join(run['channels'])}", indent=" " * 10),
        *wrapped(f"who       {run['who']}", indent=" " * 10),
        *wrapped(f"why       {run['why']}", indent=" " * 10),
        f"started   {second(run['started'])}",
    ]
    if run["ended"]:
        lines.append(f"ended     {second(run['ended'])}")
    elif run["deadline"]:
        lines.append(f"deadline  {second(run['deadline'])}")
    return lines + wrapped(f"{run['step'].ljust(9)} {run['said']}", indent=" " * 10)

"""reconcile: is everything that came in accounted for, and does the other side count the same messages?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from engine.cli.console import REFUSED, USAGE, WIDTH, Stop, many, out, out_json, printable, table, wrapped
from engine.cli.options import SETTINGS_FILE, Config, Json
from engine.cli.selecting import Connections, Everything, Ids, Labels, or_everything, selector

RECONCILE_S = 600.0
"""Everything is counted again from the rows."""
KINDS = ("missing", "extra", "doubled")


def reconcile(
    ids: Ids = None,
    connections: Connections = None,
    labels: Labels = None,
    everything: Everything = False,
    manifest: Annotated[
        Path | None, typer.Option(metavar="FILE", help="CSV: the control ids that the other side counts.")
    ] = None,
    config: Config = SETTINGS_FILE,
    json: Json = False,
) -> None:
    """Count both sides, name each item; status 1 unless clean."""
    from engine.cli.service_client import ask

    chosen = or_everything(selector(ids, connections, labels, everything))
    question = {"selector": chosen, "manifest": None if manifest is None else _items(manifest)}
    report: dict[str, Any] = ask(config, "/api/v1/reconcile", question, RECONCILE_S)
    if json:
        out_json(report)
    else:
        for line in told(report):
            out(line)
    if not report["clean"]:
        raise typer.Exit(REFUSED)


def _items(file: Path) -> list[dict[str, str | None]]:
    """The list as the API wants it; what is wrong with the file is told here, with its lines."""
    from engine.migration.manifest import ManifestError, read_manifest

    try:
        items = read_manifest(file.read_bytes(), str(file))
    except OSError as error:
        raise Stop(f"{file} cannot be read: {error.strerror}", USAGE) from None
    except ManifestError as error:
        raise Stop(f"the list cannot be used:\n{error}", USAGE) from None
    return [{"control_id": control_id, "channel": channel} for control_id, channel in items]


def told(report: dict[str, Any]) -> list[str]:
    lines = [line for sentence in report["summary"] for line in wrapped(sentence, indent="  ")]
    items = [(kind, item) for kind in KINDS for item in report[kind]]
    if items:
        lines += ["", *_named(items).splitlines()]
    if report["problems"]:
        lines += ["", *(line for problem in report["problems"] for line in wrapped(problem, indent="  "))]
    return [*lines, "", _verdict(report, len(items))]


def _named(items: list[tuple[str, dict[str, Any]]]) -> str:
    """A line for each item."""
    rows = []
    for kind, item in items:
        place = item["channel"] or "-"
        where = place if item["seq"] is None else f"{place}/{item['seq']}"
        rows.append([kind.upper(), where, printable(item["control_id"] or "-"), item["said"]])
    return table(["ITEM", "MESSAGE", "CONTROL ID", "WHAT"], rows, width=WIDTH)


def _verdict(report: dict[str, Any], items: int) -> str:
    if report["clean"]:
        return "clean: everything is accounted for"
    found = [many(items, "item")] if items else []
    found += [many(len(report["problems"]), "problem")] if report["problems"] else []
    return f"NOT clean: {' and '.join(found)}"

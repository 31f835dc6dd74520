"""audit: what was done, by whom and why, and whether the record of it is whole."""

from __future__ import annotations

import re
from typing import Annotated, Any

import typer

from engine.cli.console import REFUSED, WIDTH, many, minute, out, out_json, second, table, wrapped
from engine.cli.listing import command_group
from engine.cli.options import SETTINGS_FILE, Config, Json

VERIFY_S = 120.0
"""Every row is read and hashed."""

MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?Z")

audit = command_group("Show what was done, and check that the record is whole.")


@audit.command("list")
def listing(
    limit: Annotated[int, typer.Option(help="At most so many.", min=1, max=1000)] = 20,
    before: Annotated[int | None, typer.Option(help="Only rows with a lower number.", min=1)] = None,
    config: Config = SETTINGS_FILE,
    json: Json = False,
) -> None:
    """List what was done, newest first."""
    from engine.cli.service_client import ask

    query = f"?limit={limit}" + (f"&before={before}" if before else "")
    rows: list[dict[str, Any]] = ask(config, f"/api/v1/audit{query}")
    if json:
        return out_json(rows)
    return out(listed(rows) if rows else "nothing was done yet")


def listed(rows: list[dict[str, Any]]) -> str:
    head = ["ROW", "AT", "WHO", "VERB", "SUBJECT", "WHAT AND WHY"]
    lines = [[str(row["id"]), second(row["at"]), row["who"], row["verb"], row["subject"], what(row)] for row in rows]
    return table(head, lines, right=("ROW",), width=WIDTH)


def what(row: dict[str, Any]) -> str:
    """`parallel → live from 813: window of 12 May`. What is more than a few words stands in the JSON."""
    before, after = (MOMENT.sub(lambda found: minute(found[0]), _short(text)) for text in (row["before"], row["after"]))
    change = f"{before} → {after}" if before and after else f"from {before}" if before else after
    return ": ".join(text for text in (change, row["why"]) if text)


def _short(text: str) -> str:
    """A phase that begins is kept as JSON, and said as `live from 813`."""
    if not text or text[0] not in "{[":
        return text
    import orjson

    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        return ""
    if not isinstance(value, dict) or "phase" not in value:
        return ""
    return f"{value['phase']} from {value['from']}" if "from" in value else str(value["phase"])


@audit.command("verify")
def verify(config: Config = SETTINGS_FILE, json: Json = False) -> None:
    """Check that no row was edited, removed or cut off."""
    from engine.cli.service_client import ask

    found: dict[str, Any] = ask(config, "/api/v1/audit/verify", timeout=VERIFY_S)
    if json:
        out_json(found)
    else:
        for line in told(found):
            out(line)
    if not found["ok"]:
        raise typer.Exit(REFUSED)


def told(found: dict[str, Any]) -> list[str]:
    if found["ok"]:
        return [f"the audit record is whole: {many(found['rows'], 'row')}, head {found['head']}"]
    lines = [line for text in found["problems"] for line in wrapped(text, indent="  ")]
    return [*lines, f"the audit record is NOT whole: {many(len(found['problems']), 'problem')} in {found['rows']} rows"]

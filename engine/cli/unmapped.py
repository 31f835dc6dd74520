"""unmapped: codes that no table knew, who takes care of them, and the fields whose values went nowhere.

interlock unmapped acme-results --state open
interlock unmapped set acme-results WBC --table LabTests --owner lab@acme --state asked --note "which of two counts?"
interlock unmapped export acme-results --table LabTests | tail -n +2 >> site/tables/acme-tests.csv
interlock unmapped fields
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from engine.cli.console import USAGE, Stop, many, out, out_json, since, table, usage
from engine.cli.listing import command_group
from engine.cli.options import SETTINGS_FILE, Config, Json, settings_of
from engine.cli.selecting import Connections, Everything, Ids, Labels, needed, selector, who

STATES = ("open", "asked", "mapped", "as-is")
TO_BE_MAPPED = ("open", "asked")
"""States of codes that a table is still to get."""
MOST = 10_000
COLUMNS = ("code", "system", "display", "target_system", "target_code", "target_display", "count")

Table = Annotated[str, typer.Option("--table", metavar="TABLE", help="The table that does not know it.")]
OfTable = Annotated[str | None, typer.Option("--table", metavar="TABLE", help="Only what this table did not know.")]
State = Annotated[str | None, typer.Option("--state", metavar="STATE", help=f"{', '.join(STATES[:-1])} or as-is.")]

unmapped = command_group("List codes that no table knew; decide about them.")


@unmapped.command("list")
def listing(
    ids: Ids = None,
    connections: Connections = None,
    labels: Labels = None,
    everything: Everything = False,
    of_table: OfTable = None,
    state: State = None,
    owner: Annotated[str | None, typer.Option(metavar="NAME", help="Only of whom this one takes care.")] = None,
    limit: Annotated[int, typer.Option(help="At most so many.", min=1, max=MOST)] = 200,
    config: Config = SETTINGS_FILE,
    json: Json = False,
) -> None:
    """List the codes, those seen most often first."""
    from engine.cli.service_client import ask

    given = {"table": of_table, "state": _state(state), "owner": owner}
    question = _question(ids, connections, labels, everything) | {"limit": limit}
    question |= {name: text for name, text in given.items() if text is not None}
    found: dict[str, Any] = ask(config, "/api/v1/unmapped", question)
    if json:
        return out_json(found)
    if not found["codes"] and not found["more"]:
        return out("no such codes" if any(given.values()) else "no table has missed a code")
    if found["codes"]:
        out(listed(found["codes"]))
    for line in also(found):
        out(line)
    return None


def listed(rows: list[dict[str, Any]]) -> str:
    head = [
        "COUNT",
        "CHANNEL",
        "TABLE",
        "FIELD",
        "SYSTEM",
        "CODE",
        "FIRST",
        "LAST",
        "MESSAGE",
        "STATE",
        "OWNER",
        "NOTE",
    ]
    lines = [
        [
            str(row["count"]), row["channel"], row["table"], row["field"], row["system"], row["code"],
            since(row["first"]), since(row["last"]), f"{row['channel']}/{row['last_seq']}", row["state"], row["owner"],
            row["note"],
        ]
        for row in rows
    ]  # fmt: skip
    empty = [
        at for at, name in enumerate(head) if name in ("SYSTEM", "OWNER", "NOTE") and not any(r[at] for r in lines)
    ]
    head, *lines = ([cell for at, cell in enumerate(line) if at not in empty] for line in (head, *lines))
    return table(head, lines, right=("COUNT", "FIRST", "LAST"))


def also(found: dict[str, Any]) -> list[str]:
    """What is not listed, a line each."""
    left = found["total"] - len(found["codes"])
    lines = [f"and {many(left, 'code')} more: see --limit, --table and --state"] if left else []
    for row in found["more"]:
        lines.append(
            f"{row['channel']}: and more: {many(row['count'], 'time')} codes for which there is no room, last in"
            f" {row['channel']}/{row['last_seq']}: does a coded field hold free text?"
        )
    return lines


@unmapped.command("set")
def decide(
    *,
    ids: Ids = None,
    code: Annotated[str, typer.Argument(metavar="CODE", help="The code, as it is listed.")],
    of_table: Table,
    connections: Connections = None,
    labels: Labels = None,
    everything: Everything = False,
    system: Annotated[
        str | None, typer.Option(metavar="SYSTEM", help="Only of this system; '' for none. Of all unless given.")
    ] = None,
    owner: Annotated[str | None, typer.Option(metavar="NAME", help="Who takes care of it.")] = None,
    state: State = None,
    note: Annotated[str | None, typer.Option(metavar="TEXT", help="What there is to say about it.")] = None,
    config: Config = SETTINGS_FILE,
    json: Json = False,
) -> None:
    """Say who takes care of a code, and how it stands."""
    from engine.cli.service_client import ask

    given = {"system": system, "owner": owner, "state": _state(state), "note": note}
    if state is None and owner is None and note is None:
        usage("say something of it: --state, --owner or --note")
    order = {"selector": needed(selector(ids, connections, labels, everything)), "code": code, "table": of_table}
    order |= {"who": who()} | {name: text for name, text in given.items() if text is not None}
    rows: list[dict[str, Any]] = ask(config, "/api/v1/unmapped/set", order)
    return out_json(rows) if json else out(listed(rows))


@unmapped.command("export")
def export(
    channel: Annotated[str, typer.Argument(metavar="CHANNEL", help="The channel's id.")],
    of_table: Table,
    config: Config = SETTINGS_FILE,
) -> None:
    """Print open codes as lines of the table's CSV file, to be added there and filled in."""
    from engine.cli.service_client import ask

    columns, delimiter = _form(config, of_table)
    question = {"selector": {"ids": [channel]}, "table": of_table, "limit": MOST}
    found: dict[str, Any] = ask(config, "/api/v1/unmapped", question)
    for line in exported((row for row in found["codes"] if row["state"] in TO_BE_MAPPED), columns, delimiter):
        out(line)


def _form(config: Path, name: str) -> tuple[Sequence[str], str]:
    """The columns of a table's file, and what stands between them; those of a new one where it has no file."""
    from engine.cli.files import right
    from engine.cli.mappings import site_of
    from engine.config.shipped import shipped_mappings
    from engine.mapping.maker import read
    from engine.mapping.problems import guess

    folders = [folder for folder in (shipped_mappings(), site_of(settings_of(config))) if folder is not None]
    files, problems = read(folders)
    found = files.tables.get(name)
    if found is None or (found.form is not None and not found.form[0]):
        right(problems.check)  # it, or its file, may be one that could not be read
        raise Stop(f"there is no table {name}; expected {guess(name, files.tables, 'table')}", USAGE)
    return found.form or (COLUMNS, ",")


def exported(rows: Iterable[dict[str, Any]], columns: Sequence[str] = COLUMNS, delimiter: str = ",") -> list[str]:
    """Lines of CSV: each code of a system once, most often seen first. What was cut is no code, and is left out."""
    from engine.ledger.gaps import was_cut

    counts: dict[tuple[str, str], int] = {}
    for row in rows:
        if not was_cut(row["code"]) and not was_cut(row["system"]):
            key = (row["code"], row["system"])
            counts[key] = counts.get(key, 0) + row["count"]
    ordered = sorted(counts.items(), key=lambda each: (-each[1], each[0]))
    cells = [{"code": code, "system": system, "count": str(n)} for (code, system), n in ordered]
    lines = [columns, *([each.get(column, "") for column in columns] for each in cells)]
    return [_csv(line, delimiter) for line in lines]


def _csv(cells: Sequence[str], delimiter: str) -> str:
    import csv
    import io

    line = io.StringIO()
    csv.writer(line, delimiter=delimiter, lineterminator="").writerow(cells)
    return line.getvalue()


@unmapped.command("fields")
def fields(
    ids: Ids = None,
    connections: Connections = None,
    labels: Labels = None,
    everything: Everything = False,
    config: Config = SETTINGS_FILE,
    json: Json = False,
) -> None:
    """List the fields whose values are in no resource, with counts."""
    from engine.cli.service_client import ask

    rows: list[dict[str, Any]] = ask(config, "/api/v1/unmapped/fields", _question(ids, connections, labels, everything))
    if json:
        return out_json(rows)
    if not rows:
        return out("no value is known to have gone nowhere")
    lines = [
        [str(row["count"]), row["channel"], row["field"], since(row["last"]), f"{row['channel']}/{row['last_seq']}"]
        for row in rows
    ]
    return out(table(["VALUES", "CHANNEL", "FIELD", "LAST", "MESSAGE"], lines, right=("VALUES", "LAST")))


def _question(
    ids: list[str] | None, connections: list[str] | None, labels: list[str] | None, everything: bool
) -> dict[str, Any]:
    chosen = selector(ids, connections, labels, everything)
    return {"selector": chosen} if any(chosen.values()) else {}


def _state(state: str | None) -> str | None:
    if state is not None and state not in STATES:
        usage(f"--state {state}: wanted is one of {', '.join(STATES)}")
    return state

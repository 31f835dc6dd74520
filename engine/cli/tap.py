"""tap: outputs of the old engine that a tap has kept for a person, and what is done about them.

interlock tap
interlock tap show 14
interlock tap forward 14 --reason "the clinic has no result of this order"
interlock tap give 14 acme-results/812 --reason "the filler number was changed by hand"
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Annotated, Any

import typer

from engine.cli.console import (
    REFUSED,
    Stop,
    at_terminal,
    bytes_shown,
    clock,
    out,
    out_bytes,
    out_json,
    printable,
    second,
    since,
    table,
    wrapped,
)
from engine.cli.listing import command_group
from engine.cli.messages import segments
from engine.cli.options import SETTINGS_FILE, Config, Json
from engine.cli.reading import named
from engine.cli.remedies import ANSWER_S, DryRun, Reason, show_plan
from engine.cli.selecting import Connections, Everything, Ids, Labels, or_everything, reasoned, selector, who

Id = Annotated[int, typer.Argument(metavar="ID", min=1, help="The output's number.")]

tap = command_group("List, show and settle what taps keep for a person.")


@tap.command("list")
def listing(
    ids: Ids = None,
    connections: Connections = None,
    labels: Labels = None,
    everything: Everything = False,
    config: Config = SETTINGS_FILE,
    json: Json = False,
) -> None:
    """List the outputs that wait for a person, oldest first."""
    from engine.cli.service_client import ask

    chosen = selector(ids, connections, labels, everything)
    question = {"selector": or_everything(chosen)} if any(chosen.values()) and not everything else {}
    rows: list[dict[str, Any]] = ask(config, "/api/v1/tap-outputs", question)
    if json:
        return out_json(rows)
    return out(listed(rows) if rows else "nothing waits for a person at a tap")


def listed(rows: list[dict[str, Any]]) -> str:
    head = ["ID", "CHANNEL", "TAP", "CAME", "AGE", "TYPE", "CONTROL ID", "SIZE", "INPUT", "STATE"]
    lines = [
        [
            str(row["id"]),
            row["channel"],
            row["tap"],
            second(row["at"]),
            since(row["at"]),
            row["type"] or "-",
            row["control_id"] or "-",
            bytes_shown(row["size"]),
            "-" if row["seq"] is None else str(row["seq"]),
            row["state"],
        ]
        for row in rows
    ]
    return table(head, lines, right=("ID", "AGE", "SIZE", "INPUT"))


@tap.command("show")
def show(
    id: Id,
    raw: Annotated[
        bool, typer.Option("--raw", help="Segments as they came; in a pipe or file, only its bytes.")
    ] = False,
    config: Config = SETTINGS_FILE,
    json: Json = False,
) -> None:
    """Show one by its HL7 names, and what was done about it."""
    from engine.cli.service_client import ask

    found: dict[str, Any] = _of(id, lambda: ask(config, f"/api/v1/tap-outputs/{id}"))
    content = base64.b64decode(found["raw"])
    if json:
        return out_json(found)
    if raw and not at_terminal():
        return out_bytes(content)
    return out("\n".join([*told(found), "", *(segments(content) if raw else named(content))]))


def told(found: dict[str, Any]) -> list[str]:
    lines = [
        f"output {found['id']} of the old engine at tap {found['tap']} of {found['channel']}  {found['type']}  "
        f"control id {printable(found['control_id'] or '-')}",
        f"came     {clock(found['at'])}, {bytes_shown(found['size'])}",
        f"kept     {found['why']}",
        f"input    {'not known' if found['seq'] is None else '{channel}/{seq}'.format(**found)}",
        f"state    {found['state']}" + (", waits for a person" if found["waits"] else ""),
    ]
    if found["who"]:
        lines += wrapped(f"by       {found['who']}, {clock(found['decided'])}: {found['reason']}", indent=" " * 9)
    if found["said"]:
        lines.append(f"said     {printable(found['said'])}")
    if found["answer"]:
        lines += [f"         {text}" for text in segments(base64.b64decode(found["answer"]))]
    return lines


@tap.command("forward")
def forward(
    id: Id,
    reason: Reason = "",
    again: Annotated[bool, typer.Option("--again", help="Although it may have been taken already.")] = False,
    dry_run: DryRun = False,
    config: Config = SETTINGS_FILE,
    json: Json = False,
) -> None:
    """Send one to its endpoint, once."""
    _decide(config, "forward", id, {"again": again}, reason, dry_run, json)


@tap.command("give")
def give(
    id: Id,
    message: Annotated[str, typer.Argument(metavar="CHANNEL/SEQ", help="The input that it belongs to.")],
    reason: Reason = "",
    dry_run: DryRun = False,
    config: Config = SETTINGS_FILE,
    json: Json = False,
) -> None:
    """Say which input one belongs to; it is compared as such."""
    _decide(config, "give", id, {"message": message}, reason, dry_run, json)


@tap.command("discard")
def discard(
    id: Id,
    reason: Reason = "",
    dry_run: DryRun = False,
    config: Config = SETTINGS_FILE,
    json: Json = False,
) -> None:
    """Close one without sending it."""
    _decide(config, "discard", id, {}, reason, dry_run, json)


def _decide(config: Any, verb: str, id: int, order: dict[str, Any], reason: str, dry_run: bool, json: bool) -> None:
    """Ask for the plan, then give the order. Status 1 where the output was sent and not taken."""
    from engine.cli.service_client import ask

    if not dry_run:
        reasoned(reason, "--dry-run to see what would be done")
    order |= {"who": who(), "reason": reason}
    path = f"/api/v1/tap-outputs/{id}/{verb}"
    planned: dict[str, Any] = _of(id, lambda: ask(config, path, order | {"dry_run": True}))
    if not json:
        show_plan(planned["plan"])
    if dry_run:
        if json:
            out_json(planned)
        if planned["plan"]["refused"]:
            raise typer.Exit(REFUSED)
        return
    done: dict[str, Any] = _of(id, lambda: ask(config, path, order, ANSWER_S))
    output = done["output"]
    out_json(done) if json else out(became(verb, output))
    if verb == "forward" and output["waits"]:
        raise typer.Exit(REFUSED)


def became(verb: str, output: dict[str, Any]) -> str:
    """`output 14 is forwarded`, and what is still to be done about it."""
    one = f"output {output['id']}"
    if verb == "give" and output["waits"]:
        return f"{one} belongs to {output['channel']}/{output['seq']}, and waits: forward or discard it"
    if output["state"] == "unknown":
        return f"{one} may have been taken ({output['said']}), and waits: ask its endpoint whether it has it"
    if output["waits"]:
        return f"{one} was not taken ({output['said']}), and waits"
    return f"{one} is {output['state']}"


def _of(id: int, question: Callable[[], Any]) -> Any:
    from engine.cli.service_client import Missing

    try:
        return question()
    except Missing:
        raise Stop(f"no tap has kept an output {id} for a person; see `interlock tap`") from None

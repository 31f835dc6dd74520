"""dead, retry, edit-and-retry, discard, replay: what people do about single messages.

interlock dead
interlock retry acme-results/812 --reason "the EMR knows the patient now"
interlock replay acme-results 812-900 --to medplum --reason "the mapping was mended"
interlock replay acme-results 812-900 --to acme-emr --mapping as-was --reason "the EMR has lost them"
"""

from __future__ import annotations

import base64
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer

from engine.cli.console import Stop, clock, err, many, out, out_json, table, usage, wrapped
from engine.cli.options import SETTINGS_FILE, Config, Json
from engine.cli.selecting import Connections, Everything, Labels, reasoned, searched, selector, who

ANSWER_S = 180.0
"""A replay looks at every message that it is to send."""


class Which(Enum):
    """By which mapping a replay has messages made."""

    AS_IS = "as-is"
    AS_WAS = "as-was"


What = Annotated[
    list[str] | None, typer.Argument(metavar="WHAT", help="CHANNEL/SEQ, or channel ids.", show_default=False)
]
Destination = Annotated[str | None, typer.Option("--at", metavar="DESTINATION", help="Only at this destination.")]
State = Annotated[
    str | None,
    typer.Option("--state", metavar="STATE", help="dead, parked, unknown or retrying; else what wants a person."),
]
Reason = Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why; it goes into the audit record.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and what stands against it.")]
Confirm = Annotated[
    int | None,
    typer.Option("--confirm", metavar="NUMBER", help="How many messages these are; wanted for more than 20."),
]


def dead(
    what: What = None,
    connections: Connections = None,
    labels: Labels = None,
    destination: Destination = None,
    state: State = None,
    config: Config = SETTINGS_FILE,
    json: Json = False,
) -> None:
    """List what is open and waits for a person."""
    from engine.cli.service_client import ask

    rows: list[dict[str, Any]] = ask(
        config, "/api/v1/open-work", _question(what, connections, labels, False, destination, state)
    )
    if json:
        out_json(rows)
    else:
        out(_listed(rows) if rows else "nothing waits for a person" if state is None else f"nothing is {state}")


def _listed(rows: list[dict[str, Any]]) -> str:
    lines = [
        [
            f"{row['channel']}/{row['seq']}",
            row["destination"] + _which(row),
            row["state"],
            clock(row["received"]) if row["received"] else "-",
            str(row["behind"]) if row["behind"] else "-",
            row["why"],
        ]
        for row in rows
    ]
    return table(["MESSAGE", "AT", "STATE", "RECEIVED", "BEHIND IT", "WHY"], lines, right=("BEHIND IT",))


def _which(row: dict[str, Any]) -> str:
    said = [f"part {row['part']} of {row['parts']}"] if row["parts"] > 1 else []
    said += [f"delivery {row['delivery']}"] if row["delivery"] > 1 else []
    return f" ({', '.join(said)})" if said else ""


def retry(
    what: What = None,
    connections: Connections = None,
    labels: Labels = None,
    everything: Everything = False,
    destination: Destination = None,
    state: State = None,
    reason: Reason = "",
    dry_run: DryRun = False,
    confirm: Confirm = None,
    config: Config = SETTINGS_FILE,
    json: Json = False,
) -> None:
    """Try again now what waits for a person."""
    question = _question(what, connections, labels, everything, destination, state)
    _order(config, "/api/v1/open-work/retry", question, reason, dry_run, confirm, json)


def discard(
    what: What = None,
    connections: Connections = None,
    labels: Labels = None,
    everything: Everything = False,
    destination: Destination = None,
    state: State = None,
    reason: Reason = "",
    dry_run: DryRun = False,
    confirm: Confirm = None,
    config: Config = SETTINGS_FILE,
    json: Json = False,
) -> None:
    """Close open messages without sending them."""
    question = _question(what, connections, labels, everything, destination, state)
    _order(config, "/api/v1/open-work/discard", question, reason, dry_run, confirm, json)


def edit_and_retry(
    message: Annotated[str, typer.Argument(metavar="CHANNEL/SEQ", help="Open at the destination.")],
    file: Annotated[Path, typer.Option("--file", metavar="FILE", help="The message as it is to be sent.")],
    destination: Annotated[str, typer.Option("--at", metavar="DESTINATION", help="Where it is sent so.")],
    reason: Reason = "",
    dry_run: DryRun = False,
    config: Config = SETTINGS_FILE,
    json: Json = False,
) -> None:
    """Send an open message with other bytes, in its place."""
    from engine.cli.sending import carriage_returns
    from engine.mapping.read import split_messages

    try:
        content = file.read_bytes()
    except OSError as error:
        raise Stop(f"{file} cannot be read: {error.strerror}") from None
    if (count := len(list(split_messages(content)))) != 1:
        usage(f"{file}: found {many(count, 'message')}; expected one")
    raw = base64.b64encode(carriage_returns(content)).decode()
    order = {"message": message, "destination": destination, "raw": raw}
    _order(config, "/api/v1/open-work/edit", order, reason, dry_run, None, json)


def replay(
    channel: Annotated[str, typer.Argument(metavar="CHANNEL", help="Whose messages.")],
    numbers: Annotated[
        list[str] | None, typer.Argument(metavar="NUMBERS", help="812, or 812-900; or a search.", show_default=False)
    ] = None,
    to: Annotated[str, typer.Option("--to", metavar="DESTINATION", help="Where they go once more.")] = "",
    control_id: Annotated[str | None, typer.Option(help="Those with this control id (MSH-10).")] = None,
    order: Annotated[str | None, typer.Option(help="Those of this order, by placer's or filler's number.")] = None,
    patient: Annotated[str | None, typer.Option(help="Those of this patient or account.")] = None,
    accession: Annotated[str | None, typer.Option(help="Those of this accession or specimen.")] = None,
    type: Annotated[str | None, typer.Option(help="Those of this type: ORU^R01, or ORU.")] = None,
    since: Annotated[str | None, typer.Option(help="Received from then on: 2h, 2026-11-02.", metavar="TIME")] = None,
    until: Annotated[str | None, typer.Option(help="Received before then.", metavar="TIME")] = None,
    mapping: Annotated[
        Which, typer.Option(help="The mapping as it is now, or as it was when each first went there.")
    ] = Which.AS_IS,
    reason: Reason = "",
    dry_run: DryRun = False,
    confirm: Confirm = None,
    config: Config = SETTINGS_FILE,
    json: Json = False,
) -> None:
    """Send settled messages to a destination once more."""
    if not to:
        usage("where to? --to DESTINATION, such as medplum")
    search = searched(since, until, control_id=control_id, order=order, patient=patient, accession=accession, type=type)
    if bool(search) == bool(numbers):
        usage("which messages? numbers such as 812-900, or a search such as --since 2h; one of them")
    wanted: dict[str, Any] = {"channel": channel, "destination": to, "mapping": mapping.value}
    wanted |= {"search": search} if search else {"numbers": numbers}
    _order(config, "/api/v1/replays", wanted, reason, dry_run, confirm, json)


def replays(
    stop: Annotated[int | None, typer.Option("--stop", metavar="ID", help="Begin no more of this one.")] = None,
    reason: Reason = "",
    config: Config = SETTINGS_FILE,
    json: Json = False,
) -> None:
    """List the replays, or stop one."""
    from engine.cli.service_client import ask

    if stop is not None:
        order = {"who": who(), "reason": reasoned(reason)}
        ended: dict[str, Any] = ask(config, f"/api/v1/replays/{stop}/stop", order)
        return out_json(ended) if json else out(f"replay {stop} is stopped: {ended['begun']} of {ended['total']} begun")
    rows: list[dict[str, Any]] = ask(config, "/api/v1/replays")
    if json:
        return out_json(rows)
    lines = [
        [str(row["id"]), row["channel"], row["destination"], row["mapping"], f"{row['begun']} of {row['total']}",
         row["state"], clock(row["at"]), f"{row['who']}: {row['why']}"]
        for row in rows
    ]  # fmt: skip
    head = ["ID", "CHANNEL", "TO", "MAPPING", "BEGUN", "STATE", "SINCE", "WHO AND WHY"]
    return out(table(head, lines) if rows else "no replays")


def _question(
    what: list[str] | None, connections: list[str] | None, labels: list[str] | None, everything: bool,
    destination: str | None, state: str | None,
) -> dict[str, Any]:  # fmt: skip
    messages = [text for text in what or [] if "/" in text]
    ids = [text for text in what or [] if "/" not in text]
    if messages and (ids or connections or labels or everything):
        usage("name messages as CHANNEL/SEQ, or select channels; not both")
    chosen = selector(ids, connections, labels, everything)
    question: dict[str, Any] = (
        {"messages": messages} if messages else {"selector": chosen} if any(chosen.values()) else {}
    )
    return question | ({"destination": destination} if destination else {}) | ({"state": state} if state else {})


def _order(
    config: Any, path: str, order: dict[str, Any], reason: str, dry_run: bool, confirm: int | None, json: bool
) -> None:
    """Ask for the plan, have the number typed where there are many, and give the order."""
    from engine.cli.service_client import ask

    if not dry_run:
        reasoned(reason, "--dry-run to see what would be done")
    order |= {"who": who(), "reason": reason}
    planned: dict[str, Any] = ask(config, path, order | {"dry_run": True}, ANSWER_S)
    plan = planned["plan"]
    if not json:
        show_plan(plan)
    if dry_run:
        if json:
            out_json(planned)
        if plan["refused"]:
            raise typer.Exit(1)
        return None
    if not plan["count"]:
        raise Stop("there is nothing to do: no message is in that state")
    if plan["confirm"] and confirm is None and not json:
        confirm = _typed(plan["count"])
    if confirm is not None:
        order["confirm"] = confirm
    done: dict[str, Any] = ask(config, path, order, ANSWER_S)
    if json:
        return out_json(done)
    replay = done["replay"]
    if replay:
        return out(f"replay {replay['id']} goes on: interlock replays")
    return out(f"done: {many(done['done'], 'message')}")


def show_plan(plan: dict[str, Any]) -> None:
    """A line for each sentence: what would be done, and what stands against it."""
    for text in plan["lines"]:
        for line in wrapped(f"  - {text}", indent="    "):
            out(line)
    for text in plan["refused"]:
        for line in wrapped(f"  ! refused: {text}", indent="    "):
            out(line)


def _typed(count: int) -> int | None:
    """What the person types at a terminal; None where nobody sits there."""
    import sys

    if not sys.stdin.isatty():
        return None
    err(f"these are {count} messages; type the number to go on: ")
    text = sys.stdin.readline().strip()
    return int(text) if text.isdigit() else -1

"""The verbs about messages in the ledger: messages, show."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Annotated, Any
from urllib.parse import quote

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
    table,
    usage,
)
from engine.cli.options import SETTINGS_FILE, Config, Json
from engine.cli.reading import named
from engine.cli.selecting import Connections, Ids, Labels, searched, selector
from engine.observe.fields import connection

SEARCH_S = 60.0
"""What has no search keys yet is read by the search itself."""


def messages(
    ids: Ids = None,
    connections: Connections = None,
    labels: Labels = None,
    config: Config = SETTINGS_FILE,
    channel: Annotated[
        str | None, typer.Option(help="Only this channel, also one no longer configured.", metavar="ID")
    ] = None,
    limit: Annotated[int, typer.Option(help="At most so many.", min=1, max=1000)] = 20,
    before: Annotated[
        str | None, typer.Option(help="Only messages stored before this one.", metavar="CHANNEL/SEQ")
    ] = None,
    control_id: Annotated[str | None, typer.Option(help="Only this control id (MSH-10).")] = None,
    order: Annotated[str | None, typer.Option(help="Only this order, by placer's or filler's number.")] = None,
    patient: Annotated[
        str | None, typer.Option(help="Only this patient or account: 4711, or 4711^^^ACME with its authority.")
    ] = None,
    accession: Annotated[str | None, typer.Option(help="Only this accession or specimen number.")] = None,
    type: Annotated[str | None, typer.Option(help="Only this type: ORU^R01, or ORU.")] = None,
    since: Annotated[
        str | None, typer.Option(help="Received from then on: 2h (ago), 2026-11-02, 2026-11-02T14:15.", metavar="TIME")
    ] = None,
    until: Annotated[str | None, typer.Option(help="Received before then.", metavar="TIME")] = None,
    json: Json = False,
) -> None:
    """List messages and their states, newest first."""
    wanted = searched(since, until, control_id=control_id, order=order, patient=patient, accession=accession, type=type)
    chosen = selector(ids, connections, labels, False)
    wanted |= {"selector": chosen} if any(chosen.values()) else {}
    place = None if before is None else _place(before, channel)
    if wanted or (place and place[0] != channel):
        wanted |= {"before": "/".join(place)} if place else {}
        rows = _search(config, wanted | ({"channel": channel} if channel else {}), limit)
    else:
        rows = _newest(config, channel, limit, place[1] if place else None)
    if json:
        out_json(rows)
    else:
        out(_listed(rows) if rows else "no messages")


def _place(before: str, channel: str | None) -> tuple[str, str]:
    """Channel and number; the number alone counts in `--channel`."""
    name, _, seq = before.rpartition("/")
    name = name or channel or ""
    if not name:
        usage("--before counts within a channel: give --channel too, or CHANNEL/SEQ")
    if not (seq.isascii() and seq.isdigit() and int(seq)):
        usage(f"--before {before}: wanted is CHANNEL/SEQ, such as acme-results/812")
    return name, seq


def _newest(config: Any, channel: str | None, limit: int, before: str | None) -> list[dict[str, Any]]:
    from engine.cli.service_client import ask

    query = f"?limit={limit}"
    query += f"&channel={quote(channel)}" if channel else ""
    query += f"&before={before}" if before else ""
    return _of_channel(channel, lambda: ask(config, f"/api/v1/messages{query}"))


def _search(config: Any, wanted: dict[str, Any], limit: int) -> list[dict[str, Any]]:
    from engine.cli.service_client import ask

    wanted = wanted | {"limit": limit}
    return _of_channel(wanted.get("channel"), lambda: ask(config, "/api/v1/messages/search", wanted, SEARCH_S))


def _of_channel(channel: str | None, question: Callable[[], list[dict[str, Any]]]) -> list[dict[str, Any]]:
    from engine.cli.service_client import Missing

    try:
        return question()
    except Missing:
        raise Missing(f"there is no channel '{channel}'; see `interlock status`") from None


def _listed(rows: list[dict[str, Any]]) -> str:
    head = ["MESSAGE", "RECEIVED", "TYPE", "CONTROL ID", "SIZE", "STATE"]
    lines = [
        [
            f"{row['channel']}/{row['seq']}",
            clock(row["received"]),
            row["type"],
            row["control_id"] or "-",
            bytes_shown(row["size"]),
            ", ".join(f"{name} {state}" for name, state in row["states"].items()) or "-",
        ]
        for row in rows
    ]
    return table(head, lines, right=("SIZE",))


def show(
    what: Annotated[
        list[str], typer.Argument(metavar="MESSAGE", help="CHANNEL/SEQ, or CHANNEL SEQ, or a control id (MSH-10).")
    ],
    raw: Annotated[
        bool, typer.Option("--raw", help="Segments as they came; in a pipe or file, only its bytes.")
    ] = False,
    config: Config = SETTINGS_FILE,
    json: Json = False,
) -> None:
    """Show one message by its HL7 names, and what became of it."""
    found = _found(what, config)
    if isinstance(found, list):
        out_json(found) if json else out(_listed(found))
        raise Stop(f"{len(found)} messages have that control id: show one of them as CHANNEL/SEQ", REFUSED)
    if json:
        out_json(found)
    elif raw and not at_terminal():
        out_bytes(base64.b64decode(found["raw"]))
    else:
        out(_told(found, raw))


def _found(what: list[str], config: Any) -> dict[str, Any] | list[dict[str, Any]]:
    """The message, or the messages where several have the control id."""
    from engine.cli.service_client import Missing

    if len(what) == 2 and what[1].isdigit():
        return _one(config, what[0], int(what[1]))
    if len(what) != 1:
        usage("wanted: interlock show CHANNEL/SEQ, or CHANNEL SEQ, or a control id")
    channel, slash, seq = what[0].rpartition("/")
    if slash and seq.isdigit():
        try:
            return _one(config, channel, int(seq))
        except Missing as missing:
            rows = _search(config, {"control_id": what[0]}, 20)  # a control id may look like that too
            if not rows:
                raise missing
    else:
        rows = _search(config, {"control_id": what[0]}, 20)
    if not rows:
        raise Stop("no message has that control id")
    return _one(config, rows[0]["channel"], rows[0]["seq"]) if len(rows) == 1 else rows


def _one(config: Any, channel: str, seq: int) -> dict[str, Any]:
    from engine.cli.service_client import Missing, ask

    try:
        found: dict[str, Any] = ask(config, f"/api/v1/messages/{quote(channel, safe='')}/{seq}")
    except Missing:
        raise Missing(f"there is no message {channel}/{seq}; see `interlock messages`") from None
    return found


def _told(found: dict[str, Any], raw: bool) -> str:
    on_the_way = any(state in ("waiting", "sending") for state in found["states"].values())
    answered = found["acknowledged"] or (
        "not yet" if on_the_way else "not known: no answer of the old engine was relayed"
    )
    lines = [
        f"{found['channel']}/{found['seq']}  {found['type']}  control id {found['control_id'] or '-'}",
        f"received      {clock(found['received'])}, {bytes_shown(found['size'])}, "
        f"connection {connection(found['connection_number'])}",
        f"acknowledged  {answered}",
        f"phase         {found['phase']} (epoch {found['epoch']})",
        "",
    ]
    for name, state in found["states"].items():
        lines.append(f"{name}: {state}")
        lines += [
            f"    {text}" for receipt in found["receipts"] if receipt["destination"] == name for text in _step(receipt)
        ]
    lines += [f"not kept any more: {text}" for text in found["removed"]]
    if found["damaged"]:
        lines.append("damaged: the bytes below are not those that were stored, and are sent nowhere")
    for answer in found["later"]:
        lines.append(f"answered later, {clock(answer['at'])}: {answer['reason']}")
        lines += [f"        {text}" for text in segments(base64.b64decode(answer["answer"]))]
    content = base64.b64decode(found["raw"])
    return "\n".join([*lines, "", *(segments(content) if raw else named(content))])


def _step(receipt: dict[str, Any]) -> list[str]:
    part = f" part {receipt['part']}" if receipt["part"] > 1 else ""
    delivery = f" delivery {receipt['delivery']}" if receipt["delivery"] > 1 else ""
    edited = f" revision {receipt['revision']}, edited" if receipt["revision"] > 1 else ""
    reason = f"  {receipt['reason']}" if receipt["reason"] else ""
    state = receipt["state"]
    at = clock(receipt["at"]) if receipt["at"] else "now" if state in ("sending", "retrying") else "-"
    when = f"again at {at}" if state == "retrying" and receipt["at"] else at
    lines = [f"{when}  {state}{part}{delivery}{edited}{reason}"]
    if receipt["answer"]:
        lines += ["    " + text for text in segments(base64.b64decode(receipt["answer"]))]
    return lines


def segments(raw: bytes) -> list[str]:
    """The bytes a segment a line, for a terminal: no control character gets through to it."""
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        text = raw.decode("latin-1")
    lines = text.replace("\r\n", "\r").replace("\n", "\r").rstrip("\r").split("\r")
    return [printable(line) for line in lines]

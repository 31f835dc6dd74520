"""What is looked at before a decision: gate, compare."""

from __future__ import annotations

from typing import Any

import typer

from engine.cli.console import REFUSED, WIDTH, age, many, minute, out, out_json, since, table, wrapped
from engine.cli.options import SETTINGS_FILE, Config, Json
from engine.cli.selecting import Connections, Everything, Ids, Labels, needed, or_everything, selector

GATE_S = 180.0
"""Facts are gathered anew: many endpoints may be asked."""
COMPARE_S = 60.0


def gate(
    ids: Ids = None,
    connections: Connections = None,
    labels: Labels = None,
    everything: Everything = False,
    config: Config = SETTINGS_FILE,
    json: Json = False,
) -> None:
    """Explain every check; exit status 1 unless all pass."""
    from engine.cli.service_client import ask

    chosen = needed(selector(ids, connections, labels, everything))
    rows: list[dict[str, Any]] = ask(config, "/api/v1/gate", {"selector": chosen}, GATE_S)
    if json:
        out_json(rows)
    else:
        for row in rows:
            out(gate_told(row) + "\n")
        out(gate_summed(rows))
    if not all(row["passed"] for row in rows):
        raise typer.Exit(REFUSED)


def gate_told(row: dict[str, Any]) -> str:
    """One channel: its verdict, then a line for each check."""
    against = [check for check in row["checks"] if check["outcome"] not in ("pass", "waived")]
    passing = len(row["checks"]) - len(against)
    verdict = "passed" if row["passed"] else f"not passed, {passing} of {many(len(row['checks']), 'check')} pass"
    lines = [
        [
            check["outcome"].upper() if check in against else check["outcome"],
            check["check"],
            since(check["at"]),
            _said(check),
        ]
        for check in row["checks"]
    ]
    head = ["OUTCOME", "CHECK", "AGE", "WHAT WAS FOUND"]
    return f"{row['channel']}: {verdict}\n" + table(head, lines, right=("AGE",), width=WIDTH)


def _said(check: dict[str, Any]) -> str:
    waiver = check["waiver"]
    waived = f" Waived by {waiver['who']} until {minute(waiver['until'])}: {waiver['why']}" if waiver else ""
    return f"{check['said']}{waived}"


def gate_summed(rows: list[dict[str, Any]]) -> str:
    stopped = [row["channel"] for row in rows if not row["passed"]]
    if not stopped:
        return f"{many(len(rows), 'channel')}: passed"
    said = f"{len(rows) - len(stopped)} of {many(len(rows), 'channel')} passed; not: {', '.join(stopped)}"
    return "\n".join(wrapped(said, indent="  "))


def compare(
    ids: Ids = None,
    connections: Connections = None,
    labels: Labels = None,
    everything: Everything = False,
    config: Config = SETTINGS_FILE,
    json: Json = False,
) -> None:
    """Count how the old engine's outputs and ours compare."""
    from engine.cli.service_client import ask

    chosen = or_everything(selector(ids, connections, labels, everything))
    rows: list[dict[str, Any]] = ask(config, "/api/v1/compare", {"selector": chosen}, COMPARE_S)
    if json:
        return out_json(rows)
    if not rows:
        return out("nothing is compared: no channel that is meant has a tap")
    out(compared(rows))
    for line in rules(rows):
        out(line)
    if any(row["unexplained"] for row in rows):
        out("what differs: interlock discrepancies")
    return None


def compared(rows: list[dict[str, Any]]) -> str:
    head = ["CHANNEL", "TAP", "MATCHED", "EXPLAINED", "UNEXPLAINED", "NOT COMP.", "PENDING", "MATCH", "LAG"]
    counts = ("matched", "explained", "unexplained", "not_comparable", "pending")
    lines = [
        [
            row["channel"],
            row["tap"] or "(answers)",
            *(str(row[name]) for name in counts),
            percent(row["match"]),
            age(row["lag_s"]),
        ]
        for row in rows
    ]
    return table(head, lines, right=head[2:])


def percent(share: float | None) -> str:
    """Rounded down: 100 % means all."""
    return "-" if share is None else f"{int(share * 10_000) / 100:.2f} %"


def rules(rows: list[dict[str, Any]]) -> list[str]:
    """The declared rules, each once with the channels that have it: a rule that silences is to be seen."""
    having: dict[tuple[str, str, str], list[str]] = {}
    for row in rows:
        for rule in row["rules"]:
            channels = having.setdefault((rule["how"], rule["path"] or "", rule["reason"]), [])
            if row["channel"] not in channels:
                channels.append(row["channel"])
    lines = []
    for (how, path, reason), channels in having.items():
        where = channels[0] if len(channels) == 1 else many(len(channels), "channel")
        what = " ".join(word for word in (how, path) if word)
        lines += wrapped(f"rule of {where}: {what} ({reason})", indent="  ")
    return lines

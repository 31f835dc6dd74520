"""prune, backup, restore and compact: what is done to the ledger as a whole.

interlock prune --dry-run
interlock backup /var/backups/interlock-2024-05-12.db --reason "before the upgrade"
interlock restore /var/backups/interlock-2024-05-12.db --reason "the disk is gone"
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from engine.cli.console import Stop, many, out, out_json, table, wrapped
from engine.cli.options import SETTINGS_FILE, Config, Json

Reason = Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why; it goes into the audit record.")]

PLAN_S = 120.0
"""A plan looks at every channel's rows."""
LOOK_S = 0.5
"""Between two questions how far a backup has come."""


def prune(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be removed, and what holds back.")] = False,
    reason: Reason = "",
    config: Config = SETTINGS_FILE,
    json: Json = False,
) -> None:
    """Remove what has been kept long enough, now."""
    from engine.cli.selecting import reasoned, who
    from engine.cli.service_client import ask

    order = None if dry_run else {"who": who(), "reason": reasoned(reason, "--dry-run to see what would be removed")}
    path = "/api/v1/retention" if dry_run else "/api/v1/retention/prune"
    rows: list[dict[str, Any]] = ask(config, path, order, PLAN_S)
    if json:
        return out_json(rows)
    for line in told(rows):
        out(line)
    if not dry_run:
        out("it is being removed, in small steps beside the traffic")
    return None


def told(rows: list[dict[str, Any]]) -> list[str]:
    """A plan for people: what would go, and what holds the rest back."""
    cells = [
        [row["channel"], row["kind"], _days(row["kept_s"]), f"{row['rows']:,}", _size(row["bytes"]), row["held_by"]]
        for row in rows
        if row["rows"] or row["held_by"]
    ]
    if not cells:
        return ["nothing is old enough to be removed"]
    shown = table(["CHANNEL", "CLASS", "KEPT", "ROWS", "ABOUT", "HELD BACK BY"], cells, right=("ROWS", "ABOUT"))
    total = sum(row["rows"] for row in rows)
    return [*shown.splitlines(), "", f"{many(total, 'row')}, about {_size(sum(row['bytes'] for row in rows))}"]


def _days(seconds: float) -> str:
    return f"{seconds / 86400:.3g}d"


def _size(size: int) -> str:
    for unit, much in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if size >= much:
            return f"{size / much:.1f} {unit}"
    return f"{size} B"


def backup(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="Where the service is to write it; nothing may be there.")
    ],
    reason: Reason = "backup",
    config: Config = SETTINGS_FILE,
    json: Json = False,
) -> None:
    """Copy the running service's ledger to one file."""
    import time

    from engine.cli.selecting import who
    from engine.cli.service_client import ask

    order = {"file": str(file.absolute()), "who": who(), "reason": reason}
    state: dict[str, Any] = ask(config, "/api/v1/backup", order)
    shown = -1
    while state["state"] == "running":
        if not json and int(state["share"] * 10) > shown:
            shown = int(state["share"] * 10)
            out(f"{state['share']:.0%} copied")
        time.sleep(LOOK_S)
        state = ask(config, "/api/v1/backup")
    if json:
        out_json(state)
    if state["state"] != "done":
        raise Stop(state["said"])
    if not json:
        made = state["manifest"]
        size, count = _size(made["size"]), many(made["messages"], "message")
        out(f"{file}: {count}, {size}, read back and counted; sha256 {made['sha256']}")


def restore(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A backup.")],
    reason: Reason = "",
    replace: Annotated[
        bool, typer.Option("--replace", help="Although there is a ledger, which is kept aside.")
    ] = False,
    config: Config = SETTINGS_FILE,
    json: Json = False,
) -> None:
    """Put a backup in the ledger's place."""
    import time

    from engine.cli.selecting import reasoned, who
    from engine.cli.service_client import find
    from engine.ledger.sqlite import restoring
    from engine.ledger.sqlite.backup import BackupError

    reasoned(reason)
    ledger = find(config).ledger
    try:
        done = restoring.restore(file, ledger, time.time_ns() // 1000, who(), reason, replace=replace)
    except BackupError as error:
        raise Stop(str(error)) from None
    if json:
        return out_json(restoring.as_dict(done))
    for line in restored(done):
        out(line)
    return None


def compact(config: Config = SETTINGS_FILE, json: Json = False) -> None:
    """Give the free space of the ledger's file back."""
    from engine.cli.service_client import find
    from engine.ledger.sqlite import compacting
    from engine.ledger.sqlite.backup import BackupError

    ledger = find(config).ledger
    try:
        before, after = compacting.compact(ledger)
    except BackupError as error:
        raise Stop(str(error)) from None
    if json:
        return out_json({"ledger": str(ledger), "before": before, "after": after})
    return out(f"{ledger}: {_size(before)} before, {_size(after)} now")


def restored(done: Any) -> list[str]:
    """What was restored and what cannot be known, for people who go through it with their partners."""
    from engine.ledger.sqlite.restoring import moment

    said = (
        f"restored as incarnation {done.incarnation} (it was {done.before}). What came in and went out from"
        f" {moment(done.since)} until {moment(done.until)} is not known: messages acknowledged in that time are not in"
        " this ledger, and what it shows as open may have been sent. Every channel is held; compare with the partner,"
        " then: interlock release CHANNEL"
    )
    cells = [
        [one.channel, f"{one.seq:,}", moment(one.received), moment(one.settled), f"{one.unknown:,}"]
        for one in done.channels
    ]
    head = ["CHANNEL", "LAST NUMBER", "LAST CAME IN", "LAST SETTLED", "MAY HAVE BEEN SENT"]
    lines = [*wrapped(said, indent="  "), "", *table(head, cells).splitlines()]
    return [*lines, "", f"the ledger that was there is now {done.aside}"] if done.aside else lines

"""What each verb that moves connections can be told, as data."""

from __future__ import annotations

from collections.abc import Callable
from inspect import Parameter
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer

from engine.cli.console import usage
from engine.cli.options import SETTINGS_FILE, Config, Json
from engine.cli.selecting import Connections, Everything, Ids, Labels, seconds

POLICIES = ("guarded", "undelivered", "all", "none")


class Option(NamedTuple):
    """How it is typed, what it is when it is left out, and how it becomes the value that the API wants."""

    kind: Any
    default: Any = None
    value: Callable[[Any], Any] = lambda given: given


class Verb(NamedTuple):
    """Its help, and its options beyond those that all verbs have."""

    help: str
    options: tuple[str, ...] = ()


def _option(kind: Any, flag: str, metavar: str, text: str) -> Any:
    return Annotated[kind, typer.Option(flag, metavar=metavar, help=text)]


def _flag(flag: str, text: str) -> Option:
    return Option(Annotated[bool, typer.Option(flag, help=text)], False)


def _duration(flag: str, text: str) -> Option:
    return Option(_option(str | None, flag, "DURATION", text), None, lambda given: seconds(flag, given))


def _policy(text: str) -> str:
    if text not in POLICIES:
        usage(f"--replay {text}: wanted is one of {', '.join(POLICIES)}")
    return text


def _peers_of(file: Path) -> list[str]:
    """As `--peers` would name them. Stops with every line that is none."""
    from engine.migration.peers import read_peers
    from engine.migration.refused import Refused

    try:
        return read_peers(file.read_text(errors="replace"), str(file))
    except OSError as error:
        usage(f"--peers-from {file}: {error.strerror}")
    except Refused as refused:
        usage(str(refused))


FIRST = {
    "ids": Option(Ids),
    "connections": Option(Connections),
    "labels": Option(Labels),
    "everything": Option(Everything, False),
    "reason": Option(_option(str, "--reason", "TEXT", "Why; it goes into the audit record."), ""),
    "dry_run": _flag("--dry-run", "Say what would be done, and what stands against it."),
}
LAST = {
    "no_wait": _flag("--no-wait", "Do not wait for the end of the run."),
    "config": Option(Config, SETTINGS_FILE),
    "json": Option(Json, False),
}
"""What every verb can be told, before and after its own options."""

CARRY = "Open work that need not settle first: all, a destination, CHANNEL/SEQ; may repeat."
REPLAY = "Instead of the file's: guarded, undelivered, all or none."

PEERS = "Who is to come back, or none; WHERE is a channel, a feed or a port; may repeat."
PEERS_FROM = "The same, one a line, or what `ss -tn` or `netstat -tn` printed at the old listener."
WATCH = "Wait until the old listener answers there, or have our port again."

OPTIONS = {
    "for_s": _duration("--for", "For how long: 15m, 2h, 30d."),
    "timeout_s": _duration("--timeout", "Give up after so long, and have everything as it was."),
    "carry": Option(_option(list[str] | None, "--carry", "WHAT", CARRY)),
    "replay": Option(_option(str | None, "--replay", "POLICY", REPLAY), None, _policy),
    "override_until": _flag("--override-until", "Although the time for going back has passed."),
    "peers": Option(_option(list[str] | None, "--peers", "[WHERE=]ADDRESS", PEERS)),
    "peers_from": Option(_option(Path | None, "--peers-from", "FILE", PEERS_FROM), None, _peers_of),
    "watch": Option(_option(str | None, "--watch", "HOST:PORT", WATCH)),
    "run": Option(Annotated[int | None, typer.Option("--run", metavar="ID", min=1, help="This run.")]),
    "check": Option(_option(str, "--check", "NAME", "Which check of the gate."), Parameter.empty),
}
"""The API's name of an option → the option. What `peers_from` reads is told as `peers`."""

VERBS = {
    "takeover": Verb("Take the vendors' ports over, the old engine behind us.", ("peers", "peers_from", "timeout_s")),
    "give-back": Verb("Give the ports back to the old listener.", ("watch", "timeout_s")),
    "parallel": Verb("Do the old engine's work beside it, and compare."),
    "legacy": Verb("End the parallel run; open an observed channel's port."),
    "hold": Verb("Freeze: store and acknowledge, send nothing new.", ("for_s",)),
    "release": Verb("Lift a hold."),
    "drain": Verb("Send nothing new; return when the rest is settled.", ("for_s",)),
    "cutover": Verb("Go live: we send, the old engine no longer does.", ("carry", "timeout_s")),
    "rollback": Verb("Go back: the old engine sends again.", ("replay", "override_until", "timeout_s")),
    "abort": Verb("End a run; what it had not switched stays as it was.", ("run",)),
    "note": Verb("Write a remark into the audit record."),
    "attest": Verb("State by name what no machine can measure.", ("check", "for_s")),
    "waive": Verb("Let the gate pass without a check, for a time.", ("check", "for_s")),
    "legal-hold": Verb("Remove nothing by age, until it is lifted."),
    "legal-release": Verb("Lift a legal hold."),
}

"""The command `interlock`. Exit status: 0 done, 1 refused or unhealthy, 2 wrong usage.

Each verb lives in a file of its family and imports what it needs when it runs, so that `--help` is quick.
"""

from __future__ import annotations

import os
import sys

os.environ.setdefault("TYPER_USE_RICH", "0")  # plain words, and a start-up without it

import typer

from engine.cli import (
    connecting,
    evidence,
    files,
    messages,
    moving,
    reconcile,
    remedies,
    running,
    runs,
    upkeep,
)
from engine.cli.audit import audit
from engine.cli.console import DONE, REFUSED, Stop, err
from engine.cli.demo import demo
from engine.cli.discrepancies import discrepancies
from engine.cli.helped import Helped
from engine.cli.mappings import mapping, run_examples
from engine.cli.orders import VERBS
from engine.cli.tap import tap
from engine.cli.unmapped import unmapped

app = typer.Typer(
    name="interlock",
    help="Replaces an HL7 v2 interface engine under live traffic, one connection at a time.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
app.command("run")(running.run)
app.command("validate")(running.validate)
app.command("status")(running.status)
app.command("messages")(messages.messages)
app.command("show")(messages.show)
app.command("map")(files.map_files)
app.command("test")(run_examples)
app.command("send")(files.send)
app.command("test-connection")(connecting.connection)
app.command("demo", short_help="Simulate a whole migration on this machine.")(demo)
app.command("compare")(evidence.compare)
app.command("gate")(evidence.gate)
for _verb, _told in VERBS.items():
    app.command(_verb, help=_told.help)(moving.command(_verb))
app.command("runs")(runs.runs)
app.command("dead")(remedies.dead)
app.command("retry")(remedies.retry)
app.command("edit-and-retry")(remedies.edit_and_retry)
app.command("discard")(remedies.discard)
app.command("replay")(remedies.replay)
app.command("replays")(remedies.replays)
app.command("prune")(upkeep.prune)
app.command("backup")(upkeep.backup)
app.command("restore")(upkeep.restore)
app.command("compact")(upkeep.compact)
app.command("reconcile")(reconcile.reconcile)
app.add_typer(mapping, name="mapping")
app.add_typer(discrepancies, name="discrepancies")
app.add_typer(tap, name="tap")
app.add_typer(unmapped, name="unmapped")
app.add_typer(audit, name="audit")

for _typer in (app, *(group.typer_instance for group in app.registered_groups if group.typer_instance)):
    for _command in _typer.registered_commands:
        _command.cls = Helped


def version(value: bool) -> None:
    if value:
        from engine.cli.console import out
        from engine.cli.version import installed_version

        out(f"interlock {installed_version()}")
        raise typer.Exit


@app.callback()
def options(
    _: bool = typer.Option(False, "--version", callback=version, is_eager=True, help="Show the version and end."),
) -> None:
    pass


def main() -> None:
    """The entry point: every expected failure is one sentence on standard error."""
    try:
        status = app(standalone_mode=True)
    except Stop as stop:
        err(f"interlock: {stop.sentence}")
        sys.exit(stop.status)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # `interlock messages | head`
        sys.exit(REFUSED)
    sys.exit(status or DONE)

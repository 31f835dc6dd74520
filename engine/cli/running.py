"""The verbs about the service as a whole: run, validate, status."""

from __future__ import annotations

from collections import Counter
from math import ceil
from typing import TYPE_CHECKING, Annotated, Any

import typer

from engine.cli.console import REFUSED, Stop, age, many, minute, out, out_json, since, since_then, table
from engine.cli.options import SETTINGS_FILE, Config, Json, settings_of

if TYPE_CHECKING:
    from pathlib import Path

    from engine.config.model import Configuration
    from engine.config.problem import Note, Problem


def run(config: Config = SETTINGS_FILE, json: Json = False) -> None:
    """Run the service until it is told to stop."""
    import gc

    gc.disable()  # until the ports are open (process.py): collections would only delay that
    try:
        status = _run(config, json)
    finally:
        gc.enable()
    raise typer.Exit(status)


def _run(config: Path, json: bool) -> int:
    from engine.config.loading import load_with_notes
    from engine.config.problem import ConfigError

    try:
        configuration, notes = load_with_notes(settings_of(config))
    except ConfigError as error:
        _show_problems(error.problems, [], json)
        return REFUSED
    from engine.cli import process
    from engine.mapping.problems import MappingError
    from engine.observe.events import emit
    from engine.observe.service_events import ConfigNoted

    for line in _summed(notes):
        emit(ConfigNoted(line))
    try:
        return process.run(configuration)
    except MappingError as error:
        _show_problems(placed(error.problems), [], json)
        return REFUSED
    except OSError as error:
        raise Stop(f"the service cannot start: {error.strerror or error}") from None


def validate(
    config: Config = SETTINGS_FILE,
    json: Json = False,
    schema: Annotated[bool, typer.Option("--schema", help="Print the JSON Schemas of the files and end.")] = False,
) -> None:
    """Check every file; start nothing."""
    if schema:
        from engine.config.declared import json_schema

        return out_json(json_schema())
    configuration, problems, notes = _checked(settings_of(config))
    _show_problems(problems, notes, json, configuration)
    if problems:
        raise typer.Exit(REFUSED)
    return None


def _checked(config: Path) -> tuple[Configuration | None, list[Problem], list[Note]]:
    from engine.config.loading import load_with_notes
    from engine.config.problem import ConfigError

    configuration: Configuration | None = None
    notes: list[Note] = []
    problems: list[Problem] = []
    try:
        configuration, notes = load_with_notes(config)
    except ConfigError as error:
        problems = error.problems
    site = configuration.service.mappings if configuration else _site_mappings(config)
    problems = [*problems, *_mapping_problems(configuration, site), *_v2_problems(configuration, site)]
    return configuration, list(dict.fromkeys(problems)), notes  # a table's mistake is found by both kinds of mapping


def _site_mappings(config: Path) -> Path | None:
    """The site's mapping folder, also where other settings are wrong: all problems of all files in one go."""
    import os

    from engine.config.nodes import Findings
    from engine.config.settings import load_settings

    settings = load_settings(config, Findings(os.environ))
    return settings.mappings if settings else None


def _mapping_problems(configuration: Configuration | None, site: Path | None) -> list[Problem]:
    """Those of the mappings to FHIR, and of what channels have otherwise."""
    from engine.cli.overriding import mistakes
    from engine.config.shipped import shipped_mappings
    from engine.mapping.library import Library
    from engine.mapping.problems import MappingError

    try:
        library = Library.load(shipped_mappings(), site)
    except MappingError as error:
        return placed(error.problems)
    return placed(mistakes(configuration.channels, library)) if configuration else []


def _v2_problems(configuration: Configuration | None, site: Path | None) -> list[Problem]:
    """Those of the v2 mappings, and of what channels say in their words."""
    from engine.config.shipped import shipped_mappings
    from engine.mapping.problems import MappingError
    from engine.mapping.v2.channels import check
    from engine.mapping.v2.library import V2Library

    found: list[Problem] = []
    library: V2Library | None = None
    try:
        library = V2Library.load(shipped_mappings(), site)
    except MappingError as error:
        found = error.problems
    if configuration is not None:
        found = found + check(configuration.channels, library)
    return placed(found)


def placed(problems: list[Problem]) -> list[Problem]:
    """With files named as the user would type them."""
    from dataclasses import replace
    from pathlib import Path

    from engine.config.nodes import shown

    return [replace(problem, file=shown(Path(problem.file))) for problem in problems]


def _show_problems(
    problems: list[Problem], notes: list[Note], json: bool, configuration: Configuration | None = None
) -> None:
    if json:
        out_json(
            {
                "ok": not problems,
                "problems": [
                    {"file": p.file, "line": p.line, "column": p.column, "found": p.found, "expected": p.wanted}
                    for p in problems
                ],
                "notes": [{"file": n.file, "line": n.line, "column": n.column, "text": n.text} for n in notes],
            }
        )
        return
    for problem in problems:
        out(str(problem))
    for line in _summed(notes):
        out(line)
    if problems:
        out(f"{many(len(problems), 'problem')} in {_where(problems)}")
    elif configuration:
        out(f"{many(len(configuration.channels), 'channel')}: every file is right")


def _where(problems: list[Problem]) -> str:
    """`2 files and the environment`"""
    files = len({problem.file for problem in problems if problem.line})
    places = [many(files, "file")] if files else []
    return " and ".join([*places, *(["the environment"] if any(not problem.line for problem in problems) else [])])


def _summed(notes: list[Note]) -> list[str]:
    """One line a sentence, at its first place, and how many other files have it: 250 channels say the same things."""
    first: dict[str, Note] = {}
    for note in notes:
        first.setdefault(note.text, note)
    counts = Counter(note.text for note in notes)
    more = {text: f" (and {many(n - 1, 'more place')})" if n > 1 else "" for text, n in counts.items()}
    return [f"{note}{more[text]}" for text, note in first.items()]


def status(config: Config = SETTINGS_FILE, json: Json = False) -> None:
    """Show every channel; status 1 where something is wrong."""
    from engine.cli.service_client import ask

    found = ask(config, "/api/v1/status")
    if json:
        out_json(found)
    else:
        out(_head(found))
        out()
        out(_channels(found["channels"]))
        for line in complaints(found):
            out(line)
        if unmapped := found.get("unmapped", 0):
            out(f"{many(unmapped, 'code')} that no table knew, and nobody has decided about (interlock unmapped)")
    if complaints(found):
        raise typer.Exit(REFUSED)


def _head(found: dict[str, Any]) -> str:
    ledger = "writable" if found["writable"] else "NOT WRITABLE"
    balance = "balanced" if found["balanced"] else "NOT BALANCED"
    return f"interlock {found['version']}, up {since(found['started'])}; ledger {found['ledger']}: {ledger}, {balance}"


def _channels(channels: list[dict[str, Any]]) -> str:
    rows = []
    for channel in channels:
        lead = [
            channel["id"],
            phase(channel),
            str(channel["address"]).rpartition(":")[2] if channel["listening"] else "closed",
            str(len(channel["peers"])),
            str(channel["stored"]),
            since(channel["last_received"]),
        ]
        for destination in channel["destinations"] or [None]:
            rows.append([*lead, *_destination(destination)])
            lead = [""] * len(lead)
    head = ["CHANNEL", "PHASE", "PORT", "PEERS", "STORED", "LAST", "DESTINATION", "ROUTE", "DONE", "OPEN", "OLDEST", ""]
    return table(head, rows, right=("PORT", "PEERS", "STORED", "LAST", "DONE", "OPEN", "OLDEST"))


def phase(channel: dict[str, Any]) -> str:
    """`live`, `live, held`, `live, stopped`, `parallel, run 7`."""
    hold = channel["hold"]
    held = (", stopped" if hold["stopped"] else ", held") if hold else ""
    run = f", run {channel['run']}" if channel["run"] else ""
    return f"{channel['phase']}{held}{run}"


def _destination(destination: dict[str, Any] | None) -> list[str]:
    if destination is None:
        return ["-", "", "", "", "", ""]
    counts = destination["counts"]
    done = counts.get("delivered", 0) + counts.get("captured", 0)
    notes = [f"{n} {state}" for state, n in counts.items() if n and state not in ("delivered", "captured", "waiting")]
    if destination["rests_until"]:
        notes.append(f"closed until {minute(destination['rests_until'])}")
    if destination["breaker"]:
        notes.append("nothing is sent")  # why stands below the table
    if not destination["balanced"]:
        notes.append("DOES NOT BALANCE")
    oldest = age(destination["oldest_s"])
    mode = destination["mode"]
    return [destination["name"], mode, str(done), str(destination["open"]), oldest, ", ".join(notes)]


def _next_trial(destination: dict[str, Any]) -> str:
    """In whole seconds, and no sooner than said."""
    seconds = destination["next_trial_s"]
    return f" (next trial in {ceil(seconds)} s)" if seconds is not None else ""


def complaints(found: dict[str, Any]) -> list[str]:
    """What is wrong, a sentence each; none where the service is well."""
    out = []
    if not found["writable"]:
        out.append("the ledger cannot be written: nothing is acknowledged (see the runbook: ledger not writable)")
    if not found["balanced"]:
        out.append("the ledger does not balance: a message is counted on one side only (see the runbook)")
    if not found["delivering"]:
        out.append("nothing is sent: worker processes of an earlier service still run (see the runbook)")
    out += [f"worker {number} takes nothing: {why}" for number, why in found["workers"].items() if why]
    for channel in found["channels"]:
        if not channel["listening"] and channel["phase"] != "outside":
            out.append(f"{channel['id']}: nothing can come in at {channel['address']}: {channel['down'] or 'closed'}")
        for tap in channel["taps"]:
            if not tap["listening"]:
                why = tap["down"] or "closed"
                out.append(f"{channel['id']}: nothing can come in at {tap['address']}, tap {tap['name']}: {why}")
        for tap, count in channel["parked"].items():
            waits = f"{many(count, 'output')} of the old engine for a person to decide (interlock tap)"
            out.append(f"{channel['id']}, tap {tap}: {waits}")
        hold = channel["hold"]
        if hold and hold["stopped"]:
            then = since(hold["since"])
            out.append(f"{channel['id']}: stopped {then} ago, {hold['why']}: settle that, or release the channel")
        elif hold and since_then(hold["until"]) > 0:
            late = age(since_then(hold["until"]))
            out.append(f"{channel['id']}: held by {hold['who']}, {late} longer than it should be: release it")
        for destination in channel["destinations"]:
            where = f"{channel['id']} → {destination['name']}"
            if destination["breaker"]:
                out.append(f"{where}: nothing is sent: {destination['breaker']}{_next_trial(destination)}")
            if wanted := destination["wanted"]:
                said = ", ".join(f"{count} {state}" for state, count in wanted.items())
                out.append(f"{where}: {many(sum(wanted.values()), 'message')} for a person to decide: {said}")
    for port in found["answers"]:
        if not port["listening"]:
            why = port["down"] or "closed"
            out.append(f"{port['endpoint']}: its answers cannot come in at {port['address']}: {why}")
    if broken := found.get("mappings_broken"):
        kept = "are not used, and a restart would be refused (see the runbook: the mappings are broken)"
        out.append(f"the mapping files have {many(broken['problems'], 'mistake')}, {kept}: {broken['first']}")
    over = "a certificate has expired: who checks it does not connect (see the runbook: a certificate expires)"
    out += [f"{owner}: {over}" for owner in found["expired"]]
    return out

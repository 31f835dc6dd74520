"""The verbs that move connections. They differ in a few options only: the tables of orders.py make each command.

interlock cutover --connection acme --dry-run
interlock cutover --connection acme --reason "window of 12 May"
"""

from __future__ import annotations

from collections.abc import Callable
from inspect import Parameter, Signature
from typing import Any

import typer

from engine.cli.console import REFUSED, out, out_json, wrapped
from engine.cli.orders import FIRST, LAST, OPTIONS, VERBS
from engine.cli.selecting import needed, reasoned, selector, who

ANSWER_S = 180.0
"""A verb gathers facts before it answers, and may ask many endpoints."""


def command(verb: str) -> Callable[..., None]:
    """The command of a verb, with the signature that its options make."""
    every = FIRST | {name: OPTIONS[name] for name in VERBS[verb].options} | LAST

    def act(**given: Any) -> None:
        _act(verb, **given)

    parameters = [
        Parameter(name, Parameter.KEYWORD_ONLY, default=option.default, annotation=option.kind)
        for name, option in every.items()
    ]
    act.__signature__ = Signature(parameters)  # type: ignore[attr-defined]  # what the command line is read from
    return act


def _act(verb: str, *, config: Any, json: bool, dry_run: bool, no_wait: bool, **given: Any) -> None:
    from engine.cli.service_client import Refusal, ask

    order = _order(verb, dry_run, given)
    try:
        answer: dict[str, Any] = ask(config, f"/api/v1/verbs/{verb}", order, ANSWER_S)
    except Refusal as refusal:
        if json:
            out_json({"verb": verb, "dry_run": dry_run, "refused": refusal.sentences})
        raise
    if not json:
        for line in told(answer):
            out(line)
    refused = any(plan["refused"] for plan in answer["plans"])
    failed = False if no_wait or dry_run else _watched(config, answer, json)
    if json:
        out_json(answer)
    if refused or failed:
        raise typer.Exit(REFUSED)


def _order(verb: str, dry_run: bool, given: dict[str, Any]) -> dict[str, Any]:
    options = {
        name: OPTIONS[name].value(given[name]) for name in VERBS[verb].options if given[name] not in (None, False, [])
    }
    if "peers_from" in options:
        options["peers"] = [*options.get("peers", ()), *options.pop("peers_from")]
    chosen = selector(given["ids"], given["connections"], given["labels"], given["everything"])
    if "run" not in options:
        needed(chosen)
    if not dry_run:
        reasoned(given["reason"], "--dry-run to see what would be done")
    return {"selector": chosen, "reason": given["reason"], "who": who(), "dry_run": dry_run, "options": options}


def _watched(config: Any, answer: dict[str, Any], json: bool) -> bool:
    """Follow the runs of an answer until none is awaited; as they are then they stand in it. True where one failed."""
    from engine.cli.following import goes_on, is_awaited, status_of, watch

    going = [run for run in answer["runs"] if goes_on(run)]
    if not going:
        return bool(status_of(answer["runs"])) and answer["verb"] != "abort"
    ended = {run["id"]: run for run in watch(config, going, json, is_awaited)}
    answer["runs"] = [ended.get(run["id"], run) for run in answer["runs"]]
    return bool(status_of(answer["runs"])) and answer["verb"] != "abort"


def told(answer: dict[str, Any]) -> list[str]:
    """An answer for people: the plans of a dry run, or what the service said."""
    lines: list[str] = []
    for plan in answer["plans"]:
        lines += _plan(plan, answer["dry_run"])
    for sentence in answer["said"]:
        lines += wrapped(sentence, indent="  ")
    return lines


def _plan(plan: dict[str, Any], dry_run: bool) -> list[str]:
    channels = ", ".join(plan["channels"])
    head = plan["connection"] + (f" ({channels})" if channels and channels != plan["connection"] else "")
    if not dry_run:
        return []  # what was done stands in what the service said
    if plan["already"]:
        return wrapped(f"{head}: {plan['already']}", indent="  ")
    lines = wrapped(f"{head}:", indent="  ")
    for text in plan["lines"]:
        lines += wrapped(f"  - {text}", indent="    ")
    for text in plan["refused"]:
        lines += wrapped(f"  ! refused: {text}", indent="    ")
    return lines

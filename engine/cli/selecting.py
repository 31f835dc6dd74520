"""What the verbs about channels share: which channels, who asks, how long."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from engine.cli.console import usage

Ids = Annotated[list[str] | None, typer.Argument(metavar="SELECTOR", help="Channel ids.", show_default=False)]
Connections = Annotated[
    list[str] | None, typer.Option("--connection", metavar="NAME", help="The channels of this connection; may repeat.")
]
Labels = Annotated[
    list[str] | None, typer.Option("--label", metavar="KEY=VALUE", help="Only channels with this label; may repeat.")
]
Everything = Annotated[bool, typer.Option("--all", help="Every channel.")]


def selector(
    ids: list[str] | None, connections: list[str] | None, labels: list[str] | None, everything: bool
) -> dict[str, Any]:
    """A selector as the API wants it. Stops where `--all` stands beside a choice, or a label has no value."""
    pairs = dict(map(_label, labels or []))
    chosen = {"ids": ids or [], "connections": connections or [], "labels": pairs}
    if everything and (ids or connections):
        usage("--all means every channel: leave out the ids and connections")
    return chosen | {"all": everything}


def needed(selector: dict[str, Any]) -> dict[str, Any]:
    """The same selector. Stops where it selects nothing."""
    if not any(selector.values()):
        usage("which channels? give ids, --connection, --label or --all")
    return selector


def or_everything(selector: dict[str, Any]) -> dict[str, Any]:
    """For questions, which may be asked about every channel where none is named."""
    return selector if any(selector.values()) else selector | {"all": True}


def _label(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not key or not equals:
        usage(f"--label {text}: wanted is KEY=VALUE, such as region=west")
    return key, value


def reasoned(reason: str, otherwise: str = "") -> str:
    """The same reason. Stops where none is given. otherwise: what goes without one."""
    if not reason.strip():
        usage('say why: --reason "..."' + (f"; or {otherwise}" if otherwise else ""))
    return reason


def seconds(option: str, text: str) -> float:
    """A duration as people write it: 30s, 15m, 2h."""
    from engine.config.units import duration

    found = duration(text)
    if not found:
        usage(f"{option} {text}: wanted is a duration, such as 30s, 15m, 2h or 30d")
    return found


def searched(since: str | None, until: str | None, **keys: str | None) -> dict[str, Any]:
    """What a search asks for, as the API wants it: keys of messages, and when they were received."""
    from engine.cli.times import moment

    wanted: dict[str, Any] = {name: value for name, value in keys.items() if value is not None}
    return wanted | {name: moment(f"--{name}", text) for name, text in (("since", since), ("until", until)) if text}


def who() -> str:
    """The operating system's user; where somebody became another one by sudo, both."""
    import os
    import pwd

    number = os.geteuid()
    try:
        user = pwd.getpwuid(number).pw_name
    except KeyError:
        user = f"user {number}"
    person = os.environ.get("SUDO_USER", "")
    return f"{person} as {user}" if person and person != user else user

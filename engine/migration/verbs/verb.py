"""What a verb is: it says what it would do to a group of channels, what stands against it, and does it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from engine.config.model import Channel
from engine.ledger.audit import Entry
from engine.ledger.course import ChannelBook
from engine.ledger.sqlite.journal import RunRow
from engine.migration.conductor import Conductor
from engine.migration.gate.words import SECOND
from engine.migration.runs import RUNNING
from engine.migration.selection import Group


@dataclass(frozen=True, slots=True)
class Asked:
    """Who wants it, why, from where, and with which options."""

    who: str
    why: str
    origin: str
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class Plan:
    """What a verb does to one connection. `refused`: what stands against it. `already`: why there is nothing to do.
    `options`: what the run is told that comes of it."""

    group: Group
    lines: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    already: str | None = None
    counts: dict[str, Any] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        return {
            "connection": self.group.connection, "channels": [channel.id for channel in self.group.channels],
            "lines": [*([self.group.said] if self.group.said else []), *self.lines], "refused": self.refused,
            "already": self.already, "counts": self.counts,
        }  # fmt: skip


@dataclass(slots=True)
class Acted:
    """What was done: sentences, and the runs that go on."""

    said: list[str] = field(default_factory=list)
    runs: list[int] = field(default_factory=list)


class Verb(Protocol):
    """One verb. `whole`: it takes all channels of a connection, not only those that are named."""

    name: str
    whole: bool

    async def plan(self, conductor: Conductor, group: Group, asked: Asked) -> Plan: ...

    async def act(self, conductor: Conductor, plan: Plan, asked: Asked) -> Acted:
        """Only for a plan without `refused` and `already`."""
        ...


def entry(conductor: Conductor, verb: str, subject: str, asked: Asked, before: str = "", after: str = "") -> Entry:
    """The audit's row for something done now."""
    return Entry(conductor.world.now(), asked.who, asked.origin, verb, subject, asked.why, before, after)


def books(conductor: Conductor, group: Group) -> list[tuple[Channel, ChannelBook]]:
    return [(channel, conductor.book(channel.id)) for channel in group.channels]


def standing_against(conductor: Conductor, channel: Channel, book: ChannelBook) -> list[str]:
    """A freeze, or another run."""
    if book.hold is not None:
        return [f"{channel.id} is held by {book.hold.who} ({book.hold.why}): release it first"]
    rows = conductor.runs.of([channel.id])
    return [f"{channel.id} belongs to run {row.id} ({row.verb}), which goes on: abort it first" for row in rows]


def new_run(
    conductor: Conductor, verb: str, plan: Plan, asked: Asked, deadline: int, step: str, options: dict[str, Any]
) -> RunRow:
    """The row of a run that begins now."""
    return RunRow(
        conductor.runs.new_id(), verb, plan.group.connection, tuple(channel.id for channel in plan.group.channels),
        RUNNING, step, f"{verb} begins", options, asked.who, asked.why, asked.origin, conductor.world.now(), deadline,
        None,
    )  # fmt: skip


def begun(row: RunRow) -> Acted:
    return Acted([f"run {row.id}: {row.verb} of {row.connection} goes on"], [row.id])


def until(conductor: Conductor, asked: Asked, default: float) -> int:
    """The moment that `for_s` or `timeout_s` names, else `default` seconds from now."""
    seconds = asked.options.get("for_s") or asked.options.get("timeout_s") or default
    return conductor.world.now() + int(float(seconds) * SECOND)


def span(seconds: float) -> str:
    """`40 s`, `5 min`, `3.0 h`."""
    if seconds < 120:
        return f"{seconds:.0f} s" if seconds >= 1 or seconds == 0 else f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"

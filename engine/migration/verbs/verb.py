"""What a verb is: it says what it would do to a group of channels, what stands against it, and does it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from engine.config.model import Channel
from engine.ledger.audit import Entry
from engine.ledger.course import ChannelBook
from engine.migration.conductor import Conductor
from engine.migration.gate.words import SECOND
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
    """What a verb does to one connection. `refused`: what stands against it. `already`: why there is nothing to do."""

    group: Group
    lines: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    already: str | None = None
    counts: dict[str, Any] = field(default_factory=dict)

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


def until(conductor: Conductor, asked: Asked, default: float) -> int:
    """The moment that `for_s` or `timeout_s` names, else `default` seconds from now."""
    seconds = asked.options.get("for_s") or asked.options.get("timeout_s") or default
    return conductor.world.now() + int(float(seconds) * SECOND)


def span(seconds: float) -> str:
    """`40 s`, `5 min`, `3.0 h`."""
    if seconds < 120:
        return f"{seconds:.0f} s" if seconds >= 1 or seconds == 0 else f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"

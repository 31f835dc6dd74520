"""A feed: one inbound socket that carries several channels' messages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from engine.config.edge import Ack, Connect, Listen, Takes
from engine.config.endpoint import Endpoint


@dataclass(frozen=True, slots=True)
class Rule:
    """Frames whose fields have all of these values go to these channels.

    when: (field as `MSH-5` or `PV1-3.4`, the values that it may have) each.
    """

    when: tuple[tuple[str, tuple[str, ...]], ...]
    to: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Table:
    """A field's value names the channels. by: the field; of: value → channels."""

    by: str
    of: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class Feed:
    """One socket, many channels. The first rule that fits decides, then the table, then `default`.

    legacy: the feed's own connection to the old engine, which all its channels share while they need it.
    channels: every channel that may get a message, in the order of their names.
    raw: the feed as written, without what it sends where.
    """

    id: str
    source: Listen | Connect
    takes: Takes
    ack: Ack
    legacy: Endpoint | None
    rules: tuple[Rule, ...]
    table: Table | None
    default: str
    channels: tuple[str, ...]
    file: str
    raw: dict[str, Any] = field(default_factory=dict, repr=False)

    def written_for(self, channel: str) -> list[Any]:
        """What a channel of it depends on, as plain values: changes elsewhere are not its own."""
        rules = [[rule.when, rule.to] for rule in self.rules if channel in rule.to]
        table = {value: to for value, to in self.table.of.items() if channel in to} if self.table else {}
        return [self.raw, rules, self.table.by if table and self.table else "", table, channel == self.default]

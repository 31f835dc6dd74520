"""The configuration as values: what the rest of the engine sees, long after YAML is forgotten.

Every value here has been checked: names resolve, ports are free of clashes within the configuration, secrets
are filled in. Times are seconds, sizes are bytes. All classes are frozen; a reload builds new ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from engine.config.address import Address
from engine.config.changes import UNCHANGED, Changes
from engine.config.edge import Ack, Files, FromFeed, Listen, Source, Takes
from engine.config.endpoint import Dead, Endpoint
from engine.config.feed import Feed
from engine.config.filtering import AS_IT_CAME, Emit, Remember, Rule

Direction = Literal["orders", "results", "adt", "query"]
Kind = Literal["medplum", "mllp", "file"]
Order = str
Strategy = Literal["anchored"]
Replay = Literal["guarded", "undelivered", "all", "none"]
Tolerance = Literal["padding", "precision", "order", "case", "escapes", "time_precision", "time_zone", "null"]
Shape = Literal["1:1", "1:n", "0..1"]
Weekday = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]

DAY = 86400.0  # seconds


@dataclass(frozen=True, slots=True)
class Medplum:
    """The Medplum server. `base_url` has no /fhir/R4: FHIR and token addresses follow from it.

    time_limit: the longest, in seconds, that the server works on a request, its client waiting or gone.
    """

    base_url: str
    client_id: str
    client_secret: str = field(repr=False)
    time_limit: float = 60.0


@dataclass(frozen=True, slots=True)
class Service:
    """The settings of one running service. Paths are absolute; `root` is the folder of the settings file."""

    channels: Path
    mappings: Path | None
    ledger: Path
    http: Address
    workers: int
    medplum: Medplum | None
    root: Path
    audit: float = 2200 * DAY  # seconds that the audit chain is kept


@dataclass(frozen=True, slots=True)
class OnLink:
    """The old engine's output comes on our own connection to it, the one on which it answers us."""


@dataclass(frozen=True, slots=True)
class Tap:
    """Where the old engine's own output arrives, to be compared, and forwarded or held back by phase.

    name: the forward endpoint's name, unique in its channel.
    source: a port of ours, our connection to the old engine, or a folder that it writes to.
    settle: seconds of quiet after which nothing is on its way here any more; None = three times the measured lag.
    shape: how many outputs an input has: one, one or more, or none or one.
    """

    name: str
    source: Listen | OnLink | Files
    forward: Endpoint
    settle: float | None = None
    shape: Shape = "1:1"


@dataclass(frozen=True, slots=True)
class Legacy:
    """The way to the old engine. settle: seconds of quiet after which nothing of it is on its way any more.

    `settle` is waited for where there are no taps; each tap has its own.
    endpoint: None where the old engine is in front and only a copy reaches us (`observed`).
    """

    endpoint: Endpoint | None
    settle: float = 600.0
    taps: tuple[Tap, ...] = ()


@dataclass(frozen=True, slots=True)
class Destination:
    """One place of the target path.

    name: unique in its channel; `medplum` or the endpoint's name unless given.
    mapping: a v2 → v2 mapping of its own (MLLP, file); None = the message as it came.
    filter: what it does not get, the target's filter before its own. emit: the control ids of what is sent.
    dead: what becomes of its lane, or of the whole channel, behind a message that it will never take.
    """

    name: str
    kind: Kind
    endpoint: Endpoint | None
    project: str | None = None
    strategy: Strategy = "anchored"
    order_by: Order = "patient"
    mapping: str | None = None
    filter: tuple[Rule, ...] = ()
    emit: Emit = AS_IT_CAME
    dead: Dead = "waits"


@dataclass(frozen=True, slots=True)
class Target:
    """The new way: mapped by `mapping` (None = chosen by MSH-9), as changed, then to each destination."""

    mapping: str | None
    destinations: tuple[Destination, ...]
    changes: Changes = UNCHANGED


@dataclass(frozen=True, slots=True)
class Rollback:
    """What a rollback sends again, and for how many seconds after a cutover it needs no override."""

    replay: Replay
    until: float = 72 * 3600.0


@dataclass(frozen=True, slots=True)
class Ignored:
    """A place whose differences do not matter, and why: a field (MSH-7), a component (OBX-5.2), a segment (ZDS)."""

    path: str
    reason: str


@dataclass(frozen=True, slots=True)
class Tolerated:
    """A way of writing the same thing differently that does not matter, and why. path: only there; None: anywhere."""

    how: Tolerance
    reason: str
    path: str | None = None


@dataclass(frozen=True, slots=True)
class Compare:
    """How the old engine's outputs are paired with inputs and compared with ours.

    key: the fields that pair; empty = those that are usual for the channel's direction.
    nth: outputs of one key are paired in order: the first with the first.
    within: seconds after which an input without an output misses it.
    """

    key: tuple[str, ...] = ()
    nth: bool = True
    within: float = 600.0
    ignore: tuple[Ignored, ...] = ()
    tolerate: tuple[Tolerated, ...] = ()


@dataclass(frozen=True, slots=True)
class Gate:
    """What must hold before a cutover.

    min_match: the least share, from 0 to 1, of (matched + explained) among all that was compared.
    min_messages: how many must have been compared; below it, there is no data.
    """

    min_match: float = 0.999
    min_messages: int = 100


@dataclass(frozen=True, slots=True)
class Duplicates:
    """When a message is taken for a repeat of an earlier one whose answer its sender did not hear.

    window: seconds; 0 = never. ignore: fields (MSH-7) and segments (ZDS) that may differ.
    """

    window: float = 600.0
    ignore: tuple[str, ...] = ("MSH-7",)


@dataclass(frozen=True, slots=True)
class Window:
    """When a cutover may happen, in the channel's time zone.

    days: on which it opens; empty = every day. start, end: `HH:MM`, end up to `24:00`; an end that is not after
    the start is the next day's.
    """

    days: tuple[Weekday, ...]
    start: str
    end: str


@dataclass(frozen=True, slots=True)
class Retention:
    """Seconds that a channel's messages are kept; what is open, or needed still, is kept longer.

    raw: the bytes. captured: outputs that were made and not sent. receipts: the head of a message and what became of
    it. events: input that became no message.
    """

    raw: float = 90 * DAY
    captured: float = 30 * DAY
    receipts: float = 730 * DAY
    events: float = 90 * DAY


@dataclass(frozen=True, slots=True)
class Channel:
    """One configured flow: one source, its mapping, its destinations.

    phase: the first epoch's phase, defaults applied (`legacy`, or `live` where there is no `legacy:`).
    source: where its messages come from. file: where it is declared.
    raw: the channel as written, profile and defaults merged beneath, as plain dicts, lists and scalars.
    """

    id: str
    connection: str
    title: str
    direction: Direction
    labels: Mapping[str, str]
    owner: str
    timezone: str
    phase: str | None
    source: Source
    takes: Takes
    ack: Ack
    identity: Mapping[str, str]
    legacy: Legacy | None
    target: Target | None
    rollback: Rollback | None
    file: str
    raw: dict[str, Any] = field(repr=False)
    duplicates: Duplicates = Duplicates()
    compare: Compare = Compare()
    gate: Gate = Gate()
    window: Window | None = None
    remember: tuple[Remember, ...] = ()
    retention: Retention = Retention()

    @property
    def observed(self) -> bool:
        """Whether the old engine is in front, and only a copy reaches us."""
        return self.legacy is not None and self.legacy.endpoint is None

    @property
    def taps(self) -> tuple[Tap, ...]:
        return self.legacy.taps if self.legacy else ()

    @property
    def destinations(self) -> tuple[Destination, ...]:
        return self.target.destinations if self.target else ()

    def endpoint(self, destination: str | None) -> Endpoint | None:
        """Where one of its ways out ends, `legacy` among them; None where that is no endpoint, or there is none."""
        if destination == "legacy":
            return self.legacy.endpoint if self.legacy else None
        return next((each.endpoint for each in self.destinations if each.name == destination), None)

    @property
    def feed(self) -> str | None:
        """The feed that carries it, if one does."""
        return self.source.name if isinstance(self.source, FromFeed) else None

    @property
    def door(self) -> str:
        """The name of what its messages come in by: its feed's, or its own."""
        return self.feed or self.id


@dataclass(frozen=True, slots=True)
class Configuration:
    """Everything one process is built from."""

    service: Service
    channels: tuple[Channel, ...]
    endpoints: Mapping[str, Endpoint]
    feeds: tuple[Feed, ...] = ()

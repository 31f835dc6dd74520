"""What people do to channels, and how the runs they start go on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from engine.observe.events import Event, Level
from engine.observe.metrics import METRICS

RUNS = METRICS.gauge("interlock_runs", "Runs that go on, by verb", "verb")
HELD = METRICS.gauge("interlock_held", "1 while the channel is held", "channel")
OVERDUE = METRICS.gauge("interlock_hold_overdue_seconds", "Seconds since a hold should have been released", "channel")
ENDED = METRICS.counter("interlock_runs_total", "Runs that have ended, by verb and how", "verb", "code")


@dataclass(frozen=True, slots=True)
class RunStarted(Event):
    run: int
    verb: str
    who: str
    said: ClassVar[str] = "run {run}: {verb}, by {who}"

    def count(self) -> None:
        RUNS.of(self.verb).n += 1


@dataclass(frozen=True, slots=True)
class RunStep(Event):
    run: int
    verb: str
    step: str
    said: ClassVar[str] = "run {run}: {verb}: {step}"


@dataclass(frozen=True, slots=True)
class RunEnded(Event):
    """code: done, aborted or failed."""

    run: int
    verb: str
    code: str
    reason: str
    said: ClassVar[str] = "run {run}: {verb} {code}: {reason}"

    def count(self) -> None:
        RUNS.of(self.verb).n -= 1
        ENDED.of(self.verb, self.code).n += 1


@dataclass(frozen=True, slots=True)
class ChannelHeld(Event):
    channel: str
    who: str
    seconds: float
    level: ClassVar[Level | None] = "warning"
    said: ClassVar[str] = "held by {who} for {seconds:.0f} s at most"

    def count(self) -> None:
        HELD.of(self.channel).n = 1


@dataclass(frozen=True, slots=True)
class ChannelStopped(Event):
    """A message is dead, and by its destination's policy nothing more is sent until a person decides."""

    channel: str
    destination: str
    seq: int
    level: ClassVar[Level | None] = "error"
    said: ClassVar[str] = "stopped: message {seq} is dead at {destination}; what comes is stored, and nothing is sent"

    def count(self) -> None:
        HELD.of(self.channel).n = 1


@dataclass(frozen=True, slots=True)
class ChannelReleased(Event):
    channel: str
    who: str
    said: ClassVar[str] = "released by {who}"

    def count(self) -> None:
        HELD.of(self.channel).n = 0
        OVERDUE.of(self.channel).n = 0


@dataclass(frozen=True, slots=True)
class HoldOverdue(Event):
    channel: str
    who: str
    seconds: float
    level: ClassVar[Level | None] = "error"
    said: ClassVar[str] = "still held, {seconds:.0f} s after its time: {who} set it, release it"

    def count(self) -> None:
        OVERDUE.of(self.channel).n = self.seconds


@dataclass(frozen=True, slots=True)
class Audited(Event):
    """A row of the audit chain, by its number and hash: a copy of the head outside the ledger."""

    first_seq: int
    verb: str
    who: str
    reason: str
    said: ClassVar[str] = "audit {first_seq}: {verb} by {who} ({reason})"

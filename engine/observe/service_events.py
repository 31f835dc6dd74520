"""What happens to the process and its channels as a whole."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from engine.observe.events import Event, Level
from engine.observe.metrics import METRICS, Family, Gauge

INFO = METRICS.gauge("interlock_info", "1, with the version that runs", "version")
PHASE = METRICS.gauge("interlock_phase", "1 for the phase of the channel's newest epoch", "channel", "phase")
STRANDED = METRICS.gauge(
    "interlock_stranded_messages",
    "Messages due at a destination that is no longer configured",
    "channel",
    "destination",
)
CERTIFICATE_DAYS = METRICS.gauge(
    "interlock_certificate_days",
    "Days until the earliest certificate of a channel, feed, tap or endpoint expires; below 0 it has",
    "owner",
)
TABLE_BROKEN = METRICS.gauge("interlock_table_broken", "1 while a table's file is gone or has a mistake", "table")
MAPPINGS_BROKEN = METRICS.gauge("interlock_mappings_broken", "1 while the site's mapping files have mistakes")
TABLE_STALE = METRICS.gauge("interlock_table_stale", "1 while a table in use is older than it may be", "table")
FAULTS = METRICS.counter("interlock_faults_total", "Defects of ours that were caught and reported")

PHASES = ("outside", "legacy", "parallel", "live", "retired")


@dataclass(frozen=True, slots=True)
class ServiceStarted(Event):
    version: str
    channels: int
    address: str
    seconds: float
    said: ClassVar[str] = "interlock {version}: {channels} channels, http on {address}, ready after {seconds:.2f} s"

    def count(self) -> None:
        INFO.of(self.version).n = 1


@dataclass(frozen=True, slots=True)
class ServiceStopping(Event):
    reason: str
    said: ClassVar[str] = "stopping: {reason}"


@dataclass(frozen=True, slots=True)
class ServiceStopped(Event):
    seconds: float
    said: ClassVar[str] = "stopped after {seconds:.2f} s"


@dataclass(frozen=True, slots=True)
class HangupIgnored(Event):
    """Tables and certificates are read again by themselves; all other files are at a start."""

    level: ClassVar[Level | None] = "warning"
    said: ClassVar[str] = "SIGHUP is ignored: what has changed in the configuration wants a restart"


@dataclass(frozen=True, slots=True)
class ConfigNoted(Event):
    """A key of the configuration that is right and that this version does not act upon yet; `reason` has its place."""

    reason: str
    level: ClassVar[Level | None] = "warning"
    said: ClassVar[str] = "{reason}"


@dataclass(frozen=True, slots=True)
class EpochOpened(Event):
    channel: str
    phase: str
    first_seq: int
    reason: str
    said: ClassVar[str] = "{phase} from message {first_seq} on ({reason})"

    def count(self) -> None:
        for phase in PHASES:
            PHASE.of(self.channel, phase).n = int(phase == self.phase)


def count(gauge: Family[Gauge], before: Iterable[str], now: Collection[str]) -> None:
    """1 for each that is so now, 0 for each that no longer is."""
    for name in {*before, *now}:
        gauge.of(name).n = int(name in now)


@dataclass(frozen=True, slots=True)
class MappingsRead(Event):
    """The site's mapping files have changed, have no mistake, and are used from now on."""

    said: ClassVar[str] = "the mappings were read anew"


@dataclass(frozen=True, slots=True)
class MappingsBroken(Event):
    """The site's mapping files have changed and have mistakes: what was read before is still used."""

    mistakes: int
    reason: str
    level: ClassVar[Level | None] = "error"
    said: ClassVar[str] = (
        "the mappings could not be read anew, the old ones stay; {mistakes} mistakes, the first: {reason}"
    )


@dataclass(frozen=True, slots=True)
class TableRead(Event):
    """A table of a v2 mapping has new content, and is used from now on."""

    table: str
    said: ClassVar[str] = "the table {table} was read anew"


@dataclass(frozen=True, slots=True)
class TableBroken(Event):
    """A table's file is gone or has a mistake: what was read before is still used, over a start as well."""

    table: str
    reason: str
    level: ClassVar[Level | None] = "error"
    said: ClassVar[str] = "the table {table} could not be read anew, its old content stays: {reason}"


@dataclass(frozen=True, slots=True)
class TableStale(Event):
    """A table that is in use is older than it may be: what is mapped with it waits, or is refused, as it says."""

    table: str
    level: ClassVar[Level | None] = "error"
    said: ClassVar[str] = "the table {table} is older than its max_age"


@dataclass(frozen=True, slots=True)
class PhaseSeen(Event):
    """A channel's phase as the ledger has it at start. Counted only."""

    channel: str
    phase: str
    level: ClassVar[Level | None] = None

    def count(self) -> None:
        for phase in PHASES:
            PHASE.of(self.channel, phase).n = int(phase == self.phase)


@dataclass(frozen=True, slots=True)
class Stranded(Event):
    """Messages are still due at a destination that the configuration no longer has."""

    channel: str
    destination: str
    open: int
    level: ClassVar[Level | None] = "error"
    said: ClassVar[str] = "{open} messages are due at {destination}, which is no longer configured: put it back"

    def count(self) -> None:
        STRANDED.of(self.channel, self.destination).n = self.open


@dataclass(frozen=True, slots=True)
class CertificateRead(Event):
    """Changed files were read again: new connections use them."""

    endpoint: str
    said: ClassVar[str] = "the certificates of {endpoint} have changed and are in use for new connections"


@dataclass(frozen=True, slots=True)
class CertificateBroken(Event):
    endpoint: str
    reason: str
    level: ClassVar[Level | None] = "error"
    said: ClassVar[str] = "the certificates of {endpoint} cannot be used, those read before stay in use: {reason}"


@dataclass(frozen=True, slots=True)
class Fault(Event):
    """A defect of ours: an exception nobody expected. `reason` is its class and place, never its text."""

    reason: str
    level: ClassVar[Level | None] = "error"
    limited: ClassVar[bool] = True
    said: ClassVar[str] = "defect: {reason}"

    @classmethod
    def of(cls, error: BaseException) -> Fault:
        """The fault that an exception is: its class and the line that raised it."""
        trace = error.__traceback__
        while trace and trace.tb_next:
            trace = trace.tb_next
        where = f" at {Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}" if trace else ""
        return cls(type(error).__name__ + where)

    def count(self) -> None:
        FAULTS.of().n += 1

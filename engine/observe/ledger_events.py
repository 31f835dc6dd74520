"""What happens to the durable record."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from engine.observe.events import Event, Level
from engine.observe.metrics import METRICS

WRITABLE = METRICS.gauge("interlock_ledger_writable", "0 while the ledger cannot be written: nothing is acknowledged")
FAILURES = METRICS.counter("interlock_ledger_failures_total", "Transactions that failed")
COMMITS = METRICS.counter("interlock_ledger_commits_total", "Transactions made durable")
UNBALANCED = METRICS.gauge(
    "interlock_ledger_unbalanced", "1 where stored does not equal settled and open", "channel", "destination"
)
WRITABLE.of().n = 1


@dataclass(frozen=True, slots=True)
class LedgerUnwritable(Event):
    """A commit failed. Senders get no acknowledgement until it succeeds again."""

    reason: str
    level: ClassVar[Level | None] = "error"
    limited: ClassVar[bool] = True
    said: ClassVar[str] = "the ledger cannot be written, nothing is acknowledged: {reason}"

    def count(self) -> None:
        WRITABLE.of().n = 0
        FAILURES.of().n += 1


@dataclass(frozen=True, slots=True)
class LedgerRecovered(Event):
    seconds: float
    said: ClassVar[str] = "the ledger can be written again, after {seconds:.1f} s"

    def count(self) -> None:
        WRITABLE.of().n = 1


@dataclass(frozen=True, slots=True)
class LedgerUnbalanced(Event):
    """stored ≠ settled + open: the zero-loss equation does not hold. A defect of ours; call the engineers."""

    channel: str
    destination: str
    level: ClassVar[Level | None] = "error"
    limited: ClassVar[bool] = True
    said: ClassVar[str] = "the ledger does not balance at {destination}"

    def count(self) -> None:
        UNBALANCED.of(self.channel, self.destination).n = 1


@dataclass(frozen=True, slots=True)
class LedgerOpened(Event):
    """messages: stored so far, in all channels. open: not settled; one that is due at two destinations counts twice."""

    ledger: str
    incarnation: str
    term: int
    messages: int
    open: int
    said: ClassVar[str] = (
        "ledger {ledger}, incarnation {incarnation}, term {term}; taken up: {messages} messages, {open} open"
    )


BACKUPS = METRICS.counter("interlock_backups_total", "Backups of the ledger, by what became of them", "state")


@dataclass(frozen=True, slots=True)
class BackedUp(Event):
    """A backup was written, read back and counted."""

    messages: int
    size: int
    seconds: float
    said: ClassVar[str] = "a backup of {messages} messages, {size} bytes, in {seconds:.1f} s"

    def count(self) -> None:
        BACKUPS.of("done").n += 1


@dataclass(frozen=True, slots=True)
class BackupFailed(Event):
    """Who asked for it is told why."""

    level: ClassVar[Level | None] = "error"
    said: ClassVar[str] = "a backup could not be made"

    def count(self) -> None:
        BACKUPS.of("failed").n += 1


PRUNED = METRICS.counter("interlock_pruned_total", "Rows that were kept long enough, and removed", "channel", "code")


@dataclass(frozen=True, slots=True)
class Pruned(Event):
    """What was kept long enough is gone. code: the class; messages: how many rows of it; size: their bytes."""

    channel: str
    code: str
    messages: int
    size: int
    said: ClassVar[str] = "removed by age: {messages} of {code}, {size} bytes"

    def count(self) -> None:
        PRUNED.of(self.channel, self.code).n += self.messages


@dataclass(frozen=True, slots=True)
class RowFailed(Event):
    """One message of a batch could not be stored; the others of the batch were."""

    channel: str
    reason: str
    level: ClassVar[Level | None] = "error"
    limited: ClassVar[bool] = True
    said: ClassVar[str] = "a message could not be stored: {reason}"

    def count(self) -> None:
        FAILURES.of().n += 1

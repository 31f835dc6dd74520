"""What happens where messages, or the old engine's output, come as files.

No event has a file's name: senders put patients' names into it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from engine.observe.events import Event, Level
from engine.observe.metrics import METRICS
from engine.observe.tap_events import LISTENING

PLACE_UP = METRICS.gauge("interlock_place_up", "1 while the channel's folder can be used", "channel")
WAITING = METRICS.gauge("interlock_files_waiting", "Files in the channel's folder that are not taken yet", "channel")
READ = METRICS.counter("interlock_files_read_total", "Files whose messages were stored", "channel")
FAILED = METRICS.counter("interlock_files_failed_total", "Files that were set aside, nothing of them stored", "channel")
AT_TAP = METRICS.gauge(
    "interlock_tap_files_waiting", "Files of the old engine that its tap has not taken yet", "channel", "tap"
)


@dataclass(frozen=True, slots=True)
class PlaceUp(Event):
    channel: str
    said: ClassVar[str] = "the folder that files come to can be used"

    def count(self) -> None:
        PLACE_UP.of(self.channel).n = 1


@dataclass(frozen=True, slots=True)
class PlaceDown(Event):
    channel: str
    reason: str
    level: ClassVar[Level | None] = "error"
    said: ClassVar[str] = "the folder that files come to cannot be used: {reason}"

    def count(self) -> None:
        PLACE_UP.of(self.channel).n = 0


@dataclass(frozen=True, slots=True)
class FileRead(Event):
    """Its messages are durable, all of them. Counted only."""

    channel: str
    messages: int
    size: int
    level: ClassVar[Level | None] = None

    def count(self) -> None:
        READ.of(self.channel).n += 1


@dataclass(frozen=True, slots=True)
class FileFailed(Event):
    """Nothing of it was stored; it goes to the folder of failed files, its beginning is kept as an intake event."""

    channel: str
    reason: str
    size: int
    level: ClassVar[Level | None] = "error"
    limited: ClassVar[bool] = True
    said: ClassVar[str] = "a file of {size} bytes was set aside: {reason}"

    def count(self) -> None:
        FAILED.of(self.channel).n += 1


@dataclass(frozen=True, slots=True)
class FileFoundAgain(Event):
    """A crash came between its transaction and its archive: it is moved away, and not stored again."""

    channel: str
    size: int
    said: ClassVar[str] = "a file of {size} bytes is archived, which was stored before the crash of an earlier process"


@dataclass(frozen=True, slots=True)
class FilesLeft(Event):
    """The folder is no longer ours to read. What is claimed there is seen by nobody, until we read it again."""

    channel: str
    level: ClassVar[Level | None] = "error"
    said: ClassVar[str] = "a file that was in hand may be left in the folder, hidden from whoever reads it next"


@dataclass(frozen=True, slots=True)
class OutputFolderUp(Event):
    channel: str
    tap: str
    said: ClassVar[str] = "tap {tap}: the folder that the old engine writes to can be used"

    def count(self) -> None:
        LISTENING.of(self.channel, self.tap).n = 1


@dataclass(frozen=True, slots=True)
class OutputFolderDown(Event):
    """The old engine's output does not reach its endpoint."""

    channel: str
    tap: str
    reason: str
    level: ClassVar[Level | None] = "error"
    said: ClassVar[str] = "tap {tap}: the folder that the old engine writes to cannot be used: {reason}"

    def count(self) -> None:
        LISTENING.of(self.channel, self.tap).n = 0


@dataclass(frozen=True, slots=True)
class OutputFolderLeft(Event):
    channel: str
    tap: str
    said: ClassVar[str] = "tap {tap}: the folder that the old engine writes to is no longer read"

    def count(self) -> None:
        LISTENING.of(self.channel, self.tap).n = 0


@dataclass(frozen=True, slots=True)
class OutputFileFailed(Event):
    """It goes nowhere, and into the folder of failed files."""

    channel: str
    tap: str
    reason: str
    size: int
    level: ClassVar[Level | None] = "error"
    limited: ClassVar[bool] = True
    said: ClassVar[str] = "tap {tap}: a file of {size} bytes was set aside and not forwarded: {reason}"


@dataclass(frozen=True, slots=True)
class OutputFileWaits(Event):
    """The folder of the real endpoint does not take what is to go on: it is tried again, and what follows waits."""

    channel: str
    tap: str
    reason: str
    level: ClassVar[Level | None] = "error"
    said: ClassVar[str] = "tap {tap}: a file waits, its endpoint's folder does not take it: {reason}"

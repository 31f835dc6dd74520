"""What mappings could not carry over. Neither a code nor a value ever stands here, only where it was."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from engine.observe.events import Event, Level
from engine.observe.metrics import METRICS

UNMAPPED = METRICS.gauge(
    "interlock_unmapped_codes", "Codes that no table knew and nobody has decided about", "channel", "table"
)
LOST = METRICS.counter(
    "interlock_lost_values_total", "Values of delivered messages that are in no resource", "channel", "field"
)


@dataclass(frozen=True, slots=True)
class CodeUnmapped(Event):
    """A code was seen for the first time that a table does not know. It went on as it came. seq: a message with it."""

    channel: str
    table: str
    seq: int
    level: ClassVar[Level | None] = "warning"
    limited: ClassVar[bool] = True
    said: ClassVar[str] = "table {table} does not know a code of message {seq}, which went on as it came"


@dataclass(frozen=True, slots=True)
class MappingMissed(Event):
    """A code that a person called mapped was not known again: it is open again."""

    channel: str
    table: str
    seq: int
    level: ClassVar[Level | None] = "warning"
    limited: ClassVar[bool] = True
    said: ClassVar[str] = "table {table} does not know a code of message {seq} that was called mapped; it is open again"


@dataclass(frozen=True, slots=True)
class CodesFull(Event):
    """A channel has as many unmapped codes as are kept: a coded field holds free text, most likely."""

    channel: str
    level: ClassVar[Level | None] = "warning"
    said: ClassVar[str] = "there are too many unmapped codes: further ones are only counted"


@dataclass(frozen=True, slots=True)
class CodeDecided(Event):
    """A person has decided about an unmapped code. code: the state that it is in now."""

    channel: str
    table: str
    code: str
    who: str
    said: ClassVar[str] = "an unmapped code of table {table} is {code}, by {who}"


@dataclass(frozen=True, slots=True)
class ValuesLost(Event):
    """Values of a field are in no resource; counted only."""

    channel: str
    field: str
    lost: int
    level: ClassVar[Level | None] = None

    def count(self) -> None:
        LOST.of(self.channel, self.field).n += self.lost


@dataclass(frozen=True, slots=True)
class GapsWait(Event):
    """What was noted could not be written. It is kept, and tried again."""

    reason: str
    level: ClassVar[Level | None] = "warning"
    limited: ClassVar[bool] = True
    said: ClassVar[str] = "unmapped codes and lost values could not be written yet: {reason}"

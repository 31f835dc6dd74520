"""What happens behind the hot path: messages read again, for search and to be remembered."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from engine.observe.events import Event, Level
from engine.observe.metrics import METRICS

SEARCH_LAG = METRICS.gauge("interlock_search_lag_messages", "Stored messages whose search keys are still to be read")
REMEMBER_LAG = METRICS.gauge(
    "interlock_remember_lag_messages", "Stored messages that are still to be asked what to remember of them"
)
NOT_REMEMBERED = METRICS.counter(
    "interlock_not_remembered_total", "Messages whose remember rule failed: nothing of them is remembered", "channel"
)


@dataclass(frozen=True, slots=True)
class NotRemembered(Event):
    """A rule could not be applied to a message. What looks for it later finds nothing of this one."""

    channel: str
    seq: int
    reason: str
    level: ClassVar[Level | None] = "error"
    limited: ClassVar[bool] = True
    said: ClassVar[str] = "nothing is remembered of message {seq}: {reason}"

    def count(self) -> None:
        NOT_REMEMBERED.of(self.channel).n += 1


@dataclass(frozen=True, slots=True)
class FollowerWaits(Event):
    """What was read could not be written. It is kept, and tried again."""

    reason: str
    level: ClassVar[Level | None] = "warning"
    limited: ClassVar[bool] = True
    said: ClassVar[str] = "search keys or remembered values could not be written yet: {reason}"

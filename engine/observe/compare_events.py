"""What the comparison of the old engine's work with ours finds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from engine.observe.events import Event, Level
from engine.observe.metrics import METRICS

COMPARED = METRICS.counter(
    "interlock_compared_total", "Inputs with a verdict, by tap (empty: the answers)", "channel", "tap", "verdict"
)
DISCREPANCIES = METRICS.counter(
    "interlock_discrepancies_opened_total", "Discrepancies that became open", "channel", "tap", "severity"
)


@dataclass(frozen=True, slots=True)
class DiscrepancyOpened(Event):
    """The two sides differ in a way that nobody has settled. `code`: its severity; `reason`: its path and kind."""

    channel: str
    tap: str
    code: str
    reason: str
    level: ClassVar[Level | None] = "warning"
    limited: ClassVar[bool] = True
    said: ClassVar[str] = "tap {tap}: a {code} difference from the old engine: {reason}"

    def count(self) -> None:
        DISCREPANCIES.of(self.channel, self.tap, self.code).n += 1

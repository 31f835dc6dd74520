"""What happens to the worker processes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from engine.observe.events import Event, Level
from engine.observe.metrics import METRICS

UP = METRICS.gauge("interlock_worker_up", "1 while the worker process takes messages", "worker")
MEMORY = METRICS.gauge("interlock_worker_resident_bytes", "Memory of the worker process", "worker")
CPU = METRICS.gauge("interlock_worker_cpu_seconds", "CPU time of the worker process that runs", "worker")
ENDED = METRICS.counter("interlock_worker_ends_total", "Worker processes that ended though nobody asked", "worker")


WAITS = METRICS.gauge(
    "interlock_delivery_waits", "1 while workers of an earlier process run, and nothing is sent therefore"
)


@dataclass(frozen=True, slots=True)
class WorkerStarted(Event):
    worker: int
    pid: int
    said: ClassVar[str] = "worker {worker} takes messages (process {pid})"


@dataclass(frozen=True, slots=True)
class WorkerEnded(Event):
    """`begun`: messages that were on their way there."""

    worker: int
    reason: str
    begun: int
    level: ClassVar[Level | None] = "error"
    said: ClassVar[str] = (
        "worker {worker} ended: {reason}; {begun} messages were on their way there and may have been taken;"
        " it is started again"
    )

    def count(self) -> None:
        ENDED.of(str(self.worker)).n += 1


@dataclass(frozen=True, slots=True)
class DeliveryWaits(Event):
    level: ClassVar[Level | None] = "warning"
    said: ClassVar[str] = (
        "workers of an earlier process still run: messages are stored and acknowledged, nothing is sent until they end"
    )

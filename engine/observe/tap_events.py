"""What the old engine sends to its taps, and what becomes of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from engine.observe.events import Event, Level
from engine.observe.metrics import ACK_SECONDS, METRICS

LISTENING = METRICS.gauge("interlock_tap_listening", "1 while the tap's port is open", "channel", "tap")
CONNECTIONS = METRICS.gauge("interlock_tap_connections", "Connections of the old engine to the tap", "channel", "tap")
OUTPUTS = METRICS.counter(
    "interlock_tap_outputs_total", "Outputs of the old engine, by what became of them", "channel", "tap", "decision"
)
ANSWERED = METRICS.histogram(
    "interlock_tap_answer_seconds",
    "From the last byte of an output to the answer of its real endpoint, relayed",
    "channel",
    "tap",
    bounds=ACK_SECONDS,
)
PARKED = METRICS.gauge(
    "interlock_tap_parked", "Outputs of the old engine that wait for a person to decide", "channel", "tap"
)
LOST = METRICS.counter(
    "interlock_tap_outputs_unkept_total", "Outputs that went their way and could not be kept for comparison", "channel"
)


@dataclass(frozen=True, slots=True)
class TapOpened(Event):
    channel: str
    tap: str
    address: str
    said: ClassVar[str] = "tap {tap}: listening on {address}"

    def count(self) -> None:
        LISTENING.of(self.channel, self.tap).n = 1


@dataclass(frozen=True, slots=True)
class TapClosed(Event):
    channel: str
    tap: str
    address: str
    said: ClassVar[str] = "tap {tap}: no longer listening on {address}"

    def count(self) -> None:
        LISTENING.of(self.channel, self.tap).n = 0


@dataclass(frozen=True, slots=True)
class TapFailed(Event):
    """Its port cannot be had: the old engine's output does not reach its endpoint."""

    channel: str
    tap: str
    address: str
    reason: str
    level: ClassVar[Level | None] = "error"
    said: ClassVar[str] = "tap {tap}: cannot listen on {address}: {reason}"

    def count(self) -> None:
        LISTENING.of(self.channel, self.tap).n = 0


@dataclass(frozen=True, slots=True)
class TapConnected(Event):
    channel: str
    tap: str
    peer: str
    connection: int
    said: ClassVar[str] = "tap {tap}: {peer} connected"

    def count(self) -> None:
        CONNECTIONS.of(self.channel, self.tap).n += 1


@dataclass(frozen=True, slots=True)
class TapDisconnected(Event):
    channel: str
    tap: str
    peer: str
    connection: int
    said: ClassVar[str] = "tap {tap}: {peer} is gone"

    def count(self) -> None:
        CONNECTIONS.of(self.channel, self.tap).n -= 1


@dataclass(frozen=True, slots=True)
class TapInputBad(Event):
    """Bytes at a tap that are no message: they go nowhere."""

    channel: str
    tap: str
    peer: str
    bytes: int
    reason: str
    level: ClassVar[Level | None] = "warning"
    limited: ClassVar[bool] = True
    said: ClassVar[str] = "tap {tap}: {bytes} bytes from {peer} were passed to nobody: {reason}"


@dataclass(frozen=True, slots=True)
class OutputParked(Event):
    """An output came that belongs to no input we know, and the old engine is no longer the one to send."""

    channel: str
    tap: str
    reason: str
    level: ClassVar[Level | None] = "error"
    limited: ClassVar[bool] = True
    said: ClassVar[str] = "tap {tap}: an output is kept and not sent: {reason}; a person decides"


@dataclass(frozen=True, slots=True)
class OutputDecided(Event):
    """A person has decided about an output that was parked, and it waits no more. code: what became of it."""

    channel: str
    tap: str
    code: str
    who: str
    said: ClassVar[str] = "tap {tap}: an output that was kept is {code}, by {who}"

    def count(self) -> None:
        OUTPUTS.of(self.channel, self.tap, self.code).n += 1


@dataclass(frozen=True, slots=True)
class OutputUnanswered(Event):
    """The real endpoint gave no answer to a forwarded output: the old engine hears none either, and repeats it."""

    channel: str
    tap: str
    reason: str
    level: ClassVar[Level | None] = "warning"
    limited: ClassVar[bool] = True
    said: ClassVar[str] = "tap {tap}: no answer from its endpoint ({reason})"

    def count(self) -> None:
        OUTPUTS.of(self.channel, self.tap, "unanswered").n += 1

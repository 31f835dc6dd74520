"""What happens between the ledger and the places outside."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from engine.observe.events import Event, Level
from engine.observe.metrics import DELIVERY_SECONDS, METRICS

SETTLED = METRICS.counter(
    "interlock_settled_total", "Messages settled, by the state they ended in", "channel", "destination", "state"
)
ATTEMPTS_FAILED = METRICS.counter(
    "interlock_delivery_failures_total",
    "Attempts that did not deliver, by what follows",
    "channel",
    "destination",
    "state",
)
DELIVERY_LATENCY = METRICS.histogram(
    "interlock_delivery_seconds", "Of one attempt that delivered", "channel", "destination", bounds=DELIVERY_SECONDS
)
POINTS = METRICS.counter("interlock_medplum_quota_points_total", "FHIR quota points used", "channel", "destination")
RELAYED = METRICS.counter("interlock_relayed_total", "Answers of the old engine passed to the sender", "channel")
RELAY_LATE = METRICS.counter("interlock_relay_late_total", "Answers that came too late to be relayed", "channel")
BREAKER = METRICS.gauge("interlock_breaker_open", "1 while the endpoint is in trouble and nothing is sent", "endpoint")
RESTING = METRICS.gauge("interlock_endpoint_resting", "1 while the endpoint is outside its delivery hours", "endpoint")
ANSWERS = METRICS.gauge("interlock_answers_listening", "1 while the port for its answers is open", "endpoint")
TURNED_AWAY = METRICS.counter(
    "interlock_answers_refused_total", "Connections turned away at the port for the endpoint's answers", "endpoint"
)
LATER_NO = METRICS.counter(
    "interlock_later_no_total", "Messages that were settled when the endpoint said no to them", "channel", "destination"
)
STRAY = METRICS.counter("interlock_stray_bytes_total", "Bytes from an endpoint that nobody asked for", "endpoint")
OPEN = METRICS.gauge("interlock_open_messages", "Messages not settled, by state", "channel", "destination", "state")
OLDEST = METRICS.gauge(
    "interlock_oldest_open_seconds", "Age of the oldest message not settled", "channel", "destination"
)


@dataclass(frozen=True, slots=True)
class Refused(Event):
    """The destination said no and the sender was told: the sender owns the matter."""

    channel: str
    destination: str
    seq: int
    reason: str
    level: ClassVar[Level | None] = "warning"
    limited: ClassVar[bool] = True
    said: ClassVar[str] = "{destination} refused message {seq}: {reason}"

    def count(self) -> None:
        SETTLED.of(self.channel, self.destination, "refused").n += 1


@dataclass(frozen=True, slots=True)
class Retrying(Event):
    channel: str
    destination: str
    seq: int
    reason: str
    in_s: float
    level: ClassVar[Level | None] = "warning"
    limited: ClassVar[bool] = True
    said: ClassVar[str] = "{destination} did not take message {seq} ({reason}), again in {in_s:.1f} s"

    def count(self) -> None:
        ATTEMPTS_FAILED.of(self.channel, self.destination, "retrying").n += 1


@dataclass(frozen=True, slots=True)
class Unknown(Event):
    """Sent, and no answer: it may have been taken."""

    channel: str
    destination: str
    seq: int
    reason: str
    level: ClassVar[Level | None] = "warning"
    limited: ClassVar[bool] = True
    said: ClassVar[str] = "{destination} may have taken message {seq}: {reason}"

    def count(self) -> None:
        ATTEMPTS_FAILED.of(self.channel, self.destination, "unknown").n += 1


@dataclass(frozen=True, slots=True)
class Dead(Event):
    channel: str
    destination: str
    seq: int
    reason: str
    level: ClassVar[Level | None] = "error"
    limited: ClassVar[bool] = True
    said: ClassVar[str] = "message {seq} needs a person, {destination} will never take it: {reason}"

    def count(self) -> None:
        ATTEMPTS_FAILED.of(self.channel, self.destination, "dead").n += 1


@dataclass(frozen=True, slots=True)
class Parked(Event):
    channel: str
    destination: str
    seq: int
    reason: str
    level: ClassVar[Level | None] = "warning"
    limited: ClassVar[bool] = True
    said: ClassVar[str] = "message {seq} waits at {destination}: {reason}"

    def count(self) -> None:
        ATTEMPTS_FAILED.of(self.channel, self.destination, "parked").n += 1


@dataclass(frozen=True, slots=True)
class Relayed(Event):
    """The old engine's answer went to the sender as it came. Counted only."""

    channel: str
    seq: int
    code: str
    seconds: float
    level: ClassVar[Level | None] = None

    def count(self) -> None:
        RELAYED.of(self.channel).n += 1


@dataclass(frozen=True, slots=True)
class RelayLate(Event):
    channel: str
    seq: int
    seconds: float
    level: ClassVar[Level | None] = "warning"
    limited: ClassVar[bool] = True
    said: ClassVar[str] = "no answer of the old engine to message {seq} after {seconds:.1f} s"

    def count(self) -> None:
        RELAY_LATE.of(self.channel).n += 1


@dataclass(frozen=True, slots=True)
class LaterNo(Event):
    """The endpoint said no to a message that was settled already, after an accept acknowledgement or where no answer
    was waited for. The answer is kept."""

    channel: str
    destination: str
    seq: int
    reason: str
    level: ClassVar[Level | None] = "error"
    limited: ClassVar[bool] = True
    said: ClassVar[str] = "{destination} said no to message {seq}, which had counted as delivered: {reason}"

    def count(self) -> None:
        LATER_NO.of(self.channel, self.destination).n += 1


@dataclass(frozen=True, slots=True)
class BreakerOpened(Event):
    """Nothing more is sent to the endpoint until a trial succeeds; no message is blamed."""

    endpoint: str
    reason: str
    level: ClassVar[Level | None] = "error"
    said: ClassVar[str] = "nothing is sent to {endpoint} any more: {reason}"

    def count(self) -> None:
        BREAKER.of(self.endpoint).n = 1


@dataclass(frozen=True, slots=True)
class BreakerClosed(Event):
    endpoint: str
    said: ClassVar[str] = "{endpoint} takes messages again"

    def count(self) -> None:
        BREAKER.of(self.endpoint).n = 0


@dataclass(frozen=True, slots=True)
class HoursOver(Event):
    """The endpoint's delivery hours are over, as planned. `until`: when they begin again, ISO 8601 in their zone."""

    endpoint: str
    until: str
    said: ClassVar[str] = "{endpoint} is closed until {until}: what comes for it waits"

    def count(self) -> None:
        RESTING.of(self.endpoint).n = 1
        BREAKER.of(self.endpoint).n = 0  # it is not asked any more whether it is back


@dataclass(frozen=True, slots=True)
class HoursBegun(Event):
    endpoint: str
    said: ClassVar[str] = "{endpoint} is within its delivery hours again"

    def count(self) -> None:
        RESTING.of(self.endpoint).n = 0


@dataclass(frozen=True, slots=True)
class AnswersHeard(Event):
    """The port where an endpoint's answers come is open."""

    endpoint: str
    address: str
    said: ClassVar[str] = "listening on {address} for the answers of {endpoint}"

    def count(self) -> None:
        ANSWERS.of(self.endpoint).n = 1


@dataclass(frozen=True, slots=True)
class AnswersUnheard(Event):
    """The port where an endpoint's answers come cannot be had: what is sent there stays unanswered."""

    endpoint: str
    address: str
    reason: str
    level: ClassVar[Level | None] = "error"
    said: ClassVar[str] = "cannot listen on {address} for the answers of {endpoint}: {reason}"

    def count(self) -> None:
        ANSWERS.of(self.endpoint).n = 0


@dataclass(frozen=True, slots=True)
class AnswererRefused(Event):
    """A connection to the port for an endpoint's answers that is closed before anything is read."""

    endpoint: str
    peer: str
    reason: str
    level: ClassVar[Level | None] = "warning"
    limited: ClassVar[bool] = True
    said: ClassVar[str] = "{peer} turned away where the answers of {endpoint} come: {reason}"

    def count(self) -> None:
        TURNED_AWAY.of(self.endpoint).n += 1


@dataclass(frozen=True, slots=True)
class StrayAnswer(Event):
    """Bytes that belong to no message sent; the connection was closed where they could be taken for an answer."""

    endpoint: str
    size: int
    level: ClassVar[Level | None] = "warning"
    limited: ClassVar[bool] = True
    said: ClassVar[str] = "{size} bytes from {endpoint} that nobody asked for"

    def count(self) -> None:
        STRAY.of(self.endpoint).n += self.size


@dataclass(frozen=True, slots=True)
class NotAtomic(Event):
    """Medplum's project has transactions without atomicity: delivery works stepwise, which is slower."""

    endpoint: str
    level: ClassVar[Level | None] = "warning"
    said: ClassVar[str] = "transactions of {endpoint} are not atomic: working stepwise (enable transaction-bundles)"

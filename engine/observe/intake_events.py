"""What happens at the vendor's port."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from engine.observe.codes import label
from engine.observe.events import Event, Level
from engine.observe.metrics import ACK_SECONDS, METRICS, Counter, Gauge, Histogram

LISTENING = METRICS.gauge(
    "interlock_listening", "1 while the channel's port is open, or the connection that it makes", "channel"
)
CONNECTIONS = METRICS.gauge("interlock_connections", "Peers connected to the channel's port", "channel")
CONNECTED = METRICS.counter("interlock_connects_total", "Connections accepted", "channel")
STORED = METRICS.counter("interlock_stored_total", "Messages stored durably", "channel")
STORED_BYTES = METRICS.counter("interlock_stored_bytes_total", "Bytes of the messages stored", "channel")
ACKNOWLEDGED = METRICS.counter("interlock_acknowledged_total", "Answers given to the sender", "channel", "code")
ACK_LATENCY = METRICS.histogram(
    "interlock_acknowledgement_seconds", "From the whole frame to its answer", "channel", bounds=ACK_SECONDS
)
REFUSED = METRICS.counter("interlock_frames_refused_total", "Frames answered no, not stored", "channel", "code")
WOULD_REFUSE = METRICS.counter(
    "interlock_would_refuse_total", "Frames passed on that phase live would refuse", "channel"
)
NOISE = METRICS.counter("interlock_noise_bytes_total", "Bytes outside of any frame", "channel")
BROKEN = METRICS.counter("interlock_frames_broken_total", "Frames too large or never ended", "channel", "reason")
EVIDENCE_LOST = METRICS.counter(
    "interlock_evidence_lost_total", "Intake events that could not be kept while the ledger was not writable", "channel"
)
TURNED_AWAY = METRICS.counter(
    "interlock_peers_refused_total", "Connections closed unread: not in `allow`, too many, TLS that failed", "channel"
)
UNREACHED = METRICS.counter(
    "interlock_unreached_total", "Attempts to connect to the peer that sends to the channel, and failed", "channel"
)
PROBED = METRICS.counter("interlock_probes_total", "Connections that ended without a byte", "channel")
STRAY = METRICS.counter(
    "interlock_stray_acknowledgements_total", "Acknowledgements on the channel's port that nothing waits for", "channel"
)
UNSENT = METRICS.counter(
    "interlock_answers_unsent_total", "Answers that could not be sent to where `ack.to` or `ack.listen` says", "channel"
)


class IntakeMeters:
    """One channel's cells of the hot path, looked up once when its listener is built."""

    __slots__ = ("accepted", "acknowledgement", "connections", "stored", "stored_bytes")

    def __init__(self, channel: str) -> None:
        self.stored: Counter = STORED.of(channel)
        self.stored_bytes: Counter = STORED_BYTES.of(channel)
        self.accepted: Counter = ACKNOWLEDGED.of(channel, "AA")
        self.acknowledgement: Histogram = ACK_LATENCY.of(channel)
        self.connections: Gauge = CONNECTIONS.of(channel)


@dataclass(frozen=True, slots=True)
class ListenerOpened(Event):
    channel: str
    address: str
    said: ClassVar[str] = "listening on {address}"

    def count(self) -> None:
        LISTENING.of(self.channel).n = 1


@dataclass(frozen=True, slots=True)
class ListenerClosed(Event):
    channel: str
    address: str
    said: ClassVar[str] = "no longer listening on {address}"

    def count(self) -> None:
        LISTENING.of(self.channel).n = 0


@dataclass(frozen=True, slots=True)
class ListenerFailed(Event):
    channel: str
    address: str
    reason: str
    level: ClassVar[Level | None] = "error"
    said: ClassVar[str] = "cannot listen on {address}: {reason}"

    def count(self) -> None:
        LISTENING.of(self.channel).n = 0


@dataclass(frozen=True, slots=True)
class SenderReached(Event):
    """A peer that we connect to, to receive, is there."""

    channel: str
    address: str
    said: ClassVar[str] = "connected to {address}, which sends"

    def count(self) -> None:
        LISTENING.of(self.channel).n = 1


@dataclass(frozen=True, slots=True)
class SenderUnreached(Event):
    """It is not there. Told when the reason changes, and once a minute; LISTENING and UNREACHED tell all the time."""

    channel: str
    address: str
    reason: str
    level: ClassVar[Level | None] = "error"
    said: ClassVar[str] = "cannot connect to {address}, which is to send: {reason}"


@dataclass(frozen=True, slots=True)
class PeerConnected(Event):
    channel: str
    peer: str
    connection: int
    said: ClassVar[str] = "{peer} connected (connection {connection})"

    def count(self) -> None:
        CONNECTED.of(self.channel).n += 1
        CONNECTIONS.of(self.channel).n += 1


@dataclass(frozen=True, slots=True)
class PeerClosed(Event):
    channel: str
    peer: str
    connection: int
    said: ClassVar[str] = "{peer} disconnected (connection {connection})"

    def count(self) -> None:
        CONNECTIONS.of(self.channel).n -= 1


@dataclass(frozen=True, slots=True)
class PeerRefused(Event):
    """A connection that is closed before anything is read: not in `listen.allow`, too many, or no TLS."""

    channel: str
    peer: str
    reason: str
    level: ClassVar[Level | None] = "warning"
    limited: ClassVar[bool] = True
    said: ClassVar[str] = "{peer} turned away: {reason}"

    def count(self) -> None:
        TURNED_AWAY.of(self.channel).n += 1


@dataclass(frozen=True, slots=True)
class FrameRefused(Event):
    """A whole frame that was answered no and not stored; its bytes are kept as an intake event. `code`: what its sender
    sees, `nothing` where it does not want to hear of it."""

    channel: str
    peer: str
    code: str
    reason: str
    size: int
    level: ClassVar[Level | None] = "warning"
    limited: ClassVar[bool] = True
    said: ClassVar[str] = "refused {size} bytes from {peer} with {code}: {reason}"

    def count(self) -> None:
        REFUSED.of(self.channel, label(self.code)).n += 1


@dataclass(frozen=True, slots=True)
class WouldRefuse(Event):
    """Stored and passed to the old engine as it came, though phase `live` would refuse it."""

    channel: str
    seq: int
    reason: str
    level: ClassVar[Level | None] = "warning"
    limited: ClassVar[bool] = True
    said: ClassVar[str] = "message {seq} would be refused in live: {reason}"

    def count(self) -> None:
        WOULD_REFUSE.of(self.channel).n += 1


@dataclass(frozen=True, slots=True)
class Noise(Event):
    """Bytes outside of any frame; kept as an intake event, never answered. `reason` says whether they are another
    protocol's, whose connection is closed."""

    channel: str
    peer: str
    size: int
    reason: str
    level: ClassVar[Level | None] = "warning"
    limited: ClassVar[bool] = True
    said: ClassVar[str] = "{size} bytes from {peer} that are no message: {reason}"

    def count(self) -> None:
        NOISE.of(self.channel).n += self.size


@dataclass(frozen=True, slots=True)
class StrayAcknowledgement(Event):
    """An acknowledgement from a sender that was sent nothing; kept as an intake event, never answered."""

    channel: str
    peer: str
    size: int
    level: ClassVar[Level | None] = "warning"
    limited: ClassVar[bool] = True
    said: ClassVar[str] = "an acknowledgement of {size} bytes from {peer} that nothing waits for"

    def count(self) -> None:
        STRAY.of(self.channel).n += 1


@dataclass(frozen=True, slots=True)
class FrameTooLarge(Event):
    channel: str
    peer: str
    size: int
    level: ClassVar[Level | None] = "error"
    limited: ClassVar[bool] = True
    said: ClassVar[str] = "a frame from {peer} passed the size limit at {size} bytes, connection closed"

    def count(self) -> None:
        BROKEN.of(self.channel, "too large").n += 1


@dataclass(frozen=True, slots=True)
class FrameUnfinished(Event):
    channel: str
    peer: str
    size: int
    reason: str
    level: ClassVar[Level | None] = "warning"
    limited: ClassVar[bool] = True
    said: ClassVar[str] = "a frame from {peer} ended after {size} bytes without its end: {reason}"

    def count(self) -> None:
        BROKEN.of(self.channel, "unfinished").n += 1


@dataclass(frozen=True, slots=True)
class AnswerUnsent(Event):
    """An answer that goes to a port of the sender's own was not taken there: the sender will repeat its message."""

    channel: str
    address: str
    reason: str
    level: ClassVar[Level | None] = "warning"
    limited: ClassVar[bool] = True
    said: ClassVar[str] = "an answer could not be sent to {address}: {reason}"

    def count(self) -> None:
        UNSENT.of(self.channel).n += 1


@dataclass(frozen=True, slots=True)
class Acknowledged(Event):
    """An answer went to the sender, `seconds` after its frame was whole. Counted only."""

    channel: str
    code: str
    seconds: float
    level: ClassVar[Level | None] = None

    def count(self) -> None:
        ACKNOWLEDGED.of(self.channel, label(self.code)).n += 1
        ACK_LATENCY.of(self.channel).observe(self.seconds)

"""Phases, and who may send in each. Pure: a channel's declaration and a phase in, a routing table out."""

from __future__ import annotations

from enum import Enum

from engine.config.model import Channel, Destination
from engine.ledger.routing import LEGACY, Mode, Route, Routing


class Phase(Enum):
    """Where a channel stands on its way from the old engine to this one."""

    OUTSIDE = "outside"  # the vendor's port is not ours
    LEGACY = "legacy"  # we pass through; the old engine works and answers
    PARALLEL = "parallel"  # the old engine works; we do the same work beside it, for comparison
    LIVE = "live"  # we send; the old engine's share is deferred
    RETIRED = "retired"  # the old engine is gone


MOVES: dict[Phase, frozenset[Phase]] = {
    Phase.OUTSIDE: frozenset({Phase.LEGACY}),
    Phase.LEGACY: frozenset({Phase.OUTSIDE, Phase.PARALLEL}),
    Phase.PARALLEL: frozenset({Phase.LEGACY, Phase.LIVE}),
    Phase.LIVE: frozenset({Phase.PARALLEL, Phase.RETIRED}),
    Phase.RETIRED: frozenset(),
}
"""The moves that exist. Nothing else."""

_LEGACY_PATH = {
    Phase.OUTSIDE: Mode.OFF,
    Phase.LEGACY: Mode.SEND,
    Phase.PARALLEL: Mode.SEND,
    Phase.LIVE: Mode.DEFER,
    Phase.RETIRED: Mode.OFF,
}

# Before a takeover and after a give-back too: whatever the old engine still sends to a tap, nobody else sends it.
_TAPS = {Phase.OUTSIDE: "forward", Phase.LEGACY: "forward", Phase.PARALLEL: "forward", Phase.LIVE: "hold"}

# Shadow data may go to Medplum before `live`; nothing may go to a real EMR or LIS endpoint before it.
_SHADOW = {Phase.PARALLEL: Mode.SEND, Phase.LIVE: Mode.SEND, Phase.RETIRED: Mode.SEND}
_REAL = {Phase.PARALLEL: Mode.CAPTURE, Phase.LIVE: Mode.SEND, Phase.RETIRED: Mode.SEND}
_TARGET = {"medplum": _SHADOW, "mllp": _REAL, "file": _REAL}


def first_phase(channel: Channel) -> Phase:
    """The phase of a channel's first epoch: as declared, else `legacy`, or `live` where there is no old engine."""
    if channel.phase:
        return Phase(channel.phase)
    return Phase.LEGACY if channel.legacy else Phase.LIVE


def transparent(phase: Phase) -> bool:
    """Whether the old engine is the one to judge a frame: then only size and durability can refuse one."""
    return phase in (Phase.LEGACY, Phase.PARALLEL)


def routing(channel: Channel, phase: Phase, versions: dict[str, str]) -> Routing:
    """The routing table of `channel` in `phase`. `versions`: destination name → content hash of its mapping."""
    rows: list[Route] = []
    if channel.legacy and channel.legacy.endpoint:
        rows.append(Route(LEGACY, "legacy", _LEGACY_PATH[phase], "channel"))
    rows.extend(_target_route(each, phase, versions.get(each.name)) for each in channel.destinations)
    taps = _TAPS.get(phase, "") if channel.legacy and channel.legacy.taps else ""
    return Routing(tuple(rows), _authority(channel, rows), taps)


def _authority(channel: Channel, rows: list[Route]) -> str | None:
    """Whose answer the sender gets: while the old engine does the work it is the old engine's, whatever comes later."""
    if channel.ack.source == "stored":
        return None
    sending = [row.destination for row in rows if row.mode is Mode.SEND]
    return next((name for name in (LEGACY, channel.ack.source) if name in sending), None)


def _target_route(destination: Destination, phase: Phase, version: str | None) -> Route:
    mode = _TARGET[destination.kind].get(phase, Mode.OFF)
    return Route(destination.name, destination.kind, mode, destination.order_by, version)

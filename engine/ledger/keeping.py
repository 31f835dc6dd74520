"""What may be removed from the ledger, and what stands against it. Pure.

Numbers go in their order, without a gap. So for each channel and class there is one highest number that may go, and
one thing that holds the next one back. What is open, dead, not compared, not signed off, under a legal hold, or still
needed by a run or a rollback holds back everything from it on.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from engine.ledger.course import FOR_EVER, ChannelBook
from engine.ledger.routing import LEGACY, Epoch

CAPTURED: Final = "captured"  # outputs made and not sent
RAW: Final = "raw"  # a message's bytes, those of its revisions, and what came of it at taps
RECEIPTS: Final = "receipts"  # its head, what became of it, and the answer given
EVENTS: Final = "events"  # input without a number
OUTPUTS: Final = "outputs"  # at taps, that belong to no input; kept as long as `raw`
AUDIT: Final = "audit"

NUMBERED: Final = (CAPTURED, RAW, RECEIPTS)
"""Classes whose numbers are those of messages, in the order in which they go."""

PACE: Final = 2.0  # at most so many times as fast as the machine's own clock the believed one goes


@dataclass(frozen=True, slots=True)
class Keep:
    """Seconds that each class of a channel is kept."""

    raw: float
    captured: float
    receipts: float
    events: float

    def of(self, kind: str) -> float:
        return {RAW: self.raw, OUTPUTS: self.raw, CAPTURED: self.captured, RECEIPTS: self.receipts,
                EVENTS: self.events}[kind]  # fmt: skip


@dataclass(frozen=True, slots=True)
class LegalHold:
    """Nothing of a channel is removed until somebody lifts it. at: microseconds since 1970."""

    who: str
    why: str
    at: int


@dataclass(slots=True)
class Kept:
    """What is gone of a channel, and whether anything may go. marks: class → the highest number that is gone, 0 where
    none is. Changed by the writer's transactions only."""

    marks: dict[str, int] = field(default_factory=dict)
    ids: dict[str, int] = field(default_factory=dict)  # class → the id of the last row that is gone
    legal: LegalHold | None = None

    def mark(self, kind: str) -> int:
        return self.marks.get(kind, 0)

    def bytes_gone(self, seq: int) -> bool:
        """Whether the bytes of a message have been removed: it cannot be sent, mapped or compared any more."""
        return seq <= max(self.mark(RAW), self.mark(RECEIPTS))


@dataclass(frozen=True, slots=True)
class Compared:
    """How far a channel's comparison has come. watermarks: tap → up to where inputs have a verdict. shown: the lowest
    number that an open discrepancy shows, None where there is none."""

    watermarks: Mapping[str, int] = field(default_factory=dict)
    shown: int | None = None


@dataclass(frozen=True, slots=True)
class Bound:
    """Numbers above `upto` must stay, and why."""

    upto: int
    why: str


FREE: Final = Bound(FOR_EVER, "")


def bound(
    channel: ChannelBook, kind: str, keep: float, now: int, kept: Kept, compared: Compared, running: str = ""
) -> Bound:
    """The tightest of all bounds on removing `kind`, age left aside.

    now: the believed time, microseconds since 1970. running: a run of this channel that goes on, in words.
    """
    found = [*_whole(channel, kept, running)]
    if kind in NUMBERED:
        found += [*_unsettled(channel), *_window(channel, kind, keep, now), *_uncompared(channel, compared)]
        found += _unsigned(channel) if kind == RECEIPTS else []
    return min(found, key=lambda one: one.upto, default=FREE)


def needed(channels: Iterable[ChannelBook], kept: Mapping[int, Kept]) -> set[str]:
    """The versions of mappings by which an output may still be made again: those of the newest epochs, and of each
    earlier one that has a number at or below its last whose bytes are there. kept: by the ledger's number of a channel.

    What waits is made by the newest epoch's mapping, whatever its own epoch is; so a version has made nothing above the
    last number of the epoch that names it.
    """
    found = set()
    for channel in channels:
        gone = kept.get(channel.id, Kept())
        for epoch, later in zip(channel.epochs, [*channel.epochs[1:], None], strict=True):
            if later is None or not gone.bytes_gone(later.first - 1):
                found |= {route.mapping for route in epoch.routing.routes if route.mapping}
    return found


def _whole(channel: ChannelBook, kept: Kept, running: str) -> list[Bound]:
    found = []
    if kept.legal is not None:
        found.append(Bound(0, f"legal hold by {kept.legal.who}: {kept.legal.why}"))
    if running:
        found.append(Bound(0, f"{running} goes on"))
    elif channel.barrier is not None:
        found.append(Bound(0, f"run {channel.barrier.run} goes on"))
    if channel.hold is not None:
        found.append(Bound(0, f"held by {channel.hold.who}: {channel.hold.why}"))
    return found


def _unsettled(channel: ChannelBook) -> list[Bound]:
    """What is not settled at some destination of some epoch."""
    found = []
    for course in channel.courses:
        due = [span for span in course.spans if span.last is None or course.frontier < span.last]
        if due:
            found.append(Bound(max(course.frontier, due[0].first - 1), f"what follows is not settled at {course.name}"))
        if course.open:
            (seq, *_), work = min(course.open.items())
            found.append(Bound(seq - 1, f"{seq} is {work.state.label} at {course.name}"))
    if channel.awaiting:
        seq = min(channel.awaiting)
        found.append(Bound(seq - 1, f"the sender of {seq} waits for its answer"))
    if channel.refused:
        seq = min(channel.refused)
        found.append(Bound(seq - 1, f"not every destination has heeded that {seq} was refused"))
    return found


def _window(channel: ChannelBook, kind: str, keep: float, now: int) -> list[Bound]:
    """What a rollback may still give back to the old engine, and what guards that which one has given back."""
    if kind == CAPTURED:
        return []
    found = [
        Bound(epoch.first - 1, f"a rollback may still need what follows, until its time is over (epoch {epoch.number})")
        for epoch in channel.epochs
        if epoch.phase == "live" and _rollback_until(epoch) > now
    ]
    for grant in channel.grants:
        after = next((epoch for epoch in channel.epochs if epoch.first > grant.last), None)
        if grant.guarded and (after is None or after.at + int(keep * 1e6) > now):
            found.append(Bound(grant.first - 1, f"run {grant.run} gave {grant.first}…{grant.last} back under guard"))
    return found


def _rollback_until(epoch: Epoch) -> int:
    evidence = json.loads(epoch.evidence) if epoch.evidence else {}
    return int(evidence.get("rollback_until", 0)) if isinstance(evidence, dict) else 0


def _uncompared(channel: ChannelBook, compared: Compared) -> list[Bound]:
    """What has no verdict of a comparison yet, and what an open discrepancy shows."""
    found = []
    for epoch, later in zip(channel.epochs, [*channel.epochs[1:], None], strict=True):
        if epoch.phase != "parallel" or not epoch.routing.taps:
            continue
        last = later.first - 1 if later else FOR_EVER
        for tap, watermark in compared.watermarks.items():
            if watermark < last:
                found.append(Bound(max(watermark, epoch.first - 1), f"what follows is not compared at {tap} yet"))
    if compared.shown is not None:
        found.append(Bound(compared.shown - 1, f"{compared.shown} shows a discrepancy that is open"))
    return found


def _unsigned(channel: ChannelBook) -> list[Bound]:
    """A channel that leaves the old engine is reconciled and signed off from its first parallel epoch on, before it may
    retire."""
    if channel.epoch.phase == "retired" or all(epoch.routing.route(LEGACY) is None for epoch in channel.epochs):
        return []
    first = next((epoch.first for epoch in channel.epochs if epoch.phase in ("parallel", "live")), None)
    return [] if first is None else [Bound(first - 1, "its move from the old engine is not signed off")]


def believed(wall: int, last: int, elapsed: float) -> int:
    """The time to judge ages by. last: what was believed before, `elapsed` seconds ago by the machine's own clock.

    A clock that jumps a year ahead must not make everything a year older: so time is believed to go at most PACE times
    as fast as the machine's own clock does, and never back. After a long pause, or a wrong clock, it catches up.
    """
    return max(last, min(wall, last + int(elapsed * PACE * 1e6)))

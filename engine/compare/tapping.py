"""What becomes of the old engine's own output. Pure.

The epoch of its input decides: before a cutover the old engine is the one to send, and its late work still is; what it
makes of later inputs is held back, unless a rollback has granted them to it. What belongs to no input that we know is
forwarded while the old engine is the one to send, and else kept for a person.
"""

from __future__ import annotations

from enum import Enum
from typing import Final

from engine.config.model import Channel, Tap
from engine.ledger.course import ChannelBook
from engine.ledger.routing import LEGACY, Mode

NO_SOCKET: Final = 0
"""Where the number of its connection stands, of an output that came as a file: nobody waits for an answer to it, and it
does not come again."""


class Fate(Enum):
    """What a tap does with an output."""

    FORWARD = "forwarded"  # to its real endpoint, whose answer is relayed
    CAPTURE = "captured"  # kept and acknowledged, not sent: we have sent it, or will
    PARK = "parked"  # kept and acknowledged; whether it may be sent, a person decides


def own_destination(channel: Channel, tap: Tap) -> str | None:
    """Which destination of ours serves a tap's endpoint; None where none does."""
    return next((d.name for d in channel.destinations if d.endpoint == tap.forward), None)


def fate(book: ChannelBook, seq: int | None, destination: str | None) -> Fate:
    """The fate of an output that belongs to input `seq` (None: not known), at the tap of a real endpoint which our
    own side serves as `destination` (None: it does not)."""
    if seq is None:
        return Fate.FORWARD if book.epoch.routing.taps == "forward" and not _replaying(book) else Fate.PARK
    if book.epoch_of(seq).routing.taps == "forward":
        return Fate.FORWARD
    grants = (g for g in reversed(book.grants) if g.destination == LEGACY and g.first <= seq <= g.last)
    grant = next(grants, None)  # of several for one number the newest holds
    if grant is None or grant.mode is not Mode.SEND:
        return Fate.CAPTURE
    return _of_a_replay(book, seq, destination) if grant.guarded else Fate.FORWARD


def _replaying(book: ChannelBook) -> bool:
    """Whether the old engine is still being given what a guard stands over: an output may be of one of these."""
    old = book.course(LEGACY)
    if old is None:
        return False
    given = [grant for grant in book.grants if grant.guarded and grant.mode is Mode.SEND]
    return any(
        grant.last > old.frontier or any(grant.first <= seq <= grant.last for seq, _, _ in old.open.copy())
        for grant in given
    )


def _of_a_replay(book: ChannelBook, seq: int, destination: str | None) -> Fate:
    """Under a guard, by what we had done at the real endpoint when the rollback closed our side there."""
    course = book.course(destination) if destination else None
    if course is None:
        return Fate.FORWARD
    mode = course.mode(seq)
    if mode is Mode.SUPERSEDE:
        return Fate.FORWARD
    return Fate.PARK if mode is Mode.ASK else Fate.CAPTURE


def why_parked(seq: int | None) -> str:
    """Why an output of input `seq` waits for a person, in words for them."""
    if seq is None:
        return "it belongs to no input that is known"
    return f"of {seq} it is not known whether the endpoint has it"

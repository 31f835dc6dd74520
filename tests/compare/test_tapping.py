"""What a tap does with an output, by the epoch of its input and the grants of rollbacks: the whole table."""

from __future__ import annotations

import pytest

from engine.compare.tapping import Fate, fate
from engine.ledger.course import ChannelBook, Course
from engine.ledger.routing import LEGACY, Epoch, Grant, Mode, Route, Routing

PARALLEL = Routing((Route(LEGACY, "legacy", Mode.SEND, "channel"),), taps="forward")
LIVE = Routing(
    (Route(LEGACY, "legacy", Mode.DEFER, "channel"), Route("emr", "mllp", Mode.SEND, "channel")), taps="hold"
)


def book(*epochs: tuple[int, str, Routing], grants: tuple[Grant, ...] = (), given: int = 99) -> ChannelBook:
    channel = ChannelBook(1, "acme", 30, [Epoch(n, first, phase, r) for n, (first, phase, r) in enumerate(epochs, 1)])
    channel.courses = [Course(channel, 1, LEGACY, 1, False), Course(channel, 2, "emr", 1, False)]
    channel.courses[0].frontier = given
    channel.grants = grants
    return channel


BEFORE = ((1, "parallel", PARALLEL),)
CUT = (*BEFORE, (11, "live", LIVE))
BACK = (*CUT, (21, "parallel", PARALLEL))


def granted(*, guarded: bool) -> tuple[Grant, ...]:
    """Of the live numbers 11 to 20, we delivered 11 to 15; 16 may have left; 17 to 20 did not."""
    return (
        Grant("emr", 16, 16, Mode.ASK, 1),
        Grant("emr", 17, 20, Mode.SUPERSEDE, 1),
        Grant(LEGACY, 11, 20, Mode.SEND, 1, guarded),
    )


@pytest.mark.parametrize(
    ("channel", "seq", "expected"),
    [
        (book(*BEFORE), 5, Fate.FORWARD),
        (book(*BEFORE), None, Fate.FORWARD),  # the old engine is the one to send, whatever it is
        (book(*CUT), 10, Fate.FORWARD),  # late work
        (book(*CUT), 11, Fate.CAPTURE),
        (book(*CUT), None, Fate.PARK),
        (book(*BACK), 21, Fate.FORWARD),
        (book(*BACK), 12, Fate.CAPTURE),  # not granted: we have sent it
        (book(*BACK), None, Fate.FORWARD),
        (book(*BACK, grants=granted(guarded=False)), 12, Fate.FORWARD),
        (book(*BACK, grants=granted(guarded=True)), 12, Fate.CAPTURE),  # the endpoint has it from us
        (book(*BACK, grants=granted(guarded=True)), 16, Fate.PARK),
        (book(*BACK, grants=granted(guarded=True)), 18, Fate.FORWARD),
        (book(*BACK, grants=(Grant(LEGACY, 16, 16, Mode.ASK, 1), *granted(guarded=True))), 16, Fate.PARK),  # the newest
        (book(*BACK, grants=granted(guarded=True), given=14), None, Fate.PARK),  # perhaps of one that we delivered
        (book(*BACK, grants=granted(guarded=True), given=20), None, Fate.FORWARD),
    ],
)
def test_the_epoch_of_the_input_decides(channel: ChannelBook, seq: int | None, expected: Fate) -> None:
    assert fate(channel, seq, "emr") is expected


def test_at_an_endpoint_that_we_do_not_serve_a_replay_is_forwarded() -> None:
    assert fate(book(*BACK, grants=granted(guarded=True)), 12, None) is Fate.FORWARD

"""What holds a number back, each reason by itself; where there are several, the lowest counts."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from engine.ledger.course import Barrier, ChannelBook, Hold
from engine.ledger.keeping import CAPTURED, EVENTS, FREE, NUMBERED, RAW, RECEIPTS, Compared, Kept, LegalHold, bound
from engine.ledger.model import Message
from engine.ledger.routing import LEGACY, Epoch, Grant, Mode, Route, Routing

DAY = 86_400_000_000
NOW = 1000 * DAY
KEEP = 10 * 86400.0
OLD = Route(LEGACY, "legacy", Mode.SEND, "channel")
NEW = Route("emr", "mllp", Mode.SEND, "channel")


def epoch(number: int, first: int, phase: str, *routes: Route, at: int = 0, taps: str = "", until: int = 0) -> Epoch:
    evidence = json.dumps({"rollback_until": until}) if until else None
    return Epoch(number, first, phase, Routing(routes or (NEW,), None, taps), at=at, evidence=evidence)


def book(*epochs: Epoch) -> ChannelBook:
    """A channel in which everything is settled."""
    return ChannelBook(1, "acme", 100, [*(epochs or (epoch(1, 1, "live"),))])


def found(
    channel: ChannelBook, kind: str = RAW, kept: Kept | None = None, compared: Compared | None = None, running: str = ""
) -> tuple[int, str]:
    return _told(bound(channel, kind, KEEP, NOW, kept or Kept(), compared or Compared(), running))


def _told(one: object) -> tuple[int, str]:
    return one.upto, one.why  # type: ignore[attr-defined]


@pytest.mark.parametrize("kind", [*NUMBERED, EVENTS])
def test_where_everything_is_settled_nothing_holds_back(kind: str) -> None:
    assert bound(book(), kind, KEEP, NOW, Kept(), Compared()) is FREE


def held(channel: ChannelBook) -> None:
    channel.hold = Hold(NOW, "ops", "a test", NOW)


def barred(channel: ChannelBook) -> None:
    channel.barrier = Barrier(7, 50, 50)


def awaited(channel: ChannelBook) -> None:
    channel.awaiting = {41: Message(channel, b"", 0), 44: Message(channel, b"", 0)}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (held, (0, "held by ops: a test")),
        (barred, (0, "run 7 goes on")),
        (awaited, (40, "the sender of 41 waits for its answer")),
    ],
)
def test_what_goes_on_holds_back(change: Callable[[ChannelBook], None], told: tuple[int, str]) -> None:
    channel = book()
    change(channel)
    assert found(channel) == told


def test_a_run_and_a_legal_hold_hold_every_class_back() -> None:
    for kind in (*NUMBERED, EVENTS):
        assert found(book(), kind, running="run 3 (takeover)") == (0, "run 3 (takeover) goes on")
        kept = Kept(legal=LegalHold("ops", "case 12", 1))
        assert found(book(), kind, kept) == (0, "legal hold by ops: case 12")


def test_what_is_not_compared_yet_holds_back_in_parallel_epochs_only() -> None:
    channel = book(
        epoch(1, 1, "legacy", OLD), epoch(2, 31, "parallel", OLD, taps="forward"), epoch(3, 61, "legacy", OLD)
    )
    assert found(channel, CAPTURED, compared=Compared({"emr": 45})) == (45, "what follows is not compared at emr yet")
    assert found(channel, CAPTURED, compared=Compared({"emr": 10}))[0] == 30
    assert found(channel, CAPTURED, compared=Compared({"emr": 60})) == _told(FREE)
    assert found(channel, CAPTURED, compared=Compared({"emr": 0}))[0] == 30  # it has not begun
    assert found(channel, CAPTURED, compared=Compared({"emr": 60, "lis": 45}))[0] == 45
    assert found(channel, CAPTURED) == _told(FREE)  # it has no tap any more


def test_the_first_example_of_an_open_discrepancy_stays() -> None:
    assert found(book(), compared=Compared(shown=12)) == (11, "12 shows a discrepancy that is open")


def test_a_rollbacks_time_keeps_bytes_and_heads() -> None:
    channel = book(epoch(1, 1, "live"), epoch(2, 51, "live", until=NOW + DAY))
    for kind in (RAW, RECEIPTS):
        assert found(channel, kind)[0] == 50
    channel.epochs[1] = epoch(2, 51, "live", until=NOW - DAY)
    assert found(channel) == _told(FREE)


def test_what_was_given_back_under_guard_stays_as_long_as_bytes_are_kept() -> None:
    channel = book(epoch(1, 1, "live"), epoch(2, 51, "parallel", at=NOW - 9 * DAY))
    channel.grants = (Grant(LEGACY, 21, 50, Mode.SEND, 4, guarded=True),)
    assert found(channel) == (20, "run 4 gave 21…50 back under guard")
    channel.epochs[1] = epoch(2, 51, "parallel", at=NOW - 11 * DAY)
    assert found(channel) == _told(FREE)


@pytest.mark.parametrize(("phase", "upto"), [("parallel", 30), ("live", 30), ("retired", FREE.upto)])
def test_heads_and_receipts_of_a_move_stay_until_it_is_signed_off(phase: str, upto: int) -> None:
    channel = book(epoch(1, 1, "legacy", OLD), epoch(2, 31, "parallel", OLD), epoch(3, 61, phase))
    assert found(channel, RECEIPTS)[0] == upto
    assert found(channel, RAW) == _told(FREE)


def test_the_lowest_bound_counts() -> None:
    channel = book()
    awaited(channel)
    assert found(channel, compared=Compared(shown=12))[0] == 11

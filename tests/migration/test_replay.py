"""What a rollback makes of each live number, by policy and by what became of it at the real endpoints."""

from __future__ import annotations

import pytest

from engine.config.model import Replay as Policy
from engine.ledger.course import ChannelBook, Course, Span
from engine.ledger.model import OpenWork, State
from engine.ledger.routing import LEGACY, Epoch, Mode, Route, Routing
from engine.migration.replay import Replay, replay

PARALLEL = Routing((Route(LEGACY, "legacy", Mode.SEND, "channel"), Route("emr", "mllp", Mode.CAPTURE, "channel")))
LIVE = Routing((Route(LEGACY, "legacy", Mode.DEFER, "channel"), Route("emr", "mllp", Mode.SEND, "channel")))
LIVE_AT_TWO = Routing((*LIVE.routes, Route("lis", "mllp", Mode.SEND, "channel")))


def book(last: int, claims: dict[str, int], open_: dict[tuple[str, int], State], live: Routing = LIVE) -> ChannelBook:
    """A channel that went live from number 11, with what is claimed and open at its endpoints."""
    channel = ChannelBook(1, "acme", last, epochs=[Epoch(1, 1, "parallel", PARALLEL), Epoch(2, 11, "live", live)])
    old = Course(channel, 1, LEGACY, 1, False)
    old.totals, old.claim, old.frontier = {1: [0] * 7}, 10, 10
    channel.courses = [old]
    for id, (name, claim) in enumerate(claims.items(), 2):
        course = Course(channel, id, name, 1, False)
        course.claim = course.frontier = claim
        course.totals = {2: [0] * 7}
        course.spans = [Span(11, None, 2, live.routes[1])]
        for (where, seq), state in open_.items():
            if where == name:
                work = OpenWork(seq, 1, 1, seq, 2, state, 0, 1, "", True)
                course.open[work.key] = work
        channel.courses.append(course)
    return channel


def at(plan: Replay, destination: str, seq: int) -> Mode | None:
    found = [g for g in plan.grants if g.destination == destination and g.first <= seq <= g.last]
    assert len(found) <= 1, found
    return found[0].mode if found else None


SEND, SUPERSEDE, ASK = Mode.SEND, Mode.SUPERSEDE, Mode.ASK

# Numbers 11 to 15 are live. 11 delivered, 12 unknown, 13 delivered, 14 retrying, 15 never begun.
ONE = {("emr", 12): State.UNKNOWN, ("emr", 14): State.RETRYING}


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ("none", [SUPERSEDE] * 5),
        ("all", [SEND, ASK, SEND, SEND, SEND]),
        ("guarded", [SEND, ASK, SEND, SEND, SEND]),
        ("undelivered", [SUPERSEDE, ASK, SUPERSEDE, SEND, SEND]),
    ],
)
def test_each_number_goes_to_the_old_engine_or_not_by_policy(policy: Policy, expected: list[Mode]) -> None:
    plan = replay(book(15, {"emr": 14}, ONE), 15, policy, 7)
    assert [at(plan, LEGACY, seq) for seq in range(11, 16)] == expected
    assert all(
        grant.run == 7 and grant.guarded == (policy == "guarded")
        for grant in plan.grants
        if grant.destination == LEGACY
    )


def test_at_the_endpoint_what_has_not_left_is_closed_and_what_may_have_left_is_a_persons() -> None:
    plan = replay(book(15, {"emr": 14}, ONE), 15, "guarded", 7)
    assert [(c.key[0], c.state) for c in plan.closings] == [(12, State.PARKED), (14, State.SUPERSEDED)]
    assert [at(plan, "emr", seq) for seq in range(11, 16)] == [None, ASK, None, SUPERSEDE, SUPERSEDE]


@pytest.mark.parametrize(
    ("policy", "again", "twice", "held", "never", "asked"),
    [("none", 0, 0, 0, 2, 1), ("all", 4, 2, 0, 0, 1), ("guarded", 4, 0, 2, 0, 1), ("undelivered", 2, 0, 0, 0, 1)],
)
def test_the_plan_counts_what_is_sent_again_twice_and_not_at_all(
    policy: Policy, again: int, twice: int, held: int, never: int, asked: int
) -> None:
    plan = replay(book(15, {"emr": 14}, ONE), 15, policy, 7)
    assert (plan.deferred, plan.again, plan.twice, plan.held, plan.never, plan.asked) == (
        5,
        again,
        twice,
        held,
        never,
        asked,
    )


def test_what_one_endpoint_has_and_another_has_not_a_person_decides() -> None:
    plan = replay(book(12, {"emr": 12, "lis": 11}, {}, LIVE_AT_TWO), 12, "undelivered", 7)
    assert [at(plan, LEGACY, seq) for seq in (11, 12)] == [SUPERSEDE, ASK]


def test_nothing_overtakes_a_later_message_of_its_lane() -> None:
    plan = replay(book(13, {"emr": 13}, {("emr", 12): State.DEAD}), 13, "undelivered", 7)
    assert at(plan, LEGACY, 12) is ASK
    assert at(plan, "emr", 12) is ASK


def test_parked_because_it_may_have_left_counts_as_unknown() -> None:
    plan = replay(book(11, {"emr": 11}, {("emr", 11): State.PARKED}), 11, "all", 7)
    assert at(plan, LEGACY, 11) is ASK


def test_where_nothing_came_while_live_nothing_is_granted() -> None:
    plan = replay(book(10, {"emr": 10}, {}), 10, "all", 7)
    assert (plan.grants, plan.deferred) == ([], 0)


def test_stretches_of_the_same_fate_are_one_grant() -> None:
    plan = replay(book(100_010, {"emr": 10}, {}), 100_010, "undelivered", 7)
    assert [(g.destination, g.first, g.last) for g in plan.grants] == [("emr", 11, 100_010), (LEGACY, 11, 100_010)]


def test_an_empty_live_epoch_makes_nothing_of_the_parallel_one_after_it_due() -> None:
    channel = book(17, {"emr": 17}, {})
    channel.epochs = [*channel.epochs, Epoch(3, 11, "parallel", PARALLEL), Epoch(4, 16, "live", LIVE)]
    plan = replay(channel, 17, "all", 7)
    assert [(g.first, g.last) for g in plan.grants if g.destination == LEGACY] == [(16, 17)]


def test_live_epochs_side_by_side_are_taken_up_together() -> None:
    channel = book(17, {"emr": 17}, {})
    channel.epochs = [*channel.epochs, Epoch(3, 14, "live", LIVE)]
    plan = replay(channel, 17, "all", 7)
    assert [(g.first, g.last) for g in plan.grants if g.destination == LEGACY] == [(11, 17)]

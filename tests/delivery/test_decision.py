"""What follows from each outcome, as one table."""

from __future__ import annotations

import pytest

from engine.delivery.decision import FIRST_WAIT, LONGEST_WAIT, MOST_NEGATIVE_ANSWERS, Decision, Manner, backoff, decide
from engine.ledger.model import State
from engine.ledger.outcome import Outcome, Result

NO = b"MSA|AE|1"
TABLE = [
    # outcome, tries, relayed, dead -> state, tried again, blocks
    (Outcome(Result.NOT_TAKEN, "refused"), 1, False, "waits", State.RETRYING, True, True),
    (Outcome(Result.NOT_TAKEN, "refused"), 99, False, "waits", State.RETRYING, True, True),
    (Outcome(Result.NOT_TAKEN, "refused"), 1, True, "waits", State.RETRYING, True, True),
    (Outcome(Result.NOT_TAKEN, "AE", NO), 1, False, "waits", State.RETRYING, True, True),
    (Outcome(Result.NOT_TAKEN, "AE", NO), MOST_NEGATIVE_ANSWERS, False, "waits", State.DEAD, False, True),
    (Outcome(Result.NOT_TAKEN, "AE", NO), MOST_NEGATIVE_ANSWERS, False, "goes_on", State.DEAD, False, False),
    (Outcome(Result.NOT_TAKEN, "AE", NO), 1, True, "waits", State.REFUSED, False, True),
    (Outcome(Result.NEVER, "AR", NO), 1, True, "waits", State.REFUSED, False, True),
    (Outcome(Result.NEVER, "AR", NO), 1, False, "waits", State.DEAD, False, True),
    (Outcome(Result.NEVER, "AR", NO), 1, False, "goes_on", State.DEAD, False, False),
    (Outcome(Result.NEVER, "422"), 1, False, "waits", State.DEAD, False, True),
    (Outcome(Result.NEVER, "422"), 1, False, "stops_channel", State.DEAD, False, True),
    (Outcome(Result.NEVER, "422"), 1, False, "goes_on", State.DEAD, False, False),
    (Outcome(Result.NEVER, "AR", NO), 1, True, "stops_channel", State.REFUSED, False, True),
    (Outcome(Result.REFUSED, "no"), 1, False, "waits", State.REFUSED, False, True),
    (Outcome(Result.UNKNOWN, "reset"), 1, False, "waits", State.UNKNOWN, True, True),
    (Outcome(Result.UNKNOWN, "reset"), 1, True, "waits", State.UNKNOWN, True, True),
    (Outcome(Result.FAULT, "403"), 50, False, "waits", State.RETRYING, True, True),
]


@pytest.mark.parametrize(("outcome", "tries", "relayed", "dead", "state", "again", "blocks"), TABLE)
def test_each_outcome_has_its_consequence(outcome, tries, relayed, dead, state, again, blocks):
    made = decide(outcome, tries, Manner(dead), relayed=relayed, unknown=False, jitter=0.5)
    assert (made.state, made.wait is not None, made.blocks) == (state, again, blocks)


def test_an_unknown_is_not_repeated_before_the_attempt_is_over():
    made = decide(Outcome(Result.UNKNOWN), 1, Manner(settle_time=60), relayed=False, unknown=False, jitter=0.0)
    assert made == Decision(State.UNKNOWN, 60)


@pytest.mark.parametrize("result", [Result.NOT_TAKEN, Result.FAULT])
def test_what_may_have_been_taken_stays_unknown_until_somebody_answers(result: Result):
    made = decide(Outcome(result, "connection refused"), 2, Manner(), relayed=False, unknown=True, jitter=0.5)
    assert made.state is State.UNKNOWN
    answered = decide(Outcome(Result.NOT_TAKEN, "AE", NO), 2, Manner(), relayed=False, unknown=True, jitter=0.5)
    assert answered.state is State.RETRYING


def test_a_message_that_was_on_its_way_when_worker_after_worker_ended_waits_for_a_person():
    ended = Outcome(Result.UNKNOWN, "its worker process ended", local=True)
    states = [decide(ended, n, Manner(), relayed=False, unknown=n > 1, jitter=0.5).state for n in range(1, 7)]
    assert states == [State.UNKNOWN] * 4 + [State.PARKED] * 2


@pytest.mark.parametrize("result", [Result.NEVER, Result.FILTERED])
@pytest.mark.parametrize("dead", ["waits", "goes_on", "stops_channel"])
def test_what_may_have_been_taken_stays_in_doubt_where_nothing_is_made_of_it_now(result: Result, dead):
    outcome = Outcome(result, "no-mapping at MSH-9", local=True, aside=True)
    made = decide(outcome, 2, Manner(dead), relayed=False, unknown=True, jitter=0.5)
    assert made == Decision(State.PARKED, None, True)


def test_where_the_endpoint_says_park_an_unknown_waits_for_a_person():
    made = decide(Outcome(Result.UNKNOWN), 1, Manner(parks_unknown=True), relayed=False, unknown=False, jitter=0.5)
    assert made == Decision(State.PARKED, None, True)


@pytest.mark.parametrize("dead", ["waits", "goes_on", "stops_channel"])
def test_what_nothing_can_be_made_of_stops_no_lane(dead):
    outcome = Outcome(Result.NEVER, "no-mapping", local=True, aside=True)
    made = decide(outcome, 1, Manner(dead), relayed=False, unknown=False, jitter=0.5)
    assert made == Decision(State.DEAD, None, False)


def test_what_passes_is_tried_again_for_as_long_as_the_endpoint_says_so():
    locked = Outcome(Result.NOT_TAKEN, "AE, 206", NO, passes=True)
    for tries in (1, MOST_NEGATIVE_ANSWERS, 500):
        made = decide(locked, tries, Manner(), relayed=False, unknown=False, jitter=0.5)
        assert (made.state, made.blocks) == (State.RETRYING, True)
    given_up = decide(locked, MOST_NEGATIVE_ANSWERS, Manner("goes_on"), relayed=False, unknown=False, jitter=0.5)
    assert given_up == Decision(State.DEAD, None, False), "not where its lane goes on without a dead message, either"
    assert decide(locked, 1, Manner(), relayed=True, unknown=False, jitter=0.5).state is State.REFUSED


def test_waiting_doubles_to_a_bound_and_never_undercuts_the_peers_wish():
    waits = [backoff(tries, None, 0.5) for tries in range(1, 12)]
    assert waits[0] == FIRST_WAIT
    assert waits[1] == 2 * FIRST_WAIT
    assert waits == sorted(waits)
    assert waits[-1] == LONGEST_WAIT
    assert backoff(1, 45.0, 0.5) == 45.0
    assert backoff(10**6, None, 0.999) <= LONGEST_WAIT * 1.2

"""What follows from each outcome, as one table."""

from __future__ import annotations

import pytest

from engine.delivery.decision import FIRST_WAIT, LONGEST_WAIT, MOST_NEGATIVE_ANSWERS, Decision, Manner, backoff, decide
from engine.ledger.model import State
from engine.ledger.outcome import Outcome, Result

NO = b"MSA|AE|1"
TABLE = [
    # outcome, tries, relayed, waits for dead -> state, tried again, blocks
    (Outcome(Result.NOT_TAKEN, "refused"), 1, False, True, State.RETRYING, True, True),
    (Outcome(Result.NOT_TAKEN, "refused"), 99, False, True, State.RETRYING, True, True),
    (Outcome(Result.NOT_TAKEN, "refused"), 1, True, True, State.RETRYING, True, True),
    (Outcome(Result.NOT_TAKEN, "AE", NO), 1, False, True, State.RETRYING, True, True),
    (Outcome(Result.NOT_TAKEN, "AE", NO), MOST_NEGATIVE_ANSWERS, False, True, State.DEAD, False, True),
    (Outcome(Result.NOT_TAKEN, "AE", NO), MOST_NEGATIVE_ANSWERS, False, False, State.DEAD, False, False),
    (Outcome(Result.NOT_TAKEN, "AE", NO), 1, True, True, State.REFUSED, False, True),
    (Outcome(Result.NEVER, "AR", NO), 1, True, True, State.REFUSED, False, True),
    (Outcome(Result.NEVER, "AR", NO), 1, False, True, State.DEAD, False, True),
    (Outcome(Result.NEVER, "AR", NO), 1, False, False, State.DEAD, False, False),
    (Outcome(Result.NEVER, "422"), 1, False, True, State.DEAD, False, True),
    (Outcome(Result.REFUSED, "no"), 1, False, True, State.REFUSED, False, True),
    (Outcome(Result.UNKNOWN, "reset"), 1, False, True, State.UNKNOWN, True, True),
    (Outcome(Result.UNKNOWN, "reset"), 1, True, True, State.UNKNOWN, True, True),
    (Outcome(Result.FAULT, "403"), 50, False, True, State.RETRYING, True, True),
]


@pytest.mark.parametrize(("outcome", "tries", "relayed", "waits", "state", "again", "blocks"), TABLE)
def test_each_outcome_has_its_consequence(outcome, tries, relayed, waits, state, again, blocks):
    made = decide(outcome, tries, Manner(waits_for_dead=waits), relayed=relayed, unknown=False, jitter=0.5)
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


def test_where_the_endpoint_says_park_an_unknown_waits_for_a_person():
    made = decide(Outcome(Result.UNKNOWN), 1, Manner(parks_unknown=True), relayed=False, unknown=False, jitter=0.5)
    assert made == Decision(State.PARKED, None, True)


def test_what_nothing_can_be_made_of_stops_no_lane():
    outcome = Outcome(Result.NEVER, "no-mapping", local=True, aside=True)
    made = decide(outcome, 1, Manner(waits_for_dead=True), relayed=False, unknown=False, jitter=0.5)
    assert made == Decision(State.DEAD, None, False)


def test_waiting_doubles_to_a_bound_and_never_undercuts_the_peers_wish():
    waits = [backoff(tries, None, 0.5) for tries in range(1, 12)]
    assert waits[0] == FIRST_WAIT
    assert waits[1] == 2 * FIRST_WAIT
    assert waits == sorted(waits)
    assert waits[-1] == LONGEST_WAIT
    assert backoff(1, 45.0, 0.5) == 45.0
    assert backoff(10**6, None, 0.999) <= LONGEST_WAIT * 1.2

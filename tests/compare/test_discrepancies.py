"""The life of a discrepancy."""

from __future__ import annotations

import pytest

from engine.compare import discrepancies
from engine.compare.diff import Difference
from engine.compare.discrepancies import DAY, Discrepancy, SettleError, State, Totals, settle, summed, unseen
from engine.compare.severity import Severity

UNIT = Difference("OBX-6.1", "transformation", "clinical", None, "g/L", "g/dL")
PADDED = Difference("PID-5.1", "formatting", "cosmetic", None, "MOSS ", "MOSS")
BY_RULE = Difference("OBX-5", "expected", "clinical", "rounded by both", "7", "7.0")


def seen(known: Discrepancy | None, difference: Difference = UNIT, at: int = 0) -> Discrepancy:
    return discrepancies.seen(known, "emr", difference, "owner@example.org", at)


def graded(severity: Severity) -> Difference:
    return Difference("OBX-6.1", "transformation", severity, None, "", "")


def test_it_is_opened_by_the_first_message_and_counts_the_others() -> None:
    one = seen(seen(None, at=5), at=9)
    assert (one.state, one.count, one.first_at, one.last_at) == (State.OPEN, 2, 5, 9)
    assert (one.signature, one.owner) == (("emr", "OBX-6.1", "transformation"), "owner@example.org")


@pytest.mark.parametrize(("severity", "days"), [("clinical", 1), ("business", 7), ("cosmetic", 30)])
def test_how_long_it_may_be_open_depends_on_its_severity(severity: Severity, days: int) -> None:
    assert seen(None, graded(severity), at=100).due == 100 + days * DAY


def test_what_a_rule_covers_is_never_open() -> None:
    one = seen(None, BY_RULE)
    assert (one.state, one.why, one.who) == (State.EXPLAINED, "rounded by both", "rule")
    assert seen(one, BY_RULE).state is State.EXPLAINED
    with pytest.raises(SettleError, match="rule"):
        settle(one, State.OPEN, "I doubt it", "ada", 1)


@pytest.mark.parametrize("state", [State.EXPLAINED, State.FIXED, State.ACCEPTED])
def test_a_person_settles_it_with_a_reason(state: State) -> None:
    with pytest.raises(SettleError, match="why"):
        settle(seen(None), state, " ", "ada", 7)
    one = settle(seen(None), state, "checked with the laboratory", "ada", 7)
    assert (one.state, one.why, one.who, one.settled_at) == (state, "checked with the laboratory", "ada", 7)


def test_what_was_fixed_and_comes_again_is_open_again() -> None:
    one = seen(settle(seen(None), State.FIXED, "mapping mended", "ada", 7), at=50)
    assert (one.state, one.due, one.why, one.settled_at) == (State.OPEN, 50 + DAY, "", None)


@pytest.mark.parametrize("state", [State.EXPLAINED, State.ACCEPTED])
def test_what_was_explained_stays_explained_unless_it_gets_worse(state: State) -> None:
    settled = settle(seen(None, graded("cosmetic")), state, "seen", "ada", 7)
    assert seen(settled, graded("cosmetic")).state is state
    assert seen(settled, graded("clinical")).state is State.OPEN


def test_an_open_one_that_gets_worse_is_due_sooner() -> None:
    assert seen(seen(None, graded("cosmetic")), graded("clinical"), at=10).due == 10 + DAY


def test_it_can_be_opened_again_and_handed_over() -> None:
    settled = settle(seen(None), State.ACCEPTED, "so be it", "ada", 7)
    one = settle(settled, State.OPEN, "not so", "eve", 20, owner="eve@example.org")
    assert (one.state, one.owner, one.settled_at, one.due) == (State.OPEN, "eve@example.org", None, 20 + DAY)


def test_what_was_missed_and_came_needs_nobody_any_more() -> None:
    missing = Difference("message", "missing_in_legacy", "clinical", None, None, None)
    two = seen(seen(None, missing), missing)
    assert (unseen(two, 9).state, unseen(unseen(two, 9), 9).state) == (State.OPEN, State.EXPLAINED)


def test_a_gate_reads_how_many_are_open() -> None:
    missing = Difference("NTE", "missing_in_target", "clinical", None, None, None)
    rows = [seen(None), seen(None, PADDED), seen(None, missing), settle(seen(None), State.FIXED, "x", "ada", 1)]
    compared = summed(Totals(5, 4, 3, 2), 1, rows)
    assert (compared.matched, compared.explained, compared.unexplained, compared.not_comparable) == (5, 4, 3, 2)
    assert (compared.pending_late, compared.open_clinical, compared.open_missing) == (1, 2, 1)

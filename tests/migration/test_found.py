"""What the state machine of the interlock has found, each the shortest way to it.

The moments that matter lie between two turns of the event loop, so each of these is tried at every turn.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from engine.ledger.model import State
from tests.migration.life import TURNS, ended, life
from tests.migration.machine import CHANNELS, ORDERS, RESULTS, InterlockMachine
from tests.support.outside import LOST, MEDPLUM, OK
from tests.support.referee import LEGACY


def answer(machine: InterlockMachine, channel: str, to: str, seq: int, how: str) -> None:
    attempt = next(each for each in machine.outside.attempts if (each.channel, each.to, each.seq) == (channel, to, seq))
    machine.loop.turns(20, lambda: machine.outside.answer(attempt, how))


@contextmanager
def one_transaction(machine: InterlockMachine) -> Iterator[None]:
    """What is written meanwhile is written together, when the disk takes something again."""
    machine._ledger.writer.full = True
    yield
    machine._ledger.writer.full = False
    machine.time_passes(0.3)


@pytest.mark.parametrize("turns", TURNS)
def test_a_message_is_counted_whatever_else_is_in_its_transaction(turns: int) -> None:
    with life() as machine:
        with one_transaction(machine):
            machine._order("hold", turns)
            machine.store(RESULTS, ["A", "B"], 0)
        machine.the_equation_balances_from_both_sources()
        ended(machine, killed=True)
        machine.store(RESULTS, ["A"], 20)
        assert machine.outside.numbers["C3"] == (RESULTS, 3)


def test_carry_does_not_pass_over_what_is_on_its_way_to_the_old_engine() -> None:
    """The authoritative path has to settle; only Medplum's work, the dead and the parked are carried."""
    with life() as machine:
        machine.store(ORDERS, ["A"], 20)  # the old engine has not answered
        machine._order("cutover", 5, carry=["all"], timeout_s=10.0)
        machine.time_passes(3.0)
        machine.no_rule_is_broken()
        assert machine._phase() == "parallel"


@pytest.mark.parametrize("turns", TURNS)
def test_a_phase_verb_that_is_given_twice_opens_one_epoch(turns: int) -> None:
    with life() as machine:
        with one_transaction(machine):
            machine._order("legacy", turns)
            machine._order("legacy", 40)
        assert [phase for _, phase in machine.referee.rows.phases[RESULTS]] == ["parallel", "legacy"]


@pytest.mark.parametrize("turns", TURNS)
@pytest.mark.parametrize("after", [0, 1, 2, 3])
@pytest.mark.parametrize("verb", ["drain", "cutover", "rollback"])
def test_a_hold_stops_a_run_at_whatever_turn_it_comes(verb: str, turns: int, after: int) -> None:
    """The hold is set, the run has ended, and the connection can be moved again after the release."""
    with life("live" if verb == "rollback" else "parallel") as machine:
        machine._order(verb, turns, timeout_s=60.0)
        with one_transaction(machine):
            machine._order("hold", after)
            machine.loop.turns(5)
        machine.no_rule_is_broken()
        assert set(machine.referee.rows.holds) == set(CHANNELS)
        assert not machine.referee.rows.barriers
        machine.time_passes(1.0)
        assert not machine._running()
        machine._order("release", 20)
        machine._order("drain", 40, for_s=5.0)
        assert set(machine.referee.rows.barriers) == set(CHANNELS)


@pytest.mark.parametrize("turns", TURNS)
def test_no_cutover_leads_from_legacy_to_live(turns: int) -> None:
    """The cutover was planned in parallel; the run ended before it began."""
    with life() as machine:
        machine._order("cutover", turns, timeout_s=10.0)
        machine._order("legacy", 20)
        machine.time_passes(3.0)
        machine.no_rule_is_broken()


@pytest.mark.parametrize("turns", range(6))
def test_what_a_person_decides_does_not_stop_the_path_to_the_old_engine_after_a_crash(turns: int) -> None:
    """Killed between the claim of a number that a rollback left to a person, and the row that says so."""
    with life("live") as machine:
        machine.store(ORDERS, ["A"], 20)
        answer(machine, ORDERS, "lis", 1, LOST)
        machine._order("rollback", 0, timeout_s=60.0)
        while machine._phase() == "live":
            machine.loop.turns(1)
        for _ in range(turns):
            machine.loop.turns(1)
        ended(machine, killed=True)
        machine.outside.always = True
        machine.loop.turns(1, machine._all_answer)
        machine.store(ORDERS, ["B"], 40)
        machine.time_passes(40.0)
        assert 2 in machine.outside.has[ORDERS, LEGACY]
        assert machine.referee.rows.open[ORDERS, LEGACY, 1] == (State.PARKED, False)


def test_open_work_of_an_old_epoch_is_claimed_anew_where_its_destination_is_off() -> None:
    """After a restart in `legacy`, Medplum's work of the first of two parallel runs goes on; and after the third
    begins."""
    with life() as machine:
        machine.store(ORDERS, ["A", "B"], 20)
        answer(machine, ORDERS, MEDPLUM, 1, LOST)  # tried again and again
        answer(machine, ORDERS, MEDPLUM, 2, OK)
        machine._order("legacy", 20)
        machine._order("parallel", 20)
        machine.store(ORDERS, ["C"], 20)
        answer(machine, ORDERS, MEDPLUM, 3, OK)
        machine._order("legacy", 20)
        ended(machine, killed=False)
        machine.time_passes(2.0)
        machine._order("parallel", 20)
        machine.outside.always = True
        machine.loop.turns(1, machine._all_answer)
        machine.time_passes(70.0)
        machine.no_rule_is_broken()
        assert machine.service is not None
        assert machine.service.fatal is None
        assert {1, 2, 3} <= machine.outside.has[ORDERS, MEDPLUM]


@pytest.mark.parametrize("turns", TURNS)
@pytest.mark.parametrize("after", [0, 1, 2, 3])
def test_an_abort_ends_the_run_that_goes_on_and_does_not_stumble_over_one_that_never_began(
    after: int, turns: int
) -> None:
    with life() as machine:
        machine._order("cutover", turns, timeout_s=60.0)
        machine._order("drain", after, for_s=60.0)
        machine._order("abort", 20)
        machine.no_rule_is_broken()
        machine.time_passes(3.0)
        drains = [run.state for run in machine.referee.rows.runs.values() if run.verb == "drain"]
        assert drains == ["aborted"]


@pytest.mark.parametrize("rounds", [1, 2, 3])
def test_what_a_rollback_leaves_to_a_person_stops_no_shadow_output_after_a_crash(rounds: int) -> None:
    """Killed while a rollback waits: the process after it parks what may have left, and the rollback goes on, at once.
    How late it parks depends on what else there is to read."""
    with life("live", unknown="park") as machine:
        for seq in range(1, rounds + 1):
            if machine._phase() != "live":
                machine.a_good_night()
            machine.store(ORDERS, ["A"], 20)
            machine._order("rollback", 20, timeout_s=60.0)
            ended(machine, killed=True)
            machine.time_passes(1.0)
            assert machine._phase() == "parallel"
            assert machine.referee.rows.open[ORDERS, "lis", seq] == (State.PARKED, False)
        ended(machine, killed=False)
        machine.outside.always = True
        machine.loop.turns(1, machine._all_answer)
        machine.store(ORDERS, ["B"], 40)
        machine.time_passes(10.0)
        assert machine.referee.rows.waiting(ORDERS, "lis", rounds + 1) == set()


@pytest.mark.parametrize("turns", range(24))
def test_a_rollback_that_is_through_is_not_aborted_as_well(turns: int) -> None:
    with life("live") as machine:
        machine._order("rollback", turns, timeout_s=60.0)
        machine._order("abort", 20)
        machine.no_rule_is_broken()

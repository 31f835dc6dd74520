"""A step of the wall clock ends no run and no hold before its time, and prolongs none."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.ledger.sqlite.journal import RunRow
from engine.migration.conductor import Conductor
from engine.migration.deadlines import Deadlines
from engine.observe.events import Event
from engine.observe.migration_events import HoldOverdue
from tests.migration.life import ended, life
from tests.migration.machine import CHANNELS, NOBODY, RESULTS, InterlockMachine

HOUR = 3600.0
DAY = 24 * HOUR
STEPS = pytest.mark.parametrize("step", [HOUR, -HOUR, 40 * DAY, -40 * DAY])


class Clock:
    """A machine's own clock, and a wall clock that can be set. Seconds."""

    def __init__(self) -> None:
        self.own = 5.0
        self.ahead = 1_000_000_000.0

    def wall(self) -> int:
        return int((self.own + self.ahead) * 1e6)


@given(
    whole=st.integers(1, 10_000),
    life=st.lists(st.tuples(st.integers(0, 3000), st.integers(-100_000, 100_000)), max_size=8),
)
def test_within_a_process_what_is_left_is_the_whole_less_what_has_passed(whole: int, life: list[tuple[int, int]]):
    clock = Clock()
    deadlines, began = Deadlines(clock.wall, lambda: clock.own), clock.wall()
    until, passed = began + whole * 1_000_000, 0
    assert deadlines.left("run", began, until) == whole
    for seconds, step in life:
        clock.own, clock.ahead, passed = clock.own + seconds, clock.ahead + step, passed + seconds
        assert deadlines.left("run", began, until) == pytest.approx(whole - passed)


@given(whole=st.integers(1, 10_000), away=st.integers(0, 20_000), step=st.integers(-100_000, 100_000))
def test_over_a_restart_the_wall_clock_says_what_is_left_and_never_more_than_the_whole(
    whole: int, away: int, step: int
):
    clock = Clock()
    began = clock.wall()
    clock.own, clock.ahead = 0.0, clock.ahead + 5.0 + away + step
    left = Deadlines(clock.wall, lambda: clock.own).left("run", began, began + whole * 1_000_000)
    assert left == pytest.approx(min(whole, whole - away - step))


def test_a_new_end_is_a_new_deadline_and_others_are_not_touched():
    clock = Clock()
    deadlines, began = Deadlines(clock.wall, lambda: clock.own), clock.wall()
    deadlines.left("a", began, began + 10_000_000)
    deadlines.left("b", began, began + 10_000_000)
    clock.own += 4
    again = clock.wall()
    assert deadlines.left("a", again, again + 10_000_000) == 10
    assert deadlines.left("b", began, began + 10_000_000) == 6


# -- in the service


def conductor_of(machine: InterlockMachine) -> Conductor:
    assert machine.service is not None
    return machine.service.conductor


def run_of(machine: InterlockMachine) -> RunRow:
    (live,) = conductor_of(machine).runs._live.values()
    return live.row


@STEPS
def test_a_drain_is_lifted_when_its_time_is_over_whatever_the_clock_is_set_to(step: float):
    with life() as machine:
        machine._order("drain", 40, for_s=900.0)
        machine.time_passes(60.0)
        machine.ahead = step
        machine.time_passes(830.0)
        assert run_of(machine).state == "running"
        machine.time_passes(15.0)
        assert (run_of(machine).state, run_of(machine).said[:17]) == ("done", "its time was over")


@STEPS
@pytest.mark.parametrize("verb", ["drain", "cutover", "rollback"])
def test_what_waits_behind_a_barrier_waits_until_its_time_is_over(step: float, verb: str):
    with life("live" if verb == "rollback" else "parallel") as machine:
        conductor = conductor_of(machine)
        before = len(conductor.runs._live)
        machine.store(RESULTS, ["A"], 40)
        machine._order(verb, 40, **{"for_s" if verb == "drain" else "timeout_s": 300.0})
        machine.time_passes(1.0)
        row = [*conductor.runs._live.values()][before].row
        assert (row.state, row.verb) == ("running", verb)
        machine.ahead = step
        machine.time_passes(290.0)
        waits = conductor.runs.row(row.id)
        assert (waits.state, waits.said.partition(": ")[0]) == ("running", f"{row.step} 291 s of 300 s")
        machine.time_passes(15.0)
        assert conductor.runs.row(row.id).state == "failed"


@STEPS
@pytest.mark.parametrize(("verb", "phase"), [("takeover", "outside"), ("give-back", "legacy")])
def test_a_port_that_nobody_comes_back_to_is_given_back_when_the_time_is_over(step: float, verb: str, phase: str):
    with life(phase) as machine:
        machine.taken = verb == "takeover"  # the old listener does not stop; or does not come
        machine._order(verb, 40, timeout_s=60.0, peers=NOBODY if verb == "takeover" else [])
        machine.time_passes(1.0)
        machine.ahead = step
        machine.time_passes(3.0)
        assert run_of(machine).state == "running", run_of(machine).said
        machine.time_passes(70.0)
        assert run_of(machine).state != "running", run_of(machine).said


def test_a_run_whose_time_was_over_while_nothing_ran_ends_at_the_start():
    with life() as machine:
        machine._order("drain", 40, for_s=900.0)
        machine.ahead = HOUR
        ended(machine, killed=True)
        machine.time_passes(0.5)
        assert run_of(machine).state == "done"


def test_a_clock_that_was_set_back_between_two_starts_prolongs_a_run_by_its_own_length_at_most():
    with life() as machine:
        machine._order("drain", 40, for_s=900.0)
        machine.time_passes(600.0)
        machine.ahead = -DAY
        ended(machine, killed=True)
        machine.time_passes(890.0)
        assert run_of(machine).state == "running"
        machine.time_passes(20.0)
        assert run_of(machine).state == "done"


@STEPS
def test_a_hold_pages_when_its_time_is_over_whatever_the_clock_is_set_to(step: float, monkeypatch: pytest.MonkeyPatch):
    pages: list[HoldOverdue] = []

    def heard(event: Event) -> None:
        if isinstance(event, HoldOverdue):
            pages.append(event)

    monkeypatch.setattr("engine.service.service.emit", heard)
    with life() as machine:
        machine._order("hold", 40, for_s=900.0)
        machine.ahead = step
        machine.time_passes(890.0)
        assert pages == []
        machine.time_passes(130.0)
        assert {page.channel for page in pages} == set(CHANNELS)
        assert all(0 < page.seconds < 120 for page in pages)
        for book in conductor_of(machine).world.ledger.channels.values():
            assert book.hold is not None, "only a person ends a hold"

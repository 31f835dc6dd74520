"""Ports that are handed over, in the simulated world: at whatever turn of the loop a crash, an abort, a hold or another
order comes, the phase and the port go together, and what was stored is passed on.

That they go together is looked at after each transaction (`tests.migration.machine`).
"""

from __future__ import annotations

import pytest

from tests.migration.life import TURNS, ended, life
from tests.migration.machine import CHANNELS, NOBODY, ORDERS, RESULTS, VENDOR, InterlockMachine
from tests.support.referee import LEGACY

PEERS = [f"{id}={VENDOR}" for id in CHANNELS]


def states(machine: InterlockMachine) -> list[tuple[str, str]]:
    return [(run.verb, run.state) for run in machine.referee.rows.runs.values()]


def agree(machine: InterlockMachine) -> str:
    """The phase of both channels, which their ports fit."""
    machine.no_rule_is_broken()
    assert not machine._running(), machine.referee.rows.runs
    phases = {machine.referee.rows.phase(id) for id in CHANNELS}
    assert {machine._is_open(id) for id in CHANNELS} == {phases != {"outside"}}
    (phase,) = phases
    return phase


def everything_is_passed_on(machine: InterlockMachine) -> None:
    machine.outside.always = True
    machine.loop.turns(1, machine._all_answer)
    machine.time_passes(70.0)
    for channel, seq in machine.outside.numbers.values():
        assert seq in machine.outside.has[channel, LEGACY]


@pytest.mark.parametrize("killed", [True, False])
@pytest.mark.parametrize("turns", TURNS)
def test_a_takeover_goes_on_whenever_the_process_ends(turns: int, killed: bool) -> None:
    with life("outside") as machine:
        machine._order("takeover", turns, peers=PEERS, timeout_s=60.0)
        machine.store(RESULTS, ["A"], 3)
        ended(machine, killed=killed)
        machine.time_passes(0.5)
        for channel in CHANNELS:
            machine.store(channel, ["B"], 20)
        machine.time_passes(3.0)
        expected = {"legacy": [("takeover", "done")], "outside": []}  # done, or it had never begun
        assert states(machine) == expected[agree(machine)]
        everything_is_passed_on(machine)


@pytest.mark.parametrize("killed", [True, False])
@pytest.mark.parametrize("turns", TURNS)
def test_a_give_back_goes_on_whenever_the_process_ends(turns: int, killed: bool) -> None:
    with life("legacy") as machine:
        machine.store(RESULTS, ["A", "B"], 3)
        machine._order("give-back", turns, timeout_s=60.0)
        machine.store(ORDERS, ["A"], 3)
        ended(machine, killed=killed)
        machine.time_passes(10.0)
        expected = {"outside": [("give-back", "done")], "legacy": []}
        assert states(machine) == expected[agree(machine)]
        everything_is_passed_on(machine)


@pytest.mark.parametrize("turns", TURNS)
@pytest.mark.parametrize("peers", [NOBODY, PEERS])
def test_an_abort_gives_back_or_comes_too_late(turns: int, peers: list[str]) -> None:
    with life("outside") as machine:
        machine._order("takeover", turns, peers=peers, timeout_s=60.0)
        machine._order("abort", 20)
        machine.time_passes(3.0)
        found = {"legacy": [("takeover", "done")], "outside": [("takeover", "aborted")]}
        assert states(machine) == found[agree(machine)]
        machine.time_passes(60.0)
        assert agree(machine) in found


@pytest.mark.parametrize("turns", TURNS)
@pytest.mark.parametrize("taken", [True, False])
def test_an_aborted_give_back_has_our_ports_open_unless_the_old_listener_has_them(turns: int, taken: bool) -> None:
    with life("legacy") as machine:
        machine._order("give-back", turns, timeout_s=60.0)
        if taken and not any(machine._is_open(id) for id in CHANNELS):
            machine.taken = True
        machine._order("abort", 20)
        machine.taken = False
        machine.time_passes(20.0)
        found = {"outside": "done", "legacy": "aborted"}
        phase = agree(machine)
        assert states(machine) == [("give-back", found[phase])]
        everything_is_passed_on(machine)


@pytest.mark.parametrize("verb", ["takeover", "give-back"])
@pytest.mark.parametrize("turns", TURNS)
def test_no_epoch_is_opened_under_a_hold_whenever_it_comes(turns: int, verb: str) -> None:
    with life("outside" if verb == "takeover" else "legacy") as machine:
        more = {"peers": PEERS} if verb == "takeover" else {}
        machine._order(verb, turns, timeout_s=5.0, **more)
        machine._order("hold", 3)
        before = {id: list(epochs) for id, epochs in machine.referee.rows.phases.items()}
        machine.time_passes(20.0)  # the time is over: what would give back has to wait
        if machine._running() and len(machine.referee.rows.holds) == 2:
            assert {id: list(epochs) for id, epochs in machine.referee.rows.phases.items()} == before
        machine._order("release", 20)
        machine.time_passes(70.0)
        agree(machine)
        everything_is_passed_on(machine)


@pytest.mark.parametrize("turns", TURNS)
@pytest.mark.parametrize(
    ("first", "second"),
    [("give-back", "parallel"), ("parallel", "give-back"), ("give-back", "drain"), ("drain", "give-back"),
     ("give-back", "give-back")],
)  # fmt: skip
def test_of_two_orders_one_is_refused_or_comes_after_the_other(first: str, second: str, turns: int) -> None:
    with life("legacy") as machine:
        machine._order(first, turns)
        machine._order(second, 20)
        machine.time_passes(1.0)
        phases = [phase for _, phase in machine.referee.rows.phases[RESULTS]]
        assert phases in (["legacy"], ["legacy", "parallel"], ["legacy", "outside"])
        machine._order("abort", 20)
        machine.time_passes(20.0)
        agree(machine)


@pytest.mark.parametrize("turns", TURNS)
def test_a_takeover_that_is_ordered_twice_opens_one_epoch(turns: int) -> None:
    with life("outside") as machine:
        machine._order("takeover", turns, peers=NOBODY)
        machine._order("takeover", 20, peers=NOBODY)
        machine.time_passes(3.0)
        assert [phase for _, phase in machine.referee.rows.phases[RESULTS]] == ["outside", "legacy"]
        assert agree(machine) == "legacy"


def test_what_the_old_engine_still_sends_is_forwarded_after_a_give_back() -> None:
    with life("legacy") as machine:
        machine.outside.always = True
        machine.store(RESULTS, ["A"], 20)
        machine._order("give-back", 20)
        machine.time_passes(10.0)
        assert agree(machine) == "outside"
        (output,) = [each for each in machine._outputs() if each.channel == RESULTS]
        machine.loop.turns(20, lambda: machine._emit(output, "ok"))
        assert machine.referee.taken["clinic", RESULTS, 1] == {"the old engine"}
        assert not machine.outside.parked

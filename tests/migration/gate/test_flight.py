"""What is on the way, before a move and at the switch."""

from __future__ import annotations

from dataclasses import replace

import pytest

from engine.migration.gate.check import Outcome, When
from tests.migration.gate.subjects import EMR, GOOD, found, with_fact, without_fact, without_taps

B, S = When.BEFORE, When.AT_SWITCH
P, F = Outcome.PASS, Outcome.FAIL

#    destination, state        before, at the switch
TABLE = [
    ("legacy", "waiting", P, F),
    ("legacy", "sending", P, F),
    ("legacy", "retrying", P, F),
    ("legacy", "unknown", F, F),
    ("legacy", "parked", F, F),
    ("legacy", "dead", F, F),
    (EMR.name, "waiting", P, P),
    (EMR.name, "sending", P, F),
    (EMR.name, "retrying", P, P),
    (EMR.name, "unknown", F, F),
    (EMR.name, "parked", F, P),
    (EMR.name, "dead", F, P),
    ("medplum", "waiting", P, P),
    ("medplum", "sending", P, P),
    ("medplum", "retrying", P, P),
    ("medplum", "unknown", F, P),
    ("medplum", "parked", F, P),
    ("medplum", "dead", F, P),
]


@pytest.mark.parametrize(("destination", "state", "before", "at_switch"), TABLE)
def test_what_is_in_the_way_of_a_move(destination: str, state: str, before: Outcome, at_switch: Outcome):
    subject = with_fact("in_flight", value={destination: {state: 1}})
    assert found("in_flight", subject, B).outcome is before
    assert found("in_flight", subject, S).outcome is at_switch


SAID = [
    ({}, B, "Nothing is on the way."),
    ({"legacy": {"waiting": 1200, "sending": 1}}, B,
     "1,200 waiting for the old engine and 1 sending for the old engine; the drain waits for them."),
    ({"legacy": {"waiting": 2}}, S, "2 waiting for the old engine."),
    ({"legacy": {"waiting": 2, "dead": 1}, EMR.name: {"unknown": 3}}, B,
     f"1 dead for the old engine and 3 unknown at {EMR.name}: settle them, or name them with --carry."),
]  # fmt: skip


@pytest.mark.parametrize(("value", "when", "said"), SAID)
def test_it_is_said_what_and_where(value: dict[str, dict[str, int]], when: When, said: str):
    assert found("in_flight", with_fact("in_flight", value=value), when).said == said


def test_with_taps_nobody_has_to_look_at_the_old_engine():
    assert found("old_queue", without_fact("old_queue")).outcome is P


def test_without_taps_the_old_queue_is_not_measured_until_somebody_has_looked():
    blind = replace(GOOD, channel=without_taps())
    finding = found("old_queue", without_fact("old_queue", blind))
    assert finding.outcome is Outcome.NOT_MEASURED
    assert finding.said == "No tap shows it. Nobody has attested it (interlock attest --check old_queue)."
    assert found("old_queue", with_fact("old_queue", blind)).said == "Attested by ann, 10 s ago."

"""The vendor, and the destinations."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from engine.migration.gate.check import Fact, Outcome
from tests.migration.gate.subjects import EMR, GOOD, VALUES, found, seconds, with_fact

P, F, N, U = Outcome.PASS, Outcome.FAIL, Outcome.NO_DATA, Outcome.NOT_MEASURED
HOUR, DAY = 3600, 86400

VENDOR: dict[str, tuple[dict[str, Any], Outcome, str]] = {
    "connected, and sending": (
        {},
        P,
        "1 connection; 400 messages in this phase, the last 30 s ago; usually one every 20 s.",
    ),
    "connected, over a long weekend": ({"peers": 2, "last_received": seconds(3 * DAY)}, P, ""),
    "connected, and silent for longer": ({"last_received": seconds(3 * DAY + 1)}, F, ""),
    "connected, and nothing yet": (
        {"since_phase": 0, "last_received": None, "usual_gap_s": None},
        N,
        "1 connection; nothing was received since the channel is parallel.",
    ),
    "what came in another phase does not count": ({"since_phase": 0}, N, ""),
    "not connected, and nothing yet": (
        {"peers": 0, "since_phase": 0, "last_received": None, "usual_gap_s": None},
        F,
        "Not connected; nothing was received since the channel is parallel.",
    ),
    "a connection for each message": ({"peers": 0, "last_received": seconds(15 * 60)}, P, ""),
    "a rare message, a connection for each": (
        {"peers": 0, "usual_gap_s": 4.0 * HOUR, "last_received": seconds(12 * HOUR)},
        P,
        "Not connected; 400 messages in this phase, the last 12 h ago; usually one every 4 h.",
    ),
    "gone": ({"peers": 0, "last_received": seconds(15 * 60 + 1)}, F, ""),
    "gone, of an unknown rhythm": ({"peers": 0, "last_received": seconds(HOUR), "usual_gap_s": None}, F, ""),
    "a message from before the clock was set back": (
        {"last_received": seconds(-HOUR)},
        U,
        "1 connection; the clock was set back after the last message, whose age is not known.",
    ),
    "a message while the clock is being kept right": ({"last_received": seconds(-1)}, P, ""),
    "one message": (
        {"since_phase": 1, "usual_gap_s": None},
        P,
        "1 connection; 1 message in this phase, the last 30 s ago.",
    ),
}


@pytest.mark.parametrize("case", VENDOR)
def test_the_vendor(case: str):
    changed, outcome, said = VENDOR[case]
    finding = found("vendor", with_fact("vendor", value=VALUES["vendor"] | changed))
    assert finding.outcome is outcome
    assert finding.said == said or not said


TAKEN: dict[str, tuple[dict[str, Any], Outcome, str]] = {
    "everybody": ({"peers": ["10.0.0.1", "10.0.0.2"], "missing": []}, P,
        " Back since the takeover: 10.0.0.1 and 10.0.0.2."),
    "nobody was expected": ({"peers": [], "missing": []}, P, ""),
    "one is not back": ({"peers": ["10.0.0.1", "10.0.0.2"], "missing": ["10.0.0.2"]}, F, ""),
}  # fmt: skip


@pytest.mark.parametrize("case", TAKEN)
def test_who_was_there_before_the_takeover_has_come_back(case: str):
    value, outcome, said = TAKEN[case]
    subject = replace(GOOD, facts={**GOOD.facts, "takeover": Fact("takeover", {"run": 1, **value}, seconds(9 * DAY))})
    finding = found("vendor", subject)
    assert finding.outcome is outcome
    if outcome is P:
        assert finding.said == VENDOR["connected, and sending"][2] + said
        bad = with_fact("vendor", subject, value=VALUES["vendor"] | {"peers": 0, "last_received": None})
        assert found("vendor", bad).outcome is F
    else:
        assert finding.said == "Not back since the takeover: 10.0.0.2."


def seen(reachable: bool | None, why: str = "", probe: str = "window") -> dict[str, Any]:
    return {"reachable": reachable, "why": why, "probe": probe}


DESTINATIONS: dict[str, tuple[dict[str, Any], Outcome, str]] = {
    "all": ({}, P, f"Medplum answers; {EMR.name} answers."),
    "one does not": (
        {EMR.name: seen(False, "connection refused")},
        F,
        f"{EMR.name[0].upper()}{EMR.name[1:]} does not (connection refused).",
    ),
    "one may not be asked": (
        {EMR.name: seen(None, probe="none")},
        U,
        f"{EMR.name[0].upper()}{EMR.name[1:]} may not be probed (probe: none); ask its owner, and waive this by name.",
    ),
    "one may be asked later": (
        {EMR.name: seen(None, "only inside the window")},
        U,
        f"{EMR.name[0].upper()}{EMR.name[1:]} could not be asked now (only inside the window).",
    ),
    "one that may not be asked was seen at work": ({EMR.name: seen(True, "a message an hour ago", "none")}, P, ""),
    "the worse counts": ({"medplum": seen(False, "401"), EMR.name: seen(None)}, F, "Medplum does not (401)."),
}


@pytest.mark.parametrize("case", DESTINATIONS)
def test_the_destinations(case: str):
    changed, outcome, said = DESTINATIONS[case]
    finding = found("destinations", with_fact("destinations", value=VALUES["destinations"] | changed))
    assert finding.outcome is outcome
    assert finding.said == said or not said


def test_a_destination_that_was_not_looked_at_is_no_data():
    finding = found("destinations", with_fact("destinations", value={"medplum": seen(True)}))
    assert (finding.outcome, finding.said.endswith("was not looked at.")) == (N, True)


def test_a_channel_without_a_target_never_passes():
    assert found("destinations", replace(GOOD, channel=replace(GOOD.channel, target=None))).outcome is F

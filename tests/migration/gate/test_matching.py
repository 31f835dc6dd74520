"""The checks of the parallel run."""

from __future__ import annotations

from dataclasses import replace

import pytest

from engine.config.model import Gate
from engine.ledger.course import Compared
from engine.migration.gate.check import Outcome
from engine.migration.gate.matching import match
from tests.migration.gate.subjects import EMR, GOOD, found, with_taps, without_taps

TAP = EMR.name
P, F, N, U = Outcome.PASS, Outcome.FAIL, Outcome.NO_DATA, Outcome.NOT_MEASURED

RUNS: dict[str, tuple[dict[str, Compared], Outcome, str]] = {
    "all matched": (
        {TAP: Compared(matched=1000)},
        P,
        f"The tap {TAP}: 100 % of 1,000 (1,000 matched, 0 explained, 0 unexplained; 0 could not be compared).",
    ),
    "just enough": (
        {TAP: Compared(matched=900, explained=99, unexplained=1)},
        P,
        f"The tap {TAP}: 99.9 % of 1,000 (900 matched, 99 explained, 1 unexplained; 0 could not be compared).",
    ),
    "one too many": (
        {TAP: Compared(matched=998, unexplained=2)},
        F,
        f"The tap {TAP}: 99.8 % of 1,000 (998 matched, 0 explained, 2 unexplained; 0 could not be compared), "
        "and 99.9 % is the least.",
    ),
    "too few": (
        {TAP: Compared(matched=99, not_comparable=5000)},
        N,
        f"The tap {TAP}: 99 of the 100 messages that must be compared.",
    ),
    "none": ({}, N, f"The tap {TAP}: 0 of the 100 messages that must be compared."),
    "late": (
        {TAP: Compared(matched=1000, pending_late=1)},
        F,
        f"1 input at the tap {TAP} should have been compared by now.",
    ),
    "the answers differ": (
        {TAP: Compared(matched=1000), "": Compared(unexplained=1)},
        F,
        "The answers to the sender: 0 % of 1 (0 matched, 0 explained, 1 unexplained; 0 could not be compared), "
        "and 99.9 % is the least.",
    ),
    "few answers are enough": ({TAP: Compared(matched=100), "": Compared(matched=1)}, P, ""),
    "answers that were not compared": ({TAP: Compared(matched=100), "": Compared(not_comparable=9)}, P, ""),
}


@pytest.mark.parametrize("case", RUNS)
def test_the_parallel_run(case: str):
    compared, outcome, said = RUNS[case]
    finding = found("parallel_run", replace(GOOD, compared=compared))
    assert finding.outcome is outcome
    assert finding.said == said or not said
    assert finding.evidence.keys() == compared.keys()


def test_almost_all_is_not_rounded_to_all():
    subject = replace(GOOD, compared={TAP: Compared(matched=999_999, unexplained=1)})
    assert "99.999 % of 1,000,000" in found("parallel_run", subject).said


def test_the_channel_says_what_is_enough():
    channel = replace(with_taps(), gate=Gate(min_match=0.5, min_messages=2))
    subject = replace(GOOD, channel=channel, compared={TAP: Compared(matched=1, unexplained=1)})
    assert found("parallel_run", subject).outcome is P


def test_without_taps_the_run_is_not_measured_however_well_the_answers_match():
    subject = replace(GOOD, channel=without_taps(), compared={"": Compared(matched=1000)})
    for check in ("parallel_run", "clinical"):
        assert found(check, subject).outcome is U


def test_a_tap_to_which_nothing_of_ours_goes_is_not_measured():
    subject = replace(GOOD, channel=with_taps("other"), compared={"other": Compared(not_comparable=1000)})
    finding = found("parallel_run", subject)
    assert finding.outcome is U
    assert finding.said == "The tap other cannot be compared: no destination of ours goes there."
    assert found("clinical", subject).outcome is U


def test_of_two_taps_the_worse_counts_and_is_named():
    channel = with_taps(EMR.name, "other")
    subject = replace(GOOD, channel=channel, compared={TAP: Compared(matched=1)})
    finding = found("parallel_run", subject)
    assert finding.outcome is N
    assert finding.said == f"The tap {TAP}: 1 of the 100 messages that must be compared."


OPEN: dict[str, tuple[dict[str, Compared], Outcome, str]] = {
    "nothing": ({TAP: Compared(matched=1)}, P, f"Nothing clinical and nothing missing is open at the tap {TAP}."),
    "clinical": (
        {TAP: Compared(matched=10_000, open_clinical=1)},
        F,
        f"Open: 1 clinical at the tap {TAP}. Each is to be explained, fixed or accepted, by name.",
    ),
    "missing": ({TAP: Compared(matched=10_000, open_missing=2)}, F, ""),
    "in the answers": (
        {TAP: Compared(matched=10_000), "": Compared(open_clinical=3, open_missing=1)},
        F,
        "Open: 3 clinical at the answers to the sender and 1 of messages that one side alone has, at the answers to "
        "the sender. Each is to be explained, fixed or accepted, by name.",
    ),
    "nothing compared": ({TAP: Compared(not_comparable=9)}, N, f"Nothing was compared at the tap {TAP}."),
}


@pytest.mark.parametrize("case", OPEN)
def test_open_discrepancies(case: str):
    compared, outcome, said = OPEN[case]
    finding = found("clinical", replace(GOOD, compared=compared))
    assert finding.outcome is outcome
    assert finding.said == said or not said


def test_an_open_discrepancy_fails_without_taps_too():
    subject = replace(GOOD, channel=without_taps(), compared={"": Compared(open_clinical=1)})
    assert found("clinical", subject).outcome is F


def test_the_share_of_nothing_is_none():
    assert match(Compared(not_comparable=3, pending_late=2)) is None
    assert match(Compared(matched=1, explained=1, unexplained=2)) == 0.5

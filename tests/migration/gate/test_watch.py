"""Monitoring, what would be refused, and what people attest."""

from __future__ import annotations

from typing import Any

import pytest

from engine.migration.gate.check import Outcome
from tests.migration.gate.subjects import found, seconds, with_fact

P, F = Outcome.PASS, Outcome.FAIL

CASES: dict[str, tuple[str, dict[str, Any], Outcome, str]] = {
    "a scrape of late": ("monitoring", {"last_scrape": seconds(120), "agent": "Prometheus/2.53"}, P,
        "Prometheus/2.53 read /metrics 2 min ago."),
    "a scrape of some time ago": ("monitoring", {"last_scrape": seconds(121), "agent": ""}, F,
        "Somebody read /metrics 2 min ago, and 2 min is the most."),
    "no scrape": ("monitoring", {"last_scrape": None, "agent": ""}, F,
        "Nothing has read /metrics since the service started."),
    "nothing would be refused": ("would_refuse", {"undecided": 0}, P, "Nothing that came would be refused in live."),
    "one would be refused": ("would_refuse", {"undecided": 1}, F,
        "1 message would be refused in live: have them corrected, or waive this by name."),
    "attested": ("rehearsed", {"attested": True}, P, "Attested by ann, 10 s ago."),
    "attested not": ("rehearsed", {"attested": False}, F, "What is recorded attests nothing, or names nobody."),
    "attested in some other way": ("reconciliation_plan", {"attested": "no"}, F, ""),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_what_is_watched_and_attested(case: str):
    check, value, outcome, said = CASES[case]
    finding = found(check, with_fact(check, value=value))
    assert finding.outcome is outcome
    assert finding.said == said or not said


def test_an_attestation_without_a_name_is_none():
    assert found("rehearsed", with_fact("rehearsed", who="")).outcome is F

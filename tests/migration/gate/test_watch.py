"""Monitoring, what would be refused, and what people attest."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from engine.migration.gate.check import Outcome
from engine.migration.gate.watch import is_monitoring
from engine.service.moves import Moves
from tests.migration.gate.subjects import found, seconds, with_fact

P, F = Outcome.PASS, Outcome.FAIL

CASES: dict[str, tuple[str, dict[str, Any], Outcome, str]] = {
    "a scrape of late": ("monitoring", {"last_scrape": seconds(120), "agent": "Prometheus/2.53"}, P,
        "Prometheus/2.53 read /metrics 2 min ago."),
    "a scrape of some time ago": ("monitoring", {"last_scrape": seconds(121), "agent": ""}, F,
        "Somebody read /metrics 2 min ago, and 2 min is the most."),
    "a scrape from before the clock was set back": ("monitoring", {"last_scrape": seconds(-3600), "agent": ""},
        Outcome.NOT_MEASURED, "The clock was set back after /metrics was read: when that was is not known."),
    "no scrape": ("monitoring", {"last_scrape": None, "agent": ""}, F,
        "No monitoring has read /metrics since the service started."),
    "a person has read": ("monitoring", {"last_scrape": None, "agent": "", "other": "curl/8.5.0"}, F,
        "No monitoring has read /metrics since the service started (last reader: curl)."),
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


@pytest.mark.parametrize("agent", [
    "Prometheus/2.53.0", "vm_promscrape", "GrafanaAgent/v0.40.0", "Alloy/v1.4.2 (linux; docker)", "Telegraf/1.30.0",
    "otelcol-contrib/0.120.0", "kyma-otelcol/0.119.0",
])  # fmt: skip
def test_what_reads_by_itself_is_monitoring(agent: str):
    assert is_monitoring(agent)


@pytest.mark.parametrize("agent", ["curl/8.5.0", "Mozilla/5.0 (X11)", "Go-http-client/1.1", "interlock/0.1.0", ""])
def test_what_a_person_reads_with_is_none(agent: str):
    assert not is_monitoring(agent)


def test_a_person_who_looks_does_not_end_a_scrape_and_a_scrape_forgets_no_person():
    service: Any = SimpleNamespace(ledger=None, configuration=SimpleNamespace(channels=(), feeds=()))
    moves = Moves(service)
    moves.scraped("curl/8.5.0")
    assert (moves.last_scrape, moves.scraper, moves.other_reader) == (0, "", "curl/8.5.0")
    moves.scraped("vm_promscrape")
    scraped = moves.last_scrape
    moves.scraped("")
    assert (moves.last_scrape, moves.scraper, moves.other_reader) == (
        scraped,
        "vm_promscrape",
        "a client without a name",
    )
    assert scraped > 0


def test_an_attestation_without_a_name_is_none():
    assert found("rehearsed", with_fact("rehearsed", who="")).outcome is F

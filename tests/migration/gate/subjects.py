"""A subject of the gate for which every check passes, for tests that spoil one thing in it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from engine.config.edge import Listen
from engine.config.model import Channel, Tap
from engine.ledger.course import Compared
from engine.migration.gate.check import Fact, Finding, Subject, When
from engine.migration.gate.examine import examine
from tests.support.house import MEDPLUM, channel, emr

NOW = 1_700_000_000_000_000  # Tue 14 Nov 2023 16:13:20 in Chicago
EMR = emr(3)
assert EMR.endpoint is not None


def seconds(ago: float) -> int:
    """The instant so many seconds before NOW."""
    return NOW - int(ago * 1_000_000)


def without_taps() -> Channel:
    return channel("acme-results", port=1, old_engine=2, destinations=(MEDPLUM, EMR))


def with_taps(*taps: str) -> Channel:
    """Its taps forward to the channel's EMR, or to the addresses named."""
    plain = without_taps()
    assert plain.legacy is not None
    assert EMR.endpoint is not None
    forwards = [replace(EMR.endpoint, name=name) for name in taps] or [EMR.endpoint]
    made = tuple(Tap(to.name, Listen(7, "127.0.0.1"), to) for to in forwards)
    return replace(plain, legacy=replace(plain.legacy, taps=made))


VALUES: dict[str, Any] = {
    "vendor": {"peers": 1, "last_received": seconds(30), "since_phase": 400, "usual_gap_s": 20.0},
    "destinations": {
        "medplum": {"reachable": True, "why": "", "probe": "always"},
        EMR.name: {"reachable": True, "why": "", "probe": "window"},
    },
    "in_flight": {"legacy": {"waiting": 0, "sending": 0}, "medplum": {}, EMR.name: {}},
    "monitoring": {"last_scrape": seconds(15), "agent": "Prometheus/2.53"},
    "would_refuse": {"undecided": 0},
    "rehearsed": {"attested": True},
    "reconciliation_plan": {"attested": True},
    "old_queue": {"attested": True},
}


def fact(name: str, **changed: Any) -> Fact:
    given = {"value": VALUES[name], "at": seconds(10), "who": "ann" if "attested" in VALUES[name] else ""}
    return Fact(name, **(given | changed))


GOOD = Subject(
    channel=with_taps(),
    phase="parallel",
    version="v1",
    now=NOW,
    facts={name: fact(name) for name in VALUES},
    compared={EMR.name: Compared(matched=995, explained=5, not_comparable=2)},
)


def with_fact(name: str, subject: Subject = GOOD, **changed: Any) -> Subject:
    """`subject`, with this fact changed."""
    return replace(subject, facts={**subject.facts, name: fact(name, **changed)})


def without_fact(name: str, subject: Subject = GOOD) -> Subject:
    return replace(subject, facts={known: fact for known, fact in subject.facts.items() if known != name})


def found(check: str, subject: Subject, when: When | None = None) -> Finding:
    """What one check comes to."""
    return next(finding for finding in examine(subject, when) if finding.check == check)

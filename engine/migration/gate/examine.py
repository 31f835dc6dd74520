"""All checks of the gate, applied to one channel."""

from __future__ import annotations

from collections.abc import Iterable

from engine.migration.gate import attested, flight, matching, reach, timing, watch
from engine.migration.gate.check import Check, Finding, Outcome, Subject, When, settle

CHECKS: tuple[Check, ...] = (
    *matching.CHECKS,
    *flight.CHECKS,
    *reach.CHECKS,
    *watch.CHECKS,
    *attested.CHECKS,
    *timing.CHECKS,
)

ATTESTABLE = ("rehearsed", "reconciliation_plan", "old_queue")
"""The facts that a person attests; each is the name of its check as well."""


def examine(subject: Subject, when: When | None = None) -> tuple[Finding, ...]:
    """Every check that counts then, waivers applied; None = every check there is, as it stands before a move."""
    at = when or When.BEFORE
    return tuple(settle(check, subject, at) for check in CHECKS if when is None or when in check.when)


def passed(findings: Iterable[Finding]) -> bool:
    """Whether the gate is open: each check passes or is waived. Without any check it is not."""
    outcomes = [finding.outcome for finding in findings]
    return bool(outcomes) and all(outcome in (Outcome.PASS, Outcome.WAIVED) for outcome in outcomes)

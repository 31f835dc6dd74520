"""What a person attests, by name and for a time: that a rollback was rehearsed, that there is a plan to reconcile."""

from __future__ import annotations

from engine.migration.gate.check import BEFORE, Check, Fact, Look, Outcome, Subject, Verdict, When, of_fact
from engine.migration.gate.words import DAY, span

A_MONTH = 30 * DAY


def attested(name: str, max_age: float) -> Look:
    """A look at what somebody attested. It holds until the end that he gave, or for `max_age` seconds."""
    return of_fact(name, max_age, _judge, f"Nobody has attested it (interlock attest --check {name}).")


def _judge(subject: Subject, _: When, fact: Fact) -> Verdict:
    evidence = {"value": fact.value, "who": fact.who, "until": fact.until}
    if not fact.who or not isinstance(fact.value, dict) or fact.value.get("attested") is not True:
        return Verdict(Outcome.FAIL, "What is recorded attests nothing, or names nobody.", fact.at, evidence)
    said = f"Attested by {fact.who}, {span(subject.age(fact.at))} ago."
    return Verdict(Outcome.PASS, said, fact.at, evidence)


CHECKS = (
    Check("rehearsed", "a rollback was rehearsed", BEFORE, attested("rehearsed", A_MONTH)),
    Check(
        "reconciliation_plan",
        "it is agreed how messages are counted afterwards",
        BEFORE,
        attested("reconciliation_plan", A_MONTH),
    ),
)

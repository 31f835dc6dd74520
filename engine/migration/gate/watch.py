"""Is somebody watching, and is everything decided that the watch has shown?"""

from __future__ import annotations

import re

from engine.migration.gate.check import BEFORE, Check, Fact, Outcome, Subject, Verdict, When, of_fact
from engine.migration.gate.words import MINUTE, SECOND, count, span

SCRAPED = 2 * MINUTE  # several times the usual interval of Prometheus
FRESH = 5 * MINUTE
MONITORING = re.compile(
    r"prometheus|vm_promscrape|vmagent|victoriametrics|telegraf|otelcol|opentelemetry|grafana ?agent|\balloy/", re.I
)
"""In the User-Agent of what reads metrics by itself. A person with curl or a browser is no monitoring."""


def is_monitoring(agent: str) -> bool:
    """Whether a User-Agent is that of Prometheus, or of one of those that read as it does."""
    return MONITORING.search(agent) is not None


def monitoring(subject: Subject, _: When, fact: Fact) -> Verdict:
    """Monitoring has read /metrics lately. The fact's value: last_scrape (µs or null), agent; other: who else read
    last, empty for nobody."""
    last, agent = fact.value.get("last_scrape"), fact.value.get("agent")
    evidence = {"value": fact.value}
    if last is None:
        other = str(fact.value.get("other") or "").partition("/")[0]
        told = f" (last reader: {other})" if other else ""
        said = f"No monitoring has read /metrics since the service started{told}."
        return Verdict(Outcome.FAIL, said, fact.at, evidence)
    if subject.is_to_come(last):
        said = "The clock was set back after /metrics was read: when that was is not known."
        return Verdict(Outcome.NOT_MEASURED, said, fact.at, evidence)
    said = f"{agent or 'Somebody'} read /metrics {span(subject.age(last))} ago"
    if subject.now - last > SCRAPED * SECOND:
        return Verdict(Outcome.FAIL, f"{said}, and {span(SCRAPED)} is the most.", fact.at, evidence)
    return Verdict(Outcome.PASS, f"{said}.", fact.at, evidence)


def would_refuse(_: Subject, __: When, fact: Fact) -> Verdict:
    """Nothing that the old engine took would be refused by us, undecided. The fact's value: undecided."""
    undecided = fact.value["undecided"]
    if undecided:
        messages = count(undecided, "message")
        said = f"{messages} would be refused in live: have them corrected, or waive this by name."
        return Verdict(Outcome.FAIL, said, fact.at, {"value": fact.value})
    return Verdict(Outcome.PASS, "Nothing that came would be refused in live.", fact.at, {"value": fact.value})


CHECKS = (
    Check(
        "monitoring", "monitoring is live", BEFORE,
        of_fact("monitoring", FRESH, monitoring, "Nobody has looked whether monitoring reads /metrics."),
    ),
    Check(
        "would_refuse", "nothing would be refused that the old engine takes", BEFORE,
        of_fact("would_refuse", FRESH, would_refuse, "What would be refused was not counted."),
    ),
)  # fmt: skip

"""Both ends of a channel: the vendor that sends, and the destinations that are to take it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from engine.migration.gate.check import BEFORE, Check, Fact, Outcome, Subject, Verdict, When, of_fact, worst
from engine.migration.gate.words import DAY, MINUTE, count, listed, span

FRESH = 5 * MINUTE
LONG_WEEKEND = 3 * DAY  # a clinic that is closed from Friday to Monday is no silent vendor
GAPS = 3  # without a connection: so many usual pauses may have gone by, for vendors that connect for each message
LEAST_PAUSE = 15 * MINUTE


def vendor(subject: Subject, _: When, fact: Fact) -> Verdict:
    """It sends in this phase, in its own rhythm, and everybody who was there before the takeover has come back.

    The fact's value: peers (connections now), last_received (µs or null), since_phase (messages in this phase),
    usual_gap_s (or null). That of `takeover`, where there was one: peers, missing (IP addresses).
    """
    outcome, said = _sending(subject, fact.value)
    taken = subject.facts.get("takeover")
    evidence = {"value": fact.value, **({"takeover": taken.value} if taken else {})}
    if taken and taken.value["missing"]:
        missing = listed(taken.value["missing"])
        return Verdict(Outcome.FAIL, f"Not back since the takeover: {missing}.", fact.at, evidence)
    if taken and taken.value["peers"]:
        said += f" Back since the takeover: {listed(taken.value['peers'])}."
    return Verdict(outcome, said, fact.at, evidence)


def _sending(subject: Subject, value: Mapping[str, Any]) -> tuple[Outcome, str]:
    peers, last, received, gap = (value[key] for key in ("peers", "last_received", "since_phase", "usual_gap_s"))
    link = count(peers, "connection") if peers else "Not connected"
    if not received or last is None:
        outcome = Outcome.NO_DATA if peers else Outcome.FAIL
        return outcome, f"{link}; nothing was received since the channel is {subject.phase}."
    if subject.is_to_come(last):
        return Outcome.NOT_MEASURED, f"{link}; the clock was set back after the last message, whose age is not known."
    silence = subject.age(last)
    limit = LONG_WEEKEND if peers else max(LEAST_PAUSE, GAPS * (gap or 0.0))
    rhythm = f"; usually one every {span(gap)}" if gap else ""
    said = f"{link}; {count(received, 'message')} in this phase, the last {span(silence)} ago{rhythm}."
    return Outcome.FAIL if silence > limit else Outcome.PASS, said


def destinations(subject: Subject, _: When, fact: Fact) -> Verdict:
    """Each destination of the target answers and lets us in, as far as it may be asked.

    The fact's value: {destination: {reachable: true, false or null, why, probe: none, window or always}}.
    """
    target = subject.channel.target
    if target is None:
        return Verdict(Outcome.FAIL, "The channel has no target: to send to.", fact.at)
    found = [_reached(to.name, fact.value.get(to.name)) for to in target.destinations]
    return worst(found, fact.at, {"value": fact.value})


def _reached(name: str, seen: Mapping[str, Any] | None) -> tuple[Outcome, str]:
    if seen is None:
        return Outcome.NO_DATA, f"{name} was not looked at"
    why = f" ({seen['why']})" if seen.get("why") else ""
    if seen["reachable"]:
        return Outcome.PASS, f"{name} answers{why}"
    if seen["reachable"] is False:
        return Outcome.FAIL, f"{name} does not{why}"
    if seen.get("probe") == "none":
        return Outcome.NOT_MEASURED, f"{name} may not be probed (probe: none); ask its owner, and waive this by name"
    return Outcome.NOT_MEASURED, f"{name} could not be asked now{why}"


CHECKS = (
    Check(
        "vendor", "the vendor is connected and sends", BEFORE,
        of_fact("vendor", FRESH, vendor, "Nobody has looked whether the vendor sends."),
    ),
    Check(
        "destinations", "destinations are reachable and let us in", BEFORE,
        of_fact("destinations", FRESH, destinations, "Nobody has looked whether the destinations answer."),
    ),
)  # fmt: skip

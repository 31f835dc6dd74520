"""What a check is: it looks at a subject, which is rows only, and comes to one of five outcomes.

No data never passes, and neither does what could not be measured. A waiver lets a check pass for a time, in the name
of a person; a check says from which outcomes that is possible at all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from engine.config.model import Channel
from engine.ledger.course import Compared
from engine.migration.gate.words import SECOND, span


class Outcome(Enum):
    """How a check ends."""

    PASS = "pass"
    FAIL = "fail"
    NO_DATA = "no data"  # nothing was recorded, or it is too old, or of another version
    NOT_MEASURED = "not measured"  # it cannot be known here
    WAIVED = "waived"


class When(Enum):
    """When a check counts: before anything is begun, or in the transaction that switches."""

    BEFORE = "before"
    AT_SWITCH = "at switch"


BEFORE = frozenset({When.BEFORE})
BOTH = frozenset(When)

ANY = frozenset({Outcome.FAIL, Outcome.NO_DATA, Outcome.NOT_MEASURED})
UNKNOWN = frozenset({Outcome.NO_DATA, Outcome.NOT_MEASURED})  # may be waived for want of data, never against it
NONE: frozenset[Outcome] = frozenset()


@dataclass(frozen=True, slots=True)
class Fact:
    """Something that was seen or attested, the newest of its name. Times in microseconds since 1970.

    who: whoever attested it; empty = the service saw it. until: it does not count from then on; 0 = its age decides.
    All by the wall clock, over restarts; a time that is still to come makes no fact fresh.
    version: of the mapping and the channel file that it holds for; empty = for any.
    """

    name: str
    value: Any
    at: int
    who: str = ""
    until: int = 0
    version: str = ""


@dataclass(frozen=True, slots=True)
class Waiver:
    """A person lets the check `name` pass until then, and says why. Times in microseconds since 1970."""

    name: str
    who: str
    why: str
    at: int
    until: int


@dataclass(frozen=True, slots=True)
class Subject:
    """Everything that a check may look at.

    phase: the channel's present one. version: the hash of its effective mapping and file. facts, waivers: by name;
    compared: by tap, the answers to the sender under ``.
    """

    channel: Channel
    phase: str
    version: str
    now: int
    facts: Mapping[str, Fact] = field(default_factory=dict)
    waivers: Mapping[str, Waiver] = field(default_factory=dict)
    compared: Mapping[str, Compared] = field(default_factory=dict)

    def age(self, at: int) -> float:
        """Seconds since then."""
        return (self.now - at) / SECOND

    def is_to_come(self, at: int) -> bool:
        """Whether the clock has been set back since something was seen then: how old it is cannot be known."""
        return self.age(at) < -CORRECTED


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a check comes to. said: a sentence for people. at: when what it rests on was measured; None = never."""

    outcome: Outcome
    said: str
    at: int | None = None
    evidence: Mapping[str, Any] = field(default_factory=dict)


CORRECTED = 1.0  # seconds that a clock may go back while it is only kept right

_WORST_FIRST = (Outcome.FAIL, Outcome.NO_DATA, Outcome.NOT_MEASURED, Outcome.PASS)


def worst(found: Iterable[tuple[Outcome, str]], at: int, evidence: Mapping[str, Any]) -> Verdict:
    """Of several outcomes, each with a clause: the worst, with the clauses of all that have it, as a sentence."""
    all_ = list(found)
    outcome = next(outcome for outcome in _WORST_FIRST if any(each is outcome for each, _ in all_))
    said = "; ".join(said for each, said in all_ if each is outcome)
    return Verdict(outcome, f"{said[0].upper()}{said[1:]}.", at, evidence)


Look = Callable[[Subject, When], Verdict]


@dataclass(frozen=True, slots=True)
class Check:
    """One check. waivable: the outcomes from which a waiver lets it pass; instead: what to do where none does."""

    name: str
    title: str
    when: frozenset[When]
    look: Look
    waivable: frozenset[Outcome] = ANY
    instead: str = ""


@dataclass(frozen=True, slots=True)
class Finding:
    """A check as it stands: shown to people, and kept as the evidence of a move."""

    check: str
    title: str
    outcome: Outcome
    said: str
    at: int | None
    evidence: Mapping[str, Any]
    waiver: Waiver | None
    when: frozenset[When]


def of_fact(name: str, max_age: float | None, judge: Callable[[Subject, When, Fact], Verdict], missing: str) -> Look:
    """A look at one fact, which must be there, not older than `max_age` seconds, and of this version.

    missing: the sentence where the fact was never recorded.
    """

    def look(subject: Subject, when: When) -> Verdict:
        fact = subject.facts.get(name)
        if fact is None:
            return Verdict(Outcome.NO_DATA, missing)
        stale = _stale(subject, fact, max_age)
        if stale:
            return Verdict(Outcome.NO_DATA, stale, fact.at, {"value": fact.value})
        return judge(subject, when, fact)

    return look


def _stale(subject: Subject, fact: Fact, max_age: float | None) -> str:
    if subject.is_to_come(fact.at):
        ahead = span(-subject.age(fact.at))
        return f"It is dated {ahead} ahead: the clock was set back, and how old it is is not known."
    if fact.version and fact.version != subject.version:
        return "It was recorded for another version of the mapping or of the channel's file."
    if fact.until and fact.until <= subject.now:
        return f"It held until {span(subject.age(fact.until))} ago."
    if not fact.until and max_age is not None and subject.age(fact.at) > max_age:
        return f"It is {span(subject.age(fact.at))} old, and counts for {span(max_age)}."
    return ""


def settle(check: Check, subject: Subject, when: When) -> Finding:
    """Look, and apply the waiver if there is one that counts."""
    verdict = check.look(subject, when)
    waiver = subject.waivers.get(check.name)
    outcome, said = verdict.outcome, verdict.said
    if outcome is Outcome.PASS or waiver is None:
        waiver = None
    elif waiver.until <= subject.now:
        said += f" The waiver of {waiver.who} ended {span(subject.age(waiver.until))} ago."
        waiver = None
    elif outcome not in check.waivable:
        said += f" The waiver of {waiver.who} does not count here: {check.instead}."
        waiver = None
    else:
        outcome = Outcome.WAIVED
    return Finding(check.name, check.title, outcome, said, verdict.at, verdict.evidence, waiver, check.when)

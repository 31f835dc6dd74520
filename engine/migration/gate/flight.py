"""What is on the way: in our ledger, and in the old engine's own queue."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

from engine.config.model import Channel
from engine.ledger.routing import LEGACY
from engine.migration.gate.attested import attested
from engine.migration.gate.check import BOTH, NONE, Check, Fact, Outcome, Subject, Verdict, When, of_fact
from engine.migration.gate.words import HOUR, MINUTE, listed

MOVING = ("waiting", "sending", "retrying")  # settles by itself
STUCK = ("unknown", "parked", "dead")  # may want a person
MAY_HAVE_LEFT = frozenset({"sending", "unknown"})

Counts = Counter[tuple[str, str]]  # (state, destination) -> how many


def in_flight(subject: Subject, when: When, fact: Fact) -> Verdict:
    """Before: nothing is stuck; what moves, the drain waits for. At the switch: nothing is on the way any more.

    The fact's value: {destination: {state: number}}, without what is carried over the switch by name.
    """
    counts = {
        where: {state: n for state, n in states.items() if n and state in _in_the_way(subject.channel, where, when)}
        for where, states in fact.value.items()
    }
    stuck, moving = _of(STUCK, counts), _of(MOVING, counts)
    if stuck:
        outcome, said = Outcome.FAIL, f"{_said(stuck)}: settle them, or name them with --carry."
    elif moving and when is When.AT_SWITCH:
        outcome, said = Outcome.FAIL, f"{_said(moving)}."
    elif moving:
        outcome, said = Outcome.PASS, f"{_said(moving)}; the drain waits for them."
    else:
        outcome, said = Outcome.PASS, "Nothing is on the way."
    return Verdict(outcome, said, fact.at, {"value": fact.value})


def _in_the_way(channel: Channel, destination: str, when: When) -> frozenset[str]:
    """The states that matter there.

    Before a move: all, but for what only moves at Medplum. At the switch: all on the old engine's path, what may have
    left already at real endpoints, and nothing at Medplum, which settles its work after the switch as well.
    """
    real = any(to.name == destination and to.endpoint for to in channel.destinations)
    if destination == LEGACY:
        return frozenset({*MOVING, *STUCK})
    if when is When.AT_SWITCH:
        return MAY_HAVE_LEFT if real else frozenset()
    return frozenset({*MOVING, *STUCK}) if real else frozenset(STUCK)


def _of(states: tuple[str, ...], counts: Mapping[str, Mapping[str, int]]) -> Counts:
    return Counter({(state, to): n for to, found in counts.items() for state, n in found.items() if state in states})


def _said(counts: Counts) -> str:
    return listed(
        f"{n:,} {state} {'for the old engine' if to == LEGACY else f'at {to}'}" for (state, to), n in counts.items()
    )


_LOOKED_AT = attested("old_queue", HOUR)


def old_queue(subject: Subject, when: When) -> Verdict:
    """With taps the old engine shows what it still has; without, somebody has to look at its queue."""
    if subject.channel.legacy is None:
        return Verdict(Outcome.PASS, "There is no old engine.", subject.now)
    if subject.channel.taps:
        said = "Its taps show what it still sends, and the drain waits until they are quiet."
        return Verdict(Outcome.PASS, said, subject.now)
    verdict = _LOOKED_AT(subject, when)
    if verdict.outcome is Outcome.NO_DATA and verdict.at is None:
        return replace(verdict, outcome=Outcome.NOT_MEASURED, said=f"No tap shows it. {verdict.said}")
    return verdict


CHECKS = (
    Check(
        "in_flight", "nothing is in flight", BOTH,
        of_fact("in_flight", 2 * MINUTE, in_flight, "What is on the way was not counted."),
        NONE, "what is on the way is waited for, settled, or carried by name",
    ),
    Check("old_queue", "the old engine has nothing left", BOTH, old_queue),
)  # fmt: skip

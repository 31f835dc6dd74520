"""What follows from an attempt: a table from the outcome's class to the state, the wait and the lane's fate. Pure."""

from __future__ import annotations

import random
from dataclasses import dataclass

from engine.config.endpoint import Dead
from engine.ledger.model import State
from engine.ledger.outcome import Outcome, Result

FIRST_WAIT = 0.5  # seconds
LONGEST_WAIT = 30.0
MOST_ENDS = 5  # worker processes that ended with one message on its way: it may be the cause
MOST_NEGATIVE_ANSWERS = 5  # a peer that says "error, try again" this often to one message means it


@dataclass(frozen=True, slots=True)
class Decision:
    """state: what the part becomes. wait: seconds until it is tried again, or None. blocks: its lane waits."""

    state: State
    wait: float | None = None
    blocks: bool = True


@dataclass(frozen=True, slots=True)
class Manner:
    """How a destination wants its failures treated.

    dead: whether a dead message's lane waits for a person, or goes on. Where it stops the channel its lane waits too;
    the stop itself is the ledger's, since both must be durable together.
    parks_unknown: what may have been taken waits for a person, or is tried again.
    settle_time: seconds after which an attempt without an answer is over; it is not repeated before.
    """

    dead: Dead = "waits"
    parks_unknown: bool = False
    settle_time: float = 0.0


def decide(outcome: Outcome, tries: int, manner: Manner, *, relayed: bool, unknown: bool, jitter: float) -> Decision:
    """What becomes of a part that was not delivered, after its attempt number `tries`.

    relayed: the sender waits for this very answer, so that a "no" goes back to it and the matter is the sender's.
    unknown: an earlier attempt may have been taken; only an answer can end that.
    jitter: a number in [0, 1).
    """
    negative = outcome.answer is not None and outcome.result in (Result.NEVER, Result.NOT_TAKEN, Result.REFUSED)
    if outcome.result is Result.REFUSED or (relayed and (negative or outcome.result is Result.NEVER)):
        return Decision(State.REFUSED)
    if unknown and outcome.local and outcome.result in (Result.NEVER, Result.FILTERED):
        return Decision(State.PARKED)  # the endpoint was not asked, and may have what an earlier attempt brought
    if outcome.result is Result.FILTERED:
        return Decision(State.FILTERED)
    patient = outcome.passes and manner.dead != "goes_on"  # where nobody waits for a person, nobody waits for this
    if outcome.result is Result.NEVER or (negative and tries >= MOST_NEGATIVE_ANSWERS and not patient):
        return Decision(State.DEAD, None, manner.dead != "goes_on" and not outcome.aside)
    wait = backoff(tries, outcome.after, jitter)
    if outcome.result is Result.UNKNOWN:
        if manner.parks_unknown or (outcome.local and tries >= MOST_ENDS):
            return Decision(State.PARKED)
        return Decision(State.UNKNOWN, max(wait, manner.settle_time))
    return Decision(State.UNKNOWN if unknown and not negative else State.RETRYING, wait)


def backoff(tries: int, after: float | None, jitter: float) -> float:
    """Seconds to wait: doubling from FIRST_WAIT to LONGEST_WAIT, ± 20 %, and never less than the peer asked for."""
    wait = min(LONGEST_WAIT, FIRST_WAIT * 2.0 ** min(tries - 1, 10)) * (0.8 + 0.4 * jitter)
    return max(wait, after or 0.0)


def jitter() -> float:
    """A number in [0, 1), so that what failed together is not tried again together."""
    return random.random()

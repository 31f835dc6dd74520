"""What follows from an attempt: a table from the outcome's class to the state, the wait and the lane's fate. Pure."""

from __future__ import annotations

import random
from dataclasses import dataclass

from engine.ledger.model import State
from engine.ledger.outcome import Outcome, Result

FIRST_WAIT = 0.5  # seconds
LONGEST_WAIT = 30.0
MOST_NEGATIVE_ANSWERS = 5  # a peer that says "error, try again" this often to one message means it


@dataclass(frozen=True, slots=True)
class Decision:
    """state: what the part becomes. wait: seconds until it is tried again, or None. blocks: its lane waits."""

    state: State
    wait: float | None = None
    blocks: bool = True


def decide(
    outcome: Outcome, tries: int, *, relayed: bool, waits_for_dead: bool, settle_time: float, jitter: float
) -> Decision:
    """What becomes of a part that was not delivered, after its attempt number `tries`.

    relayed: the sender waits for this very answer, so that a "no" goes back to it and the matter is the sender's.
    settle_time: seconds after which an attempt without an answer is over; it is not repeated before.
    jitter: a number in [0, 1).
    """
    negative = outcome.answer is not None and outcome.result in (Result.NEVER, Result.NOT_TAKEN, Result.REFUSED)
    if outcome.result is Result.REFUSED or (negative and relayed):
        return Decision(State.REFUSED)
    if outcome.result is Result.NEVER or (negative and tries >= MOST_NEGATIVE_ANSWERS):
        return Decision(State.DEAD, None, waits_for_dead)
    wait = backoff(tries, outcome.after, jitter)
    if outcome.result is Result.UNKNOWN:
        return Decision(State.UNKNOWN, max(wait, settle_time))
    return Decision(State.RETRYING, wait)


def backoff(tries: int, after: float | None, jitter: float) -> float:
    """Seconds to wait: doubling from FIRST_WAIT to LONGEST_WAIT, ± 20 %, and never less than the peer asked for."""
    wait = min(LONGEST_WAIT, FIRST_WAIT * 2.0 ** min(tries - 1, 10)) * (0.8 + 0.4 * jitter)
    return max(wait, after or 0.0)


def jitter() -> float:
    """A number in [0, 1), so that what failed together is not tried again together."""
    return random.random()

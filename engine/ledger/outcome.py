"""What one attempt to deliver came to, in the classes that decide what happens next."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from engine.ledger.gaps import Gaps


class Result(Enum):
    """The class of an attempt's end. The delivery loop, not the destination, decides what follows from it."""

    DELIVERED = "delivered"  # the endpoint has it and said so
    REFUSED = "refused"  # the endpoint said no, and its answer goes back to the sender, who owns the matter
    NOT_TAKEN = "not taken"  # provably not taken: no byte sent, or the peer said "later"
    UNKNOWN = "unknown"  # bytes were sent and no parsed answer came
    NEVER = "never"  # the endpoint will never take this message as it is
    FILTERED = "filtered"  # a declared rule: not to be sent at all
    FAULT = "fault"  # the endpoint's own fault (credentials, address): no message is to blame


@dataclass(frozen=True, slots=True)
class Outcome:
    """One attempt's end.

    reason: short and stable, for people and for grouping; codes and paths only, never patient data.
    answer: the peer's answer as it came, where it is to be kept or relayed.
    after: seconds the peer asked us to wait.
    points: FHIR quota points that the attempt cost.
    trouble: the endpoint as a whole seems to be down or busy, not only this message: counts towards its breaker.
    local: decided here, the endpoint was not asked: says nothing about it.
    passes: the endpoint says what stands in the way, and that passes: tried again as long as it says so.
    aside: nothing at all can be made of the message (no mapping takes it, it is not text): its lane goes on without it.
    gaps: what the mapping could not carry over, where there is anything.
    """

    result: Result
    reason: str = ""
    answer: bytes | None = None
    after: float | None = None
    points: int = 0
    trouble: bool = False
    local: bool = False
    aside: bool = False
    passes: bool = False
    gaps: Gaps | None = None

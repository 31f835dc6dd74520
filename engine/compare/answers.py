"""The answer that the old engine gave to a sender against the one that we would give: by field, stamps apart.

Partners go on seeing the answers that they know only if somebody has compared them: a code, the message it answers, an
error and its place. Their form (`ACK` or `ACK^R01^ACK`, a text, a version) differs with every message; a built-in rule
explains it (`Rules.of_answers`). Answers that bring data (a query's, an order's) are the destination's to give, so
there is nothing of ours to compare them with.
"""

from __future__ import annotations

from typing import Final

from engine.compare.diff import Comparison, compare
from engine.compare.rules import Rules
from engine.hl7.ack import acknowledge
from engine.hl7.peek import peek
from engine.intake.judge import Flaw

PLAIN: Final = frozenset({"ACK", "MCF", ""})
"""Message types that only acknowledge (table 0076)."""


def ours(message: bytes, flaw: Flaw | None, at: int) -> bytes:
    """Our own answer, as `live` would give it. flaw: what `live` would refuse the message for; at: seconds."""
    head = peek(message)
    if flaw is None:
        return acknowledge(head, "AA", control_id="0", at=at)
    return acknowledge(head, flaw.code, control_id="0", at=at, error=flaw.error)


def compare_answers(message: bytes, answer: bytes, flaw: Flaw | None, rules: Rules, at: int = 0) -> Comparison:
    """The old engine's answer to a message against ours."""
    head = peek(answer)
    if not head.ok:
        return Comparison(False, "the old engine's answer has no MSH", ())
    if head.type not in PLAIN:
        return Comparison(False, "the old engine's answer brings data", ())
    return compare(answer, ours(message, flaw, at), rules)

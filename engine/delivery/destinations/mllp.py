"""To a peer over MLLP: the old engine, or a real EMR or LIS. First in first out, one message at a time.

The answer counts only if its MSA-2 is the message's MSH-10; everything else leaves the message `unknown`, and the
socket is closed, so that a late answer cannot be taken for the next message's.
"""

from __future__ import annotations

from engine.config.endpoint import Endpoint
from engine.delivery import lane
from engine.delivery.breaker import Breaker
from engine.delivery.decision import Manner
from engine.delivery.work import Work
from engine.hl7.ack import parse_ack
from engine.ledger.outcome import Outcome, Result
from engine.mllp.client import Answered, Client, Lost, NotSent, Reply
from engine.observe.delivery_events import StrayAnswer
from engine.observe.events import emit

POSITIVE = frozenset({"AA", "CA"})
FINAL = frozenset({"AR", "CR"})  # must not be repeated as it is (HL7 table 0008)

# HL7 table 0357: what no repetition will mend. 206 (record locked) and 207 (internal error) may pass.
LASTING_ERRORS = frozenset({"100", "101", "102", "103", "200", "201", "202", "203", "204", "205"})


class MllpDestination:
    """One connection to one endpoint, for one course."""

    window = 1

    def __init__(self, channel: str, endpoint: Endpoint, breaker: Breaker, manner: Manner) -> None:
        if endpoint.mllp is None:
            raise ValueError(f"endpoint {endpoint.name} has no mllp address")
        self.breaker = breaker
        self.manner = manner
        self._client = Client(
            endpoint.mllp,
            connect_timeout=endpoint.connect_timeout,
            stray=lambda data: emit(StrayAnswer(channel, endpoint.name, len(data))),
        )
        self._timeout = endpoint.ack_timeout

    def lane(self, raw: bytes) -> bytes:
        return lane.channel(raw)

    def send(self, work: Work) -> None:
        self._client.send(work.message.raw, self._timeout, lambda reply: work.done(work, self._outcome(work, reply)))

    def _outcome(self, work: Work, reply: Reply) -> Outcome:
        if isinstance(reply, Answered):
            outcome = classify(reply.payload, work.message.control_id)
            if outcome.result is Result.UNKNOWN:
                self._client.hang_up()
            return outcome
        if isinstance(reply, NotSent):
            return Outcome(Result.NOT_TAKEN, reply.reason, trouble=True)
        assert isinstance(reply, Lost)
        return Outcome(Result.UNKNOWN, reply.reason, trouble=True)

    async def close(self) -> None:
        await self._client.aclose()


def classify(payload: bytes, control_id: str | None) -> Outcome:
    """What an answer means for the message with `control_id` (None: it has none, so none can be asked for)."""
    answer = parse_ack(payload)
    if answer is None:
        return Outcome(Result.UNKNOWN, "the answer is no acknowledgement")
    if control_id is not None and answer.control_id != control_id:
        return Outcome(Result.UNKNOWN, "the answer's MSA-2 is not this message's MSH-10")
    if answer.code in POSITIVE:
        return Outcome(Result.DELIVERED, "", payload)
    reason = f"answered {answer.code}" + (f", error {answer.error}" if answer.error else "")
    if answer.code in FINAL or answer.error in LASTING_ERRORS:
        return Outcome(Result.NEVER, reason, payload)
    return Outcome(Result.NOT_TAKEN, reason, payload)

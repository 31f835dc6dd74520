"""To a peer over MLLP: the old engine, or a real EMR or LIS. First in first out, one message at a time.

The answer counts only if its MSA-2 is the message's MSH-10; everything else leaves the message `unknown`, and the
connection is closed, so that a late answer cannot be taken for the next message's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from engine.config.edge import Answers
from engine.config.endpoint import Endpoint
from engine.delivery import lane
from engine.delivery.breaker import Breaker
from engine.delivery.decision import Manner
from engine.delivery.sender import Job, Sender
from engine.delivery.work import Work
from engine.hl7.ack import parse_ack
from engine.hl7.modes import Wanted, wanted
from engine.hl7.peek import peek
from engine.ledger.model import Message
from engine.ledger.outcome import Outcome, Result
from engine.mllp.replies import TIMED_OUT, Answered, NotSent, Reply, Written

# HL7 table 0357: what no repetition will mend. 206 (record locked) and 207 (internal error) may pass.
LASTING_ERRORS = frozenset({"100", "101", "102", "103", "200", "201", "202", "203", "204", "205"})

UNANSWERED = "written; this peer does not answer"
UNASKED = "written; the message asks for no answer"
SILENT = "no answer; the message asks for one after an error only"
COMMITTED = "CA"  # taken into safe storage; the application's answer comes later (2.9.3)


class MllpDestination:
    """One course to one endpoint."""

    window = 1

    def __init__(
        self,
        endpoint: Endpoint,
        sender: Sender,
        breaker: Breaker,
        manner: Manner,
        later: Callable[[Message, Any, bytes], None] | None = None,
    ) -> None:
        """`sender` is closed by whoever opened it. `later` hears an application's answer that comes after the accept
        acknowledgement had ended the exchange: the message, its `reply`, and the answer."""
        self.breaker = breaker
        self.manner = manner
        self._sender = sender
        self._answers = endpoint.answers
        self._timeout = endpoint.ack_timeout
        self._later = later
        self._waits_longer = COMMITTED not in endpoint.answers.accepted

    def lane(self, raw: bytes) -> bytes:
        return lane.channel(raw)

    def send(self, work: Work) -> None:
        message = work.message
        asks = wanted(peek(message.raw), "auto")
        job = Job(
            message.raw,
            self._timeout,
            lambda reply: work.done(work, self._outcome(message, reply, job, asks)),
            final=_more_than_committed if self._waits_longer else None,
            expects=self._answers.expected and any((*asks.accept, *asks.application)),
            later=self._heard_later(message) if asks.enhanced else None,
        )
        self._sender.send(job)

    def _heard_later(self, message: Message) -> Callable[[bytes], None] | None:
        tell, reply = self._later, message.reply  # whoever waits now is the one to hear it then
        return None if tell is None or reply is None else lambda payload: tell(message, reply, payload)

    def _outcome(self, message: Message, reply: Reply, job: Job, asks: Wanted) -> Outcome:
        if isinstance(reply, Answered):
            outcome = classify(reply.payload, message.control_id, self._answers)
            if outcome.result is Result.UNKNOWN:
                job.hang_up()
            return outcome
        if isinstance(reply, Written):
            return Outcome(Result.DELIVERED, UNASKED if self._answers.expected else UNANSWERED)
        if isinstance(reply, NotSent):
            return Outcome(Result.NOT_TAKEN, reply.reason, trouble=True)
        if reply.reason == TIMED_OUT and not asks.accept.success and not asks.application.success:
            return Outcome(Result.DELIVERED, SILENT)
        return Outcome(Result.UNKNOWN, reply.reason, trouble=True)

    async def close(self) -> None:
        """The sender is closed by whoever opened it."""


def _more_than_committed(payload: bytes) -> bool:
    answer = parse_ack(payload)
    return answer is None or answer.code != COMMITTED


def classify(payload: bytes, control_id: str | None, answers: Answers) -> Outcome:
    """What an answer means for the message with `control_id` (None: it has none, so none can be asked for)."""
    answer = parse_ack(payload)
    if answer is None:
        return Outcome(Result.UNKNOWN, "the answer is no acknowledgement")
    if answers.check and control_id is not None and answer.control_id != control_id:
        return Outcome(Result.UNKNOWN, "the answer's MSA-2 is not this message's MSH-10")
    if answer.code in answers.accepted:
        return Outcome(Result.DELIVERED, "", payload)
    reason = f"answered {answer.code}" + (f", error {answer.error}" if answer.error else "")
    if answer.code in answers.rejected or answer.error in LASTING_ERRORS:
        return Outcome(Result.NEVER, reason, payload)
    return Outcome(Result.NOT_TAKEN, reason, payload)

"""To a peer over MLLP: the old engine, or a real EMR or LIS. First in first out, one message at a time.

The answer counts only if its MSA-2 is the message's MSH-10; everything else leaves the message `unknown`, and the
connection is closed, so that a late answer cannot be taken for the next message's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from engine.config.edge import AckMode, Answers
from engine.config.endpoint import Endpoint
from engine.delivery import lane
from engine.delivery.breaker import Breaker
from engine.delivery.decision import Manner
from engine.delivery.sender import Job, Sender
from engine.delivery.work import Work
from engine.hl7.ack import parse_ack
from engine.hl7.batch import is_batch, read_batch
from engine.hl7.modes import ORIGINAL, Wanted, wanted
from engine.hl7.peek import peek
from engine.ledger.model import Message
from engine.ledger.outcome import Outcome, Result
from engine.mllp.replies import Answered, NotSent, Reply, Written

# HL7 table 0357: what no repetition will mend. 206 (record locked) and 207 (internal error) may pass.
LASTING_ERRORS = frozenset({"100", "101", "102", "103", "200", "201", "202", "203", "204", "205"})

SEVERITY = (Result.DELIVERED, Result.NOT_TAKEN, Result.NEVER, Result.UNKNOWN)
"""Of several answers to one batch, the worst counts."""

KNOWN = frozenset({"AA", "AE", "AR", "CA", "CE", "CR"})  # table 0008
UNANSWERED = "written; this peer does not answer"
UNASKED = "written; the message asks for no answer to what goes well"
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
        mode: AckMode = "auto",
    ) -> None:
        """`sender` is closed by whoever opened it. `later` hears an answer that comes after the exchange has ended,
        with an accept acknowledgement or with none expected: the message, its `reply`, and the answer. `mode`: how it
        is known which answers a message asks for."""
        self.breaker = breaker
        self.manner = manner
        self._sender = sender
        self._answers = endpoint.answers
        self._timeout = endpoint.ack_timeout
        self._later = later
        self._mode: AckMode = mode
        self._waits_longer = COMMITTED not in endpoint.answers.accepted

    def lane(self, raw: bytes) -> bytes:
        return lane.channel(raw)

    def send(self, work: Work) -> None:
        message = work.message
        head = message.reply.head if message.reply is not None else peek(message.raw)
        asks = wanted(head, self._mode)
        # Who wants to hear of errors only is not waited for: with each good message the lane would stand still. A "no"
        # is passed on when it comes, and the matter is the sender's.
        expects = self._answers.expected and (asks is ORIGINAL or asks.accept.success or asks.application.success)
        inside = _inside(message.raw) if is_batch(message.raw) else ()
        job = Job(
            message.raw,
            self._timeout,
            lambda reply: work.done(work, self._outcome(message, reply, job, asks)),
            final=_more_than_committed if self._waits_longer else None,
            expects=expects,
            later=self._heard_later(message) if asks.enhanced or inside or not expects else None,
            control_id=message.control_id,
            inside=inside,
        )
        self._sender.send(job)

    def _heard_later(self, message: Message) -> Callable[[bytes], None]:
        tell, reply = self._later, message.reply  # whoever waits now is the one to hear it then
        if tell is None or reply is None:
            return lambda payload: None  # it is known whose it is, and nobody wants it
        return lambda payload: tell(message, reply, payload)

    def _outcome(self, message: Message, reply: Reply, job: Job, asks: Wanted) -> Outcome:
        if isinstance(reply, Answered):
            outcome = verdict(reply.payload, message, self._answers)
            if outcome.result is Result.UNKNOWN:
                job.hang_up()
            return outcome
        if isinstance(reply, Written):
            return Outcome(Result.DELIVERED, UNASKED if self._answers.expected else UNANSWERED)
        if isinstance(reply, NotSent):
            return Outcome(Result.NOT_TAKEN, reply.reason, trouble=True)
        return Outcome(Result.UNKNOWN, reply.reason, trouble=True)

    async def close(self) -> None:
        """The sender is closed by whoever opened it."""


def _more_than_committed(payload: bytes) -> bool:
    answer = parse_ack(payload)
    return answer is None or answer.code != COMMITTED


def verdict(payload: bytes, message: Message, answers: Answers) -> Outcome:
    """What an answer means for a message. A batch is answered by a batch, by one acknowledgement that names the batch,
    or by one that names a message in it: no two engines do the same (HL7 v2 chapter 2, 2.10.3.3)."""
    sent = read_batch(message.raw) if is_batch(message.raw) else None
    if sent is None:
        return classify(payload, message.control_id, answers)
    names = {sent.head.control_id, "", *(section.control_id for section in sent.sections), *_inside(message.raw)}
    came = read_batch(payload)
    parts = came.messages if came else [payload]
    outcomes = [classify(part, _named(part, names), answers) for part in parts]
    worst = max(outcomes, key=lambda outcome: SEVERITY.index(outcome.result), default=Outcome(Result.DELIVERED))
    return worst if worst.result is Result.UNKNOWN else replace(worst, answer=payload)


def _inside(raw: bytes) -> tuple[str, ...]:
    """The control ids of a batch's messages."""
    sent = read_batch(raw)
    return tuple(filter(None, (peek(each).control_id for each in sent.messages))) if sent else ()


def _named(payload: bytes, names: set[str | None]) -> str:
    """MSA-2 where it is one of these names, else what no answer can have."""
    answer = parse_ack(payload)
    return answer.control_id if answer is not None and answer.control_id in names else "\n"


def classify(payload: bytes, control_id: str | None, answers: Answers) -> Outcome:
    """What an answer means for the message with `control_id` (None: it has none, so none can be asked for)."""
    answer = parse_ack(payload)
    if answer is None:
        return Outcome(Result.UNKNOWN, "the answer is no acknowledgement")
    if answers.check and control_id is not None and not answer.is_for(control_id):
        return Outcome(Result.UNKNOWN, "the answer's MSA-2 is not this message's MSH-10")
    if answer.code in answers.accepted:
        return Outcome(Result.DELIVERED, "", payload)
    if answer.code not in KNOWN and answer.code not in answers.rejected:
        return Outcome(Result.UNKNOWN, "the answer's code is none of table 0008, and none that the endpoint names")
    reason = f"answered {answer.code}" + (f", error {answer.error}" if answer.error else "")
    if answer.code in answers.rejected or answer.error in LASTING_ERRORS:
        return Outcome(Result.NEVER, reason, payload)
    return Outcome(Result.NOT_TAKEN, reason, payload)

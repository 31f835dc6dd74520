"""To a peer over MLLP: the old engine, or a real EMR or LIS. First in first out, one message at a time.

The answer counts only if its MSA-2 is the message's MSH-10; everything else leaves the message `unknown`, and the
connection is closed, so that a late answer cannot be taken for the next message's. That alone is what a peer's bare
bytes go by, which name nobody (`answers: bare`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from engine.config.edge import AckMode, Answers
from engine.config.endpoint import Endpoint
from engine.delivery import lane
from engine.delivery.breaker import Breaker, Position
from engine.delivery.classes import ERRORS, End, outcome
from engine.delivery.decision import Manner
from engine.delivery.outputs import Outputs
from engine.delivery.sender import Job, Sender, is_message
from engine.delivery.work import Work
from engine.hl7.ack import Answer, parse_ack
from engine.hl7.batch import is_batch, read_batch
from engine.hl7.modes import ORIGINAL, Wanted, wanted
from engine.hl7.peek import peek
from engine.ledger.model import Message
from engine.ledger.outcome import Outcome, Result
from engine.mllp.framing import STORED, Bare
from engine.mllp.replies import Answered, Lost, NotSent, Reply, Written

SEVERITY = (Result.DELIVERED, Result.NOT_TAKEN, Result.NEVER, Result.UNKNOWN)
"""Of several answers to one batch, the worst counts."""

KNOWN = frozenset({"AA", "AE", "AR", "CA", "CE", "CR"})  # table 0008
UNANSWERED = "written; this peer does not answer"
UNASKED = "written; the message asks for no answer to what goes well"
AS_IT_CAME = "answered in a form that only its sender knows"
NAK = "answered by a bare NAK"
COMMITTED = "CA"  # taken into safe storage; the application's answer comes later (2.9.3)
CUT = 20
"""Characters that MSH-10 has until v2.6: engines keep so many of a longer one, and name the message by them."""

Later = Callable[[Message, Any, bytes], None]
"""Hears an answer that comes after the exchange has ended, with an accept acknowledgement or with none expected: the
message, its `reply` where its sender waits for this endpoint's answers, and the answer."""


class MllpDestination:
    """One course to one endpoint."""

    def __init__(
        self,
        name: str,
        endpoint: Endpoint,
        sender: Sender,
        breaker: Breaker,
        manner: Manner,
        later: Later,
        mode: AckMode = "original",
        *,
        transparent: bool = False,
        outputs: Outputs | None = None,
        order_by: str = "channel",
    ) -> None:
        """`name`: of the course. `sender` is closed by whoever opened it. `mode`: which answers the peer gives, where
        the endpoint does not say. transparent: the old engine, between whom and its partners we are not to be noticed:
        what it answers ends the matter in whatever form it comes, as long as it names no other message."""
        self.breaker = breaker
        self.manner = manner
        self._outputs = outputs
        self._lanes = lane.by(order_by)
        self._name = name
        self._sender = sender
        self._answers = endpoint.answers
        self._timeout = endpoint.ack_timeout
        self._later = later
        self._mode = MODES.get(endpoint.answers.mode or "", mode)
        self._transparent = transparent
        self._waits_longer = COMMITTED not in endpoint.answers.accepted
        self._under_way: dict[Job, Work] = {}
        breaker.listeners.append(self._breaker_changed)

    def lanes(self, raw: bytes) -> tuple[bytes, ...]:
        return self._lanes(raw)

    def ready(self, work: Work) -> asyncio.Future[None] | None:
        return self._outputs.ready(work) if self._outputs is not None else None

    def make(self, work: Work) -> Outcome | None:
        return self._outputs.make(work) if self._outputs is not None else None

    def send(self, work: Work) -> None:
        message = work.message
        if self.breaker.position is Position.OPEN:  # since it was claimed
            work.done(work, self._not_sent())
            return
        if work.outputs is not None:
            head = peek(work.output)
            message = _as_sent(work, head.control_id)
        else:
            head = message.reply.head if message.reply is not None else peek(message.raw)
        asks = wanted(head, self._mode)
        expects = is_awaited(self._answers, asks)
        inside = _inside(message.raw) if is_batch(message.raw) else ()
        committed: list[bytes] = []  # accept acknowledgements that came, where the application's answer is waited for

        def is_applied(payload: bytes) -> bool:
            if is_more_than_committed(payload):
                return True
            committed.append(payload)
            return False

        def heard(reply: Reply) -> None:
            del self._under_way[job]
            work.done(work, self._outcome(message, reply, job, committed))

        final = is_more_than_committed if self._waits_longer else is_applied if self._in_original(message) else None
        relays = bool(asks.enhanced or inside or not expects or self._waits_longer or not self._transparent)
        job = Job(
            message.raw,
            self._timeout,
            heard,
            final=final,
            expects=expects,
            later=self._heard_later(message, relays) if relays else None,
            committed=None if relays else self._heard_later(message, relays),
            control_id=message.control_id,
            inside=inside,
            fits=lambda payload: self._verdict(payload, message).result is not Result.UNKNOWN,
        )
        self._under_way[job] = work
        self._sender.send(job)

    def _breaker_changed(self, opened: bool) -> None:
        """The endpoint is in trouble, or its hours are over: what is claimed and not handed over is not sent."""
        for job, work in tuple(self._under_way.items()) if opened else ():
            if self._sender.cancel(job):
                del self._under_way[job]
                work.done(work, self._not_sent())

    def _not_sent(self) -> Outcome:
        return Outcome(Result.NOT_TAKEN, f"not sent: {self.breaker.reason}", local=True)

    def _heard_later(self, message: Message, relays: bool) -> Callable[[bytes], None]:
        """Whoever waits now is the one to hear it then, if it is for this endpoint's answer that it waits, and may be
        for more than one (relays): who waits for one could take it for the answer to its next message."""
        reply = self._asker(message) if relays else None
        channel, received, id, seq = message.channel, message.received, message.id, message.seq

        def heard(payload: bytes) -> None:  # the bytes of what was sent are not kept for it
            light = Message(channel, b"", received)
            light.id, light.seq = id, seq
            self._later(light, reply, payload)

        return heard

    def _asker(self, message: Message) -> Any:
        """Who waits for this endpoint's answer to a message; None where nobody does."""
        relay = message.channel.relay
        return message.reply if message.relayed and relay is not None and relay.name == self._name else None

    def _in_original(self, message: Message) -> bool:
        """Whether its sender waits for the one answer of original mode, which an accept acknowledgement is not. The old
        engine's partners know its answers, whatever they are."""
        reply = None if self._transparent else self._asker(message)
        return reply is not None and not reply.asks.enhanced

    def _verdict(self, payload: bytes, message: Message) -> Outcome:
        return verdict(payload, message, self._answers, transparent=self._transparent)

    def _outcome(self, message: Message, reply: Reply, job: Job, committed: list[bytes]) -> Outcome:
        if isinstance(reply, Lost) and committed:
            said = self._verdict(committed[0], message)
            if said.result is Result.DELIVERED:  # by what it accepts; no more came in its time
                return said
        return came_of(reply, job, message, self._answers, transparent=self._transparent)

    async def close(self) -> None:
        """The sender is closed by whoever opened it."""
        self.breaker.listeners.remove(self._breaker_changed)


def came_of(reply: Reply, job: Job, message: Message, answers: Answers, *, transparent: bool = False) -> Outcome:
    """What an attempt came to, by what its line replied. An answer to something else costs the line."""
    if isinstance(reply, Answered):
        said = verdict(reply.payload, message, answers, transparent=transparent)
        if said.result is Result.UNKNOWN:
            job.hang_up()
        return said
    if isinstance(reply, Written):
        return outcome(End.WRITTEN, UNASKED if answers.expected else UNANSWERED)
    return outcome(End.UNSENT if isinstance(reply, NotSent) else End.LOST, reply.reason)


def _as_sent(work: Work, control_id: str | None) -> Message:
    """The message with the bytes that go out for it: by these its answer is known."""
    message, raw = work.message, work.output
    sent = Message(message.channel, raw, message.received, control_id, message.socket, message.reply)
    sent.id, sent.seq, sent.relayed = message.id, message.seq, message.relayed
    return sent


MODES: Mapping[str, AckMode] = {"original": "original", "enhanced": "auto"}
"""By what an endpoint says of itself: in enhanced mode it goes by MSH-15 and MSH-16, where they say anything."""


def is_awaited(answers: Answers, asks: Wanted) -> bool:
    """Whether a message that asks for these answers is answered where all goes well. Who is to answer errors only is
    not waited for: with each good message the lane would stand still. A "no" is heard when it comes."""
    return answers.expected and (asks is ORIGINAL or asks.accept.success or asks.application.success)


def is_more_than_committed(payload: bytes) -> bool:
    """Whether an answer is not an accept acknowledgement, after which the application's comes."""
    answer = parse_ack(payload)
    return answer is None or answer.code != COMMITTED


def verdict(payload: bytes, message: Message, answers: Answers, *, transparent: bool = False) -> Outcome:
    """What an answer means for a message. A batch is answered by a batch, by one acknowledgement that names the batch,
    or by one that names a message in it: no two engines do the same (HL7 v2 chapter 2, 2.10.3.3)."""
    sent = read_batch(message.raw) if is_batch(message.raw) else None
    if sent is None:
        return classify(payload, message.control_id, answers, transparent=transparent)
    names = {sent.head.control_id, "", *(section.control_id for section in sent.sections), *_inside(message.raw)}
    came = read_batch(payload)
    parts = came.messages if came else [payload]
    outcomes = [classify(part, _own_name(part, names), answers, transparent=transparent) for part in parts]
    worst = max(outcomes, key=lambda outcome: SEVERITY.index(outcome.result), default=Outcome(Result.DELIVERED))
    return worst if worst.result is Result.UNKNOWN else replace(worst, answer=payload)


def _inside(raw: bytes) -> tuple[str, ...]:
    """The control ids of a batch's messages."""
    sent = read_batch(raw)
    return tuple(filter(None, (peek(each).control_id for each in sent.messages))) if sent else ()


def _own_name(payload: bytes, names: set[str | None]) -> str:
    """MSA-2 where it is one of these names, else what no answer can have."""
    answer = parse_ack(payload)
    return answer.control_id if answer is not None and answer.control_id in names else "\n"


def classify(payload: bytes, control_id: str | None, answers: Answers, *, transparent: bool = False) -> Outcome:
    """What an answer means for the message with `control_id` (None: it has none, so none can be asked for).

    transparent: only one that names another message, or is a message itself, is no answer to this one; what cannot be
    read as an acknowledgement is its sender's to read. A bare byte is of the message on the line; a no of that kind may
    pass, like AE.
    """
    if isinstance(payload, Bare):  # of a peer that answers so, in turn
        return outcome(End.TAKEN, "", payload) if payload == STORED else outcome(End.LATER, NAK, payload)
    answer = parse_ack(payload)
    if answer is None:
        if transparent and not is_message(payload):
            return outcome(End.TAKEN, AS_IT_CAME, payload)
        return outcome(End.ILLEGIBLE, "the answer is no acknowledgement")
    other = answers.check and control_id is not None and not answer.is_for(control_id)
    if other and not (transparent and _may_name(answer.control_id.strip(), control_id or "")):
        return outcome(End.ANOTHERS, "the answer's MSA-2 is not this message's MSH-10")
    if answer.code in answers.accepted:
        return outcome(End.TAKEN, "", payload)
    if answer.code not in KNOWN and answer.code not in answers.rejected:
        if transparent:
            return outcome(End.TAKEN, AS_IT_CAME, payload)
        return outcome(End.STRANGE, "the answer's code is none of table 0008, and none that the endpoint names")
    end = End.NEVER if answer.code in answers.rejected else ERRORS.get(answer.error or "", End.LATER)
    return outcome(end, no(answer), payload)


def no(answer: Answer) -> str:
    """A negative answer in words: its codes, and nothing that it says."""
    return f"answered {answer.code}" + (f", error {answer.error}" if answer.error else "")


def _may_name(said: str, control_id: str) -> bool:
    """Whether MSA-2 names nobody, or is what a field of its standard length holds of this longer MSH-10."""
    return not said or (len(said) >= CUT and control_id.startswith(said))

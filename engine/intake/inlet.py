"""One channel's messages between their frame and their acknowledgement, whatever socket they come on.

An answer is given from `stored` or `settled`, which are called after a commit, never before.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from engine.config.edge import Ack
from engine.config.model import Channel
from engine.hl7.ack import AckCode, parse_ack
from engine.hl7.modes import ACCEPTS
from engine.hl7.peek import Peek
from engine.intake.answering import Answering
from engine.intake.judge import LATE, NOT_STORED, NOT_TAKEN, Flaw, Rules, judge
from engine.intake.reply import Reply
from engine.ledger.course import ChannelBook
from engine.ledger.interface import Ledger
from engine.ledger.model import IntakeEvent, Message, Settlement, State
from engine.ledger.routing import LEGACY
from engine.mllp.framing import Bare
from engine.observe import intake_events as events
from engine.observe.delivery_events import Relayed, RelayLate
from engine.observe.events import emit

LATER = "application_answer"  # the kind of event that such an answer is kept as
COMES_TO = 1.0  # seconds until it is known what a destination's time-out has come to: an accept acknowledgement counts
LATE_AFTER = 30.0  # seconds, where the authority's endpoint does not say how long it may take

ANSWERED: dict[State, AckCode] = {State.DELIVERED: "AA", State.REFUSED: "AR", State.DUPLICATE: "AA"}


@dataclass(slots=True)
class Clocks:
    """Time as a value: `now` in microseconds since 1970, `tick` in seconds of the event loop's clock."""

    now: Callable[[], int]
    tick: Callable[[], float]


class Inlet:
    """One channel's intake."""

    def __init__(
        self, channel: Channel, book: ChannelBook, ledger: Ledger, rules: Rules, clocks: Clocks, answering: Answering
    ) -> None:
        self.channel = channel
        self.book = book
        self.transparent = True
        self.last_received = 0  # microseconds since 1970, of this process
        self.on_stored: Callable[[Message], None] | None = None  # of a channel that a feed carries
        self._relays = False
        self._ledger = ledger
        self._rules = rules
        self._clocks = clocks
        self._answering = answering
        self._ack = channel.ack
        self._meters = events.IntakeMeters(channel.id)
        self._awaited: deque[Message] = deque()  # relayed, in the order they came; answered ones are passed over
        self._late_after = 0.0
        self._bare = False  # the authority answers by a byte outside of any block

    def set_phase(self, *, transparent: bool) -> None:
        """Whether the old engine judges the frames; whose answer the sender gets stands in the epoch."""
        self.transparent = transparent
        authority = self.book.epoch.routing.answer_from
        self._relays = authority is not None
        endpoint = self.channel.endpoint(authority)
        self._late_after = endpoint.ack_timeout if endpoint is not None else LATE_AFTER
        if authority != LEGACY:
            self._late_after += COMES_TO
        self._bare = endpoint is not None and endpoint.framing.bare

    def answer_by(self, answering: Answering, ack: Ack) -> None:
        """A feed's own way of answering, for all its channels."""
        self._answering, self._ack = answering, ack

    def judge(self, head: Peek, frame: bytes) -> Flaw | None:
        """The first flaw of a frame, or None."""
        return judge(head, frame, self._rules)

    def message(
        self, frame: bytes, now: int, control_id: str | None, socket: int, reply: Reply | None, flaw: Flaw | None
    ) -> Message:
        """A frame as a message of this channel, to be stored."""
        why = flaw.reason if flaw else None
        return Message(self.book, frame, now, control_id, socket, reply, self._relays, why)

    # -- from the ledger

    def stored(self, message: Message) -> None:
        """The message is durable: answer, unless its answer is the authority's to give."""
        if message.flaw:
            emit(events.WouldRefuse(self.channel.id, message.seq, message.flaw))
        self.last_received = message.received
        self._meters.stored.n += 1
        self._meters.stored_bytes.n += len(message.raw)
        if self.on_stored is not None:
            self.on_stored(message)
        reply: Reply | None = message.reply
        if reply is None:
            return
        if reply.conn.commits and (not reply.copies or message is reply.copies[0]):
            reply.commit(True)
        if message.relayed:
            self._awaited.append(message)
            if self.book.epoch.routing.answer_from != LEGACY:
                self._told(message, reply, self._answering.commit(reply))
            return
        message.reply = None
        if reply.given or (reply.copies and any(copy.relayed for copy in reply.copies)):
            return  # another copy's authority answers
        first = message.repeats
        if first is not None and first.answer is not None:
            answered = self._pass_on_again(reply, first.answer)
        else:
            answered = self._answering.accept(reply)
        if answered:
            self._meters.accepted.n += 1
            self._meters.acknowledgement.observe(self._clocks.tick() - reply.since)
        self._told(message, reply, answered)
        reply.port.make_room(reply.conn)

    def _told(self, message: Message, reply: Reply, answered: bool) -> None:
        """Where its sender was answered, or wants to hear nothing, whatever it sends again later is a new message, in
        each channel that has a copy."""
        if answered or not (reply.asks.accept.success or reply.asks.application.success):
            for copy in reply.copies or (message,):
                if (repeats := copy.channel.repeats) is not None:
                    repeats.acknowledged(copy.repeats.seq if copy.repeats else copy.seq, copy.socket)

    def settled(self, settlement: Settlement) -> None:
        """The authority has answered, and its answer is durable: pass it on as it came."""
        message = settlement.message
        reply: Reply | None = message.reply
        code = ANSWERED.get(settlement.state)
        if reply is None or code is None:
            return
        message.reply = None
        if reply.given:
            return
        seconds = self._clocks.tick() - reply.since
        passed_on = self._pass_on(reply, settlement, code)
        self._told(message, reply, passed_on)
        if passed_on:
            emit(Relayed(self.channel.id, message.seq, settlement.state.label, seconds))
            self._meters.acknowledgement.observe(seconds)
        reply.port.make_room(reply.conn)

    def _pass_on(self, reply: Reply, settlement: Settlement, code: AckCode) -> bool:
        answer = settlement.answer
        if settlement.course.name != LEGACY:
            return self._pass_on_applied(reply, answer, code)
        if answer is None:  # the message asks for no answer, and the old engine gave none
            reply.given = True
            return self._answering.give(reply.conn, None, reply.asks)
        if self._another_follows(reply, answer):
            reply.conn.expect_more(self._late_after)  # no longer than its first answer may take
        return self._answering.relay(reply, self._as_it_came(answer))

    def _pass_on_again(self, reply: Reply, answer: bytes) -> bool:
        """The first answer, for a repeat that does not wait for one of its own."""
        if self.book.epoch.routing.answer_from in (None, LEGACY) or (reply.asks.enhanced and not self._bare):
            return self._answering.relay(reply, self._as_it_came(answer))
        return self._pass_on_applied(reply, answer, "AA")

    def _as_it_came(self, answer: bytes) -> bytes:
        """An answer from the ledger, where nothing tells a byte from a block that holds it."""
        return Bare(answer) if self._bare and len(answer) == 1 else answer

    def _pass_on_applied(self, reply: Reply, answer: bytes | None, code: AckCode) -> bool:
        """A destination's answer. What its sender waits for is the application's: that is passed on as it came, if the
        sender wants to hear it. In enhanced mode the accept acknowledgement was ours, and after the destination's own
        the application's is still to come (`answered_later`); in original mode it did not come. What says no more than
        yes or no (an accept acknowledgement, a bare byte) is said in an answer of ours."""
        said = parse_ack(answer) if answer is not None else None
        if answer is not None and not self._bare:
            if not reply.asks.enhanced:
                if said is None or said.code not in ACCEPTS:
                    return self._answering.relay(reply, answer)
            elif said is not None and said.code in ("AA", "AE", "AR"):
                if reply.asks.application.on(code == "AA"):
                    return self._answering.relay(reply, answer)
            elif code == "AA":
                if any(reply.asks.application) and self._ack.apart is None:
                    reply.conn.expect_more(self._late_after)
                reply.given = True
                return self._answering.give(reply.conn, None, reply.asks)
        if code == "AR" and (self._bare or (said is not None and said.code == "CE")):
            code = "AE"  # a no that may pass
        return self._answering.applied(reply, code, NOT_TAKEN.error if code != "AA" else None)

    def _another_follows(self, reply: Reply, answer: bytes) -> bool:
        """Whether the application's answer is to come on the sender's connection, after this one."""
        if not reply.asks.enhanced or self._ack.apart is not None or not any(reply.asks.application):
            return False
        first = parse_ack(answer)
        return first is not None and first.code == "CA"

    def answered_later(self, message: Message, reply: Reply, answer: bytes) -> None:
        """The application's answer, after the accept acknowledgement that its sender has: kept, then passed on."""
        conn = reply.conn
        event = IntakeEvent(
            self.book, LATER, "after the accept acknowledgement", self._clocks.now(), conn.peer, conn.number, b"", 0,
            answer, message, reply,
        )  # fmt: skip
        self._ledger.event(event)

    def answer_awaited(self, above: int) -> None:
        """Nothing above this number goes to the authority for now: its senders get our answer, and need not wait."""
        for message in self._awaited:
            reply: Reply | None = message.reply
            if reply is None or message.seq <= above:
                continue
            self._no_longer_awaited(message)
            if reply.given or any(copy.relayed for copy in reply.copies):
                continue
            answered = self._answering.accept(reply)
            self._told(message, reply, answered)
            if answered:
                self._meters.accepted.n += 1
            reply.port.make_room(reply.conn)

    def sweep(self) -> None:
        """Give up on answers that are late. Called several times a second."""
        awaited, now = self._awaited, self._clocks.tick()
        while awaited:
            reply: Reply | None = awaited[0].reply
            if reply is not None and now - reply.since < self._late_after:
                return
            message = awaited.popleft()
            if reply is not None:
                self._late(message, reply, now - reply.since)

    def failed(self, message: Message) -> None:
        """This one could not be stored, and others could: say so to its sender. On the transport level, where it hears
        that: it will repeat the message, and would take an answer for the repetition's."""
        reply: Reply | None = message.reply
        message.reply = None
        if reply is not None and not reply.given:
            reply.given = True
            refusal = self._answering.refusal(reply.head, reply.asks, NOT_STORED.code, NOT_STORED.error)
            reply.commit(False)
            self._answering.refuse(reply.conn, None if reply.conn.commits else refusal, reply.asks)
            reply.port.make_room(reply.conn)

    def unstored(self, message: Message) -> None:
        """The ledger cannot be written: no answer, and its connection waits."""
        reply: Reply | None = message.reply
        message.reply = None
        if reply is not None and not reply.given:
            reply.given = True
            reply.commit(None)
            reply.conn.waive()
            reply.port.stall(reply.conn)

    # -- inside

    def _no_longer_awaited(self, message: Message) -> None:
        message.reply = None
        message.relayed = False
        self._ledger.release(self.book, message.seq)

    def _say_late(self, reply: Reply, seq: int) -> None:
        if self.book.repeats is not None:
            self.book.repeats.void(seq)  # it is told "no", and repeats it as a message of its own
        if self.book.epoch.routing.answer_from != LEGACY:  # its sender may have an accept acknowledgement
            self._answering.applied(reply, LATE.code, LATE.error)
            return
        refusal = self._answering.refusal(reply.head, reply.asks, LATE.code, LATE.error)
        self._answering.refuse(reply.conn, refusal, reply.asks)

    def _late(self, message: Message, reply: Reply, seconds: float) -> None:
        emit(RelayLate(self.channel.id, message.seq, seconds))
        self._no_longer_awaited(message)
        if reply.given:
            return
        reply.given = True
        if self._ack.on_relay_timeout == "close":
            reply.conn.close()
        elif self._ack.on_relay_timeout == "ae":
            self._say_late(reply, message.seq)
        else:
            reply.conn.waive()
        reply.port.make_room(reply.conn)

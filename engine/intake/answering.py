"""How a channel or a feed answers its senders, where the answer is ours to make.

Original mode (HL7 v2 chapter 2, 2.9.2): one answer, AA, AE or AR. Enhanced mode (2.9.3), which a sender asks for in
MSH-15 and MSH-16: CA, CE or CR when the message is safely stored, and the application's answer when it is known; each
only where the sender wants it. A sender that wants none gets none.
"""

from __future__ import annotations

from collections.abc import Callable

from engine.config.edge import Ack, Batch
from engine.hl7.ack import AckCode, AckError, acknowledge, parse_ack
from engine.hl7.batch import acknowledge_batch, read_batch
from engine.hl7.modes import ACCEPTS, Wanted, accept_code, wanted
from engine.hl7.peek import Peek, peek
from engine.intake.reply import Reply
from engine.mllp.connection import Connection
from engine.mllp.framing import NOT_STORED, STORED, Bare
from engine.mllp.replies import Lost, NotSent
from engine.mllp.replies import Reply as Sent
from engine.observe.events import emit
from engine.observe.intake_events import AnswerUnsent

Elsewhere = Callable[[Connection, bytes, Callable[[Sent], None]], None]
"""Sends the answer to something that came on a connection on another one, and tells what became of it."""


class Answering:
    """Makes answers and gives them."""

    def __init__(
        self,
        name: str,
        ack: Ack,
        batch: Batch,
        own_id: Callable[[], str],
        now: Callable[[], int],
        elsewhere: Elsewhere | None = None,
    ) -> None:
        """`name`: of the channel or feed. `own_id`: a control id for each answer. `now`: microseconds since 1970.
        `elsewhere`: sends to where `ack.to` or `ack.listen` says."""
        self._name = name
        self._ack = ack
        self._batch = batch
        self._own_id = own_id
        self._now = now
        self._elsewhere = elsewhere

    def asks(self, head: Peek) -> Wanted:
        """What the sender of a frame wants to hear."""
        return wanted(head, self._ack.mode)

    def accept(self, reply: Reply) -> bool:
        """The message is durable, and that is all its sender waits for. Whether an answer went out."""
        asks = reply.asks
        if not asks.enhanced:
            return self._last(reply, self._all(reply, "AA"))
        first = self._make(reply.head, "CA") if asks.accept.success else None
        second = self._all(reply, "AA") if asks.application.success else None
        if first is not None and second is not None:
            reply.conn.transmit(first)
        return self._last(reply, second if second is not None else first, commits=second is None)

    def commit(self, reply: Reply) -> bool:
        """The message is durable; the application's answer comes later. Whether its sender was told."""
        if not (reply.asks.enhanced and reply.asks.accept.success):
            return False
        reply.conn.transmit(self._make(reply.head, "CA"))
        return True

    def applied(self, reply: Reply, code: AckCode, error: AckError | None = None) -> bool:
        """The application, a destination of ours, is through with it."""
        if reply.asks.enhanced and not reply.asks.application.on(code == "AA"):
            return self._last(reply, None)
        return self._last(reply, self._all(reply, code, error), commits=False)

    def relay(self, reply: Reply, answer: bytes) -> bool:
        """The authority's answer, as it came."""
        return self._last(reply, answer)

    def refusal(self, head: Peek, asks: Wanted, code: AckCode, error: AckError) -> bytes | None:
        """The no to a frame that is not taken; None where its sender does not want to hear it."""
        if not asks.enhanced:
            return self._make(head, code, error)
        if asks.accept.error:
            return self._make(head, accept_code(code), error)
        return self._make(head, code, error) if asks.application.error else None

    def refuse(self, conn: Connection, refusal: bytes | None, asks: Wanted) -> bool:
        """Give the no that `refusal` made. Whether it went out."""
        return self.give(conn, refusal, asks, commits=asks.accept.error)

    def give(self, conn: Connection, answer: bytes | None, asks: Wanted, *, commits: bool | None = None) -> bool:
        """Send the last answer to one frame, or none. Whether it went out. An accept acknowledgement always goes on the
        sender's own connection (2.9.3); where all others go, `ack.to` or `ack.listen` says. commits: whether it is one,
        whatever `ack.codes` calls it; None: its code tells."""
        if answer is None:
            conn.unanswered()
            return False
        if self._elsewhere is None or (asks.enhanced and (_commits(answer) if commits is None else commits)):
            return conn.send(answer)
        conn.unanswered()
        self._elsewhere(conn, answer, self._sent)
        return True

    def give_later(self, conn: Connection, answer: bytes) -> None:
        """Send the application's answer to a frame whose sender has the accept acknowledgement."""
        if self._elsewhere is None:
            conn.transmit(answer)
        else:
            self._elsewhere(conn, answer, self._sent)

    def _sent(self, written: Sent) -> None:
        if isinstance(written, NotSent | Lost):
            emit(AnswerUnsent(self._name, str(self._ack.apart), written.reason))

    # -- inside

    def _last(self, reply: Reply, answer: bytes | None, *, commits: bool | None = None) -> bool:
        reply.given = True
        return self.give(reply.conn, answer, reply.asks, commits=commits)

    def _make(self, head: Peek, code: AckCode, error: AckError | None = None) -> bytes:
        if self._ack.form.bare:
            return Bare(STORED if code in ("AA", "CA") else NOT_STORED)
        at = self._now() // 1_000_000
        return acknowledge(head, code, control_id=self._own_id(), at=at, error=error, form=self._ack.form)

    def _all(self, reply: Reply, code: AckCode, error: AckError | None = None) -> bytes | None:
        """The answer to a frame; to a batch as its option says (2.10.3.3)."""
        if reply.frame is None or self._batch == "one":
            return self._make(reply.head, code, error)
        if self._batch == "none":
            return None
        batch = None if self._ack.form.bare else read_batch(reply.frame)
        if batch is None:
            return self._make(reply.head, code, error)
        told = batch.messages if self._batch == "each" or code != "AA" else ()
        answers = [self._make(peek(message), code, error) for message in told]
        return acknowledge_batch(reply.head, answers, control_id=self._own_id(), at=self._now() // 1_000_000)


def _commits(answer: bytes) -> bool:
    """Whether it is an accept acknowledgement: CA, CE or CR."""
    read = parse_ack(answer)
    return read is not None and read.code in ACCEPTS

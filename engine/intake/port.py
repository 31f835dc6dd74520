"""A channel's port: frames are judged, handed to the ledger, and answered when they are durable.

An answer is sent from `stored` or `settled`, which are called after a commit, never before. While the ledger cannot
be written nothing is acknowledged: the sender still has its message, and its connection is not read on until the
ledger is back.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from engine.config.edge import Listen
from engine.config.model import Channel
from engine.hl7.ack import acknowledge
from engine.hl7.peek import Peek, peek
from engine.intake.judge import LATE, NOT_STORED, TOO_LARGE, Flaw, Rules, judge
from engine.ledger.course import ChannelBook
from engine.ledger.interface import Ledger
from engine.ledger.model import IntakeEvent, Message, Settlement, State
from engine.mllp.allow import Allowed
from engine.mllp.server import Connection, Listener
from engine.observe import intake_events as events
from engine.observe.delivery_events import Relayed, RelayLate
from engine.observe.events import emit

MOST_UNANSWERED = 256  # of one connection; then it is read no further until half of them are answered
NOISE_KEPT = 4096  # bytes of each stretch of noise
NOISE_EVENTS = 16  # stretches of noise, or frames without an end, kept of one connection


@dataclass(slots=True)
class Clocks:
    """Time as a value: `now` in microseconds since 1970, `tick` in seconds of the event loop's clock."""

    now: Callable[[], int]
    tick: Callable[[], float]


class Reply:
    """Who waits for an answer, since when (`tick`), and the header that the answer is made from."""

    __slots__ = ("conn", "head", "since")

    def __init__(self, conn: Connection, head: Peek, since: float) -> None:
        self.conn = conn
        self.head = head
        self.since = since


class Port:
    """One channel's listener and everything between its sockets and the ledger."""

    def __init__(
        self,
        channel: Channel,
        book: ChannelBook,
        ledger: Ledger,
        rules: Rules,
        clocks: Clocks,
        number: Callable[[], int],
    ) -> None:
        """`number` gives each connection a number that is never used again."""
        self.channel = channel
        self.book = book
        self.transparent = True
        self.last_received = 0  # microseconds since 1970, of this process
        self._relays = False
        self._ledger = ledger
        self._rules = rules
        self._clocks = clocks
        self._number = number
        assert isinstance(channel.source, Listen)
        self._allowed = Allowed(channel.source.allow)
        self._meters = events.IntakeMeters(channel.id)
        self._awaited: deque[Message] = deque()  # relayed, in the order they came; answered ones are passed over
        self._late_after = channel.legacy.endpoint.ack_timeout if channel.legacy and channel.legacy.endpoint else 0.0
        self._stalled: set[Connection] = set()
        self._full: set[Connection] = set()
        self._noisy: dict[Connection, int] = {}
        self._answers = 0
        self.listener = Listener(
            channel.source.address,
            lambda: self,
            max_bytes=channel.takes.max_bytes,
            frame_timeout=channel.source.frame_timeout,
        )

    async def open(self) -> None:
        """Listen. OSError where the port cannot be had."""
        try:
            await self.listener.start()
        except OSError as error:
            emit(events.ListenerFailed(self.channel.id, str(self.listener.address), error.strerror or "not possible"))
            raise
        emit(events.ListenerOpened(self.channel.id, str(self.listener.address)))

    async def close(self, grace: float = 0.0) -> None:
        await self.listener.close(grace)
        emit(events.ListenerClosed(self.channel.id, str(self.listener.address)))

    def set_phase(self, *, transparent: bool) -> None:
        """Whether the old engine judges the frames; whose answer the sender gets stands in the epoch."""
        self.transparent = transparent
        self._relays = self.book.epoch.routing.answer_from is not None

    # -- from the sockets (engine.mllp.server.Handler)

    def connected(self, conn: Connection) -> None:
        conn.number = self._number()
        if not self._allowed.admits(conn.peer):
            emit(events.PeerRefused(self.channel.id, conn.peer))
            conn.close()
        emit(events.PeerConnected(self.channel.id, conn.peer, conn.number))

    def closed(self, conn: Connection) -> None:
        self._stalled.discard(conn)
        self._full.discard(conn)
        self._noisy.pop(conn, None)
        emit(events.PeerClosed(self.channel.id, conn.peer, conn.number))

    def frame(self, conn: Connection, payload: bytes) -> None:
        head = peek(payload)
        flaw = judge(head, payload, self._rules)
        now = self._clocks.now()
        if conn.owed >= MOST_UNANSWERED and conn not in self._full:
            self._full.add(conn)
            conn.pause()
        if flaw is not None and not self.transparent:
            self._refuse(conn, head, payload, flaw, now)
            return
        message = Message(
            self.book,
            payload,
            now,
            head.control_id,
            conn.number,
            Reply(conn, head, self._clocks.tick()),
            self._relays,
            flaw.reason if flaw else None,
        )
        self._ledger.store(message)

    def noise(self, conn: Connection, data: bytes) -> None:
        emit(events.Noise(self.channel.id, conn.peer, len(data)))
        self._keep_some(conn, "noise", "bytes outside of a frame", data[:NOISE_KEPT], len(data))

    def too_large(self, conn: Connection, head: bytes, size: int) -> None:
        emit(events.FrameTooLarge(self.channel.id, conn.peer, size))
        answer = self._answer(peek(head), TOO_LARGE, self._clocks.now())
        conn.send(answer)
        self._keep(conn, "too_large", TOO_LARGE.reason, head, size, answer)

    def unfinished(self, conn: Connection, head: bytes, why: str) -> None:
        emit(events.FrameUnfinished(self.channel.id, conn.peer, len(head), why))
        self._keep_some(conn, "unfinished", why, head, len(head))

    # -- from the ledger

    def stored(self, message: Message) -> None:
        """The message is durable: answer, unless its answer is the authority's to give."""
        reply: Reply | None = message.reply
        if message.flaw:
            emit(events.WouldRefuse(self.channel.id, message.seq, message.flaw))
        self.last_received = message.received
        self._meters.stored.n += 1
        self._meters.stored_bytes.n += len(message.raw)
        if reply is None:
            return
        if message.relayed:
            self._awaited.append(message)
            return
        message.reply = None
        if self._accept(reply):
            self._meters.acknowledgement.observe(self._clocks.tick() - reply.since)
        self._make_room(reply.conn)

    def settled(self, settlement: Settlement) -> None:
        """The authority has answered, and its answer is durable: pass it on as it came."""
        message = settlement.message
        reply: Reply | None = message.reply
        if reply is None or settlement.answer is None or settlement.state not in (State.DELIVERED, State.REFUSED):
            return
        message.reply = None
        seconds = self._clocks.tick() - reply.since
        if reply.conn.send(settlement.answer):
            emit(Relayed(self.channel.id, message.seq, settlement.state.label, seconds))
            self._meters.acknowledgement.observe(seconds)
        self._make_room(reply.conn)

    def unstored(self, operation: Message | IntakeEvent) -> None:
        """The ledger cannot be written: no answer, and this connection waits."""
        conn = _connection(operation)
        if conn is None:
            events.EVIDENCE_LOST.of(self.channel.id).n += 1
            return
        conn.waive()
        if conn not in self._stalled:
            self._stalled.add(conn)
            conn.pause()

    def recovered(self) -> None:
        """The ledger can be written again."""
        stalled, self._stalled = self._stalled, set()
        for conn in stalled:
            conn.resume()

    def failed(self, operation: Message | IntakeEvent, reason: str) -> None:
        """This one could not be stored, and others could: say so to its sender."""
        if isinstance(operation, Message) and operation.reply:
            reply: Reply = operation.reply
            operation.reply = None
            reply.conn.send(self._answer(reply.head, NOT_STORED, self._clocks.now()))
        elif conn := _connection(operation):
            conn.waive()

    def kept(self, event: IntakeEvent) -> None:
        """The evidence of a refused frame is durable: give the answer."""
        if event.reply is not None and event.answer is not None:
            conn: Connection = event.reply
            if conn.send(event.answer):
                events.ACKNOWLEDGED.of(self.channel.id, "refused").n += 1
            self._make_room(conn)

    def answer_awaited(self, above: int) -> None:
        """Nothing above this number goes to the authority for now: its senders get our answer, and need not wait."""
        for message in self._awaited:
            reply: Reply | None = message.reply
            if reply is None or message.seq <= above:
                continue
            message.reply = None
            message.relayed = False
            self._ledger.release(self.book, message.seq)
            self._accept(reply)
            self._make_room(reply.conn)

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

    # -- inside

    def _late(self, message: Message, reply: Reply, seconds: float) -> None:
        emit(RelayLate(self.channel.id, message.seq, seconds))
        message.reply = None
        message.relayed = False
        self._ledger.release(self.book, message.seq)
        if self.channel.ack.on_relay_timeout == "close":
            reply.conn.close()
        elif self.channel.ack.on_relay_timeout == "ae":
            reply.conn.send(self._answer(reply.head, LATE, self._clocks.now()))
        else:
            reply.conn.waive()
        self._make_room(reply.conn)

    def _accept(self, reply: Reply) -> bool:
        """Our own AA. Whether it could be sent."""
        answer = acknowledge(reply.head, "AA", control_id=self._own_id(), at=self._clocks.now() // 1_000_000)
        if sent := reply.conn.send(answer):
            self._meters.accepted.n += 1
        return sent

    def _refuse(self, conn: Connection, head: Peek, payload: bytes, flaw: Flaw, now: int) -> None:
        emit(events.FrameRefused(self.channel.id, conn.peer, flaw.code, flaw.reason, len(payload)))
        answer = self._answer(head, flaw, now)
        self._ledger.event(
            IntakeEvent(self.book, "refused", flaw.reason, now, conn.peer, conn.number, payload, len(payload), answer,
                        reply=conn)
        )  # fmt: skip

    def _keep_some(self, conn: Connection, kind: str, reason: str, raw: bytes, size: int) -> None:
        """A peer that only sends garbage must not fill the ledger; the metrics count all of it."""
        kept = self._noisy.get(conn, 0)
        if kept < NOISE_EVENTS:
            self._noisy[conn] = kept + 1
            self._keep(conn, kind, reason, raw, size)

    def _keep(
        self, conn: Connection, kind: str, reason: str, raw: bytes, size: int, answer: bytes | None = None
    ) -> None:
        now = self._clocks.now()
        self._ledger.event(IntakeEvent(self.book, kind, reason, now, conn.peer, conn.number, raw, size, answer))

    def _answer(self, head: Peek, flaw: Flaw, now: int) -> bytes:
        return acknowledge(head, flaw.code, control_id=self._own_id(), at=now // 1_000_000, error=flaw.error)

    def _own_id(self) -> str:
        """Of our own answers: unique in this process, which is all that MSH-10 of an acknowledgement is asked to be."""
        self._answers += 1
        return f"{self._ledger.term}.{self.book.id}.{self._answers}"

    def _make_room(self, conn: Connection) -> None:
        if self._full and conn in self._full and conn.owed <= MOST_UNANSWERED // 2:
            self._full.discard(conn)
            conn.resume()


def _connection(operation: Message | IntakeEvent) -> Connection | None:
    """Who waits for the answer to a message, or to a refused frame. After this nobody does any more."""
    if isinstance(operation, IntakeEvent):
        refused: Connection | None = operation.reply
        return refused
    reply: Reply | None = operation.reply
    operation.reply = None
    return reply.conn if reply else None

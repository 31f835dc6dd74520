"""A socket that messages come in on: of one channel, or of a feed that carries several channels' messages.

Frames are judged, handed to the ledger, and answered when they are durable. While the ledger cannot be written nothing
is acknowledged: the sender still has its message, and its connection is not read on until the ledger is back.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence

from engine.config.edge import Connect, Listen, Takes
from engine.hl7.ack import answers, parse_ack
from engine.hl7.batch import peek_batch
from engine.hl7.modes import is_acknowledgement
from engine.hl7.peek import Peek, peek
from engine.intake.ack_port import AckPort
from engine.intake.answering import Answering
from engine.intake.inlet import LATER, Clocks, Inlet
from engine.intake.judge import BATCH_ENVELOPE, OTHER_TYPE, TOO_LARGE, Flaw
from engine.intake.quiet import Quiet, Why
from engine.intake.reply import Reply
from engine.intake.router import Router
from engine.ledger.course import ChannelBook
from engine.ledger.interface import Ledger
from engine.ledger.model import IntakeEvent, Message, Together
from engine.ledger.sqlite.large import LARGE
from engine.mllp.back import Back
from engine.mllp.budget import Budget
from engine.mllp.connection import Connection
from engine.mllp.connector import Connector
from engine.mllp.server import Listener
from engine.mllp.tls import ClientTls, ServerTls
from engine.observe import intake_events as events
from engine.observe.events import emit
from engine.observe.service_events import Fault

MOST_UNANSWERED = 256  # of one connection; then it is read no further until half of them are answered
MOST_BAD = 32  # refused frames and stretches of noise in a row; then the connection is not read for SLOWLY
SLOWLY = 0.25  # seconds
AGAIN = 60.0  # seconds until it is said again that a peer which is to send cannot be reached
UNOPENED, CLOSED = NOT_OPEN = "not opened yet", "closed"
APART = "bytes at the port where our answers are heard"
NOISE_KEPT = 4096  # bytes of each stretch of noise
NOISE_EVENTS = 16  # stretches of noise, or frames without an end, kept of one connection


class Port:
    """One socket and everything between it and the inlets of its channels."""

    def __init__(
        self,
        name: str,
        source: Listen | Connect,
        takes: Takes,
        inlets: Sequence[Inlet],
        answering: Answering,
        ledger: Ledger,
        clocks: Clocks,
        number: Callable[[], int],
        *,
        router: Router | None = None,
        tls: ServerTls | ClientTls | None = None,
        budget: Budget | None = None,
        acks: AckPort | None = None,
    ) -> None:
        """`name`: of the channel, or of the feed, whose first inlet is its default's. `router`: of a feed. `number`
        gives each connection a number that is never used again. `acks`: where its senders hear our answers, if not
        here."""
        self.name = name
        self.inlets = {inlet.channel.id: inlet for inlet in inlets}
        self.down: str | None = UNOPENED  # why nobody can connect, or whom we connect to is not there
        self.sent: Counter[str] = Counter()  # address → connections of it with at least one message answered
        self.pass_on: Callable[[bytes], bool] | None = None  # to the old engine, which does not answer it
        self.back: Back | None = None  # where our own messages go back on a sender's connection
        self._default = inlets[0]
        self._takes = takes
        self._router = router
        self._answering = answering
        self._ledger = ledger
        self._clocks = clocks
        self._number = number
        self._acks = acks
        if acks is not None:
            acks.number, acks.refused, acks.heard = number, self.refused, self._heard_apart
        self._fresh: set[Connection] = set()  # connected, and nothing answered yet
        self._quiet = Quiet()
        self._noisy: dict[Connection, int] = {}
        self._bad: dict[Connection, int] = {}  # what came in a row that is no message
        self._tasks: set[asyncio.Task[None]] = set()
        self._last = 0
        self._told = ("", 0.0)  # why a peer cannot be reached, and when that was said, by the event loop's clock
        self.listener: Listener | Connector
        if isinstance(source, Listen):
            assert not isinstance(tls, ClientTls)
            self.listener = Listener(
                source.address, lambda: self, max_bytes=takes.max_bytes, frame_timeout=source.frame_timeout,
                framing=source.framing, sockets=source.sockets, allow=source.allow, probes=source.probes, tls=tls,
                budget=budget,
            )  # fmt: skip
        else:
            assert not isinstance(tls, ServerTls)
            self.listener = Connector(source, lambda: self, max_bytes=takes.max_bytes, tls=tls, budget=budget)

    async def open(self) -> None:
        """Listen; OSError where the port cannot be had, `down` says why. Or begin to connect: `down` says why there is
        no connection until there is one. Nobody gets in who could not hear our answers."""
        if isinstance(self.listener, Connector):
            if self.down in NOT_OPEN:
                self.down, self._told = "not connected yet", ("", 0.0)
            await self.listener.start()
            return
        if self._acks is not None:
            await self._had(self._acks)
        try:
            await self._had(self.listener)
        except OSError:
            if self._acks is not None:
                await self._acks.close()
            raise
        self.down = None
        emit(events.ListenerOpened(self.name, str(self.listener.address)))

    async def _had(self, port: Listener | AckPort) -> None:
        try:
            await port.start()
        except OSError as error:
            reason = error.strerror or "not possible"
            if self.down != reason:
                emit(events.ListenerFailed(self.name, str(port.address), reason))
            self.down = reason
            raise

    async def close(self, grace: float = 0.0) -> None:
        await self.listener.close(grace)
        if self._acks is not None:
            await self._acks.close()
        if self.down is None:
            emit(events.ListenerClosed(self.name, str(self.listener.address)))
        self.down = CLOSED

    async def end(self) -> None:
        """After `close`, and after the last answer."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # -- from the sockets (engine.mllp.server.Handler)

    def connected(self, conn: Connection) -> None:
        if self.down is not None and isinstance(self.listener, Connector):
            self.down = None
            emit(events.SenderReached(self.name, str(self.listener.address)))
        conn.number = self._number()
        self._fresh.add(conn)
        emit(events.PeerConnected(self.name, conn.peer, conn.number))
        if self.back is not None:
            asyncio.get_running_loop().call_soon(self.back.came)  # when it can be written to

    def closed(self, conn: Connection) -> None:
        self._quiet.forget(conn)
        self._fresh.discard(conn)
        self._noisy.pop(conn, None)
        self._bad.pop(conn, None)
        if self.back is not None:
            self.back.gone(conn)
        emit(events.PeerClosed(self.name, conn.peer, conn.number))

    def refused(self, peer: str, why: str) -> None:
        if isinstance(self.listener, Connector):
            self._unreached(peer, why)
        else:
            emit(events.PeerRefused(self.name, peer, why))

    def probed(self, peer: str) -> None:
        events.PROBED.of(self.name).n += 1

    def frame(self, conn: Connection, payload: bytes) -> None:
        if self._quiet.has(conn, Why.LARGE):  # it is gone, and what it sent behind a large message was not answered
            self.unfinished(conn, payload, "behind a message that was not stored yet")
            conn.done_with()
            return
        if self.back is not None and self.back.offer(conn, payload):
            conn.commit(True)
            conn.waive()
            conn.done_with()
            return
        head = peek(payload)
        if self._answers_us(head, payload):
            why = "nothing was sent that it could answer"
            if self._default.transparent and self.pass_on is not None and self.pass_on(payload):
                why = "passed on to the old engine, which may wait for it"
            self._stray(conn, head, payload, why)
            return
        if conn.owed >= MOST_UNANSWERED:
            self._quiet.hush(conn, Why.FULL)
        self._take(conn, payload, head)

    def noise(self, conn: Connection, data: bytes) -> None:
        reason = conn.stranger or "bytes outside of a frame"
        emit(events.Noise(self.name, conn.peer, len(data), reason))
        self._one_bad(conn)
        self._keep_some(conn, "noise", reason, data[:NOISE_KEPT], len(data))

    def too_large(self, conn: Connection, head: bytes, size: int) -> None:
        emit(events.FrameTooLarge(self.name, conn.peer, size))
        header = peek(head)
        asks = self._answering.asks(header)
        answer = self._answering.refusal(header, asks, TOO_LARGE.code, TOO_LARGE.error)
        conn.commit(False)
        self._answering.refuse(conn, answer, asks)
        self._keep(conn, "too_large", TOO_LARGE.reason, head, size, answer)

    def _heard_apart(self, conn: Connection, data: bytes, size: int) -> None:
        emit(events.Noise(self.name, conn.peer, size, APART))
        self._keep_some(conn, "noise", APART, data[:NOISE_KEPT], size)

    def unfinished(self, conn: Connection, head: bytes, why: str) -> None:
        emit(events.FrameUnfinished(self.name, conn.peer, len(head), why))
        self._keep_some(conn, "unfinished", why, head, len(head))

    def _answers_us(self, head: Peek, payload: bytes) -> bool:
        """Whether a frame is an answer and no message. Its type says so (2.9.2); or it carries data and names a message
        of ours. A response that names none of ours is a message of a channel that takes its type."""
        if head.problem == BATCH_ENVELOPE:
            return is_acknowledgement(peek_batch(payload))
        if is_acknowledgement(head):
            return True
        if self.back is None or not is_acknowledgement(head, payload):
            return False
        return self.back.has_sent((answers(payload) or "").strip())

    # -- taking a frame

    def _take(self, conn: Connection, payload: bytes, head: Peek) -> None:
        now = self._clocks.now()
        answer_to, batch = head, None
        if head.problem == BATCH_ENVELOPE and self._takes.batch != "refuse":  # one message, stored whole
            answer_to, batch = peek_batch(payload), payload
        reply = Reply(self, conn, answer_to, self._clocks.tick(), self._answering.asks(answer_to), batch)
        if self._router is not None:
            self._route(reply, head, payload, now)
            return
        inlet = self._default
        flaw = inlet.judge(head, payload)
        if flaw is not None and not inlet.transparent:
            self._turn_down(inlet, reply, payload, flaw, now)
            return
        self._good(conn)
        message = inlet.message(payload, now, answer_to.control_id, conn.number, reply, flaw)
        if len(payload) > LARGE:
            self._lay_down(conn, [message])
        else:
            self._ledger.store(message)

    def _route(self, reply: Reply, head: Peek, payload: bytes, now: int) -> None:
        """One frame, a copy to each of its channels, in one transaction. A channel that is live and does not take it
        gets none; where no channel takes it, its sender is told."""
        assert self._router is not None
        self._last = now = max(now, self._last + 1)  # with the connection's number, it names the frame
        copies: list[Message] = []
        refusals: list[tuple[Inlet, Flaw]] = []
        for name in self._router.route(head, payload):
            inlet = self.inlets[name]
            flaw = inlet.judge(head, payload)
            if flaw is not None and not inlet.transparent:
                refusals.append((inlet, flaw))
            else:
                copies.append(inlet.message(payload, now, reply.head.control_id, reply.conn.number, reply, flaw))
        if not copies:
            inlet, flaw = refusals[0]
            self._turn_down(inlet, reply, payload, flaw, now)
            return
        for inlet, flaw in refusals:
            self._keep(reply.conn, "refused", flaw.reason, payload, len(payload), book=inlet.book)
        self._good(reply.conn)
        reply.copies = copies if len(copies) > 1 else ()
        if len(payload) > LARGE:
            self._lay_down(reply.conn, copies)
        else:
            self._store(copies)

    def _store(self, copies: Sequence[Message]) -> None:
        if len(copies) == 1:
            self._ledger.store(copies[0])
        else:
            self._ledger.together(Together(copies))

    def _lay_down(self, conn: Connection, copies: Sequence[Message]) -> None:
        """A large message is written in pieces between the commits of others; what comes behind it on its connection
        waits, and the connection is not read meanwhile."""
        self._quiet.hush(conn, Why.LARGE)

        async def lay() -> None:
            try:
                for copy in copies:
                    await self._ledger.lay_down(copy)
                self._store(copies)
            except Exception as error:  # this one could not be written, and others could
                emit(Fault.of(error))
                for copy in copies:
                    self.inlets[copy.channel.name].failed(copy)
            self._quiet.lift(conn, Why.LARGE)

        task = asyncio.get_running_loop().create_task(lay(), name=f"large message of {self.name}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _one_bad(self, conn: Connection) -> None:
        """One thing more that is no message. A peer that sends nothing else is read slowly."""
        count = self._bad[conn] = self._bad.get(conn, 0) + 1
        if count % MOST_BAD == 0:
            self._quiet.hush(conn, Why.BAD)
            asyncio.get_running_loop().call_later(SLOWLY, self._quiet.lift, conn, Why.BAD)

    def _good(self, conn: Connection) -> None:
        """A message: what was bad before it no longer counts."""
        if self._bad:
            self._bad.pop(conn, None)

    def _stray(self, conn: Connection, head: Peek, payload: bytes, why: str) -> None:
        """An answer that nobody waits for: it is never acknowledged itself, but on the transport level."""
        conn.commit(True)
        conn.waive()
        conn.done_with()
        emit(events.StrayAcknowledgement(self.name, conn.peer, len(payload)))
        keep = self._keep if head.ok and not is_acknowledgement(head) else self._keep_some  # some carry data
        keep(conn, "stray_acknowledgement", why, payload, len(payload))

    def _turn_down(self, inlet: Inlet, reply: Reply, payload: bytes, flaw: Flaw, now: int) -> None:
        """A frame that its channel does not take. To a response of another type nothing is answered (2.9.2)."""
        if flaw.error.code in OTHER_TYPE and is_acknowledgement(reply.head, payload):
            self._stray(reply.conn, reply.head, payload, "a response of a type that this channel does not take")
        else:
            self._refuse(inlet, reply, payload, flaw, now)

    def _refuse(self, inlet: Inlet, reply: Reply, payload: bytes, flaw: Flaw, now: int) -> None:
        conn = reply.conn
        self._one_bad(conn)
        reply.given = True
        answer = self._answering.refusal(reply.head, reply.asks, flaw.code, flaw.error)
        said = parse_ack(answer) if answer is not None else None
        code = said.code if said is not None else "NAK" if answer else "nothing"
        emit(events.FrameRefused(inlet.channel.id, conn.peer, code, flaw.reason, len(payload)))
        event = IntakeEvent(inlet.book, "refused", flaw.reason, now, conn.peer, conn.number, payload[:LARGE],
                            len(payload), answer, reply=reply)  # fmt: skip
        self._ledger.event(event)

    # -- from the ledger

    def kept(self, event: IntakeEvent) -> None:
        """Evidence is durable: give the answer that belongs to it."""
        conn: Connection = event.reply.conn
        if event.kind == LATER:
            assert event.answer is not None
            self._answering.give_later(conn, event.answer)
            return
        event.reply.commit(True)
        if self._answering.refuse(conn, event.answer, event.reply.asks):
            events.ACKNOWLEDGED.of(event.channel.name, "refused").n += 1
        self.make_room(conn)

    def unkept(self, event: IntakeEvent) -> None:
        """It cannot be written while the ledger cannot: no answer, and this connection waits."""
        if event.kind != LATER:
            event.reply.commit(None)
            event.reply.conn.waive()
        self.stall(event.reply.conn)

    def unwritten(self, event: IntakeEvent) -> None:
        """This piece could not be written, and others could."""
        if event.kind != LATER:
            event.reply.commit(False)
            event.reply.conn.waive()
        self._let_on(event.reply.conn)

    def recovered(self) -> None:
        """The ledger can be written again."""
        self._quiet.lift_all(Why.STALLED)

    # -- where connections wait (engine.intake.reply.Room)

    def stall(self, conn: Connection) -> None:
        conn.done_with()
        self._quiet.hush(conn, Why.STALLED)

    def make_room(self, conn: Connection) -> None:
        if self._fresh and conn in self._fresh:
            self._fresh.discard(conn)
            self.sent[conn.host] += 1
        self._let_on(conn)

    def _let_on(self, conn: Connection) -> None:
        """One of its messages less is held."""
        conn.done_with()
        if conn.owed <= MOST_UNANSWERED // 2:
            self._quiet.lift(conn, Why.FULL)

    def _unreached(self, address: str, why: str) -> None:
        """An attempt to connect to whom is to send has failed."""
        self.down = why
        events.UNREACHED.of(self.name).n += 1
        events.LISTENING.of(self.name).n = 0
        now, (said, at) = self._clocks.tick(), self._told
        if why != said or now - at >= AGAIN:
            self._told = why, now
            emit(events.SenderUnreached(self.name, address, why))

    # -- evidence

    def _keep_some(self, conn: Connection, kind: str, reason: str, raw: bytes, size: int) -> None:
        """A peer that only sends garbage must not fill the ledger; the metrics count all of it."""
        kept = self._noisy.get(conn, 0)
        if kept < NOISE_EVENTS:
            self._noisy[conn] = kept + 1
            self._keep(conn, kind, reason, raw, size)

    def _keep(
        self,
        conn: Connection,
        kind: str,
        reason: str,
        raw: bytes,
        size: int,
        answer: bytes | None = None,
        *,
        book: ChannelBook | None = None,
    ) -> None:
        where, now = book or self._default.book, self._clocks.now()
        self._ledger.event(IntakeEvent(where, kind, reason, now, conn.peer, conn.number, raw[:LARGE], size, answer))

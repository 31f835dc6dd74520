"""A tap: the listener where the old engine's own output arrives.

While the old engine is the one to send, an output goes on to its real endpoint at once, and that endpoint's answer back
as it came: nothing on this way waits for the ledger, which is told afterwards. Where no answer comes, the old engine
gets none, and does what it always did. Only what a person may still have to send waits for the ledger, and is
acknowledged when it is durable.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from engine.compare.tapping import Fate, fate, own_destination, why_parked
from engine.config.edge import Listen
from engine.config.model import Channel, Tap
from engine.delivery.destinations import mllp
from engine.delivery.sender import Job, Sender
from engine.hl7.ack import acknowledge
from engine.hl7.peek import peek
from engine.ledger.course import ChannelBook
from engine.ledger.interface import Ledger
from engine.ledger.model import Message, TapOutput
from engine.ledger.outcome import Outcome
from engine.ledger.sqlite.large import LARGE
from engine.mllp.client import Client
from engine.mllp.connection import Connection
from engine.mllp.framing import STORED, Bare
from engine.mllp.replies import Answered, NotSent, Reply, Written
from engine.mllp.server import Listener
from engine.mllp.tls import ServerTls
from engine.observe import tap_events as events
from engine.observe.events import emit
from engine.observe.service_events import Fault

MOST_UNANSWERED = 64  # outputs of one connection; then it is read no further until half of them are answered
UNANSWERED = "unanswered"  # forwarded, and no answer came: the old engine will repeat it


class Asker(Protocol):
    """Where an output comes from, and its answer goes to: a connection that the old engine made, or ours to it."""

    number: int
    block: int

    @property
    def commits(self) -> object:
        """Whether it hears what became of each `block`, on the transport level."""

    @property
    def owed(self) -> int:
        """Outputs that have no answer yet."""

    def commit(self, stored: bool, block: int) -> None: ...

    def send(self, payload: bytes) -> bool: ...

    def waive(self) -> None: ...

    def close(self) -> None: ...

    def pause(self) -> None: ...

    def resume(self) -> None: ...


class OurLink:
    """Our own connection to the old engine, as one that it has just sent an output on."""

    owed = 0  # it sends one message at a time there, as we do
    commits, block = True, 0  # the one that the output came in

    def __init__(self, line: Client, number: int) -> None:
        self.number = number
        self._line = line
        self._commit = line.commit_later()

    def commit(self, stored: bool, block: int) -> None:
        self._commit(stored)

    def send(self, payload: bytes) -> bool:
        return self._line.transmit(payload)

    def waive(self) -> None:
        """Nothing is owed here."""

    def close(self) -> None:
        """It is shared with our own messages: no answer is answer enough."""

    def pause(self) -> None:
        """It cannot be paused."""

    def resume(self) -> None:
        """It was not paused."""


class TapPort:
    """One tap of a channel: what it takes goes on to the endpoint through the endpoint's own sender."""

    def __init__(
        self,
        channel: Channel,
        tap: Tap,
        book: ChannelBook,
        ledger: Ledger,
        attribute: Callable[[bytes, int], int | None],
        now: Callable[[], int],
        number: Callable[[], int],
        sender: Sender,
        tls: ServerTls | None = None,
    ) -> None:
        """`attribute`: the input that an output belongs to, None where that is not known. `now`: microseconds since
        1970. `number` gives each connection a number that is never used again."""
        self.channel = channel
        self.tap = tap
        self.down: str | None = None  # why the old engine cannot connect
        self._last = 0.0  # when something came or was answered, in seconds of the event loop's clock
        self._comes_again = False  # the old engine has got no answer to the newest, and will repeat it
        self._book = book
        self._ledger = ledger
        self._attribute = attribute
        self._now = now
        self._number = number
        self._sender = sender
        self._waiting: dict[Asker, dict[Job, TapOutput]] = {}  # forwarded, and not answered
        self._full: set[Asker] = set()
        self._links: dict[Client, int] = {}  # the numbers of our connections to the old engine
        self._tasks: set[asyncio.Task[None]] = set()
        self._answers = 0
        self.by_hand = 0  # outputs that people have ordered to be sent, and that are on their way
        self.destination = own_destination(channel, tap)
        self._counts = {f: events.OUTPUTS.of(channel.id, tap.name, f.value) for f in Fate}
        self._seconds = events.ANSWERED.of(channel.id, tap.name)
        self.listener: Listener | None = None
        if isinstance(tap.source, Listen):
            source = tap.source
            self.listener = Listener(
                source.address, lambda: self, max_bytes=channel.takes.max_bytes, frame_timeout=source.frame_timeout,
                framing=source.framing, sockets=source.sockets, allow=source.allow, probes=source.probes, tls=tls,
            )  # fmt: skip

    @property
    def address(self) -> str:
        """Where the old engine's output comes in, for people."""
        return str(self.listener.address) if self.listener else "our connection to the old engine"

    @property
    def quiet_since(self) -> float | None:
        """When something last came here or was answered, in seconds of the event loop's clock; 0 where nothing has.
        None as long as the old engine waits for an answer, or has none and will repeat its output: more may stand
        behind that, and all of it would come after what we send."""
        return None if self._waiting or self.by_hand or self._comes_again else self._last

    async def open(self) -> None:
        """Listen, where it has a port. OSError where that cannot be had; `down` says why."""
        if self.listener is None:
            return
        try:
            await self.listener.start()
        except OSError as error:
            reason = error.strerror or "not possible"
            if self.down != reason:
                emit(events.TapFailed(self.channel.id, self.tap.name, self.address, reason))
            self.down = reason
            raise
        self.down = None
        emit(events.TapOpened(self.channel.id, self.tap.name, self.address))

    async def close(self, grace: float = 0.0) -> None:
        if self.listener is not None:
            await self.listener.close(grace)
        for asker in list(self._waiting):
            self._give_up(asker)
        await asyncio.gather(*self._tasks, return_exceptions=True)
        emit(events.TapClosed(self.channel.id, self.tap.name, self.address))

    # -- from our connection to the old engine (engine.delivery.sender.Sender)

    def on_link(self, line: Client, payload: bytes) -> bool:
        """A message of the old engine's own on the connection on which it answers us."""
        if not peek(payload).ok:
            return False
        if line not in self._links:
            self._links[line] = self._number()
        self.frame(OurLink(line, self._links[line]), payload)
        return True

    # -- from the sockets (engine.mllp.handler.Handler)

    def connected(self, conn: Connection) -> None:
        conn.number = self._number()
        emit(events.TapConnected(self.channel.id, self.tap.name, conn.peer, conn.number))

    def closed(self, conn: Connection) -> None:
        self._full.discard(conn)
        self._give_up(conn)
        emit(events.TapDisconnected(self.channel.id, self.tap.name, conn.peer, conn.number))

    def refused(self, peer: str, why: str) -> None:
        emit(events.TapInputBad(self.channel.id, self.tap.name, peer, 0, why))

    def probed(self, peer: str) -> None:
        """Somebody looked whether the port is open."""

    def frame(self, conn: Asker, payload: bytes) -> None:
        now, self._last = self._now(), asyncio.get_running_loop().time()
        if conn.owed >= MOST_UNANSWERED and conn not in self._full:
            self._full.add(conn)
            conn.pause()
        seq = self._attribute(payload, now)
        decided = fate(self._book, seq, self.destination)
        block = conn.block if conn.commits else 0
        self._counts[decided].n += 1
        output = TapOutput(
            self._book, self.tap.name, payload, now, socket=conn.number, control_id=peek(payload).control_id,
            decision=decided.value, seq=seq,
        )  # fmt: skip
        if decided is Fate.FORWARD:
            self._forward(conn, block, output)
        elif decided is Fate.CAPTURE:
            output.answer = self._acknowledge(payload)
            self._comes_again = not self._answer(conn, block, output.answer)
            self._record(output)
        else:
            output.answer = self._acknowledge(payload)
            output.reply = conn, block
            self._record(output)

    def noise(self, conn: Connection, data: bytes) -> None:
        self._bad(conn, len(data), conn.stranger or "outside of a frame")

    def too_large(self, conn: Connection, head: bytes, size: int) -> None:
        self._bad(conn, size, "too large")

    def unfinished(self, conn: Connection, head: bytes, why: str) -> None:
        self._bad(conn, len(head), f"never ended: {why}")

    def _bad(self, conn: Connection, size: int, why: str) -> None:
        emit(events.TapInputBad(self.channel.id, self.tap.name, conn.peer, size, why))

    # -- from a person

    async def send_kept(self, output: Message) -> Outcome:
        """Send an output that was kept to its endpoint, once, in its turn there; what came of it."""
        ended: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        endpoint = self.tap.forward
        final = mllp.is_more_than_committed if mllp.COMMITTED not in endpoint.answers.accepted else None

        def heard(reply: Reply) -> None:
            self._last = asyncio.get_running_loop().time()
            came = mllp.came_of(reply, job, output, endpoint.answers)
            if not ended.cancelled():
                ended.set_result(came)

        job = Job(output.raw, endpoint.ack_timeout, heard, final=final, expects=endpoint.answers.expected)
        self._sender.send(job)
        return await ended

    # -- from the ledger

    def kept(self, output: TapOutput) -> None:
        """The output is durable: one that waits for a person is acknowledged now."""
        if output.decision == Fate.PARK.value:
            emit(events.OutputParked(self.channel.id, self.tap.name, why_parked(output.seq)))
            if output.answer is not None:
                conn, block = output.reply
                self._answer(conn, block, output.answer)
        output.reply = None

    def unkept(self, output: TapOutput) -> None:
        """It could not be stored. What a person may have to send is not acknowledged: the old engine still has it."""
        events.LOST.of(self.channel.id).n += 1
        if output.reply is not None:
            output.reply[0].close()

    # -- inside

    def _forward(self, conn: Asker, block: int, output: TapOutput) -> None:
        begun = asyncio.get_running_loop().time()
        endpoint = self.tap.forward

        def heard(reply: Reply) -> None:
            self._heard(conn, block, job, output, reply, begun)

        job = Job(output.raw, endpoint.ack_timeout, heard, expects=endpoint.answers.expected)
        self._waiting.setdefault(conn, {})[job] = output
        self._sender.send(job)

    def _heard(self, conn: Asker, block: int, job: Job, output: TapOutput, reply: Reply, begun: float) -> None:
        waiting = self._waiting.get(conn)
        if waiting is not None:
            waiting.pop(job, None)
            if not waiting:
                del self._waiting[conn]
        self._last, self._comes_again = asyncio.get_running_loop().time(), False
        if isinstance(reply, Answered):
            output.answer = reply.payload
            self._comes_again = not self._answer(conn, block, reply.payload)
            self._seconds.observe(self._last - begun)
        elif isinstance(reply, Written):
            self._answer(conn, block, None)
        else:
            output.decision, self._comes_again = UNANSWERED, True
            emit(events.OutputUnanswered(self.channel.id, self.tap.name, reply.reason))
            conn.close()
        self._record(output)

    def _give_up(self, conn: Asker) -> None:
        """The old engine is gone: what has not been sent for it is not, since it will send it again."""
        for job in list(self._waiting.get(conn, ())):
            if self._sender.cancel(job):
                job.done(NotSent("the old engine closed the connection"))

    def _record(self, output: TapOutput) -> None:
        if len(output.raw) <= LARGE:
            self._ledger.output(output)
            return

        async def lay_down() -> None:
            try:
                await self._ledger.lay_down(output)
            except Exception as error:  # then it is stored in one piece, or the ledger says that it is not
                emit(Fault.of(error))
            self._ledger.output(output)

        task = asyncio.get_running_loop().create_task(lay_down(), name="large output at a tap")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _answer(self, conn: Asker, block: int, answer: bytes | None) -> bool:
        """The endpoint has the output, or we do; whether the old engine could be told. None: nobody answers it."""
        if conn.commits:
            conn.commit(True, block)
        told = True
        if answer is None:
            conn.waive()
        else:
            told = conn.send(answer)
        if conn in self._full and conn.owed <= MOST_UNANSWERED // 2:
            self._full.discard(conn)
            conn.resume()
        return told

    def _acknowledge(self, payload: bytes) -> bytes:
        if self.tap.forward.framing.bare:  # as the endpoint would have it
            return Bare(STORED)
        self._answers += 1
        control_id = f"{self._ledger.term}.{self._book.id}t{self._answers}"
        return acknowledge(peek(payload), "AA", control_id=control_id, at=self._now() // 1_000_000)

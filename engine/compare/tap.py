"""A tap: the listener where the old engine's own output arrives.

While the old engine is the one to send, an output goes on to its real endpoint at once, and that endpoint's answer back
as it came: nothing on this way waits for the ledger, which is told afterwards. Where no answer comes, the old engine
gets none, and does what it always did. Only what a person may still have to send waits for the ledger, and is
acknowledged when it is durable.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from engine.compare.tapping import Fate, fate
from engine.config.edge import Listen
from engine.config.model import Channel, Tap
from engine.hl7.ack import acknowledge
from engine.hl7.peek import peek
from engine.ledger.course import ChannelBook
from engine.ledger.interface import Ledger
from engine.ledger.model import TapOutput
from engine.mllp.allow import Allowed
from engine.mllp.client import Answered, Client, Reply
from engine.mllp.server import Connection, Listener
from engine.observe import tap_events as events
from engine.observe.events import emit

MOST_UNANSWERED = 64  # outputs of one connection; then it is read no further until half of them are answered
UNANSWERED = "unanswered"  # forwarded, and no answer came: the old engine will repeat it


class TapPort:
    """One tap of a channel: its listener, and a connection to the endpoint for each connection of the old engine."""

    def __init__(
        self,
        channel: Channel,
        tap: Tap,
        book: ChannelBook,
        ledger: Ledger,
        attribute: Callable[[bytes, int], int | None],
        now: Callable[[], int],
        number: Callable[[], int],
    ) -> None:
        """`attribute`: the input that an output belongs to, None where that is not known. `now`: microseconds since
        1970. `number` gives each connection a number that is never used again."""
        self.channel = channel
        self.tap = tap
        self.last_output = 0  # microseconds since 1970
        self._book = book
        self._ledger = ledger
        self._attribute = attribute
        self._now = now
        self._number = number
        self._links: dict[Connection, Client] = {}
        self._full: set[Connection] = set()
        self._leaving: set[asyncio.Task[None]] = set()
        self._answers = 0
        assert isinstance(tap.source, Listen)
        self._allowed = Allowed(tap.source.allow)
        destinations = channel.target.destinations if channel.target else ()
        self._destination = next((d.name for d in destinations if d.endpoint == tap.forward), None)
        self._counts = {f: events.OUTPUTS.of(channel.id, tap.name, f.value) for f in Fate}
        self._seconds = events.ANSWERED.of(channel.id, tap.name)
        self.listener = Listener(tap.source.address, lambda: self, max_bytes=channel.takes.max_bytes)

    async def open(self) -> None:
        """Listen. OSError where the port cannot be had."""
        try:
            await self.listener.start()
        except OSError as error:
            reason = error.strerror or "not possible"
            emit(events.TapFailed(self.channel.id, self.tap.name, str(self.listener.address), reason))
            raise
        emit(events.TapOpened(self.channel.id, self.tap.name, str(self.listener.address)))

    async def close(self, grace: float = 0.0) -> None:
        await self.listener.close(grace)
        for client in list(self._links.values()):
            await client.aclose()
        await asyncio.gather(*self._leaving, return_exceptions=True)
        emit(events.TapClosed(self.channel.id, self.tap.name, str(self.listener.address)))

    # -- from the sockets (engine.mllp.server.Handler)

    def connected(self, conn: Connection) -> None:
        conn.number = self._number()
        if not self._allowed.admits(conn.peer):
            emit(events.TapInputBad(self.channel.id, self.tap.name, conn.peer, 0, "its address is not in allow"))
            conn.close()
        emit(events.TapConnected(self.channel.id, self.tap.name, conn.peer, conn.number))

    def closed(self, conn: Connection) -> None:
        self._full.discard(conn)
        if client := self._links.pop(conn, None):
            task = asyncio.get_running_loop().create_task(client.aclose(), name="tap closes its link")
            self._leaving.add(task)
            task.add_done_callback(self._leaving.discard)
        emit(events.TapDisconnected(self.channel.id, self.tap.name, conn.peer, conn.number))

    def frame(self, conn: Connection, payload: bytes) -> None:
        now = self.last_output = self._now()
        if conn.owed >= MOST_UNANSWERED and conn not in self._full:
            self._full.add(conn)
            conn.pause()
        seq = self._attribute(payload, now)
        decided = fate(self._book, seq, self._destination)
        self._counts[decided].n += 1
        output = TapOutput(
            self._book, self.tap.name, payload, now, socket=conn.number, control_id=peek(payload).control_id,
            decision=decided.value, seq=seq,
        )  # fmt: skip
        if decided is Fate.FORWARD:
            self._forward(conn, output)
        elif decided is Fate.CAPTURE:
            output.answer = self._acknowledge(payload)
            self._answer(conn, output.answer)
            self._ledger.output(output)
        else:
            output.answer = self._acknowledge(payload)
            output.reply = conn
            self._ledger.output(output)

    def noise(self, conn: Connection, data: bytes) -> None:
        self._bad(conn, len(data), "outside of a frame")

    def too_large(self, conn: Connection, head: bytes, size: int) -> None:
        self._bad(conn, size, "too large")

    def unfinished(self, conn: Connection, head: bytes, why: str) -> None:
        self._bad(conn, len(head), f"never ended: {why}")

    def _bad(self, conn: Connection, size: int, why: str) -> None:
        emit(events.TapInputBad(self.channel.id, self.tap.name, conn.peer, size, why))

    # -- from the ledger

    def kept(self, output: TapOutput) -> None:
        """The output is durable: one that waits for a person is acknowledged now."""
        if output.decision == Fate.PARK.value:
            emit(events.OutputParked(self.channel.id, self.tap.name, _why(output)))
            if output.answer is not None:
                self._answer(output.reply, output.answer)
        output.reply = None

    def unkept(self, output: TapOutput) -> None:
        """It could not be stored. What a person may have to send is not acknowledged: the old engine still has it."""
        events.LOST.of(self.channel.id).n += 1
        if output.reply is not None:
            output.reply.close()

    # -- inside

    def _forward(self, conn: Connection, output: TapOutput) -> None:
        endpoint = self.tap.forward
        client = self._links.get(conn)
        if client is None:
            assert endpoint.mllp is not None
            client = self._links[conn] = Client(endpoint.mllp, connect_timeout=endpoint.connect_timeout)
        begun = asyncio.get_running_loop().time()
        client.send(output.raw, endpoint.ack_timeout, lambda reply: self._heard(conn, output, reply, begun))

    def _heard(self, conn: Connection, output: TapOutput, reply: Reply, begun: float) -> None:
        if isinstance(reply, Answered):
            output.answer = reply.payload
            self._answer(conn, reply.payload)
            self._seconds.observe(asyncio.get_running_loop().time() - begun)
        else:
            output.decision = UNANSWERED
            emit(events.OutputUnanswered(self.channel.id, self.tap.name, reply.reason))
            conn.close()
        self._ledger.output(output)

    def _answer(self, conn: Connection, answer: bytes) -> None:
        conn.send(answer)
        if conn in self._full and conn.owed <= MOST_UNANSWERED // 2:
            self._full.discard(conn)
            conn.resume()

    def _acknowledge(self, payload: bytes) -> bytes:
        self._answers += 1
        control_id = f"{self._ledger.term}.{self._book.id}t{self._answers}"
        return acknowledge(peek(payload), "AA", control_id=control_id, at=self._now() // 1_000_000)


def _why(output: TapOutput) -> str:
    if output.seq is None:
        return "it belongs to no input that is known"
    return f"of {output.seq} it is not known whether the endpoint has it"

"""One MLLP connection over which a peer sends: frames in, answers out, at the least cost per message.

Each connection has a handler, which is called from the event loop and must not block. Nothing here raises towards the
handler: a send on a connection that is gone says False.

A load balancer that only looks whether the port is open is no peer. So a connection is announced (`connected`) with
its first byte, or when it has been open for a while; one that goes before that was a probe.

Back pressure has three sources, and a connection is read only while none of them asks for quiet: the handler (`pause`),
the peer itself, when it sends but does not read its answers (its write buffer is above `WRITE_HIGH`), and the memory
budget of all connections (`ration`).

In release 2 of MLLP the peer is told by `commit` that a block is stored, or could not be, and says the same of what is
sent to it: each in the order of the blocks.

A handler that raises costs its connection: closed, with no answer, so that the sender repeats.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import cast

from engine.mllp.budget import WEIGHTY
from engine.mllp.commits import Commits
from engine.mllp.framing import MOST_UNCOMMITTED, Commit, Decoder, Event, Frame, Noise, TooLarge, Unfinished, encode
from engine.mllp.handler import Handler, Owner
from engine.mllp.sockets import host_of, tune
from engine.mllp.strangers import LONGEST, stranger, undecided

WRITE_HIGH = 256 * 1024
"""Bytes of answers not taken by the peer above which it is no longer read."""
PATIENCE = 20
"""How many times as long as it may be silent a block may take in all: 20 minutes with the usual minute. In that time
32 MB come at 220 kbit/s; who sends a byte now and then holds a connection, and hardly any memory, for no longer."""
LINGER = 5.0
"""Seconds that a closing connection may take to deliver what was written to it."""


class Connection(asyncio.Protocol):
    """One peer's socket. `number` is for the owner, who counts sockets; here it is only carried."""

    __slots__ = (
        "_clogged",
        "_closing",
        "_deaf",
        "_decoder",
        "_finishing",
        "_first",
        "_gone",
        "_handler",
        "_heard",
        "_held",
        "_last",
        "_loop",
        "_manner",
        "_more",
        "_owed",
        "_owner",
        "_pulse",
        "_rationed",
        "_rest",
        "_serial",
        "_since",
        "_timer",
        "_transport",
        "_turned_away",
        "_uncommitted",
        "_unread",
        "_wait",
        "announced",
        "block",
        "commits",
        "number",
        "peer",
        "stranger",
    )

    def __init__(
        self, owner: Owner, handler: Handler, loop: asyncio.AbstractEventLoop, peer: str, wait: float | None
    ) -> None:
        """`peer`: its `ip:port`. `wait`: seconds without a byte after which the connection counts as a peer's; None =
        only a byte counts."""
        self._owner = owner
        self._manner = owner.manner
        self._handler = handler
        self._loop = loop
        self._wait = wait
        self._decoder = Decoder(self._manner.max_bytes, self._manner.framing)
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None  # of an unfinished block, or of closing
        self._pulse: asyncio.TimerHandle | None = None  # until it is announced; then of silence
        self._serial = 0  # of the unfinished block that is being timed
        self._since = 0.0  # loop time of that block's beginning
        self._heard = 0.0  # loop time of its newest bytes
        self._last = 0.0  # loop time of the last byte, kept only where there is an idle limit
        self._unread = 0  # bytes that the peer had yet to read when its silence was last looked at
        self._owed = 0  # messages handed over and not answered yet
        self._held = False  # the handler wants quiet
        self._clogged = False  # the peer does not read
        self._rationed = False  # others come first with their large messages
        self._finishing = False  # to be closed when nothing is owed
        self._rest: list[Event] = []  # read, and not handed over yet, since the handler wants quiet
        self._gone = False  # the socket is; what was read is handed over all the same
        self._deaf = False  # what still comes is not read; to be closed when nothing is owed
        self._first: bytes | None = b""  # what came first, as long as it may be another protocol's
        self._more: asyncio.TimerHandle | None = None  # until which another answer may go, though it is to be closed
        self._closing = False
        self._turned_away = False  # closed by us before it was announced: the handler is told no more
        self.announced = False
        """Whether the handler knows of it."""
        self.commits: Commits | None = None
        """By which the peer hears what became of its blocks; None where it does not speak release 2."""
        self.block = 0
        """The number of the block that the handler is told of, there."""
        self._uncommitted: deque[Callable[[bool], None] | None] | None = None  # who hears what became of ours
        if self._manner.framing.release == 2:
            self.commits = Commits(self._write)
            self._uncommitted = deque(maxlen=MOST_UNCOMMITTED)
        self.number = 0
        self.peer = peer
        """`ip:port`."""
        self.stranger: str | None = None
        """What speaks here, where it is no MLLP (engine.mllp.strangers)."""

    # -- for the handler

    def send(self, payload: bytes) -> bool:
        """Answer the peer. False where that is no longer possible; never raises."""
        if not self._write(payload):
            return False
        if self._uncommitted is not None:
            self._uncommitted.append(None)
        self.unanswered()
        return True

    def transmit(self, payload: bytes, heard: Callable[[bool], None] | None = None) -> bool:
        """Send the peer something that is not the answer it waits for: a message of our own, on a socket that both
        sides use, an accept acknowledgement, or the application's answer after one. False where that is no longer
        possible. `heard`: in release 2, whether the peer has stored it."""
        if self._deaf or not self._write(payload):
            return False
        if self._uncommitted is not None:
            self._uncommitted.append(heard)
        if self._manner.one_message:
            self._finishing = True
            self._expect_no_more()
        return True

    def commit(self, stored: bool | None, block: int | None = None) -> None:
        """Tell the peer on the transport level what became of a block, the present one unless it is named: before its
        answer. None: that is not for the peer to know. Without release 2 nothing is ever said."""
        if self.commits is not None:
            self.commits.became(self.block if block is None else block, stored)

    def expect_more(self, seconds: float) -> None:
        """After the answer that is sent next, another one to the same message may be transmitted. Where the connection
        is for one message it stays until then, for so long at most."""
        if self._manner.one_message and self._more is None and not self._closing:
            self._more = self._loop.call_later(seconds, self._expect_no_more)

    def waive(self) -> None:
        """One of the messages that came in gets no answer. Without this, it counts as owed for good."""
        if self._owed:
            self._owed -= 1
        self._finish_if_done()

    def unanswered(self) -> None:
        """No answer is due here to one of the messages that came in: for its peer that ends the matter."""
        if self._manner.one_message:
            self._finishing = True
        self.waive()

    def close(self) -> None:
        """Close once what was sent has gone out, or after `LINGER`."""
        if not self._closing:
            self._closing = True
            self._turned_away = not self.announced
            self._drop_timers()
            if self._transport is not None:
                self._transport.close()
                self._timer = self._loop.call_later(LINGER, self._transport.abort)

    def finish(self) -> None:
        """Close as soon as every message that came in is answered or waived and none is half received."""
        self._finishing = True
        self._finish_if_done()

    def pause(self) -> None:
        """Stop reading. What has been read already waits until `resume`."""
        self._held = True
        self._steer()

    def resume(self) -> None:
        """Go on with what has been read already, then read again."""
        self._held = False
        if self._rest:
            self._loop.call_soon(self._go_on)
        else:
            self._steer()

    def done_with(self) -> None:
        """What came in is not needed in memory any more. Counts only where there is a budget."""
        if self._manner.budget is not None:
            self._manner.budget.done(self)

    def ration(self, wait: bool) -> None:
        """Whether others come first (engine.mllp.budget)."""
        self._rationed = wait
        self._steer()

    @property
    def owed(self) -> int:
        """Messages that came in and have no answer yet."""
        return self._owed

    @property
    def host(self) -> str:
        """The peer's IP address."""
        return host_of(self.peer)

    @property
    def leaving(self) -> bool:
        """Whether it is to be closed, now or when nothing is owed."""
        return self._closing or self._finishing

    @property
    def transport(self) -> asyncio.Transport | None:
        return self._transport

    # -- for the event loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=WRITE_HIGH)
        tune(transport.get_extra_info("socket"), self._manner.keepalive)
        if (why := self._owner.admit(self)) is not None:
            self._closing = self._turned_away = True
            self._transport.abort()
            self._handler.refused(self.peer, why)
        elif self._wait == 0:
            self._announce()
        elif self._wait is not None:
            self._pulse = self._loop.call_later(self._wait, self._announce)
        else:
            self._listen_for_silence()

    def data_received(self, data: bytes) -> None:
        if self._deaf or self._closing:
            return
        if self._first is not None and self._is_strange(self._first + data[:LONGEST]):
            self._handler.noise(self, data)
            self.close()
            return
        if self._manner.idle is not None:
            self._last = self._loop.time()
        events = self._decoder.feed(data)
        if self._rest:
            self._rest += events
        else:
            self._handle(events)
        if self._decoder.inside and not self._closing and not self._deaf:
            self._watch()
            if self._decoder.size > WEIGHTY and self._manner.budget is not None:
                self._manner.budget.coming(self, self._decoder.size)
        self._finish_if_done()

    def _handle(self, events: list[Event]) -> None:
        """Tell the handler, until it wants quiet; the rest waits."""
        for at, event in enumerate(events):
            if self._closing:
                return
            if type(event) is Frame:
                self._owed += 1
                if self.commits is not None:
                    self.block = self.commits.came()
                if len(event.payload) > WEIGHTY and self._manner.budget is not None:
                    self._manner.budget.came(self, len(event.payload))
                self._handler.frame(self, event.payload)
            else:
                self._report(event)
            if self._held and not self._gone:
                self._rest = events[at + 1 :]
                return

    def _go_on(self) -> None:
        """Hand over what had been read when the handler wanted quiet."""
        if self._held:
            return
        rest, self._rest = self._rest, []
        try:
            self._handle(rest)
        except BaseException:
            self.close()
            raise
        self._steer()
        self._finish_if_done()

    def _report(self, event: Event) -> None:
        if isinstance(event, Noise):
            self._handler.noise(self, event.data)
        elif isinstance(event, Unfinished):
            self._handler.unfinished(self, event.head, "restarted")
        elif isinstance(event, Commit):
            heard = self._uncommitted.popleft() if self._uncommitted else None
            if heard is not None:
                heard(event.stored)
        elif isinstance(event, TooLarge):
            self._let_go()
            self._turn_away(event)

    def eof_received(self) -> bool:
        """The peer will send no more. It still gets the answers it waits for, as long as there are any; except over
        TLS, which the event loops cannot keep half open."""
        self._finishing = True
        self._uncommitted = None  # it will say nothing of what it still gets
        self._report_unfinished("closed")
        waits = self._owed or self._more is not None
        if waits and not self._closing and self._transport is not None and self._transport.can_write_eof():
            return True
        self._closing = True
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        if self._rest and not self._closing:  # it came whole, and nobody will be able to say that it was not taken
            self._gone = True
            rest, self._rest = self._rest, []
            self._handle(rest)
        self._closing = True
        self._drop_timers()
        self._report_unfinished("closed")
        self._let_go()
        self._owner.forget(self)
        if self.announced:
            self._handler.closed(self)
        elif not self._turned_away:
            self._handler.probed(self.peer)

    def pause_writing(self) -> None:
        self._clogged = True
        self._steer()

    def resume_writing(self) -> None:
        self._clogged = False
        self._steer()

    # -- inside

    def _let_go(self) -> None:
        """The message that was coming in will not be one."""
        if self._manner.budget is not None:
            self._manner.budget.broken(self)

    def _write(self, payload: bytes) -> bool:
        transport = self._transport
        if self._closing or transport is None or transport.is_closing():
            return False
        try:
            transport.write(encode(payload, self._manner.framing))
        except (RuntimeError, OSError):
            return False
        if self._manner.idle is not None:
            self._last = self._loop.time()
        return True

    def _is_strange(self, first: bytes) -> bool:
        """Whether it is another protocol's, by what came first. Without a start byte everything may be a message."""
        if not self.announced:
            self._announce()
        start = self._manner.framing.start
        known = not start or first.startswith(start)
        self.stranger = None if known else stranger(first)
        self._first = first if not known and undecided(first) else None
        return self.stranger is not None

    def _announce(self) -> None:
        """It is a peer's: by its first byte, or since it has stayed."""
        self._drop_pulse()
        self.announced = True
        self._listen_for_silence()
        self._owner.announced(self)
        try:
            self._handler.connected(self)
        except BaseException:
            self.close()
            raise

    def _listen_for_silence(self) -> None:
        if self._manner.idle is not None:
            self._last = self._loop.time()
            self._pulse = self._loop.call_later(self._manner.idle, self._check_silence)

    def _check_silence(self) -> None:
        """A peer that waits for an answer, is in mid-message or is not read is not idle. One that does not read what it
        is sent is, whatever it waits for; it is not read either, so nothing else would end it."""
        idle, now = self._manner.idle, self._loop.time()
        if idle is None or self._transport is None or self.leaving:
            return
        unread, self._unread = self._unread, self._transport.get_write_buffer_size()
        waits = self._owed or self._decoder.inside or not self._transport.is_reading()
        if self._unread != unread or (waits and not self._clogged):
            self._last = now
        left = self._last + idle - now
        if left > 0:
            self._pulse = self._loop.call_later(left, self._check_silence)
        elif self._clogged:
            self.close()
        else:
            self.finish()

    def _steer(self) -> None:
        """Make the socket readable or not, as the reasons for quiet say."""
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        if self._held or self._clogged or self._rationed or self._rest:
            if transport.is_reading():
                transport.pause_reading()
        elif not transport.is_reading():
            self._since = self._heard = self._loop.time()  # a peer that was not read is not late
            transport.resume_reading()

    def _watch(self) -> None:
        """A block is open: see to it that it goes on, and ends in time. One timer, however many blocks arrive in
        pieces."""
        self._heard = self._loop.time()
        if self._serial != self._decoder.serial:
            self._serial = self._decoder.serial
            self._since = self._heard
        if self._timer is None:
            self._timer = self._loop.call_later(self._manner.frame_timeout, self._check)

    def _check(self) -> None:
        self._timer = None
        if not self._decoder.inside or self._transport is None:
            return
        now = self._loop.time()
        if not self._transport.is_reading():
            self._since = self._heard = now
        silence = self._manner.frame_timeout
        left = min(self._heard + silence, self._since + PATIENCE * silence) - now
        if left > 0:
            self._timer = self._loop.call_later(left, self._check)
        else:
            self._report_unfinished("timed out")
            self.close()

    def _report_unfinished(self, why: str) -> None:
        if self._decoder.inside and not self._decoder.stopped:
            head = self._decoder.pending
            self._let_go()
            self._decoder = Decoder(self._manner.max_bytes, self._manner.framing)
            self._handler.unfinished(self, head, why)

    def _turn_away(self, event: TooLarge) -> None:
        """A message over the limit: report it, and be deaf to what follows. The connection ends when the messages
        before it are answered, or after `LINGER`."""
        before = self._owed
        self._owed += 1  # it may be answered like any other, or not
        if self.commits is not None:
            self.block = self.commits.came()
        self._handler.too_large(self, event.head, event.size)
        self._owed = min(self._owed, before)
        if self._closing or self._transport is None:
            return
        self._deaf = True
        self._drop_timers()
        self._timer = self._loop.call_later(LINGER, self._transport.abort)

    def _finish_if_done(self) -> None:
        if self._owed or self._rest or self._closing or self._transport is None:
            return
        if self._deaf:
            self._part(self._transport)
        elif self._finishing and not self._decoder.inside and self._more is None:
            if self._uncommitted:
                self._drop_timers()
                self._timer = self._loop.call_later(LINGER, self._transport.abort)
                self._part(self._transport)
            else:
                self.close()

    def _part(self, transport: asyncio.Transport) -> None:
        """The peer is still sending, or will acknowledge our answer, and closing with unread bytes would reset the
        connection and take the answer with it. So only say that no more will come; the peer's bytes run out, or
        `LINGER` does."""
        self._closing = True
        if transport.can_write_eof():
            transport.write_eof()
        else:
            transport.close()  # TLS says so by itself, and reads on until the peer has said the same

    def _expect_no_more(self) -> None:
        if self._more is not None:
            self._more.cancel()
            self._more = None
        self._finish_if_done()

    def _drop_timers(self) -> None:
        self._drop_pulse()
        if self._more is not None:
            self._more.cancel()
            self._more = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _drop_pulse(self) -> None:
        if self._pulse is not None:
            self._pulse.cancel()
            self._pulse = None

"""MLLP towards one endpoint: a connection, messages in their order, one outstanding at a time.

`send` takes a message and a callback; the callback gets exactly one `Reply`. What matters to the caller is the
difference between `NotSent` (the peer has nothing of it: trying again cannot double anything) and `Lost` (bytes were
written and no complete answer came: the peer may have taken the message).

An answer can be told from another message's answer only by its MSA-2, which is the caller's check; here it is made as
sure as a socket allows that none is taken for the next message's: after `Lost` the socket is closed, and so it is when
something arrives that nobody asked for and that `unasked` does not welcome. Such bytes, and noise around answers, go
to `stray`.

After `Lost`, what is queued goes out on a new connection. Order across a loss is the caller's: queue only what may go.

In release 2 of MLLP the peer also says on the transport level whether it has stored a message, and hears the same of
its answers. That is no answer: it ends the exchange where none is expected, or where it is a no. A peer that leaves it
out and answers is understood all the same.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable
from functools import partial

from engine.config.address import Address
from engine.config.edge import MLLP, Framing
from engine.mllp.dial import GOODBYE, why
from engine.mllp.exchange import Exchange, tell
from engine.mllp.framing import FILLER, MAX_BYTES, Commit, Decoder, Event, Frame, Noise, TooLarge, check, encode
from engine.mllp.handshake import refused_us, why_not
from engine.mllp.link import Link, Sight
from engine.mllp.replies import NOT_COMMITTED, TIMED_OUT, Answered, Lost, NotSent, Reply, Written
from engine.mllp.sockets import KEEPALIVE
from engine.mllp.states import State, Step, advance
from engine.mllp.tls import ClientTls

__all__ = ["TIMED_OUT", "Answered", "Client", "Lost", "NotSent", "Reply", "State", "Written"]

AT_ONCE = "connection closed at once"
"""The reason of a `NotSent` whose connection was made for it and did not last."""
RECHECK = 0.01
"""Seconds between looks whether the kernel has taken the rest of a message that nobody answers."""
DECRYPT = 0.001
"""Seconds until bytes that were in the kernel have gone through TLS."""


class Client:
    """One connection to `address`, made when there is something to send."""

    def __init__(
        self,
        address: Address,
        *,
        connect_timeout: float = 10.0,
        max_bytes: int = MAX_BYTES,
        stray: Callable[[bytes], None] | None = None,
        unasked: Callable[[bytes], bool] | None = None,
        framing: Framing = MLLP,
        tls: ClientTls | None = None,
        source_address: str | None = None,
        persistent: bool = True,
        idle: float | None = None,
        keepalive: float = KEEPALIVE,
        elsewhere: bool = False,
    ) -> None:
        """Times in seconds. `max_bytes` limits an answer; `stray` gets what belongs to no answer. ValueError where
        `framing` cannot work.

        unasked: hears each frame that is no answer, before `stray` does; True where it is welcome, and the connection
        may stay. persistent: False = a connection for each message. idle: an unused connection is closed after it.
        elsewhere: answers may come by `offer`, so that a peer which closes after a message may still answer it.
        """
        check(framing)
        self.address = address
        self._connect_timeout = connect_timeout
        self._max_bytes = max_bytes
        self._stray = stray
        self._unasked = unasked
        self._framing = framing
        self._commits = framing.release == 2
        self._say = _nothing  # by which the peer hears what became of the present frame
        self._tls = tls
        self._source = source_address
        self._persistent = persistent
        self._idle = idle
        self._keepalive = keepalive
        self._elsewhere = elsewhere
        self._state = State.CLOSED
        self._queue: deque[Exchange] = deque()
        self._current: Exchange | None = None
        self._first_counts = True  # whether the first frame is the answer to the present message
        self._timer: asyncio.TimerHandle | None = None
        self._resting: asyncio.TimerHandle | None = None
        self._last = 0.0  # loop time of the last use, kept only where there is an idle limit
        self._link: Link | None = None
        self._leaving: set[Link] = set()
        self._connecting: asyncio.Task[None] | None = None

    @property
    def state(self) -> State:
        return self._state

    @property
    def queued(self) -> int:
        """Messages that wait for their turn, the outstanding one not counted."""
        return len(self._queue)

    def send(
        self,
        payload: bytes,
        timeout: float,
        done: Callable[[Reply], None],
        *,
        final: Callable[[bytes], bool] | None = None,
        expects: bool = True,
    ) -> None:
        """Send a message when its turn comes. `timeout`: seconds from writing it to the end of its answer. `done` is
        called once, from the event loop, never from within this call.

        final: asked of each frame that comes while the answer is due; False = it is another one, the wait goes on.
        expects: False = the peer does not answer; then `Written` is the end, in release 2 when it has been stored."""
        exchange = Exchange(payload, timeout, done, final, expects)
        if self._state is State.ENDED:
            asyncio.get_running_loop().call_soon(tell, exchange, NotSent("client closed"))
            return
        self._queue.append(exchange)
        if self._state is State.CLOSED or self._state is State.IDLE:
            self._pump()

    def transmit(self, payload: bytes) -> bool:
        """Write something that gets no answer, at once: our answer to a message of the peer's own. False where there
        is no connection."""
        self._touch()
        link = self._link
        if link is None or not link.write(encode(payload, self._framing)):
            return False
        if self._commits:
            link.uncommitted.append(None)
        return True

    def commit_later(self) -> Callable[[bool], None]:
        """To be called from `unasked`, by whoever keeps a message of the peer's own: the commit acknowledgement is then
        theirs to give, by calling what this returns. Every other frame is acknowledged as soon as it is heard."""
        say, self._say = self._say, _nothing
        return say

    def offer(self, payload: bytes) -> None:
        """An answer came elsewhere. It is treated like a frame of the connection."""
        self._sort(None, [Frame(payload)])

    def hang_up(self) -> None:
        """Close the socket, since what comes on it can no longer be trusted: an answer that names another message.
        To be called from `done`, before anything else is sent. An outstanding message is `Lost`."""
        if self._link is not None or self._state is State.APART:
            self._drop(self._link)
            self._settle(Lost("hung up"))

    async def aclose(self) -> None:
        """Close the connection. The outstanding message is `Lost`, the queued ones are `NotSent`. Returns when no
        task and no socket is left."""
        if self._link is not None:
            self._release(self._link, self._link.abort if self._current else self._link.close)
        self._state = advance(self._state, Step.END)
        if self._resting is not None:
            self._resting.cancel()
        if self._connecting is not None:
            self._connecting.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._connecting
        self._settle(Lost("client closed"))
        self._refuse_queue("client closed")
        for link in tuple(self._leaving):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(GOODBYE):
                    await link.gone.wait()
            link.abort()
            await link.gone.wait()

    # -- going out

    def _pump(self) -> None:
        """Take the next step towards the head of the queue, if one is possible now."""
        if self._state is State.IDLE and self._queue:
            self._write_next()
        if self._state is State.CLOSED and self._queue:
            self._state = advance(self._state, Step.CONNECT)
            loop = asyncio.get_running_loop()
            self._connecting = loop.create_task(self._connect(), name=f"mllp connect {self.address}")

    def _write_next(self) -> None:
        link = self._link
        assert link is not None
        fresh = not link.used
        sight = self._look(link)
        if self._state is not State.IDLE or not self._queue:
            return  # what was read has led on
        if sight is not Sight.QUIET and link.secured:  # what the peer has said, or its reason to close
            asyncio.get_running_loop().call_later(DECRYPT, self._pump)
        elif sight is Sight.GONE or self._mistakable(link) or not link.write(self._block()):
            self._drop(link)
            if fresh:  # it was made for this message: another one would fare no better
                self._refuse_queue(AT_ONCE)
        else:
            self._begin(link, self._queue.popleft())

    def _block(self) -> bytes:
        return encode(self._queue[0].payload, self._framing)

    def _begin(self, link: Link, exchange: Exchange) -> None:
        """A message has been written."""
        link.used = True
        self._current = exchange
        self._first_counts = exchange.final is None and exchange.expects and not self._commits
        if self._commits:
            link.uncommitted.append(exchange)
        self._state = advance(self._state, Step.SENT)
        self._touch()
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(exchange.timeout, self._timed_out, exchange)
        if not exchange.expects and not self._commits:
            loop.call_soon(self._check_written, link, exchange)

    def _look(self, link: Link) -> Sight:
        """Whether the peer is still there, as far as this side's kernel knows. Writing into a socket that the peer
        has closed would turn a message that could safely be sent elsewhere into one that may have been taken."""
        sight = link.look()
        while sight is Sight.UNREAD and not link.secured and self._link is link:
            self.received(link, link.read())
            sight = link.look()
        return sight if self._link is link else Sight.GONE

    def _mistakable(self, link: Link) -> bool:
        """Whether a frame that has begun could be taken for the next message's answer."""
        return link.decoder.inside and self._queue[0].final is None

    def _check_written(self, link: Link, exchange: Exchange) -> None:
        if self._current is not exchange or self._link is not link:
            return
        if link.unsent:
            asyncio.get_running_loop().call_later(RECHECK, self._check_written, link, exchange)
        else:
            self._over(Step.WRITTEN, Written())

    async def _connect(self) -> None:
        try:
            async with asyncio.timeout(self._connect_timeout):
                link = await self._open_link()
        except OSError as error:
            self._failed(why(error))
        else:
            self._connecting = None
            self._state = advance(self._state, Step.CONNECTED)
            self._link = link
            self._touch()
            self._pump()

    async def _open_link(self) -> Link:
        decoder = Decoder(self._max_bytes, self._framing)
        return await Link.open(
            self, self.address, decoder, source=self._source, keepalive=self._keepalive, tls=self._tls
        )

    def _failed(self, reason: str) -> None:
        self._connecting = None
        self._state = advance(self._state, Step.FAILED)
        self._refuse_queue(reason)

    def _refuse_queue(self, reason: str) -> None:
        """Nothing of what is queued can be sent: say so now, to all, rather than after one time-out each."""
        waiting, self._queue = self._queue, deque()
        for exchange in waiting:
            tell(exchange, NotSent(reason))

    # -- coming in (engine.mllp.link.Hearer)

    def received(self, link: Link, data: bytes) -> None:
        events = link.decoder.feed(data)
        if link is not self._link:
            for event in events:
                self._report(event)
        elif (
            self._state is State.WAITING
            and self._first_counts
            and len(events) == 1
            and type(events[0]) is Frame
            and not link.decoder.inside
        ):
            self._over(Step.ANSWERED, Answered(events[0].payload))
        else:
            self._touch()
            self._sort(link, events)

    def _sort(self, link: Link | None, events: list[Event]) -> None:
        """Everything but the usual: find the answer, if one is due; report the rest; close if any of the rest could
        be taken for the answer to the next message. `link`: None where it came elsewhere."""
        exchange = self._current
        due = exchange is not None and exchange.expects
        reply: Reply | None = None
        alarm = too_large = False
        for event in events:
            awaited = due and reply is None
            if isinstance(event, Commit):
                told = self._committed(link, event)
                reply = reply or told
            elif not isinstance(event, Frame):
                self._report(event)
                too_large |= isinstance(event, TooLarge)
                alarm |= too_large or (not awaited and _alarming(event))
            else:
                final, welcome = self._hear(link, event.payload, awaited)
                if final:
                    reply = Answered(event.payload)
                elif not welcome:
                    self._report(event)
                    alarm |= not awaited
        begun = link is not None and link.decoder.inside and not (self._commits and link.decoder.size <= 1)
        alarm |= begun and self._unasked is None and (not due or reply is not None)
        if self._current is not exchange:
            exchange = reply = None  # whoever was told of a frame has ended the exchange, or begun another
        if reply is not None:
            self._state = advance(self._state, Step.ANSWERED)
        dropped = alarm and self._link is not None and link in (None, self._link)
        if dropped:
            self._drop(self._link)
        elif reply is not None and self._link is not None and not self._persistent:
            self._drop(self._link, self._link.leave if self._commits else self._link.close)
        if reply is not None:
            self._settle(reply)
        elif dropped:
            self._settle(Lost("answer too large" if too_large else "something came that nobody asked for"))

    def _committed(self, link: Link | None, commit: Commit) -> Reply | None:
        """What the peer says of a block of ours on the transport level, and what that ends. It takes them in order."""
        exchange = link.uncommitted.popleft() if link is not None and link.uncommitted else None
        if exchange is None or exchange is not self._current:
            return None
        if not commit.stored:
            return NotSent(NOT_COMMITTED)
        return None if exchange.expects else Written()

    def _hear(self, link: Link | None, payload: bytes, awaited: bool) -> tuple[bool, bool]:
        """Whether a frame is the answer, and whether else somebody wants it. What costs the connection is not said to
        be stored."""
        if link is not None and self._commits:
            self._say = partial(link.commits.became, link.commits.came())
        final = awaited and self._is_final(payload)
        welcome = not final and self._unasked is not None and self._unasked(payload)
        if awaited or welcome:
            self._say(True)
        self._say = _nothing
        return final, welcome

    def _is_final(self, payload: bytes) -> bool:
        return self._current is not None and (self._current.final is None or self._current.final(payload))

    def _report(self, event: Event) -> None:
        """Bytes that are no answer, to whoever keeps them."""
        if isinstance(event, Frame):
            self._tell_stray(event.payload)
        elif isinstance(event, Noise):
            self._tell_stray(event.data)
        elif not isinstance(event, Commit):
            self._tell_stray(event.head)

    def _tell_stray(self, data: bytes) -> None:
        if self._stray is not None:
            self._stray(data)

    def _timed_out(self, exchange: Exchange) -> None:
        if self._current is exchange:
            self._drop(self._link)
            silent = exchange.expects or self._commits
            self._settle(Lost(TIMED_OUT if silent else "could not be written in time"))

    def gone(self, link: Link, exc: Exception | None) -> None:
        self._leaving.discard(link)
        if link is not self._link:
            return
        state, inside = self._state, link.decoder.inside
        if self._elsewhere and exc is None and state is State.WAITING and not inside:
            self._state = advance(state, Step.PARTED)
            self._release(link)
            return
        self._drop(link)
        refused = why_not(exc) if refused_us(exc) and not link.heard else None
        if not link.used:
            self._refuse_queue(refused or AT_ONCE)
        elif refused is not None:
            # Over TLS 1.3 we may write before the peer has judged our certificate. It has read nothing of the message.
            self._settle(NotSent(refused))
        elif inside:
            self._settle(Lost("connection closed in mid-answer"))
        else:
            self._settle(Lost("connection reset" if exc is not None else "connection closed before the answer"))

    # -- both

    def _over(self, step: Step, reply: Reply) -> None:
        """The outstanding message has its end, and the connection is in order."""
        self._state = advance(self._state, step)
        if self._link is not None and not self._persistent:
            self._drop(self._link, self._link.leave if step is Step.WRITTEN else self._link.close)
        else:
            self._touch()
        self._settle(reply)

    def _settle(self, reply: Reply) -> None:
        """Tell the outstanding message's owner, and go on."""
        exchange, self._current = self._current, None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if exchange is not None:
            tell(exchange, reply)
        self._pump()

    def _drop(self, link: Link | None, end: Callable[[], None] | None = None) -> None:
        self._state = advance(self._state, Step.DROPPED)
        if link is not None:
            self._release(link, end)

    def _release(self, link: Link, end: Callable[[], None] | None = None) -> None:
        """No use any more for this link, which ends at once unless by `end`."""
        self._link = None
        if link.decoder.inside and not link.decoder.stopped:
            self._tell_stray(link.decoder.pending)
        if not link.gone.is_set():
            self._leaving.add(link)
            (end or link.abort)()

    def _touch(self) -> None:
        """The connection is in use."""
        if self._idle is not None:
            loop = asyncio.get_running_loop()
            self._last = loop.time()
            if self._resting is None:
                self._resting = loop.call_later(self._idle, self._check_idle, self._idle)

    def _check_idle(self, idle: float) -> None:
        self._resting = None
        link = self._link
        if link is None:
            return
        loop = asyncio.get_running_loop()
        busy = self._state is not State.IDLE or link.decoder.inside
        left = idle if busy else self._last + idle - loop.time()
        if busy or left > 0:
            self._resting = loop.call_later(max(left, RECHECK), self._check_idle, idle)
        else:
            self._drop(link, link.close)


def _nothing(stored: bool) -> None:
    """There is nobody to hear it."""


def _alarming(event: Event) -> bool:
    """Whether bytes that nobody asked for may be an answer, rather than filler."""
    return not isinstance(event, Noise) or bool(event.data.strip(FILLER))

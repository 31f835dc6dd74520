"""MLLP towards one endpoint: a persistent connection, messages in their order, one outstanding at a time.

`send` takes a message and a callback; the callback gets exactly one `Reply`. What matters to the caller is the
difference between `NotSent` (no byte was written: trying again cannot double anything) and `Lost` (bytes were written
and no complete answer came: the peer may have taken the message).

An answer can be told from another message's answer only by its MSA-2, which is the caller's check; here it is made as
sure as a socket allows that none is taken for the next message's: after `Lost` the socket is closed, and so it is when
something arrives that nobody asked for. Such bytes, and noise around answers, go to `stray`.

After `Lost`, what is queued goes out on a new connection. Order across a loss is the caller's: queue only what may go.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum, auto
from functools import partial
from typing import NamedTuple, TypeAlias, cast

from engine.config.address import Address
from engine.mllp.framing import MAX_BYTES, Decoder, Event, Frame, Noise, TooLarge, encode
from engine.mllp.sockets import tune

FILLER = b"\x00\r\n\t "
"""Bytes that some peers put after each answer. With nothing outstanding, they alone do not cost the connection."""


@dataclass(frozen=True, slots=True)
class Answered:
    """The peer answered with a whole block."""

    payload: bytes


@dataclass(frozen=True, slots=True)
class NotSent:
    """No byte of the message was written. `reason` is short and stable: `connection refused`."""

    reason: str


@dataclass(frozen=True, slots=True)
class Lost:
    """The message was written, at least in part, and no complete answer came. The socket is closed."""

    reason: str


Reply: TypeAlias = Answered | NotSent | Lost


class State(IntEnum):
    """What is known of the connection."""

    CLOSED = auto()  # there is none
    CONNECTING = auto()  # one is being made; nothing has been written
    IDLE = auto()  # there is one, and no answer is due
    WAITING = auto()  # a message is written, its answer is due
    ENDED = auto()  # `aclose` was called


class Step(IntEnum):
    """What may happen to it."""

    CONNECT = auto()
    CONNECTED = auto()
    FAILED = auto()
    SENT = auto()
    ANSWERED = auto()
    DROPPED = auto()
    END = auto()


MOVES: dict[tuple[State, Step], State] = {
    (State.CLOSED, Step.CONNECT): State.CONNECTING,
    (State.CONNECTING, Step.CONNECTED): State.IDLE,
    (State.CONNECTING, Step.FAILED): State.CLOSED,
    (State.IDLE, Step.SENT): State.WAITING,
    (State.IDLE, Step.DROPPED): State.CLOSED,
    (State.WAITING, Step.ANSWERED): State.IDLE,
    (State.WAITING, Step.DROPPED): State.CLOSED,
    **{(state, Step.END): State.ENDED for state in State},
}


def advance(state: State, step: Step) -> State:
    """The state after `step`. RuntimeError where the two do not go together."""
    after = MOVES.get((state, step))
    if after is None:
        allowed = ", ".join(s.name for (at, s) in MOVES if at is state)
        raise RuntimeError(f"MLLP client: {step.name} is not possible in state {state.name}; possible: {allowed}")
    return after


class _Exchange(NamedTuple):
    payload: bytes
    timeout: float
    done: Callable[[Reply], None]


class _Link(asyncio.Protocol):
    """One socket of the client, from its first byte to its last."""

    __slots__ = ("client", "decoder", "gone", "sock", "transport", "used")

    def __init__(self, client: Client, sock: socket.socket, max_bytes: int) -> None:
        self.client = client
        self.sock = sock
        self.decoder = Decoder(max_bytes)
        self.gone = asyncio.Event()
        self.used = False
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self.client._received(self, data)

    def connection_lost(self, exc: Exception | None) -> None:
        self.gone.set()
        self.client._gone(self, exc)

    def abort(self) -> None:
        if self.transport is not None:
            self.transport.abort()

    def unread(self) -> bytes | None:
        """What the peer sent and nobody has read yet: None if nothing, `b""` if it has closed."""
        try:
            self.sock.recv(1, socket.MSG_PEEK)
            return self.sock.recv(65536)
        except BlockingIOError:
            return None
        except OSError:
            return b""

    def write(self, data: bytes) -> bool:
        if self.transport is None or self.transport.is_closing():
            return False
        try:
            self.transport.write(data)
        except (RuntimeError, OSError):
            return False
        return True


class Client:
    """One persistent connection to `address`, made when there is something to send."""

    def __init__(
        self,
        address: Address,
        *,
        connect_timeout: float = 10.0,
        max_bytes: int = MAX_BYTES,
        stray: Callable[[bytes], None] | None = None,
    ) -> None:
        """`connect_timeout` in seconds; `max_bytes` limits an answer; `stray` gets what belongs to no answer."""
        self.address = address
        self._connect_timeout = connect_timeout
        self._max_bytes = max_bytes
        self._stray = stray
        self._state = State.CLOSED
        self._queue: deque[_Exchange] = deque()
        self._current: _Exchange | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._link: _Link | None = None
        self._leaving: set[_Link] = set()
        self._connecting: asyncio.Task[None] | None = None

    @property
    def state(self) -> State:
        return self._state

    @property
    def queued(self) -> int:
        """Messages that wait for their turn, the outstanding one not counted."""
        return len(self._queue)

    def send(self, payload: bytes, timeout: float, done: Callable[[Reply], None]) -> None:
        """Send a message when its turn comes. `timeout`: seconds from writing it to the end of its answer. `done` is
        called once, from the event loop, never from within this call."""
        exchange = _Exchange(payload, timeout, done)
        if self._state is State.ENDED:
            asyncio.get_running_loop().call_soon(_tell, exchange, NotSent("client closed"))
            return
        self._queue.append(exchange)
        if self._state is State.CLOSED or self._state is State.IDLE:
            self._pump()

    def hang_up(self) -> None:
        """Close the socket, since what comes on it can no longer be trusted: an answer that names another message.
        To be called from `done`, before anything else is sent. An outstanding message is `Lost`."""
        if self._link is not None:
            self._drop(self._link)
            self._settle(Lost("hung up"))

    async def aclose(self) -> None:
        """Close the connection. The outstanding message is `Lost`, the queued ones are `NotSent`. Returns when no
        task and no socket is left."""
        if self._link is not None:
            self._release(self._link)
        self._state = advance(self._state, Step.END)
        if self._connecting is not None:
            self._connecting.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._connecting
        for link in tuple(self._leaving):
            await link.gone.wait()
        self._settle(Lost("client closed"))
        self._refuse_queue("client closed")

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
        exchange = self._queue[0]
        if not self._open(link) or not link.write(encode(exchange.payload)):
            if self._link is link:
                self._drop(link)
            if not link.used:  # it was made for this message: another one would fare no better
                self._refuse_queue("connection closed at once")
            return
        self._queue.popleft()
        link.used = True
        self._current = exchange
        self._state = advance(self._state, Step.SENT)
        self._timer = asyncio.get_running_loop().call_later(exchange.timeout, self._timed_out, link)

    def _open(self, link: _Link) -> bool:
        """Whether the peer is still there, as far as this side's kernel knows. Writing into a socket that the peer
        has closed would turn a message that could safely be sent elsewhere into one that may have been taken."""
        unread = link.unread()
        while unread and self._link is link:
            self._received(link, unread)
            unread = link.unread()
        return unread is None and self._link is link

    async def _connect(self) -> None:
        try:
            async with asyncio.timeout(self._connect_timeout):
                link = await self._open_link()
        except TimeoutError:
            self._failed("connect timed out")
        except OSError as error:
            self._failed(_reason(error))
        else:
            self._connecting = None
            self._state = advance(self._state, Step.CONNECTED)
            self._link = link
            self._pump()

    async def _open_link(self) -> _Link:
        loop = asyncio.get_running_loop()
        places = await loop.getaddrinfo(self.address.host, self.address.port, type=socket.SOCK_STREAM)
        failure = OSError(errno.EADDRNOTAVAIL, "no address")
        for family, kind, protocol, _, place in places:
            sock = socket.socket(family, kind, protocol)
            try:
                sock.setblocking(False)
                tune(sock)
                await loop.sock_connect(sock, place)
                _, link = await loop.create_connection(partial(_Link, self, sock, self._max_bytes), sock=sock)
            except OSError as error:
                sock.close()
                failure = error
            except BaseException:
                sock.close()
                raise
            else:
                return link
        raise failure

    def _failed(self, reason: str) -> None:
        self._connecting = None
        self._state = advance(self._state, Step.FAILED)
        self._refuse_queue(reason)

    def _refuse_queue(self, reason: str) -> None:
        """Nothing of what is queued can be sent: say so now, to all, rather than after one time-out each."""
        waiting, self._queue = self._queue, deque()
        for exchange in waiting:
            _tell(exchange, NotSent(reason))

    # -- coming in

    def _received(self, link: _Link, data: bytes) -> None:
        events = link.decoder.feed(data)
        if link is not self._link:
            for event in events:
                self._report(event)
        elif self._state is State.WAITING and len(events) == 1 and type(events[0]) is Frame and not link.decoder.inside:
            self._state = advance(self._state, Step.ANSWERED)
            self._settle(Answered(events[0].payload))
        else:
            self._sort(link, events)

    def _sort(self, link: _Link, events: list[Event]) -> None:
        """Everything but the usual: find the answer, if one is due; report the rest; close if any of the rest could
        be taken for the answer to the next message."""
        due = self._state is State.WAITING
        answer: Frame | None = None
        alarm = False
        for event in events:
            unasked = not due or answer is not None
            if isinstance(event, Frame) and not unasked:
                answer = event
            else:
                self._report(event)
                alarm |= isinstance(event, TooLarge) or (unasked and _alarming(event))
        alarm |= link.decoder.inside and (not due or answer is not None)
        if answer is not None:
            self._state = advance(self._state, Step.ANSWERED)
        if alarm:
            self._drop(link)
        if answer is not None:
            self._settle(Answered(answer.payload))
        elif due and alarm:
            self._settle(Lost("answer too large"))

    def _report(self, event: Event) -> None:
        """Bytes that are no answer, to whoever keeps them."""
        if isinstance(event, Frame):
            self._tell_stray(event.payload)
        elif isinstance(event, Noise):
            self._tell_stray(event.data)
        else:
            self._tell_stray(event.head)

    def _tell_stray(self, data: bytes) -> None:
        if self._stray is not None:
            self._stray(data)

    def _timed_out(self, link: _Link) -> None:
        if link is self._link and self._state is State.WAITING:
            self._drop(link)
            self._settle(Lost("answer timed out"))

    def _gone(self, link: _Link, exc: Exception | None) -> None:
        self._leaving.discard(link)
        if link is not self._link:
            return
        reason = "connection reset" if exc is not None else "connection closed before the answer"
        if link.decoder.inside:
            reason = "connection closed in mid-answer"
        self._drop(link)
        self._settle(Lost(reason))

    # -- both

    def _settle(self, reply: Reply) -> None:
        """Tell the outstanding message's owner, and go on."""
        exchange, self._current = self._current, None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if exchange is not None:
            _tell(exchange, reply)
        self._pump()

    def _drop(self, link: _Link) -> None:
        self._state = advance(self._state, Step.DROPPED)
        self._release(link)

    def _release(self, link: _Link) -> None:
        self._link = None
        if link.decoder.inside and not link.decoder.stopped:
            self._tell_stray(link.decoder.pending)
        if not link.gone.is_set():
            self._leaving.add(link)
            link.abort()


def _tell(exchange: _Exchange, reply: Reply) -> None:
    """Call back. What goes wrong there is the owner's, and must not stop the exchange after it."""
    try:
        exchange.done(reply)
    except Exception as error:
        loop = asyncio.get_running_loop()
        loop.call_exception_handler({"message": "an MLLP reply's callback failed", "exception": error})


def _alarming(event: Event) -> bool:
    """Whether bytes that nobody asked for may be an answer, rather than filler."""
    return not isinstance(event, Noise) or bool(event.data.strip(FILLER))


def _reason(error: OSError) -> str:
    """A short, stable name for why there is no connection."""
    if isinstance(error, ConnectionRefusedError):
        return "connection refused"
    if isinstance(error, socket.gaierror):
        return "host name not resolved"
    if error.errno == errno.ETIMEDOUT:
        return "connect timed out"
    return f"connect failed ({errno.errorcode.get(error.errno or 0, 'unknown')})"

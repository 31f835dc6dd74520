"""A line back: our messages go to a peer on the connection that it made to us (two-way sockets).

It does what `engine.mllp.client.Client` does, one message at a time, but it cannot connect: while no peer is there,
nothing is sent. Of several connections the newest is used.

It remembers what it has sent: a peer may answer twice, first that it has the message, and later what became of it.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable
from functools import partial

from engine.mllp.connection import Connection
from engine.mllp.replies import NOT_COMMITTED, Answered, Lost, NotSent, Reply, Written

Final = Callable[[bytes], bool]

HEAD = 16 * 1024
"""Bytes of a frame in which it says that it is an answer, and to what: nobody reads megabytes for that."""

MOST_REMEMBERED = 1024
"""Messages whose answers are known as such after the exchange."""


class Back:
    """One line over a listener's connections."""

    def __init__(
        self,
        connections: Callable[[], Iterable[Connection]],
        names: Callable[[bytes], str],
        answers: Callable[[bytes], tuple[str, str] | None],
    ) -> None:
        """`names`: the control id of a message of ours. `answers`: the code of a frame and the control id that it
        answers; None where it is a message of the peer's own."""
        self._connections = connections
        self.came: Callable[[], None] = lambda: None  # hears of each sender that connects
        self.later: Callable[[bytes], bool] = lambda payload: False
        """Hears an answer that nobody waits for; True where it is taken care of."""
        self._names = names
        self._answers = answers
        self._sent: OrderedDict[str, bool] = OrderedDict()  # control id → whether the application's answer may follow
        self._queue: deque[tuple[bytes, float, Callable[[Reply], None], Final | None, bool]] = deque()
        self._name = ""  # of what was sent last
        self._conn: Connection | None = None  # on which an answer is due
        self._last: Connection | None = None  # on which one was due last
        self._done: Callable[[Reply], None] | None = None
        self._final: Final | None = None
        self._expects = True
        self._timer: asyncio.TimerHandle | None = None

    def send(
        self,
        payload: bytes,
        timeout: float,
        done: Callable[[Reply], None],
        *,
        final: Final | None = None,
        expects: bool = True,
    ) -> None:
        self._queue.append((payload, timeout, done, final, expects))
        asyncio.get_running_loop().call_soon(self._pump)

    def transmit(self, payload: bytes) -> bool:
        conn = self._newest()
        return conn is not None and conn.transmit(payload)

    def hang_up(self) -> None:
        conn = self._conn or self._last
        if conn is not None:
            conn.close()

    async def aclose(self) -> None:
        waiting, self._queue = self._queue, deque()
        for _, _, done, _, _ in waiting:
            done(NotSent("closed"))
        self._settle(Lost("closed"))

    def sent_before(self, names: Iterable[str]) -> None:
        """MSH-10 of what an earlier process may have sent, newest first."""
        for name in reversed(list(names)):
            self._remember(name)

    # -- from the port

    def offer(self, conn: Connection, payload: bytes) -> bool:
        """A frame came on one of the connections. Whether it is what the outstanding message waits for, or belongs to
        it: it is no message of the peer's own then."""
        if self._conn is None and not self._sent:
            return False
        answer = self._answers(payload[:HEAD])
        if answer is None:
            return False
        if conn is not self._conn or not self._expects or (answer[1] != self._name and self._sent.get(answer[1])):
            return self.later(payload)
        if self._final is None or self._final(payload):
            if self._name in self._sent:
                self._sent[self._name] = answer[0].startswith("C")
            self._settle(Answered(payload))
        return True

    def has_sent(self, control_id: str) -> bool:
        """Whether a message of ours that went to one of the peers not long ago has this MSH-10."""
        return control_id in self._sent

    def gone(self, conn: Connection) -> None:
        if conn is self._conn:
            self._settle(Lost("connection closed before the answer"))

    # -- inside

    def _newest(self) -> Connection | None:
        return max(
            (conn for conn in self._connections() if not conn.leaving), key=lambda conn: conn.number, default=None
        )

    def _pump(self) -> None:
        while self._done is None and self._queue:
            payload, timeout, done, final, expects = self._queue.popleft()
            conn = self._newest()
            if conn is None or not conn.transmit(payload, partial(self._committed, done)):
                done(NotSent("no sender is connected"))
                continue
            self._name = self._names(payload)
            self._remember(self._name)
            if not expects and not conn.commits:
                done(Written())
            else:
                self._conn, self._done, self._final, self._expects = conn, done, final, expects
                self._timer = asyncio.get_running_loop().call_later(timeout, self._timed_out)

    def _remember(self, name: str) -> None:
        self._sent.pop(name, None)
        if name:
            self._sent[name] = True
        if len(self._sent) > MOST_REMEMBERED:
            self._sent.popitem(last=False)

    def _committed(self, done: Callable[[Reply], None], stored: bool) -> None:
        """The peer has said on the transport level what became of a message."""
        if done is not self._done:
            return
        if not stored:
            self._settle(NotSent(NOT_COMMITTED))
        elif not self._expects:
            self._settle(Written())

    def _timed_out(self) -> None:
        if self._conn is not None:
            self._conn.close()  # a late answer must not be taken for the next message's
        self._settle(Lost("answer timed out"))

    def _settle(self, reply: Reply) -> None:
        done, self._done, self._final = self._done, None, None
        self._last, self._conn = self._conn, None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if done is not None:
            done(reply)
        self._pump()

"""Where a sender hears our answers, if it does so on connections of its own that it makes to us (`ack.listen`).

An answer goes to the host that its message came from, on the newest connection which that host has here: on another
host's it could be taken for the answer to a message of theirs. While the host has none its answers wait, in their
order, as long as one to an address of its own (`ack.to`) may wait for a connection; then they are given up and told:
the sender will repeat its message. What comes in here is no message: it is never acknowledged.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from functools import partial

from engine.config.edge import Listen
from engine.mllp.connection import Connection
from engine.mllp.replies import NOT_COMMITTED, Lost, NotSent, Reply, Written
from engine.mllp.server import Listener
from engine.mllp.tls import ServerTls

WAIT = 10.0  # seconds for which an answer waits until its host connects
MOST_WAITING = 1024  # answers of one host
LEFT = "connection closed before the answer was acknowledged"
NOBODY, TOO_MANY, CLOSED = "its sender has no connection there", "too many answers wait for its sender", "closed"

Told = Callable[[Reply], None]
Heard = Callable[[Connection, bytes, int], None]
"""What somebody sent here, or its beginning, and its size in bytes."""


class _Waiting:
    """An answer without a connection."""

    __slots__ = ("answer", "timer", "told")

    def __init__(self, answer: bytes, told: Told) -> None:
        self.answer = answer
        self.told = told
        self.timer: asyncio.TimerHandle | None = None


class AckPort:
    """One port, of a channel's or a feed's senders. It may be closed and opened again."""

    def __init__(self, listen: Listen, tls: ServerTls | None = None) -> None:
        self.address = listen.address
        self.heard: Heard = lambda conn, data, size: None
        self.refused: Callable[[str, str], None] = lambda peer, why: None  # who was turned away, and why
        self.number: Callable[[], int] = lambda: 0  # gives each connection a number that is never used again
        self._listener = Listener(
            listen.address, lambda: self, framing=listen.framing, allow=listen.allow, tls=tls, quiet=0.0
        )
        self._waiting: dict[str, deque[_Waiting]] = {}  # by host
        self._uncommitted: dict[Connection, deque[Told]] = {}  # written, and the peer has not said yet that it has it
        self._open = False

    async def start(self) -> None:
        """Listen, unless it does already. OSError where the port cannot be had."""
        if not self._open:
            await self._listener.start()
            self._open = True

    async def close(self) -> None:
        """What waits is given up; what was written goes out."""
        self._open = False
        for host in list(self._waiting):
            for each in self._waiting.pop(host):
                self._give_up(each, CLOSED)
        await self._listener.close()

    def send(self, conn: Connection, answer: bytes, told: Told) -> None:
        """The answer to something that came on a connection of the sender's. `told` hears what became of it, once."""
        host = conn.host
        if not self._open:
            told(NotSent(CLOSED))
            return
        if host not in self._waiting and self._write(host, answer, told):
            return
        waiting = self._waiting.setdefault(host, deque())
        if len(waiting) >= MOST_WAITING:
            self._give_up(waiting.popleft(), TOO_MANY)
        each = _Waiting(answer, told)
        each.timer = asyncio.get_running_loop().call_later(WAIT, self._late, host, each)
        waiting.append(each)

    # -- from the sockets (engine.mllp.handler.Handler)

    def connected(self, conn: Connection) -> None:
        conn.number = self.number()
        host = conn.host
        for each in self._waiting.pop(host, ()):
            self._drop_timer(each)
            self.send(conn, each.answer, each.told)

    def closed(self, conn: Connection) -> None:
        """Its host's answers wait for the next one; whether it has stored what was written, nobody can say."""
        for told in self._uncommitted.pop(conn, ()):
            told(Lost(LEFT))

    def probed(self, peer: str) -> None:
        """Somebody looked whether the port is open."""

    def frame(self, conn: Connection, payload: bytes) -> None:
        conn.commit(None)
        conn.waive()
        self.heard(conn, payload, len(payload))

    def noise(self, conn: Connection, data: bytes) -> None:
        self.heard(conn, data, len(data))

    def too_large(self, conn: Connection, head: bytes, size: int) -> None:
        self.heard(conn, head, size)

    def unfinished(self, conn: Connection, head: bytes, why: str) -> None:
        self.heard(conn, head, len(head))

    # -- inside

    def _write(self, host: str, answer: bytes, told: Told) -> bool:
        """On the newest connection of a host that takes it; False where there is none."""
        here = [each for each in self._listener.connections if each.host == host and not each.leaving]
        for conn in sorted(here, key=lambda each: each.number, reverse=True):
            if conn.commits is not None:
                if conn.transmit(answer, partial(self._committed, conn, told)):
                    self._uncommitted.setdefault(conn, deque()).append(told)
                    return True
            elif conn.transmit(answer):
                told(Written())
                return True
        return False

    def _committed(self, conn: Connection, told: Told, stored: bool) -> None:
        self._uncommitted[conn].remove(told)
        told(Written() if stored else NotSent(NOT_COMMITTED))

    def _late(self, host: str, each: _Waiting) -> None:
        waiting = self._waiting[host]
        waiting.remove(each)
        if not waiting:
            del self._waiting[host]
        self._give_up(each, NOBODY)

    def _give_up(self, each: _Waiting, why: str) -> None:
        self._drop_timer(each)
        each.told(NotSent(why))

    def _drop_timer(self, each: _Waiting) -> None:
        if each.timer is not None:
            each.timer.cancel()
            each.timer = None

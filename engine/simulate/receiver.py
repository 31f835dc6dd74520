"""A real endpoint: the laboratory's or a clinic's own listener. It acknowledges, and knows for ever what reached it,
how often, and from which side.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

from engine.hl7.ack import acknowledge
from engine.hl7.peek import peek
from engine.mllp.framing import encode
from engine.simulate.forwarding import MARK
from engine.simulate.journal import Journal
from engine.simulate.orders import origin
from engine.simulate.wire import Listener, Socket

Side: TypeAlias = Literal["legacy", "target"]
"""Who sent it: the old engine, or Interlock on its own account."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """One message that came.

    origin: the control id that its first sender gave it; the same from both sides. Empty where it can't be told.
    control_id: MSH-10 as it came. at: seconds since 1970. socket: the connection, numbered from 1.
    """

    endpoint: str
    origin: str
    control_id: str
    side: Side
    at: float
    socket: int


def side_of(control_id: str) -> Side:
    return "legacy" if control_id.startswith(MARK) else "target"


class Receiver:
    """One endpoint. `taken` is called with each arrival and its bytes, before it is acknowledged."""

    def __init__(
        self,
        name: str,
        port: int = 0,
        *,
        taken: Callable[[Arrival, bytes], None] = lambda arrival, payload: None,
        journal: Journal | None = None,
        delay: float = 0.0,
    ) -> None:
        """`delay`: seconds from a message to its acknowledgement. `journal`: open, shared with other receivers."""
        self.name = name
        self.arrivals: list[Arrival] = []
        self.delay = delay
        self._taken = taken
        self._journal = journal or Journal(None)
        self._listener = Listener(self._take, port)
        self._unanswered: list[tuple[Socket, bytes]] | None = None

    @property
    def port(self) -> int:
        return self._listener.ports[0]

    async def start(self) -> None:
        """Listen. OSError where the port is taken."""
        await self._listener.start()

    async def stop(self) -> None:
        """Close everything. What arrived stays readable."""
        await self._listener.stop()

    async def fail_for(self, seconds: float) -> None:
        """Be gone, every socket dropped; then listen again on the same port."""
        await self.stop()
        await asyncio.sleep(seconds)
        await self.start()

    def pause(self) -> None:
        """Take messages, answer none of them until `resume`."""
        if self._unanswered is None:
            self._unanswered = []

    def resume(self) -> None:
        """Answer what waits, and answer again."""
        waiting, self._unanswered = self._unanswered or [], None
        for socket, answer in waiting:
            socket.write(answer)

    def sides(self, origin: str) -> Counter[Side]:
        """How often a message came from each side."""
        return Counter(arrival.side for arrival in self.arrivals if arrival.origin == origin)

    def _take(self, socket: Socket, payload: bytes) -> None:
        head = peek(payload)
        control_id = head.control_id or ""
        now = time.time()
        arrival = Arrival(self.name, origin(payload), control_id, side_of(control_id), now, socket.number)
        self.arrivals.append(arrival)
        self._journal.write(arrival)
        self._taken(arrival, payload)
        number = f"{self.name[:8]}{len(self.arrivals)}"
        self._answer(socket, encode(acknowledge(head, "AA", control_id=number, at=now)))

    def _answer(self, socket: Socket, answer: bytes) -> None:
        if self._unanswered is not None:
            self._unanswered.append((socket, answer))
        elif self.delay:
            asyncio.get_running_loop().call_later(self.delay, socket.write, answer)
        else:
            socket.write(answer)

"""What one partner has to send on one channel: first in, first out, one at a time, each until it is acknowledged.

How the partner fares is measured here, since nobody else can say it: how long each acknowledgement took, from the
message's first sending; what was negative; what was never answered; how often the connection was dropped.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from engine.config.address import Address
from engine.hl7.ack import parse_ack
from engine.simulate.journal import Journal
from engine.simulate.wire import Line

LONGEST = 5
"""How many times the first pause the longest one is."""


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """One message that the engine has taken. at: seconds since 1970; seconds: from its first sending."""

    channel: str
    control_id: str
    at: float
    code: str
    tries: int
    seconds: float


class Outbox:
    """The sender of one channel."""

    def __init__(
        self,
        channel: str,
        address: Address,
        *,
        timeout: float = 30.0,
        pause: float = 0.2,
        journal: Journal | None = None,
        taken: Callable[[Acknowledged], None] = lambda one: None,
        moved: Callable[[], None] = lambda: None,
    ) -> None:
        """`timeout`: seconds for an answer; `pause`: seconds before the second try after anything but a positive one.
        `journal`: open, shared. `taken` is called with what is acknowledged, `moved` when a message is done with."""
        self.channel = channel
        self.acknowledged: list[Acknowledged] = []
        self.refused: list[str] = []
        """Control ids that were rejected for good (AR, CR)."""
        self.negative = 0
        self.unanswered = 0
        self._put = asyncio.Event()
        self._line = Line(address, timeout, lost=self._put.set)
        self._pause = pause
        self._journal = journal or Journal(None)
        self._taken = taken
        self._moved = moved
        self._waiting: deque[tuple[str, bytes]] = deque()
        self._begun: float | None = None
        self._worker: asyncio.Task[None] | None = None

    @property
    def waiting(self) -> int:
        """Messages that are not acknowledged yet, the one on its way included."""
        return len(self._waiting)

    @property
    def sent(self) -> int:
        """Sendings, repeats included."""
        return self._line.sent

    @property
    def drops(self) -> int:
        """How often the other side ended the connection."""
        return self._line.drops

    @property
    def connected(self) -> bool:
        return self._line.connected

    def slowest(self, since: float = 0.0) -> float:
        """The longest time, in seconds, that an acknowledgement given after `since` took, or the one awaited has."""
        awaited = time.monotonic() - self._begun if self._begun is not None else 0.0
        return max(awaited, max((one.seconds for one in self.acknowledged if one.at >= since), default=0.0))

    def put(self, control_id: str, payload: bytes) -> None:
        """To be sent when its turn comes."""
        self._waiting.append((control_id, payload))
        self._put.set()

    async def start(self) -> None:
        """Connect, and send what there is."""
        self._worker = asyncio.create_task(self._work(), name=f"vendor of {self.channel}")

    async def stop(self) -> None:
        """Hang up, whatever is on its way."""
        if self._worker is not None:
            self._worker.cancel()
            await asyncio.gather(self._worker, return_exceptions=True)
        self._line.close()

    async def _work(self) -> None:
        while True:
            await self._insist(*await self._next())
            self._waiting.popleft()
            self._moved()

    async def _next(self) -> tuple[str, bytes]:
        """The oldest message; until there is one, keep the connection up, as an idle partner does."""
        tries = 0
        while not self._waiting:
            self._put.clear()
            tries += 1
            if await self._line.open():
                await self._put.wait()
                tries = 0
            else:
                await self._wait(tries)
        return self._waiting[0]

    async def _insist(self, control_id: str, payload: bytes) -> None:
        self._begun = time.monotonic()
        tries = 0
        while True:
            tries += 1
            code = await self._exchange(control_id, payload)
            if code in ("AA", "CA"):
                self._write_down(control_id, code, tries, time.monotonic() - self._begun)
                break
            if code in ("AR", "CR"):
                self.negative += 1
                self.refused.append(control_id)
                break
            await self._wait(tries)
        self._begun = None

    async def _wait(self, tries: int) -> None:
        """Before another try; longer each time, since hundreds of partners may be waiting for one engine."""
        await asyncio.sleep(self._pause * min(tries, LONGEST))

    async def _exchange(self, control_id: str, payload: bytes) -> str:
        """The code of the answer; empty where there is none."""
        got = await self._line.exchange(payload)
        answer = parse_ack(got) if got is not None else None
        if answer is None or answer.control_id != control_id:
            self.unanswered += 1
            self._line.close()  # what comes late must not be taken for the next answer
            return ""
        self.negative += answer.code in ("AE", "CE")
        return answer.code

    def _write_down(self, control_id: str, code: str, tries: int, seconds: float) -> None:
        one = Acknowledged(self.channel, control_id, time.time(), code, tries, seconds)
        self.acknowledged.append(one)
        self._journal.write(one)
        self._taken(one)

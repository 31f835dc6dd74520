"""To Medplum: a message is mapped to FHIR, and delivered by the destination's strategy.

All courses to one Medplum project share what carries their messages, its breaker and a bound on how many are on the
way at once. While the breaker is open nothing is begun but the one message that asks whether the project is back.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Callable
from functools import partial

from engine.config.endpoint import Dead
from engine.delivery import lane
from engine.delivery.attempt import Attempt, Carrier
from engine.delivery.breaker import Breaker, Position
from engine.delivery.decision import Manner
from engine.delivery.outputs import Outputs
from engine.delivery.work import Work
from engine.ledger.outcome import Outcome
from engine.ledger.sqlite.incarnations import Incarnations
from engine.observe.delivery_events import POINTS
from engine.observe.events import emit
from engine.observe.service_events import Fault

REACHED_FOR = 20.0  # seconds that an answer to "is it there" counts: it costs quota, and 250 channels ask
WINDOW = 16  # messages of one course that may be claimed at once


class Project:
    """One Medplum project: what its courses share."""

    def __init__(self, name: str, carrier: Carrier, *, settle_time: float, at_once: int) -> None:
        """`settle_time`: seconds after which a request without an answer is over, one way or the other. `at_once`: how
        many messages each process that carries them is given at most."""
        self.settle_time = settle_time
        self.breaker = Breaker(name)
        self.breaker.listeners.append(lambda opened: carrier.recall() if opened else self._begin())
        self._carrier = carrier
        self._at_once = at_once
        self._waiting: dict[int, deque[tuple[Attempt, Callable[[Outcome], None]]]] = {}  # by the carrier's slot
        self._running: Counter[int] = Counter()
        self._reached: tuple[float, asyncio.Task[tuple[bool, str]]] | None = None

    async def reach(self) -> tuple[bool, str]:
        """Whether the project answers and lets us in; and why not."""
        if self.breaker.open:
            return False, self.breaker.reason
        now = asyncio.get_running_loop().time()
        if self._reached is None or now - self._reached[0] > REACHED_FOR:
            asking = asyncio.get_running_loop().create_task(self._carrier.reach(), name="is medplum there")
            self._reached = (now, asking)
        return await asyncio.shield(self._reached[1])

    def submit(self, attempt: Attempt, done: Callable[[Outcome], None]) -> None:
        """Try once, when it is its turn. `done` hears the outcome."""
        slot = self._carrier.slot(attempt)
        if self.breaker.position is Position.PROBING and not self._running.total():
            self._start(slot, attempt, done)
        else:
            self._waiting.setdefault(slot, deque()).append((attempt, done))
            self._begin_at(slot)

    def _begin(self) -> None:
        for slot in self._waiting:
            self._begin_at(slot)

    def _begin_at(self, slot: int) -> None:
        waiting = self._waiting.get(slot)
        while waiting and self._running[slot] < self._at_once and not self.breaker.open:
            self._start(slot, *waiting.popleft())

    def _start(self, slot: int, attempt: Attempt, done: Callable[[Outcome], None]) -> None:
        self._running[slot] += 1
        self._carrier.carry(attempt, partial(self._ended, slot, done), slot)

    def _ended(self, slot: int, done: Callable[[Outcome], None], outcome: Outcome) -> None:
        self._running[slot] -= 1
        try:
            done(outcome)
        except Exception as error:  # one message's defect must not keep the others from theirs
            emit(Fault.of(error))
        self._begin_at(slot)

    async def close(self) -> None:
        self.breaker.stop()
        self._waiting.clear()
        await self._carrier.close()


class MedplumDestination:
    """One course to a project."""

    def __init__(
        self, name: str, project: Project, incarnations: Incarnations, outputs: Outputs, *, order_by: str,
        dead: Dead = "waits",
    ) -> None:  # fmt: skip
        """`outputs`: by which mapping they are made, and what its filter holds back."""
        self.breaker = project.breaker
        self.manner = Manner(dead, settle_time=project.settle_time)
        self._name = name
        self._project = project
        self._incarnations = incarnations
        self._outputs = outputs
        self._lanes = lane.by(order_by)

    def lanes(self, raw: bytes) -> tuple[bytes, ...]:
        return self._lanes(raw)

    def ready(self, work: Work) -> asyncio.Future[None] | None:
        return self._outputs.ready(work)

    def make(self, work: Work) -> Outcome | None:
        """Only what is filtered: the outputs of others are made beside the delivery of others."""
        return self._outputs.make(work)

    def send(self, work: Work) -> None:
        message = work.message
        channel, incarnation = message.channel.name, self._incarnations.of(message.id)
        tag = f"{incarnation}/{channel}/{message.seq}"
        if (work.part, work.delivery) != (1, 1):
            tag += f"/{work.part}.{work.delivery}"
        attempt = Attempt(
            channel, message.seq, message.raw, message.received, incarnation, tag, work.delivery, work.unknown,
            work.tries > 1, work.since, self._outputs.version(work),
        )  # fmt: skip
        self._project.submit(attempt, partial(self._done, work))

    def _done(self, work: Work, outcome: Outcome) -> None:
        POINTS.of(work.message.channel.name, self._name).n += outcome.points
        work.done(work, outcome)

    async def close(self) -> None:
        """The project is closed by whoever opened it."""

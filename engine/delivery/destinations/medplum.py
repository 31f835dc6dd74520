"""To Medplum: the message is mapped to FHIR, and delivered by the destination's strategy.

All courses to one Medplum project share its client, its breaker and a bound on how many messages are on the way at
once. While the breaker is open nothing is begun but the one message that asks whether the project is back.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from engine.delivery import lane
from engine.delivery.breaker import Breaker, Position
from engine.delivery.decision import Manner
from engine.delivery.outputs import Outputs
from engine.delivery.work import Work
from engine.fhir.output import Output
from engine.fhir.probe import Reachability
from engine.ledger.model import Message
from engine.ledger.outcome import Outcome, Result
from engine.ledger.sqlite.incarnations import Incarnations
from engine.mapping.library import Unmappable
from engine.observe.events import emit
from engine.observe.service_events import Fault

REACHED_FOR = 20.0  # seconds that an answer to "is it there" counts: it costs quota, and 250 channels ask
AT_ONCE = 8  # messages on the way to one project; more only makes its transactions collide
LARGE = 256 * 1024  # bytes from which a message is mapped on a thread of its own
WINDOW = 16  # messages of one course that may be claimed at once


class Deliverer(Protocol):
    """How an output is written to the project (engine.fhir)."""

    async def deliver(self, output: Output, tag: str, *, unknown: bool = False, since: float = 0.0) -> Outcome: ...

    async def probe(self) -> Reachability: ...

    async def close(self) -> None: ...


class Project:
    """One Medplum project: what its courses share."""

    def __init__(self, name: str, deliverer: Deliverer, *, settle_time: float, at_once: int = AT_ONCE) -> None:
        """`settle_time`: seconds after which a request without an answer is over, one way or the other."""
        self.settle_time = settle_time
        self.breaker = Breaker(name)
        self.breaker.listeners.append(lambda opened: None if opened else self._begin())
        self._deliverer = deliverer
        self._at_once = at_once
        self._closed = False
        self._waiting: deque[Attempt] = deque()
        self._running: set[asyncio.Task[None]] = set()
        self._reached: tuple[float, asyncio.Task[Reachability]] | None = None

    async def reach(self) -> tuple[bool, str]:
        """Whether the project answers and lets us in; and why not."""
        if self.breaker.open:
            return False, self.breaker.reason
        now = asyncio.get_running_loop().time()
        if self._reached is None or now - self._reached[0] > REACHED_FOR:
            asking = asyncio.get_running_loop().create_task(self._deliverer.probe(), name="is medplum there")
            self._reached = (now, asking)
        found = await asyncio.shield(self._reached[1])
        return found.ok, found.reason

    def submit(self, attempt: Attempt) -> None:
        if self.breaker.position is Position.PROBING and not self._running:
            self._start(attempt)
        else:
            self._waiting.append(attempt)
            self._begin()

    def _begin(self) -> None:
        while self._waiting and len(self._running) < self._at_once and not self.breaker.open:
            self._start(self._waiting.popleft())

    def _start(self, attempt: Attempt) -> None:
        task = asyncio.get_running_loop().create_task(self._run(attempt), name="to medplum")
        self._running.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        self._begin()

    async def _run(self, attempt: Attempt) -> None:
        work = attempt.work
        try:
            if len(work.message.raw) > LARGE:  # the others' acknowledgements do not wait for it
                outputs = await asyncio.to_thread(attempt.map, work.message)
            else:
                outputs = attempt.map(work.message)
        except Unmappable as error:
            work.done(work, Outcome(Result.NEVER, str(error), local=True, aside=True))
            return
        except Exception as error:  # a defect of a mapping must cost one message, not the channel
            fault = Fault.of(error)
            emit(fault)
            work.done(work, Outcome(Result.NEVER, f"the mapping failed: {fault.reason}", local=True))
            return
        try:
            outcome = await self._delivered(attempt, outputs)
        except asyncio.CancelledError:
            if self._closed:
                raise
            # Not ours: a time limit within the HTTP client. Whatever it was, the message must hear of it.
            outcome = Outcome(Result.UNKNOWN, "the delivery was broken off")
        except Exception as error:
            fault = Fault.of(error)
            emit(fault)
            outcome = Outcome(Result.UNKNOWN, f"the delivery failed: {fault.reason}")
        work.done(work, outcome)

    async def _delivered(self, attempt: Attempt, outputs: Sequence[Output]) -> Outcome:
        """One after the other, in their order. Each is known at the project by its own tag, so that an attempt after
        one that failed half-way finds what is there already."""
        work, points = attempt.work, 0
        unknown = work.unknown or (len(outputs) > 1 and work.tries > 1)
        for number, output in enumerate(outputs, 1):
            tag = attempt.tag if len(outputs) == 1 else f"{attempt.tag}/{number}.{work.delivery}"
            outcome = await self._deliverer.deliver(output, tag, unknown=unknown, since=work.since)
            points += outcome.points
            if outcome.result is not Result.DELIVERED:
                break
        return replace(outcome, points=points)

    async def close(self) -> None:
        self._closed = True
        self.breaker.stop()
        self._waiting.clear()
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)
        await self._deliverer.close()


@dataclass(slots=True)
class Attempt:
    """One work to be mapped, to one output or (a batch) to one for each message, and delivered under its tag."""

    work: Work
    map: Callable[[Message], Sequence[Output]]
    tag: str


class MedplumDestination:
    """One course to a project."""

    window = WINDOW

    def __init__(
        self, project: Project, map: Callable[[Message], Sequence[Output]], incarnations: Incarnations, *,
        order_by: str, outputs: Outputs | None = None,
    ) -> None:  # fmt: skip
        """`outputs`: what its filter holds back."""
        self.breaker = project.breaker
        self.manner = Manner(settle_time=project.settle_time)
        self._project = project
        self._map = map
        self._incarnations = incarnations
        self._outputs = outputs
        self._lanes = lane.by(order_by)

    def lanes(self, raw: bytes) -> tuple[bytes, ...]:
        return self._lanes(raw)

    def ready(self, work: Work) -> asyncio.Future[None] | None:
        return None

    def make(self, work: Work) -> Outcome | None:
        """Only what is filtered: the outputs of others are made beside the delivery of others."""
        return self._outputs.make(work) if self._outputs is not None else None

    def send(self, work: Work) -> None:
        message = work.message
        tag = f"{self._incarnations.of(message.id)}/{message.channel.name}/{message.seq}"
        if (work.part, work.delivery) != (1, 1):
            tag += f"/{work.part}.{work.delivery}"
        self._project.submit(Attempt(work, self._map, tag))

    async def close(self) -> None:
        """The project is closed by whoever opened it."""

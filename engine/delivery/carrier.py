"""Carries messages to one Medplum project from this process: maps them, and writes what that gives."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Protocol

from engine.delivery.attempt import RECALLED, Attempt
from engine.fhir.output import Output
from engine.fhir.probe import Reachability
from engine.ledger.gaps import Code, Gaps
from engine.ledger.outcome import Outcome, Result
from engine.mapping.library import Unmappable
from engine.mapping.packing import NotKept
from engine.observe.events import emit
from engine.observe.service_events import Fault

AT_ONCE = 8  # messages on the way to one project from one process; more only makes its transactions collide
LARGE = 256 * 1024  # bytes from which a message is mapped on a thread of its own


class Deliverer(Protocol):
    """How an output is written to the project (engine.fhir)."""

    async def deliver(self, output: Output, tag: str, *, unknown: bool = False, since: float = 0.0) -> Outcome: ...

    async def probe(self) -> Reachability: ...

    async def close(self) -> None: ...


class LocalCarrier:
    """One project's, within this process."""

    def __init__(self, map: Callable[[Attempt], Sequence[Output]], deliverer: Deliverer) -> None:
        """`map`: to one output, or (a batch) to one for each message. Raises Unmappable."""
        self._map = map
        self._deliverer = deliverer
        self._closed = False
        self._waiting: deque[tuple[Attempt, Callable[[Outcome], None]]] = deque()
        self._running: set[asyncio.Task[None]] = set()

    def slot(self, attempt: Attempt) -> int:
        return 0

    def carry(self, attempt: Attempt, done: Callable[[Outcome], None], slot: int | None = None) -> None:
        self._waiting.append((attempt, done))
        self._begin()

    def recall(self) -> None:
        waiting, self._waiting = self._waiting, deque()
        for _, done in waiting:
            done(RECALLED)

    def _begin(self) -> None:
        while self._waiting and len(self._running) < AT_ONCE and not self._closed:
            task = asyncio.get_running_loop().create_task(self._carry(*self._waiting.popleft()), name="to medplum")
            self._running.add(task)
            task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        self._begin()

    async def reach(self) -> tuple[bool, str]:
        found = await self._deliverer.probe()
        return found.ok, found.reason

    async def close(self) -> None:
        self._closed = True
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)
        await self._deliverer.close()

    async def _carry(self, attempt: Attempt, done: Callable[[Outcome], None]) -> None:
        try:
            if len(attempt.raw) > LARGE:  # the others do not wait for it
                outputs = await asyncio.to_thread(self._map, attempt)
            else:
                outputs = self._map(attempt)
        except (Unmappable, NotKept) as error:
            done(Outcome(Result.NEVER, str(error), local=True, aside=True))
            return
        except Exception as error:  # a defect of a mapping must cost one message, not the channel
            fault = Fault.of(error)
            emit(fault)
            done(Outcome(Result.NEVER, f"the mapping failed: {fault.reason}", local=True))
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
        done(outcome)

    async def _delivered(self, attempt: Attempt, outputs: Sequence[Output]) -> Outcome:
        """One after the other, in their order. Each is known at the project by its own tag, so that an attempt after
        one that failed half-way finds what is there already."""
        points = 0
        unknown = attempt.unknown or (len(outputs) > 1 and attempt.again)
        for number, output in enumerate(outputs, 1):
            tag = attempt.tag if len(outputs) == 1 else f"{attempt.tag}/{number}.{attempt.delivery}"
            outcome = await self._deliverer.deliver(output, tag, unknown=unknown, since=attempt.since)
            points += outcome.points
            if outcome.result is not Result.DELIVERED:
                break
        return replace(outcome, points=points, gaps=_gaps(outputs))


def _gaps(outputs: Sequence[Output]) -> Gaps | None:
    """What the mapping could not carry over of a message, each code once; None, as nearly always, for nothing."""
    if not any(output.unmapped or output.lost for output in outputs):
        return None
    codes = {Code(each.table, each.field, each.system, each.code): None for out in outputs for each in out.unmapped}
    lost: Counter[str] = Counter()
    for output in outputs:
        lost.update(output.lost)
    return Gaps(tuple(codes), tuple(lost.items()))

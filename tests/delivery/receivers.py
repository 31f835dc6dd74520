"""Endpoints in a test's hands, over all lives of a process: what was sent to them, what truly reached them.

An endpoint is faithful: what it has taken it says yes to when it comes again, if it says anything. One that can be
asked (`Kind.settle`) is asked before anything that may be there is sent again, and has everything once.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from engine.delivery import lane
from engine.delivery.breaker import Breaker
from engine.delivery.decision import Manner
from engine.delivery.work import Work
from engine.ledger.outcome import Outcome, Result
from tests.delivery.dues import Kind, Place
from tests.delivery.promises import Promises
from tests.delivery.texts import FILTERED, LATE, UNMAPPABLE, read
from tests.support.referee import need

OK, LATER, NO, REFUSED = "ok", "later", "no", "refused"
UNREACHABLE, LOST, FAULT = "unreachable", "lost", "fault"
ANSWERS = (OK, LATER, NO, REFUSED, UNREACHABLE, LOST, FAULT)
OUTCOMES = {
    OK: Outcome(Result.DELIVERED, "", b"yes"),
    LATER: Outcome(Result.NOT_TAKEN, "answered AE", b"later"),
    NO: Outcome(Result.NEVER, "answered AR", b"no"),
    REFUSED: Outcome(Result.REFUSED, "answered AR to its sender", b"no"),
    UNREACHABLE: Outcome(Result.NOT_TAKEN, "connection refused", trouble=True),
    LOST: Outcome(Result.UNKNOWN, "no answer", trouble=True),
    FAULT: Outcome(Result.FAULT, "403"),
}
A_MOMENT = 0.001  # seconds
MAKING = 0.3  # seconds until the output of a late one can be made


@dataclass(eq=False, slots=True)
class Attempt:
    """A part on its way; or, where nobody waits for its answer any more, one that may still arrive."""

    place: Place
    part: int
    kind: Kind
    work: Work | None
    doubtful: bool
    asks_at: float  # when it is known whether an earlier attempt has arrived
    until: float | None = None  # it does not arrive later than this


class Receivers:
    """Everything outside."""

    def __init__(self, promises: Promises, clock: Callable[[], float]) -> None:
        self.promises = promises
        self.attempts: list[Attempt] = []
        self.orphans: list[Attempt] = []
        self.has: Counter[tuple[Place, int]] = Counter()
        self.always = False  # everybody says yes at once
        self.mapping = 0
        self._clock = clock

    def send(self, work: Work, place: Place, kind: Kind) -> None:
        self.promises.sends(place, work.part, work.revision, work.message.raw, work.unknown, work.since)
        asks_at = max(self._clock(), work.since + kind.settle) if work.unknown and kind.settle else self._clock()
        attempt = Attempt(place, work.part, kind, work, work.unknown, asks_at)
        self.attempts.append(attempt)
        if self.always:
            self._soon(attempt)

    def all_say_yes(self) -> None:
        self.always = True
        for attempt in self.attempts:
            self._soon(attempt)

    def _soon(self, attempt: Attempt) -> None:
        wait = max(0.0, attempt.asks_at - self._clock()) + A_MOMENT
        asyncio.get_running_loop().call_later(wait, self.answer, attempt, OK)

    def answer(self, attempt: Attempt, how: str) -> None:
        """Its outcome. Nothing happens where it has been answered, or still waits to ask about an earlier one."""
        if attempt not in self.attempts or attempt.work is None or self._clock() < attempt.asks_at:
            return
        self.attempts.remove(attempt)
        there = self.has[attempt.place, attempt.part] and (attempt.doubtful or attempt.kind.settle is None)
        if there and how in (LATER, NO, REFUSED):
            how = OK
        if how == OK:
            self._take(attempt)
        elif how == LOST:
            self._nobody_waits(attempt)
        self.promises.hears(attempt.place, OUTCOMES[how], self._clock())
        work, attempt.work = attempt.work, None
        work.done(work, OUTCOMES[how])

    def _take(self, attempt: Attempt) -> None:
        key = (attempt.place, attempt.part)
        if attempt.kind.settle is not None:
            if attempt.doubtful and self.has[key]:
                return  # it was asked for, and found
            need(not self.has[key], f"{attempt.place}, part {attempt.part}: there twice")
        self.has[key] += 1

    def _nobody_waits(self, attempt: Attempt) -> None:
        if attempt.kind.settle is not None:
            if attempt.doubtful and (self.has[attempt.place, attempt.part] or self._clock() < attempt.asks_at):
                return  # it only asked, and has sent nothing
            attempt.until = self._clock() + attempt.kind.settle
        self.orphans.append(attempt)

    def gone(self) -> None:
        """The process was killed: what it was sending may still arrive, and nobody hears the answer."""
        for attempt in self.attempts:
            attempt.work = None
            self._nobody_waits(attempt)
        self.attempts.clear()

    def arrives(self, orphan: Attempt) -> None:
        """An attempt that nobody waits for any more, unless its time is over."""
        self.orphans.remove(orphan)
        if orphan.until is None or self._clock() < orphan.until:
            self._take(orphan)

    def make(self, work: Work, place: Place) -> Outcome | None:
        text = read(work.message.raw)
        parts, outcome = text.parts(self.mapping), None
        if text.kind == UNMAPPABLE:
            outcome = Outcome(Result.NEVER, "no mapping takes it", local=True, aside=True)
        elif text.kind == FILTERED:
            outcome = Outcome(Result.FILTERED, "a rule", local=True)
        else:
            work.outputs = [text.raw] * parts
        self.promises.makes(place, work.part, outcome, parts)
        return outcome


class Way:
    """A destination: one course's end."""

    def __init__(self, receivers: Receivers, channel: str, kind: Kind, breaker: Breaker) -> None:
        self.kind, self.breaker = kind, breaker
        self.manner = Manner(dead=kind.dead, parks_unknown=kind.parks_unknown, settle_time=kind.settle or 0.0)
        self._receivers, self._channel = receivers, channel
        self._late: dict[Place, asyncio.Future[None]] = {}

    def _place(self, work: Work) -> Place:
        return (self._channel, self.kind.name, work.message.seq, work.delivery)

    def lanes(self, raw: bytes) -> tuple[bytes, ...]:
        return lane.patients(raw) if self.kind.lanes else lane.SHARED

    def ready(self, work: Work) -> asyncio.Future[None] | None:
        if read(work.message.raw).kind != LATE:
            return None
        late = self._late.get(self._place(work))
        if late is None:
            late = self._late[self._place(work)] = asyncio.get_running_loop().create_future()
            asyncio.get_running_loop().call_later(MAKING, late.set_result, None)
        return late

    def make(self, work: Work) -> Any:
        return self._receivers.make(work, self._place(work))

    def send(self, work: Work) -> None:
        self._receivers.send(work, self._place(work), self.kind)

    async def close(self) -> None: ...

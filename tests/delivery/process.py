"""One life of the delivery loop: the real ledger, runners, replays and remedies, told of commits as the service tells
them. Without ports: a test gives it messages, and takes what it sends."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from engine.delivery.breaker import Breaker
from engine.delivery.runner import Runner
from engine.ledger.book import Book
from engine.ledger.course import ChannelBook, Course, Hold
from engine.ledger.model import Message, State
from engine.ledger.routing import Grant, Mode, Route, Routing
from engine.ledger.sqlite.writer import Commit, Order, Reclaim
from engine.ledger.turns import Turns
from engine.remedy.choosing import Chosen, Item, chosen
from engine.remedy.deciding import Deciding
from engine.remedy.planning import plan as plan_replay
from engine.remedy.replaying import Replaying
from engine.remedy.verb import Asked
from tests.delivery.dues import Kind
from tests.delivery.receivers import Receivers, Way
from tests.delivery.texts import Text
from tests.support.referee import need
from tests.support.still import StillLedger

ANN = Asked("ann", "because", "a test", None)
RUN = 1  # whose barrier it is


class SlowLedger(StillLedger):
    """Messages are read from it in so many turns of the event loop."""

    turns = 0

    async def message(self, channel: ChannelBook, id: int, revision: int = 1) -> Message:
        for _ in range(self.turns):
            await asyncio.sleep(0)
        return await super().message(channel, id, revision)


class Process:
    """`wrote` hears of each transaction as soon as it is durable, before anybody else. `turns`: of the event loop,
    until a message is read from the ledger. `room`: how many messages may be claimed for one endpoint at once."""

    def __init__(
        self, path: Path, channels: Sequence[str], kinds: Sequence[Kind], receivers: Receivers,
        clock: Callable[[], float], wrote: Callable[[Commit, Any], None], turns: int = 0, room: int | None = None,
    ) -> None:  # fmt: skip
        self.now: Callable[[], int] = lambda: int(clock() * 1e6)
        self.ledger = SlowLedger(path, self.now, wrote)
        self.ledger.turns = turns
        self.ledger.on_fatal = lambda error: need(False, f"the ledger gave up: {error}")
        self._runners: list[Runner] = []
        self._breakers = {kind.name: Breaker(kind.name) for kind in kinds}
        self.turns = {} if room is None else {kind.name: Turns(lambda: room) for kind in kinds}
        self._channels, self._kinds, self._receivers = channels, kinds, receivers
        self._deciding = Deciding(self.ledger, self.now)
        self.replaying = Replaying(self.ledger, self.now)

    async def start(self) -> None:
        self.ledger.start(self._committed)
        routing = Routing(
            tuple(
                Route(kind.name, "medplum" if kind.lanes else "mllp", Mode.SEND, "patient" if kind.lanes else "channel")
                for kind in self._kinds
            )
        )
        windows = {kind.name: kind.window for kind in self._kinds}
        for name in self._channels:
            if name not in self.ledger.channels:
                await self.ledger.switch(name, "live", routing, windows, who="test", why="first")
            book = self.ledger.channels[name]
            self.ledger.arrange(book.courses, windows)
            book.rerouted()
            for course in book.courses:
                kind = next(kind for kind in self._kinds if kind.name == course.name)
                way = Way(self._receivers, name, kind, self._breakers[kind.name])
                if kind.name in self.turns:
                    self.turns[kind.name].join(course)
                course.runner = Runner(course, way, self.ledger, self.now)
                self._runners.append(course.runner)
            book.runners = [course.runner for course in book.courses]
        for runner in self._runners:
            asyncio.get_running_loop().create_task(runner.start())
        await self.replaying.start()

    def kill(self) -> None:
        """Nothing of it is left. The loop that it ran on is the next one's too: what it would still do there, it does
        not."""
        self.ledger.abandon()
        for runner in self._runners:
            runner.stopped = True
        for breaker in self._breakers.values():
            breaker.stop()

    def _committed(self, commit: Commit) -> None:
        for message in commit.stored:
            for runner in message.channel.runners:
                runner.offer(message)
        for settlement in commit.settled:
            if settlement.delivery > 1:
                self.replaying.settled(settlement.course)
        for course, claim in commit.claimed:
            if course.runner is not None:
                course.runner.claimed(claim)
        for course, key, granted in commit.reclaimed:
            course.runner.granted(key, granted)
        for operation, reason in commit.failed:
            if isinstance(operation, Reclaim):
                operation.course.runner.claim_failed(operation.key)
            need(isinstance(operation, Order | Reclaim), f"could not be written: {operation} ({reason})")

    def book(self, channel: str) -> ChannelBook:
        return self.ledger.channels[channel]

    def course(self, channel: str, to: str) -> Course:
        found = self.book(channel).course(to)
        assert found is not None
        return found

    # -- what comes in

    def store(self, channel: str, text: Text) -> None:
        self.ledger.store(Message(self.book(channel), text.raw, self.now(), text.control_id))

    # -- what people do

    def items(self, to: str | None = None, *messages: tuple[str, int]) -> list[Item]:
        """Raises Refused where one of these is not open."""
        return chosen(self.ledger.channels, Chosen(self._channels, messages, to))

    async def decide(self, verb: str, items: Sequence[Item]) -> None:
        """`retry` or `discard`. Raises Refused."""
        plan = self._deciding.plan_retry(items) if verb == "retry" else self._deciding.plan_discard(items)
        plan.check(Asked(ANN.who, ANN.why, ANN.origin, plan.count))
        await (self._deciding.retry if verb == "retry" else self._deciding.discard)(items, ANN)
        for item in items:
            self.replaying.settled(item.course)

    async def edit(self, item: Item, raw: bytes) -> None:
        """Raises Refused."""
        plan = await self._deciding.plan_edit(item, raw)
        plan.check(ANN)
        await self._deciding.edit(item, raw, ANN)
        self.replaying.settled(item.course)

    async def replay(self, channel: str, to: str, numbers: Sequence[int], asks: Callable[[list[int]], None]) -> None:
        """`asks` hears which numbers it will be. Raises Refused."""
        book, course = self.book(channel), self.course(channel, to)
        found = await self.replaying.look(book, course, numbers)
        plan = plan_replay(book, course, found)
        plan.check(Asked(ANN.who, ANN.why, ANN.origin, plan.count))
        asks(found.numbers)
        await self.replaying.begin(book, course, found, ANN)

    # -- what holds it back

    async def hold(self, channel: str) -> None:
        hold = Hold(self.now(), "ann", "wait", self.now())
        await self.ledger.transaction(lambda book: book.hold(self.book(channel), hold))

    async def bar(self, channel: str) -> None:
        await self.ledger.transaction(lambda book: book.bar(self.book(channel), RUN))

    async def release(self, channel: str) -> None:
        """The hold and the barrier are gone."""

        def act(book: Book) -> None:
            book.hold(self.book(channel), None)
            book.lift(self.book(channel))

        await self.ledger.transaction(act)
        for course in self.book(channel).courses:
            course.runner.resume()

    async def supersede(self, channel: str, to: str, last: int) -> None:
        """The other side has what is not on its way up to here, as after a rollback: what is not claimed yet is granted
        to it, what is open is closed."""
        course = self.course(channel, to)
        sure = (State.RETRYING, State.DEAD)

        def act(book: Book) -> None:
            granted = partial(Grant, to, mode=Mode.SUPERSEDE, run=RUN)
            closed = [key for key, work in course.open.items() if key[0] <= last and key[2] == 1 and work.state in sure]
            for seq in [key[0] for key in closed] + list(range(course.claim + 1, last + 1)):
                book.grant(course.channel, granted(first=seq, last=seq), at=self.now(), who="ann", why="a rollback")
            for key in closed:
                book.close_open(course, key, State.SUPERSEDED, "a rollback: the other side has it", self.now())

        await self.ledger.transaction(act)
        course.runner.forget()

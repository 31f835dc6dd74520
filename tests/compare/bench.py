"""A channel in parallel with a real ledger, a comparer, and nobody else: a test plays the old engine and delivery."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from engine.compare.comparer import Comparer
from engine.compare.copies import Copies
from engine.compare.discrepancies import State as Settled
from engine.compare.tapping import NO_SOCKET
from engine.config.address import Address
from engine.config.edge import Listen
from engine.config.endpoint import Endpoint
from engine.config.model import Channel, Compare, Destination, Legacy, Tap, Target
from engine.intake.judge import Flaw
from engine.ledger.course import Compared
from engine.ledger.model import Message, Settlement, State, TapOutput, Together
from engine.ledger.routing import LEGACY, Mode, Route, Routing
from engine.ledger.sqlite import comparisons
from engine.ledger.sqlite.ledger import SqliteLedger
from engine.ledger.sqlite.writer import Commit
from tests.support import house

EMR = Endpoint("emr", Address("127.0.0.1", 1))
SECOND = 1_000_000  # microseconds
WINDOWS = {LEGACY: 1000, "emr": 1000}
SOCKET = 7  # on which all inputs come


def channel(**changes: Any) -> Channel:
    """A channel of results with one tap, whose endpoint the target serves."""
    made = house.channel("acme-results", port=1, old_engine=2, phase="parallel")
    legacy = Legacy(Endpoint("old", Address("127.0.0.1", 2)), taps=(Tap("emr", Listen(3, "127.0.0.1"), EMR),))
    target = Target(None, (Destination("emr", "mllp", EMR, order_by="channel"),))
    return replace(made, **{"legacy": legacy, "target": target, "compare": Compare(within=60.0)} | changes)


def observed() -> Channel:
    """The same, with the old engine in front of us."""
    made = channel()
    assert made.legacy is not None
    return replace(made, legacy=replace(made.legacy, endpoint=None))


def routing(phase: str = "parallel", observed: bool = False) -> Routing:
    legacy, emr = (Mode.SEND, Mode.CAPTURE) if phase == "parallel" else (Mode.DEFER, Mode.SEND)
    way = () if observed else (Route(LEGACY, "legacy", legacy, "channel"),)
    return Routing((*way, Route("emr", "mllp", emr, "channel")), None, "forward")


class Bench:
    """One process's life with the channel."""

    def __init__(self, folder: Path, channel: Channel, start: int) -> None:
        self.now = start
        self.channel = channel
        self.ledger = SqliteLedger(folder / "ledger.db", lambda: self.now)
        self.ledger.start(self._committed)
        self.messages: dict[int, Message] = {}
        self.tapped: list[TapOutput] = []
        self.copies = Copies()

    async def open(self, judge: Callable[[bytes], Flaw | None]) -> None:
        known = self.ledger.channels.get(self.channel.id)
        if known is None:
            known = await self.switch("parallel")
        self.book = known
        self.ledger.arrange(known.courses, WINDOWS)
        for course in known.courses:
            self.ledger.pause(course, False)
        await self.durable()
        self.comparer = Comparer(self.channel, known, self.ledger, lambda: self.now, judge=judge)
        await self.comparer.start()

    async def switch(self, phase: str) -> Any:
        table = routing(phase, self.channel.observed)
        return await self.ledger.switch(self.channel.id, phase, table, WINDOWS, who="test", why="test")

    def _committed(self, commit: Commit) -> None:
        assert not commit.failed, commit.failed
        for message in commit.stored:
            copies = self.copies.told(message)
            if message.channel is self.book:
                self.messages[message.seq] = message
                self.comparer.stored(message, copies)
        for settlement in commit.settled:
            if settlement.state is State.CAPTURED and settlement.output is not None:
                self.comparer.captured(
                    settlement.seq, settlement.course.name, settlement.output, settlement.part, settlement.parts
                )
        for output in commit.outputs:
            self.tapped.append(output)
            self.comparer.tapped(output.tap, output.id, output.raw, output.at, output.seq)

    async def durable(self) -> None:
        await self.ledger.transaction(lambda book: None)

    # -- what happens

    async def store(self, *raws: bytes, flaw: str | None = None) -> list[int]:
        """Inputs, each of which the old engine acknowledges and we capture; their numbers."""
        messages = [Message(self.book, raw, self.now, f"C{at}", SOCKET, flaw=flaw) for at, raw in enumerate(raws)]
        for message in messages:
            self.ledger.store(message)
        await self.durable()
        return [message.seq for message in messages]

    async def fed(self, raw: bytes, *, ours: bool = True, claimed: bool = True) -> int:
        """An input of the other channel of a feed, of which this one gets a copy if it is `ours`: our number for it.
        The other one's path takes it to the old engine once it is claimed there."""
        self.now += SECOND
        other = self.ledger.channels.get("other")
        if other is None:
            other = await self.ledger.switch("other", "parallel", routing(), WINDOWS, who="test", why="test")
            self.ledger.arrange(other.courses, WINDOWS)
        self._pause_other(not claimed)
        copies = [Message(book, raw, self.now, "C", SOCKET) for book in ((self.book, other) if ours else (other,))]
        self.ledger.together(Together(copies))
        await self.durable()
        return copies[0].seq

    async def claim(self) -> None:
        """The other channel's path goes on."""
        self._pause_other(False)
        await self.durable()

    def _pause_other(self, paused: bool) -> None:
        path = self.ledger.channels["other"].course(LEGACY)
        assert path is not None
        self.ledger.pause(path, paused)

    async def settle(
        self, seq: int, legacy: State | None = State.DELIVERED, ours: State | None = State.CAPTURED,
        outputs: Sequence[bytes] = (), parts: Sequence[int] = (),
    ) -> None:  # fmt: skip
        """What became of an input on both ways; None: nothing yet. outputs: what we make of it, unless it stays as it
        came; parts: those of them that are settled now, unless all are."""
        message = self.messages[seq]
        for name, state in ((LEGACY, None if self.channel.observed else legacy), ("emr", ours)):
            course = self.book.course(name)
            if state is not None and course is not None:
                course.ids |= {one.seq: one.id for one in self.messages.values() if one.seq > course.frontier}
                made = outputs or (message.raw,)
                for part, output in enumerate(made if state is State.CAPTURED and name == "emr" else (None,), 1):
                    if part in parts or not parts:
                        self.ledger.settle(
                            Settlement(course, message, state, self.now, output=output, answer=b"x", part=part,
                                       parts=1 if output is None else len(made))
                        )  # fmt: skip
        await self.durable()

    async def send(self, raw: bytes, tap: str = "emr", file: bool = False) -> int | None:
        """An output of the old engine, kept as a tap keeps it; its input. file: it came as one, and has no answer."""
        seq = self.comparer.attribute(tap, raw, self.now)
        output = TapOutput(
            self.book,
            tap,
            raw,
            self.now,
            socket=NO_SOCKET if file else 1,
            control_id=None,
            decision="forwarded",
            seq=seq,
            answer=None if file else b"x",
        )
        self.ledger.output(output)
        await self.durable()
        return seq

    def lose(self, raw: bytes, answered: bool = True) -> int | None:
        """An output of the old engine that the ledger could not keep; its input."""
        seq = self.comparer.attribute("emr", raw, self.now)
        if seq is not None:
            self.comparer.unkept("emr", seq, answered)
        return seq

    async def both(self, raw: bytes, sent: bytes | None = None, file: bool = False) -> int:
        """An input, and its output a second later; its number."""
        (seq,) = await self.store(raw)
        await self.settle(seq)
        self.now += SECOND
        assert await self.send(raw if sent is None else sent, file=file) == seq
        return seq

    async def wait(self, seconds: float) -> None:
        """Time passes, and the comparer is told of it."""
        self.now += int(seconds * SECOND)
        self.comparer.tick(self.now)
        await self.comparer.flush()

    # -- what is seen

    async def compared(self, tap: str = "emr") -> Compared:
        await self.comparer.flush()
        return self.book.compared[tap]

    async def rows(self) -> list[comparisons.DiscrepancyRow]:
        await self.comparer.flush()
        return await self.ledger.read(lambda reader: comparisons.listing(reader.connection, [self.book.id], None, 100))

    async def found(self) -> list[tuple[str, str, str, str, int]]:
        """(path, kind, severity, state, count) of every discrepancy."""
        return [(row.path, row.kind, row.severity, row.state, row.count) for row in await self.rows()]

    async def explain(self, path: str, state: Settled = Settled.EXPLAINED) -> None:
        (row,) = [row for row in await self.rows() if row.path == path]
        await self.comparer.settle(row, state, "looked into it", "ada")

    async def assert_counted(self, tap: str = "emr") -> None:
        """The totals in memory are those of the rows."""
        await self.comparer.flush()
        compared, book = self.book.compared[tap], self.book.id
        rows = await self.ledger.read(lambda reader: comparisons.totals(reader.connection, book))
        count = await self.ledger.read(lambda reader: comparisons.recount(reader.connection, book, tap))
        words = await self.ledger.read(lambda reader: comparisons.judged(reader.connection, book, tap, 0))
        assert rows[tap][:4] == (compared.matched, compared.explained, compared.unexplained, compared.not_comparable)
        assert (count.explained, count.unexplained) == (compared.explained, compared.unexplained)
        judged = list(words.values())
        assert (judged.count("matched"), judged.count("not_comparable")) == (compared.matched, compared.not_comparable)


@asynccontextmanager
async def running(
    folder: Path,
    channel: Channel,
    start: int = 1_000_000 * SECOND,
    judge: Callable[[bytes], Flaw | None] = lambda raw: None,
) -> AsyncIterator[Bench]:
    bench = Bench(folder, channel, start)
    await bench.open(judge)
    try:
        yield bench
    finally:
        await bench.comparer.stop()
        await bench.ledger.close()

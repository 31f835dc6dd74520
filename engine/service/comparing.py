"""The taps of a service and the comparison behind them: opened and closed with it, and told of every commit."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from engine.compare.comparer import Comparer
from engine.compare.copies import Copies
from engine.compare.file_tap import FileTap
from engine.compare.tap import TapPort
from engine.compare.tapping import NO_SOCKET, Fate
from engine.config.edge import Files, Listen
from engine.config.model import Channel, OnLink, Tap
from engine.hl7.peek import peek
from engine.intake.judge import Flaw, Rules, judge
from engine.ledger.course import ChannelBook
from engine.ledger.model import Message, Settlement, State, TapOutput
from engine.ledger.sqlite.ledger import SqliteLedger
from engine.migration.phases import Phase
from engine.service.opening import keep_opening, opened
from engine.service.ways import Ways

COMPARED = frozenset({Phase.PARALLEL.value, Phase.LIVE.value})
"""Phases in which outputs are attributed to inputs."""

OURS = frozenset({State.CAPTURED, State.DUPLICATE})
"""What we would send for an input is known. For a repeat it is what we would have sent for the first."""

NOTHING_COMES = frozenset({State.REFUSED, State.DEAD})


class Tapped:
    """One channel with taps: its ports and its comparer. `flaw`: what `live` would refuse a frame for."""

    def __init__(
        self, channel: Channel, book: ChannelBook, comparer: Comparer, flaw: Callable[[bytes], Flaw | None]
    ) -> None:
        self.channel = channel
        self.book = book
        self.comparer = comparer
        self.flaw = flaw
        self.ports: dict[str, TapPort | FileTap] = {}

    @property
    def attributes(self) -> bool:
        """Whether outputs are attributed to inputs: in the phases that need it, and wherever a rollback's guard stands
        over some, also after the parallel run has been ended."""
        return self.book.epoch.phase in COMPARED or any(grant.guarded for grant in self.book.grants)


class Comparisons:
    """All channels with taps."""

    def __init__(
        self,
        ledger: SqliteLedger,
        ways: Ways,
        now: Callable[[], int],
        number: Callable[[], int],
        spawn: Callable[[Any, str], asyncio.Task[Any]],
    ) -> None:
        self.channels: dict[str, Tapped] = {}
        self._ledger = ledger
        self._ways = ways
        self._spawn = spawn
        self._now = now
        self._number = number
        self._turn = asyncio.Lock()
        self._copies = Copies()

    def add(self, channel: Channel, book: ChannelBook, rules: Rules) -> None:
        """Build what a channel with taps needs; `open` opens it."""

        def flaw(raw: bytes) -> Flaw | None:
            return judge(peek(raw), raw, rules)

        comparer = Comparer(channel, book, self._ledger, self._now, judge=flaw, turn=self._turn)
        tapped = self.channels[channel.id] = Tapped(channel, book, comparer, flaw)
        for tap in channel.taps:
            tapped.ports[tap.name] = self._tap(tapped, tap)

    def _tap(self, tapped: Tapped, tap: Tap) -> TapPort | FileTap:
        channel, attribute = tapped.channel, self._attribute(tapped, tap.name)
        if isinstance(tap.source, Files):
            assert tap.forward.place is not None
            folder, forward = self._ways.place(tap.source.place), self._ways.place(tap.forward.place)
            return FileTap(channel, tap, tapped.book, self._ledger, attribute, self._now, folder, forward, self.kept)
        owner = f"{channel.id}/{tap.name}"
        tls = self._ways.certificates.server(owner, tap.source.tls) if isinstance(tap.source, Listen) else None
        port = TapPort(
            channel, tap, tapped.book, self._ledger, attribute, self._now, self._number,
            self._ways.sender(tap.forward), tls,
        )  # fmt: skip
        if isinstance(tap.source, OnLink) and (link := self._ways.link(channel)):
            link.message = port.on_link
        return port

    def _attribute(self, tapped: Tapped, tap: str) -> Callable[[bytes, int], int | None]:
        def attribute(raw: bytes, at: int) -> int | None:
            if not tapped.attributes:
                return None
            return tapped.comparer.attribute(tap, raw, at)

        return attribute

    async def open(self) -> None:
        """Read back what is pending, then listen."""
        await asyncio.gather(*(tapped.comparer.start() for tapped in self.channels.values()))
        await asyncio.gather(*(self._listen(port) for each in self.channels.values() for port in each.ports.values()))

    async def _listen(self, port: TapPort | FileTap) -> None:
        if not await opened(port):
            self._spawn(keep_opening(port), f"tap {port.channel.id}/{port.tap.name}")

    @property
    def down(self) -> dict[str, str]:
        """channel/tap → why the old engine cannot connect to it."""
        ports = (port for each in self.channels.values() for port in each.ports.values())
        return {f"{port.channel.id}/{port.tap.name}": port.down for port in ports if port.down}

    async def close(self, grace: float) -> None:
        await asyncio.gather(*(port.close(grace) for each in self.channels.values() for port in each.ports.values()))
        await asyncio.gather(*(tapped.comparer.stop() for tapped in self.channels.values()))

    def tick(self) -> None:
        """About once a second."""
        now = self._now()
        for tapped in self.channels.values():
            if tapped.attributes:
                tapped.comparer.tick(now)

    # -- from the ledger

    def stored(self, message: Message) -> None:
        """A message is durable, of any channel: one without taps may have a copy of another one's."""
        copies = self._copies.told(message)
        tapped = self.channels.get(message.channel.name)
        if tapped is not None and tapped.attributes:
            tapped.comparer.stored(message, copies)

    def sending(self, message: Message) -> None:
        """A message goes to the old engine, by its epoch or by the grant of a rollback."""
        tapped = self.channels.get(message.channel.name)
        if tapped is not None and tapped.attributes:
            tapped.comparer.sending(message)

    def moved(self, channel: str) -> None:
        """An epoch was opened: what was told before may be its input."""
        tapped = self.channels.get(channel)
        if tapped is not None:
            tapped.comparer.moved()

    def settled(self, settlement: Settlement) -> None:
        """What we would have sent, what the old engine answered, or that it will make nothing of an input."""
        course = settlement.course
        tapped = self.channels.get(course.channel.name)
        if tapped is None or not tapped.attributes:
            return
        if settlement.state in OURS:  # where the output is not kept apart, it is the frame as it came
            raw = settlement.output or settlement.message.raw
            tapped.comparer.captured(settlement.seq, course.name, raw, settlement.part, settlement.parts)
        elif course is course.channel.relay:
            if settlement.state in NOTHING_COMES:
                tapped.comparer.refused(settlement.seq)
            if settlement.answer is not None and settlement.why == "relayed":
                tapped.comparer.answered(settlement.message, settlement.answer)

    def kept(self, output: TapOutput) -> None:
        """An output is durable."""
        tapped = self.channels[output.channel.name]
        port = tapped.ports[output.tap]
        port.kept(output)
        if not tapped.attributes or (output.decision == Fate.PARK.value and output.seq is None):
            return
        answered = output.answer is not None or output.socket == NO_SOCKET
        tapped.comparer.tapped(output.tap, output.id, output.raw, output.at, output.seq, answered=answered)

    def unkept(self, output: TapOutput) -> None:
        """An output could not be stored."""
        tapped = self.channels[output.channel.name]
        tapped.ports[output.tap].unkept(output)
        if tapped.attributes and output.seq is not None:
            tapped.comparer.unkept(output.tap, output.seq, answered=output.answer is not None)

    # -- for the switch

    def quiet_since(self, channel: str) -> float | None:
        """When something last came or was answered at one of the channel's taps, in seconds of the event loop's clock;
        0 where nothing has. None as long as something of the old engine is on its way there."""
        tapped = self.channels.get(channel)
        found = [port.quiet_since for port in tapped.ports.values()] if tapped else []
        return None if None in found else max(filter(None, found), default=0.0)

    def inherits(self, channel: str) -> bool:
        """Whether an input from before our start still waits for an output."""
        tapped = self.channels.get(channel)
        return tapped is not None and tapped.comparer.inherits

    def lag(self, channel: str, tap: str) -> float | None:
        tapped = self.channels.get(channel)
        return tapped.comparer.lag(tap) if tapped else None

    def unpaired(self, channel: str) -> int:
        tapped = self.channels.get(channel)
        return sum(counts.pending for counts in tapped.comparer.counts().values()) if tapped else 0

"""Where a service's messages come in: the ports of channels and feeds, and the folders that files are read from.

A port that cannot be had is tried again until it can; meanwhile it shows as down, and why.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from engine.config.edge import Ack, Connect, Files, Listen, Takes
from engine.config.endpoint import Endpoint
from engine.config.feed import Feed
from engine.config.model import Channel
from engine.delivery.line import Line
from engine.delivery.sender import Job
from engine.hl7.ack import parse_ack
from engine.hl7.charset import Undecodable, decode
from engine.hl7.peek import peek
from engine.intake.ack_port import AckPort
from engine.intake.answering import Answering, Elsewhere
from engine.intake.files import FileSource
from engine.intake.inlet import Clocks, Inlet
from engine.intake.judge import Rules
from engine.intake.port import Port
from engine.intake.router import Router
from engine.ledger.model import IntakeEvent, Message, Settlement
from engine.ledger.sqlite.ledger import SqliteLedger
from engine.migration.phases import Phase, transparent
from engine.mllp.back import Back
from engine.mllp.budget import Budget
from engine.observe.events import emit
from engine.observe.intake_events import EVIDENCE_LOST
from engine.observe.service_events import Fault
from engine.service.opening import keep_opening, opened
from engine.service.ways import Ways


class Doors:
    """Everything that listens, connects out to receive, or reads a folder, of one service."""

    def __init__(
        self,
        ledger: SqliteLedger,
        ways: Ways,
        clocks: Clocks,
        number: Callable[[], int],
        spawn: Callable[[Any, str], asyncio.Task[Any]],
    ) -> None:
        self.inlets: dict[str, Inlet] = {}  # by channel
        self.ports: dict[str, Port] = {}  # by channel, or by feed
        self.files: dict[str, FileSource] = {}  # by channel
        self._ledger = ledger
        self._ways = ways
        self._certificates = ways.certificates
        self._clocks = clocks
        self._number = number
        self._spawn = spawn
        self._backs: dict[str, Back] = {}  # lines back to a channel's senders
        self._acks: dict[str, AckPort] = {}  # where senders hear our answers, by channel or feed
        self._answers = 0
        self.budget = Budget()
        self._opening: dict[str, asyncio.Task[Any]] = {}
        self._looked: set[str] = set()  # folders that were looked at since they were opened

    # -- building

    def rules(self, channel: Channel) -> Rules:
        """What `live` takes."""
        takes = channel.takes
        reads = _reads(channel)  # where nothing of ours does, bytes are bytes
        return Rules(
            self._ways.accepts(channel), lambda raw: not reads or _is_text(raw, takes), takes.batch != "refuse"
        )

    def add(self, channel: Channel) -> None:
        """Build what a channel needs to receive; `open` opens it. The channels of a feed are added before its port."""
        book = self._ledger.channels[channel.id]
        rules, phase = self.rules(channel), Phase(book.epoch.phase)
        source = channel.source
        if isinstance(source, Files):
            folder = self._ways.place(source.place)
            self.files[channel.id] = FileSource(
                channel, book, self._ledger, rules, folder, self._clocks.now,
                lambda: transparent(Phase(book.epoch.phase)),
            )  # fmt: skip
            return
        answering = self._answering(channel.id, channel.ack, channel.takes)
        inlet = Inlet(channel, book, self._ledger, rules, self._clocks, answering)
        inlet.set_phase(transparent=transparent(phase))
        self.inlets[channel.id] = inlet
        if isinstance(source, Listen | Connect):
            self._port(channel.id, source, channel.takes, [inlet], answering)

    def join(self, feed: Feed) -> None:
        """Build a feed's port, once all its channels are added."""
        known = [name for name in feed.channels if name in self.inlets]
        if not known:
            return
        names = sorted(known, key=lambda name: name != feed.default)
        answering = self._answering(feed.id, feed.ack, feed.takes)

        def expect(copy: Message) -> None:
            if link := self._ways.feeds.get(feed.id):
                link.expect(copy)

        for name in names:
            self.inlets[name].answer_by(answering, feed.ack)
            self.inlets[name].on_stored = expect
        inlets = [self.inlets[name] for name in names]
        self._port(feed.id, feed.source, feed.takes, inlets, answering, Router(feed))

    def _port(
        self,
        name: str,
        source: Listen | Connect,
        takes: Takes,
        inlets: list[Inlet],
        answering: Answering,
        router: Router | None = None,
    ) -> None:
        listens = isinstance(source, Listen)
        tls = self._certificates.server(name, source.tls) if listens else self._certificates.client(name, source.tls)
        port = Port(
            name, source, takes, inlets, answering, self._ledger, self._clocks, self._number, router=router, tls=tls,
            budget=self.budget, acks=self._acks.get(name),
        )  # fmt: skip
        port.pass_on = lambda payload: self._pass_on(name, payload)
        port.back = self._backs.get(name)
        self.ports[name] = port

    def _pass_on(self, name: str, payload: bytes) -> bool:
        """To the old engine, on the connection on which it answers."""
        link = self._ways.links.get(name)
        return link is not None and link.transmit(payload)

    def _answering(self, name: str, ack: Ack, takes: Takes) -> Answering:
        elsewhere = self._elsewhere(ack.to) if ack.to else None
        if ack.listen is not None:
            acks = self._acks[name] = AckPort(ack.listen, self._certificates.server(f"{name}/acks", ack.listen.tls))
            elsewhere = acks.send
        return Answering(name, ack, takes.batch, self._own_id, self._clocks.now, elsewhere)

    def _elsewhere(self, to: Endpoint) -> Elsewhere:
        """Our answers get none themselves."""
        sender = self._ways.sender(to)
        return lambda conn, answer, sent: sender.send(Job(answer, to.ack_timeout, sent, expects=False))

    def _own_id(self) -> str:
        """Of our own answers: unique in this process, which is all that MSH-10 of an acknowledgement is asked to be."""
        self._answers += 1
        return f"{self._ledger.term}.{self._answers}"

    def back(self, channel: str) -> Line:
        """The line back to the senders of a channel, on their own connections."""
        if channel not in self._backs:
            self._backs[channel] = Back(lambda: self._connections(channel), _name, _answer)
            if port := self.ports.get(channel):
                port.back = self._backs[channel]
        return self._backs[channel]

    def _connections(self, channel: str) -> Iterable[Any]:
        port = self.ports.get(channel)
        return port.listener.connections if port else ()

    # -- opening and closing

    async def open(self) -> None:
        """Open what can be opened now; the rest is tried again by itself."""
        await asyncio.gather(*(self.open_door(name) for name in [*self.ports, *self.files] if self._ours(name)))

    def _ours(self, name: str) -> bool:
        """Whether a channel or feed has a message to expect here: not so where the old engine still has the port."""
        channels = list(self.ports[name].inlets) if name in self.ports else [name]
        return any(self._ledger.channels[each].epoch.phase != Phase.OUTSIDE.value for each in channels)

    async def open_door(self, name: str) -> str | None:
        """Open one port, or begin to read one folder: None where it is open, else why not. A port that cannot be had
        now is tried again by itself."""
        if name in self.files:
            if name not in self._opening:
                self._opening[name] = self._spawn(self._read(name), f"files of {name}")
            return self.files[name].down if name in self._looked else "it is being looked at for the first time"
        port = self.ports[name]
        if port.down is None or await opened(port):
            return None
        if name not in self._opening or self._opening[name].done():
            self._opening[name] = self._spawn(keep_opening(port), f"port of {name}")
        return port.down

    def is_open(self, name: str) -> bool:
        """Whether messages can come in."""
        if name in self.files:
            return name in self._looked and self.files[name].down is None
        return name in self.ports and self.ports[name].down is None

    async def _read(self, name: str) -> None:
        source = self.files[name]
        try:
            await source.scan()
        except Exception as error:  # it is found again by `run`, which goes on whatever happens
            emit(Fault.of(error))
        self._looked.add(name)
        await source.run()

    async def shut(self, grace: float) -> None:
        """Take no more messages, and close the connections once what they began is answered."""
        for task in self._opening.values():
            task.cancel()
        await asyncio.gather(*self._opening.values(), return_exceptions=True)
        await asyncio.gather(*(port.close(grace) for port in self.ports.values()))

    async def close_door(self, name: str, grace: float) -> None:
        """Close one port, once what its connections began is answered, or read one folder no longer."""
        task = self._opening.pop(name, None)
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        if port := self.ports.get(name):
            await port.close(grace)
        elif task is not None:
            self._looked.discard(name)
            await self.files[name].finish(grace)

    async def end(self) -> None:
        """After `shut`, when nothing will be answered any more."""
        for port in self.ports.values():
            await port.end()

    def port_of(self, channel: Channel) -> Port | None:
        """The port that a channel's messages come in at."""
        return self.ports.get(channel.door)

    @property
    def down(self) -> Mapping[str, str]:
        """What nobody can come in by though somebody should, and why."""
        doors: dict[str, Port | FileSource] = {**self.ports, **self.files}
        return {name: door.down for name, door in doors.items() if door.down and self._ours(name)}

    # -- from the ledger

    def stored(self, message: Message) -> None:
        inlet = self.inlets.get(message.channel.name)
        if inlet is not None:
            inlet.stored(message)

    def settled(self, settlement: Settlement) -> None:
        self.inlets[settlement.course.channel.name].settled(settlement)

    def kept(self, event: IntakeEvent) -> None:
        """Evidence is durable."""
        if event.reply is not None:
            event.reply.port.kept(event)

    def unstored(self, operation: Message | IntakeEvent) -> None:
        """The ledger cannot be written: no answer."""
        if isinstance(operation, Message):
            if inlet := self.inlets.get(operation.channel.name):
                inlet.unstored(operation)
        elif operation.reply is not None:
            operation.reply.port.unkept(operation)
        else:
            EVIDENCE_LOST.of(operation.channel.name).n += 1

    def failed(self, operation: Message | IntakeEvent) -> None:
        """This one could not be written, and others could."""
        if isinstance(operation, Message):
            if inlet := self.inlets.get(operation.channel.name):
                inlet.failed(operation)
        elif operation.reply is not None:
            operation.reply.port.unwritten(operation)

    def recovered(self) -> None:
        for port in self.ports.values():
            port.recovered()

    def sweep(self) -> None:
        for inlet in self.inlets.values():
            inlet.sweep()


def _reads(channel: Channel) -> bool:
    """Whether something of ours reads a channel's messages as text: a mapping, a filter, a memory. Where there is no
    target yet, it may be."""
    if channel.target is None or channel.remember:
        return True
    return any(each.kind == "medplum" or each.mapping or each.filter for each in channel.target.destinations)


def _name(raw: bytes) -> str:
    """MSH-10 of a message that goes back to a sender."""
    return (peek(raw).control_id or "").strip()


def _answer(raw: bytes) -> tuple[str, str] | None:
    """MSA-1 and MSA-2 of a frame that answers."""
    answer = parse_ack(raw)
    return None if answer is None else (answer.code, answer.control_id.strip())


def _is_text(raw: bytes, takes: Takes) -> bool:
    try:
        decode(raw, takes.encoding, takes.undeclared)
    except Undecodable:
        return False
    return True

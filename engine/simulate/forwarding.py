"""An old engine that does its work: takes a channel's messages, acknowledges them, and sends them on, in its manner.

A route is one of its interfaces: an input port, a queue, one output connection, on which messages go out one at a
time and in order, each as often as it takes until it is acknowledged (a "reject" takes it to the engine's own errors).
What goes out is the message with the engine's own stamps (MSH-7, MSH-10), its habits, and the mischief seeded in it.

Its numbers begin with MARK, which no sender's do: whoever gets a message sees from MSH-10 which side sent it.
The queue outlives `kill`, as though it stood on a disk; what was on its way then is sent again, with the same number.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeAlias

from engine.config.address import Address
from engine.hl7.ack import parse_ack
from engine.hl7.peek import peek
from engine.mllp.framing import encode
from engine.simulate.journal import Journal
from engine.simulate.mischief import DOUBLED, DROPPED, NONE, REORDERED, Mischief
from engine.simulate.old_engine import acknowledgement
from engine.simulate.wire import Line, Listener, Socket

Alteration: TypeAlias = Callable[[bytes], bytes]

MARK: Final = "OE"
"""How the control ids of the old engine begin."""

POSITIVE: Final = frozenset({"AA", "CA"})
FINAL: Final = frozenset({"AR", "CR"})
HELD_S: Final = 5.0
"""How long a message that is to be overtaken waits for another one of its patient."""


@dataclass(frozen=True, slots=True)
class Route:
    """One interface of the old engine. `port`: where it takes messages. `habits`: harmless, done to every message.

    delay: seconds that a message waits inside. mischief: what goes wrong, and how often.
    """

    channel: str
    port: int
    forward: Address
    habits: tuple[Alteration, ...] = ()
    mischief: Mischief = NONE
    delay: float = 0.0


@dataclass(frozen=True, slots=True)
class Seeded:
    """One thing that went wrong on purpose. `control_id`: the input's."""

    channel: str
    control_id: str
    fault: str
    at: float


@dataclass(slots=True)
class Output:
    """One message that the engine has to send. `origin`: the control id of its input."""

    origin: str
    control_id: str
    payload: bytes
    due: float


@dataclass(slots=True)
class Interface:
    """A route at work."""

    route: Route
    line: Line
    queue: deque[Output] = field(default_factory=deque)
    held: Output | None = None
    received: int = 0
    sent: int = 0
    errors: int = 0
    repeats: int = 0
    """Inputs whose control id had come before. They are worked on like any other."""
    paused: bool = False
    moved: asyncio.Event = field(default_factory=asyncio.Event)
    worker: asyncio.Task[None] | None = None
    release: asyncio.TimerHandle | None = None
    seen: set[str] = field(default_factory=set)


class ForwardingEngine:
    """The old engine of any number of channels."""

    def __init__(
        self,
        routes: Iterable[Route],
        *,
        alterations: Mapping[str, Alteration] | None = None,
        timeout: float = 10.0,
        pause: float = 0.2,
        journal: Path | None = None,
        moved: Callable[[], None] = lambda: None,
    ) -> None:
        """`alterations`: what the faults of the routes' mischief do to a message, by name. `timeout`: seconds for an
        answer. `pause`: seconds before a message without a positive answer is sent again. `moved` is called whenever
        anything changed. ValueError where a fault has no meaning."""
        self.seeded: list[Seeded] = []
        self._alterations = dict(alterations or {})
        self._pause = pause
        self._journal = Journal(journal)
        self._moved = moved
        self._numbers = 0
        self._running = False
        self._interfaces = {route.channel: Interface(route, Line(route.forward, timeout)) for route in routes}
        self._listeners = [self._listener(interface) for interface in self._interfaces.values()]
        for interface in self._interfaces.values():
            self._check(interface.route.mischief)

    def _listener(self, interface: Interface) -> Listener:
        return Listener(lambda socket, payload: self._take(interface, socket, payload), interface.route.port)

    def _check(self, mischief: Mischief) -> None:
        unknown = set(mischief.shares) - {DROPPED, DOUBLED, REORDERED} - set(self._alterations)
        if unknown:
            raise ValueError(f"no such faults: {', '.join(sorted(unknown))}")

    # -- what an operator of it sees and does

    def queue_length(self, channel: str | None = None) -> int:
        """Messages taken and not yet acknowledged by whom they are for: of one channel, or of all."""
        return sum(len(one.queue) + (one.held is not None) for one in self._of(channel))

    def received(self, channel: str | None = None) -> int:
        return sum(one.received for one in self._of(channel))

    def sent(self, channel: str | None = None) -> int:
        """Outputs that were acknowledged."""
        return sum(one.sent for one in self._of(channel))

    def errors(self, channel: str | None = None) -> int:
        """Outputs that were rejected for good."""
        return sum(one.errors for one in self._of(channel))

    def repeats(self, channel: str | None = None) -> int:
        """Inputs that came more than once."""
        return sum(one.repeats for one in self._of(channel))

    def drops(self) -> int:
        """Output connections that the other side ended."""
        return sum(one.line.drops for one in self._interfaces.values())

    def faults(self) -> Counter[str]:
        """How often each fault was seeded."""
        return Counter(seeded.fault for seeded in self.seeded)

    def pause(self, channel: str | None = None) -> None:
        """Go on taking messages, send none: the queue grows."""
        for one in self._of(channel):
            one.paused = True

    def resume(self, channel: str | None = None) -> None:
        for one in self._of(channel):
            one.paused = False
            one.moved.set()

    def mend(self, channel: str | None = None, mischief: Mischief = NONE) -> None:
        """From now on, other mischief, or none."""
        self._check(mischief)
        for one in self._of(channel):
            one.route = Route(
                one.route.channel, one.route.port, one.route.forward, one.route.habits, mischief, one.route.delay
            )

    def _of(self, channel: str | None) -> Sequence[Interface]:
        return list(self._interfaces.values()) if channel is None else [self._interfaces[channel]]

    async def start(self) -> None:
        """Listen, and send what is queued. OSError where a port is taken."""
        self._journal.open()
        for listener in self._listeners:
            await listener.start()
        self._running = True
        for channel, interface in self._interfaces.items():
            interface.worker = asyncio.create_task(self._work(interface), name=f"old engine {channel}")

    async def kill(self) -> None:
        """Be gone at once, with what was received and not yet sent still on its disk. `start` brings it back."""
        self._running = False
        for listener in self._listeners:
            await listener.stop()
        workers = [one.worker for one in self._interfaces.values() if one.worker]
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
        for one in self._interfaces.values():
            one.line.close()
            self._release(one)

    async def stop(self) -> None:
        """End for good."""
        await self.kill()
        self._journal.close()

    async def fail_for(self, seconds: float) -> None:
        """Be killed, and start again after a time."""
        await self.kill()
        await asyncio.sleep(seconds)
        await self.start()

    # -- coming in

    def _take(self, one: Interface, socket: Socket, payload: bytes) -> None:
        """Keep what is to be sent for it, then acknowledge."""
        head = peek(payload)
        control_id = head.raw(10)
        one.received += 1
        name = control_id.decode("latin-1")
        one.repeats += name in one.seen
        one.seen.add(name)
        for output in self._made(one, payload, control_id):
            self._queue(one, output)
        self._numbers += 1
        socket.write(encode(acknowledgement(head, self._numbers)))
        self._moved()

    def _made(self, one: Interface, payload: bytes, control_id: bytes) -> list[Output]:
        """The outputs of an input: one as a rule."""
        for habit in one.route.habits:
            payload = habit(payload)
        fault = one.route.mischief.drawn(control_id)
        if fault in self._alterations:
            altered = self._alterations[fault](payload)
            if altered != payload:
                self._seed(one, control_id, fault)
            return [self._output(one, altered, control_id)]
        if fault == DROPPED:
            self._seed(one, control_id, fault)
            return []
        output = self._output(one, payload, control_id)
        if fault == REORDERED and one.held is None:
            self._hold(one, output)
            return []
        if fault == DOUBLED:
            self._seed(one, control_id, fault)
            return [output, self._output(one, payload, control_id)]
        return [output]

    def _seed(self, one: Interface, control_id: bytes, fault: str) -> None:
        self.seeded.append(Seeded(one.route.channel, control_id.decode("latin-1"), fault, time.time()))

    def _output(self, one: Interface, payload: bytes, control_id: bytes) -> Output:
        self._numbers += 1
        number = f"{MARK}{self._numbers:010d}"
        due = asyncio.get_running_loop().time() + one.route.delay
        return Output(control_id.decode("latin-1"), number, stamped(payload, number), due)

    def _queue(self, one: Interface, output: Output) -> None:
        one.queue.append(output)
        held = one.held
        if held is not None and patient(held.payload) == patient(output.payload):
            self._seed(one, held.origin.encode("latin-1"), REORDERED)
            self._release(one)
        one.moved.set()

    def _hold(self, one: Interface, output: Output) -> None:
        """Keep one back until another one of its patient has overtaken it, or nobody did in time."""
        one.held = output
        one.release = asyncio.get_running_loop().call_later(HELD_S, self._release, one)

    def _release(self, one: Interface) -> None:
        held, one.held = one.held, None
        if one.release is not None:
            one.release.cancel()
            one.release = None
        if held is not None:
            one.queue.append(held)
            one.moved.set()

    # -- going out

    async def _work(self, one: Interface) -> None:
        await one.line.open()
        while True:
            output = await self._next(one)
            await self._send(one, output)
            one.queue.popleft()
            self._moved()

    async def _next(self, one: Interface) -> Output:
        """The oldest output, when its time has come and nobody has paused the queue."""
        while one.paused or not one.queue:
            one.moved.clear()
            await one.moved.wait()
        early = one.queue[0].due - asyncio.get_running_loop().time()
        if early > 0:
            await asyncio.sleep(early)
            return await self._next(one)
        return one.queue[0]

    async def _send(self, one: Interface, output: Output) -> None:
        """Until it is acknowledged, or rejected for good."""
        while True:
            got = await one.line.exchange(output.payload)
            answer = parse_ack(got) if got is not None else None
            code = answer.code if answer is not None and answer.control_id == output.control_id else ""
            if code in POSITIVE or code in FINAL:
                break
            await asyncio.sleep(self._pause)
        one.sent += code in POSITIVE
        one.errors += code in FINAL
        self._journal.write(
            {
                "channel": one.route.channel,
                "control_id": output.origin,
                "output": output.control_id,
                "code": code,
                "at": time.time(),
            }
        )


def stamped(payload: bytes, control_id: str) -> bytes:
    """The message with the engine's own MSH-7 and MSH-10; as it is where it has no such header."""
    header, cr, rest = payload.partition(b"\r")
    fields = header.split(b"|")
    if len(fields) < 10:
        return payload
    fields[6] = time.strftime("%Y%m%d%H%M%S").encode()
    fields[9] = control_id.encode()
    return b"|".join(fields) + cr + rest


def patient(payload: bytes) -> bytes:
    """PID-3 as it stands; empty where there is none."""
    at = payload.find(b"\rPID|")
    fields = payload[at + 1 : payload.find(b"\r", at + 1)].split(b"|", 4) if at >= 0 else []
    return fields[3] if len(fields) > 3 else b""

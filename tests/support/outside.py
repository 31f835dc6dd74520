"""The world around a service, in memory: endpoints that take messages or do not, an old engine that sends on what it
gets, senders. They keep what truly reached them; the referee is asked before each byte.

An endpoint is faithful: what it has taken it says yes to when it comes again, if it says anything.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from engine.compare.tap import TapPort
from engine.compare.tapping import Fate
from engine.config.model import Channel, Configuration
from engine.delivery import lane
from engine.delivery.breaker import Breaker
from engine.delivery.decision import Manner
from engine.delivery.work import Work
from engine.hl7.ack import acknowledge
from engine.hl7.peek import peek
from engine.intake.judge import Rules
from engine.ledger.course import ChannelBook
from engine.ledger.model import Message, TapOutput
from engine.ledger.outcome import Outcome, Result
from engine.mllp.replies import Answered, Lost, NotSent
from engine.service.comparing import Comparisons, Tapped
from engine.service.ways import LEGACY_MANNER, Ways
from tests.support.referee import LEGACY, NEW, OLD, Referee, need

MEDPLUM = "medplum"
OK, LATER, NO, UNREACHABLE, LOST, LOST_BUT_TAKEN = "ok", "later", "no", "unreachable", "lost", "lost but taken"
ANSWERS = (OK, LATER, NO, UNREACHABLE, LOST, LOST_BUT_TAKEN)


@dataclass(eq=False, slots=True)
class Sent:
    """One attempt of our side that has no outcome yet."""

    way: Way
    work: Work
    channel: str
    to: str
    seq: int
    doubtful: bool  # an attempt before this one may have been taken


@dataclass(eq=False, slots=True)
class Output:
    """What the old engine has still to send for an input to one real endpoint. `line`: it is on its way to a tap."""

    channel: str
    to: str
    seq: int
    raw: bytes
    line: Line | None = None


class Line:
    """A peer's socket at a port of ours; `heard` gets each answer."""

    commits = False

    def __init__(self, heard: Callable[[Line, bytes], None]) -> None:
        self._heard = heard
        self.number = 0
        self.owed = 0
        self.peer = "127.0.0.1:1"
        self.host = "127.0.0.1"
        self.open = True

    def send(self, payload: bytes) -> bool:
        if self.open:
            self._heard(self, payload)
        return self.open

    transmit = send

    def commit(self, stored: bool) -> None: ...

    def expect_more(self, seconds: float) -> None: ...

    def waive(self) -> None: ...

    def done_with(self) -> None: ...

    def pause(self) -> None: ...

    def resume(self) -> None: ...

    def close(self) -> None:
        self.open = False

    finish = close


class Outside:
    """Everything outside of the service, over all its lives."""

    def __init__(self, referee: Referee) -> None:
        self.referee = referee
        self.numbers: dict[str, tuple[str, int]] = {}  # control id → channel and sequence, once it is stored
        self.attempts: list[Sent] = []
        self.outputs: list[Output] = []
        self.acknowledged: dict[str, str] = {}  # control id → the code that its sender heard
        self.refused: set[tuple[str, int]] = set()  # what the old engine said no to, as its sender was told
        self.said_no: set[tuple[str, int]] = set()  # what the old engine said no to, whoever heard it
        self.has: dict[tuple[str, str], set[int]] = {}  # channel and destination → what it has taken
        self.parked: set[tuple[str, str, int]] = set()  # endpoint, channel, seq: outputs that wait for a person
        self.kept_back: set[tuple[str, str, int]] = set()  # outputs that a tap captured
        self.always = False  # everybody says yes at once
        self._doubtful: dict[tuple[str, str, int], bool] = {}

    # -- our side's attempts

    def send(self, way: Way, work: Work) -> None:
        id = peek(work.message.raw).control_id or ""
        need(id in self.numbers, f"bytes were sent that are no message: {work.message.raw[:20]!r}")
        channel, seq = self.numbers[id]
        need((channel, seq) == (way.channel, work.message.seq), f"{id} was sent as {way.channel}/{work.message.seq}")
        key = lane.patient(work.message.raw).decode() if way.to == MEDPLUM else ""
        need((channel, seq) not in self.refused, f"{channel}/{seq} goes to {way.to}, and its sender was told no")
        doubtful = (channel, way.to, seq) in self.referee.doubt
        repeats = way.to == MEDPLUM and seq in self.has.get((channel, MEDPLUM), ())
        self.referee.sends(channel, way.to, seq, key, repeats=repeats)
        attempt = Sent(way, work, channel, way.to, seq, doubtful)
        self.attempts.append(attempt)
        if self.always:
            way.soon(lambda: self.answer(attempt, OK))

    def answer(self, attempt: Sent, how: str) -> None:
        """The outcome of an attempt."""
        if attempt not in self.attempts:
            return
        self.attempts.remove(attempt)
        self.referee.answered(attempt.channel, attempt.to, attempt.seq)
        key = (attempt.channel, attempt.to, attempt.seq)
        if attempt.seq in self.has.get((attempt.channel, attempt.to), ()) and how in (LATER, NO):
            how = OK
        if how in (OK, LOST_BUT_TAKEN):
            self._take(attempt)
        if attempt.to == LEGACY and how in (LATER, NO):
            self.said_no.add((attempt.channel, attempt.seq))
        self._doubtful[key] = how in (LOST, LOST_BUT_TAKEN) or (how == UNREACHABLE and attempt.doubtful)
        attempt.work.done(attempt.work, self._outcome(attempt, how))

    def _outcome(self, attempt: Sent, how: str) -> Outcome:
        head = peek(attempt.work.message.raw)
        yes, later, no = (acknowledge(head, code, control_id="A", at=0) for code in ("AA", "AE", "AR"))
        return {
            OK: Outcome(Result.DELIVERED, "", yes),
            LATER: Outcome(Result.NOT_TAKEN, "answered AE", later),
            NO: Outcome(Result.NEVER, "answered AR", no),
            UNREACHABLE: Outcome(Result.NOT_TAKEN, "connection refused", trouble=True),
            LOST: Outcome(Result.UNKNOWN, "no answer", trouble=True),
            LOST_BUT_TAKEN: Outcome(Result.UNKNOWN, "no answer", trouble=True),
        }[how]

    def _take(self, attempt: Sent) -> None:
        channel, to, seq = attempt.channel, attempt.to, attempt.seq
        self.has.setdefault((channel, to), set()).add(seq)
        if to in self.referee.real[channel]:
            self.referee.took(to, NEW, channel, seq)
        elif to == LEGACY:
            self.outputs += [
                Output(channel, each, seq, attempt.work.message.raw) for each in self.referee.real[channel]
            ]

    def gone(self, taken: Callable[[], bool]) -> None:
        """The service has ended: of what was on its way nobody there will hear; `taken` says whether it arrived."""
        self.referee.ended()
        for attempt in self.attempts:
            self.referee.answered(attempt.channel, attempt.to, attempt.seq)
            if taken():
                self._take(attempt)
        self.attempts.clear()
        self._doubtful.clear()
        for output in self.outputs:
            output.line = None

    # -- from the ledger

    def stored(self, message: Message) -> None:
        assert message.control_id is not None
        self.numbers[message.control_id] = (message.channel.name, message.seq)

    def settled(self, channel: str, to: str, seq: int) -> None:
        if (channel, to, seq) in self._doubtful:
            self.referee.settled(channel, to, seq, self._doubtful[channel, to, seq])

    # -- the senders

    def sender(self) -> Line:
        return Line(lambda line, payload: self._heard(payload))

    def _heard(self, payload: bytes) -> None:
        fields = next(segment for segment in payload.split(b"\r") if segment.startswith(b"MSA")).split(b"|")
        code, id = fields[1].decode(), fields[2].decode()
        need(id in self.numbers, f"{id} was answered {code}, and is not durable")
        self.acknowledged[id] = code
        if code == "AR":
            channel, seq = self.numbers[id]
            self.refused.add((channel, seq))
            to = [to for (name, to), seqs in self.referee.sent.items() if name == channel and seq in seqs]
            need(to in ([], [LEGACY]), f"{channel}/{seq}: its sender was told no, and it went to {to}")

    # -- the old engine's own output

    def emit(self, output: Output, port: TapPort | None, how: str) -> None:
        """The old engine sends an output: to a tap, or where there is none straight to its endpoint."""
        if port is None:
            self._reaches(output)
            self.outputs.remove(output)
            return
        line = output.line = Line(lambda line, payload: self._accepted(output, line))
        port.connected(line)  # type: ignore[arg-type]
        port._sender = Forwarding(self, output, how)  # type: ignore[assignment]
        port.frame(line, output.raw)  # type: ignore[arg-type]
        if not line.open:
            output.line = None  # the old engine sends it again

    def _accepted(self, output: Output, line: Line) -> None:
        if output.line is line:
            self.outputs.remove(output)

    def _reaches(self, output: Output) -> None:
        self.referee.forwards(output.to, output.channel, output.seq)
        self.referee.took(output.to, OLD, output.channel, output.seq)

    def forward(self, output: Output, how: str) -> Any:
        """A tap sends an output on; the endpoint's reply."""
        if how == UNREACHABLE:
            return NotSent("connection refused")
        self.referee.forwards(output.to, output.channel, output.seq)
        if how == LOST:
            return Lost("no answer")
        self.referee.took(output.to, OLD, output.channel, output.seq)
        answer = acknowledge(peek(output.raw), "AA", control_id="A", at=0)
        return Lost("no answer") if how == LOST_BUT_TAKEN else Answered(answer)

    def decided(self, output: TapOutput) -> None:
        """A tap's output is durable, with what became of it."""
        channel, seq = self.numbers[output.control_id or ""]
        if output.decision == Fate.PARK.value:
            self.parked.add((output.tap, channel, seq))
        elif output.decision == Fate.CAPTURE.value:
            self.kept_back.add((output.tap, channel, seq))


class Forwarding:
    """A tap's way to its endpoint, for one output."""

    def __init__(self, outside: Outside, output: Output, how: str) -> None:
        self._outside, self._output, self._how = outside, output, how

    def send(self, job: Any) -> None:
        need(job.payload == self._output.raw, "a tap forwards something else")
        job.done(self._outside.forward(self._output, self._how))

    def cancel(self, job: Any) -> bool:
        return False


class Way:
    """A destination: one course's end."""

    def __init__(
        self, outside: Outside, channel: str, to: str, breaker: Breaker, manner: Manner,
        soon: Callable[[Callable[[], None]], Any],
    ) -> None:  # fmt: skip
        self.channel, self.to = channel, to
        self.breaker, self.manner = breaker, manner
        self.soon = soon
        self._outside = outside

    def lanes(self, raw: bytes) -> tuple[bytes, ...]:
        return lane.patients(raw) if self.to == MEDPLUM else lane.SHARED

    def ready(self, work: Work) -> None:
        return None

    def make(self, work: Work) -> None:
        return None

    def send(self, work: Work) -> None:
        self._outside.send(self, work)

    async def close(self) -> None: ...


class OutsideWays(Ways):
    """The configured ways, which end in memory."""

    def __init__(
        self, configuration: Configuration, outside: Outside, soon: Callable[[Callable[[], None]], Any]
    ) -> None:
        super().__init__(configuration)
        self._outside = outside
        self._soon = soon

    def prepare(self) -> None: ...

    async def keep(self) -> None: ...

    def versions(self, channel: Channel) -> dict[str, str]:
        return {}

    def accepts(self, channel: Channel) -> frozenset[str] | None:
        return None

    async def reach(self, name: str) -> tuple[bool | None, str]:
        return True, ""

    def destination(self, channel: Channel, name: str, incarnation: str) -> Any:
        if name == LEGACY:
            assert channel.legacy is not None
            assert channel.legacy.endpoint is not None
            return self._way(channel, LEGACY, channel.legacy.endpoint.name, LEGACY_MANNER)
        found = next((each for each in channel.destinations if each.name == name), None)
        if found is None or found.endpoint is None:
            return self._way(channel, MEDPLUM, MEDPLUM, Manner(settle_time=1.0)) if found else None
        return self._way(channel, name, name, Manner(parks_unknown=found.endpoint.on_unknown == "park"))

    def _way(self, channel: Channel, to: str, name: str, manner: Manner) -> Way:
        breaker = self._breakers.setdefault(name, Breaker(name))
        return Way(self._outside, channel.id, to, breaker, manner, self._soon)


class OutsideTaps(Comparisons):
    """The taps, without sockets and without a comparison: `attributed` says which input the next output belongs to."""

    def __init__(self, attributed: list[int | None], *values: Any) -> None:
        super().__init__(*values)
        self._attributed = attributed

    def add(self, channel: Channel, book: ChannelBook, rules: Rules) -> None:
        tapped = self.channels[channel.id] = Tapped(channel, book, _NoComparison(), lambda raw: None)  # type: ignore[arg-type]
        for tap in channel.taps:
            tapped.ports[tap.name] = TapPort(
                channel, tap, book, self._ledger, lambda raw, at: self._attributed[0], self._now, self._number,
                self._ways.sender(tap.forward),
            )  # fmt: skip

    async def open(self) -> None: ...

    async def close(self, grace: float) -> None: ...


class _NoComparison:
    """Nothing is compared."""

    def lag(self, tap: str) -> float | None:
        return None

    def counts(self) -> dict[str, Any]:
        return {}

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *values, **more: None

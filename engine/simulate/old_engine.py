"""A stand-in for the old engine: takes messages over MLLP, acknowledges them in its own manner, and misbehaves on
demand. It keeps what arrived, in order, in memory and, if asked, in a journal that survives a SIGKILL of anybody.

    python -m engine.simulate.old_engine --port 0 --faults '{"delay": 0.05, "ae": 0.01}' --journal arrived.ndjson

prints `{"port": …, "ports": […]}` when it listens. Its sockets are its own, not those of engine.mllp.server: a
simulator that shared them could not show their faults.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import time
from collections import Counter, deque
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from random import Random
from typing import Any, Final, Literal, TextIO, TypeAlias, cast

import uvloop

from engine.hl7.peek import Peek, peek
from engine.mllp.framing import Decoder, Frame, encode

Fault: TypeAlias = Literal["ae", "ar", "cut", "wrong_id", "silent"]
FAULTS: Final[tuple[Fault, ...]] = ("ae", "ar", "cut", "wrong_id", "silent")
KEPT: Final = 1_000_000
"""Arrivals kept in memory; the count goes on."""


@dataclass(frozen=True, slots=True)
class Down:
    """Stop listening, and drop every socket, when `after` messages have come; for `seconds`."""

    after: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Faults:
    """How the old engine misbehaves. Rates are shares of messages, 0 to 1, drawn from `seed`.

    delay: seconds from a message to its answer. ae, ar: answer "error", "reject". cut: close in mid-answer.
    wrong_id: answer for another message. silent: no answer, the socket stays open.
    by_id: for a control id, what happens at its first, second … arrival; afterwards, and for "", all is well.
    """

    delay: float = 0.0
    ae: float = 0.0
    ar: float = 0.0
    cut: float = 0.0
    wrong_id: float = 0.0
    silent: float = 0.0
    by_id: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    down: Down | None = None
    seed: int = 1

    @classmethod
    def parse(cls, text: str) -> Faults:
        """From JSON with these names. ValueError, TypeError where it is not that."""
        values: dict[str, Any] = json.loads(text)
        if "by_id" in values:
            values["by_id"] = {key: tuple(faults) for key, faults in values["by_id"].items()}
        if values.get("down"):
            values["down"] = Down(**values["down"])
        return cls(**values)


@dataclass(frozen=True, slots=True)
class Arrival:
    """One message that came. `at`: seconds since 1970. `socket`: its connection, numbered from 1."""

    control_id: str
    at: float
    socket: int


class OldEngine:
    """One simulated engine with any number of ports."""

    def __init__(
        self, *ports: int, faults: Faults | None = None, journal: Path | None = None, host: str = "127.0.0.1"
    ) -> None:
        """`ports`: 0 takes a free one; none at all means one free one."""
        self.faults = faults or Faults()
        self.host = host
        self.arrivals: deque[Arrival] = deque(maxlen=KEPT)
        self.payloads: deque[bytes] = deque(maxlen=1000)
        """The last messages, as they came."""
        self.count = 0
        self._wanted = list(ports or (0,))
        self._servers: list[asyncio.Server] = []
        self._sockets: set[_Socket] = set()
        self._numbers = 0
        self._answers = 0
        self._seen: Counter[str] = Counter()
        self._random = Random(self.faults.seed)
        self._outage: asyncio.Task[None] | None = None
        self._journal_path = journal
        self._journal: TextIO | None = None

    @property
    def ports(self) -> list[int]:
        """The ports it listens on, or will again."""
        return list(self._wanted)

    @property
    def port(self) -> int:
        return self._wanted[0]

    @property
    def control_ids(self) -> list[str]:
        """What arrived, in order, repeats included."""
        return [arrival.control_id for arrival in self.arrivals]

    async def start(self) -> None:
        """Listen. OSError where a port is taken."""
        if self._journal_path is not None and self._journal is None:
            self._journal = self._journal_path.open("a", buffering=1, encoding="utf-8")
        loop = asyncio.get_running_loop()
        for index, port in enumerate(self._wanted):
            server = await loop.create_server(lambda: _Socket(self), self.host, port)
            self._servers.append(server)
            self._wanted[index] = int(server.sockets[0].getsockname()[1])

    async def stop(self) -> None:
        """Close everything. What arrived stays readable."""
        if self._outage is not None:
            self._outage.cancel()
            await asyncio.gather(self._outage, return_exceptions=True)
        await self._close()
        if self._journal is not None:
            self._journal.close()
            self._journal = None

    async def fail_for(self, seconds: float) -> None:
        """Be gone: nobody listens, every socket is dropped. Then listen again on the same ports."""
        await self._close()
        await asyncio.sleep(seconds)
        await self.start()

    async def _close(self) -> None:
        servers, self._servers = self._servers, []
        for server in servers:
            server.close()
        for socket in tuple(self._sockets):
            socket.abort()
        for socket in tuple(self._sockets):
            await socket.gone.wait()

    # -- called by sockets

    def admit(self, socket: _Socket) -> int:
        """The number of a new socket."""
        self._sockets.add(socket)
        self._numbers += 1
        return self._numbers

    def forget(self, socket: _Socket) -> None:
        self._sockets.discard(socket)

    def take(self, socket: _Socket, payload: bytes) -> None:
        """A message has come: write it down, then answer it, one way or another."""
        head = peek(payload)
        control_id = head.control_id or ""
        self._write_down(Arrival(control_id, time.time(), socket.number))
        self.payloads.append(payload)
        fault = self._fault(control_id)
        if self.faults.delay:
            asyncio.get_running_loop().call_later(self.faults.delay, self._answer, socket, head, fault)
        else:
            self._answer(socket, head, fault)
        if self.faults.down is not None and self.count == self.faults.down.after:
            self._outage = asyncio.create_task(self.fail_for(self.faults.down.seconds), name="old engine is down")

    def _write_down(self, arrival: Arrival) -> None:
        self.count += 1
        self.arrivals.append(arrival)
        if self._journal is not None:
            self._journal.write(json.dumps(asdict(arrival)) + "\n")

    def _fault(self, control_id: str) -> str:
        """What goes wrong with this one; empty if nothing does."""
        planned = self.faults.by_id.get(control_id)
        if planned is not None:
            self._seen[control_id] += 1
            nth = self._seen[control_id]
            return planned[nth - 1] if nth <= len(planned) else ""
        drawn = self._random.random()
        for fault in FAULTS:
            drawn -= cast(float, getattr(self.faults, fault))
            if drawn < 0:
                return fault
        return ""

    def _answer(self, socket: _Socket, head: Peek, fault: str) -> None:
        if fault == "silent":
            return
        self._answers += 1
        answer = encode(acknowledgement(head, self._answers, fault))
        if fault == "cut":
            socket.write(answer[: len(answer) // 2])
            socket.close()
        else:
            socket.write(answer)


def acknowledgement(head: Peek, number: int, fault: str = "") -> bytes:
    """The old engine's own manner: its own numbers, local time without an offset, a text in MSA-3, an old MSH-9."""
    bar, component = head.separator, (head.raw(2) or b"^")[:1]
    code, text = {"ae": (b"AE", b"Application error"), "ar": (b"AR", b"Application reject")}.get(
        fault, (b"AA", b"Message accepted")
    )
    control_id = head.raw(10) if fault != "wrong_id" else b"NOT-" + head.raw(10)
    kind = component.join((b"ACK", head.trigger.encode("latin-1"))) if head.trigger else b"ACK"
    msh = (
        *(b"MSH", head.raw(2) or b"^~\\&", head.raw(5), head.raw(6), head.raw(3), head.raw(4)),
        *(time.strftime("%Y%m%d%H%M%S").encode(), b"", kind, b"OLD%07d" % number, head.raw(11), head.raw(12)),
    )
    return bar.join(msh) + b"\r" + bar.join((b"MSA", code, control_id, text)) + b"\r"


class _Socket(asyncio.Protocol):
    def __init__(self, engine: OldEngine) -> None:
        self._engine = engine
        self._decoder = Decoder()
        self._transport: asyncio.Transport | None = None
        self.number = 0
        self.gone = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self.number = self._engine.admit(self)

    def data_received(self, data: bytes) -> None:
        for event in self._decoder.feed(data):
            if isinstance(event, Frame):
                self._engine.take(self, event.payload)

    def connection_lost(self, exc: Exception | None) -> None:
        self._engine.forget(self)
        self.gone.set()

    def write(self, data: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()


def main(arguments: Iterable[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m engine.simulate.old_engine", description="A simulated old engine.")
    parser.add_argument("--port", type=int, action="append", help="may be repeated; 0: any free one")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--faults", type=Faults.parse, default=Faults(), help="JSON, as in class Faults")
    parser.add_argument("--journal", type=Path, help="NDJSON file of what arrived")
    options = parser.parse_args(None if arguments is None else list(arguments))
    engine = OldEngine(*(options.port or [0]), faults=options.faults, journal=options.journal, host=options.host)
    uvloop.run(_serve(engine))


async def _serve(engine: OldEngine) -> None:
    await engine.start()
    print(json.dumps({"port": engine.port, "ports": engine.ports}), flush=True)
    stop = asyncio.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(name, stop.set)
    await stop.wait()
    await engine.stop()


if __name__ == "__main__":
    main()

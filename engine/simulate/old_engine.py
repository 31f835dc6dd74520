"""A stand-in for the old engine: takes messages over MLLP, acknowledges them in its own manner, and misbehaves on
demand. It keeps what arrived, in order, in memory and, if asked, in a journal that survives a SIGKILL of anybody. It
sends nothing on: the one that does is in forwarding.py.

    python -m engine.simulate.old_engine --port 0 --faults '{"delay": 0.05, "ae": 0.01}' --journal arrived.ndjson

prints `{"port": …, "ports": […]}` when it listens.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import time
from collections import Counter, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, Final, Literal, TypeAlias, cast

import uvloop

from engine.hl7.peek import Peek, peek
from engine.mllp.framing import encode
from engine.simulate.journal import Journal
from engine.simulate.wire import LOOPBACK, Listener, Socket

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
        self, *ports: int, faults: Faults | None = None, journal: Path | None = None, host: str = LOOPBACK
    ) -> None:
        """`ports`: 0 takes a free one; none at all means one free one."""
        self.faults = faults or Faults()
        self.arrivals: deque[Arrival] = deque(maxlen=KEPT)
        self.payloads: deque[bytes] = deque(maxlen=1000)
        """The last messages, as they came."""
        self.count = 0
        self._listener = Listener(self._take, *ports, host=host)
        self._answers = 0
        self._seen: Counter[str] = Counter()
        self._random = Random(self.faults.seed)
        self._outage: asyncio.Task[None] | None = None
        self._journal = Journal(journal)

    @property
    def ports(self) -> list[int]:
        """The ports it listens on, or will again."""
        return list(self._listener.ports)

    @property
    def port(self) -> int:
        return self._listener.ports[0]

    @property
    def control_ids(self) -> list[str]:
        """What arrived, in order, repeats included."""
        return [arrival.control_id for arrival in self.arrivals]

    async def start(self) -> None:
        """Listen. OSError where a port is taken."""
        self._journal.open()
        await self._listener.start()

    async def stop(self) -> None:
        """Close everything. What arrived stays readable."""
        if self._outage is not None:
            self._outage.cancel()
            await asyncio.gather(self._outage, return_exceptions=True)
        await self._listener.stop()
        self._journal.close()

    async def fail_for(self, seconds: float) -> None:
        """Be gone: nobody listens, every socket is dropped. Then listen again on the same ports."""
        await self._listener.stop()
        await asyncio.sleep(seconds)
        await self._listener.start()

    def _take(self, socket: Socket, payload: bytes) -> None:
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
        self._journal.write(arrival)

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

    def _answer(self, socket: Socket, head: Peek, fault: str) -> None:
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

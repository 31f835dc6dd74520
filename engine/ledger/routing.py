"""Routing: where the messages of an epoch are due. A pure function of the epoch, the destination, and the grants of
rollbacks.

An epoch's routing table is decided once, when the epoch is opened (`engine.migration.phases`), and written into
its row; from then on nothing else is asked.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from enum import Enum


class Mode(Enum):
    """What is due at a destination. `OFF` and `DEFER` are routes, not states: nothing is due there."""

    SEND = "send"
    CAPTURE = "capture"  # output made and kept, never transmitted
    DEFER = "defer"  # kept back for the side that does not send; a rollback may grant it
    OFF = "off"
    SUPERSEDE = "supersede"  # by a rollback: closed here, the other side has it
    ASK = "ask"  # by a rollback: whether it may be sent, a person decides


LEGACY = "legacy"  # the name of the path on to the old engine, in every channel that has one


@dataclass(frozen=True, slots=True)
class Route:
    """One row of a routing table."""

    destination: str
    kind: str  # 'legacy' | 'medplum' | 'mllp' | 'file'
    mode: Mode
    order_by: str  # 'channel' | 'patient'
    mapping: str | None = None  # the mapping's content hash, where the destination maps

    @property
    def real(self) -> bool:
        """Whether this is an EMR or LIS that the old engine sends to as well: only one side may."""
        return self.kind in ("mllp", "file")


@dataclass(frozen=True, slots=True)
class Routing:
    """The routing table of an epoch.

    answer_from: whose answer the sender gets, a destination's name, or None for our own.
    taps: what becomes of the old engine's output for an input of this epoch: "forward" it to its real endpoint, or
    "hold" it back; "" where the channel has no taps.
    """

    routes: tuple[Route, ...]
    answer_from: str | None = None
    taps: str = ""

    def route(self, destination: str) -> Route | None:
        return next((route for route in self.routes if route.destination == destination), None)

    def due(self) -> tuple[Route, ...]:
        """The routes on which something is due for each message."""
        return tuple(route for route in self.routes if route.mode in (Mode.SEND, Mode.CAPTURE))

    def both_send(self) -> list[str]:
        """The real endpoints to which both sides would send: the old engine, and we. Must be empty."""
        old = self.route(LEGACY)
        if old is None or old.mode is not Mode.SEND:
            return []
        return [route.destination for route in self.routes if route.real and route.mode is Mode.SEND]

    def to_json(self) -> str:
        rows = [{**asdict(route), "mode": route.mode.value} for route in self.routes]
        taps = {"taps": self.taps} if self.taps else {}
        return json.dumps({"routes": rows, "answer_from": self.answer_from, **taps}, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Routing:
        data = json.loads(text)
        rows = tuple(Route(**{**row, "mode": Mode(row["mode"])}) for row in data["routes"])
        return cls(rows, data["answer_from"], data.get("taps", ""))


@dataclass(frozen=True, slots=True)
class Epoch:
    """A stretch of a channel's sequence numbers, from `first` to the next epoch's first, under one phase."""

    number: int
    first: int
    phase: str
    routing: Routing
    term: int = 0
    who: str = ""
    why: str = ""
    at: int = 0
    evidence: str | None = None


@dataclass(frozen=True, slots=True)
class Grant:
    """What a rollback made of a stretch of numbers at a destination: SEND (to the old engine after all), SUPERSEDE or
    ASK. It goes before the epoch's routing table.

    guarded: of what the old engine makes of these numbers, its taps hold back what we have delivered already.
    """

    destination: str
    first: int
    last: int
    mode: Mode
    run: int
    guarded: bool = False

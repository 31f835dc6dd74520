"""What is due: one delivery of one message to one destination, as the model of delivery sees it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from engine.config.endpoint import Dead
from engine.ledger.outcome import Outcome
from tests.delivery.texts import Text

Place = tuple[str, str, int, int]
"""Channel, destination, sequence, delivery."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A destination as it is configured. lanes: by patient, else one for the channel. window: how far it is claimed
    ahead. settle: seconds after which an attempt without an answer is over, and after which the endpoint can be asked
    what became of it; None where nobody can ask."""

    name: str
    lanes: bool
    window: int
    parks_unknown: bool = False
    dead: Dead = "waits"
    settle: float | None = None


class Stands(Enum):
    """How an unsettled delivery stands."""

    OPEN = "goes on by itself"
    PERSON = "a person decides, and its lane waits"
    ASIDE = "a person decides, and its lane has gone on"


@dataclass(eq=False, slots=True, repr=False)
class Due:
    """One delivery of one message to one destination."""

    place: Place
    texts: dict[int, Text]  # by revision; the newest is the one to be sent
    lanes: frozenset[str]
    asked_by: int = 0  # the replay that it belongs to
    stands: Stands = Stands.OPEN
    ended: bool = False
    part: int = 1
    parts: int = 1
    may: bool = True  # be sent now, as far as what is durable goes
    out: bool = False  # bytes may have gone out, and no durable outcome says of it
    doubt: float | None = None  # an attempt may have been taken: since when nobody is sending it any more
    inherited: bool = False  # claimed by a process that has ended
    on_the_way: bool = False
    heard: Outcome | None = None  # and not durable yet
    heard_at: float = 0.0
    passed: int | None = None  # up to there its lane had gone on when a person took it up again; None: no longer known
    sent: int = 0

    def __str__(self) -> str:
        channel, to, seq, delivery = self.place
        again = f" (delivery {delivery})" if delivery > 1 else ""
        return f"{channel}/{seq}{again} to {to}"

    __repr__ = __str__

    @property
    def seq(self) -> int:
        return self.place[2]

    @property
    def revision(self) -> int:
        return max(self.texts)

"""What moving connections needs of the running service: its channels, its ledger, what it measures, and that it follows
when an epoch has changed."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from engine.config.address import Address
from engine.config.feed import Feed
from engine.config.model import Channel
from engine.ledger.routing import Routing
from engine.ledger.sqlite.ledger import SqliteLedger
from engine.migration.gate.check import Fact
from engine.migration.peers import Here
from engine.migration.phases import Phase


@dataclass(frozen=True, slots=True)
class Seen:
    """A peer at a port of ours: its connections now, and on how many, since this process began, a message of it was
    stored and answered."""

    connected: int = 0
    answered: int = 0


class World(Protocol):
    """One running service. Times in microseconds since 1970, durations in seconds."""

    ledger: SqliteLedger
    channels: Sequence[Channel]
    feeds: Mapping[str, Feed]

    def now(self) -> int:
        """The wall clock: what is written down, what people agreed on by date and time (a window, `rollback_until`, the
        end of a waiver or an attestation), and how old a fact is."""

    def tick(self) -> float:
        """Seconds of a clock that nobody sets: how long something has lasted in this process."""

    def routing(self, channel: Channel, phase: Phase) -> Routing:
        """The routing table of a channel in a phase, with the mappings of the running configuration."""

    def windows(self, channel: Channel) -> dict[str, int]:
        """Destination → how many messages may be on the way at once."""

    def version(self, channel: Channel) -> str:
        """The hash of the effective mapping and of the channel's file."""

    def facts(self, channel: Channel) -> Awaitable[list[Fact]]:
        """What can be seen now: vendor, destinations, monitoring, would_refuse. Asks endpoints that may be asked."""

    def quiet_for(self, channel: Channel) -> float:
        """Seconds since anything came at a tap of the channel or was answered there, or went to the old engine; 0 as
        long as something of the old engine waits for an answer there."""

    def settle_time(self, channel: Channel) -> float:
        """Seconds of quiet after which nothing of the old engine is on its way any more. They pass by the machine's own
        clock, as does `quiet_for`: a wall clock that is set makes nothing quiet."""

    def unpaired(self, channel: Channel) -> int:
        """Inputs that the comparison still waits for an output of."""

    def pace(self, channel: Channel, destination: str) -> float | None:
        """Seconds from sending a message there to its outcome, lately; None where nothing was sent."""

    def rate(self, channel: Channel) -> float:
        """Messages a second that came in, lately."""

    def open_door(self, channel: Channel) -> Awaitable[str | None]:
        """Open where a channel's messages come in, or see that it is open: None. Else why it is not; then it is tried
        again by itself."""

    def shut_door(self, channel: Channel, grace: float) -> Awaitable[None]:
        """Close it: nothing new comes in, and what was begun is answered, for at most `grace` seconds."""

    def is_open(self, channel: Channel) -> bool:
        """Whether messages can come in there now."""

    def seen(self, channel: Channel) -> Mapping[str, Seen]:
        """IP address → what was seen of it there. Of a peer that we connect to: its host, as it is configured."""

    def here(self, channel: Channel) -> Awaitable[Here]:
        """What this machine's kernel knows of the port."""

    def answers(self, address: Address) -> Awaitable[str | None]:
        """Whether somebody takes a connection there: None, or why not."""

    def frozen(self, channel: Channel) -> None:
        """A freeze or a barrier has been set: who still waits for a relayed answer that cannot come gets ours."""

    def resumed(self, channel: Channel) -> None:
        """A freeze or a barrier is gone: what was held back may be claimed."""

    def moved(self, channel: Channel, *, rebuilt: Sequence[str] = ()) -> Awaitable[None]:
        """An epoch was opened. `rebuilt`: destinations whose open work was closed by others."""

    def spawn(self, work: Any, name: str) -> None:
        """Run a task as long as the service runs."""

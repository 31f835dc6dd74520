"""What moving connections needs of the running service: its channels, its ledger, what it measures, and that it follows
when an epoch has changed."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from typing import Any, Protocol

from engine.config.model import Channel
from engine.ledger.routing import Routing
from engine.ledger.sqlite.ledger import SqliteLedger
from engine.migration.gate.check import Fact
from engine.migration.phases import Phase


class World(Protocol):
    """One running service. Times in microseconds since 1970, durations in seconds."""

    ledger: SqliteLedger
    channels: Sequence[Channel]

    def now(self) -> int: ...

    def routing(self, channel: Channel, phase: Phase) -> Routing:
        """The routing table of a channel in a phase, with the mappings of the running configuration."""

    def windows(self, channel: Channel) -> dict[str, int]:
        """Destination → how many messages may be on the way at once."""

    def version(self, channel: Channel) -> str:
        """The hash of the effective mapping and of the channel's file."""

    def facts(self, channel: Channel) -> Awaitable[list[Fact]]:
        """What can be seen now: vendor, destinations, monitoring, would_refuse. Asks endpoints that may be asked."""

    def quiet_for(self, channel: Channel) -> float:
        """Seconds since anything came at a tap of the channel, or went to the old engine."""

    def settle_time(self, channel: Channel) -> float:
        """Seconds of quiet after which nothing of the old engine is on its way any more."""

    def unpaired(self, channel: Channel) -> int:
        """Inputs that the comparison still waits for an output of."""

    def pace(self, channel: Channel, destination: str) -> float | None:
        """Seconds from sending a message there to its outcome, lately; None where nothing was sent."""

    def rate(self, channel: Channel) -> float:
        """Messages a second that came in, lately."""

    def frozen(self, channel: Channel) -> None:
        """A freeze or a barrier has been set: who still waits for a relayed answer that cannot come gets ours."""

    def resumed(self, channel: Channel) -> None:
        """A freeze or a barrier is gone: what was held back may be claimed."""

    def moved(self, channel: Channel, *, rebuilt: Sequence[str] = ()) -> Awaitable[None]:
        """An epoch was opened. `rebuilt`: destinations whose open work was closed by others."""

    def spawn(self, work: Any, name: str) -> None:
        """Run a task as long as the service runs."""

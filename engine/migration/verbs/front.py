"""An old engine in front (`legacy: observed`): how its channel comes to have its vendors' port."""

from __future__ import annotations

from engine.config.edge import Files
from engine.config.model import Channel
from engine.migration.phases import Phase

BACK = {
    Phase.PARALLEL.value: "interlock legacy and interlock give-back, then ",
    Phase.LEGACY.value: "interlock give-back, then ",
}
"""Out of a phase in which its file cannot change: the copies have to end first."""


def to_take_over(channel: Channel, phase: str) -> str:
    """The steps, from a phase on."""
    way = "file:" if isinstance(channel.source, Files) else "mllp:"
    change = f"{way} in place of observed: in its file"
    if channel.feed:
        change = "legacy: in its feed's file in place of observed: in its own"
    return f"{BACK.get(phase, '')}{change}, a restart, and interlock takeover"

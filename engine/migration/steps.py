"""The steps of the runs that hand ports over (`handover`), and how such a run is made to turn back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from engine.migration.runs import GIVE_BACK, TAKEOVER

OPEN, CLOSE, WATCH, BACK = "open", "close", "watch", "back"
FIRST = {TAKEOVER: OPEN, GIVE_BACK: CLOSE}
"""The step that each verb's runs begin with."""

POLL = 0.05  # seconds between looks at what a run waits for, and between attempts to have a port
FAR = 0.5  # seconds between looks at what is not ours: another machine, or the kernel's tables
NAMED = 5  # addresses that a sentence names


@dataclass(frozen=True, slots=True)
class Ends:
    """How a run that turns back will end."""

    state: str
    said: str
    who: str = ""
    why: str = ""
    origin: str = ""


class TurnBack(Exception):
    """Somebody wants the run to turn back."""

    def __init__(self, ends: Ends) -> None:
        self.ends = ends
        super().__init__(ends.said)


def named(addresses: Sequence[str]) -> str:
    """The first few, and how many more."""
    more = f" and {len(addresses) - NAMED} more" if len(addresses) > NAMED else ""
    return ", ".join(addresses[:NAMED]) + more

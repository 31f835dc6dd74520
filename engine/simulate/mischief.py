"""What goes wrong in a simulated old engine, and with which message: shares of messages, drawn from their control ids.

The same message meets the same fate in every run, whenever it comes: what was seeded can be looked up afterwards.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Final

DROPPED: Final = "dropped"
DOUBLED: Final = "doubled"
REORDERED: Final = "reordered"
CONDUCT: Final = (DROPPED, DOUBLED, REORDERED)
"""What an old engine may do to whole messages. Every other name is an alteration of one message's content."""


@dataclass(frozen=True, slots=True)
class Mischief:
    """`shares`: by the fault's name, the share of messages that meet it, 0 to 1; together at most 1."""

    shares: Mapping[str, float] = field(default_factory=dict)
    seed: int = 1

    def __post_init__(self) -> None:
        if sum(self.shares.values()) > 1 or min(self.shares.values(), default=0) < 0:
            raise ValueError("the shares of faults lie between 0 and 1, also together")

    def drawn(self, control_id: bytes) -> str:
        """The fault that a message meets; empty for none."""
        if not self.shares:
            return ""
        lot = blake2b(b"%d/%b" % (self.seed, control_id), digest_size=7).digest()
        left = int.from_bytes(lot, "big") / (1 << 56)
        for fault, share in self.shares.items():
            left -= share
            if left < 0:
                return fault
        return ""


NONE: Final = Mischief()

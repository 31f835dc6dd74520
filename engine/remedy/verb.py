"""What a verb about messages is: it says what it would do, what stands against it, and does it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from engine.migration.refused import Refused

CONFIRM_ABOVE = 20
"""Messages; for more than that the number has to be said with the order."""


@dataclass(frozen=True, slots=True)
class Asked:
    """Who wants it, why, and from where; `confirm`: the number that was typed."""

    who: str
    why: str
    origin: str
    confirm: int | None = None


@dataclass(slots=True)
class Plan:
    """What would be done. `count`: of messages; `refused`: what stands against it."""

    verb: str
    count: int = 0
    lines: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        return {
            "verb": self.verb, "count": self.count, "lines": self.lines, "refused": self.refused,
            "confirm": self.count > CONFIRM_ABOVE,
        }  # fmt: skip

    def check(self, asked: Asked) -> None:
        """Raises Refused where it may not be done, or the number was not said."""
        if self.refused:
            raise Refused(*self.refused)
        if not self.count:
            raise Refused("There is nothing to do: no message is in that state.")
        if self.count > CONFIRM_ABOVE and asked.confirm != self.count:
            raise Refused(
                f"These are {self.count} messages: say so, with confirm: {self.count} (--confirm on the command line)."
            )

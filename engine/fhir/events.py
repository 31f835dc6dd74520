"""What happens at a FHIR server that people may have to take up with those who run it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from engine.observe.events import Event, Level


@dataclass(frozen=True, slots=True)
class RequestFailed(Event):
    """The server refused a request. code: the id under which its own log has it."""

    endpoint: str
    code: str
    reason: str
    level: ClassVar[Level | None] = "info"
    limited: ClassVar[bool] = True
    said: ClassVar[str] = "{endpoint} refused request {code}: {reason}"

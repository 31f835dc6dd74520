"""An endpoint: a real address outside, named once with its own limits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from engine.config.address import Address
from engine.config.edge import ACKNOWLEDGES, MLLP, Answers, Framing, Hours, Place, Tls

Unknown = Literal["resend", "park"]
Dead = Literal["waits", "goes_on", "stops_channel"]
Probe = Literal["none", "window", "always"]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Exactly one of `mllp`, `place` and `via` is set. Times in seconds.

    name: the key in endpoints.yaml; for one given in place as host:port, that address.
    place, file_name: a folder that messages are written to, and how the files are called: `{channel}`, `{sequence}`
    and `{control_id}` are filled in.
    via: the channel on whose sender's own connection messages go back to it.
    connections: at the same time, all channels together. rate: messages a second, 0 = as fast as it answers.
    persistent: False = a connection for each message. idle: seconds after which an unused connection is closed.
    on_unknown: what becomes of a message that may have been taken; None where nobody has said so yet.
    sink: nothing real happens there, so that both sides may send to it.
    """

    name: str
    mllp: Address | None
    connections: int = 1
    ack_timeout: float = 30.0
    on_unknown: Unknown | None = None
    connect_timeout: float = 10.0
    probe: Probe = "window"
    sink: bool = False
    place: Place | None = None
    file_name: str = "{channel}-{sequence}.hl7"
    via: str | None = None
    framing: Framing = MLLP
    persistent: bool = True
    idle: float | None = None
    keepalive: float = 60.0
    source_address: str | None = None
    rate: float = 0.0
    hours: Hours | None = None
    answers: Answers = ACKNOWLEDGES
    tls: Tls | None = None

    def __str__(self) -> str:
        if self.via is not None:
            return f"the senders of {self.via}"
        return str(self.mllp) if self.mllp is not None else self.name

"""What may become of a message that is sent. `NotSent` and `Lost` are the difference that matters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

TIMED_OUT = "answer timed out"
"""The reason of a `Lost` whose peer stayed silent."""
NOT_COMMITTED = "commit not acknowledged (NAK)"
"""The reason of a `NotSent` whose peer has said on the transport level that it could not store the message."""


@dataclass(frozen=True, slots=True)
class Answered:
    """The peer answered with a whole block."""

    payload: bytes


@dataclass(frozen=True, slots=True)
class Written:
    """No answer was expected, and the kernel has taken every byte; of a peer that speaks release 2 of MLLP: it has said
    on the transport level that it has stored the message. More cannot be known of such a peer."""


@dataclass(frozen=True, slots=True)
class NotSent:
    """The peer has nothing of the message. `reason` is short and stable: `connection refused`."""

    reason: str


@dataclass(frozen=True, slots=True)
class Lost:
    """The message was written, at least in part, and no complete answer came. The socket is closed."""

    reason: str


Reply: TypeAlias = Answered | Written | NotSent | Lost

"""What a connection is told about how it is kept, and whom it tells what it hears."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from engine.config.edge import MLLP, Framing
from engine.mllp.budget import Budget
from engine.mllp.framing import MAX_BYTES
from engine.mllp.sockets import KEEPALIVE

if TYPE_CHECKING:
    from engine.mllp.connection import Connection


class Handler(Protocol):
    """What a connection tells its owner. `connected` comes first and `closed` last, each exactly once."""

    def connected(self, conn: Connection) -> None: ...

    def frame(self, conn: Connection, payload: bytes) -> None:
        """A whole message. After `conn.pause()` nothing more comes until `conn.resume()`."""

    def noise(self, conn: Connection, data: bytes) -> None:
        """Bytes outside any block. Where `conn.stranger` says that another protocol is spoken, the connection ends."""

    def too_large(self, conn: Connection, head: bytes, size: int) -> None:
        """A message over the limit: its beginning, its size so far. An answer may be sent; then the server closes."""

    def unfinished(self, conn: Connection, head: bytes, why: str) -> None:
        """A message that never ended, all of it that came. `why`: `closed`, `timed out` (the server closes) or
        `restarted` (the sender began again; the connection goes on)."""

    def closed(self, conn: Connection) -> None: ...

    def refused(self, peer: str, why: str) -> None:
        """There is no connection with this peer (`ip:port`), and nothing else is told of it. `why` is short and
        stable, and names nothing of the peer's."""

    def probed(self, peer: str) -> None:
        """Somebody connected and went without a byte; nothing else is told of it."""


@dataclass(frozen=True, slots=True)
class Manner:
    """How connections are kept. Times in seconds; `idle` None = as long as the peer likes. `frame_timeout`: without a
    byte in a message, which may take `engine.mllp.connection.PATIENCE` times as long in all."""

    framing: Framing = MLLP
    max_bytes: int = MAX_BYTES
    frame_timeout: float = 60.0
    idle: float | None = None
    keepalive: float = KEEPALIVE
    one_message: bool = False
    budget: Budget | None = None  # who has one says `done_with` of each message


class Owner(Protocol):
    """Who keeps the connections together."""

    manner: Manner

    def admit(self, connection: Connection) -> str | None:
        """A connection is made. The reason where it is turned away."""

    def announced(self, connection: Connection) -> None:
        """It is known to be a peer's, and the handler is told next."""

    def forget(self, connection: Connection) -> None:
        """It is gone."""

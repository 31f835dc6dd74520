"""Who waits for an answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from engine.hl7.modes import Wanted
from engine.hl7.peek import Peek
from engine.ledger.model import IntakeEvent, Message
from engine.mllp.connection import Connection


class Room(Protocol):
    """Where connections wait: the port that a frame came in at."""

    def make_room(self, conn: Connection) -> None:
        """One more of its frames is answered, or will not be."""

    def stall(self, conn: Connection) -> None:
        """Read it no further until the ledger can be written again."""

    def kept(self, event: IntakeEvent) -> None:
        """Evidence that an answer hangs on is durable."""

    def unkept(self, event: IntakeEvent) -> None:
        """It cannot be written while the ledger cannot."""

    def unwritten(self, event: IntakeEvent) -> None:
        """It could not be written, and others could."""


class Reply:
    """The connection that a frame came on, since when it waits (seconds of the event loop's clock), the header that the
    answer is made from, and what the sender asks for.

    block: its number on the connection, for the acknowledgement on the transport level (MLLP release 2).
    frame: the whole of a batch, which may be acknowledged message by message.
    copies: the messages that a feed made of the frame, where it is more than one.
    given: it has its last answer, or will get none.
    """

    __slots__ = ("asks", "block", "conn", "copies", "frame", "given", "head", "port", "since")

    def __init__(
        self, port: Room, conn: Connection, head: Peek, since: float, asks: Wanted, frame: bytes | None = None
    ) -> None:
        self.port = port
        self.conn = conn
        self.head = head
        self.since = since
        self.asks = asks
        self.frame = frame
        self.copies: Sequence[Message] = ()
        self.given = False
        self.block = conn.block if conn.commits else 0

    def commit(self, stored: bool | None) -> None:
        """Whether the frame is stored, on the transport level; None: nothing is said of it."""
        if self.conn.commits:
            self.conn.commit(stored, self.block)

"""Why connections are not read just now. Each has its reasons; it is read again when the last of them is gone."""

from __future__ import annotations

from enum import Enum, auto

from engine.mllp.connection import Connection


class Why(Enum):
    """Why a connection is not read."""

    FULL = auto()  # too many of its messages are unanswered
    STALLED = auto()  # the ledger cannot be written
    LARGE = auto()  # a large message of it is being written; what is behind it has to stay behind it
    BAD = auto()  # it sends only what is no message: slowly, so that it costs the others nothing


class Quiet:
    """The connections of one port that are not read."""

    def __init__(self) -> None:
        self._reasons: dict[Connection, set[Why]] = {}

    def hush(self, conn: Connection, why: Why) -> None:
        """Do not read it."""
        self._reasons.setdefault(conn, set()).add(why)
        conn.pause()

    def lift(self, conn: Connection, why: Why) -> None:
        """This reason is gone."""
        reasons = self._reasons.get(conn)
        if reasons is None or why not in reasons:
            return
        reasons.discard(why)
        if not reasons:
            del self._reasons[conn]
            conn.resume()

    def lift_all(self, why: Why) -> None:
        """This reason is gone for all of them."""
        for conn in list(self._reasons):
            self.lift(conn, why)

    def has(self, conn: Connection, why: Why) -> bool:
        return bool(self._reasons) and why in self._reasons.get(conn, ())

    def forget(self, conn: Connection) -> None:
        """The connection is gone."""
        self._reasons.pop(conn, None)

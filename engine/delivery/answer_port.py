"""Where an endpoint's answers come, if it gives them on a connection that it makes to us."""

from __future__ import annotations

from collections.abc import Sequence

from engine.config.address import Address
from engine.config.endpoint import Endpoint
from engine.mllp.client import Client
from engine.mllp.connection import Connection
from engine.mllp.server import Listener
from engine.observe.delivery_events import AnswersUnheard, StrayAnswer
from engine.observe.events import emit


class AnswerPort:
    """One endpoint's port for answers. Which message an answer belongs to, its MSA-2 says; there is one line, so that
    at most one waits."""

    def __init__(self, endpoint: Endpoint, lines: Sequence[Client]) -> None:
        assert endpoint.answers.listen is not None
        self.address: Address = endpoint.answers.listen
        self.name = f"answers of {endpoint.name}"
        self._endpoint = endpoint.name
        self.down: str | None = "not opened yet"  # why no answer can come
        self._lines = lines
        self._listener = Listener(self.address, lambda: self, framing=endpoint.framing)

    async def open(self) -> None:
        """OSError where the port cannot be had; `down` says why."""
        try:
            await self._listener.start()
        except OSError as error:
            reason = error.strerror or "not possible"
            if self.down != reason:
                emit(AnswersUnheard(self._endpoint, str(self.address), reason))
            self.down = reason
            raise
        self.down = None

    async def close(self) -> None:
        await self._listener.close()

    # -- from the sockets (engine.mllp.handler.Handler)

    def connected(self, conn: Connection) -> None:
        """Any connection will do."""

    def closed(self, conn: Connection) -> None:
        """The next answer comes on another one."""

    def refused(self, peer: str, why: str) -> None:
        """Nobody is."""

    def probed(self, peer: str) -> None:
        """It does not matter."""

    def frame(self, conn: Connection, payload: bytes) -> None:
        conn.commit(True)
        conn.waive()  # an answer gets none
        for line in self._lines:
            line.offer(payload)

    def noise(self, conn: Connection, data: bytes) -> None:
        emit(StrayAnswer(self._endpoint, len(data)))

    def too_large(self, conn: Connection, head: bytes, size: int) -> None:
        emit(StrayAnswer(self._endpoint, size))

    def unfinished(self, conn: Connection, head: bytes, why: str) -> None:
        emit(StrayAnswer(self._endpoint, len(head)))

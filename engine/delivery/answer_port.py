"""Where an endpoint's answers come, if it gives them on a connection that it makes to us."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from engine.config.address import Address
from engine.config.endpoint import Endpoint
from engine.mllp.client import Client
from engine.mllp.connection import Connection
from engine.mllp.server import Listener
from engine.observe.delivery_events import AnswersUnheard, StrayAnswer
from engine.observe.events import emit

AGAIN = 2.0  # seconds until a port that could not be had is tried again


class AnswerPort:
    """One endpoint's port for answers. Which message an answer belongs to, its MSA-2 says; there is one line, so that
    at most one waits."""

    def __init__(self, endpoint: Endpoint, lines: Sequence[Client]) -> None:
        assert endpoint.answers.listen is not None
        self.address: Address = endpoint.answers.listen
        self._endpoint = endpoint.name
        self._lines = lines
        self._listener = Listener(self.address, lambda: self, framing=endpoint.framing)

    async def run(self) -> None:
        """Open the port; where that is not possible now, try again until it is."""
        told = False
        while True:
            try:
                await self._listener.start()
                return
            except OSError as error:
                if not told:
                    told = True
                    emit(AnswersUnheard(self._endpoint, str(self.address), error.strerror or "not possible"))
                await asyncio.sleep(AGAIN)

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
        conn.waive()  # an answer gets none
        for line in self._lines:
            line.offer(payload)

    def noise(self, conn: Connection, data: bytes) -> None:
        emit(StrayAnswer(self._endpoint, len(data)))

    def too_large(self, conn: Connection, head: bytes, size: int) -> None:
        emit(StrayAnswer(self._endpoint, size))

    def unfinished(self, conn: Connection, head: bytes, why: str) -> None:
        emit(StrayAnswer(self._endpoint, len(head)))

"""Where an endpoint's answers come, if it gives them on connections that it makes to us.

One port serves all who send to the endpoint: its one sender, and where it is the old engine those of its channels and
feeds. Which message an answer belongs to, its MSA-2 says. An answer that names none is taken for the message that waits
where that is the only one, and where its endpoint would take it on its own connection as well.
"""

from __future__ import annotations

from engine.config.endpoint import Endpoint
from engine.delivery.sender import Job, Sender
from engine.hl7.ack import parse_ack
from engine.hl7.batch import is_batch, read_batch
from engine.hl7.peek import peek
from engine.mllp.connection import Connection
from engine.mllp.server import Listener
from engine.mllp.tls import ServerTls
from engine.observe.delivery_events import AnswererRefused, AnswersHeard, AnswersUnheard, StrayAnswer
from engine.observe.events import emit


class AnswerPort:
    """One endpoint's port for answers. `senders`: all that send to it; whoever makes one adds it."""

    def __init__(self, endpoint: Endpoint, tls: ServerTls | None = None) -> None:
        listen = endpoint.answers.listen
        assert listen is not None
        self.address = listen.address
        self.name = f"answers of {endpoint.name}"
        self.endpoint = endpoint.name
        self.down: str | None = "not opened yet"  # why no answer can come
        self.senders: list[Sender] = []
        self.listener = Listener(self.address, lambda: self, framing=endpoint.framing, allow=listen.allow, tls=tls)

    async def open(self) -> None:
        """OSError where the port cannot be had; `down` says why."""
        try:
            await self.listener.start()
        except OSError as error:
            reason = error.strerror or "not possible"
            if self.down != reason:
                emit(AnswersUnheard(self.endpoint, str(self.address), reason))
            self.down = reason
            raise
        self.down = None
        emit(AnswersHeard(self.endpoint, str(self.address)))

    async def close(self) -> None:
        await self.listener.close()

    # -- from the sockets (engine.mllp.handler.Handler)

    def connected(self, conn: Connection) -> None:
        """Any connection will do."""

    def closed(self, conn: Connection) -> None:
        """The next answer comes on another one."""

    def refused(self, peer: str, why: str) -> None:
        emit(AnswererRefused(self.endpoint, peer, why))

    def probed(self, peer: str) -> None:
        """It does not matter."""

    def frame(self, conn: Connection, payload: bytes) -> None:
        conn.commit(True)
        conn.waive()  # an answer gets none
        job = self._whose(payload)
        if job is not None:
            job.offer(payload)
        elif not any(sender.came_elsewhere(payload) for sender in self.senders):
            emit(StrayAnswer(self.endpoint, len(payload)))

    def _whose(self, payload: bytes) -> Job | None:
        """The message that waits for this answer."""
        waiting = [job for sender in self.senders for job in sender.waiting]
        named = _named(payload)
        for job in waiting:
            if named.intersection(map(str.strip, _names(job))):
                return job
        if len(waiting) == 1 and waiting[0].fits is not None and waiting[0].fits(payload):
            return waiting[0]
        return None

    def noise(self, conn: Connection, data: bytes) -> None:
        emit(StrayAnswer(self.endpoint, len(data)))

    def too_large(self, conn: Connection, head: bytes, size: int) -> None:
        emit(StrayAnswer(self.endpoint, size))

    def unfinished(self, conn: Connection, head: bytes, why: str) -> None:
        emit(StrayAnswer(self.endpoint, len(head)))


def _names(job: Job) -> tuple[str, ...]:
    """A tap that sends an output on need not have looked at its header."""
    return job.names or (peek(job.payload).control_id or "",)


def _named(payload: bytes) -> set[str]:
    """The messages that an answer is of, or a batch of answers: MSA-2 without blanks around it."""
    batch = read_batch(payload) if is_batch(payload) else None
    answers = map(parse_ack, batch.messages if batch else (payload,))
    return {answer.control_id.strip() for answer in answers if answer is not None} - {""}

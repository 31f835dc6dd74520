"""Into a folder: each message is a file, whole or not at all. First in first out, one message at a time.

A file's name follows from the message, so that one written again is the same file: with the same bytes it is done.
Nothing that is there is overwritten.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace

from engine.config.endpoint import Endpoint
from engine.delivery import lane
from engine.delivery.breaker import Breaker
from engine.delivery.classes import End, outcome
from engine.delivery.decision import Manner
from engine.delivery.destinations.whole import WITH_OTHERS, Wholes
from engine.delivery.outputs import Outputs
from engine.delivery.work import Work
from engine.files.folder import FileTaken, Folder, FolderError
from engine.files.naming import Naming
from engine.ledger.outcome import Outcome, Result
from engine.ledger.sqlite.incarnations import Incarnations
from engine.observe.events import emit
from engine.observe.service_events import Fault


class FileDestination:
    """One course to a folder, which courses may share; it is closed by whoever opened it."""

    def __init__(
        self, channel: str, endpoint: Endpoint, folder: Folder, breaker: Breaker, manner: Manner,
        outputs: Outputs | None = None, wholes: Wholes | None = None, incarnations: Incarnations | None = None,
    ) -> None:  # fmt: skip
        """Raises ValueError where `endpoint.file_name` will not do. `outputs`: None for the message as it came.
        `wholes`: where files are to be again what they were."""
        self._outputs = outputs
        self.breaker = breaker
        self.manner = manner
        self._naming = Naming(endpoint.file_name, channel)
        self._folder = folder
        self._wholes = wholes
        self._incarnations = incarnations or Incarnations("")
        self._running: set[asyncio.Task[None]] = set()

    def lanes(self, raw: bytes) -> tuple[bytes, ...]:
        return lane.SHARED

    def ready(self, work: Work) -> asyncio.Future[None] | None:
        return self._outputs.ready(work) if self._outputs is not None else None

    def make(self, work: Work) -> Outcome | None:
        return self._outputs.make(work) if self._outputs is not None else None

    def send(self, work: Work) -> None:
        task = asyncio.get_running_loop().create_task(self._run(work), name="to a folder")
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _run(self, work: Work) -> None:
        message = work.message
        restores = self._incarnations.restores(message.id)
        name = self._naming.of(message.seq, work.part, work.delivery, message.control_id, restores)
        try:
            ended = await self._in_its_file(name, work) or await self._written(name, work.output)
        except Exception as error:
            fault = Fault.of(error)
            emit(fault)
            ended = outcome(End.DOUBTED, f"the delivery failed: {fault.reason}")
        work.done(work, ended)

    async def _in_its_file(self, name: str, work: Work) -> Outcome | None:
        """The whole file where its first message is due, or that it went out with that one; None where the message goes
        by itself, as one does that a person sends again."""
        if self._wholes is None or work.delivery > 1 or work.revision > 1:
            return None
        if (first := await self._wholes.within(work.message)) is not None:
            return outcome(End.TAKEN, f"in the file of message {first}")
        whole = await self._wholes.begun_by(work.message)
        if whole is None:
            return None
        data, count = whole
        ended = await self._written(name, data)
        if ended.result is Result.NEVER:
            return None  # its name belongs to another file: to this message by itself, if it went out so before
        return replace(ended, reason=WITH_OTHERS) if ended.result is Result.DELIVERED and count > 1 else ended

    async def _written(self, name: str, data: bytes) -> Outcome:
        try:
            await self._folder.put(name, data)
        except FileTaken:
            return outcome(End.NAME_TAKEN, "a file of this name and with other content is there")
        except FolderError as error:
            return outcome(_end(error), error.reason)
        return outcome(End.TAKEN)

    async def close(self) -> None:
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)


def _end(error: FolderError) -> End:
    """What a failure of the place is: it is never the message's."""
    if error.uncertain:
        return End.DOUBTED
    return End.SHUT_PLACE if error.fault else End.NO_PLACE

"""Into a folder: each message is a file, whole or not at all. First in first out, one message at a time.

A file's name follows from the message, so that one written again is the same file: with the same bytes it is done.
Nothing that is there is overwritten.
"""

from __future__ import annotations

import asyncio

from engine.config.endpoint import Endpoint
from engine.delivery import lane
from engine.delivery.breaker import Breaker
from engine.delivery.decision import Manner
from engine.delivery.outputs import Outputs
from engine.delivery.work import Work
from engine.files.folder import FileTaken, Folder, FolderError
from engine.files.naming import Naming
from engine.ledger.outcome import Outcome, Result
from engine.observe.events import emit
from engine.observe.service_events import Fault


class FileDestination:
    """One course to a folder, which courses may share; it is closed by whoever opened it."""

    window = 1

    def __init__(
        self, channel: str, endpoint: Endpoint, folder: Folder, breaker: Breaker, manner: Manner,
        outputs: Outputs | None = None,
    ) -> None:  # fmt: skip
        """Raises ValueError where `endpoint.file_name` will not do. `outputs`: None for the message as it came."""
        self._outputs = outputs
        self.breaker = breaker
        self.manner = manner
        self._naming = Naming(endpoint.file_name, channel)
        self._folder = folder
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
        name = self._naming.of(message.seq, work.part, work.delivery, message.control_id)
        try:
            outcome = await self._written(name, work.output)
        except Exception as error:
            fault = Fault.of(error)
            emit(fault)
            outcome = Outcome(Result.UNKNOWN, f"the delivery failed: {fault.reason}", trouble=True)
        work.done(work, outcome)

    async def _written(self, name: str, data: bytes) -> Outcome:
        try:
            await self._folder.put(name, data)
        except FileTaken:
            return Outcome(Result.NEVER, "a file of this name and with other content is there")
        except FolderError as error:
            return classify(error)
        return Outcome(Result.DELIVERED)

    async def close(self) -> None:
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)


def classify(error: FolderError) -> Outcome:
    """What follows from a failure of the place: it is never the message's."""
    if error.uncertain:
        return Outcome(Result.UNKNOWN, error.reason, trouble=True)
    if error.fault:
        return Outcome(Result.FAULT, error.reason)
    return Outcome(Result.NOT_TAKEN, error.reason, trouble=True)

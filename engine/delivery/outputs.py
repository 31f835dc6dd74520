"""What a message becomes at a destination: held back by a filter, mapped, split, with control ids of ours; by the
mapping of the epoch that the work says. The same message and version give the same outputs at every attempt."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from engine.delivery.work import Work
from engine.ledger.outcome import Outcome, Result
from engine.ledger.sqlite.incarnations import Incarnations
from engine.mapping.effective import Effective
from engine.mapping.library import Context, Unmappable
from engine.mapping.packing import NotKept
from engine.mapping.v2.filters import Filtered
from engine.mapping.v2.tables import Later
from engine.mapping.versions import Versions
from engine.observe.events import emit
from engine.observe.service_events import Fault

Recall = Callable[[str, str, int, bool], Mapping[str, Any] | None]
"""(store, key, message id, later) → what the newest message before that one brought; later: the first one after it."""


class Memory:
    """What earlier messages brought, as far as a mapping may look it up."""

    def __init__(self, recall: Recall, caught_up: Callable[[int], asyncio.Future[None]]) -> None:
        self.recall = recall
        self.caught_up = caught_up


class Outputs:
    """Makes the outputs of one channel for one destination."""

    def __init__(
        self, channel: str, destination: str, versions: Versions, incarnations: Incarnations, memory: Memory | None
    ) -> None:
        """`memory`: None where nobody remembers anything."""
        self._channel = channel
        self._destination = destination
        self._versions = versions
        self._incarnations = incarnations
        self._memory = memory
        self._loading: dict[str, asyncio.Task[None]] = {}
        self._failed: dict[str, Exception] = {}

    def version(self, work: Work) -> str:
        """Of the mapping by which it is to be made; "" where it goes as it came."""
        channel = work.message.channel
        epoch = channel.epoch if work.made_by is None else channel.epochs[work.made_by - 1]  # numbers count from 1
        route = epoch.routing.route(self._destination)
        return (route.mapping if route else None) or ""

    def ready(self, work: Work) -> asyncio.Future[None] | None:
        """What has to be waited for before `make`; None for nothing."""
        version = self.version(work)
        if not version:
            return None
        found = self._versions.at_hand(version)
        if found is None:
            return self._load(version) if version not in self._failed else None
        return self._memory.caught_up(work.message.id) if found.recalls and self._memory is not None else None

    def _load(self, version: str) -> asyncio.Task[None]:
        """Read an earlier version from the ledger, on another thread. Whether that went well, `make` finds out."""
        task = self._loading.get(version)
        if task is None:
            task = asyncio.get_running_loop().create_task(self._loaded(version), name="an earlier mapping")
            self._loading[version] = task
        return task

    async def _loaded(self, version: str) -> None:
        try:
            await asyncio.to_thread(self._versions.load, version)
        except Exception as error:
            self._failed[version] = error
        finally:
            del self._loading[version]

    def make(self, work: Work) -> Outcome | None:
        """Set `work.outputs`, but for those of FHIR, which are made where they are delivered; or say what ends the
        matter instead."""
        version = self.version(work)
        if not version:
            return None
        found = self._versions.at_hand(version)
        if found is None:
            return self._not_had(version)
        try:
            return self._made(work, found)
        except Later as error:
            return Outcome(Result.NOT_TAKEN, str(error), local=True)
        except Unmappable as error:
            return Outcome(Result.NEVER, str(error), local=True, aside=True)

    def _not_had(self, version: str) -> Outcome:
        error = self._failed.pop(version, None)
        if isinstance(error, NotKept):
            return Outcome(Result.NEVER, f"it is bound to an earlier mapping: {error}", local=True)
        if error is not None:
            emit(Fault.of(error))
        return Outcome(Result.NOT_TAKEN, "the mapping that it is bound to could not be read yet", local=True)

    def _made(self, work: Work, by: Effective) -> Outcome | None:
        made = by.outputs(work.message.raw, self._context(work, by), self._destination, work.delivery)
        if isinstance(made, Filtered):
            return Outcome(Result.FILTERED, made.reason, local=True)
        work.outputs = made
        return None

    def _context(self, work: Work, by: Effective) -> Context:
        message, memory = work.message, self._memory
        return by.context(
            self._channel, received=message.received, incarnation=self._incarnations.of(message.id), seq=message.seq,
            recall=None if memory is None else lambda store, key, later: memory.recall(store, key, message.id, later),
        )  # fmt: skip

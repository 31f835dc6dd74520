"""What a message becomes at a destination that takes HL7 v2: held back by a filter, mapped, split, with control ids of
ours. The same message gives the same outputs at every attempt."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from engine.config.filtering import AS_IT_CAME, Emit
from engine.config.model import Channel
from engine.delivery.work import Work
from engine.ledger.outcome import Outcome, Result
from engine.ledger.sqlite.incarnations import Incarnations
from engine.mapping.library import Context, Unmappable
from engine.mapping.v2.emission import emitted
from engine.mapping.v2.filters import Filter, Filtered
from engine.mapping.v2.library import V2Mapping
from engine.mapping.v2.tables import Later

Recall = Callable[[str, str, int], Mapping[str, Any] | None]
"""(store, key, message id) → what the newest message before that one brought."""


class Memory:
    """What earlier messages brought, as far as a mapping may look it up."""

    def __init__(self, recall: Recall, caught_up: Callable[[int], asyncio.Future[None]]) -> None:
        self.recall = recall
        self.caught_up = caught_up


class Outputs:
    """Makes the outputs of one channel for one destination."""

    def __init__(
        self, channel: Channel, destination: str, filter: Filter, mapping: Callable[[], V2Mapping] | None, emit: Emit,
        incarnations: Incarnations, memory: Memory | None,
    ) -> None:  # fmt: skip
        """`mapping`: as it is at present, with its tables as they are. `memory`: None where it looks nothing up."""
        self._channel = channel
        self._destination = destination
        self._filter = filter
        self._mapping = mapping
        self._emit = emit
        self._incarnations = incarnations
        self._memory = memory

    def ready(self, work: Work) -> asyncio.Future[None] | None:
        """What has to be waited for before `make`; None for nothing."""
        return self._memory.caught_up(work.message.id) if self._memory is not None else None

    def make(self, work: Work) -> Outcome | None:
        """Set `work.outputs`; or say what ends the matter instead."""
        takes, message = self._channel.takes, work.message
        try:
            reason = self._filter.verdict(message.raw, takes.encoding, takes.undeclared)
            if reason is not None:
                return Outcome(Result.FILTERED, reason, local=True)
            if self._mapping is None and self._emit is AS_IT_CAME:
                return None
            made = self._mapping().run(message.raw, self._context(work)) if self._mapping else [message.raw]
        except Later as error:
            return Outcome(Result.NOT_TAKEN, str(error), local=True)
        except Unmappable as error:
            return Outcome(Result.NEVER, str(error), local=True, aside=True)
        if isinstance(made, Filtered):
            return Outcome(Result.FILTERED, made.reason, local=True)
        work.outputs = emitted(
            made, self._emit, incarnation=self._incarnations.of(message.id), channel=self._channel.id, seq=message.seq,
            destination=self._destination, delivery=work.delivery,
        )  # fmt: skip
        return None

    def _context(self, work: Work) -> Context:
        channel, message, memory = self._channel, work.message, self._memory
        recall = None if memory is None else lambda store, key: memory.recall(store, key, message.id)
        return Context(
            channel=channel.id, connection=channel.connection, identity=channel.identity, timezone=channel.timezone,
            encoding=channel.takes.encoding, received=message.received, incarnation=self._incarnations.of(message.id),
            seq=message.seq, undeclared=channel.takes.undeclared, recall=recall,
        )  # fmt: skip

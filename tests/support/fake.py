"""A destination in a test's hands, in the place of a channel's Medplum."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from engine.config.model import Channel, Configuration
from engine.delivery import lane
from engine.delivery.breaker import Breaker
from engine.delivery.decision import Manner
from engine.delivery.work import Work
from engine.ledger.outcome import Outcome, Result
from engine.service.ways import Ways

DELIVERED = Outcome(Result.DELIVERED)


class Fake:
    """Idempotent, eight at once, patients side by side. `answer` gives the outcome; None: nothing is heard."""

    window = 8

    def __init__(self, answer: Callable[[Work], Outcome | None] = lambda work: DELIVERED, **manner: Any) -> None:
        self.breaker = Breaker("fake")
        self.manner = Manner(**manner)
        self.answer = answer
        self.sent: list[int] = []

    def lanes(self, raw: bytes) -> tuple[bytes, ...]:
        return lane.patients(raw)

    def ready(self, work: Work) -> None:
        return None

    def make(self, work: Work) -> Outcome | None:
        return None

    def send(self, work: Work) -> None:
        self.sent.append(work.message.seq)
        outcome = self.answer(work)
        if outcome is not None:
            asyncio.get_running_loop().call_soon(work.done, work, outcome)

    async def close(self) -> None:
        self.breaker.stop()


class FakeWays(Ways):
    """The configured ways, but for `medplum`, and what is called `medplum-…`."""

    def __init__(self, configuration: Configuration, fake: Fake) -> None:
        super().__init__(configuration)
        self._fake = fake

    def destination(self, channel: Channel, name: str, incarnation: str) -> Any:
        return self._fake if name.startswith("medplum") else super().destination(channel, name, incarnation)


def crash_image(ledger: Path, folder: Path) -> None:
    """The files as a SIGKILL at this moment would leave them."""
    folder.mkdir(parents=True, exist_ok=True)
    for suffix in ("", "-wal"):
        source = ledger.with_name(ledger.name + suffix)
        if source.exists():
            shutil.copy(source, folder / source.name)

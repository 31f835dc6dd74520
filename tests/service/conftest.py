from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from engine.simulate.old_engine import OldEngine
from tests.support.sandbox import sandbox, sandbox_process

__all__ = ["sandbox", "sandbox_process"]


@pytest.fixture(autouse=True)
def little_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a test leaves something on its way for ever, its service need not wait for it as long as a real one."""
    monkeypatch.setattr("engine.service.service.GRACE", 1.0)


@pytest.fixture
async def old_engine() -> AsyncIterator[OldEngine]:
    engine = OldEngine()
    await engine.start()
    yield engine
    await engine.stop()

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from engine.simulate.old_engine import OldEngine
from tests.support.sandbox import sandbox, sandbox_process

__all__ = ["sandbox", "sandbox_process"]


@pytest.fixture
async def old_engine() -> AsyncIterator[OldEngine]:
    engine = OldEngine()
    await engine.start()
    yield engine
    await engine.stop()

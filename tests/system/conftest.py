from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from engine.config.shipped import shipped_mappings
from engine.mapping.library import Library
from tests.support.sandbox import Sandbox, sandbox, sandbox_process
from tests.system.sequences import Site

__all__ = ["library", "sandbox", "sandbox_process", "site"]


@pytest.fixture(scope="session")
def library() -> Library:
    return Library.load(shipped_mappings())


@pytest.fixture
async def site(sandbox: Sandbox, library: Library) -> AsyncIterator[Site]:
    made = Site(sandbox, library)
    yield made
    await made.deliverer.close()

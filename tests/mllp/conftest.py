"""Both event loops that the product runs on: uvloop, and plain asyncio where uvloop is not to be had."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
import uvloop

from engine.mllp import server


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"uvloop": uvloop.new_event_loop, "asyncio": asyncio.new_event_loop}


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection is a peer's at once."""
    monkeypatch.setattr(server, "QUIET", 0.0)

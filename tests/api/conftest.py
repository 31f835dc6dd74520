"""The API over a service that is not there."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp.test_utils import TestClient, TestServer

from engine.api.application import application
from tests.support.told import Told


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
async def client(told: Told) -> AsyncIterator[TestClient[Any, Any]]:
    """Without the token: it is given where a request needs it."""
    async with TestClient(TestServer(application(told.asked_of, "secret", "0.1.0"))) as client:
        yield client

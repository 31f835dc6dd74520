"""The API over a service that is not there."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp.test_utils import TestClient, TestServer

from engine.api.application import application
from tests.api.told_codes import Codes
from tests.support.told import Told


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def codes() -> Codes:
    return Codes()


@pytest.fixture
async def client(told: Told, codes: Codes) -> AsyncIterator[TestClient[Any, Any]]:
    """Without the token: it is given where a request needs it."""
    asked = told.asked_of._replace(unmapped=codes)
    async with TestClient(TestServer(application(asked, "secret", "0.1.0"))) as client:
        yield client

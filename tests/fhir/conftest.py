from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from engine.fhir.client import FhirClient
from engine.fhir.deliverer import Deliverer
from tests.support.sandbox import CLIENT_ID, CLIENT_SECRET, Sandbox, sandbox, sandbox_process

__all__ = ["sandbox", "sandbox_process"]

MakeDeliverer = Callable[..., Deliverer]


@pytest.fixture
async def make_deliverer(sandbox: Sandbox) -> AsyncIterator[MakeDeliverer]:
    """Deliverers at the sandbox, as separate processes would have them; closed at the end."""
    made: list[Deliverer] = []

    def make(
        base: str | None = None, *, timeout: float = 5.0, secret: str = CLIENT_SECRET, **options: Any
    ) -> Deliverer:
        client = FhirClient(base or sandbox.base, CLIENT_ID, secret, timeout=timeout, connect_timeout=2.0)
        options.setdefault("server_limit", 0.4)
        made.append(Deliverer(client, **options))
        return made[-1]

    yield make
    for one in made:
        await one.close()


@pytest.fixture
async def deliverer(make_deliverer: MakeDeliverer) -> Deliverer:
    return make_deliverer()

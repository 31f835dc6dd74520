"""Searches of several messages share requests, and every one of them is answered."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from engine.fhir import client as client_module
from engine.fhir.client import FhirClient, Query, Spent


class Asked(FhirClient):
    """Each request waits until it is answered; nothing matches."""

    def __init__(self) -> None:
        super().__init__("http://fhir.example", "id", "secret")
        self.requests: list[asyncio.Future[None]] = []

    async def bundle(self, kind: str, entries: list[Any], *, repeatable: bool) -> list[dict[str, Any]]:
        self.requests.append(asyncio.get_running_loop().create_future())
        await self.requests[-1]
        return [{"response": {"status": "200"}, "resource": {"resourceType": "Bundle", "entry": []}} for _ in entries]


async def test_one_that_comes_in_the_very_turn_in_which_the_last_request_ends_is_sent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(client_module, "SEARCHES_AT_ONCE", 1)
    client, its_turn = Asked(), asyncio.Event()

    async def another() -> None:
        await its_turn.wait()
        assert await client.search([Query("Patient", "identifier=2")], Spent()) == [[]]

    later = asyncio.create_task(another())
    first = asyncio.create_task(client.search([Query("Patient", "identifier=1")], Spent()))
    while not client.requests:  # noqa: ASYNC110 - nothing announces it
        await asyncio.sleep(0)
    client.requests[0].set_result(None)
    its_turn.set()
    async with asyncio.timeout(5):
        assert await first == [[]]
        while len(client.requests) < 2:  # noqa: ASYNC110 - nothing announces it
            await asyncio.sleep(0)
        client.requests[1].set_result(None)
        await later

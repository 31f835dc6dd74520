"""One access token, asked for once, renewed before it ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import aiohttp
import pytest

from engine.fhir.failure import Trouble
from engine.fhir.token import Tokens
from engine.ledger.outcome import Result
from tests.support.sandbox import CLIENT_ID, CLIENT_SECRET, Sandbox


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as opened:
        yield opened


def make(sandbox: Sandbox, session: aiohttp.ClientSession, clock: Clock, path: str = "/oauth2/token") -> Tokens:
    return Tokens(session, sandbox.base + path, CLIENT_ID, CLIENT_SECRET, timeout=1.0, clock=clock)


async def test_whoever_waits_one_request_is_made(sandbox: Sandbox, session: aiohttp.ClientSession) -> None:
    tokens = make(sandbox, session, Clock())
    assert len(set(await asyncio.gather(*(tokens.get() for _ in range(10))))) == 1
    assert sandbox.stats()["tokensIssued"] == 1


async def test_it_is_renewed_before_it_ends(sandbox: Sandbox, session: aiohttp.ClientSession) -> None:
    clock = Clock()
    tokens = make(sandbox, session, clock)
    first = await tokens.get()
    clock.now = 3539
    assert await tokens.get() == first
    clock.now = 3541
    assert await tokens.get() != first


async def test_a_refused_token_is_replaced_once_for_all_who_had_it(
    sandbox: Sandbox, session: aiohttp.ClientSession
) -> None:
    tokens = make(sandbox, session, Clock())
    first = await tokens.get()
    assert len(set(await asyncio.gather(*(tokens.renew(first) for _ in range(5))))) == 1
    assert sandbox.stats()["tokensIssued"] == 2


@pytest.mark.parametrize(
    ("fault", "result"),
    [
        ({"status": 400, "body": {"error": "invalid_request", "error_description": "Invalid client"}}, Result.FAULT),
        ({"status": 401, "body": {"error": "invalid_client"}}, Result.FAULT),
        ({"status": 404, "html": True}, Result.FAULT),
        ({"status": 200, "body": {"no": "token"}}, Result.FAULT),
        ({"status": 429}, Result.NOT_TAKEN),
        ({"status": 502, "html": True}, Result.NOT_TAKEN),
        ({"dropConnection": True}, Result.NOT_TAKEN),
        ({"delayMs": 1500}, Result.NOT_TAKEN),
    ],
)
async def test_what_the_token_endpoint_does_is_classed(
    sandbox: Sandbox, session: aiohttp.ClientSession, fault: dict[str, object], result: Result
) -> None:
    sandbox.faults({**fault, "target": "token"})
    with pytest.raises(Trouble) as ended:
        await make(sandbox, session, Clock()).get()
    assert ended.value.result is result
    assert CLIENT_SECRET not in ended.value.reason


async def test_a_failure_is_shared_for_a_second(sandbox: Sandbox, session: aiohttp.ClientSession) -> None:
    clock = Clock()
    tokens = make(sandbox, session, clock)
    sandbox.faults({"status": 502, "html": True, "target": "token", "count": 1})
    for _ in range(5):
        with pytest.raises(Trouble):
            await tokens.get()
    assert sandbox.stats()["byCall"]["POST /oauth2/token"] == 1
    clock.now += 1.1
    await tokens.get()

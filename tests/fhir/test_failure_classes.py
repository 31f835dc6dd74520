"""What each end of an attempt at a FHIR server means for the message: one table, each row on a real HTTP server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import orjson
import pytest
from aiohttp import web

from engine.delivery.breaker import Breaker
from engine.delivery.decision import Manner, decide
from engine.fhir.client import FhirClient
from engine.fhir.deliverer import Deliverer
from engine.fhir.failure import Trouble
from engine.ledger.model import State
from engine.ledger.outcome import Outcome, Result
from tests.delivery.test_decision_classes import becomes
from tests.fhir.outputs import oru
from tests.support.ports import free_port

TIMEOUT = 0.5  # seconds until an answer is late
FHIR = "application/fhir+json"
TOKEN = {"access_token": "t", "expires_in": 3600}
PAGE = b"<html><body>Muster</body></html>"
TRANSACTION, SEARCH, CREATE, TOKENS = "the transaction", "the searches", "an anchor's create", "the token"


def outcome_of(id: str, code: str = "invalid", text: str = "") -> bytes:
    issue = {"severity": "error", "code": code, "details": {"text": text}}
    return orjson.dumps({"resourceType": "OperationOutcome", "id": id, "issue": [issue]})


@dataclass(frozen=True)
class Says:
    """An answer."""

    status: int
    body: bytes = PAGE
    limit: str = ""


@dataclass(frozen=True)
class Cuts:
    """The connection is cut: before anything is said, or in the middle of the answer."""

    half: bool = False


class Hangs:
    """Nothing comes."""


class Leaves:
    """The usual answer, and nobody listens from then on."""


LATER = outcome_of("transient", "transient")
PROBLEM = outcome_of("invalid")
MANY = outcome_of("multiple-matches", "multiple-matches")
STALE = outcome_of("precondition-failed", "conflict")
CONFLICT = outcome_of("conflict", "conflict")
GONE = outcome_of("not-found", "not-found")
FORBIDDEN = outcome_of("forbidden", "forbidden")
EXPIRED = outcome_of("unauthorized", "login")
QUOTA = '"requests";r=5999;t=60, "fhirInteractions";r=0;t=7'

Act = Says | Cuts | Hangs | Leaves | None
TABLE: dict[str, tuple[str, Act, State, bool]] = {
    # what happens: at which request, what the server does, what becomes of the message, whether the breaker opens
    # not taken: no byte was sent, or the server said "later"
    "nobody listens": ("", None, State.RETRYING, False),
    "409": (TRANSACTION, Says(409, CONFLICT), State.RETRYING, False),
    "412, somebody else wrote": (TRANSACTION, Says(412, STALE), State.RETRYING, False),
    "429": (TRANSACTION, Says(429, outcome_of("too-many-requests"), QUOTA), State.RETRYING, True),
    "503 with an outcome": (TRANSACTION, Says(503, LATER), State.RETRYING, False),
    # never
    "400": (TRANSACTION, Says(400, PROBLEM), State.DEAD, False),
    "412, many match": (TRANSACTION, Says(412, MANY), State.DEAD, False),
    "412, many match an anchor": (CREATE, Says(412, MANY), State.DEAD, False),
    "413": (TRANSACTION, Says(413, outcome_of("content-too-large")), State.DEAD, False),
    "413 of a proxy": (TRANSACTION, Says(413), State.DEAD, False),
    "422": (TRANSACTION, Says(422, PROBLEM), State.DEAD, False),
    # unknown: it may have been taken
    "408": (TRANSACTION, Says(408), State.UNKNOWN, False),
    "500": (TRANSACTION, Says(500, outcome_of("exception", "exception")), State.UNKNOWN, False),
    "502": (TRANSACTION, Says(502), State.UNKNOWN, False),
    "503 of a proxy": (TRANSACTION, Says(503), State.UNKNOWN, False),
    "504": (TRANSACTION, Says(504), State.UNKNOWN, False),
    "507": (TRANSACTION, Says(507), State.UNKNOWN, False),
    "a reset": (TRANSACTION, Cuts(), State.UNKNOWN, False),
    "half an answer": (TRANSACTION, Cuts(half=True), State.UNKNOWN, False),
    "a time-out": (TRANSACTION, Hangs(), State.UNKNOWN, False),
    "200 that is no JSON": (TRANSACTION, Says(200), State.UNKNOWN, False),
    "200 with too few entries": (TRANSACTION, Says(200, b'{"resourceType":"Bundle","entry":[]}'), State.UNKNOWN, False),
    # the same where it only reads, or may be repeated without harm: nothing is left in doubt
    **{f"{status} of a search": (SEARCH, Says(status), State.RETRYING, False) for status in (408, 500, 502, 503, 504)},
    "a reset of a search": (SEARCH, Cuts(), State.RETRYING, False),
    "a search without an answer": (SEARCH, Hangs(), State.RETRYING, False),
    "502 of an anchor": (CREATE, Says(502), State.RETRYING, False),
    "a reset of an anchor": (CREATE, Cuts(), State.RETRYING, False),
    # the endpoint's own fault: no message is blamed
    "401 after a fresh token": (TRANSACTION, Says(401, EXPIRED), State.RETRYING, True),
    "403": (TRANSACTION, Says(403, FORBIDDEN), State.RETRYING, True),
    "404 of the base": (SEARCH, Says(404), State.RETRYING, True),
    "404 of the base, by a FHIR server": (SEARCH, Says(404, GONE), State.RETRYING, True),
    "405": (TRANSACTION, Says(405), State.RETRYING, True),
    "301": (TRANSACTION, Says(301), State.RETRYING, True),
    "400 of another server": (TRANSACTION, Says(400), State.RETRYING, True),
    "no token: the secret is wrong": (TOKENS, Says(400, b'{"error":"invalid_request"}'), State.RETRYING, True),
    "no token: down": (TOKENS, Says(502), State.RETRYING, False),
    "no token: too many": (TOKENS, Says(429), State.RETRYING, False),
    # taken
    "200": ("", Hangs(), State.DELIVERED, False),
}


@pytest.mark.parametrize(("at", "act", "state", "opens"), TABLE.values(), ids=list(TABLE))
async def test_what_an_end_makes_of_the_message(at: str, act: Act, state: State, opens: bool) -> None:
    async with server(at, act) as base:
        ended = await delivered(base)
    breaker = Breaker("medplum")
    breaker.heard(ended)
    breaker.stop()
    assert (becomes(ended), breaker.open) == (state, opens), ended.reason
    assert "Muster" not in ended.reason


async def test_a_transaction_for_which_there_is_no_connection_has_not_left() -> None:
    async with server(TOKENS, Leaves()) as base:
        client = FhirClient(base, "id", "secret", timeout=TIMEOUT, connect_timeout=TIMEOUT)
        with pytest.raises(Trouble) as ended:
            await client.send_bundle(b"{}", 1, repeatable=False)
        await client.close()
    assert (ended.value.result, ended.value.reason) == (Result.NOT_TAKEN, "connection refused")
    assert ended.value.of_endpoint


async def test_a_token_that_has_ended_is_replaced_and_nobody_hears_of_it() -> None:
    async with server(TRANSACTION, Says(401, EXPIRED), times=1) as base:
        assert (await delivered(base)).result is Result.DELIVERED


async def test_the_servers_wish_is_the_least_wait() -> None:
    async with server(TRANSACTION, Says(429, outcome_of("too-many-requests"), QUOTA)) as base:
        ended = await delivered(base)
    made = decide(ended, 1, Manner(), relayed=False, unknown=False, jitter=0.0)
    assert made.wait is not None
    assert 6.0 <= made.wait <= 7.0


@pytest.mark.parametrize(("act", "opens"), [(Says(503, LATER), True), (Says(409, CONFLICT), False), (Cuts(), False)])
async def test_a_server_that_goes_on_saying_later_is_left_alone_and_one_that_conflicts_is_not(
    act: Act, opens: bool
) -> None:
    breaker = Breaker("medplum")
    async with server(TRANSACTION, act) as base:
        for _ in range(3):
            breaker.heard(await delivered(base))
    breaker.stop()
    assert breaker.open is opens


async def delivered(base: str) -> Outcome:
    """The outcome of one attempt to bring a report there."""
    client = FhirClient(base, "id", "secret", timeout=TIMEOUT, connect_timeout=TIMEOUT)
    deliverer = Deliverer(client, server_limit=0.1)
    try:
        async with asyncio.timeout(20):
            return await deliverer.deliver(oru(results=1), "i1/acme/1")
    finally:
        await deliverer.close()


@asynccontextmanager
async def server(at: str, act: Act, times: int = 1_000) -> AsyncIterator[str]:
    """An empty FHIR server with atomic transactions, whose requests of one kind end by `act`, the first `times` of
    them. Where that is None there is no server."""
    if act is None:
        yield f"http://127.0.0.1:{free_port()}"
        return
    left = times
    over = asyncio.Event()

    async def ending(request: web.Request) -> web.StreamResponse:
        if isinstance(act, Says):
            headers = {"RateLimit": act.limit} if act.limit else {}
            kind = "text/html" if act.body is PAGE else FHIR
            return web.Response(status=act.status, body=act.body, content_type=kind, headers=headers)
        if isinstance(act, Leaves):
            await site.stop()
            return web.json_response(TOKEN, headers={"Connection": "close"})
        assert request.transport is not None
        if isinstance(act, Hangs):
            await over.wait()
        elif act.half:
            response = web.StreamResponse(headers={"Content-Length": "1000", "Content-Type": FHIR})
            await response.prepare(request)
            await response.write(b'{"resourceType":')
        request.transport.abort()
        return web.Response()

    async def handle(request: web.Request) -> web.StreamResponse:
        nonlocal left
        body = await request.read()
        kind, answer = _usual(request.path, body)
        if kind == at and left:
            left -= 1
            return await ending(request)
        return web.json_response(answer, status=400 if "issue" in answer else 201 if kind == CREATE else 200)

    app = web.Application()
    app.router.add_route("*", "/{any:.*}", handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        over.set()
        await runner.cleanup()


def _usual(path: str, body: bytes) -> tuple[str, dict[str, Any]]:
    """Which kind of request it is, and what such a server says to it."""
    if path == "/oauth2/token":
        return TOKENS, TOKEN
    asked = orjson.loads(body)
    if asked["resourceType"] != "Bundle":
        return CREATE, {**asked, "id": "new", "meta": {"versionId": "1"}}
    if asked["type"] == "batch":
        nothing = {"response": {"status": "200"}, "resource": {"resourceType": "Bundle", "entry": []}}
        return SEARCH, {"resourceType": "Bundle", "entry": [nothing] * len(asked["entry"])}
    if "interlock-probe" in asked["entry"][0]["request"]["url"]:
        return "the probe", orjson.loads(PROBLEM)
    return TRANSACTION, {"resourceType": "Bundle", "entry": [{"response": {"status": "201"}}] * len(asked["entry"])}

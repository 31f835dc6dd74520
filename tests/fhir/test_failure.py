"""Every answer that a server or its proxy may give has its class."""

from __future__ import annotations

import socket

import aiohttp
import orjson
import pytest

from engine.fhir.failure import classify, parse_problem, trouble, unreached
from engine.ledger.outcome import Result
from tests.support.ports import free_port

TRACING = "https://medplum.com/fhir/StructureDefinition/tracing"


def outcome(id: str = "", code: str = "invalid", **issue: object) -> bytes:
    return orjson.dumps(
        {
            "resourceType": "OperationOutcome",
            "id": id,
            "issue": [{"severity": "error", "code": code, **issue}],
            "extension": [{"url": TRACING, "extension": [{"url": "requestId", "valueId": "r-1"}]}],
        }
    )


HTML = b"<html><body>Muster</body></html>"


@pytest.mark.parametrize(
    ("status", "body", "result"),
    [
        (301, b"", Result.FAULT),
        (400, outcome(), Result.NEVER),
        (400, HTML, Result.FAULT),
        (401, outcome("unauthorized"), Result.FAULT),
        (403, outcome("forbidden"), Result.FAULT),
        (404, outcome("not-found"), Result.FAULT),
        (404, HTML, Result.FAULT),
        (405, HTML, Result.FAULT),
        (408, HTML, Result.UNKNOWN),
        (409, outcome("conflict", "conflict"), Result.NOT_TAKEN),
        (410, outcome("gone"), Result.FAULT),
        (412, outcome("multiple-matches"), Result.NEVER),
        (412, outcome("precondition-failed"), Result.NOT_TAKEN),
        (413, outcome("content-too-large"), Result.NEVER),
        (413, HTML, Result.NEVER),
        (422, outcome(), Result.NEVER),
        (429, outcome("too-many-requests"), Result.NOT_TAKEN),
        (429, HTML, Result.NOT_TAKEN),
        (500, outcome(), Result.UNKNOWN),
        (502, HTML, Result.UNKNOWN),
        (503, outcome(), Result.NOT_TAKEN),
        (503, HTML, Result.UNKNOWN),
        (504, HTML, Result.UNKNOWN),
        (599, b"", Result.UNKNOWN),
    ],
)
def test_a_write_that_was_answered_so_is_classed_so(status: int, body: bytes, result: Result) -> None:
    assert classify(status, parse_problem(body)) is result


@pytest.mark.parametrize("status", [408, 500, 502, 503, 504])
def test_what_only_reads_or_may_be_repeated_never_ends_unknown(status: int) -> None:
    assert trouble(status, None, writes=False).result is Result.NOT_TAKEN


def test_a_reason_has_codes_and_places_but_no_text_that_may_repeat_a_message() -> None:
    body = outcome(
        details={"text": "Muster", "coding": [{"code": "c1"}]},
        diagnostics="Muster",
        expression=["Patient.name[0].family", "Patient.where(family='Muster')"],
    )
    ended = trouble(422, parse_problem(body), writes=True)
    assert ended.reason == "HTTP 422 invalid c1 Patient.name[0].family"
    assert ended.request_id == "r-1"


def test_a_reason_is_the_same_whatever_the_request() -> None:
    other = outcome().replace(b"r-1", b"r-2")
    assert (
        trouble(400, parse_problem(outcome()), writes=True).reason
        == trouble(400, parse_problem(other), writes=True).reason
    )


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"resourceType":"Patient"}', b'{"resourceType":"Oper', HTML])
def test_what_is_no_outcome_is_none(body: bytes) -> None:
    assert parse_problem(body) is None


@pytest.mark.parametrize(
    "issue", [{"details": "text"}, {"expression": None}, {"details": {"coding": None}}, {"code": 7}]
)
def test_a_malformed_outcome_is_still_read(issue: dict[str, object]) -> None:
    assert parse_problem(outcome(**issue)) is not None  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("status", "body", "endpoint"),
    [
        (409, outcome("conflict"), False),
        (412, outcome("precondition-failed"), False),
        (429, outcome("too-many-requests"), True),
        (503, outcome(), True),
        (502, HTML, True),
        (404, outcome("not-found"), False),
    ],
)
def test_only_what_concerns_the_whole_server_counts_against_it(status: int, body: bytes, endpoint: bool) -> None:
    assert trouble(status, parse_problem(body), writes=False).of_endpoint is endpoint


KEY = aiohttp.client_reqrep.ConnectionKey("medplum.example", 443, True, True, None, None, None)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (aiohttp.ClientConnectorError(KEY, ConnectionRefusedError(111, "refused")), "connection refused"),
        (aiohttp.ClientConnectorDNSError(KEY, socket.gaierror(-2, "unknown")), "host name not resolved"),
        (aiohttp.ConnectionTimeoutError(), "connect timed out"),
        (TimeoutError(), "answer timed out"),
        (aiohttp.ServerDisconnectedError(), "ServerDisconnectedError"),
    ],
)
def test_a_server_that_is_not_reached_is_named_as_a_peer_over_mllp_would_be(error: Exception, words: str) -> None:
    assert unreached(error) == words


async def test_a_medplum_that_is_down_refuses_connections() -> None:
    async with aiohttp.ClientSession() as session:
        with pytest.raises(aiohttp.ClientConnectorError) as raised:
            await session.get(f"http://127.0.0.1:{free_port()}")
    assert unreached(raised.value) == "connection refused"

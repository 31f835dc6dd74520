"""What a client of the API sees: the answers, who gets them, and what a mistake looks like."""

from __future__ import annotations

from typing import Any

import pytest
from aiohttp.test_utils import TestClient

from engine.api.application import Asked, application
from engine.migration.selection import Selector
from tests.support.told import Told

TOKEN = {"Authorization": "Bearer secret"}
Client = TestClient[Any, Any]


PRIVATE = [
    "/api/v1/status",
    "/api/v1/channels",
    "/api/v1/messages",
    "/api/v1/messages/acme/1",
    "/api/v1/openapi.json",
    "/api/v1/nothing",
    "/",
]


@pytest.mark.parametrize("path", PRIVATE)
@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic secret"}])
async def test_nothing_is_told_without_the_token(
    path: str, headers: dict[str, str], client: Client, told: Told
) -> None:
    answer = await client.get(path, headers=headers)
    assert answer.status == 401
    assert answer.headers["WWW-Authenticate"] == "Bearer"
    assert (await answer.json(content_type="application/problem+json"))["title"] == "Unauthorized"
    assert told.asked == []


@pytest.mark.parametrize("path", ["/metrics", "/healthz", "/readyz"])
async def test_machines_need_no_token(path: str, client: Client) -> None:
    assert (await client.get(path)).status == 200


async def test_metrics_are_prometheus_text(client: Client) -> None:
    answer = await client.get("/metrics")
    assert answer.headers["Content-Type"].startswith("text/plain; version=")
    assert "# TYPE interlock_open_messages gauge" in await answer.text()


async def test_each_scrape_is_told_with_who_asked(client: Client, told: Told) -> None:
    await client.get("/metrics", headers={"User-Agent": "Prometheus/3.1"})
    await client.get("/status", headers=TOKEN)
    assert told.scrapes == ["Prometheus/3.1"]


async def test_readiness_is_503_without_it_and_a_destination_never_counts(client: Client, told: Told) -> None:
    assert (await client.get("/readyz")).status == 200
    told.ready = False
    answer = await client.get("/readyz")
    assert answer.status == 503
    assert (await answer.json())["destinations"] == {"medplum": "HTTP 403"}


@pytest.mark.parametrize("path", ["/api/v1/status", "/api/v1/channels"])
async def test_what_the_service_tells_is_passed_on(path: str, client: Client, told: Told) -> None:
    answer = await client.get(path, headers=TOKEN)
    assert await answer.json() == (told.state if path.endswith("status") else [{"id": "acme"}])


async def test_messages_are_the_newest_fifty_unless_asked_otherwise(client: Client, told: Told) -> None:
    assert await (await client.get("/api/v1/messages", headers=TOKEN)).json() == told.rows
    await client.get("/api/v1/messages?channel=acme&limit=5&before=9", headers=TOKEN)
    assert told.asked == [
        ("messages", {"channel": None, "before": None, "limit": 50}),
        ("messages", {"channel": "acme", "before": 9, "limit": 5}),
    ]


async def test_a_channel_that_there_is_not_is_404(client: Client, told: Told) -> None:
    response = await client.get("/api/v1/messages?channel=nope", headers=TOKEN)
    assert (response.status, (await response.json())["detail"]) == (404, "no such channel")


@pytest.mark.parametrize(
    ("query", "detail"),
    [
        ("limit=0", "limit must be a whole number from 1 to 1000"),
        ("limit=ten", "limit must be a whole number from 1 to 1000"),
        ("limit=1001", "limit must be a whole number from 1 to 1000"),
        ("before=-1", "before must be a whole number from 1 to 9223372036854775807"),
        ("before=5", "before counts within a channel: give channel too"),
        ("control_id=X", "only channel, limit and before may stand in the query; POST a search for anything else"),
    ],
)
async def test_a_wrong_query_is_refused_with_a_sentence(query: str, detail: str, client: Client, told: Told) -> None:
    answer = await client.get(f"/api/v1/messages?{query}", headers=TOKEN)
    assert answer.status == 400
    assert (await answer.json(content_type="application/problem+json"))["detail"] == detail
    assert told.asked == []


async def test_what_stands_in_no_url_is_searched_by_post(client: Client, told: Told) -> None:
    keys = {"control_id": "MSG/1 ü", "order": "P1", "accession": "A1", "patient": "4711^^^ACME", "type": "ORU"}
    times = {"since": "2026-11-02T14:15:00Z", "until": "2026-11-02T15:15:00.5+01:00"}
    where = {"channel": "acme", "selector": {"connections": ["acme"]}, "before": "acme/812", "limit": 3}
    answer = await client.post("/api/v1/messages/search", json=keys | times | where, headers=TOKEN)
    assert await answer.json() == told.rows
    asked = {
        "keys": keys, "selector": Selector(connections=("acme",)), "channel": "acme", "since": 1_793_628_900_000_000,
        "until": 1_793_628_900_500_000, "before": ("acme", 812), "limit": 3,
    }  # fmt: skip
    assert told.asked == [("search", asked)]


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ({}, "nothing is searched for: give control_id, order, accession, patient or type, since or until, or a"),
        ({"limit": 5}, "nothing is searched for"),
        ({"selector": {}}, "nothing is searched for"),
        ({"since": "yesterday"}, "since must be a time with its zone, such as 2026-11-02T14:15:00Z"),
        ({"until": "2026-11-02T14:15:00"}, "until must be a time with its zone"),
        ({"patient": "1", "before": "acme"}, "before must be CHANNEL/SEQ, such as acme-results/812"),
        ({"patient": "1", "before": "/7"}, "before must be CHANNEL/SEQ"),
    ],
)
async def test_a_search_that_cannot_be_meant_is_refused_with_a_sentence(
    body: dict[str, Any], sentence: str, client: Client, told: Told
) -> None:
    answer = await client.post("/api/v1/messages/search", json=body, headers=TOKEN)
    assert answer.status == 400
    assert (await answer.json(content_type="application/problem+json"))["detail"].startswith(sentence)
    assert told.asked == []


async def test_the_document_shows_by_what_can_be_searched(client: Client) -> None:
    document = await (await client.get("/api/v1/openapi.json", headers=TOKEN)).json()
    shape = document["components"]["schemas"]["MessageSearch"]
    assert {"control_id", "order", "accession", "patient", "type", "since", "until", "selector"} < set(
        shape["properties"]
    )
    assert shape["required"] == []


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{", b"{}", b'{"control_id": 5}', b'{"control_id": "x", "limit": true}', b'{"control": "x"}']
)
async def test_a_wrong_search_is_refused(body: bytes, client: Client, told: Told) -> None:
    answer = await client.post("/api/v1/messages/search", data=body, headers=TOKEN)
    assert answer.status == 400
    assert told.asked == []


async def test_one_message_with_its_history(client: Client) -> None:
    answer = await (await client.get("/api/v1/messages/acme/1", headers=TOKEN)).json()
    assert (answer["raw"], answer["receipts"][0]["state"]) == ("TVNIfA==", "delivered")


@pytest.mark.parametrize("path", ["acme/2", "other/1"])
async def test_a_message_that_is_not_there_is_404(path: str, client: Client) -> None:
    answer = await client.get(f"/api/v1/messages/{path}", headers=TOKEN)
    assert answer.status == 404
    assert await answer.json(content_type="application/problem+json") == {
        "type": "about:blank",
        "title": "Not Found",
        "status": 404,
        "detail": "no such message",
    }


async def test_an_unknown_path_and_a_wrong_method_are_problem_objects_too(client: Client) -> None:
    for method, path, status in (("GET", "/api/v1/nothing", 404), ("DELETE", "/api/v1/status", 405)):
        answer = await client.request(method, path, headers=TOKEN)
        assert (answer.status, answer.content_type) == (status, "application/problem+json")


async def test_a_defect_is_500_without_its_text(
    client: Client, told: Told, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def fail() -> dict[str, Any]:
        raise RuntimeError("PID|CANARY")

    monkeypatch.setattr(told, "status", fail)
    answer = await client.get("/api/v1/status", headers=TOKEN)
    assert answer.status == 500
    assert "CANARY" not in await answer.text() + capsys.readouterr().err


async def test_the_openapi_document_names_every_path_of_the_application(told: Told, client: Client) -> None:
    document = await (await client.get("/api/v1/openapi.json", headers=TOKEN)).json()
    assert client.app is not None
    paths = {resource.canonical for resource in client.app.router.resources()} - {"/api/v1/openapi.json"}
    assert set(document["paths"]) == paths
    shape = document["components"]["schemas"]["MessageDetail"]
    assert set(shape["properties"]) == set(await (await client.get("/api/v1/messages/acme/1", headers=TOKEN)).json())


async def test_every_answer_holds_what_the_document_says(client: Client) -> None:
    document = await (await client.get("/api/v1/openapi.json", headers=TOKEN)).json()
    everything = {"selector": {"all": True}}
    for path, body, shape in (
        ("gate", everything, "GateRow"),
        ("compare", everything, "ComparedRow"),
        ("discrepancies", everything, "DiscrepancyRow"),
        ("discrepancies/7", None, "DiscrepancyDetail"),
        ("reconcile", everything, "ReconcileReport"),
        ("audit", None, "AuditRow"),
        ("audit/verify", None, "AuditVerdict"),
    ):
        asked = client.get if body is None else client.post
        found = await (await asked(f"/api/v1/{path}", json=body, headers=TOKEN)).json()
        one = found[0] if isinstance(found, list) else found
        assert set(one) == set(document["components"]["schemas"][shape]["properties"]), path


async def test_a_service_that_cannot_be_told_has_no_such_paths(told: Told) -> None:
    app = application(Asked(told), "secret")
    assert {resource.canonical for resource in app.router.resources()}.isdisjoint({"/api/v1/runs", "/api/v1/gate"})

"""What taps keep for a person, over HTTP: what reaches the service, and what is refused before it."""

from __future__ import annotations

from typing import Any

import pytest
from aiohttp.test_utils import TestClient

from engine.migration.selection import Selector
from tests.support.told import RAW, Told, output_row

TOKEN = {"Authorization": "Bearer secret", "User-Agent": "interlock/1"}
Client = TestClient[Any, Any]
ANN = {"who": "ann", "reason": "because"}
SAID = {"who": "ann", "reason": "because", "origin": "interlock/1 at 127.0.0.1", "dry_run": False}


async def post(client: Client, path: str, body: dict[str, Any]) -> tuple[int, Any]:
    answer = await client.post(f"/api/v1/tap-outputs{path}", json=body, headers=TOKEN)
    return answer.status, await answer.json(content_type=None)


async def test_the_list_is_of_all_or_of_what_is_selected(client: Client, told: Told) -> None:
    assert await post(client, "", {}) == (200, [output_row()])
    await post(client, "", {"selector": {"ids": ["acme"]}})
    assert told.taps.orders == [("outputs", None), ("outputs", Selector(("acme",)))]


async def test_one_with_its_bytes_wants_the_token(client: Client) -> None:
    path = "/api/v1/tap-outputs/14"
    assert (await client.get(path)).status == 401
    found = await (await client.get(path, headers=TOKEN)).json()
    assert found == output_row() | {"raw": RAW, "answer": None}
    document = await (await client.get("/api/v1/openapi.json", headers=TOKEN)).json()
    assert set(document["components"]["schemas"]["OutputDetail"]["properties"]) == set(found)
    assert (await client.get("/api/v1/tap-outputs/15", headers=TOKEN)).status == 404


@pytest.mark.parametrize(
    ("verb", "more", "asked"),
    [
        ("forward", {"again": True}, {"again": True}),
        ("forward", {}, {}),
        ("give", {"message": "acme/results/7"}, {"message": ("acme/results", 7)}),
        ("discard", {}, {}),
    ],
)
async def test_a_decision_reaches_the_service_whole(
    client: Client, told: Told, verb: str, more: dict[str, Any], asked: dict[str, Any]
) -> None:
    status, answer = await post(client, f"/14/{verb}", ANN | more)
    assert (status, answer["output"]["state"]) == (200, "discarded")
    assert told.taps.orders == [(verb, {"id": 14} | SAID | asked)]
    assert (await post(client, f"/15/{verb}", ANN | more))[0] == 404


@pytest.mark.parametrize(
    ("path", "body", "sentence"),
    [
        ("/14/discard", {"who": "ann"}, "a reason is wanted"),
        ("/14/discard", {"reason": "x"}, "who"),
        ("/14/discard", ANN | {"again": True}, "again"),
        ("/14/give", ANN, "message"),
        ("/14/give", ANN | {"message": "acme7"}, "CHANNEL/SEQ"),
        ("/x/forward", ANN, "id must be a whole number"),
        ("", {"selector": {"id": "acme"}}, "id"),
    ],
)
async def test_what_is_wrong_never_reaches_the_service(
    client: Client, told: Told, path: str, body: dict[str, Any], sentence: str
) -> None:
    status, problem = await post(client, path, body)
    assert (status, sentence in problem["detail"]) == (400, True), problem
    assert told.taps.orders == []


async def test_a_refusal_is_a_conflict(client: Client, told: Told) -> None:
    told.taps.stands_against = ["output 14 is discarded already, by bob"]
    status, problem = await post(client, "/14/forward", ANN)
    assert (status, problem["detail"]) == (409, "output 14 is discarded already, by bob")

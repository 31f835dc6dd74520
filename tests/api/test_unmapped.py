"""Unmapped codes over HTTP: what reaches the service, what is refused before it, and what the document says."""

from __future__ import annotations

from typing import Any

import pytest
from aiohttp.test_utils import TestClient

from engine.migration.refused import Refused
from engine.migration.selection import Selector
from tests.api.told_codes import LOST, MORE, ROW, Codes
from tests.support.told import Told

TOKEN = {"Authorization": "Bearer secret", "User-Agent": "interlock/1"}
Client = TestClient[Any, Any]
ORDER = {"selector": {"ids": ["acme"]}, "code": "WBC", "table": "LabTests", "state": "asked", "who": "ann"}


async def post(client: Client, path: str, body: dict[str, Any]) -> tuple[int, Any]:
    answer = await client.post(f"/api/v1/unmapped{path}", json=body, headers=TOKEN)
    return answer.status, await answer.json(content_type=None)


async def test_the_list_is_of_all_or_of_what_is_asked_for(client: Client, codes: Codes) -> None:
    assert await post(client, "", {}) == (200, {"codes": [ROW], "total": 1, "more": [MORE]})
    given = {"table": "LabTests", "state": "as-is", "owner": "lab", "limit": 5}
    await post(client, "", {"selector": {"connections": ["acme"]}} | given)
    await post(client, "", {"selector": {"all": True}})
    everything = {"table": "", "state": "", "owner": "", "limit": 1000}
    assert codes.asked == [
        ("codes", None, everything), ("codes", Selector(connections=("acme",)), given), ("codes", None, everything),
    ]  # fmt: skip


@pytest.mark.parametrize("path", ["", "/set", "/fields"])
async def test_nothing_of_it_is_told_without_the_token(client: Client, codes: Codes, path: str) -> None:
    answer = await client.post(f"/api/v1/unmapped{path}", json=ORDER if path == "/set" else {})
    assert (answer.status, codes.asked) == (401, [])


@pytest.mark.parametrize(
    ("said", "heard"),
    [
        ({}, {"system": None, "state": "asked", "owner": None, "note": None}),
        ({"system": "", "owner": "lab", "note": "which?"}, {"system": "", "state": "asked", "owner": "lab",
                                                             "note": "which?"}),
    ],
)  # fmt: skip
async def test_a_decision_reaches_the_service_whole(
    client: Client, codes: Codes, said: dict[str, Any], heard: dict[str, Any]
) -> None:
    assert await post(client, "/set", ORDER | said) == (200, [ROW | {"state": "asked"}])
    asked = {"code": "WBC", "table": "LabTests", "who": "ann", "origin": "interlock/1 at 127.0.0.1"} | heard
    assert codes.asked == [("decide", Selector(("acme",)), asked)]


@pytest.mark.parametrize(
    ("path", "body", "sentence"),
    [
        ("/set", {name: value for name, value in ORDER.items() if name != "state"}, "give a state, an owner or a note"),
        ("/set", ORDER | {"state": "done"}, "state must be one of open, asked, mapped, as-is"),
        ("/set", ORDER | {"selector": {}}, "nothing is selected"),
        ("/set", {"who": "ann"}, "must hold selector"),
        ("", {"state": "done"}, "state must be one of"),
        ("", {"limit": 10_001}, "limit must be from 1 to 10000"),
        ("/fields", {"table": "x"}, "'table', which is not known"),
    ],
)
async def test_what_is_wrong_never_reaches_the_service(
    client: Client, codes: Codes, path: str, body: dict[str, Any], sentence: str
) -> None:
    status, problem = await post(client, path, body)
    assert (status, sentence in problem["detail"], codes.asked) == (400, True, []), problem


async def test_a_refusal_is_a_conflict(client: Client, codes: Codes) -> None:
    codes.refusal = Refused("No table LabTests has missed the code WBC there.")
    assert (await post(client, "/set", ORDER))[0] == 409


async def test_fields_are_listed_and_the_document_says_what_is_answered(client: Client) -> None:
    assert await post(client, "/fields", {}) == (200, [LOST])
    document = await (await client.get("/api/v1/openapi.json", headers=TOKEN)).json()
    shapes = document["components"]["schemas"]
    assert set(shapes["CodeRow"]["properties"]) == set(ROW)
    assert set(shapes["MoreRow"]["properties"]) == set(MORE)
    assert set(shapes["LostRow"]["properties"]) == set(LOST)
    assert {path for path in document["paths"] if "unmapped" in path} == {
        "/api/v1/unmapped", "/api/v1/unmapped/set", "/api/v1/unmapped/fields",
    }  # fmt: skip


async def test_the_status_counts_open_codes_where_there_are_any(client: Client, codes: Codes, told: Told) -> None:
    assert await (await client.get("/api/v1/status", headers=TOKEN)).json() == told.state
    codes.count = 12
    assert (await (await client.get("/api/v1/status", headers=TOKEN)).json())["unmapped"] == 12

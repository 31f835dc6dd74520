"""What people do about single messages, over HTTP: what reaches the service, and what is refused before it."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from aiohttp.test_utils import TestClient

from engine.migration.refused import Refused
from engine.migration.selection import Selector
from tests.support.told import Told, replay_row, work_row

TOKEN = {"Authorization": "Bearer secret", "User-Agent": "interlock/1"}
Client = TestClient[Any, Any]
ANN = {"who": "ann", "reason": "because"}
SAID = {"who": "ann", "reason": "because", "origin": "interlock/1 at 127.0.0.1", "dry_run": False}


async def post(client: Client, path: str, body: dict[str, Any]) -> tuple[int, Any]:
    answer = await client.post(f"/api/v1/{path}", json=body, headers=TOKEN)
    return answer.status, await answer.json(content_type=None)


async def test_what_is_open_is_asked_of_channels_or_messages(client: Client, told: Told) -> None:
    assert await post(client, "open-work", {}) == (200, [work_row()])
    asked = {"messages": ["acme/7"], "destination": "emr", "state": "unknown"}
    await post(client, "open-work", asked)
    nothing = {"selector": None, "messages": [], "destination": None, "state": None}
    meant = {"selector": None, "messages": [("acme", 7)], "destination": "emr", "state": "unknown"}
    assert [order for _, order in told.remedies.orders] == [nothing, meant]


@pytest.mark.parametrize("verb", ["retry", "discard"])
async def test_a_decision_reaches_the_service_whole(client: Client, told: Told, verb: str) -> None:
    status, answer = await post(client, f"open-work/{verb}", ANN | {"selector": {"ids": ["acme"]}, "confirm": 21})
    assert (status, answer["done"]) == (200, 1)
    chosen = {"selector": Selector(("acme",)), "messages": [], "destination": None, "state": None}
    assert told.remedies.orders == [(verb, chosen | SAID | {"confirm": 21})]


async def test_an_edit_brings_bytes(client: Client, told: Told) -> None:
    raw = base64.b64encode(b"MSH|^~\\&|\xff").decode()
    body = ANN | {"message": "acme/results/7", "destination": "emr", "raw": raw}
    assert (await post(client, "open-work/edit", body))[0] == 200
    edit = {"message": ("acme/results", 7), "destination": "emr", "raw": b"MSH|^~\\&|\xff"}
    assert told.remedies.orders == [("edit", edit | SAID)]


async def test_a_replay_by_numbers(client: Client, told: Told) -> None:
    body = ANN | {"channel": "acme", "destination": "emr", "numbers": ["5", "8-30"]}
    status, answer = await post(client, "replays", body)
    assert (status, answer["replay"]) == (200, replay_row())
    meant = {"channel": "acme", "destination": "emr", "numbers": [(5, 5), (8, 30)], "search": None, "confirm": None,
             "mapping": "as-is"}  # fmt: skip
    assert told.remedies.orders == [("replay", meant | SAID)]


async def test_a_replay_by_the_mapping_as_it_was(client: Client, told: Told) -> None:
    body = ANN | {"channel": "acme", "destination": "emr", "numbers": ["5"], "mapping": "as-was"}
    assert (await post(client, "replays", body))[0] == 200
    assert told.remedies.orders[0][1]["mapping"] == "as-was"


async def test_a_replay_by_a_search(client: Client, told: Told) -> None:
    body = ANN | {"channel": "acme", "destination": "emr", "search": {"patient": "4711"}, "dry_run": True, "reason": ""}
    assert (await post(client, "replays", body))[0] == 200
    ((_, order),) = told.remedies.orders
    assert (order["numbers"], order["search"]["keys"], order["dry_run"]) == ([], {"patient": "4711"}, True)


async def test_a_replay_is_stopped(client: Client, told: Told) -> None:
    status, answer = await post(client, "replays/4/stop", ANN)
    assert (status, answer["state"]) == (200, "stopped")
    assert told.remedies.orders[0][1]["id"] == 4


@pytest.mark.parametrize(
    ("path", "body", "sentence"),
    [
        ("open-work/retry", ANN, "nothing is selected"),
        ("open-work/retry", ANN | {"messages": ["acme"]}, "CHANNEL/SEQ"),
        ("open-work/retry", {"who": "ann", "messages": ["acme/7"]}, "a reason is wanted"),
        ("open-work/discard", ANN | {"messages": ["acme/7"], "state": "delivered"}, "state"),
        ("open-work/edit", ANN | {"message": "acme/7", "destination": "emr", "raw": "!"}, "not base64"),
        ("replays", ANN | {"channel": "acme", "destination": "emr"}, "give numbers"),
        ("replays", ANN | {"channel": "acme", "destination": "emr", "numbers": ["9-3"]}, "no stretch"),
        ("replays", ANN | {"channel": "acme", "destination": "emr", "numbers": ["x"]}, "812 or 812-900"),
        ("replays", ANN | {"channel": "a", "destination": "e", "numbers": ["1"], "mapping": "old"}, "mapping"),
        ("replays", ANN | {"channel": "a", "destination": "e", "numbers": ["1"], "search": {"type": "ORU"}}, "one of"),
        ("replays/x/stop", ANN, "id must be"),
    ],
)
async def test_what_is_refused_before_the_service(
    client: Client, told: Told, path: str, body: dict[str, Any], sentence: str
) -> None:
    status, answer = await post(client, path, body)
    assert (status, sentence in answer["detail"]) == (400, True), answer
    assert told.remedies.orders == []


async def test_what_the_service_refuses_is_told(client: Client, told: Told) -> None:
    told.remedies.refusal = Refused("Not open: acme/7.")
    status, answer = await post(client, "open-work/retry", ANN | {"messages": ["acme/7"]})
    assert (status, answer["detail"]) == (409, "Not open: acme/7.")

"""Evidence over HTTP: gate, comparison, discrepancies, reconciliation, audit."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import orjson
import pytest
from aiohttp.test_utils import TestClient

from engine.migration.refused import Refused
from engine.migration.selection import Selector
from tests.support.told import Told, discrepancy_row, example

TOKEN = {"Authorization": "Bearer secret"}
Client = TestClient[Any, Any]
ACME = {"selector": {"connections": ["acme"]}}
CHOSEN = Selector((), ("acme",))


async def post(client: Client, path: str, body: Any) -> tuple[int, Any]:
    headers = TOKEN | {"User-Agent": "console", "Content-Type": "application/json"}
    answer = await client.post(f"/api/v1/{path}", data=BytesIO(orjson.dumps(body)), headers=headers)
    return answer.status, await answer.json(content_type=None)


async def get(client: Client, path: str) -> tuple[int, Any]:
    answer = await client.get(f"/api/v1/{path}", headers=TOKEN)
    return answer.status, await answer.json(content_type=None)


async def test_gate_and_comparison_are_passed_on(client: Client, told: Told) -> None:
    assert await post(client, "gate", ACME) == (200, told.evidence.gates)
    assert await post(client, "compare", ACME) == (200, told.evidence.comparisons)
    assert told.evidence.asked == [("gate", CHOSEN), ("compare", CHOSEN)]


async def test_discrepancies_are_asked_by_state(client: Client, told: Told) -> None:
    assert await post(client, "discrepancies", ACME) == (200, told.evidence.found)
    assert await post(client, "discrepancies", ACME | {"state": "fixed", "limit": 5}) == (200, [])
    assert told.evidence.asked == [("discrepancies", (CHOSEN, None, 200)), ("discrepancies", (CHOSEN, "fixed", 5))]


async def test_one_discrepancy_has_examples(client: Client) -> None:
    assert await get(client, "discrepancies/7") == (200, discrepancy_row() | {"examples": [example()]})


async def test_a_discrepancy_is_settled_by_name(client: Client, told: Told) -> None:
    decided = {"state": "explained", "reason": "rounds to one digit", "who": "ann"}
    status, row = await post(client, "discrepancies/7", decided)
    assert (status, row["state"], row["reason"]) == (200, "explained", "rounds to one digit")
    wanted = decided | {"owner": None, "origin": "console at 127.0.0.1"}
    assert told.evidence.asked == [("settle", (7, wanted))]


@pytest.mark.parametrize("path", ["discrepancies/9", "discrepancies/0", "discrepancies/x"])
async def test_a_discrepancy_that_is_not_there(path: str, client: Client) -> None:
    decided = {"state": "fixed", "reason": "release 2", "who": "ann", "owner": "bob"}
    wanted = 404 if path.endswith("9") else 400
    assert (await get(client, path))[0] == wanted
    assert (await post(client, path, decided))[0] == wanted


async def test_a_manifest_may_be_large(client: Client, told: Told) -> None:
    manifest = [{"control_id": f"MSG-{n:06}", "channel": None} for n in range(50_000)]
    assert await post(client, "reconcile", ACME | {"manifest": manifest}) == (200, told.evidence.report)
    ((_, (selector, items)),) = told.evidence.asked
    assert selector == CHOSEN
    assert (len(items), items[-1]) == (50_000, ("MSG-049999", None))


async def test_without_a_manifest_the_equation_alone_is_reconciled(client: Client, told: Told) -> None:
    await post(client, "reconcile", ACME)
    await post(client, "reconcile", ACME | {"manifest": None})
    await post(client, "reconcile", ACME | {"manifest": [{"control_id": "A", "channel": "acme-results"}]})
    assert [manifest for _, (_, manifest) in told.evidence.asked] == [None, None, [("A", "acme-results")]]


async def test_any_other_body_is_small(client: Client, told: Told) -> None:
    ids = [f"channel-{n}" for n in range(10_000)]
    assert (await post(client, "gate", {"selector": {"ids": ids}}))[0] == 413
    assert told.evidence.asked == []


@pytest.mark.parametrize(
    ("path", "body", "detail"),
    [
        ("gate", {}, "the body must hold selector"),
        ("gate", {"selector": {}}, "nothing is selected: give ids, connections or labels, or all: true"),
        ("compare", {"selector": {"labels": {"region": 5}}}, "selector.labels.region must be text"),
        ("discrepancies", ACME | {"state": "new"}, "state must be one of open, explained, fixed, accepted"),
        ("discrepancies/7", {"state": "fixed", "reason": "", "who": "ann"}, "reason must have 1 to 2000 characters"),
        ("reconcile", ACME | {"manifest": [{"control_id": 7}]}, "manifest[0].control_id must be text"),
    ],
)
async def test_a_wrong_question_is_a_sentence(
    path: str, body: dict[str, Any], detail: str, client: Client, told: Told
) -> None:
    status, problem = await post(client, path, body)
    assert (status, problem["detail"]) == (400, detail)
    assert told.evidence.asked == []


async def test_channels_that_do_not_exist_are_409(client: Client, told: Told) -> None:
    told.evidence.refusal = Refused("There is no connection 'acme'.")
    status, problem = await post(client, "gate", ACME)
    assert (status, problem["detail"]) == (409, "There is no connection 'acme'.")


async def test_the_audit_record_is_read_and_verified(client: Client, told: Told) -> None:
    assert await get(client, "audit") == (200, told.evidence.rows)
    assert (await get(client, "audit?limit=5&before=9"))[0] == 200
    assert told.evidence.asked == [("audit", (50, None)), ("audit", (5, 9))]
    assert await get(client, "audit/verify") == (200, told.evidence.verdict)
    assert (await get(client, "audit?limit=0"))[0] == 400

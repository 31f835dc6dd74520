"""Orders over HTTP: what reaches the service, what is refused before it, and how a run is watched."""

from __future__ import annotations

from typing import Any

import pytest
from aiohttp.test_utils import TestClient

from engine.api.moving import VERBS
from engine.migration.refused import Refused
from engine.migration.selection import Selector
from tests.support.told import Told, plan, run

TOKEN = {"Authorization": "Bearer secret"}
Client = TestClient[Any, Any]


def order(**changed: Any) -> dict[str, Any]:
    return {"selector": {"connections": ["acme"]}, "who": "ann", "reason": "window"} | changed


async def post(client: Client, verb: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    headers = TOKEN | {"User-Agent": "interlock/0.1.0 (linux)"}
    answer = await client.post(f"/api/v1/verbs/{verb}", json=body, headers=headers)
    return answer.status, await answer.json(content_type=None)


async def test_an_order_reaches_the_service_whole(client: Client, told: Told) -> None:
    selector = {"ids": ["a"], "connections": ["acme"], "labels": {"region": "west"}}
    options = {"carry": ["medplum", "acme-results/7"], "timeout_s": 300}
    told.moving.reply = {"plans": [plan()], "runs": [run()], "said": ["Begun."]}
    status, answer = await post(client, "cutover", order(selector=selector, options=options))
    assert status == 200
    assert answer == {"verb": "cutover", "dry_run": False, "plans": [plan()], "runs": [run()], "said": ["Begun."]}
    assert told.moving.orders == [
        {
            "verb": "cutover",
            "selector": Selector(("a",), ("acme",), {"region": "west"}, False),
            "options": options,
            "reason": "window",
            "who": "ann",
            "origin": "interlock/0.1.0 at 127.0.0.1",
            "dry_run": False,
        }
    ]


OPTIONS = {"attest": {"check": "rehearsed", "for_s": 60}, "waive": {"check": "window"}, "hold": {"for_s": 900.5}}


@pytest.mark.parametrize("verb", VERBS)
async def test_every_verb_has_its_path(verb: str, client: Client, told: Told) -> None:
    body = order(selector={"all": True}) | ({"options": OPTIONS[verb]} if verb in OPTIONS else {})
    assert (await post(client, verb, body))[0] == 200
    assert told.moving.orders[0]["verb"] == verb
    assert told.moving.orders[0]["options"] == OPTIONS.get(verb, {})


async def test_a_dry_run_needs_no_reason(client: Client, told: Told) -> None:
    assert (await post(client, "cutover", order(reason="", dry_run=True)))[0] == 200
    assert told.moving.orders[0]["dry_run"] is True


async def test_a_run_may_be_aborted_by_its_number_alone(client: Client, told: Told) -> None:
    assert (await post(client, "abort", order(selector={}, options={"run": 12})))[0] == 200
    assert told.moving.orders[0]["selector"] == Selector()


@pytest.mark.parametrize(
    ("verb", "changed", "detail"),
    [
        ("cutover", {"reason": ""}, "a reason is wanted, as text: it goes into the audit record"),
        ("cutover", {"reason": "  "}, "a reason is wanted, as text: it goes into the audit record"),
        ("cutover", {"who": ""}, "who must have 1 to 2000 characters"),
        ("cutover", {"selector": {}}, "nothing is selected: give ids, connections or labels, or all: true"),
        ("abort", {"selector": {}}, "nothing is selected: give ids, connections or labels, or all: true"),
        ("cutover", {"selector": {"id": ["a"]}},
         "selector holds 'id', which is not known; known are ids, connections, labels, all"),
        ("cutover", {"dry-run": True},
         "the body holds 'dry-run', which is not known; known are selector, who, reason, dry_run, options"),
        ("release", {"options": {"for_s": 5}}, "options holds 'for_s', which is not known; known are none"),
        ("hold", {"options": {"for_s": 0}}, "options.for_s must be from 0.001 to 315360000"),
        ("rollback", {"options": {"replay": "some"}},
         "options.replay must be one of guarded, undelivered, all, none"),
        ("attest", {}, "the body must hold options"),
        ("waive", {"options": {}}, "options must hold check"),
    ],
)  # fmt: skip
async def test_a_wrong_order_is_refused_and_never_reaches_the_service(
    verb: str, changed: dict[str, Any], detail: str, client: Client, told: Told
) -> None:
    status, problem = await post(client, verb, order(**changed))
    assert (status, problem["detail"]) == (400, detail)
    assert told.moving.orders == []


async def test_a_refusal_of_the_service_is_409_with_its_sentences(client: Client, told: Told) -> None:
    told.moving.refusal = Refused("acme is held by ann until 03:00.", "The gate is not passed.")
    status, problem = await post(client, "cutover", order())
    assert (status, problem["title"]) == (409, "Conflict")
    assert problem["detail"] == "acme is held by ann until 03:00.\nThe gate is not passed."


async def test_an_unknown_verb_is_404(client: Client) -> None:
    assert (await post(client, "frobnicate", order()))[0] == 404


async def test_an_order_wants_the_token(client: Client, told: Told) -> None:
    answer = await client.post("/api/v1/verbs/cutover", json=order())
    assert answer.status == 401
    assert told.moving.orders == []


async def test_runs_are_listed(client: Client, told: Told) -> None:
    going, ended = told.moving.goes(run(12)), told.moving.goes(run(11, state="done"))
    assert await (await client.get("/api/v1/runs", headers=TOKEN)).json() == [going, ended]
    assert await (await client.get("/api/v1/runs?active=true", headers=TOKEN)).json() == [going]


async def test_a_run_is_answered_when_it_has_changed(client: Client, told: Told) -> None:
    told.moving.goes(run(12, said="waits for 3"))
    answer = await client.get("/api/v1/runs/12?after=4&wait=20", headers=TOKEN)
    assert (await answer.json())["said"] == "waits for 3"
    await client.get("/api/v1/runs/12", headers=TOKEN)
    assert told.moving.waits == [(12, 4, 20.0), (12, None, 0.0)]


@pytest.mark.parametrize(
    ("path", "status", "detail"),
    [
        ("runs/9", 404, "no such run"),
        ("runs/x", 400, "id must be a whole number from 1 to 9223372036854775807"),
        ("runs/12?wait=31", 400, "wait must be a whole number from 0 to 30"),
        ("runs/12?before=3", 400, "only after and wait may stand in the query"),
        ("runs?active=yes", 400, "active must be true or false"),
        ("runs?state=done", 400, "only active may stand in the query"),
    ],
)
async def test_a_wrong_question_about_runs_is_a_sentence(
    path: str, status: int, detail: str, client: Client, told: Told
) -> None:
    told.moving.goes(run(12))
    answer = await client.get(f"/api/v1/{path}", headers=TOKEN)
    assert answer.status == status
    assert (await answer.json(content_type=None))["detail"] == detail

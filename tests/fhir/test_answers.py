"""The answer to a transaction: read entry by entry, and parsed only where its bytes leave a doubt."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from engine.fhir import client as client_module
from engine.fhir.client import Answer, FhirClient
from engine.fhir.failure import Trouble
from engine.ledger.outcome import Result


class Answered(FhirClient):
    """Gets one prepared answer."""

    def __init__(self, body: bytes) -> None:
        super().__init__("http://fhir.example", "id", "secret")
        self.body = body

    async def _send(self, *args: object, **options: object) -> Answer:
        return Answer(200, self.body)


def answer(*entries: dict[str, Any]) -> bytes:
    return orjson.dumps({"resourceType": "Bundle", "type": "transaction-response", "entry": list(entries)})


def stored(status: str = "201", /, **content: Any) -> dict[str, Any]:
    return {"resource": {"resourceType": "Observation", **content}, "response": {"status": status}}


async def test_plain_success_is_seen_without_parsing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "_answered", None)
    assert await Answered(answer(stored("201", status="final"), stored("200 OK"))).succeeds(b"", 2)


async def test_success_in_another_notation_is_parsed() -> None:
    body = b'{"entry": [ {"response": {"status": "201"}} ]}\n'
    assert await Answered(body).succeeds(b"", 1)


@pytest.mark.parametrize("status", ["400", "404", "412", "500", "304", ""])
async def test_one_failed_entry_is_a_failure(status: str) -> None:
    assert not await Answered(answer(stored(), stored(status))).succeeds(b"", 2)


@pytest.mark.parametrize("content", [{"note": '"status":"201"'}, {"status": "2020"}])
async def test_what_a_resource_says_does_not_hide_a_failed_entry(content: dict[str, Any]) -> None:
    assert not await Answered(answer(stored(**content), stored("422"))).succeeds(b"", 2)


async def test_a_resource_may_have_a_status_that_looks_like_one_of_failure() -> None:
    assert await Answered(answer(stored(status="400-x"))).succeeds(b"", 1)


@pytest.mark.parametrize(
    "body", [answer(stored()), answer(stored(), stored())[:-1], answer(stored(), stored(), stored()), b"{}", b"<html>"]
)
async def test_an_answer_that_is_not_the_bundles_leaves_it_unknown(body: bytes) -> None:
    with pytest.raises(Trouble) as trouble:
        await Answered(body).succeeds(b"", 2)
    assert trouble.value.result is Result.UNKNOWN

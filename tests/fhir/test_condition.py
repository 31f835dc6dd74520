"""Conditions match exactly the value that was meant."""

from __future__ import annotations

import pytest

from engine.fhir.client import FhirClient, Query, Spent
from engine.fhir.condition import identifiers, tagged, token
from engine.fhir.failure import Trouble
from engine.ledger.outcome import Result
from tests.support.sandbox import CLIENT_ID, CLIENT_SECRET, Sandbox

VALUES = ["a+b", "a&b", "a,b", "a$b", "a\\b", "a b", "a=b", "a%2Bb", "ü€", "?a", "a#b", "a@b", "a\\,b", "'a\"b", "ab"]


def test_reserved_characters_are_encoded() -> None:
    assert token("urn:x", "a+b&c") == "urn:x%7Ca%2Bb%26c"
    assert token("urn:x", "a,b") == "urn:x%7Ca%5C%2Cb"
    assert tagged("i1/acme/1") == "_tag=urn:interlock:message%7Ci1/acme/1"


@pytest.mark.parametrize(("system", "value"), [("", "1"), ("urn:x", ""), ("urn:x", "a|b"), ("urn|x", "a")])
def test_what_cannot_be_said_is_refused_and_not_quoted(system: str, value: str) -> None:
    with pytest.raises(Trouble) as refused:
        token(system, value)
    assert refused.value.result is Result.NEVER
    assert "a|b" not in refused.value.reason


async def test_a_server_finds_each_value_again_and_creates_it_once(sandbox: Sandbox) -> None:
    client = FhirClient(sandbox.base, CLIENT_ID, CLIENT_SECRET)
    try:
        for value in VALUES:
            resource = {"resourceType": "Patient", "identifier": [{"system": "urn:x", "value": value}]}
            _, new = await client.create_once(resource, identifiers([("urn:x", value)]), Spent())
            _, again = await client.create_once(resource, identifiers([("urn:x", value)]), Spent())
            assert (new, again) == (True, False), value
        [found] = await client.search([Query("Patient", identifiers([("urn:x", v) for v in VALUES]), 20)], Spent())
        assert len(found) == len(VALUES)
    finally:
        await client.close()

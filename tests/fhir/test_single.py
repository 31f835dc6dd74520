"""The single conditional transaction is one that a server takes, and that may be repeated."""

from __future__ import annotations

from engine.fhir.client import FhirClient
from engine.fhir.output import Output
from engine.fhir.single import single
from tests.fhir.outputs import oru, patient
from tests.support.sandbox import CLIENT_ID, CLIENT_SECRET, Sandbox


def test_facts_and_overwritten_anchors_are_updates_and_other_anchors_creates() -> None:
    bundle = single(Output([patient(policy="fill"), patient("P2", policy="overwrite")]))
    assert [one["request"] for one in bundle["entry"]] == [
        {"method": "POST", "url": "Patient", "ifNoneExist": "identifier=https://acme.example/mrn%7CP1"},
        {"method": "PUT", "url": "Patient?identifier=https://acme.example/mrn%7CP2"},
    ]


async def test_a_server_takes_it_twice_and_has_it_once(sandbox: Sandbox) -> None:
    client = FhirClient(sandbox.base, CLIENT_ID, CLIENT_SECRET)
    bundle = single(oru(results=2))
    bundle["entry"].pop()  # the provenance is a plain create
    try:
        for _ in range(2):
            await client.bundle("transaction", bundle["entry"], repeatable=True)
    finally:
        await client.close()
    assert sandbox.stats()["resources"] == {
        "Patient": 1,
        "Organization": 1,
        "Observation": 2,
        "DiagnosticReport": 1,
    }
    sandbox.assert_sound()

"""What a result costs of Medplum's quota, in points: a write 100, a search 20, a read 1."""

from __future__ import annotations

from engine.config.shipped import shipped_mappings
from engine.fhir.client import FhirClient
from engine.fhir.deliverer import Deliverer
from engine.mapping.library import Context, Library
from engine.simulate.messages import Messages
from tests.support.sandbox import CLIENT_ID, CLIENT_SECRET, Sandbox

MESSAGE = Messages("oru", seed=1).message(1)
PLACER, FILLER = b"SIMP0010000001", b"SIMF0010000001"


async def test_a_result_with_five_observations_stays_below_950_points_and_a_repeat_writes_nothing(sandbox: Sandbox):
    mapping = Library.load(shipped_mappings()).mapping("ORU_R01")
    deliverer = Deliverer(FhirClient(sandbox.base, CLIENT_ID, CLIENT_SECRET))
    context = Context("c", "c", {}, "UTC", "auto", 1_767_225_600_000_000)

    async def points(raw: bytes, number: int) -> int:
        return (await deliverer.deliver(mapping.run(raw, context), f"i/c/{number}")).points

    try:
        await points(MESSAGE, 1)  # patient and parties are known from here on
        assert await points(MESSAGE.replace(PLACER, PLACER + b"A").replace(FILLER, FILLER + b"A"), 2) <= 950
        assert await points(MESSAGE.replace(FILLER, FILLER + b"B"), 3) <= 850
        versions = {r["id"]: r["meta"]["versionId"] for r in sandbox.dump("Observation") + sandbox.dump("Patient")}
        assert await points(MESSAGE, 4) <= 60
        assert versions == {
            r["id"]: r["meta"]["versionId"] for r in sandbox.dump("Observation") + sandbox.dump("Patient")
        }
    finally:
        await deliverer.close()
    assert sandbox.stats()["danglingReferences"] == []

"""Everything goes wrong at once, and the delivery loop does what the outcomes say: nothing is lost or doubled."""

from __future__ import annotations

import asyncio
import random

import pytest

from engine.fhir.deliverer import Deliverer
from engine.fhir.output import Output
from engine.ledger.outcome import Result
from tests.fhir.conftest import MakeDeliverer
from tests.fhir.outputs import oru
from tests.support.sandbox import Sandbox

SERVER_LIMIT = 0.3
PATIENTS, MESSAGES, RESULTS = 4, 6, 3

FAULTS = (
    {"status": 503, "rate": 0.05},
    {"status": 502, "html": True, "rate": 0.03},
    {"status": 409, "rate": 0.05},
    {"dropConnection": True, "rate": 0.03},
    {"dropConnection": True, "afterCommit": True, "rate": 0.06},
    {"dropConnection": True, "commitAfterMs": 150, "rate": 0.06},
    {"truncate": True, "rate": 0.03},
    {"status": 504, "html": True, "afterCommit": True, "rate": 0.03},
)


async def deliver_until_done(deliverer: Deliverer, output: Output, tag: str) -> int:
    """What the delivery loop does, with short waits. Returns the attempts."""
    unknown, since = False, 0.0
    for attempt in range(1, 40):
        outcome = await deliverer.deliver(output, tag, unknown=unknown, since=since)
        if outcome.result is Result.DELIVERED:
            return attempt
        assert outcome.result in (Result.NOT_TAKEN, Result.UNKNOWN), outcome.reason
        # "Not taken" after "unknown" says that the time to wait is over and nothing is on its way any more.
        unknown = outcome.result is Result.UNKNOWN
        since = asyncio.get_running_loop().time()
        await asyncio.sleep(0.01)
    raise AssertionError(f"{tag}: {outcome.reason}")


@pytest.mark.parametrize("transactions", ["on", "off"])
async def test_nothing_is_lost_or_doubled_in_a_storm(
    sandbox: Sandbox, make_deliverer: MakeDeliverer, transactions: str
) -> None:
    sandbox.config(transactions=transactions)
    processes = [make_deliverer(server_limit=SERVER_LIMIT) for _ in range(2)]
    for process in processes:
        assert (await process.probe()).ok
    chance = random.Random(7)

    async def lane(who: int) -> int:
        attempts = 0
        for n in range(MESSAGES):
            accession = f"P{who}-{n if n % 3 else max(0, n - 1)}"  # every third message repeats the one before
            output = oru(accession, mrn=f"P{who}", results=RESULTS, order=True, specimen=True)
            attempts += await deliver_until_done(chance.choice(processes), output, f"i1/c/{who * 100 + n}")
        return attempts

    sandbox.faults(*FAULTS)
    attempts = sum(await asyncio.gather(*map(lane, range(PATIENTS))))
    sandbox.faults()
    await asyncio.sleep(0.2)  # what is still to be committed
    assert attempts > PATIENTS * MESSAGES  # there was a storm
    stats = sandbox.stats()
    reports = len({f"P{w}-{n if n % 3 else max(0, n - 1)}" for w in range(PATIENTS) for n in range(MESSAGES)})
    assert stats["late"] == 0
    assert stats["resources"] | {"Provenance": 0} == {
        "Patient": PATIENTS,
        "Organization": 1,
        "ServiceRequest": reports,
        "Specimen": reports,
        "Observation": reports * RESULTS,
        "DiagnosticReport": reports,
        "Provenance": 0,
    }
    sandbox.assert_sound()

"""Is the project there, are we allowed in, and are its transactions atomic?

Without Medplum's feature `transaction-bundles` a transaction runs as a batch, without any warning. The probe is a
transaction whose only entry is a search that every server refuses: it writes nothing whatever happens. Refused as a
whole (400) = atomic; answered with 200 and a refusal inside = not.
"""

from __future__ import annotations

from dataclasses import dataclass

from engine.fhir.client import FhirClient, entry_trouble
from engine.fhir.failure import Trouble
from engine.ledger.outcome import Result

_ENTRY = {"request": {"method": "GET", "url": "Patient?interlock-probe=1"}}


@dataclass(frozen=True, slots=True)
class Reachability:
    """ok: answers and lets us in. atomic: None while not known. result: the class of what failed."""

    ok: bool
    atomic: bool | None
    reason: str = ""
    result: Result | None = None


async def probe(client: FhirClient) -> Reachability:
    """One transaction, at most twenty points. Never raises for network matters."""
    try:
        answers = await client.bundle("transaction", [_ENTRY], repeatable=True)
    except Trouble as trouble:
        if trouble.status == 400 and trouble.result is Result.NEVER:
            return Reachability(True, True)
        return Reachability(False, None, trouble.reason, trouble.result)
    refused = entry_trouble(answers[0]["response"], repeatable=True)
    return Reachability(True, False, "" if refused else "the probe was not refused: taken as not atomic")

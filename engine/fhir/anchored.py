"""The anchored way for a project whose transactions are atomic: a message's facts in one transaction.

Plain creates and updates of known versions only, with concrete references to the anchors: so Medplum's limit of
eight entries with conditions does not count, and no reference is resolved outside the transaction. The patients are
read in it (one point each): should one have been deleted since it was cached, nothing is written.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from engine.fhir.client import FhirClient, Spent, bundle_bytes, entry_trouble
from engine.fhir.facts import Write
from engine.fhir.quota import READ, WRITE
from engine.fhir.transaction import Limits, chunks, concrete, entry_for, fits, place_of


class NotAtomic(Exception):
    """The server ran a transaction as a batch: some entries are stored, others failed."""


class Anchored:
    def __init__(self, client: FhirClient, limits: Limits) -> None:
        self._client = client
        self._limits = limits

    async def write(self, writes: Sequence[Write], patients: Sequence[str], spent: Spent) -> None:
        """Write all. patients: `Patient/<id>` that must be there.

        Raises Trouble; UNKNOWN when a transaction had no answer. Raises NotAtomic when entries failed one by one.
        """
        entries = [entry_for(write) for write in writes]
        entries += [{"request": {"method": "GET", "url": patient}} for patient in patients]
        body = bundle_bytes("transaction", entries)
        if fits(writes, len(body), self._limits):
            spent.points += WRITE * len(writes) + READ * len(patients)
            if not await self._client.succeeds(body, len(entries)):
                raise NotAtomic
            return
        places: dict[str, str] = {}
        for chunk in chunks(writes, self._limits):
            entries = [entry_for(write) for write in chunk]
            body = concrete(bundle_bytes("transaction", entries), places)
            _keep_places(chunk, await self._send(chunk, body, spent))
            places |= {write.urn: write.entry.reference["reference"] for write in chunk if write.urn}

    async def _send(self, writes: Sequence[Write], body: bytes, spent: Spent) -> list[dict[str, Any]]:
        spent.points += WRITE * len(writes)
        answers = await self._client.send_bundle(body, len(writes), repeatable=False)
        for answer in answers:
            if entry_trouble(answer["response"], repeatable=True) is not None:
                raise NotAtomic
        return answers


def _keep_places(writes: Sequence[Write], answers: Sequence[dict[str, Any]]) -> None:
    """Point the references at what a chunk stored, for the chunks that follow."""
    for write, answer in zip(writes, answers, strict=True):
        place = place_of(answer["response"])
        if place is not None:
            write.stored_at(place)

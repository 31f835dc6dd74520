"""The anchored way for a project whose transactions are atomic: a message's facts in one transaction.

Plain creates and updates of known versions only, with concrete references to the anchors: so Medplum's limit of
eight entries with conditions does not count, and no reference is resolved outside the transaction. The patients are
read in it (one point each): should one have been deleted since it was cached, nothing is written; and one that was
merged into another meanwhile is noticed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from engine.fhir.client import FhirClient, Spent, bundle_bytes, entry_trouble
from engine.fhir.facts import Write
from engine.fhir.quota import READ, WRITE
from engine.fhir.survivors import Patients, Replaced
from engine.fhir.transaction import Limits, chunks, concrete, entry_for, fits, place_of


class NotAtomic(Exception):
    """The server ran a transaction as a batch: some entries are stored, others failed."""


class Anchored:
    def __init__(self, client: FhirClient, limits: Limits) -> None:
        self._client = client
        self._limits = limits

    async def write(self, writes: Sequence[Write], patients: Patients, spent: Spent) -> None:
        """Write all. patients: that must be there.

        Raises Trouble; UNKNOWN when a transaction had no answer. Raises NotAtomic when entries failed one by one, and
        Replaced when all is written.
        """
        entries = [entry_for(write) for write in writes]
        read = patients.entries()
        body = bundle_bytes("transaction", entries + read)
        if fits(writes, len(body), self._limits):
            spent.points += WRITE * len(writes) + READ * len(read)
            answer = await self._client.succeeds(body, len(entries) + len(read))
            if answer is None:
                raise NotAtomic
            if patients.changed(answer):
                raise Replaced
            return
        await self._write_in_chunks(writes, patients, spent)

    async def _write_in_chunks(self, writes: Sequence[Write], patients: Patients, spent: Spent) -> None:
        places: dict[str, str] = {}
        parts = chunks(writes, self._limits)
        for chunk in parts:
            read = patients.entries() if chunk is parts[-1] else []
            entries = [entry_for(write) for write in chunk] + read
            spent.points += WRITE * len(chunk) + READ * len(read)
            body = concrete(bundle_bytes("transaction", entries), places)
            answers = await self._client.send_bundle(body, len(entries), repeatable=False)
            if any(entry_trouble(answer["response"], repeatable=True) is not None for answer in answers):
                raise NotAtomic
            _keep_places(chunk, answers)
            places |= {write.urn: write.entry.reference["reference"] for write in chunk if write.urn}
        if patients.differ(answer.get("resource") or {} for answer in answers[len(parts[-1]) :]):
            raise Replaced


def _keep_places(writes: Sequence[Write], answers: Sequence[dict[str, Any]]) -> None:
    """Point the references at what a chunk stored, for the chunks that follow."""
    for write, answer in zip(writes, answers, strict=False):
        place = place_of(answer["response"])
        if place is not None:
            write.stored_at(place)

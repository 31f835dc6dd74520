"""The way for a project whose transactions are not atomic (Medplum's default): each fact by its own identifier.

Facts go in batches, in the order in which they refer to each other, the report after its results and the provenance
last. A create has the condition that nothing with its identifier exists, an update the version it was made from, so
any of them may be repeated. Every entry's status is read: the HTTP status says nothing about them.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any

from engine.fhir.client import FhirClient, Spent, bundle_bytes, entry_trouble
from engine.fhir.condition import identifiers, tagged
from engine.fhir.facts import Write
from engine.fhir.failure import Trouble
from engine.fhir.output import Resource
from engine.fhir.quota import READ, SEARCH, WRITE
from engine.fhir.survivors import Patients, Replaced
from engine.fhir.tags import PART_TAG, marks, provenance_name
from engine.fhir.transaction import Limits, Room, concrete, entry_for, ordered, place_of, references
from engine.ledger.outcome import Result


class Stepwise:
    def __init__(self, client: FhirClient, limits: Limits) -> None:
        self._client = client
        self._limits = limits

    async def write(self, writes: Sequence[Write], patients: Patients, spent: Spent) -> None:
        """Write all. patients: that must be there, looked at with the last batch.

        Raises Trouble; what was written before it stays, and is found by its identifier next time. Raises Replaced when
        all is written.
        """
        places: dict[str, str] = {}
        batches = steps(writes, self._limits)
        for batch in batches:
            await self._send(batch, patients if batch is batches[-1] else Patients(), places, spent)
            places |= {write.urn: write.entry.reference["reference"] for write in batch if write.urn}

    async def _send(self, batch: Sequence[Write], patients: Patients, places: dict[str, str], spent: Spent) -> None:
        entries = [entry_for(write, None if write.is_update else condition(write)) for write in batch]
        read = patients.entries()
        entries += read
        spent.points += sum(WRITE if write.is_update else SEARCH for write in batch) + READ * len(read)
        body = concrete(bundle_bytes("batch", entries), places)
        answers = await self._client.send_bundle(body, len(entries), repeatable=False)
        troubles = [self._settle(write, one, spent) for write, one in zip(batch, answers, strict=False)]
        seen = answers[len(batch) :]
        troubles += [entry_trouble(one["response"], repeatable=False) for one in seen]
        worst = worst_of([trouble for trouble in troubles if trouble is not None])
        if worst is not None:
            raise worst
        if patients.differ(one.get("resource") or {} for one in seen):
            raise Replaced

    def _settle(self, write: Write, answer: dict[str, Any], spent: Spent) -> Trouble | None:
        response = answer["response"]
        trouble = entry_trouble(response, repeatable=False)
        if trouble is not None:
            return trouble
        if write.urn and _is_anothers(write, answer.get("resource") or {}):
            return Trouble(Result.NOT_TAKEN, "another message has created it meanwhile", status=412)
        if str(response["status"]).startswith("201"):
            spent.points += WRITE + SEARCH
        place = place_of(response)
        if place is not None:
            write.stored_at(place)
        return None


def _is_anothers(write: Write, found: Resource) -> bool:
    """Whether what a create has found in the place of ours is not of this message, so that it says something else."""
    return bool(found) and not set(marks(write.resource)) & set(marks(found))


def condition(write: Write) -> str:
    """What must not exist yet: the fact's identifier; of a provenance, which has none, its name."""
    if write.entry.role != "provenance":
        return identifiers(write.key)
    return tagged(provenance_name(write.resource), PART_TAG)


def steps(writes: Sequence[Write], limits: Limits) -> list[list[Write]]:
    """Batches in which nothing refers to what is created in the same one: in a batch no order is promised.

    Trouble(NEVER) for new facts that refer to each other in a circle.
    """
    result: list[list[Write]] = []
    for _, wave in groupby(_ranked(writes), key=lambda pair: pair[0]):
        room = Room(limits)
        result.append([])
        for _, write in wave:
            if not room.take([write], len(repr(write.resource))):
                room = Room(limits)
                room.take([write], 0)
                result.append([])
            result[-1].append(write)
    return result


def _ranked(writes: Sequence[Write]) -> list[tuple[int, Write]]:
    """Each write with its rank: one above the highest of those that it refers to."""
    ranks: dict[str, int] = {}
    result: list[tuple[int, Write]] = []
    new = {write.urn for write in writes if write.urn}
    for group in ordered(writes):
        if len(group) > 1:
            raise Trouble(Result.NEVER, "facts refer to each other in a circle, which needs atomic transactions")
        needed = references(group[0]) & new - {group[0].urn}
        rank = 1 + max((ranks[urn] for urn in needed), default=-1)
        if group[0].entry.role == "provenance":
            rank = 1 + max((known for known, _ in result), default=-1)
        ranks[group[0].urn] = rank
        result.append((rank, group[0]))
    return sorted(result, key=lambda pair: pair[0])


# Of several troubles in one batch the gravest is told; those that pass by themselves come last.
_GRAVITY = (Result.FAULT, Result.NEVER, Result.UNKNOWN, Result.NOT_TAKEN)


def worst_of(troubles: Sequence[Trouble]) -> Trouble | None:
    """The trouble that decides; one that only wants reading and merging again gives way to every other."""
    if not troubles:
        return None
    return min(troubles, key=lambda trouble: (_GRAVITY.index(trouble.result), trouble.stale))

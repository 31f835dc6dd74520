"""Anchors: the resources that messages share (Patient, Encounter, Practitioner, Organization, ServiceRequest …).

Each is known by its best business identifier. It is created by a single If-None-Exist request and changed by a PUT
with If-Match, and only where something changes; so it may be asked for at any time, by anybody, in any order, and
every request here can be repeated. The cache saves requests and is never needed for being right.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from engine.fhir import tags
from engine.fhir.client import FhirClient, Query, Spent
from engine.fhir.condition import identifiers
from engine.fhir.failure import LOCAL, Trouble
from engine.fhir.merge import contradicts, merge_anchor
from engine.fhir.output import Entry, Resource
from engine.fhir.turns import Turns
from engine.ledger.outcome import Result

CAPACITY = 10_000  # anchors, about 2 KB each
LIFE_S = 900.0  # then it is searched again: somebody else may have changed it
ATTEMPTS = 4
OPEN_REFERENCE = b'"urn:uuid:'
# Made for one visit or order: usually new, so that searching first would only cost points.
OFTEN_NEW = frozenset(("Encounter", "ServiceRequest"))
CONTENTS_KEPT = 4

Key = tuple[str, str, str]


@dataclass(slots=True)
class Known:
    """An anchor as it was last seen. stored: its JSON. settled: JSON of contents that would change nothing."""

    id: str
    stored: bytes
    mark: str
    until: float
    settled: tuple[bytes, ...] = ()


class Cache:
    """The anchors seen lately, the least lately used go first."""

    def __init__(self, capacity: int = CAPACITY, life: float = LIFE_S, clock: Callable[[], float] = time.monotonic):
        self._capacity = capacity
        self._life = life
        self._clock = clock
        self._known: OrderedDict[Key, Known] = OrderedDict()

    def __len__(self) -> int:
        return len(self._known)

    def get(self, key: Key) -> Known | None:
        known = self._known.get(key)
        if known is None:
            return None
        if known.until < self._clock():
            del self._known[key]
            return None
        self._known.move_to_end(key)
        return known

    def mark(self, key: Key) -> str | None:
        """The message that was the last to write the anchor. Asking does not count as use."""
        known = self._known.get(key)
        return None if known is None else known.mark

    def put(self, key: Key, resource: Resource) -> Known:
        marks = tags.marks(resource)
        known = Known(resource["id"], orjson.dumps(resource), marks[-1] if marks else "", self._clock() + self._life)
        self._known[key] = known
        self._known.move_to_end(key)
        while len(self._known) > self._capacity:
            self._known.popitem(last=False)
        return known

    def forget(self, key: Key) -> None:
        self._known.pop(key, None)


class Anchors:
    """Resolves the anchors of messages at one server."""

    def __init__(self, client: FhirClient, cache: Cache | None = None, *, incarnations: Sequence[str] = ()) -> None:
        """incarnations: of the ledger, oldest first."""
        self._client = client
        self._incarnations = incarnations
        self._cache = Cache() if cache is None else cache
        self._turns = Turns()

    def recall(self, entries: Iterable[Entry]) -> list[Entry]:
        """Point the references of known anchors at their ids. Returns those that have to be searched."""
        unknown = []
        for entry in entries:
            key = key_of(entry)
            known = self._cache.get(key)
            if known is not None:
                entry.reference["reference"] = f"{key[0]}/{known.id}"
            elif key[0] not in OFTEN_NEW:
                unknown.append(entry)
        return unknown

    def learn(self, entry: Entry, found: Sequence[Resource]) -> None:
        """Take in what the search for an anchor found."""
        if len(found) > 1:
            raise several(entry)
        if found:
            self._keep(entry, found[0])

    def forget(self, entries: Iterable[Entry]) -> None:
        for entry in entries:
            self._cache.forget(key_of(entry))

    async def settle(self, entries: Iterable[Entry], code: str, spent: Spent) -> list[Entry]:
        """Make each anchor exist and say at least what its entry says, those first that others refer to.

        Returns the anchors that refer to facts: these exist now, but without the references that are still open.
        """
        waiting = list(entries)
        late: list[Entry] = []
        while waiting:
            still: list[Entry] = []
            for entry in waiting:
                data = orjson.dumps(entry.resource)
                if OPEN_REFERENCE in data:
                    still.append(entry)
                elif not self._settled(entry, data):
                    await self._settle(entry, entry.resource, data, code, spent)
            if len(still) == len(waiting):  # a circle, or a reference to a fact
                late.append(await self._settle_partly(still, code, spent))
                still.remove(late[-1])
            waiting = still
        return late

    def wrote(self, entries: Iterable[Entry], code: str) -> bool:
        """Whether the message was the last to write one of these anchors."""
        return code in map(self._cache.mark, map(key_of, entries))

    def current(self, entry: Entry) -> Resource:
        """The anchor as it was last seen. KeyError before it was settled."""
        known = self._cache.get(key_of(entry))
        if known is None:
            raise Trouble(Result.NOT_TAKEN, "an anchor went out of the cache in the middle of a delivery", code=LOCAL)
        resource: Resource = orjson.loads(known.stored)
        return resource

    def _settled(self, entry: Entry, data: bytes) -> bool:
        """Whether the anchor is known to say what this message says. Another message may have seen to that only just
        now: the references to it are pointed at it here too."""
        key = key_of(entry)
        known = self._cache.get(key)
        if known is None or data not in known.settled:
            return False
        entry.reference["reference"] = f"{key[0]}/{known.id}"
        return True

    async def _settle_partly(self, waiting: list[Entry], code: str, spent: Spent) -> Entry:
        entry = waiting[0]
        part = without_open_references(entry.resource)
        await self._settle(entry, part, orjson.dumps(part), code, spent)
        return entry

    async def _settle(self, entry: Entry, ours: Resource, data: bytes, code: str, spent: Spent) -> None:
        async with self._turns.take([key_of(entry)]):
            if self._settled(entry, data):
                return
            for attempt in range(ATTEMPTS):
                try:
                    await self._write(entry, ours, code, spent)
                    break
                except Trouble as problem:
                    if not (problem.stale or (problem.gone and self._cache.get(key_of(entry)))):
                        raise
                    if attempt == ATTEMPTS - 1:
                        raise _later(problem) from None
                    await self._look_again(entry, problem, spent)
                    await pause(attempt)
            known = self._cache.get(key_of(entry))
            if known is not None:
                known.settled = (*known.settled, data)[-CONTENTS_KEPT:]

    async def _write(self, entry: Entry, ours: Resource, code: str, spent: Spent) -> None:
        known = self._cache.get(key_of(entry))
        if known is None:
            marked = tags.stamped(ours, code)
            existing, new = await self._client.create_once(marked, identifiers(entry.key[:1]), spent)
            self._keep(entry, existing)
            if new:
                return
        else:
            existing = orjson.loads(known.stored)
            entry.reference["reference"] = f"{entry.type}/{known.id}"
        changed = merged(entry, existing, ours, code, self._incarnations)
        if changed is not None:
            self._keep(entry, await self._client.update(changed, spent))

    async def _look_again(self, entry: Entry, problem: Trouble, spent: Spent) -> None:
        known = self._cache.get(key_of(entry))
        self._cache.forget(key_of(entry))
        if known is not None and not problem.gone:
            self._keep(entry, await self._client.read(entry.type, known.id, spent))

    def _keep(self, entry: Entry, resource: Resource) -> None:
        self._cache.put(key_of(entry), resource)
        entry.reference["reference"] = f"{entry.type}/{resource['id']}"


def key_of(entry: Entry) -> Key:
    if not entry.key:
        raise Trouble(Result.NEVER, f"{entry.type} without an identifier")
    return (entry.resource["resourceType"], *entry.key[0])


def query_for(entry: Entry) -> Query:
    return Query(entry.type, identifiers(entry.key[:1]))


def merged(
    entry: Entry, existing: Resource, ours: Resource, code: str, incarnations: Sequence[str] = ()
) -> Resource | None:
    """The existing anchor as the message wants it, ready for a PUT (its version still in meta); None: as it is."""
    if entry.type == "Patient" and contradicts(ours, existing):
        raise Trouble(Result.NEVER, "patient: the identifier matches, birth date and name contradict", code="identity")
    policy = entry.policy
    if policy == "overwrite" and tags.overtaken(existing, code, incarnations):
        policy = "fill"
    result = merge_anchor(existing, ours, policy)
    if result is None:
        return None
    version = existing["meta"]["versionId"]
    result["meta"] = {**tags.merged(existing, ours, code, history=False), "versionId": version}
    return result


def several(entry: Entry) -> Trouble:
    return Trouble(Result.NEVER, f"several {entry.type} match one identifier", code="multiple-matches")


async def pause(attempt: int) -> None:
    """Between attempts at the same resource: 50 ms, doubling, with jitter, as Medplum itself does."""
    await asyncio.sleep(0.05 * 2**attempt * random.uniform(0.5, 1.5))


def without_open_references(resource: Resource) -> Resource:
    """The resource less the properties in which something refers to what is not stored yet."""
    return {name: value for name, value in resource.items() if not _is_open(value)}


def _is_open(value: Any) -> bool:
    if isinstance(value, list):
        return any(map(_is_open, value))
    if not isinstance(value, dict):
        return False
    reference = value.get("reference")
    if isinstance(reference, str) and reference.startswith("urn:uuid:"):
        return True
    return any(map(_is_open, value.values()))


def _later(problem: Trouble) -> Trouble:
    return Trouble(Result.NOT_TAKEN, problem.reason, status=problem.status, code=problem.code, after=problem.after)

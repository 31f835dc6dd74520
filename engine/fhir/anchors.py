"""Anchors: the resources that messages share (Patient, Encounter, Practitioner, Organization, ServiceRequest …).

Each is known by its best business identifier. It is created by a single If-None-Exist request and changed by a PUT
with If-Match, and only where something changes; so it may be asked for at any time, by anybody, in any order, and
every request here can be repeated. The cache saves requests and is never needed for being right.

The number of a patient who was merged into another leads to the survivor (`survivors.py`), except in messages that
merge, link or unlink (`patients.py`): they are about the record itself.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from engine.fhir import event_time, tags
from engine.fhir.client import FhirClient, Query, Spent
from engine.fhir.condition import identifiers
from engine.fhir.failure import LOCAL, Trouble
from engine.fhir.identifiers import has, pair
from engine.fhir.meant import asked_by, differs, doubtful, foreign, further, keys_of_new, meant
from engine.fhir.merge import agrees, cleared, contradicts, merge_anchor, same
from engine.fhir.output import WHOSE, Entry, Key, Resource, series_key
from engine.fhir.patients import Party, is_linking, relinked, without_links
from engine.fhir.series import base_of
from engine.fhir.survivors import (
    REPLACES,
    Persons,
    holders,
    leads_to,
    numbers,
    place_of,
    predecessors,
    record,
    successor,
    survivor,
)
from engine.fhir.turns import Turns
from engine.ledger.outcome import Result

CAPACITY = 10_000  # anchors, about 2 KB each
LIFE_S = 900.0  # then it is searched again: somebody else may have changed it
ATTEMPTS = 4
MANY = 300  # that share a number: the services of an order, the results of a test
SEVERAL = "multiple-matches"
OPEN_REFERENCE = b'"urn:uuid:'
# Made for one visit or order: usually new, so that searching first would only cost points.
OFTEN_NEW = frozenset(("Encounter", "ServiceRequest"))
CONTENTS_KEPT = 4
TIMES_KEPT = 100_000  # about 200 bytes each

CacheKey = tuple[str, ...]


@dataclass(slots=True)
class Known:
    """An anchor as it was last seen. stored: its JSON. settled: contents that would change nothing.

    merged: of a survivor the JSON of the record that has the number itself; way: the places of the merged records, from
    that one on.
    """

    id: str
    stored: bytes
    mark: str
    until: float
    merged: bytes = b""
    way: tuple[str, ...] = ()
    settled: tuple[bytes, ...] = ()


class Cache:
    """The anchors seen lately, the least lately used go first."""

    def __init__(self, capacity: int = CAPACITY, life: float = LIFE_S, clock: Callable[[], float] = time.monotonic):
        self._capacity = capacity
        self._life = life
        self._clock = clock
        self._known: OrderedDict[CacheKey, Known] = OrderedDict()
        self._keys: dict[tuple[str, str], set[CacheKey]] = {}  # by type and id

    def __len__(self) -> int:
        return len(self._known)

    def get(self, key: CacheKey) -> Known | None:
        known = self._known.get(key)
        if known is None:
            return None
        if known.until < self._clock():
            self.forget(key)
            return None
        self._known.move_to_end(key)
        return known

    def mark(self, key: CacheKey) -> str | None:
        """The message that was the last to write the anchor. Asking does not count as use."""
        known = self._known.get(key)
        return None if known is None else known.mark

    def put(self, key: CacheKey, resource: Resource, merged: bytes = b"", way: tuple[str, ...] = ()) -> Known:
        """The other keys of the same resource lead to what it is now, too."""
        marks = tags.marks(resource)
        mark, until = marks[-1] if marks else "", self._clock() + self._life
        known = Known(resource["id"], orjson.dumps(resource), mark, until, merged, way)
        place = key[0], known.id
        for other in [one for one in self._keys.get(place, ()) if self._known[one].stored != known.stored]:
            old = self._known[other]
            self._known[other] = Known(known.id, known.stored, known.mark, known.until, old.merged, old.way)
        self.forget(key)
        self._known[key] = known
        self._keys.setdefault(place, set()).add(key)
        while len(self._known) > self._capacity:
            self.forget(next(iter(self._known)))
        return known

    def forget(self, key: CacheKey) -> None:
        known = self._known.pop(key, None)
        if known is not None:
            place = key[0], known.id
            self._keys[place].discard(key)
            if not self._keys[place]:
                del self._keys[place]

    def forget_resource(self, kind: str, id: str) -> None:
        """By whatever keys it is known."""
        for key in list(self._keys.get((kind, id), ())):
            self.forget(key)

    def forget_survivors(self) -> None:
        """What any number of a merged patient leads to."""
        for key in [key for key, known in self._known.items() if known.merged]:
            self.forget(key)


class Heard:
    """When the anchors were last spoken of by somebody who may overwrite them, though nothing changed by that: so that
    no write is needed for it. Lasts as long as the process; what was written says it for itself."""

    def __init__(self, capacity: int = TIMES_KEPT) -> None:
        self._capacity = capacity
        self._times: OrderedDict[str, str] = OrderedDict()

    def latest(self, anchor: Resource) -> str:
        """The last event that anybody knows of."""
        return event_time.latest(self._times.get(_place(anchor), ""), event_time.event_of(anchor))

    def note(self, place: str, event: str) -> None:
        if event_time.plausible(event):
            self._times[place] = event_time.latest(event, self._times.get(place, ""))
            self._times.move_to_end(place)
            while len(self._times) > self._capacity:
                self._times.popitem(last=False)


class Anchors:
    """Resolves the anchors of messages at one server."""

    def __init__(self, client: FhirClient, cache: Cache | None = None, *, incarnations: Sequence[str] = ()) -> None:
        """incarnations: of the ledger, oldest first."""
        self._client = client
        self._incarnations = incarnations
        self._cache = Cache() if cache is None else cache
        self._heard = Heard()
        self._turns = Turns()
        self._begun: set[str] = set()

    def recall(self, entries: Iterable[Entry]) -> list[Entry]:
        """Point the references of known anchors at their ids. Returns those that have to be searched."""
        unknown = []
        for entry in entries:
            known = self._hit(entry)
            if known is not None:
                _point(entry, known)
            elif entry.type not in OFTEN_NEW:
                unknown.append(entry)
        return unknown

    def _hit(self, entry: Entry) -> Known | None:
        """What is cached under the entry's key, unless that is another service with the same number."""
        known = self._cache.get(key_of(entry))
        return None if known is not None and entry.apart and differs(entry, orjson.loads(known.stored)) else known

    async def learn(self, entry: Entry, found: Sequence[Resource], spent: Spent) -> None:
        """Take in what the search for an anchor found."""
        found = meant(entry, found)
        if not found:
            return
        if entry.type == "Patient" and (len(found) > 1 or successor(found[0])):
            await self._learn_patient(entry, found, spent)
        elif len(found) > 1:
            raise several(entry)
        else:
            self._keep(entry, found[0])

    async def _learn_patient(self, entry: Entry, found: Sequence[Resource], spent: Spent) -> None:
        """Find out which record is meant: the one that has the number, or the one that this was merged into."""
        if is_linking(entry):
            meant = record(found, entry.key[0])
            if meant is None:
                raise several(entry)
            self._keep(entry, meant)
            return
        read = self._reader(found, spent)
        ways = [(one, *await survivor(one, read)) for one in holders(found, entry.key[0])]
        if len({last["id"] for _, last, _ in ways}) > 1:
            raise several(entry)
        first, last, way = max(ways, key=lambda found: len(found[2]))
        self._keep(entry, last, orjson.dumps(first) if way else b"", way)

    def _reader(self, found: Sequence[Resource], spent: Spent) -> Callable[[str], Awaitable[Resource]]:
        """Reads patients, those that are at hand without a request."""
        known = {place_of(one): one for one in found}

        async def read(place: str) -> Resource:
            return known.get(place) or await self._client.read("Patient", place.partition("/")[2], spent)

        return read

    def forget(self, entries: Iterable[Entry]) -> None:
        for entry in entries:
            self._cache.forget(key_of(entry))
            self._cache.forget(plain_key(entry))
            if is_linking(entry):
                self._cache.forget_survivors()

    def forget_resources(self, resources: Iterable[Resource]) -> None:
        """Somebody else writes them: what is a fact of one message another one only confirms."""
        for one in resources:
            self._cache.forget_resource(one["resourceType"], one["id"])

    async def settle(self, entries: Iterable[Entry], code: str, spent: Spent) -> list[Entry]:
        """Make each anchor exist and say at least what its entry says, those first that others refer to.

        Returns the anchors that are left for `closing`: those that refer to facts, which exist now, but without the
        references that are still open; and the patients that the message merges, links or unlinks.
        """
        waiting: list[Entry] = []
        late: list[Entry] = []
        for entry in entries:
            if is_linking(entry):
                await self._make_exist(entry, code, spent)
                late.append(entry)
            else:
                waiting.append(entry)
        # First those whose number another one has: what they surely mean is not taken for that one.
        waiting.sort(key=lambda entry: not entry.apart or bool(further(entry)))
        while waiting:
            still: list[Entry] = []
            for entry in waiting:
                data = orjson.dumps(entry.resource)
                if OPEN_REFERENCE in data:
                    still.append(entry)
                elif not self._settled(entry, _content(entry, data)):
                    await self._settle(entry, entry.resource, _content(entry, data), code, spent)
            if len(still) == len(waiting):  # a circle, or a reference to a fact
                late.append(await self._settle_partly(still, code, spent))
                still.remove(late[-1])
            waiting = still
        return late

    async def closing(self, late: Sequence[Entry], code: str, spent: Spent) -> list[tuple[Entry, Resource]]:
        """What `settle` left, as it is to be written together with the message's facts."""
        parties = [Party(entry, self.current(entry)) for entry in late if is_linking(entry)]
        changes: dict[str, tuple[Entry, Resource]] = {}  # by place: two entries may turn out to be one resource
        for entry in late:
            existing = self.current(entry)
            place = _place(existing)
            if is_linking(entry):
                changed = await self._linked(Party(entry, existing), parties, code, spent)
                place = f"{place} {entry.key}"
            else:
                existing = changes[place][1] if place in changes else existing
                ours = await self._own(entry, entry.resource, existing, spent)
                changed = self._merged(entry, existing, ours, code)
            if changed is not None:
                changes[place] = entry, changed
        return list(changes.values())

    async def _linked(self, own: Party, parties: Sequence[Party], code: str, spent: Spent) -> Resource | None:
        """The patient's record as a message that merges, links or unlinks it wants it; None: as it is."""
        same_record = [one for one in parties if one.place == own.place and one.entry is not own.entry]
        if same_record and own.unlinks:
            raise Trouble(Result.NEVER, "patient: what is to be unlinked is one record", code="identity")
        if same_record and any(kind == "replaced-by" for _, kind in own.links()):
            return None  # both numbers are this record's: what the survivor's entry says is all
        existing, event = own.record, own.entry.event
        ours = without_links(own.entry.resource)
        said = self._merged(own.entry, existing, ours, code)
        if self._is_late(event, event_time.linked_of(existing), existing, code):
            return said
        into = {one.place for one in parties if any(link == (own.place, "replaced-by") for link in one.links())}
        circular = False
        if successor(existing) and into:
            read = self._reader([one.record for one in parties], spent)
            circular = any([await leads_to(existing, place, read) for place in into])
        linked = relinked(existing if said is None else said, own, parties, circular=circular)
        before, known = said or existing, event_time.linked_of(existing)
        if same(linked, existing) and event_time.latest(known, event) == known:
            return None  # the time is noted though nothing else changes: a merge that comes late must not undo this
        meta = {**tags.merged(existing, ours, code, history=False), "versionId": existing["meta"]["versionId"]}
        linked["meta"] = event_time.noted(
            meta,
            event=event_time.event_of(before),
            linked=event_time.latest(event, known),
            cleared=event_time.cleared_of(before),
        )
        return linked

    def merged_into(self, entries: Iterable[Entry]) -> set[str]:
        """The merged records by which the patients of these entries were found."""
        known = [self._cache.get(key_of(entry)) for entry in entries if entry.type == "Patient"]
        return {place for one in known if one is not None for place in one.way}

    def persons(self, entries: Iterable[Entry]) -> Persons:
        """By what a report shows that it is of one of these entries' patients."""
        patients = [entry for entry in entries if entry.type == "Patient"]
        known = [self._cache.get(key_of(entry)) for entry in patients]
        survivors = [orjson.loads(one.stored) for one in known if one is not None and REPLACES in one.stored]
        replaced = [place for one in survivors for place in predecessors(one)]
        numbers = {entry.key[0] for entry in patients if entry.key}
        return Persons(frozenset((*self.merged_into(patients), *replaced)), frozenset(numbers))

    def wrote(self, entries: Iterable[Entry], code: str) -> bool:
        """Whether the message was the last to write one of these anchors."""
        return code in map(self._cache.mark, map(key_of, entries))

    def begun(self, code: str) -> bool:
        """Whether an anchor that was to be created had been by the same message: in an earlier attempt. Told once."""
        found = code in self._begun
        self._begun.discard(code)
        return found

    def current(self, entry: Entry) -> Resource:
        """The anchor as it was last seen. Trouble before it was settled."""
        resource: Resource = orjson.loads(self._known(entry).stored)
        return resource

    def _known(self, entry: Entry) -> Known:
        known = self._cache.get(key_of(entry))
        if known is None:
            raise Trouble(Result.NOT_TAKEN, "an anchor went out of the cache in the middle of a delivery", code=LOCAL)
        return known

    def _settled(self, entry: Entry, content: bytes) -> bool:
        """Whether the anchor is known to say what this message says. Another message may have seen to that only just
        now: the references to it are pointed at it here too."""
        known = self._cache.get(key_of(entry))
        if known is None or content not in known.settled:
            return False
        _point(entry, known)
        return True

    async def _settle_partly(self, waiting: list[Entry], code: str, spent: Spent) -> Entry:
        entry = waiting[0]
        part = without_open_references(entry.resource)
        await self._settle(entry, part, _content(entry, orjson.dumps(part)), code, spent)
        return entry

    async def _make_exist(self, entry: Entry, code: str, spent: Spent) -> None:
        async with self._turns.take([key_of(entry)]):
            if self._cache.get(key_of(entry)) is None:
                await self._create(entry, without_open_references(without_links(entry.resource)), code, spent)

    async def _settle(self, entry: Entry, ours: Resource, content: bytes, code: str, spent: Spent) -> None:
        async with self._turns.take([key_of(entry)]):
            if self._settled(entry, content):
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
                known.settled = (*known.settled, content)[-CONTENTS_KEPT:]

    async def _write(self, entry: Entry, ours: Resource, code: str, spent: Spent) -> None:
        if self._hit(entry) is None and await self._create(entry, ours, code, spent):
            return
        stored, known = self.current(entry), self._known(entry)
        ours = await self._own(entry, ours, stored, spent)
        _point(entry, known)
        changed = self._merged(entry, stored, ours, code, known.merged)
        if changed is not None:
            self._keep(entry, await self._client.update(changed, spent), known.merged, known.way)
        if entry.policy == "overwrite" and not known.merged:
            self._heard.note(f"{entry.type}/{known.id}", entry.event)

    async def _own(self, entry: Entry, ours: Resource, stored: Resource, spent: Spent) -> Resource:
        """What the message says of it, less the keys that another resource has."""
        taken, open_ = foreign(entry, stored), doubtful(entry, stored)
        if open_:
            [found] = await self._client.search([Query(entry.type, identifiers(open_), MANY)], spent)
            taken += tuple(key for key in open_ if any(has(one, (key,)) for one in found))
        return _without(ours, taken)

    async def _create(self, entry: Entry, ours: Resource, code: str, spent: Spent) -> bool:
        """Create the anchor unless it is there: whether it is new."""
        self._cache.forget(key_of(entry))
        told = event_time.timed(ours, entry.event) if entry.policy == "overwrite" else ours
        found, new = await self._create_unless(entry, told, asked_by(entry), code, spent)
        if not new and any(code in tags.marks(one) for one in found):
            self._begun.add(code)
        await self.learn(entry, found, spent)
        if new or self._cache.get(key_of(entry)) is not None:
            return new
        # What has one of its keys is another one, and keeps it.
        own, others = keys_of_new(entry, found)
        told = _without(told, others)
        missing = () if has(told, own) else own[-1:]
        if entry.series and not has(told, common := (series_key(base_of(entry)),)):
            missing += common
        if missing:
            told = {**told, "identifier": [*told.get("identifier", ()), *map(_identifier, missing)]}
        found, new = await self._create_unless(entry, told, own, code, spent)
        await self.learn(entry, found, spent)
        return new

    async def _create_unless(
        self, entry: Entry, told: Resource, keys: Key, code: str, spent: Spent
    ) -> tuple[list[Resource], bool]:
        """Create the anchor unless something has one of the keys: what has them now, and whether it is new."""
        if not keys:
            raise several(entry)
        try:
            resource, new = await self._client.create_once(tags.stamped(told, code), identifiers(keys), spent)
        except Trouble as problem:
            if problem.code != SEVERAL:
                raise
            [found] = await self._client.search([Query(entry.type, identifiers(keys), MANY)], spent)
            if not found:
                raise
            return found, False
        return [resource], new

    def _merged(
        self, entry: Entry, existing: Resource, ours: Resource, code: str, merged: bytes = b""
    ) -> Resource | None:
        """The existing anchor as the message wants it, ready for a PUT (its version still in meta); None: as it is.
        merged: the record by whose number the message calls a patient, where that was merged into the existing one."""
        if entry.type == "Patient":
            _check_identity(ours, existing, merged)
        policy, event = entry.policy, event_time.event_of(existing)
        last = self._heard.latest(existing)
        clears = entry.clears | (frozenset(entry.drops) - {"link"})
        late = (policy == "overwrite" or bool(clears)) and self._is_late(entry.event, last, existing, code)
        if late or merged:
            clears = frozenset()
        if merged:
            ours = _without(ours, numbers(orjson.loads(merged)))  # the survivor has them as former
        if policy == "overwrite" and (late or merged):
            policy = "fill"
        empty = event_time.cleared_of(existing)
        if empty and event_time.older(entry.event, last):
            ours = {name: value for name, value in ours.items() if name not in empty}
        result = merge_anchor(existing, ours, policy, clears)
        if tags.marks(existing) == [code]:  # ours alone; its patient may be another record by now
            whose = {name: ours[name] for name in WHOSE if name in ours and ours[name] != existing.get(name)}
            result = {**(result or existing), **whose} if whose else result
        if result is None:
            return None
        if policy == "overwrite" or (clears and cleared(existing, clears) != existing):
            event = event_time.latest(entry.event, event)
        empty = (empty | (clears & existing.keys())) - result.keys()
        meta = event_time.noted(
            tags.merged(existing, ours, code, history=False),
            event=event, linked=event_time.linked_of(existing), cleared=empty,
        )  # fmt: skip
        result["meta"] = {**meta, "versionId": existing["meta"]["versionId"]}
        return result

    def _is_late(self, event: str, last: str, existing: Resource, code: str) -> bool:
        """Whether the event was before the last one, or where nobody knows, a later message of the channel has written
        the resource."""
        verdict = event_time.older(event, last)
        return tags.overtaken(existing, code, self._incarnations) if verdict is None else verdict

    async def _look_again(self, entry: Entry, problem: Trouble, spent: Spent) -> None:
        known = self._cache.get(key_of(entry))
        self._cache.forget(key_of(entry))
        if known is None or problem.gone:
            return
        if known.merged:  # by its number, as the links may be others now
            [found] = await self._client.search([query_for(entry)], spent)
            await self.learn(entry, found, spent)
        else:
            await self.learn(entry, [await self._client.read(entry.type, known.id, spent)], spent)

    def _keep(self, entry: Entry, resource: Resource, merged: bytes = b"", way: tuple[str, ...] = ()) -> None:
        _point(entry, self._cache.put(key_of(entry), resource, merged, way))


def _point(entry: Entry, known: Known) -> None:
    """Point the references to the anchor at its id. One to a survivor tells the number by which the message called it,
    so that an unlinked patient's results can be told from the others."""
    entry.reference["reference"] = f"{entry.type}/{known.id}"
    if known.merged:
        system, value = entry.key[0]
        entry.reference["identifier"] = {"system": system, "value": value}  # type: ignore[assignment]
    else:
        entry.reference.pop("identifier", None)


def plain_key(entry: Entry) -> CacheKey:
    """Type and identifier: the one that nothing else has."""
    if not entry.key:
        raise Trouble(Result.NEVER, f"{entry.type} without an identifier")
    kind, (system, value) = entry.resource["resourceType"], entry.key[-1 if entry.apart else 0]
    return kind, system, f"{value}@{entry.resource.get(entry.series, '')}" if entry.series else value


def key_of(entry: Entry) -> CacheKey:
    """Under which the anchor is cached. The record that a merge speaks of is another than where its number leads."""
    return (*plain_key(entry), "record") if is_linking(entry) else plain_key(entry)


def query_for(entry: Entry) -> Query:
    keys = asked_by(entry)
    return Query(entry.type, identifiers(keys), 1 if keys == entry.key[:1] else MANY)


def _content(entry: Entry, data: bytes) -> bytes:
    """What decides whether the message changes the anchor: its JSON, and how much it is allowed to change and when."""
    if entry.policy != "overwrite" and not entry.clears and not entry.drops:
        return data
    less = (*sorted(entry.clears), *entry.drops)
    return b"\n".join((data, entry.policy.encode(), entry.event.encode(), *map(str.encode, less)))


def _check_identity(ours: Resource, existing: Resource, merged: bytes) -> None:
    """Who was merged may be called by the old name and birth date."""
    if contradicts(ours, existing) and not (merged and agrees(ours, orjson.loads(merged))):
        raise Trouble(Result.NEVER, "patient: the identifier matches, birth date and name contradict", code="identity")


def _without(ours: Resource, old: Collection[tuple[str, str]]) -> Resource:
    """A resource less some of its identifiers, (system, value)."""
    if not old:
        return ours
    left = [one for one in ours.get("identifier") or () if pair(one) not in old]
    rest = {name: value for name, value in ours.items() if name != "identifier"}
    return {**rest, "identifier": left} if left else rest


def _identifier(key: tuple[str, str]) -> dict[str, str]:
    return {"system": key[0], "value": key[1]}


def _place(resource: Resource) -> str:
    return f"{resource['resourceType']}/{resource['id']}"


def several(entry: Entry) -> Trouble:
    return Trouble(Result.NEVER, f"several {entry.type} match one identifier", code=SEVERAL)


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

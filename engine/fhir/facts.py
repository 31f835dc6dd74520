"""Facts: what a message itself says. Which of them exist already, and what is to be written.

Existing facts are found by their first identifier (those of a series by what they have in common, too: `series.py`),
for every type in the output, whatever else is known: a fact may have come with another message, by another strategy or
in an attempt that broke off, and a search costs a fifth of one needless write.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

import orjson

from engine.fhir import binary, event_time, series, tags
from engine.fhir.anchors import MANY, several
from engine.fhir.client import Query
from engine.fhir.condition import identifiers
from engine.fhir.failure import Trouble
from engine.fhir.identifiers import has, identifiers_of
from engine.fhir.meant import asked_by
from engine.fhir.merge import add_parts, older, replace_fact, same
from engine.fhir.output import Entry, Key, Pair, Resource
from engine.fhir.series import Places
from engine.fhir.survivors import Persons
from engine.ledger.outcome import Result

MOST_IN_A_QUERY = 50


@dataclass(slots=True)
class Write:
    """One resource to be written. resource: with id and version in its meta for an update; urn: for a create, unless
    something has the key."""

    entry: Entry
    resource: Resource
    urn: str = ""
    twins: list[Entry] = field(default_factory=list)
    key: Key = ()

    @property
    def is_update(self) -> bool:
        return not self.urn

    def stored_at(self, place: str) -> None:
        """Point all references at the resource, `Type/id`."""
        for entry in (self.entry, *self.twins):
            entry.reference["reference"] = place


@dataclass(slots=True)
class Lookup:
    """The searches that find the facts of one output, and what they found."""

    queries: list[Query]
    asked: list[list[Entry]]

    def found(self, answers: Sequence[list[Resource]], others: Collection[str] = (), code: str = "") -> Places:
        """What of the entries exists. others: ids of what belongs to other entries of the message; code: its mark.
        Trouble(NEVER) where several have an entry's identifier."""
        result = Places()
        if not any(answers):  # all are new, as most are
            return result
        rows: dict[tuple[str, Pair], tuple[list[Entry], dict[str, Resource]]] = {}
        for entries, resources in zip(self.asked, answers, strict=True):
            by_key: dict[Pair, list[Entry]] = {}
            for entry in entries:
                if entry.series:
                    rows.setdefault((entry.type, series.base_of(entry)), ([], {}))[0].append(entry)
                for key in asked_by(entry):
                    by_key.setdefault(key, []).append(entry)
            for resource in resources:
                for entry in {id(e): e for e in _named(resource, by_key)}.values():
                    if entry.series:
                        rows[entry.type, series.base_of(entry)][1][resource["id"]] = resource
                    elif result.found.setdefault(id(entry), resource) is not resource:
                        raise several(entry)
        for row, stored in rows.values():
            for entry in row if len(stored) > 1 else ():
                if sum(has(one, entry.key[:1]) for one in stored.values()) > 1:
                    raise several(entry)
            result.add(series.places(row, list(stored.values()), others, code))
        return result


def lookup(entries: Sequence[Entry]) -> Lookup:
    """One query for each type, of at most MOST_IN_A_QUERY facts. Trouble(NEVER) for a fact without an identifier."""
    by_type: dict[str, list[Entry]] = {}
    for entry in entries:
        if not entry.key:
            raise Trouble(Result.NEVER, f"{entry.type} without an identifier")
        by_type.setdefault(entry.type, []).append(entry)
    result = Lookup([], [])
    for kind, group in by_type.items():
        for start in range(0, len(group), MOST_IN_A_QUERY):
            part = group[start : start + MOST_IN_A_QUERY]
            keys = list(dict.fromkeys(key for entry in part for key in asked_by(entry)))
            most = MANY if any(entry.series for entry in part) else len(keys)
            result.queries.append(Query(kind, identifiers(keys), most))
            result.asked.append(part)
    return result


def distinct(entries: Sequence[Entry]) -> tuple[list[Entry], dict[int, list[Entry]]]:
    """The facts, each identifier once, and the twins of each by id(entry).

    Two equal ones become one, as a sender repeats a line at times; two that differ are the mapping's mistake.
    """
    first: dict[tuple[str, Pair], Entry] = {}
    twins: dict[int, list[Entry]] = {}
    for entry in entries:
        if not entry.key:
            raise Trouble(Result.NEVER, f"{entry.type} without an identifier")
        other = first.setdefault((entry.type, entry.key[0]), entry)
        if other is entry:
            continue
        if not same(other.resource, entry.resource):
            raise Trouble(Result.NEVER, f"two different {entry.type} of the message have one identifier")
        entry.reference["reference"] = other.reference["reference"]
        twins.setdefault(id(other), []).append(entry)
    return list(first.values()), twins


def point_at(entries: Sequence[Entry], existing: dict[int, Resource], twins: dict[int, list[Entry]]) -> None:
    """Make the references to existing facts concrete. Before any comparison: facts refer to facts."""
    for entry in entries:
        found = existing.get(id(entry))
        if found is not None:
            for one in (entry, *twins.get(id(entry), ())):
                one.reference["reference"] = f"{entry.type}/{found['id']}"


def plan(
    entries: Sequence[Entry],
    known: Places,
    urns: dict[int, str],
    twins: dict[int, list[Entry]],
    code: str,
    incarnations: Sequence[str],
    persons: Persons,
) -> list[Write]:
    """What is to be written: new facts, and existing ones that this message changes and no later event has written.
    incarnations: of the ledger, oldest first."""
    late = _reports_are_old(entries, known.found)
    writes = []
    for entry in entries:
        found = known.found.get(id(entry))
        if found is None:
            key = known.keys.get(id(entry), entry.key[0])
            new = entry.resource if key == entry.key[0] else series.as_known(entry, key)
            resource = tags.stamped(event_time.timed(new, entry.event), code)
            writes.append(Write(entry, resource, urns[id(entry)], twins.get(id(entry), []), (key,)))
            continue
        changed = _changed(entry, found, code, late or tags.overtaken(found, code, incarnations), persons)
        if changed is not None:
            writes.append(Write(entry, changed))
    return writes


def _changed(entry: Entry, existing: Resource, code: str, late: bool, persons: Persons) -> Resource | None:
    binary.adopt(existing, entry.resource)
    ours: Resource = series.as_stored(entry, existing) if entry.series else entry.resource
    ours = orjson.loads(orjson.dumps(ours))  # as a server would read it: plain JSON values only
    only_ours = tags.marks(existing) == [code]
    # a number that was given to somebody else's report before: his results are none of this patient's
    of_one = _is_of_one(ours, existing, persons)
    result = replace_fact(existing, ours, unite=of_one and not only_ours, clears=entry.clears)
    event = event_time.latest(entry.event, event_time.event_of(existing))
    if same(result, existing):
        return None
    if _is_old(entry, existing, late):
        result, event = add_parts(existing, ours), event_time.event_of(existing)
        if only_ours or not of_one or same(result, existing):
            return None
    meta = event_time.noted(tags.merged(existing, ours, code, history=True), event=event)
    result["meta"] = {**meta, "versionId": existing["meta"]["versionId"]}
    return result


def _is_of_one(ours: Resource, existing: Resource, persons: Persons) -> bool:
    """Whether two reports are of one patient, as far as they say of whom they are."""
    mine, theirs = (one.get("subject") or {} for one in (ours, existing))
    if not mine.get("reference") or not theirs.get("reference"):
        return True
    return mine["reference"] == theirs["reference"] or persons.have(theirs)


def _is_old(entry: Entry, existing: Resource, late: bool) -> bool:
    """Never an older event over a newer: by the time it was issued, else by that of its event, else by the channel's
    order, else as its report."""
    verdict = older(entry.resource, existing, entry.event)
    return late if verdict is None else verdict


def _reports_are_old(entries: Sequence[Entry], existing: dict[int, Resource]) -> bool:
    verdicts = [
        older(entry.resource, existing[id(entry)], entry.event)
        for entry in entries
        if entry.type == "DiagnosticReport" and id(entry) in existing
    ]
    return bool(verdicts) and all(verdicts)


def _named(resource: Resource, by_key: dict[Pair, list[Entry]]) -> list[Entry]:
    return [entry for key in identifiers_of(resource) for entry in by_key.get(key, ())]

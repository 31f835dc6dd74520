"""What a message that merges, links or unlinks two patients makes of each of their records. Pure.

A merge (A40 and its older forms): the old record stays, inactive, `replaced-by` the survivor, which `replaces` it and
takes its numbers over as `use: old`. A link (A24): both stay as they are and point at each other, `seealso`. An unlink
(A37) takes all of that back, for the two patients of the message only. HL7 knows no message that undoes a merge; the
senders that undo one use A37.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from engine.fhir.identifiers import pair
from engine.fhir.output import Entry, Resource
from engine.fhir.survivors import Number, numbers, place_of, successor

Link = tuple[str, str]  # `Patient/<id>` of the other record, type

_BACK = {"replaces": "replaced-by", "replaced-by": "replaces", "seealso": "seealso"}


@dataclass(frozen=True, slots=True)
class Party:
    """One of the patients that the message speaks of, with the record as it stands."""

    entry: Entry
    record: Resource

    @property
    def place(self) -> str:
        return place_of(self.record)

    @property
    def unlinks(self) -> bool:
        return "link" in self.entry.drops

    def links(self) -> Iterator[Link]:
        """The links that the message says of the record, in the words of this side."""
        for link in self.entry.resource.get("link") or ():
            yield link["other"]["reference"], link["type"]

    def named(self) -> frozenset[Number]:
        """The numbers by which the message calls it."""
        return numbers(self.entry.resource)


def is_linking(entry: Entry) -> bool:
    """Whether the entry says how the record stands to another one. It is about the record that has the number itself,
    even where that was merged away."""
    return entry.type == "Patient" and ("link" in entry.resource or "link" in entry.drops)


def without_links(ours: Resource) -> Resource:
    """What the message says of the patient but for the linking."""
    rest = {name: value for name, value in ours.items() if name not in ("link", "active")}
    own = [one for one in ours.get("identifier") or () if one.get("use") != "old"]
    return {**rest, "identifier": own} if own else {n: v for n, v in rest.items() if n != "identifier"}


def relinked(record: Resource, own: Party, parties: Sequence[Party], *, circular: bool = False) -> Resource:
    """The record as the message links it. circular: the record was merged, by detours, into one that is now merged into
    it: it stands for itself again."""
    others = [one for one in parties if one.place != own.place]
    ended = {one.place for one in others} if own.unlinks else set()
    said = dict(_said(own, others))
    links = _links(record.get("link") or [], said, ended, circular=circular)
    freed = ended | {place for place, kind in said.items() if kind == "replaced-by"}
    taken = {place for place, kind in said.items() if kind == "replaces"} | {own.place}
    identifier = _identifiers(
        record.get("identifier") or [],
        {number for one in others if one.place in freed for number in numbers(one.record) | one.named()},
        [
            each
            for one in parties
            if one.place in taken and one.entry is not own.entry
            for each in one.entry.resource.get("identifier") or ()
        ],
        own.named(),
    )
    result = {name: value for name, value in record.items() if name not in ("link", "identifier")}
    result |= {name: value for name, value in (("identifier", identifier), ("link", links)) if value}
    return _active(result, own, was_merged=bool(successor(own.record)))


def _said(own: Party, others: Collection[Party]) -> Iterator[Link]:
    """What the message says of the record and each other one; one side of it is enough."""
    places = {one.place for one in others}
    for one in others:
        for place, kind in one.links():
            if place == own.place and kind in _BACK:
                yield one.place, _BACK[kind]
    yield from ((place, kind) for place, kind in own.links() if place in places)


def _links(existing: list[Any], said: dict[str, str], ended: set[str], *, circular: bool) -> list[Any]:
    """The links that stood and those that the message says. A record is merged into one other at most."""
    merged = "replaced-by" in said.values()
    result = []
    for link in existing:
        place, kind = (link.get("other") or {}).get("reference", ""), link.get("type")
        wanted = said.get(place)
        if wanted is not None and wanted != kind and not (wanted == "seealso" and kind in ("replaces", "replaced-by")):
            continue
        if place in ended or (kind == "replaced-by" and (circular or (merged and wanted != kind))):
            continue
        result.append(link)
    known = {link["other"]["reference"] for link in result if link.get("other")}
    new = [{"other": {"reference": place}, "type": kind} for place, kind in said.items() if place not in known]
    return [*result, *new]


def _identifiers(
    existing: list[Any], leaving: Collection[Number], coming: Sequence[Any], own: Collection[Number]
) -> list[Any]:
    """The identifiers, less what was taken over from a record that stands for itself again, and with the numbers of one
    that is merged into this, as former ones."""
    former = {pair(one): {**one, "use": "old"} for one in coming if pair(one) not in own}
    result = []
    for one in existing:
        number = pair(one)
        if number in former:
            result.append({**one, "use": "old"})
            del former[number]
        elif one.get("use") != "old" or number not in leaving:
            result.append(one)
    return [*result, *former.values()]


def _active(record: Resource, own: Party, *, was_merged: bool) -> Resource:
    """A record that is merged into another is not active; one that stands for itself again is."""
    said = own.entry.resource.get("active")
    if successor(record):
        return {**record, "active": False}
    if said is not None or was_merged:
        return {**record, "active": said is not False}
    return record

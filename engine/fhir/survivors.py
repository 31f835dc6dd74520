"""Who stands for a patient's number: the record that has it, or the one that this record was merged into.

A merge leaves both records (HL7 v2 chapter 3, A40): the old one with `link.type = replaced-by`, the survivor with
`replaces` and with the old numbers as `use: old`. So several records may have one number. The one that has it as its
own counts, and from there the links lead to the survivor, however often it was merged again.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from engine.fhir.failure import Trouble
from engine.fhir.identifiers import pair
from engine.fhir.output import Resource
from engine.ledger.outcome import Result

REPLACED = b'"type":"replaced-by"'
"""As a server writes it. These bytes can't stand in a text, whose quotes would be escaped."""
REPLACES = b'"type":"replaces"'

_PLACE = re.compile(r"Patient/[A-Za-z0-9.-]{1,64}")

Number = tuple[str, str]
Read = Callable[[str], Awaitable[Resource]]


class Replaced(Exception):
    """A patient that what was written refers to had been merged into another meanwhile, or unlinked from it."""


@dataclass(frozen=True, slots=True)
class Patients:
    """`Patient/<id>` of those that what is written refers to, and of the merged records that led to them. They are read
    along with it (one point each)."""

    own: tuple[str, ...] = ()
    merged: tuple[str, ...] = ()

    def entries(self) -> list[dict[str, Any]]:
        return [{"request": {"method": "GET", "url": place}} for place in (*self.own, *self.merged)]

    def changed(self, answer: bytes) -> bool:
        """Whether a server's answer shows that one was merged or unlinked since it was looked up."""
        return bool(self.own) and answer.count(REPLACED) != len(self.merged)

    def differ(self, read: Iterable[Resource]) -> bool:
        """The same by the patients themselves, as they were read."""
        return sum(bool(successor(one)) for one in read) != len(self.merged)


@dataclass(frozen=True, slots=True)
class Persons:
    """By what a resource shows that it is of one of a message's patients.

    merged: `Patient/<id>` of the records that were merged into theirs; numbers: by which the message calls them."""

    merged: frozenset[str] = frozenset()
    numbers: frozenset[Number] = frozenset()

    def have(self, subject: dict[str, Any]) -> bool:
        """subject: a reference, which tells the number too where that led to another record."""
        return subject.get("reference", "") in self.merged or pair(subject.get("identifier") or {}) in self.numbers


def place_of(patient: Resource) -> str:
    return f"Patient/{patient['id']}"


def successor(patient: Resource) -> str:
    """`Patient/<id>` of the record that this one was merged into; empty where it stands for itself."""
    for link in patient.get("link") or ():
        place = (link.get("other") or {}).get("reference") or ""
        if link.get("type") == "replaced-by" and _PLACE.fullmatch(place):
            return str(place)
    return ""


def predecessors(patient: Resource) -> list[str]:
    """`Patient/<id>` of the records that were merged into this one."""
    links = patient.get("link") or ()
    return [str((link.get("other") or {}).get("reference")) for link in links if link.get("type") == "replaces"]


def numbers(patient: Resource, *, former: bool = False) -> frozenset[Number]:
    """The record's own numbers; with `former`, those that it took over by a merge."""
    found = patient.get("identifier") or ()
    return frozenset(pair(one) for one in found if (one.get("use") == "old") is former)


def holders(found: Sequence[Resource], number: Number) -> list[Resource]:
    """Of the records with the number those that have it as their own; where none has, those that took it over."""
    return [one for one in found if number in numbers(one)] or list(found)


def record(found: Sequence[Resource], number: Number) -> Resource | None:
    """The record that the number itself names, merged or not; None where several may be meant."""
    left = holders(found, number)
    if len(left) > 1:  # a survivor whose sender goes on naming the old number as one of its own
        into = {successor(one) for one in left}
        left = [one for one in left if place_of(one) not in into]
    return left[0] if len(left) == 1 else None


async def survivor(patient: Resource, read: Read) -> tuple[Resource, tuple[str, ...]]:
    """The record at the end of the links, which is the patient's own where it was never merged, and the places of the
    merged ones on the way to it.

    Trouble(NEVER) for a circle and for a survivor that is not there: a person decides.
    """
    way: tuple[str, ...] = ()
    while place := successor(patient):
        way = (*way, place_of(patient))
        if place in way:
            raise _unclear("records were merged into each other in a circle")
        patient = await _there(place, read)
    return patient, way


async def leads_to(patient: Resource, wanted: str, read: Read) -> bool:
    """Whether the record was merged, by whatever detours, into the wanted one."""
    seen = set()
    while (place := successor(patient)) and place not in seen:
        if place == wanted:
            return True
        seen.add(place)
        patient = await _there(place, read)
    return False


async def _there(place: str, read: Read) -> Resource:
    try:
        return await read(place)
    except Trouble as problem:
        if problem.gone:
            raise _unclear("merged into a record that is not there") from None
        raise


def _unclear(what: str) -> Trouble:
    return Trouble(Result.NEVER, f"patient: {what}", code="identity")

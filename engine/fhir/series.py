"""One thing at several times under one key: the results of a test that is done at several hours, where the sender has
no sub-id for them. Pure.

A message's first has the key K, the others K#2, K#3 …, and all of a series a second identifier in common. A later
message may bring them in another order, one of them alone, or with other times. So the time says which is which,
wherever one has it; what is left goes by its place in the series, for times are corrected, and missing at first. In
doubt it is one more: nothing final goes over another one's time and value.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from typing import Any

from engine.fhir.identifiers import has, identifiers_of, pair
from engine.fhir.output import Entry, Key, Pair, Resource, series_key
from engine.fhir.tags import marks

_CLOCK = len("2026-03-01T07:00:00")
At = Callable[[str], str | datetime]  # what a time is compared by
_OPEN = ("registered", "preliminary", "unknown")  # what of it may still come
_CORRECTED = ("corrected", "amended", "cancelled", "entered-in-error")
Fits = Callable[[Entry, Resource], bool]


@dataclass(slots=True)
class Places:
    """What is stored of a message's facts, and by what those of a series are known from now on; by id(entry)."""

    found: dict[int, Resource] = field(default_factory=dict)
    keys: dict[int, Pair] = field(default_factory=dict)

    def add(self, other: Places) -> None:
        self.found |= other.found
        self.keys |= other.keys


def base_of(entry: Entry) -> Pair:
    """The key that the sender's own data give."""
    return (entry.formerly or entry.key)[0]


def asked_by(entry: Entry) -> Key:
    """The keys that it is searched by."""
    base = base_of(entry)
    return tuple(dict.fromkeys((entry.key[0], base, series_key(base))))


def places(
    entries: Sequence[Entry], stored: Sequence[Resource], others: Collection[str] = (), code: str = ""
) -> Places:
    """Where the entries of a series stand. stored: what has one of their keys; others: the ids of what stands for other
    entries of the message; code: the message's mark, which what it has written bears."""
    left = sorted((one for one in stored if one.get("id") not in others), key=lambda one: _ordinal(entries[0], one))
    result, more = Places(), _are_more(entries, left)
    ways: list[At] = [_as_told, _reading(entries, left)]
    for at in ways:
        left = _take(entries, left, result, _of_time(at, at_its_place=True))
        left = _take(entries, left, result, _of_time(at, at_its_place=False))
    written = {one["id"] for one in left if code and code in marks(one)}
    for placed in (True, False) if written else ():  # it is repeated, and another one has corrected its times since
        left = _take(entries, left, result, _among(written, at_their_places=placed))
    if not more:
        lone, moved = len(entries) == len(stored) == 1, _have_moved(entries, result)
        _take(entries, left, result, lambda entry, one: _stands(entry, one) and _corrects(entry, one, lone, moved))
    base = base_of(entries[0])
    taken = {key for one in stored for key in identifiers_of(one)}
    new = [entry for entry in entries if id(entry) not in result.found]
    for entry in new:
        if entry.key[0] not in taken:
            result.keys[id(entry)] = entry.key[0]
            taken.add(entry.key[0])
    for entry in new:
        if id(entry) not in result.keys:
            result.keys[id(entry)] = _free(base, taken)
            taken.add(result.keys[id(entry)])
    return result


def _take(entries: Sequence[Entry], left: list[Resource], places: Places, fits: Fits) -> list[Resource]:
    """Let each entry that stands nowhere yet have the first that fits. Returns what is left."""
    for entry in entries:
        one = next((one for one in left if id(entry) not in places.found and fits(entry, one)), None)
        if one is not None:
            places.found[id(entry)] = one
            left = [other for other in left if other is not one]
    return left


def as_known(entry: Entry, key: Pair) -> Resource:
    """A new one, under another key than the message has for it, as that is another one's: so it is one of several."""
    return _with_identifiers(entry, key, True)


def as_stored(entry: Entry, stored: Resource) -> Resource:
    """What the message says of a stored one, which keeps its own key."""
    base = base_of(entry)
    of_series = (key for key in identifiers_of(stored) if key == base or _is_further(key, base))
    return _with_identifiers(entry, next(of_series, entry.key[0]), has(stored, (series_key(base),)))


def _with_identifiers(entry: Entry, key: Pair, several: bool) -> Resource:
    system, value = series_key(base_of(entry))
    own: list[dict[str, Any]] = [
        {**one, "system": key[0], "value": key[1]} if pair(one) == entry.key[0] else one
        for one in entry.resource["identifier"]
    ]
    if several and not has(entry.resource, ((system, value),)):
        own.append({"system": system, "value": value})
    return {**entry.resource, "identifier": own}


def _reading(entries: Sequence[Entry], stored: Sequence[Resource]) -> At:
    """As what more of the times are found: what the clock showed, in a zone that only one of two messages may have
    named, and that summer changes; or instants, however they are written."""

    def count(at: At) -> int:
        known = {at(one.get(entries[0].series, "")) for one in stored}
        return sum(at(entry.resource.get(entry.series, "")) in known for entry in entries)

    readings: list[At] = [_clock, _instant]
    return max(readings, key=count)


def _of_time(at: At, *, at_its_place: bool) -> Fits:
    def fits(entry: Entry, one: Resource) -> bool:
        mine, theirs = entry.resource.get(entry.series, ""), one.get(entry.series, "")
        return at(mine) == at(theirs) and (not at_its_place or _stands(entry, one))

    return fits


def _among(ids: Collection[str], *, at_their_places: bool) -> Fits:
    def fits(entry: Entry, one: Resource) -> bool:
        return one["id"] in ids and (not at_their_places or _stands(entry, one))

    return fits


def _stands(entry: Entry, one: Resource) -> bool:
    """At its place."""
    return has(one, entry.key[:1])


def _corrects(entry: Entry, one: Resource, lone: bool, moved: bool) -> bool:
    """Whether what stands at its place may be it, with another time: what is the only one, was not final, is corrected,
    or has the value that it had. What only confirms a value (an anchor) corrects no time."""
    if entry.series not in entry.resource or entry.series not in one:
        return True
    ours = entry.resource
    goes_on = lone or one.get("status") in _OPEN or ours.get("status") in _CORRECTED or _value(ours) == _value(one)
    return goes_on and not moved and entry.role != "anchor"


def _value(resource: Resource) -> Resource:
    return {name: value for name, value in resource.items() if name.startswith("value")}


def _have_moved(entries: Sequence[Entry], places: Places) -> bool:
    """Whether what its time has found stands at another place now: then a place does not tell whose time was
    corrected."""
    pairs = ((entry, places.found.get(id(entry))) for entry in entries)
    return any(one is not None and not _stands(entry, one) for entry, one in pairs)


def _as_told(value: str) -> str:
    return value


def _clock(value: str) -> str:
    return value[:_CLOCK]


@lru_cache(maxsize=1000)
def _instant(value: str) -> datetime | str:
    """Of a dateTime with a time, which has a zone in FHIR."""
    try:
        found = datetime.fromisoformat(value) if len(value) > _CLOCK else None
    except ValueError:
        return value
    return value if found is None or found.tzinfo is None else found


def _are_more(entries: Sequence[Entry], stored: Sequence[Resource]) -> bool:
    """Whether what has none of the stored times goes over none of them: where fewer come than are stored, and all have
    times. As many, or more, are the whole series with times that were corrected."""
    if len(entries) >= len(stored):
        return False
    return all(entry.series in entry.resource for entry in entries) and all(entries[0].series in one for one in stored)


def _ordinal(entry: Entry, one: Resource) -> int:
    """Its number in the series."""
    base = base_of(entry)
    numbers = (key[1][len(base[1]) + 1 :] for key in identifiers_of(one) if _is_further(key, base))
    return next((int(number) for number in numbers if number.isdigit()), 1)


def _is_further(key: Pair, base: Pair) -> bool:
    return key[0] == base[0] and key[1].startswith(f"{base[1]}#")


def _free(base: Pair, taken: set[Pair]) -> Pair:
    number = 2
    while (base[0], f"{base[1]}#{number}") in taken:
        number += 1
    return base[0], f"{base[1]}#{number}"

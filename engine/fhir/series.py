"""One thing at several times under one key: the results of a test that is done at several hours, where the sender has
no sub-id for them. Pure.

A message's first has the key K, the others K#2, K#3 …, and all of a series a second identifier in common. A later
message may bring them in another order, one of them alone, or with other times. So the time says which is which,
wherever one has it; what is left goes by its place in the series, for times are corrected, and missing at first.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

from engine.fhir.identifiers import has, identifiers_of, pair
from engine.fhir.output import Entry, Key, Pair, Resource, series_key


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


def places(entries: Sequence[Entry], stored: Sequence[Resource], others: Collection[str] = ()) -> Places:
    """Where the entries of a series stand. stored: what has one of their keys; others: the ids of what stands for other
    entries of the message."""
    result, left = Places(), [one for one in stored if one.get("id") not in others]
    ways: list[Callable[[Entry, Resource], bool]] = [_same_place_and_time, _same_time, _same_place]
    for is_it in ways[:2] if _are_more(entries, left) else ways:
        for entry in entries:
            one = next((one for one in left if id(entry) not in result.found and is_it(entry, one)), None)
            if one is not None:
                result.found[id(entry)] = one
                left = [other for other in left if other is not one]
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


def _same_time(entry: Entry, one: Resource) -> bool:
    value = entry.resource.get(entry.series)
    return value is not None and one.get(entry.series) == value


def _same_place(entry: Entry, one: Resource) -> bool:
    """By its place. What only confirms a value (an anchor) corrects no time."""
    if entry.role == "anchor" and entry.series in entry.resource and entry.series in one:
        return False
    return has(one, entry.key[:1])


def _same_place_and_time(entry: Entry, one: Resource) -> bool:
    return _same_time(entry, one) and _same_place(entry, one)


def _are_more(entries: Sequence[Entry], stored: Sequence[Resource]) -> bool:
    """Whether what has none of the stored times goes over none of them: where fewer come than are stored, and all have
    times. As many, or more, are the whole series with times that were corrected."""
    if len(entries) >= len(stored):
        return False
    return all(entry.series in entry.resource for entry in entries) and all(entries[0].series in one for one in stored)


def _is_further(key: Pair, base: Pair) -> bool:
    return key[0] == base[0] and key[1].startswith(f"{base[1]}#")


def _free(base: Pair, taken: set[Pair]) -> Pair:
    number = 2
    while (base[0], f"{base[1]}#{number}") in taken:
        number += 1
    return base[0], f"{base[1]}#{number}"

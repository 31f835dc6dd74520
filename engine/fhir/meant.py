"""Which stored anchor an entry means, where it has several keys or shares one with others. Pure: dicts in, dicts out.

Usually the first key says it. An order may have been stored by a message that knew another of its numbers only; and the
services of one order may share a number: then what tells them `apart` (the code) decides.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from engine.fhir import series
from engine.fhir.identifiers import has, identifiers_of, pair, type_of
from engine.fhir.merge import alike, opposed
from engine.fhir.output import Entry, Key, Resource


def asked_by(entry: Entry) -> Key:
    """The keys that it is searched by."""
    return series.asked_by(entry) if entry.series else (*entry.key[:1], *further(entry), *entry.formerly)


def further(entry: Entry) -> Key:
    """The keys beside the first that tell it apart from others with the same number."""
    return entry.key[1:] if entry.apart else ()


def meant(entry: Entry, found: Sequence[Resource]) -> Sequence[Resource]:
    """Those of what was found by its keys that the entry may mean: none is a new one, several are for a person."""
    if entry.series:
        return list(series.places([entry], found).found.values())
    if not entry.apart and not entry.formerly:
        return found
    like = [one for one in found if not differs(entry, one)]
    told_apart = [one for one in found if has(one, further(entry))]
    own = [one for one in like if has(one, entry.key[:1])] or told_apart
    if own:
        return own
    former = [one for one in like if _is_former(one, entry)]
    return former if len(former) == 1 else _numbered(entry, found)


def differs(entry: Entry, stored: Resource) -> bool:
    """Whether the stored resource is another one, unless its numbers say more: both say what they are of, not the
    same."""
    mine, theirs = _what(entry, stored)
    return bool(mine and theirs and not alike(mine, theirs))


def _surely_differs(entry: Entry, stored: Resource) -> bool:
    mine, theirs = _what(entry, stored)
    return bool(mine and theirs and opposed(mine, theirs))


def _what(entry: Entry, stored: Resource) -> tuple[Any, Any]:
    """What the two are of."""
    return (entry.resource.get(entry.apart), stored.get(entry.apart)) if entry.apart else (None, None)


def foreign(entry: Entry, stored: Resource) -> Key:
    """Keys of the entry that are another's, as far as the stored resource tells: it was given its own when the first
    was taken."""
    first = entry.key[:1]
    if has(stored, first):
        return ()
    return first if entry.series or has(stored, further(entry)) else ()


def doubtful(entry: Entry, stored: Resource) -> Key:
    """Keys of the entry that the stored resource has not, and that would find two if another one has them: what is
    both a first and a former key has one system. (Real numbers may well be shared.)"""
    if entry.series:
        return ()
    return tuple(one for one in entry.formerly if one[0] == entry.key[0][0] and not has(stored, (one,)))


def keys_of_new(entry: Entry, found: Sequence[Resource]) -> tuple[Key, Key]:
    """The keys that a new one is known by, where what was found by the entry's keys is something else; and those that
    are left to that."""
    if entry.series:
        return (series.places([entry], found).keys[id(entry)],), entry.key[:1]
    others = tuple(key for key in (*entry.key, *doubtful(entry, {})) if any(has(one, (key,)) for one in found))
    return tuple(key for key in (*entry.key[:1], *further(entry)) if key not in others), others


def _numbered(entry: Entry, found: Sequence[Resource]) -> Sequence[Resource]:
    """Those that have its number, though they say of what they are in other words: another site's. Not what surely is
    of something else or was told apart, and none of several, where a further key can tell this one apart."""
    own, systems = [one for one in found if has(one, entry.key[:1])], {system for system, _ in further(entry)}
    left = [one for one in own if not any(system in systems for system, _ in identifiers_of(one))]
    changes = entry.becomes and len(found) == 1  # else nobody says which of them
    left = [one for one in left if changes or not _surely_differs(entry, one)]
    return [] if systems and len(left) != 1 else left


def _is_former(stored: Resource, entry: Entry) -> bool:
    """Whether it is what a message has stored that did not know the entry's first key: of the same patient, and known
    by former keys alone. What has a number of the first one's kind, or a key that no sender has given, is another."""
    if _subject(stored) != _subject(entry.resource):
        return False
    kinds = {type_of(one) for one in entry.resource.get("identifier") or () if pair(one) == entry.key[0]} - {""}
    systems = {system for system, _ in entry.key}
    known = {*entry.key, *entry.formerly}
    for one in stored.get("identifier") or ():
        if pair(one) not in known and (not type_of(one) or type_of(one) in kinds or pair(one)[0] in systems):
            return False
    return True


def _subject(resource: Resource) -> str:
    return str((resource.get("subject") or {}).get("reference", ""))

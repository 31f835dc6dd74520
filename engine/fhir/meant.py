"""Which stored resource an entry means, where it has several keys or shares one with others. Pure: dicts in, dicts out.

Usually the first key says it. An order may have been stored by a message that knew another of its numbers only; and the
services of one order may share a number, as the results of one test at several times may: then what tells them `apart`
(the code, the time) decides.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from engine.fhir.merge import alike
from engine.fhir.output import Entry, Key, Pair, Resource, told_apart


def asked_by(entry: Entry) -> Key:
    """The keys that it is searched by."""
    return (*entry.key[:1], *further(entry), *entry.formerly)


def meant(entry: Entry, found: Sequence[Resource]) -> Sequence[Resource]:
    """Those of what was found by its keys that the entry may mean: none is a new one, several are for a person."""
    return surely(entry, found) or numbered(entry, found)


def surely(entry: Entry, found: Sequence[Resource]) -> Sequence[Resource]:
    """Those that nothing speaks against."""
    if not entry.apart and not entry.formerly:
        return found
    like = [one for one in found if not differs(entry, one)]
    for keys in (entry.key[:1], further(entry)):
        own = [one for one in like if has(one, keys)]
        if own:
            return own
    former = [one for one in like if not _has_own(one, entry)]
    return former if len(former) == 1 else []


def numbered(entry: Entry, found: Sequence[Resource]) -> Sequence[Resource]:
    """Those that have its number, whatever else they say: a service may have become another one."""
    return [one for one in found if has(one, entry.key[:1])]


def differs(entry: Entry, stored: Resource) -> bool:
    """Whether the stored resource is another one, whatever its numbers are: both say what they are of, not the same."""
    mine, theirs = (entry.resource.get(entry.apart), stored.get(entry.apart)) if entry.apart else (None, None)
    if not mine or not theirs:
        return False
    return not alike(mine, theirs) if isinstance(mine, dict) and isinstance(theirs, dict) else mine != theirs


def has(resource: Resource, keys: Collection[Pair]) -> bool:
    """Whether one of the keys is among a resource's identifiers."""
    return any(_pair(one) in keys for one in _identifiers(resource))


def foreign(entry: Entry, stored: Resource) -> Key:
    """Keys of the entry that are another's, as far as the stored resource tells: it was given the last one when the
    first was taken."""
    return entry.key[:1] if entry.apart and own_key(entry, stored) not in entry.key[:1] else ()


def own_key(entry: Entry, stored: Resource) -> Pair:
    """The best of the entry's keys that the stored resource has; without one of its own the first."""
    return next((one for one in (*entry.key[:1], *further(entry)) if has(stored, (one,))), entry.key[0])


def doubtful(entry: Entry, stored: Resource) -> Key:
    """Keys of the entry that the stored resource has not, and that would find two if another one has them: what is
    both a first and a former key has one system. (Real numbers may well be shared.)"""
    return tuple(one for one in entry.formerly if one[0] == entry.key[0][0] and not has(stored, (one,)))


def further(entry: Entry) -> Key:
    """The keys beside the first that only tell it apart from others with the same number."""
    if not entry.apart or len(entry.key) > 1 or entry.formerly:
        return entry.key[1:] if entry.apart else ()
    value = entry.resource.get(entry.apart)
    return (told_apart(entry.key[0], value),) if isinstance(value, str) else ()


def _has_own(stored: Resource, entry: Entry) -> bool:
    """Whether a resource has a number already of the kind of the entry's first key: then it is another one."""
    system, kind = entry.key[0][0], ""
    for one in _identifiers(entry.resource):
        if _pair(one) == entry.key[0]:
            kind = kind or _type(one)
    known = {*entry.key, *entry.formerly}
    others = [one for one in _identifiers(stored) if _pair(one) not in known]
    return any(one.get("system") == system or (kind and _type(one) == kind) for one in others)


def _identifiers(resource: Resource) -> list[Resource]:
    found = resource.get("identifier") or []
    return found if isinstance(found, list) else [found]


def _pair(identifier: Resource) -> Pair:
    return identifier.get("system", ""), identifier.get("value", "")


def _type(identifier: Resource) -> str:
    codings = (identifier.get("type") or {}).get("coding") or ()
    return str(codings[0].get("code", "")) if codings else ""

"""A resource's identifiers, of which most types have a list and some have one."""

from __future__ import annotations

from collections.abc import Collection

from engine.fhir.output import Pair, Resource


def identifiers_of(resource: Resource) -> list[Pair]:
    """(system, value) of each."""
    found = resource.get("identifier") or []
    return [pair(one) for one in (found if isinstance(found, list) else [found])]


def has(resource: Resource, keys: Collection[Pair]) -> bool:
    """Whether one of the keys is among a resource's identifiers."""
    return any(one in keys for one in identifiers_of(resource))


def pair(identifier: Resource) -> Pair:
    return identifier.get("system", ""), identifier.get("value", "")


def type_of(identifier: Resource) -> str:
    """The first code of its type, `PLAC`."""
    codings = (identifier.get("type") or {}).get("coding") or ()
    return str(codings[0].get("code", "")) if codings else ""

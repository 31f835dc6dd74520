"""Bundles of writes: their entries, their limits, and the ids in their answers. Pure.

Medplum's limits for a transaction without conditions: 50 updates, and a JSON body of 1 MB by default
(`maxJsonSize`). What does not fit goes in several transactions: what is referred to first, the report last, so that
whoever sees a report sees all of it; each fact has its identifier, so an attempt that broke off goes on.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from engine.fhir.client import without_version
from engine.fhir.facts import Write

_URN = re.compile(rb'"reference":"(urn:uuid:[0-9a-f-]{36})"')
_PLACE = re.compile(r"([A-Z]\w+/[A-Za-z0-9.-]{1,64})(?:/_history/.*)?$")
_LAST = {"DiagnosticReport": 1, "Provenance": 2}


@dataclass(frozen=True, slots=True)
class Limits:
    """updates, entries: per bundle. size: bytes of JSON, a little under the server's own limit."""

    updates: int = 50
    entries: int = 250
    size: int = 1_000_000


def entry_for(write: Write, condition: str | None = None) -> dict[str, Any]:
    """The bundle entry of a write: a POST under its urn (once only, with a condition), or a PUT of a known version."""
    kind = write.resource["resourceType"]
    if not write.is_update:
        request = {"method": "POST", "url": kind}
        if condition is not None:
            request["ifNoneExist"] = condition
        return {"fullUrl": write.urn, "resource": write.resource, "request": request}
    meta = write.resource["meta"]
    return {
        "resource": {**write.resource, "meta": without_version(meta)},
        "request": {
            "method": "PUT",
            "url": f"{kind}/{write.resource['id']}",
            "ifMatch": f'W/"{meta["versionId"]}"',
        },
    }


def fits(writes: Sequence[Write], size: int, limits: Limits) -> bool:
    updates = sum(write.is_update for write in writes)
    return size <= limits.size and len(writes) <= limits.entries and updates <= limits.updates


def chunks(writes: Sequence[Write], limits: Limits) -> list[list[Write]]:
    """The writes in bundles that keep the limits, each after those that it refers to, reports and provenance last.

    A circle of references stays in one bundle, whatever its size.
    """
    result: list[list[Write]] = []
    room = Room(limits)
    for group in ordered(writes):
        size = sum(len(orjson.dumps(entry_for(write))) for write in group)
        if not result or not room.take(group, size):
            result.append([])
            room = Room(limits)
            room.take(group, size)
        result[-1].extend(group)
    return result


class Room:
    """What is left of one bundle."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._entries = self._updates = self._size = 0

    def take(self, group: Sequence[Write], size: int) -> bool:
        """Take up the group's room; False, and nothing taken, where it is not there."""
        updates = sum(write.is_update for write in group)
        fitting = (
            self._entries + len(group) <= self._limits.entries
            and self._updates + updates <= self._limits.updates
            and self._size + size + 200 <= self._limits.size
        )
        if fitting or not self._entries:
            self._entries += len(group)
            self._updates += updates
            self._size += size
            return True
        return False


def ordered(writes: Sequence[Write]) -> list[list[Write]]:
    """Groups of writes, each after the groups that it refers to. Only a circle has more than one member."""
    by_urn = {write.urn: write for write in writes if write.urn}
    waiting = sorted(writes, key=lambda write: _LAST.get(write.entry.type, 0))
    needs = {id(write): references(write) & by_urn.keys() - {write.urn} for write in waiting}
    done: set[str] = set()
    result: list[list[Write]] = []
    while waiting:
        ready = [write for write in waiting if needs[id(write)] <= done]
        result.extend([[write] for write in ready] or [waiting])
        ready = ready or waiting
        done.update(write.urn for write in ready)
        taken = set(map(id, ready))
        waiting = [write for write in waiting if id(write) not in taken]
    return _reports_last(result)


def _reports_last(groups: list[list[Write]]) -> list[list[Write]]:
    return sorted(groups, key=lambda group: max(_LAST.get(write.entry.type, 0) for write in group))


def references(write: Write) -> set[str]:
    """The urns that the resource refers to."""
    return {urn.decode() for urn in _URN.findall(orjson.dumps(write.resource))}


def concrete(body: bytes, places: Mapping[str, str]) -> bytes:
    """The body with references to what earlier bundles stored: urn → `Type/id`."""
    for urn, place in places.items():
        body = body.replace(f'"reference":"{urn}"'.encode(), f'"reference":"{place}"'.encode())
    return body


def place_of(response: dict[str, Any]) -> str | None:
    """`Type/id` of an entry's answer, from its location ('Observation/<id>', or an address with a version)."""
    match = _PLACE.search(str(response.get("location", "")))
    return match[1] if match else None

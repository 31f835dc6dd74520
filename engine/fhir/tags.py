"""The mark that a message leaves on what it wrote: meta.tag urn:interlock:message|<incarnation>/<channel>/<sequence>.

A further part or delivery has a fourth piece, `/<part>.<delivery>`. A fact keeps the marks of the messages that
changed it, so that its history can be followed; an anchor is written by many and keeps only the last.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from engine.fhir.condition import MESSAGE_TAG
from engine.fhir.output import Resource

MARKS_KEPT = 8
PART_TAG = "urn:interlock:provenance"  # tells the provenances of one message apart: they have no identifier


def mark(code: str) -> dict[str, str]:
    return {"system": MESSAGE_TAG, "code": code}


def stamped(resource: Resource, code: str) -> Resource:
    """The resource with the message's mark, as it is to be created."""
    meta = resource.get("meta") or {}
    return {**resource, "meta": {**meta, "tag": [*others(meta), mark(code)]}}


def provenance_code(code: str, n: int) -> str:
    """The name of a message's provenance number n."""
    return f"{code}/{n}"


def stamped_provenance(resource: Resource, code: str, n: int) -> Resource:
    result = stamped(resource, code)
    result["meta"]["tag"].append({"system": PART_TAG, "code": provenance_code(code, n)})
    return result


def provenance_name(resource: Resource) -> str:
    """What `stamped_provenance` named it; empty for other resources."""
    tags = (resource.get("meta") or {}).get("tag") or ()
    return next((tag.get("code", "") for tag in tags if tag.get("system") == PART_TAG), "")


def others(meta: dict[str, Any]) -> list[dict[str, Any]]:
    """The tags that are not ours."""
    return [tag for tag in meta.get("tag") or () if tag.get("system") != MESSAGE_TAG]


def marks(resource: Resource) -> list[str]:
    """The messages that wrote the resource, oldest first."""
    tags = (resource.get("meta") or {}).get("tag") or ()
    return [tag.get("code", "") for tag in tags if tag.get("system") == MESSAGE_TAG]


def merged(existing: Resource, ours: Resource, code: str, *, history: bool) -> dict[str, Any]:
    """The meta of an update: the existing profile, security and foreign tags, what ours adds, and our mark."""
    old, new = existing.get("meta") or {}, ours.get("meta") or {}
    meta = {
        key: value for key, value in {**old, **new}.items() if key not in ("versionId", "lastUpdated", "tag", "author")
    }
    foreign = others(old)
    foreign += [tag for tag in others(new) if tag not in foreign]
    earlier = [mark(one) for one in marks(existing) if one != code][-(MARKS_KEPT - 1) :] if history else []
    meta["tag"] = [*foreign, *earlier, mark(code)]
    return meta


def place(code: str) -> tuple[str, str, int] | None:
    """(incarnation, channel, sequence) of a mark; None where it has another form."""
    pieces = code.split("/")
    if len(pieces) < 3 or not pieces[2].isdigit():
        return None
    return pieces[0], pieces[1], int(pieces[2])


def overtaken(existing: Resource, code: str, incarnations: Sequence[str] = ()) -> bool:
    """Whether a later message of the same channel has written the resource already. incarnations: of the ledger, oldest
    first; what one numbered came before all that a later one did, whatever the numbers are. Of a ledger that is not
    among them nothing is known."""
    ours = place(code)
    if ours is None:
        return False
    return any(theirs is not None and _is_later(theirs, ours, incarnations) for theirs in map(place, marks(existing)))


def _is_later(theirs: tuple[str, str, int], ours: tuple[str, str, int], incarnations: Sequence[str]) -> bool:
    if theirs[1] != ours[1]:
        return False
    if theirs[0] == ours[0]:
        return theirs[2] > ours[2]
    known = theirs[0] in incarnations and ours[0] in incarnations
    return known and incarnations.index(theirs[0]) > incarnations.index(ours[0])

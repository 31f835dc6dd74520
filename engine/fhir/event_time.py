"""When what a resource says was so, noted in its meta: no older event ever goes over a newer one.

Extensions of meta and not tags, for a server indexes tags, and nobody ever searches for these:

    urn:interlock:event    when what the resource says was so
    urn:interlock:linked   when a patient was last merged, linked or unlinked, whatever else was changed since
    urn:interlock:cleared  an element that was declared empty, so that an older message does not fill it again
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import MAXYEAR, UTC, datetime, timedelta
from functools import lru_cache
from typing import Any

from engine.fhir.output import Resource

EVENT = "urn:interlock:event"
LINKED = "urn:interlock:linked"
CLEARED = "urn:interlock:cleared"

_OURS = frozenset((EVENT, LINKED, CLEARED))
Span = tuple[datetime, datetime]

_EASTMOST, _WESTMOST = timedelta(hours=14), timedelta(hours=12)  # UTC+14, UTC-12
_FIRST_YEAR = 1800
_FARTHEST = timedelta(days=366)
_YEAR, _MONTH, _DAY = 4, 7, 10  # characters of a dateTime that is known to the year, month or day only


def event_of(resource: Resource) -> str:
    return _noted(resource, EVENT)


def linked_of(resource: Resource) -> str:
    return _noted(resource, LINKED)


def cleared_of(resource: Resource) -> frozenset[str]:
    """The elements that were declared empty and are so still."""
    return frozenset(one.get("valueString", "") for one in _extensions(resource) if one.get("url") == CLEARED)


def timed(resource: Resource, event: str) -> Resource:
    """The resource with the time of its event noted, where one is known."""
    return {**resource, "meta": noted(resource.get("meta") or {}, event=event)} if event else resource


def noted(meta: dict[str, Any], *, event: str = "", linked: str = "", cleared: Iterable[str] = ()) -> dict[str, Any]:
    """The meta with just these notes; what others have noted stays."""
    notes = [one for one in meta.get("extension") or () if one.get("url") not in _OURS]
    notes += [
        {"url": url, "valueDateTime": time} for url, time in ((EVENT, event), (LINKED, linked)) if plausible(time)
    ]
    notes += [{"url": CLEARED, "valueString": name} for name in sorted(cleared)]
    rest = {name: value for name, value in meta.items() if name != "extension"}
    return {**rest, "extension": notes} if notes else rest


def plausible(time: str) -> bool:
    """Whether it may be noted: a clock that runs years ahead would make everything that follows the older one."""
    span = _span(time)
    return span is not None and _anywhere(span)[0] < datetime.now(UTC) + _FARTHEST


def older(ours: str, theirs: str) -> bool | None:
    """Whether ours was before theirs; None where that can't be said: the same, unknown or too vague. Of two times
    without a zone it is taken to be the same."""
    if not ours or not theirs or ours == theirs:
        return None
    mine, other = _span(ours), _span(theirs)
    if mine is None or other is None:
        return None
    if (mine[0].tzinfo is None) is not (other[0].tzinfo is None):
        mine, other = _anywhere(mine), _anywhere(other)
    if mine[1] < other[0]:
        return True
    return False if mine[0] > other[1] else None


def latest(ours: str, theirs: str) -> str:
    """The later of two times; ours where that can't be said."""
    return theirs if not ours or older(ours, theirs) else ours


@lru_cache(maxsize=4096)
def _span(text: str) -> Span | None:
    """The first and the last moment that a FHIR dateTime may mean."""
    if len(text) < _YEAR:
        return None
    try:
        first = datetime.fromisoformat(text + "2000-01-01"[len(text) :] if len(text) < _DAY else text)
        last = first if first.tzinfo else _last(first, len(text))
    except (ValueError, OverflowError):
        return None
    return (first, last) if first.year >= _FIRST_YEAR and last.year < MAXYEAR else None


def _anywhere(span: Span) -> Span:
    """A time without a zone may be that of any."""
    if span[0].tzinfo is not None:
        return span
    return span[0].replace(tzinfo=UTC) - _EASTMOST, span[1].replace(tzinfo=UTC) + _WESTMOST


def _last(first: datetime, length: int) -> datetime:
    moment = timedelta(microseconds=1)
    if length == _YEAR:
        return first.replace(year=first.year + 1) - moment
    if length == _MONTH:
        return (first + timedelta(days=31)).replace(day=1) - moment
    return first + timedelta(days=1) - moment if length == _DAY else first


def _noted(resource: Resource, url: str) -> str:
    return next((one.get("valueDateTime", "") for one in _extensions(resource) if one.get("url") == url), "")


def _extensions(resource: Resource) -> list[dict[str, Any]]:
    return (resource.get("meta") or {}).get("extension") or []

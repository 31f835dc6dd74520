"""A search for messages, read from the body that asks for it."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from engine.api.exchange import place_of
from engine.api.problems import Refusal
from engine.api.verbs import chosen
from engine.hl7.search_keys import KINDS
from engine.migration.selection import Selector

NOTHING = "nothing is searched for: give control_id, order, accession, patient or type, since or until, or a selector"
BEFORE = "before must be CHANNEL/SEQ, such as acme-results/812"


def asked_for(body: dict[str, Any]) -> dict[str, Any]:
    """What a `MessageSearch` asks for, as `Reading.search` wants it. Refuses one that asks for nothing, and times and
    places that are none."""
    before = body.get("before")
    wanted = {
        "keys": {kind: body[kind] for kind in KINDS if kind in body},
        "selector": chosen(body.get("selector", {}), needed=False),
        "channel": body.get("channel"),
        "since": _moment("since", body.get("since")),
        "until": _moment("until", body.get("until")),
        "before": None if before is None else place_of(before, BEFORE),
    }
    if all(value in (None, {}, Selector()) for value in wanted.values()):
        raise Refusal(400, NOTHING)
    return wanted


def _moment(name: str, text: str | None) -> int | None:
    """Microseconds since 1970."""
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise Refusal(400, f"{name} must be a time with its zone, such as 2026-11-02T14:15:00Z")
    return round(moment.timestamp() * 1e6)

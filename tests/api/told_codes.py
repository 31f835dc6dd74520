"""Unmapped codes of a service that is not there."""

from __future__ import annotations

from typing import Any

from engine.migration.selection import Selector

ROW = {
    "channel": "acme", "table": "LabTests", "field": "OBX-3", "system": "L", "code": "WBC", "count": 41,
    "first": "2026-11-02T14:15:00.000Z", "last": "2026-11-02T15:15:00.000Z", "first_seq": 3, "last_seq": 812,
    "state": "open", "owner": "", "note": "", "who": None, "decided": None,
}  # fmt: skip
MORE = {"channel": "acme", "count": 7, "last": "2026-11-02T15:15:00.000Z", "last_seq": 900}
LOST = {"channel": "acme", "field": "PID-12", "count": 5, "last": "2026-11-02T15:15:00.000Z", "last_seq": 812}


class Codes:
    """An Unmapped with fixed answers, which remembers what it was asked."""

    def __init__(self) -> None:
        self.count = 0
        self.asked: list[tuple[str, Selector | None, dict[str, Any]]] = []
        self.refusal: Exception | None = None

    def open(self) -> int:
        return self.count

    async def codes(self, selector: Selector | None, **asked: Any) -> dict[str, Any]:
        self.asked.append(("codes", selector, asked))
        return {"codes": [ROW], "total": 1, "more": [MORE]}

    async def decide(self, selector: Selector, **asked: Any) -> list[dict[str, Any]]:
        self.asked.append(("decide", selector, asked))
        if self.refusal:
            raise self.refusal
        return [ROW | {"state": "asked"}]

    async def fields(self, selector: Selector | None) -> list[dict[str, Any]]:
        self.asked.append(("fields", selector, {}))
        return [LOST]

"""Answers of a service that is not there: what the API passes on is what it was given."""

from __future__ import annotations

from typing import Any

RAW = "TVNIfA=="


class Told:
    """A Reading with fixed answers, which remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.ready = True
        self.rows: list[dict[str, Any]] = [row(1)]
        self.state = status()

    async def status(self) -> dict[str, Any]:
        return self.state

    async def channels(self) -> list[dict[str, Any]]:
        return [{"id": "acme"}]

    async def messages(self, **asked: Any) -> list[dict[str, Any]]:
        self.asked.append(("messages", asked))
        return self.rows

    async def message(self, channel: str, seq: int) -> dict[str, Any] | None:
        self.asked.append(("message", {"channel": channel, "seq": seq}))
        return detail(seq) if channel == "acme" and seq == 1 else None

    async def readiness(self) -> dict[str, Any]:
        return {"ready": self.ready, "ledger": "", "listeners": {"acme": ""}, "destinations": {"medplum": "HTTP 403"}}


def row(seq: int) -> dict[str, Any]:
    return {
        "channel": "acme",
        "seq": seq,
        "received": "2026-11-02T14:15:00.123Z",
        "control_id": "MSG-1",
        "type": "ORU^R01",
        "size": 1500,
        "phase": "parallel",
        "states": {"legacy": "delivered", "medplum": "retrying"},
    }


def detail(seq: int) -> dict[str, Any]:
    receipts = [
        {
            "destination": "legacy",
            "part": 1,
            "delivery": 1,
            "state": "delivered",
            "at": "2026-11-02T14:15:00.200Z",
            "reason": "relayed",
            "answer": "TVNBfEFBfDE=",
        }
    ]
    more = {"connection_number": (3 << 32) + 17, "epoch": 1, "acknowledged": "AA", "raw": RAW, "receipts": receipts}
    return row(seq) | more


def destination(name: str, **changed: Any) -> dict[str, Any]:
    return {
        "name": name,
        "kind": "mllp",
        "mode": "send",
        "counts": {"delivered": 3},
        "frontier": 3,
        "claim": 3,
        "open": 0,
        "oldest_s": None,
        "breaker": None,
        "balanced": True,
    } | changed


def status(**changed: Any) -> dict[str, Any]:
    channel = {
        "id": "acme",
        "connection": "acme",
        "title": "Acme",
        "phase": "parallel",
        "listening": True,
        "address": "0.0.0.0:6101",
        "peers": ["10.0.0.1:5000"],
        "stored": 3,
        "last_received": None,
        "destinations": [destination("legacy"), destination("medplum")],
    }
    return {
        "version": "0.1.0",
        "started": "2026-11-02T14:00:00Z",
        "incarnation": "a1",
        "term": 1,
        "ledger": "/srv/var/interlock.db",
        "writable": True,
        "balanced": True,
        "channels": [channel],
    } | changed

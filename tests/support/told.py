"""Answers of a service that is not there: what the API passes on is what it was given."""

from __future__ import annotations

import asyncio
from typing import Any

from engine.api.application import Asked
from engine.migration.refused import Refused

RAW = "TVNIfA=="


class Told:
    """A Reading with fixed answers, which remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.ready = True
        self.rows: list[dict[str, Any]] = [row(1)]
        self.state = status()
        self.scrapes: list[str] = []
        self.moving = ToldMoving()
        self.evidence = ToldEvidence()
        self.upkeep = ToldUpkeep()
        self.remedies = ToldRemedies()
        self.taps = ToldTaps()

    @property
    def asked_of(self) -> Asked:
        """As the API wants it."""
        return Asked(self, self.moving, self.evidence, self.upkeep, self.remedies, self.taps)

    async def status(self) -> dict[str, Any]:
        return self.state

    async def channels(self) -> list[dict[str, Any]]:
        return [{"id": "acme"}]

    async def messages(self, **asked: Any) -> list[dict[str, Any]] | None:
        self.asked.append(("messages", asked))
        return None if asked["channel"] == "nope" else self.rows

    async def search(self, **asked: Any) -> list[dict[str, Any]] | None:
        self.asked.append(("search", asked))
        return None if asked["channel"] == "nope" else self.rows

    async def message(self, channel: str, seq: int) -> dict[str, Any] | None:
        self.asked.append(("message", {"channel": channel, "seq": seq}))
        return detail(seq) if channel == "acme" and seq == 1 else None

    async def readiness(self) -> dict[str, Any]:
        return {"ready": self.ready, "ledger": "", "listeners": {"acme": ""}, "destinations": {"medplum": "HTTP 403"}}

    def scraped(self, agent: str) -> None:
        self.scrapes.append(agent)


class ToldUpkeep:
    """An Upkeep that remembers the orders; a backup goes from one told state to the next each time it is asked."""

    def __init__(self) -> None:
        self.orders: list[tuple[str, dict[str, Any]]] = []
        self.refusal: Exception | None = None
        self.rows: list[dict[str, Any]] = []
        self.states: list[dict[str, Any]] = []

    async def retention(self) -> list[dict[str, Any]]:
        return self.rows

    async def prune(self, **asked: Any) -> list[dict[str, Any]]:
        self.orders.append(("prune", asked))
        if self.refusal:
            raise self.refusal
        return self.rows

    async def backup(self, file: str, **asked: Any) -> dict[str, Any]:
        self.orders.append(("backup", {"file": file} | asked))
        if self.refusal:
            raise self.refusal
        return self.states.pop(0)

    async def backup_state(self) -> dict[str, Any]:
        return self.states.pop(0) if len(self.states) > 1 else self.states[0]


class ToldRemedies:
    """A Remedies with fixed answers, which remembers what it was asked."""

    def __init__(self) -> None:
        self.orders: list[tuple[str, dict[str, Any]]] = []
        self.refusal: Exception | None = None
        self.rows: list[dict[str, Any]] = [work_row()]
        self.count = 1

    async def work(self, **asked: Any) -> list[dict[str, Any]]:
        self.orders.append(("work", asked))
        return self.rows

    async def decide(self, verb: str, **asked: Any) -> dict[str, Any]:
        return self._ordered(verb, asked)

    async def edit(self, message: tuple[str, int], destination: str, raw: bytes, **asked: Any) -> dict[str, Any]:
        return self._ordered("edit", {"message": message, "destination": destination, "raw": raw} | asked)

    async def replay(self, channel: str, destination: str, **asked: Any) -> dict[str, Any]:
        done = self._ordered("replay", {"channel": channel, "destination": destination} | asked)
        return done | {"replay": None if asked["dry_run"] else replay_row()}

    async def replays(self) -> list[dict[str, Any]]:
        return [replay_row()]

    async def stop_replay(self, id: int, **asked: Any) -> dict[str, Any]:
        self._ordered("stop", {"id": id} | asked)
        return replay_row() | {"state": "stopped"}

    def _ordered(self, what: str, asked: dict[str, Any]) -> dict[str, Any]:
        self.orders.append((what, asked))
        if self.refusal:
            raise self.refusal
        plan = {"verb": what, "count": self.count, "lines": ["acme: done"], "refused": [], "confirm": self.count > 20}
        return {"plan": plan, "done": 0 if asked.get("dry_run") else self.count, "replay": None}


class ToldTaps:
    """A Taps with fixed answers, which remembers what it was asked."""

    def __init__(self) -> None:
        self.orders: list[tuple[str, Any]] = []
        self.rows: list[dict[str, Any]] = [output_row()]
        self.became: dict[str, Any] = {"state": "discarded", "waits": False}
        self.stands_against: list[str] = []

    async def outputs(self, selector: Any) -> list[dict[str, Any]]:
        self.orders.append(("outputs", selector))
        return self.rows

    async def output(self, id: int) -> dict[str, Any] | None:
        found = next((row for row in self.rows if row["id"] == id), None)
        return found | {"raw": RAW, "answer": None} if found else None

    async def decide(self, verb: str, id: int, **asked: Any) -> dict[str, Any] | None:
        self.orders.append((verb, {"id": id} | asked))
        if await self.output(id) is None:
            return None
        if self.stands_against and not asked["dry_run"]:
            raise Refused(*self.stands_against)
        lines = [f"output {id} is looked after"]
        plan = {"verb": f"tap {verb}", "count": 1, "lines": lines, "refused": self.stands_against, "confirm": False}
        return {"plan": plan, "output": self.rows[0] | ({} if asked["dry_run"] else self.became)}


def output_row(**more: Any) -> dict[str, Any]:
    return {
        "id": 14, "channel": "acme", "tap": "emr", "at": "2026-01-05T08:00:00.000Z", "control_id": "L-1",
        "type": "ORU^R01", "size": 1500, "seq": None, "why": "it belongs to no input that is known", "state": "parked",
        "said": "", "who": None, "reason": None, "decided": None, "waits": True,
    } | more  # fmt: skip


def work_row(**more: Any) -> dict[str, Any]:
    return {
        "channel": "acme", "seq": 7, "destination": "emr", "part": 1, "parts": 1, "delivery": 1, "revision": 1,
        "state": "dead", "person": True, "why": "answered AR", "tries": 1, "due": None,
        "received": "2026-01-05T08:00:00.000Z", "behind": 3,
    } | more  # fmt: skip


def replay_row() -> dict[str, Any]:
    return {
        "id": 4, "channel": "acme", "destination": "emr", "total": 30, "begun": 12, "state": "running", "who": "ann",
        "why": "mended", "at": "2026-01-05T08:00:00.000Z", "ended": None, "mapping": "as-is",
    }  # fmt: skip


class ToldMoving:
    """A Moving that remembers the orders; its runs go from one told version to the next each time they are asked."""

    def __init__(self) -> None:
        self.orders: list[dict[str, Any]] = []
        self.refusal: Exception | None = None
        self.reply: dict[str, Any] = {"plans": [], "runs": [], "said": []}
        self.told: dict[int, list[dict[str, Any]]] = {}
        self.waits: list[tuple[int, int | None, float]] = []
        self.stuck = False

    def goes(self, *versions: dict[str, Any]) -> dict[str, Any]:
        """A run that goes through these; the first of them is returned."""
        self.told[versions[0]["id"]] = [version | {"version": n} for n, version in enumerate(versions, 1)]
        return self.told[versions[0]["id"]][0]

    async def verb(self, verb: str, selector: Any, **asked: Any) -> dict[str, Any]:
        self.orders.append({"verb": verb, "selector": selector} | asked)
        if self.refusal:
            raise self.refusal
        return {"verb": verb, "dry_run": asked["dry_run"]} | self.reply

    async def runs(self, *, active: bool) -> list[dict[str, Any]]:
        now = [self._next(versions) for versions in self.told.values()]
        return [run for run in now if run["state"] == "running" or not active]

    async def run(self, id: int, *, after: int | None, wait: float) -> dict[str, Any] | None:
        self.waits.append((id, after, wait))
        if self.stuck:
            await asyncio.sleep(wait)
        return self._next(self.told[id]) if id in self.told else None

    def _next(self, versions: list[dict[str, Any]]) -> dict[str, Any]:
        return versions.pop(0) if len(versions) > 1 else versions[0]


class ToldEvidence:
    """An Evidence with fixed answers, which remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, Any]] = []
        self.refusal: Exception | None = None
        self.gates = [gate_row()]
        self.comparisons = [compared_row()]
        self.found = [discrepancy_row()]
        self.report = reconciled()
        self.rows = [audit_row()]
        self.verdict: dict[str, Any] = {"ok": True, "rows": 12, "head": "ab12", "problems": []}

    async def gate(self, selector: Any) -> list[dict[str, Any]]:
        self._remember("gate", selector)
        return self.gates

    async def compare(self, selector: Any) -> list[dict[str, Any]]:
        self._remember("compare", selector)
        return self.comparisons

    async def discrepancies(self, selector: Any, *, state: str | None, limit: int) -> list[dict[str, Any]]:
        self._remember("discrepancies", (selector, state, limit))
        return [row for row in self.found if state in (None, row["state"])]

    async def discrepancy(self, id: int) -> dict[str, Any] | None:
        found = next((row for row in self.found if row["id"] == id), None)
        return found | {"examples": [example()]} if found else None

    async def settle_discrepancy(self, id: int, **wanted: Any) -> dict[str, Any] | None:
        self._remember("settle", (id, wanted))
        found = next((row for row in self.found if row["id"] == id), None)
        return found | {"state": wanted["state"], "reason": wanted["reason"]} if found else None

    async def reconcile(self, selector: Any, manifest: list[tuple[str, str | None]] | None) -> dict[str, Any]:
        self._remember("reconcile", (selector, manifest))
        return self.report

    async def audit(self, *, limit: int, before: int | None) -> list[dict[str, Any]]:
        self._remember("audit", (limit, before))
        return self.rows

    async def verify_audit(self) -> dict[str, Any]:
        return self.verdict

    def _remember(self, what: str, asked: Any) -> None:
        self.asked.append((what, asked))
        if self.refusal:
            raise self.refusal


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
            "revision": 1,
            "state": "delivered",
            "at": "2026-11-02T14:15:00.200Z",
            "reason": "relayed",
            "answer": "TVNBfEFBfDE=",
        }
    ]
    more = {"connection_number": (3 << 32) + 17, "epoch": 1, "acknowledged": "AA", "raw": RAW, "receipts": receipts,
            "removed": [], "damaged": False, "later": []}  # fmt: skip
    return row(seq) | more


def destination(name: str, **changed: Any) -> dict[str, Any]:
    return {
        "name": name,
        "kind": "mllp",
        "mode": "send",
        "counts": {"delivered": 3},
        "replayed": {},
        "wanted": {},
        "frontier": 3,
        "claim": 3,
        "open": 0,
        "oldest_s": None,
        "breaker": None,
        "next_trial_s": None,
        "rests_until": None,
        "balanced": True,
    } | changed


def status(**changed: Any) -> dict[str, Any]:
    channel = {
        "id": "acme",
        "connection": "acme",
        "title": "Acme",
        "phase": "parallel",
        "listening": True,
        "down": None,
        "address": "0.0.0.0:6101",
        "peers": ["10.0.0.1:5000"],
        "stored": 3,
        "last_received": None,
        "hold": None,
        "run": None,
        "taps": [],
        "parked": {},
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
        "answers": [],
        "expired": [],
        "delivering": True,
        "workers": {},
    } | changed


def plan(**changed: Any) -> dict[str, Any]:
    return {
        "connection": "acme",
        "channels": ["acme-orders", "acme-results"],
        "lines": ["Wait until the old engine has answered the 3 messages it was given, about 2 s."],
        "refused": [],
        "already": None,
        "counts": {"waiting": 3},
        "replayed": {},
    } | changed


def run(id: int = 12, **changed: Any) -> dict[str, Any]:
    return {
        "id": id,
        "verb": "cutover",
        "connection": "acme",
        "channels": ["acme-orders", "acme-results"],
        "state": "running",
        "step": "drain",
        "said": "",
        "who": "ann",
        "why": "window of 12 May",
        "started": "2026-11-02T14:15:00.000Z",
        "deadline": "2026-11-02T14:20:00.000Z",
        "ended": None,
        "version": 1,
    } | changed


def gate_row(**changed: Any) -> dict[str, Any]:
    return {"channel": "acme-results", "passed": True, "checks": [check_row()]} | changed


def check_row(**changed: Any) -> dict[str, Any]:
    return {
        "check": "parallel_run",
        "title": "the parallel run matched",
        "outcome": "pass",
        "said": "The tap acme-emr: 100 % of 412.",
        "at": None,
        "when": ["before", "at switch"],
        "waiver": None,
    } | changed


def compared_row(**changed: Any) -> dict[str, Any]:
    return {
        "channel": "acme-results",
        "tap": "acme-emr",
        "matched": 400,
        "explained": 11,
        "unexplained": 1,
        "not_comparable": 0,
        "pending": 3,
        "match": 0.99757,
        "lag_s": 0.42,
        "rules": [{"path": "MSH-7", "how": "ignore", "reason": "stamped by each engine"}],
    } | changed


def discrepancy_row(**changed: Any) -> dict[str, Any]:
    return {
        "id": 7,
        "channel": "acme-results",
        "tap": "acme-emr",
        "path": "OBX-5",
        "kind": "transformation",
        "severity": "clinical",
        "state": "open",
        "owner": None,
        "count": 41,
        "first": "2026-11-02T14:15:00.000Z",
        "last": "2026-11-02T15:15:00.000Z",
        "due": "2026-11-03T14:15:00.000Z",
        "reason": None,
    } | changed


def example(**changed: Any) -> dict[str, Any]:
    values = {"control_id": "MSG-1", "legacy": "7.1", "target": None}
    return {"seq": 9, "at": "2026-11-02T14:15:00.123Z"} | values | changed


def reconciled(**changed: Any) -> dict[str, Any]:
    counted = {
        "channel": "acme-results",
        "epoch": 1,
        "phase": "parallel",
        "destination": "legacy",
        "stored": 3,
        "states": {"delivered": 3},
        "balanced": True,
        "said": "3 handed over to the old engine",
    }
    return {
        "clean": True,
        "equation": [counted],
        "problems": [],
        "missing": [],
        "extra": [],
        "doubled": [],
        "summary": ["acme-results, epoch 1 (parallel): 3 handed over to the old engine."],
    } | changed


def audit_row(**changed: Any) -> dict[str, Any]:
    return {
        "id": 3,
        "at": "2026-11-02T14:15:00.000Z",
        "who": "ann",
        "origin": "interlock/0.1.0 at 127.0.0.1",
        "verb": "cutover",
        "subject": "acme",
        "why": "window of 12 May",
        "before": "parallel",
        "after": "live",
        "hash": "ab12",
    } | changed

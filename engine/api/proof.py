"""The paths under which evidence is read: gate, comparison, discrepancies, reconciliation, audit."""

from __future__ import annotations

from aiohttp import web

from engine.api.evidence import DiscrepancyQuestion, Evidence, ReconcileQuestion, Selected, Settlement
from engine.api.exchange import LARGEST, answer, body, known, origin, whole
from engine.api.problems import Refusal
from engine.api.reading import LIMIT_MAX
from engine.api.verbs import chosen

DISCREPANCIES_DEFAULT = 200
AUDIT_DEFAULT = 50
MANIFEST_LIMIT = 32 * 1024 * 1024
"""Bytes of a question with a manifest: some 700,000 control ids."""


class Proof:
    """Each handler checks what was asked and passes it on."""

    def __init__(self, evidence: Evidence) -> None:
        self._evidence = evidence

    def routes(self) -> list[web.RouteDef]:
        return [
            web.post("/api/v1/gate", self.gate),
            web.post("/api/v1/compare", self.compare),
            web.post("/api/v1/discrepancies", self.discrepancies),
            web.get("/api/v1/discrepancies/{id}", self.discrepancy),
            web.post("/api/v1/discrepancies/{id}", self.settle),
            web.post("/api/v1/reconcile", self.reconcile),
            web.get("/api/v1/audit", self.audit),
            web.get("/api/v1/audit/verify", self.verify_audit),
        ]

    async def gate(self, request: web.Request) -> web.Response:
        asked = await body(request, Selected)
        return answer(await self._evidence.gate(chosen(asked["selector"])))

    async def compare(self, request: web.Request) -> web.Response:
        asked = await body(request, Selected)
        return answer(await self._evidence.compare(chosen(asked["selector"])))

    async def discrepancies(self, request: web.Request) -> web.Response:
        asked = await body(request, DiscrepancyQuestion)
        limit = asked.get("limit", DISCREPANCIES_DEFAULT)
        selector = chosen(asked["selector"])
        return answer(await self._evidence.discrepancies(selector, state=asked.get("state"), limit=limit))

    async def discrepancy(self, request: web.Request) -> web.Response:
        return _found(await self._evidence.discrepancy(_id(request)))

    async def settle(self, request: web.Request) -> web.Response:
        wanted = await body(request, Settlement)
        settled = await self._evidence.settle_discrepancy(
            _id(request),
            state=wanted["state"],
            reason=wanted["reason"],
            owner=wanted.get("owner"),
            who=wanted["who"],
            origin=origin(request),
        )
        return _found(settled)

    async def reconcile(self, request: web.Request) -> web.Response:
        asked = await body(request, ReconcileQuestion, MANIFEST_LIMIT)
        items = asked.get("manifest")
        manifest = None if items is None else [(item["control_id"], item.get("channel")) for item in items]
        return answer(await self._evidence.reconcile(chosen(asked["selector"]), manifest))

    async def audit(self, request: web.Request) -> web.Response:
        known(request, ("limit", "before"))
        limit = whole("limit", request.query.get("limit"), 1, LIMIT_MAX) or AUDIT_DEFAULT
        before = whole("before", request.query.get("before"), 1, LARGEST)
        return answer(await self._evidence.audit(limit=limit, before=before))

    async def verify_audit(self, _: web.Request) -> web.Response:
        return answer(await self._evidence.verify_audit())


def _id(request: web.Request) -> int:
    return whole("id", request.match_info["id"], 1, LARGEST) or 0


def _found(row: dict[str, object] | None) -> web.Response:
    if row is None:
        raise Refusal(404, "no such discrepancy")
    return answer(row)

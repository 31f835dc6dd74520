"""The paths under which connections are moved: the verbs, and the runs that they start."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from engine.api.exchange import LARGEST, answer, body, known, origin, whole
from engine.api.moving import VERBS, Moving, Selection
from engine.api.problems import Handler, Refusal
from engine.migration.selection import Selector

ORDER_LIMIT = 1024 * 1024
"""Bytes of an order: a takeover may name thousands of peers."""
WAIT_MAX_S = 30
"""How long an answer about a run may be waited for; who wants to wait longer asks again."""


class Verbs:
    """Each handler checks what was asked and passes it on."""

    def __init__(self, moving: Moving) -> None:
        self._moving = moving

    def routes(self) -> list[web.RouteDef]:
        return [
            *(web.post(f"/api/v1/verbs/{verb}", self._handler(verb, kind)) for verb, (kind, _) in VERBS.items()),
            web.get("/api/v1/runs", self.runs),
            web.get("/api/v1/runs/{id}", self.run),
        ]

    def _handler(self, verb: str, kind: Any) -> Handler:
        async def handle(request: web.Request) -> web.StreamResponse:
            order = await body(request, kind, ORDER_LIMIT)
            options = order.get("options", {})
            reason, dry_run = order.get("reason", ""), order.get("dry_run", False)
            if not dry_run and not reason.strip():
                raise Refusal(400, "a reason is wanted, as text: it goes into the audit record")
            done = await self._moving.verb(
                verb,
                chosen(order["selector"], needed=not options.get("run")),
                options=options,
                reason=reason,
                who=order["who"],
                origin=origin(request),
                dry_run=dry_run,
            )
            return answer(done)

        return handle

    async def runs(self, request: web.Request) -> web.Response:
        known(request, ("active",))
        active = request.query.get("active", "false")
        if active not in ("true", "false"):
            raise Refusal(400, "active must be true or false")
        return answer(await self._moving.runs(active=active == "true"))

    async def run(self, request: web.Request) -> web.Response:
        known(request, ("after", "wait"))
        id = whole("id", request.match_info["id"], 1, LARGEST)
        after = whole("after", request.query.get("after"), 0, LARGEST)
        wait = whole("wait", request.query.get("wait"), 0, WAIT_MAX_S)
        found = await self._moving.run(id or 0, after=after, wait=float(wait or 0))
        if found is None:
            raise Refusal(404, "no such run")
        return answer(found)


def chosen(selection: Selection, *, needed: bool = True) -> Selector:
    """The selector that a request holds. Refuses one that selects nothing: `all` has to be said."""
    selector = Selector(
        tuple(selection.get("ids", ())),
        tuple(selection.get("connections", ())),
        selection.get("labels", {}),
        selection.get("all", False),
    )
    if needed and selector == Selector():
        raise Refusal(400, "nothing is selected: give ids, connections or labels, or all: true")
    return selector

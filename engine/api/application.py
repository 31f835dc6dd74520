"""The HTTP application: /metrics, /healthz and /readyz for machines, /api/v1 for who has the token.

    server = await serve(Asked(reading, moving, evidence), configuration.service, version)  # the port, and the token
    await server.close()

No message content and no identifier of a sender ever stands in a URL; requests are not logged.
"""

from __future__ import annotations

import hmac
from typing import Any, NamedTuple

from aiohttp import web

from engine.api.evidence import Evidence
from engine.api.exchange import BODY_LIMIT, LARGEST, answer, body, known, whole
from engine.api.gauges import Gauges
from engine.api.moving import Moving
from engine.api.openapi import document
from engine.api.problems import Handler, Refusal, problems
from engine.api.proof import Proof
from engine.api.reading import LIMIT_MAX, MessageSearch, Reading
from engine.api.remedies import Remedies, Remedying
from engine.api.searching import asked_for
from engine.api.taps import Tapping, Taps
from engine.api.token import new_token, token_file, write_token
from engine.api.unmapped import Unmapped, Unmapping
from engine.api.upkeep import Upkeep, Upkeeping
from engine.api.verbs import Verbs
from engine.config.model import Service
from engine.observe.metrics import CONTENT_TYPE, exposition

LIMIT_DEFAULT = 50
OPEN_PATHS = frozenset({"/metrics", "/healthz", "/readyz"})


class Asked(NamedTuple):
    """Who answers: about messages and channels, verbs and runs, gate and proofs, retention and backups,
    what people do about single messages, and about what taps keep for them, and what mappings could not carry over.

    A service that only tells and cannot be told has no paths for the rest.
    """

    reading: Reading
    moving: Moving | None = None
    evidence: Evidence | None = None
    upkeep: Upkeep | None = None
    remedies: Remedies | None = None
    taps: Taps | None = None
    unmapped: Unmapped | None = None


class Api:
    """The handlers; each asks `reading` and answers JSON."""

    def __init__(self, reading: Reading, token: str, version: str, unmapped: Unmapped | None = None) -> None:
        self._reading = reading
        self._unmapped = unmapped
        self._gauges = Gauges(reading)
        self._token = f"Bearer {token}".encode()
        self._version = version

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/metrics", self.metrics),
            web.get("/healthz", self.healthz),
            web.get("/readyz", self.readyz),
            web.get("/api/v1/status", self.status),
            web.get("/api/v1/channels", self.channels),
            web.get("/api/v1/messages", self.messages),
            web.post("/api/v1/messages/search", self.search),
            web.get("/api/v1/messages/{channel}/{seq}", self.message),
            web.get("/api/v1/openapi.json", self.openapi),
        ]

    @web.middleware
    async def authorised(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        given = request.headers.get("Authorization", "").encode("utf-8", "surrogateescape")
        if request.path in OPEN_PATHS or hmac.compare_digest(given, self._token):
            return await handler(request)
        raise Refusal(401, "a bearer token is wanted: it stands in the .token file beside the ledger")

    async def metrics(self, request: web.Request) -> web.Response:
        self._reading.scraped(request.headers.get("User-Agent", ""))
        await self._gauges.refresh()
        return web.Response(body=exposition(), headers={"Content-Type": CONTENT_TYPE})

    async def healthz(self, _: web.Request) -> web.Response:
        return answer({"status": "ok", "version": self._version})

    async def readyz(self, _: web.Request) -> web.Response:
        readiness = await self._reading.readiness()
        return answer(readiness, 200 if readiness["ready"] else 503)

    async def status(self, _: web.Request) -> web.Response:
        found = await self._reading.status()
        unmapped = self._unmapped.open() if self._unmapped is not None else 0
        return answer(found | {"unmapped": unmapped} if unmapped else found)

    async def channels(self, _: web.Request) -> web.Response:
        return answer(await self._reading.channels())

    async def messages(self, request: web.Request) -> web.Response:
        known(request, ("channel", "limit", "before"), "; POST a search for anything else")
        channel = request.query.get("channel")
        before = whole("before", request.query.get("before"), 1, LARGEST)
        if before is not None and channel is None:
            raise Refusal(400, "before counts within a channel: give channel too")
        limit = whole("limit", request.query.get("limit"), 1, LIMIT_MAX) or LIMIT_DEFAULT
        return answer(_of_channel(await self._reading.messages(channel=channel, before=before, limit=limit)))

    async def search(self, request: web.Request) -> web.Response:
        wanted = await body(request, MessageSearch)
        limit = wanted.get("limit", LIMIT_DEFAULT)
        return answer(_of_channel(await self._reading.search(**asked_for(wanted), limit=limit)))

    async def message(self, request: web.Request) -> web.Response:
        seq = whole("seq", request.match_info["seq"], 1, LARGEST)
        found = await self._reading.message(request.match_info["channel"], seq or 0)
        if found is None:
            raise Refusal(404, "no such message")
        return answer(found)

    async def openapi(self, _: web.Request) -> web.Response:
        return answer(document(self._version))


def _of_channel(rows: list[dict[str, Any]] | None) -> list[dict[str, Any]]:
    if rows is None:
        raise Refusal(404, "no such channel")
    return rows


def application(asked: Asked, token: str, version: str = "") -> web.Application:
    """The application without a socket, as tests want it."""
    api = Api(asked.reading, token, version, asked.unmapped)
    app = web.Application(middlewares=[problems, api.authorised], client_max_size=BODY_LIMIT)
    app.add_routes(api.routes())
    if asked.moving is not None:
        app.add_routes(Verbs(asked.moving).routes())
    if asked.evidence is not None:
        app.add_routes(Proof(asked.evidence).routes())
    if asked.upkeep is not None:
        app.add_routes(Upkeeping(asked.upkeep).routes())
    if asked.remedies is not None:
        app.add_routes(Remedying(asked.remedies).routes())
    if asked.taps is not None:
        app.add_routes(Tapping(asked.taps).routes())
    if asked.unmapped is not None:
        app.add_routes(Unmapping(asked.unmapped).routes())
    return app


class Server:
    """The open port."""

    def __init__(self, runner: web.AppRunner, service: Service) -> None:
        self._runner = runner
        self._service = service

    async def close(self) -> None:
        """Close the port and end its connections; the token goes with the process it was for."""
        token_file(self._service.ledger).unlink(missing_ok=True)
        await self._runner.cleanup()


async def serve(asked: Asked, service: Service, version: str) -> Server:
    """Open the port of `service.http` and write the token file. Raises OSError where one of them cannot be had."""
    token = new_token()
    runner = web.AppRunner(
        application(asked, token, version), access_log=None, handle_signals=False, shutdown_timeout=2.0
    )
    await runner.setup()
    try:
        await web.TCPSite(runner, service.http.host, service.http.port, reuse_address=True).start()
        write_token(service.ledger, token)  # only now: a second service that fails to start must not lock us out
    except OSError:
        await runner.cleanup()
        raise
    return Server(runner, service)

"""The HTTP application: /metrics, /healthz and /readyz for machines, /api/v1 for who has the token.

    api = await serve(reading, configuration.service, version)    # opens the port, writes the token file
    await api.close()

No message content and no identifier of a sender ever stands in a URL; requests are not logged.
"""

from __future__ import annotations

import hmac
from typing import Any

import orjson
from aiohttp import web

from engine.api.gauges import Gauges
from engine.api.openapi import document
from engine.api.problems import Handler, Refusal, problems
from engine.api.reading import Reading
from engine.api.token import new_token, token_file, write_token
from engine.config.model import Service
from engine.observe.metrics import CONTENT_TYPE, exposition

LIMIT_DEFAULT, LIMIT_MAX = 50, 1000
OPEN_PATHS = frozenset({"/metrics", "/healthz", "/readyz"})


class Api:
    """The handlers; each asks `reading` and answers JSON."""

    def __init__(self, reading: Reading, token: str, version: str) -> None:
        self._reading = reading
        self._gauges = Gauges(reading)
        self._token = f"Bearer {token}".encode()
        self._version = version

    @web.middleware
    async def authorised(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        given = request.headers.get("Authorization", "").encode("utf-8", "surrogateescape")
        if request.path in OPEN_PATHS or hmac.compare_digest(given, self._token):
            return await handler(request)
        raise Refusal(401, "a bearer token is wanted: it stands in the .token file beside the ledger")

    async def metrics(self, _: web.Request) -> web.Response:
        await self._gauges.refresh()
        return web.Response(body=exposition(), headers={"Content-Type": CONTENT_TYPE})

    async def healthz(self, _: web.Request) -> web.Response:
        return _json({"status": "ok", "version": self._version})

    async def readyz(self, _: web.Request) -> web.Response:
        readiness = await self._reading.readiness()
        return _json(readiness, 200 if readiness["ready"] else 503)

    async def status(self, _: web.Request) -> web.Response:
        return _json(await self._reading.status())

    async def channels(self, _: web.Request) -> web.Response:
        return _json(await self._reading.channels())

    async def messages(self, request: web.Request) -> web.Response:
        query = request.query
        unknown = sorted(set(query) - {"channel", "limit", "before"})
        if unknown:
            raise Refusal(400, "only channel, limit and before may stand in the query; POST a search for control ids")
        channel = query.get("channel")
        before = _whole("before", query.get("before"), None, 1, 2**63 - 1)
        if before is not None and channel is None:
            raise Refusal(400, "before counts within a channel: give channel too")
        limit = _whole("limit", query.get("limit"), LIMIT_DEFAULT, 1, LIMIT_MAX)
        return _json(
            await self._reading.messages(channel=channel, before=before, limit=limit or LIMIT_DEFAULT, control_id=None)
        )

    async def search(self, request: web.Request) -> web.Response:
        wanted = _object(await request.read())
        control_id, channel = wanted.get("control_id"), wanted.get("channel")
        limit = wanted.get("limit", LIMIT_DEFAULT)
        if not isinstance(control_id, str) or not control_id:
            raise Refusal(400, "control_id is wanted, as text")
        if channel is not None and not isinstance(channel, str):
            raise Refusal(400, "channel must be text")
        if not isinstance(limit, int) or isinstance(limit, bool) or not 1 <= limit <= LIMIT_MAX:
            raise Refusal(400, f"limit must be a whole number from 1 to {LIMIT_MAX}")
        return _json(await self._reading.messages(channel=channel, before=None, limit=limit, control_id=control_id))

    async def message(self, request: web.Request) -> web.Response:
        channel = request.match_info["channel"]
        seq = _whole("seq", request.match_info["seq"], None, 1, 2**63 - 1)
        found = await self._reading.message(channel, seq or 0)
        if found is None:
            raise Refusal(404, "no such message")
        return _json(found)

    async def openapi(self, _: web.Request) -> web.Response:
        return _json(document(self._version))


def application(reading: Reading, token: str, version: str = "") -> web.Application:
    """The application without a socket, as tests want it."""
    api = Api(reading, token, version)
    app = web.Application(middlewares=[problems, api.authorised], client_max_size=64 * 1024)
    app.add_routes(
        [
            web.get("/metrics", api.metrics),
            web.get("/healthz", api.healthz),
            web.get("/readyz", api.readyz),
            web.get("/api/v1/status", api.status),
            web.get("/api/v1/channels", api.channels),
            web.get("/api/v1/messages", api.messages),
            web.post("/api/v1/messages/search", api.search),
            web.get("/api/v1/messages/{channel}/{seq}", api.message),
            web.get("/api/v1/openapi.json", api.openapi),
        ]
    )
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


async def serve(reading: Reading, service: Service, version: str) -> Server:
    """Open the port of `service.http` and write the token file. Raises OSError where one of them cannot be had."""
    token = new_token()
    runner = web.AppRunner(
        application(reading, token, version), access_log=None, handle_signals=False, shutdown_timeout=2.0
    )
    await runner.setup()
    try:
        await web.TCPSite(runner, service.http.host, service.http.port, reuse_address=True).start()
        write_token(service.ledger, token)  # only now: a second service that fails to start must not lock us out
    except OSError:
        await runner.cleanup()
        raise
    return Server(runner, service)


def _json(body: Any, status: int = 200) -> web.Response:
    return web.Response(body=orjson.dumps(body), status=status, content_type="application/json")


def _whole(name: str, text: str | None, default: int | None, low: int, high: int) -> int | None:
    if text is None:
        return default
    if not (text.isascii() and text.isdigit()) or not low <= int(text) <= high:
        raise Refusal(400, f"{name} must be a whole number from {low} to {high}")
    return int(text)


def _object(body: bytes) -> dict[str, Any]:
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise Refusal(400, "the body is not JSON") from None
    if not isinstance(value, dict) or set(value) - {"control_id", "channel", "limit"}:
        raise Refusal(400, "the body must be an object with control_id, and channel and limit if wanted")
    return value

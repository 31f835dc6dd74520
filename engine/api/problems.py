"""Errors as problem objects (RFC 9457): every answer that is not a success says what was wrong, in JSON."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from http import HTTPStatus

import orjson
from aiohttp import web

from engine.migration.refused import Refused
from engine.observe.events import emit
from engine.observe.service_events import Fault

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Refusal(Exception):
    """The request cannot be answered; `detail` is a sentence for the one who asked."""

    def __init__(self, status: int, detail: str) -> None:
        self.status = status
        self.detail = detail
        super().__init__(detail)


def problem(status: int, detail: str) -> web.Response:
    title = HTTPStatus(status).phrase
    body = {"type": "about:blank", "title": title, "status": status, "detail": detail}
    headers = {"WWW-Authenticate": "Bearer"} if status == 401 else None
    return web.Response(
        body=orjson.dumps(body), status=status, content_type="application/problem+json", headers=headers
    )


@web.middleware
async def problems(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turns refusals, unknown paths and defects of ours into problem objects."""
    try:
        return await handler(request)
    except Refusal as refusal:
        return problem(refusal.status, refusal.detail)
    except Refused as refused:
        return problem(409, "\n".join(refused.sentences))
    except web.HTTPException as error:
        return problem(error.status, f"{request.method} {request.path}: {error.reason}")
    except Exception as error:  # the rim: a request must not end the service, and never shows what was inside
        emit(Fault.of(error))
        return problem(500, "a defect of this service; its log has the place")

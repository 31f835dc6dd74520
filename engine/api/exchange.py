"""Requests read and answers written: bodies checked by their shape, whole numbers of a query, JSON."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
from aiohttp import web

from engine.api.problems import Refusal
from engine.api.shape import misfit

BODY_LIMIT = 64 * 1024
LARGEST = 2**63 - 1


def answer(body: Any, status: int = 200) -> web.Response:
    return web.Response(body=orjson.dumps(body), status=status, content_type="application/json")


async def body(request: web.Request, kind: Any, limit: int = BODY_LIMIT) -> dict[str, Any]:
    """The body, which is of the shape `kind`. Refuses another one with a sentence."""
    raw = await request.clone(client_max_size=limit).read()
    if len(raw) <= BODY_LIMIT:
        return checked(raw, kind)
    return await asyncio.to_thread(checked, raw, kind)  # megabytes to look at: acknowledgements must not wait for it


def checked(raw: bytes, kind: Any) -> dict[str, Any]:
    try:
        value: dict[str, Any] = orjson.loads(raw)
    except orjson.JSONDecodeError:
        raise Refusal(400, "the body is not JSON") from None
    wrong = misfit(value, kind)
    if wrong:
        raise Refusal(400, wrong)
    return value


def known(request: web.Request, names: tuple[str, ...], otherwise: str = "") -> None:
    """Refuse a query that holds anything else."""
    if set(request.query) - set(names):
        listed = ", ".join(names[:-1]) + (" and " if names[1:] else "") + names[-1]
        raise Refusal(400, f"only {listed} may stand in the query{otherwise}")


def whole(name: str, text: str | None, low: int, high: int) -> int | None:
    """A number of a query or path, None where it was left out. Refuses anything else."""
    if text is None:
        return None
    if not (text.isascii() and text.isdigit()) or not low <= int(text) <= high:
        raise Refusal(400, f"{name} must be a whole number from {low} to {high}")
    return int(text)


def place_of(text: str, wrong: str) -> tuple[str, int]:
    """The channel and number of CHANNEL/SEQ. Refuses anything else, with the sentence `wrong`."""
    channel, _, seq = text.rpartition("/")
    if not channel or not (seq.isascii() and seq.isdigit()) or len(seq) > 18:
        raise Refusal(400, wrong)
    return channel, int(seq)


def origin(request: web.Request) -> str:
    """Where an order came from, for the audit record: `interlock/0.1.0 at 127.0.0.1`."""
    agent = request.headers.get("User-Agent", "")[:60].partition(" ")[0]
    named = "".join(c for c in agent if c.isprintable()) or "somebody"
    return f"{named} at {request.remote}"

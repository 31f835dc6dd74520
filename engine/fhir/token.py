"""OAuth2 client credentials: one access token, cached, renewed before it ends, asked for once whoever waits.

Medplum allows few token requests a minute and writes a Login for each, so a failure is shared too: whoever asks
within a second of it gets the same Trouble.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable
from typing import Any

import aiohttp
import orjson

from engine.fhir.failure import Trouble, unreached
from engine.ledger.outcome import Result

EARLY_S = 60.0  # renew this long before the end, or at nine tenths of a short life
FAILURE_HOLDS_S = 1.0
DEFAULT_LIFE_S = 3600.0

_WORD = re.compile(r"[A-Za-z0-9_. -]{1,60}")


class Tokens:
    """The access token of one client at one server. `get` and `renew` raise Trouble: NOT_TAKEN (try later) or FAULT."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        url: str,
        client_id: str,
        client_secret: str,
        *,
        timeout: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._session = session
        self._url = url
        self._form = {"grant_type": "client_credentials", "client_id": client_id, "client_secret": client_secret}
        self._timeout = aiohttp.ClientTimeout(total=timeout)
        self._clock = clock
        self._lock = asyncio.Lock()
        self._token: str | None = None
        self._renew_at = 0.0
        self._failure: tuple[float, Trouble] | None = None

    async def get(self) -> str:
        """A token that is good for now."""
        if self._token is not None and self._clock() < self._renew_at:
            return self._token
        async with self._lock:
            if self._token is None or self._clock() >= self._renew_at:
                await self._fetch()
            assert self._token is not None
            return self._token

    async def renew(self, refused: str) -> str:
        """A token other than the one that was just refused."""
        if self._token == refused:
            self._token = None
        return await self.get()

    async def _fetch(self) -> None:
        if self._failure is not None and self._clock() < self._failure[0]:
            raise _again(self._failure[1])
        try:
            self._take(await self._ask())
        except Trouble as failure:
            self._failure = (self._clock() + FAILURE_HOLDS_S, failure)
            raise

    async def _ask(self) -> dict[str, Any]:
        try:
            async with self._session.post(
                self._url, data=self._form, timeout=self._timeout, allow_redirects=False
            ) as response:
                body = await response.read()
                status = response.status
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise Trouble(Result.NOT_TAKEN, f"no token: {unreached(error)}") from None
        answer = _parse(body)
        if status == 200 and isinstance(answer.get("access_token"), str):
            return answer
        raise _refused(status, answer)

    def _take(self, answer: dict[str, Any]) -> None:
        life = answer.get("expires_in")
        seconds = float(life) if isinstance(life, int | float) else DEFAULT_LIFE_S
        self._token = answer["access_token"]
        self._renew_at = self._clock() + max(seconds - EARLY_S, seconds * 0.9)
        self._failure = None


def _parse(body: bytes) -> dict[str, Any]:
    try:
        answer = orjson.loads(body)
    except orjson.JSONDecodeError:
        return {}
    return answer if isinstance(answer, dict) else {}


def _refused(status: int, answer: dict[str, Any]) -> Trouble:
    words = [answer.get("error"), answer.get("error_description")]
    said = ": ".join(word for word in words if isinstance(word, str) and _WORD.fullmatch(word))
    later = status == 429 or status >= 500
    return Trouble(
        Result.NOT_TAKEN if later else Result.FAULT, f"no token: HTTP {status} {said}".strip(), status=status
    )


def _again(failure: Trouble) -> Trouble:
    return Trouble(failure.result, failure.reason, status=failure.status, after=failure.after)

"""The FHIR client: one pool of connections to one server, every answer or lack of one classed by `failure.py`.

Searches go as POST, so that no identifier of a patient stands in a URL that a proxy may log.
"""

from __future__ import annotations

import asyncio
import io
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, cast

import aiohttp
import orjson
from multidict import CIMultiDict
from yarl import URL

from engine.fhir.failure import Trouble, parse_problem, problem_of, trouble, unanswered
from engine.fhir.output import Resource
from engine.fhir.quota import READ, SEARCH, WRITE, Quota
from engine.fhir.token import Tokens
from engine.ledger.outcome import Result

FHIR_JSON = "application/fhir+json"
KEEPALIVE_S = 15.0  # below every server's own limit, so that a request seldom meets a connection that is being closed
LINGERING = 5.0  # seconds beyond the time limit that what is left of a request may take to end
LARGE_BODY = 512 * 1024  # bytes
SEARCHES_AT_ONCE = 2  # requests with searches on their way; what comes meanwhile gathers for the next one
MOST_QUERIES = 40  # in one request
MOST_MATCHES = 1000  # Medplum's largest _count
# How the status of an entry begins. These bytes can't stand in a text, whose quotes would be escaped.
SUCCEEDED = b'"status":"20'
FAILED = (b'"status":"4', b'"status":"5')


Asked: TypeAlias = tuple[list[dict[str, Any]], "asyncio.Future[list[dict[str, Any]]]"]


@dataclass(slots=True)
class Spent:
    """The quota points of one delivery."""

    points: int = 0


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    body: bytes

    def json(self) -> Any:
        """The parsed body; ValueError where it is no JSON (an answer that was cut off)."""
        return orjson.loads(self.body)


@dataclass(frozen=True, slots=True)
class Query:
    """A search: resource type and encoded query, with the number of resources that are expected to match at most."""

    type: str
    query: str
    expected: int = 1


class FhirClient:
    """FHIR R4 requests to one Medplum project.

    base_url: without /fhir/R4. timeout: seconds for a request as a whole; a server that works longer has given up too.
    Every method raises Trouble for whatever else than success. Requests that only read, or may be repeated without
    harm (`repeatable`), never end as UNKNOWN.
    """

    def __init__(
        self,
        base_url: str,
        client_id: str,
        client_secret: str,
        *,
        connections: int = 8,
        timeout: float = 60.0,
        connect_timeout: float = 10.0,
    ) -> None:
        base = base_url.rstrip("/")
        self._fhir = URL(f"{base}/fhir/R4/")
        self._token_url = f"{base}/oauth2/token"
        self._credentials = (client_id, client_secret)
        self._connections = connections
        self._timeout = aiohttp.ClientTimeout(total=timeout, connect=connect_timeout, sock_connect=connect_timeout)
        self._connect_timeout = connect_timeout
        self._longest = timeout + LINGERING
        self._session: aiohttp.ClientSession | None = None
        self._tokens: Tokens | None = None
        self._headers: tuple[str, CIMultiDict[str]] = ("", CIMultiDict())
        self.quota = Quota()
        self._asked: deque[Asked] = deque()  # searches that wait for the one that is on its way
        self._asking: set[asyncio.Task[None]] = set()

    async def close(self) -> None:
        """Close the connections. The client may be used again afterwards."""
        for task in tuple(self._asking):
            task.cancel()
        await asyncio.gather(*self._asking, return_exceptions=True)
        session, self._session = self._session, None
        if session is not None:
            await session.close()
            await asyncio.sleep(0)  # lets the transports notice that they are closed

    # --- What a strategy asks for

    async def search(self, queries: Sequence[Query], spent: Spent) -> list[list[Resource]]:
        """The resources that match each query.

        Searches of several messages share a request: while one is on its way, the next ones gather. They stay as
        separate as before: each has its own entries and its own answers.
        """
        if not queries:
            return []
        entries = [
            {"request": {"method": "GET", "url": f"{q.type}?{q.query}&_count={_count(q.expected)}"}} for q in queries
        ]
        spent.points += SEARCH * len(queries)
        asked: asyncio.Future[list[dict[str, Any]]] = asyncio.get_running_loop().create_future()
        self._asked.append((entries, asked))
        if len(self._asking) < SEARCHES_AT_ONCE:
            task = asyncio.create_task(self._ask(), name="fhir searches")
            self._asking.add(task)
            task.add_done_callback(self._asking.discard)
        return [_matches(answer) for answer in await asked]

    async def _ask(self) -> None:
        """Send what has gathered until nothing has."""
        try:
            while self._asked:
                taken = [self._asked.popleft()]
                size = len(taken[0][0])
                while self._asked and size + len(self._asked[0][0]) <= MOST_QUERIES:
                    taken.append(self._asked.popleft())
                    size += len(taken[-1][0])
                await self._ask_together(taken)
        finally:  # in the turn in which it finds nothing: what comes later in that turn must not count on it
            self._asking.discard(cast("asyncio.Task[None]", asyncio.current_task()))

    async def _ask_together(self, taken: list[Asked]) -> None:
        try:
            answers = await self.bundle("batch", [entry for entries, _ in taken for entry in entries], repeatable=True)
        except asyncio.CancelledError:
            for _, asked in taken:
                asked.cancel()
            raise
        except Exception as error:
            for _, asked in taken:
                if not asked.done():
                    asked.set_exception(error)
            return
        at = 0
        for entries, asked in taken:
            if not asked.done():  # whoever asked may have been cancelled
                asked.set_result(answers[at : at + len(entries)])
            at += len(entries)

    async def read(self, kind: str, id: str, spent: Spent) -> Resource:
        spent.points += READ
        answer = await self._send("GET", f"{kind}/{id}", None, {}, repeatable=True)
        return _resource(answer, repeatable=True)

    async def create_once(self, resource: Resource, condition: str, spent: Spent) -> tuple[Resource, bool]:
        """Create unless something matches the condition: what stands there now, and whether it is new.

        Trouble(NEVER, code "multiple-matches") where several match.
        """
        spent.points += SEARCH
        answer = await self._send(
            "POST", resource["resourceType"], orjson.dumps(resource), {"If-None-Exist": condition}, repeatable=True
        )
        if answer.status == 201:
            spent.points += WRITE
        return _resource(answer, repeatable=True), answer.status == 201

    async def update(self, resource: Resource, spent: Spent) -> Resource:
        """Replace a resource that still has the version of its `meta`. Trouble.stale where it has another."""
        spent.points += WRITE
        version = resource["meta"]["versionId"]
        place = f"{resource['resourceType']}/{resource['id']}"
        body = orjson.dumps({**resource, "meta": without_version(resource["meta"])})
        answer = await self._send("PUT", place, body, {"If-Match": f'W/"{version}"'}, repeatable=True)
        return _resource(answer, repeatable=True)

    async def upload(self, content_type: str, data: bytes, spent: Spent) -> str:
        """Store a body as a Binary of its own. Returns `Binary/<id>`. An orphan, should the rest fail, is harmless."""
        spent.points += WRITE
        answer = await self._send("POST", "Binary", data, {"Content-Type": content_type}, repeatable=True)
        return f"Binary/{_resource(answer, repeatable=True)['id']}"

    async def bundle(self, kind: str, entries: list[Any], *, repeatable: bool) -> list[dict[str, Any]]:
        """Send a `batch` or `transaction`; its answer's entries, in the order of the request."""
        return await self.send_bundle(bundle_bytes(kind, entries), len(entries), repeatable=repeatable)

    async def send_bundle(self, body: bytes, entries: int, *, repeatable: bool) -> list[dict[str, Any]]:
        answer = await self._send("POST", "", body, {}, repeatable=repeatable)
        return _answered(answer, entries, repeatable=repeatable)

    async def succeeds(self, body: bytes, entries: int) -> bytes | None:
        """Send a transaction: its answer, where each of its entries succeeded. It has all the resources in it, and is
        parsed only where its bytes do not say so."""
        answer = await self._send("POST", "", body, {}, repeatable=False)
        if _plainly_succeeded(answer.body, entries):
            return answer.body
        answers = _answered(answer, entries, repeatable=False)
        succeeded = all(entry_trouble(one["response"], repeatable=True) is None for one in answers)
        return answer.body if succeeded else None

    # --- One request

    async def _send(
        self, method: str, path: str, body: bytes | None, extra: Mapping[str, str], *, repeatable: bool
    ) -> Answer:
        """One answered request; once more with a fresh token after a 401."""
        tokens = self._opened()
        token = await tokens.get()
        answer, after = await self._exchange(method, path, body, extra, token, repeatable)
        if answer.status == 401:
            token = await tokens.renew(token)
            answer, after = await self._exchange(method, path, body, extra, token, repeatable)
        if answer.status < 300:
            return answer
        raise trouble(answer.status, parse_problem(answer.body), writes=not repeatable, after=after)

    async def _exchange(
        self, method: str, path: str, body: bytes | None, extra: Mapping[str, str], token: str, repeatable: bool
    ) -> tuple[Answer, float | None]:
        assert self._session is not None
        headers = self._with_token(token)
        try:
            async with (
                asyncio.timeout(self._longest),  # the session's own limit does not count what is left of the request
                self._session.request(
                    method,
                    self._fhir.joinpath(path) if path else self._fhir,
                    data=_payload(body),
                    headers=CIMultiDict({**headers, **extra}) if extra else headers,
                    allow_redirects=False,
                ) as response,
            ):
                content = await response.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise unanswered(error, writes=not repeatable) from None
        after = self.quota.heard(response.headers.get("RateLimit"), response.status)
        if after is None and response.status == 503:
            after = _seconds(response.headers.get("Retry-After"))
        return Answer(response.status, content), after

    def _with_token(self, token: str) -> CIMultiDict[str]:
        if self._headers[0] != token:
            headers = {"Authorization": f"Bearer {token}", "Content-Type": FHIR_JSON, "Accept": FHIR_JSON}
            self._headers = (token, CIMultiDict(headers))
        return self._headers[1]

    def _opened(self) -> Tokens:
        """The session belongs to the running loop, so it is made at the first request."""
        if self._session is None or self._tokens is None:
            connector = aiohttp.TCPConnector(limit=self._connections, keepalive_timeout=KEEPALIVE_S)
            self._session = aiohttp.ClientSession(
                connector=connector, timeout=self._timeout, cookie_jar=aiohttp.DummyCookieJar(), auto_decompress=True
            )
            self._tokens = Tokens(self._session, self._token_url, *self._credentials, timeout=self._connect_timeout)
        return self._tokens


def _payload(body: bytes | None) -> bytes | io.BytesIO | None:
    """Large bodies as a stream, which is written in pieces and keeps the event loop free."""
    return io.BytesIO(body) if body is not None and len(body) > LARGE_BODY else body


def bundle_bytes(kind: str, entries: list[Any]) -> bytes:
    return orjson.dumps({"resourceType": "Bundle", "type": kind, "entry": entries})


def entry_trouble(response: dict[str, Any], *, repeatable: bool) -> Trouble | None:
    """What an entry's own status says; None for success."""
    status = response.get("status") or ""
    if status[:1] == "2":
        return None
    number = int(status[:3]) if status[:3].isdigit() else 0
    return trouble(number, problem_of(response.get("outcome")), writes=not repeatable)


def without_version(meta: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in meta.items() if key not in ("versionId", "lastUpdated")}


def _count(expected: int) -> int:
    return min(MOST_MATCHES, 3 * expected + 5)


def _matches(answer: dict[str, Any]) -> list[Resource]:
    failed = entry_trouble(answer["response"], repeatable=True)
    if failed is not None:
        raise failed
    found = answer.get("resource") or {}
    if any(link.get("relation") == "next" for link in found.get("link") or ()):
        raise Trouble(Result.NEVER, "more resources match than one search brings", code="too-many")
    return [entry["resource"] for entry in found.get("entry") or ()]


def _plainly_succeeded(body: bytes, entries: int) -> bool:
    """As many statuses of success as there are entries, none of failure, wherever they stand. False: to be parsed."""
    return body.count(SUCCEEDED) == entries and not any(one in body for one in FAILED) and body.endswith(b"}")


def _answered(answer: Answer, entries: int, *, repeatable: bool) -> list[dict[str, Any]]:
    answered: list[dict[str, Any]] = _json(answer, repeatable=repeatable).get("entry") or []
    if len(answered) != entries or not all(isinstance(one.get("response"), dict) for one in answered):
        raise Trouble(_lost(repeatable), "the answer's entries are not those of the bundle", status=answer.status)
    return answered


def _resource(answer: Answer, *, repeatable: bool) -> Resource:
    resource = _json(answer, repeatable=repeatable)
    if "id" not in resource:
        raise Trouble(_lost(repeatable), "the answer has no id", status=answer.status)
    return resource


def _json(answer: Answer, *, repeatable: bool) -> dict[str, Any]:
    try:
        parsed = answer.json()
    except ValueError:
        raise Trouble(_lost(repeatable), "the answer is no JSON", status=answer.status) from None
    if not isinstance(parsed, dict):
        raise Trouble(_lost(repeatable), "the answer is no resource", status=answer.status)
    return parsed


def _lost(repeatable: bool) -> Result:
    return Result.NOT_TAKEN if repeatable else Result.UNKNOWN


def _seconds(text: str | None) -> float | None:
    try:
        return float(text) if text else None
    except ValueError:
        return None

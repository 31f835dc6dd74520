"""What an operator asks of the running service, through its API: each method is one request and no more."""

from __future__ import annotations

import io
from pathlib import Path
from types import TracebackType
from typing import Any, Final

import aiohttp
import orjson

from engine.api.token import read_token
from engine.config.address import Address

WHO: Final = "the demo's operator"
SCRAPER: Final = "Prometheus (played by the demo)"
PATIENCE_S: Final = 120.0
"""For one answer: a gate over hundreds of channels asks many places."""
WAIT_S: Final = 20
"""How long the service may think about one run before it answers that nothing has changed."""

Table = dict[str, Any]


class Refused(Exception):
    """The service will not do it. sentences: why."""

    def __init__(self, detail: str) -> None:
        self.sentences = [line for line in detail.splitlines() if line] or ["refused without a reason"]
        super().__init__(detail)


class Trouble(Exception):
    """The service answered what no operator expects."""


class Operator:
    """A client of one service. To be used in `async with`."""

    def __init__(self, http: Address, ledger: Path) -> None:
        self._base = f"http://{http}"
        self._ledger = ledger
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Operator:
        timeout = aiohttp.ClientTimeout(total=PATIENCE_S)
        headers = {"Authorization": f"Bearer {read_token(self._ledger)}", "Content-Type": "application/json"}
        self._session = aiohttp.ClientSession(timeout=timeout, headers=headers)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()

    # -- acting

    async def verb(
        self, verb: str, connections: list[str] | None, reason: str, *, dry_run: bool = False, **options: Any
    ) -> Table:
        """Plans, runs and sentences. `connections`: None for every one. Raises Refused."""
        body = {"selector": _selector(connections), "reason": reason, "who": WHO, "dry_run": dry_run}
        answer: Table = await self._post(f"/api/v1/verbs/{verb}", {**body, **({"options": options} if options else {})})
        return answer

    async def settle(self, discrepancy: int, state: str, reason: str) -> None:
        """Decide about a discrepancy."""
        body = {"state": state, "reason": reason, "who": WHO}
        await self._post(f"/api/v1/discrepancies/{discrepancy}", body)

    async def ended(self, runs: list[Table]) -> list[Table]:
        """The same runs, when none of them goes on any more."""
        return [await self._ended(run) for run in runs]

    async def _ended(self, run: Table) -> Table:
        while run["state"] == "running":
            run = await self._get(f"/api/v1/runs/{run['id']}?after={run['version']}&wait={WAIT_S}")
        return run

    # -- looking

    async def status(self) -> Table:
        found: Table = await self._get("/api/v1/status")
        return found

    async def gate(self, connections: list[str] | None = None) -> list[Table]:
        """One row for each channel: passed, and its checks."""
        return await self._rows("/api/v1/gate", connections)

    async def compare(self, connections: list[str] | None = None) -> list[Table]:
        """One row for each tap, and one with an empty `tap` for the answers to the sender."""
        return await self._rows("/api/v1/compare", connections)

    async def discrepancies(self, connections: list[str] | None = None) -> list[Table]:
        """The open ones."""
        return await self._rows("/api/v1/discrepancies", connections, state="open", limit=10_000)

    async def reconcile(self, manifest: list[Table]) -> Table:
        """The equation of every channel, and the list of control ids against the ledger."""
        found: Table = await self._post("/api/v1/reconcile", {"selector": _selector(None), "manifest": manifest})
        return found

    async def verify_audit(self) -> Table:
        found: Table = await self._get("/api/v1/audit/verify")
        return found

    async def scrape(self) -> None:
        """Read /metrics, as Prometheus does; a service that does not answer is noticed elsewhere."""
        try:
            await self._ask("GET", "/metrics", headers={"User-Agent": SCRAPER})
        except (aiohttp.ClientError, TimeoutError):
            return

    async def _rows(self, path: str, connections: list[str] | None, **more: Any) -> list[Table]:
        rows: list[Table] = await self._post(path, {"selector": _selector(connections), **more})
        return rows

    async def _get(self, path: str) -> Any:
        return _read(path, *await self._ask("GET", path))

    async def _post(self, path: str, body: Table) -> Any:
        content = io.BytesIO(orjson.dumps(body))  # written in pieces: a manifest has megabytes
        return _read(path, *await self._ask("POST", path, data=content))

    async def _ask(self, method: str, path: str, **options: Any) -> tuple[int, bytes]:
        if self._session is None:
            raise RuntimeError("an Operator is used in `async with`")
        async with self._session.request(method, self._base + path, **options) as response:
            return response.status, await response.read()


def _selector(connections: list[str] | None) -> Table:
    return {"all": True} if connections is None else {"connections": connections}


def _read(path: str, status: int, content: bytes) -> Any:
    answer = orjson.loads(content) if content else None
    if status == 409 and isinstance(answer, dict):
        raise Refused(str(answer.get("detail", "")))
    if status >= 400:
        detail = answer.get("detail") if isinstance(answer, dict) else ""
        raise Trouble(f"{path} answered HTTP {status}: {detail}")
    return answer

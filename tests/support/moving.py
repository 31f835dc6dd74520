"""What people order at a service in a test's process, as they would through the API: of channels, of messages."""

from __future__ import annotations

import asyncio
from typing import Any

from engine.migration.gate.examine import CHECKS
from engine.migration.selection import Selector
from engine.service.orders import Orders
from engine.service.remedies import Remedies
from engine.service.service import Service

WHO = "ops"
BY = {"who": "ann", "reason": "because", "origin": "a test", "dry_run": False}
"""Whoever decides about messages, and why."""


async def decide(service: Service, verb: str, *numbers: int, **options: Any) -> dict[str, Any]:
    """About messages of `acme`; about all that wants a person where none is named."""
    meant = {
        "selector": None if numbers else Selector(everything=True),
        "messages": [("acme", number) for number in numbers],
    }
    return await Remedies(service).decide(
        verb, **{**meant, "destination": None, "state": None, "confirm": None, **BY, **options}
    )


async def replay(service: Service, to: str, first: int, last: int, **options: Any) -> dict[str, Any]:
    """Messages of `acme`."""
    return await Remedies(service).replay(
        "acme", to, **{"numbers": [(first, last)], "search": None, "confirm": None, **BY, **options}
    )


class Operator:
    """One operator at one service."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self._orders = Orders(service.conductor, service.configuration.channels)

    async def verb(self, verb: str, *ids: str, dry_run: bool = False, **options: Any) -> dict[str, Any]:
        return await self._orders.verb(
            verb, Selector(ids=ids), options=options, reason="a test", who=WHO, origin="test", dry_run=dry_run
        )

    async def plan(self, verb: str, *ids: str, **options: Any) -> dict[str, Any]:
        """The plan of one connection."""
        (plan,) = (await self.verb(verb, *ids, dry_run=True, **options))["plans"]
        found: dict[str, Any] = plan
        return found

    async def waive_all(self, *ids: str) -> None:
        """Let the gate pass without whatever can be waived."""
        for check in CHECKS:
            if check.waivable:
                await self.verb("waive", *ids, check=check.name)

    async def begin(self, verb: str, *ids: str, **options: Any) -> int:
        """Start a run; its number."""
        started = await self.verb(verb, *ids, **options)
        return int(started["runs"][0]["id"])

    async def run(self, verb: str, *ids: str, **options: Any) -> dict[str, Any]:
        """Start a run and wait for its end; the run."""
        return await self.ended(await self.begin(verb, *ids, **options))

    async def cut_over(self, *ids: str) -> None:
        """From parallel to live, whatever the gate says."""
        await self.waive_all(*ids)
        run = await self.run("cutover", *ids)
        assert run["state"] == "done", run

    async def ended(self, id: int, seconds: float = 30.0) -> dict[str, Any]:
        """Wait for the end of a run, which has a deadline of its own. `seconds`: until it says something new."""
        run = await self._orders.run(id, after=None, wait=0)
        while run is not None and run["state"] == "running":
            after = run["version"]
            run = await self._orders.run(id, after=after, wait=seconds)
            assert run is not None
            assert run["version"] > after, f"run {id} still waits: {run}"
        assert run is not None
        return run

    async def at_step(self, id: int, step: str, seconds: float = 10.0) -> dict[str, Any]:
        """Wait until a run is at a step and says what it waits for."""
        run = await self._orders.run(id, after=None, wait=0)
        async with asyncio.timeout(seconds):
            while run is not None and not (run["step"] == step and run["version"] > 1):
                assert run["state"] == "running", run
                run = await self._orders.run(id, after=run["version"], wait=seconds)
        assert run is not None
        return run

    def phase(self, id: str) -> str:
        return self.service.ledger.channels[id].epoch.phase

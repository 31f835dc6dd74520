"""One simulated world with a real service in its middle, and an operator who moves its connections."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from engine.cli.demo.operator import Operator, Refused, Table
from engine.config.address import Address
from engine.migration.gate.examine import CHECKS
from engine.simulate import site
from engine.simulate.layout import free_ports, lay_out
from engine.simulate.world import Plan, World
from tests.support import processes
from tests.support.processes import Interlock

REASON = "a test"
LABORATORIES = 4
ATTEMPTS = 4
TWICE = "message-twice"
POLL = 0.05
ANSWER_S = 0.03  # until an endpoint answers: long enough for a kill to meet messages on their way
START_S = 90.0  # hundreds of channels are opened at each start
ON_THE_WAY = ("waiting", "sending", "retrying", "unknown")


class Crossing:
    """Clinics, laboratories, an old engine and `interlock run` between them: two channels a connection, with taps."""

    def __init__(self, folder: Path, connections: int, *, settle: Callable[[int], str], seed: int) -> None:
        """`settle`: how long the taps of a connection have to be quiet, by its place in the layout."""
        http = free_ports(1)[0]
        self.layout = lay_out(connections, min(LABORATORIES, connections), beside=(http,))
        plan = Plan(turnaround=(0.05, 0.5), delay=0.02, timeout=30.0, pause=0.1, seed=seed)
        self.world = World(self.layout, plan)
        for receiver in self.world.receivers.values():
            receiver.delay = ANSWER_S
        self.connections = [link.connection for link in self.layout.links]
        channels = site.channels(self.layout, phase="legacy", within="30s")
        for place, link in enumerate(self.layout.links):
            for way in link.ways:
                channels[way.channel]["legacy"]["taps"][0]["settle"] = settle(place)
        self.interlock = Interlock(
            folder / "site", channels, endpoints=site.endpoints(self.layout), http=f"127.0.0.1:{http}"
        )
        self.interlock.http = http
        self.kills = 0

    # -- the service

    async def start(self) -> None:
        await asyncio.to_thread(self.interlock.start)

    async def killed_and_started(self) -> None:
        """SIGKILL, and the same service again on the same ledger."""
        self.kills += 1
        self.interlock.kill()
        await self.start()

    async def get(self, path: str) -> Any:
        return await asyncio.to_thread(self.interlock.get, path)

    async def phases(self) -> dict[str, set[str]]:
        """The phases of each connection's channels."""
        found: dict[str, set[str]] = {connection: set() for connection in self.connections}
        for channel in (await self.get("/api/v1/status"))["channels"]:
            found[channel["connection"]].add(channel["phase"])
        return found

    async def in_phase(self, phase: str) -> list[str]:
        """The connections that are there with all of their channels."""
        return [connection for connection, found in (await self.phases()).items() if found == {phase}]

    # -- the operator

    @asynccontextmanager
    async def operator(self) -> AsyncIterator[Operator]:
        """One who knows the token of the process that runs now."""
        async with Operator(Address("127.0.0.1", self.interlock.http), self.interlock.ledger) as operator:
            yield operator

    async def order(self, verb: str, connections: list[str] | None, **options: Any) -> list[Table]:
        """Begin a move; its runs."""
        async with self.operator() as operator:
            runs: list[Table] = (await operator.verb(verb, connections, REASON, **options))["runs"]
            return runs

    async def ended(self, runs: list[Table]) -> list[Table]:
        """The same runs, when none of them goes on. Not over a restart, which forgets those that had ended."""
        async with self.operator() as operator:
            return await operator.ended(runs)

    async def active(self) -> list[Table]:
        rows: list[Table] = await self.get("/api/v1/runs?active=true")
        return rows

    async def moved(self, verb: str, connections: list[str], phase: str, **options: Any) -> list[Table]:
        """Begin a move, wait for its runs; all of them must be through."""
        runs = await self.ended(await self.order(verb, connections, **options))
        assert [run["said"] for run in runs if run["state"] != "done"] == []
        assert set(connections) <= set(await self.in_phase(phase))
        return runs

    async def cut_over(self, connections: list[str]) -> None:
        """Until all of these are live. What a kill did to the comparison is explained, and what it left to a person is
        carried; both may come to light only while the order is given, so it is given again a few times."""
        said: list[str] = []
        for _ in range(ATTEMPTS):
            await self.explain()
            try:
                runs = await self.ended(await self.order("cutover", connections, carry=await self.carried(connections)))
                said = [run["said"] for run in runs]
            except Refused as refused:
                said = refused.sentences
            live = await self.in_phase("live")
            connections = [one for one in connections if one not in live]
            if not connections:
                return
        raise AssertionError(f"{connections} are not live: {said}")

    async def explain(self) -> None:
        """What was on its way to the old engine at a kill went there again, and it worked on it again: that the
        comparison sees a message twice is right, and nobody's fault. Nothing else may be clinical here."""
        async with self.operator() as operator:
            for one in await operator.discrepancies():
                if one["severity"] == "clinical":
                    assert (one["path"], self.kills > 0) == (TWICE, True), one
                    await operator.settle(one["id"], "explained", "sent again after a kill")

    async def waive(self) -> None:
        """Let the gate pass without whatever can be waived; what cannot has to be so."""
        async with self.operator() as operator:
            await operator.scrape()
            for check in CHECKS:
                if check.waivable:
                    await operator.verb("waive", None, REASON, check=check.name)

    async def carried(self, connections: list[str]) -> list[str]:
        """What a cutover of these would leave to a person, as its plan names it."""
        async with self.operator() as operator:
            answer = await operator.verb("cutover", connections, REASON, dry_run=True)
        lines = [line for plan in answer["plans"] for line in plan["lines"]]
        return [match[1] for line in lines if (match := re.search(r"wants --carry (\S+),", line))]

    # -- waiting

    async def until(self, condition: Callable[[], Any], seconds: float, what: str) -> Any:
        """Wait for something that only asking tells; `condition` gives an awaitable. What it came to."""
        try:
            async with asyncio.timeout(seconds):
                while not (found := await condition()):  # noqa: ASYNC110 - another process
                    await asyncio.sleep(POLL)
        except TimeoutError:
            raise AssertionError(f"not within {seconds:.0f} s: {what}; {await self.active()}") from None
        return found

    async def flows(self, messages: int, seconds: float = 60.0) -> None:
        """Until so many more messages of each channel are acknowledged."""
        wanted = {outbox.channel: len(outbox.acknowledged) + messages for outbox in self.world.outboxes()}
        await self.world.until(
            lambda: all(len(outbox.acknowledged) >= wanted[outbox.channel] for outbox in self.world.outboxes()), seconds
        )

    async def drained(self, seconds: float) -> None:
        """No more orders, and until nothing is on its way any more: what is left waits for a person."""
        self.world.rate = 0
        await self.until(self._still, seconds, f"everything is settled: {self.world.waiting()}")

    async def _still(self) -> bool:
        return self._quiet() and not await self._on_the_way() and self._quiet()

    def _quiet(self) -> bool:
        waiting = self.world.waiting()
        return not (waiting["senders"] or waiting["laboratory"] or waiting["old engine"])

    async def _on_the_way(self) -> int:
        channels = (await self.get("/api/v1/status"))["channels"]
        return sum(at["counts"].get(state, 0) for one in channels for at in one["destinations"] for state in ON_THE_WAY)

    # -- what was logged

    def logged(self, *events: str) -> list[str]:
        """The lines about one of these events."""
        names = tuple(f'"event":"{event}"' for event in events)
        return [line for line in self.interlock.log.read_text().splitlines() if any(name in line for name in names)]


@asynccontextmanager
async def crossing(
    folder: Path, connections: int, *, settle: Callable[[int], str] = lambda place: "300ms", seed: int = 1
) -> AsyncIterator[Crossing]:
    """Everything runs, in phase `legacy`, and nobody orders anything yet."""
    processes.START_S = max(processes.START_S, START_S)
    found = Crossing(folder, connections, settle=settle, seed=seed)
    with found.interlock:
        try:
            await found.world.start()
            await found.start()
            yield found
        finally:
            await found.world.stop()

"""The story that the demo tells: what an operator would do to a running service, and what is seen of it.

Nothing is said that was not asked of the service or counted at an endpoint. Where a step cannot be done, it says why,
and goes on with what can: at the end everything is counted all the same.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

from engine.cli.console import DONE, REFUSED
from engine.cli.demo.operator import Refused, Table
from engine.cli.demo.report import Found, endpoint_table, fault_table, many, seconds
from engine.simulate.counting import Count
from engine.simulate.world import World

SETTLE_S: Final = 120.0
"""How long what is on its way may take to arrive at the end."""

EVERY_S: Final = 10.0
TO_BE_FOUND = 45.0  # seconds that the comparison gets for the newest fault: a dropped message is missed after a while
"""How often a long wait says how it goes."""

ROLLED_BACK: Final = 10
"""Connections that go back and come again, at most."""

ATTESTED: Final = {
    "rehearsed": "this demo was run before",
    "reconciliation_plan": "every message is counted at the endpoints at the end",
}


class Client(Protocol):
    """What the story asks of a service; the operator's methods."""

    async def verb(
        self, verb: str, connections: list[str] | None, reason: str, *, dry_run: bool = False, **options: Any
    ) -> Table: ...
    async def settle(self, discrepancy: int, state: str, reason: str) -> None: ...
    async def ended(self, runs: list[Table]) -> list[Table]: ...
    async def gate(self, connections: list[str] | None = None) -> list[Table]: ...
    async def compare(self, connections: list[str] | None = None) -> list[Table]: ...
    async def discrepancies(self, connections: list[str] | None = None) -> list[Table]: ...
    async def reconcile(self, manifest: list[Table]) -> Table: ...
    async def verify_audit(self) -> Table: ...


@dataclass(frozen=True, slots=True)
class Pace:
    """How long it may all take, in seconds, and the orders a second of each clinic."""

    total: float
    rate: float

    @property
    def passing(self) -> float:
        return 0.08 * self.total

    @property
    def parallel(self) -> float:
        return 0.45 * self.total

    @property
    def live(self) -> float:
        return 0.15 * self.total

    @property
    def back(self) -> float:
        return 0.1 * self.total


class Story:
    """One telling. `faulty`: the fault of the old engine, by connection."""

    def __init__(
        self, world: World, client: Client, faulty: Mapping[str, str], tell: Callable[[str], None], pace: Pace
    ) -> None:
        self._world = world
        self._client = client
        self._faulty = faulty
        self._tell = tell
        self._pace = pace
        self._moved: list[str] = []
        self._returned: list[str] = []
        self._well = True
        self._found: dict[str, list[Found]] = {}

    async def tell(self) -> int:
        """All of it; 0 where what it claims is true to the last message, else 1."""
        await self._pass_through()
        if await self._run_in_parallel():
            await self._look_at_differences()
            await self._explain_the_harmless()
            await self._cut_over()
            await self._go_back()
        await self._count()
        return DONE if self._well else REFUSED

    # -- the steps

    async def _pass_through(self) -> None:
        self._world.rate = self._pace.rate
        self._tell("Phase legacy: every message passes through Interlock to the old engine, and its answer comes back.")
        await self._for(self._pace.passing, self._passed)

    async def _passed(self) -> str:
        count = self._world.count()
        return (
            f"{many(count.acknowledged, 'message')} acknowledged, {count.by_legacy} have come to their endpoints"
            f" through the old engine; slowest acknowledgement {seconds(self._world.slowest())}"
        )

    async def _run_in_parallel(self) -> bool:
        answer = await self._do("parallel", None, "the parallel run of the demo begins")
        if answer is None:
            return False
        await self._client.ended(answer["runs"])
        self._tell(
            "Phase parallel: the old engine still does the work; the same messages are worked on here as well, what"
            " both sides make of them is compared, and nothing of ours goes out to a real endpoint."
        )
        await self._for(self._pace.parallel, self._compared)
        return True

    async def _compared(self) -> str:
        rows = await self._client.compare()
        sums = Counter(
            {key: sum(row[key] for row in rows) for key in ("matched", "explained", "unexplained", "pending")}
        )
        return (
            f"compared so far: {sums['matched']} matched, {sums['explained']} explained by a rule,"
            f" {sums['unexplained']} unexplained, {sums['pending']} still wait for their other half"
        )

    async def _look_at_differences(self) -> None:
        """Which of the seeded faults were found, and whether anything was called clinical that is not."""
        seeded = self._seeded()
        missed = await self._look_for(seeded)
        self._tell("What the comparison found, against what the old engine was told to do wrong:")
        self._tell(fault_table(seeded, self._found))
        false = [one for one in self._found if one not in self._faulty and _clinical(self._found[one])]
        if missed:
            self._well = False
            self._tell(f"NOT FOUND with {many(len(missed), 'connection')}: {', '.join(missed)}.")
        if false:
            self._well = False
            self._tell(f"Called clinical where the old engine has habits only: {', '.join(false)}.")
        if not missed and not false:
            self._tell("Every seeded fault was found and called clinical; no harmless habit was.")

    async def _look_for(self, seeded: dict[str, tuple[str, int]]) -> list[str]:
        """The connections whose fault is not found yet, once there was time: the newest is only just committed."""
        end = time.monotonic() + TO_BE_FOUND
        self._tell(f"The comparison gets up to {TO_BE_FOUND:.0f} s for the newest mistakes …")
        while True:
            self._found = by_connection(await self._client.discrepancies())
            missed = [one for one in seeded if not _clinical(self._found.get(one, []))]
            if not missed or time.monotonic() > end:
                return missed
            await asyncio.sleep(1.0)

    def _seeded(self) -> dict[str, tuple[str, int]]:
        """By connection: the fault that the old engine has really committed, and how often."""
        times = Counter(seeded.channel for seeded in self._world.old_engine.seeded)
        links = {link.connection: link for link in self._world.layout.links}
        return {
            connection: (fault, times[links[connection].results.channel])
            for connection, fault in self._faulty.items()
            if times[links[connection].results.channel]
        }

    async def _explain_the_harmless(self) -> None:
        """What is open, not clinical, and with an old engine that does nothing wrong, a person explains."""
        harmless = [
            one
            for connection, some in self._found.items()
            if connection not in self._faulty
            for one in some
            if one.severity != "clinical"
        ]
        for one in harmless:
            await self._client.settle(one.id, "explained", "a habit of the old engine that changes no meaning")
        if harmless:
            self._tell(f"{many(len(harmless), 'harmless difference')} explained, each by name and with a reason.")

    async def _cut_over(self) -> None:
        for check, why in ATTESTED.items():
            await self._do("attest", None, why, check=check, for_s=3600.0)
        passed = self._tell_gate(await self._client.gate())
        await self._show_refusal(passed)
        if not passed:
            self._well = False
            self._tell("No connection passes the gate: nothing is cut over.")
            return
        await self._show_plan("cutover", passed[0])
        self._moved = await self._move("cutover", passed[:1], "the first connection of the demo") + await self._move(
            "cutover", passed[1:], "the demo's wave"
        )
        await self._for(self._pace.live, self._live)

    async def _live(self) -> str:
        count = self._world.count(self._moved)
        return f"{many(len(self._moved), 'connection')} live: {_ways(count)}"

    async def _crossed(self) -> str:
        return (
            f"the {many(len(self._returned), 'connection')} that went back: {_ways(self._world.count(self._returned))}"
        )

    def _tell_gate(self, rows: list[Table]) -> list[str]:
        """The connections whose channels all pass, and in words how it stands."""
        failing = Counter(
            (check["title"], check["outcome"])
            for row in rows
            for check in row["checks"]
            if check["outcome"] not in ("pass", "waived")
        )
        stopped = {self._connection(row["channel"]) for row in rows if not row["passed"]}
        passed = [connection for connection in self._world.partners if connection not in stopped]
        self._tell(f"The gate: {many(len(passed), 'connection')} may be cut over, {len(stopped)} may not.")
        for (title, outcome), number in failing.most_common():
            self._tell(f"    not met by {many(number, 'channel')} ({outcome}): {title}")
        return passed

    def _connection(self, channel: str) -> str:
        return channel.rpartition("-")[0]

    async def _show_refusal(self, passed: list[str]) -> None:
        """Try to cut over one that must not be."""
        wrong = next((connection for connection in self._faulty if connection not in passed), None)
        if wrong is None:
            return
        try:
            await self._client.verb("cutover", [wrong], "the demo tries what must not be done")
        except Refused as refused:
            self._tell(f"A cutover of {wrong}, where the old engine errs, is refused:")
            for sentence in refused.sentences[:6]:
                self._tell(f"    {sentence}")
        else:
            self._well = False
            self._tell(f"A cutover of {wrong} was NOT refused, though the old engine errs there.")

    async def _show_plan(self, verb: str, connection: str) -> None:
        answer = await self._do(verb, [connection], "", dry_run=True)
        for plan in answer["plans"] if answer else ():
            self._tell(f"The plan of a {verb} of {plan['connection']} (nothing is done yet):")
            for line in (*plan["lines"], *plan["refused"]):
                self._tell(f"    {line}")

    async def _move(self, verb: str, connections: list[str], reason: str) -> list[str]:
        """Do it, wait for the runs, say how they ended; the connections that got there."""
        if not connections:
            return []
        since, begun = time.time(), time.monotonic()
        connections = await self._without_refused(verb, connections)
        answer = await self._do(verb, connections, reason) if connections else None
        if answer is None:
            return []
        runs = await self._client.ended(answer["runs"])
        there = [run["connection"] for run in runs if run["state"] == "done"]
        self._tell(
            f"{verb} of {many(len(connections), 'connection')}: {len(there)} done in"
            f" {seconds(time.monotonic() - begun)}; meanwhile the vendors' slowest acknowledgement took"
            f" {seconds(self._world.slowest(since))}, {self._world.drops(connections)} connections were dropped and"
            f" {self._world.negative(connections)} answers were negative."
        )
        for run in runs:
            if run["state"] != "done":
                self._well = False
                self._tell(f"    {run['connection']}: {run['state']}: {run['said']}")
        return there

    async def _without_refused(self, verb: str, connections: list[str]) -> list[str]:
        """Those that may be moved now. Where the old engine errs, it may have done so since the gate was asked; where
        nothing has come since the last move, the gate has no data yet, and its next message is waited for."""
        end = time.monotonic() + TO_BE_FOUND
        self._tell(f"The plan of a {verb} of {many(len(connections), 'connection')} is looked at …")
        while True:
            plans = await self._client.verb(verb, connections, "the demo looks at the plan", dry_run=True)
            refused = {plan["connection"] for plan in plans["plans"] if plan["refused"]}
            if not refused - set(self._faulty) or time.monotonic() > end:
                break
            await asyncio.sleep(1.0)
        err = refused & set(self._faulty)
        if err:
            self._tell(f"{', '.join(sorted(err))} passed the gate and would not now: the old engine erred since.")
        return [connection for connection in connections if connection not in err]

    async def _go_back(self) -> None:
        """Some go back to the old engine and come again."""
        some = self._moved[: min(ROLLED_BACK, max(1, len(self._moved) // 4))]
        if not some:
            return
        await self._show_plan("rollback", some[0])
        self._returned = await self._move("rollback", some, "the demo shows the way back")
        await self._for(self._pace.back, self._crossed)
        self._tell("They are cut over again; what the old engine still has of theirs is waited for.")
        again = await self._move("cutover", self._returned, "the demo moves on")
        if len(again) < len(some):
            self._well = False
        await self._for(self._pace.back, self._crossed)

    async def _count(self) -> None:
        self._tell("The clinics stop ordering. What is on its way arrives, then everything is counted.")
        try:
            await self._world.finish(SETTLE_S)
        except TimeoutError as late:
            self._well = False
            self._tell(f"Not all of it arrived: {late}")
        await self._reconcile()
        count = self._world.count()
        self._well &= count.clean
        self._tell("Counted at the senders and at the endpoints themselves:")
        self._tell(endpoint_table(self._world, self._groups()))
        self._tell(
            f"{many(count.acknowledged, 'message')} acknowledged to their senders, {len(count.lost)} lost,"
            f" {len(count.both)} sent by both sides. The old engine lost {len(count.dropped)}, as it was told to."
        )
        self._tell("All is well." if self._well else "NOT ALL IS WELL: see above.")

    def _groups(self) -> dict[str, list[str]]:
        moved = [one for one in self._moved if one not in self._returned]
        stayed = [one for one in self._world.partners if one not in self._moved]
        return {"live": moved, "live, back, live again": self._returned, "with the old engine": stayed}

    async def _reconcile(self) -> None:
        manifest = [{"control_id": one.control_id, "channel": one.channel} for one in self._world.acknowledged()]
        report = await self._client.reconcile(manifest)
        audit = await self._client.verify_audit()
        self._well &= bool(report["clean"] and audit["ok"])
        self._tell(
            f"Reconciled with the vendors' own lists of {many(len(manifest), 'control id')}: {len(report['missing'])}"
            f" missing, {len(report['extra'])} extra, {len(report['doubled'])} doubled;"
            f" {'clean' if report['clean'] else 'NOT CLEAN'}."
        )
        for problem in report["problems"][:5]:
            self._tell(f"    {problem}")
        self._tell(f"The audit record: {many(audit['rows'], 'row')}, {'unbroken' if audit['ok'] else 'BROKEN'}.")

    # -- how it asks

    async def _do(self, verb: str, connections: list[str] | None, reason: str, **more: Any) -> Table | None:
        """A verb; None, and said, where it is refused."""
        try:
            return await self._client.verb(verb, connections, reason, **more)
        except Refused as refused:
            self._well = False
            self._tell(f"{verb} is refused:")
            for sentence in refused.sentences[:10]:
                self._tell(f"    {sentence}")
            return None

    async def _for(self, duration: float, said: Callable[[], Any]) -> None:
        """Let time pass, and say now and then what is seen."""
        end = time.monotonic() + duration
        while (left := end - time.monotonic()) > 0:
            await asyncio.sleep(min(EVERY_S, left))
            self._tell(await said())


def _ways(count: Count) -> str:
    return (
        f"{count.by_target} of their messages came to the endpoints from Interlock, {count.by_legacy} from the old"
        f" engine, {len(count.both)} from both; {len(count.late)} came out of order"
    )


def by_connection(rows: list[Table]) -> dict[str, list[Found]]:
    """The discrepancies of each connection that has any."""
    found: dict[str, list[Found]] = {}
    for row in rows:
        one = Found(row["id"], row["path"], row["kind"], row["severity"], row["count"])
        found.setdefault(row["channel"].rpartition("-")[0], []).append(one)
    return found


def _clinical(found: list[Found]) -> bool:
    return any(one.severity == "clinical" for one in found)

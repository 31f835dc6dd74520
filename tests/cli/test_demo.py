"""The demo: who plays what, what the operator asks, what the story claims, and the processes it starts."""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from engine.api.application import application
from engine.api.token import write_token
from engine.cli.console import Stop
from engine.cli.demo import parts
from engine.cli.demo.operator import SCRAPER, WHO, Operator, Refused, Trouble
from engine.cli.demo.report import Found, fault_table
from engine.cli.demo.roles import SEEDED, cast
from engine.cli.demo.stage import write_site
from engine.cli.demo.story import Pace, Story
from engine.config.address import Address
from engine.config.loading import load_with_notes
from engine.migration.refused import Refused as ServiceRefused
from engine.migration.selection import Selector
from engine.simulate.alterations import FAULTS
from engine.simulate.layout import free_ports, lay_out
from engine.simulate.mischief import CONDUCT, DROPPED, Mischief
from engine.simulate.orders import Orders
from engine.simulate.wire import LOOPBACK
from engine.simulate.world import Plan, World
from tests.simulate.between import Between, turning
from tests.support.told import Told, run


class TestRoles:
    def test_two_of_three_connections_have_an_old_engine_without_faults(self) -> None:
        roles = cast(lay_out(30), 1)
        assert len(roles.faulty) == 10
        assert set(roles.mischief) == {f"{connection}-results" for connection in roles.faulty}

    def test_of_many_connections_each_fault_has_two(self) -> None:
        roles = cast(lay_out(250), 1)
        assert Counter(roles.faulty.values()) == dict.fromkeys(SEEDED, 2)
        assert all(mischief.shares == {roles.faulty[name[:-8]]: 0.35} for name, mischief in roles.mischief.items())

    @pytest.mark.parametrize("fault", sorted(set(SEEDED) - set(CONDUCT)))
    def test_every_fault_has_something_to_spoil_in_most_reports(self, fault: str) -> None:
        orders = Orders("C001")
        reports = [orders.report(number, number, 0) for number in range(1, 101) if orders.stages(number)]
        spoiled = sum(FAULTS[fault](report) != report for report in reports)
        assert spoiled > 0.9 * len(reports)


def test_the_site_is_without_a_mistake(tmp_path: Path) -> None:
    settings = write_site(tmp_path, lay_out(3), Address(LOOPBACK, 8600), Address(LOOPBACK, 8104))
    configuration, notes = load_with_notes(settings)
    assert (len(configuration.channels), notes) == (6, [])
    assert {channel.phase for channel in configuration.channels} == {"legacy"}


class TestOperator:
    """Against the real API, behind which fixed answers stand."""

    @pytest.fixture
    def told(self) -> Told:
        return Told()

    @pytest.fixture
    async def operator(self, told: Told, tmp_path: Path) -> AsyncIterator[Operator]:
        (port,) = free_ports(1)
        write_token(tmp_path / "interlock.db", "secret")
        runner = web.AppRunner(application(told.asked_of, "secret"), access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, LOOPBACK, port).start()
        async with Operator(Address(LOOPBACK, port), tmp_path / "interlock.db") as operator:
            yield operator
        await runner.cleanup()

    async def test_a_verb_says_who_wants_what_and_why(self, operator: Operator, told: Told) -> None:
        await operator.verb("cutover", ["acme"], "the window", timeout_s=30.0)
        (order,) = told.moving.orders
        assert order["selector"] == Selector((), ("acme",), {}, False)
        assert (order["who"], order["reason"], order["dry_run"]) == (WHO, "the window", False)
        assert order["options"] == {"timeout_s": 30.0}

    async def test_every_verb_of_the_story_is_one_that_the_api_takes(self, operator: Operator, told: Told) -> None:
        await operator.verb("parallel", None, "begin")
        await operator.verb("attest", None, "done before", check="rehearsed", for_s=3600.0)
        await operator.verb("rollback", ["acme"], "", dry_run=True)
        assert [order["verb"] for order in told.moving.orders] == ["parallel", "attest", "rollback"]
        assert told.moving.orders[0]["selector"] == Selector((), (), {}, True)

    async def test_a_refusal_comes_with_its_sentences(self, operator: Operator, told: Told) -> None:
        told.moving.refusal = ServiceRefused("acme: an open clinical discrepancy.")
        with pytest.raises(Refused) as refused:
            await operator.verb("cutover", ["acme"], "the window")
        assert refused.value.sentences == ["acme: an open clinical discrepancy."]

    async def test_what_no_operator_expects_is_trouble(self, operator: Operator) -> None:
        with pytest.raises(Trouble, match="HTTP 404"):
            await operator.verb("explode", None, "why not")

    async def test_runs_are_waited_for_until_they_end(self, operator: Operator, told: Told) -> None:
        first = told.moving.goes(run(1), run(1, said="waits"), run(1, state="done"))
        second = told.moving.goes(run(2, state="failed"))
        ended = await operator.ended([first, second])
        assert [one["state"] for one in ended] == ["done", "failed"]
        # the first answer brings nothing new, as when the wait is over
        assert [wait[:2] for wait in told.moving.waits] == [(1, 1), (1, 1), (1, 2)]

    async def test_it_asks_for_evidence_as_the_api_wants_it(self, operator: Operator, told: Told) -> None:
        assert (await operator.gate())[0]["passed"]
        assert (await operator.compare(["acme"]))[0]["matched"] == 400
        assert (await operator.discrepancies())[0]["id"] == 7
        await operator.settle(7, "explained", "a habit")
        assert (await operator.reconcile([{"control_id": "A", "channel": "acme-orders"}]))["clean"]
        assert (await operator.verify_audit())["ok"]
        assert told.evidence.asked[2] == ("discrepancies", (Selector((), (), {}, True), "open", 10_000))
        assert told.evidence.asked[4] == ("reconcile", (Selector((), (), {}, True), [("A", "acme-orders")]))

    async def test_it_scrapes_under_a_name_of_its_own(self, operator: Operator, told: Told) -> None:
        await operator.scrape()
        assert told.scrapes == [SCRAPER]


class Service:
    """A service that does at once what it is told, over a Between that knows two ways."""

    def __init__(self, world: World, between: Between, faulty: dict[str, str]) -> None:
        self.world = world
        self.between = between
        self.faulty = faulty
        self.verbs: list[tuple[str, bool]] = []
        self.blind = False
        self.cheats = False
        self.refuses: str | None = None
        self.settled: list[int] = []
        self.manifest: list[dict[str, Any]] = []

    async def verb(
        self, verb: str, connections: list[str] | None, reason: str, *, dry_run: bool = False, **options: Any
    ) -> dict[str, Any]:
        self.verbs.append((verb, dry_run))
        chosen = list(self.world.partners) if connections is None else connections
        if verb == self.refuses or (verb == "cutover" and set(chosen) & set(self.faulty)):
            raise Refused(f"{verb} may not be.")
        plans = [{"connection": one, "lines": [f"{verb} it"], "refused": []} for one in chosen]
        if dry_run:
            return {"plans": plans, "runs": []}
        for channel in (way.channel for one in chosen for way in self.world.partners[one].link.ways):
            if verb == "cutover":
                self.between.live.add(channel)
            elif verb == "rollback":
                self.between.live.discard(channel)
        runs = [{"id": 1, "connection": one, "state": "done", "said": ""} for one in chosen]
        return {"plans": plans, "runs": runs}

    async def settle(self, discrepancy: int, state: str, reason: str) -> None:
        self.settled.append(discrepancy)

    async def ended(self, runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return runs

    async def gate(self, connections: list[str] | None = None) -> list[dict[str, Any]]:
        return [self._gate(way.channel) for way in self.world.layout.ways]

    def _gate(self, channel: str) -> dict[str, Any]:
        passed = channel.rpartition("-")[0] not in self.faulty
        check = {"title": "no open clinical discrepancy", "outcome": "pass" if passed else "fail"}
        return {"channel": channel, "passed": passed, "checks": [check]}

    async def compare(self, connections: list[str] | None = None) -> list[dict[str, Any]]:
        return [{"matched": 3, "explained": 1, "unexplained": 1, "pending": 0}]

    async def discrepancies(self, connections: list[str] | None = None) -> list[dict[str, Any]]:
        clinical = {seeded.channel for seeded in self.world.old_engine.seeded} if not self.blind else set()
        rows = [row(number, channel, "clinical") for number, channel in enumerate(sorted(clinical), 1)]
        return [*rows, row(99, "clinic-001-results", "cosmetic")]

    async def reconcile(self, manifest: list[dict[str, Any]]) -> dict[str, Any]:
        self.manifest = manifest
        if self.cheats:
            arrivals = self.world.receivers["clinic-001-emr"].arrivals
            arrivals += [replace(one, side=side) for one in arrivals[:1] for side in ("legacy", "target")]
        return {"clean": True, "missing": [], "extra": [], "doubled": [], "problems": []}

    async def verify_audit(self) -> dict[str, Any]:
        return {"ok": True, "rows": 12}


def row(id: int, channel: str, severity: str) -> dict[str, Any]:
    where = {"path": "OBX-6", "kind": "transformation"}
    return {"id": id, "channel": channel, "severity": severity, "count": 2, **where}


FAULTY = {"clinic-002": DROPPED}


@asynccontextmanager
async def telling() -> AsyncIterator[tuple[Story, Service, list[str]]]:
    mischief = {"clinic-002-results": Mischief({DROPPED: 0.5})}
    async with turning(4, Plan(turnaround=(0.0, 0.02), pause=0.02, mischief=mischief)) as (world, between):
        service, said = Service(world, between, FAULTY), list[str]()
        yield Story(world, service, FAULTY, said.append, Pace(1.5, 40.0)), service, said


class TestStory:
    async def test_it_goes_there_and_back_and_there_again_and_counts(self) -> None:
        async with telling() as (story, service, said):
            async with asyncio.timeout(30):
                assert await story.tell() == 0
            acted = [verb for verb, dry_run in service.verbs if not dry_run]
            # the second cutover is the one that must be refused
            wanted = ["parallel", "attest", "attest", "cutover", "cutover", "cutover", "rollback", "cutover"]
            assert acted == wanted
            count = service.world.count()
            assert count.by_legacy > 0 < count.by_target
            assert len(service.manifest) == count.acknowledged
            assert service.settled == [99]
            text = "\n".join(said)
            assert f"{count.acknowledged} messages acknowledged to their senders, 0 lost, 0 sent by both sides" in text
            assert "Every seeded fault was found" in text
            assert said[-1] == "All is well."

    async def test_a_fault_that_is_not_found_is_told(self) -> None:
        async with telling() as (story, service, said):
            service.blind = True
            assert await story.tell() == 1
            assert "NOT FOUND with 1 connection: clinic-002." in said

    async def test_a_message_that_comes_from_both_sides_is_told(self) -> None:
        async with telling() as (story, service, said):
            service.cheats = True
            assert await story.tell() == 1
            assert said[-1].startswith("NOT ALL IS WELL")

    async def test_where_the_first_step_is_refused_it_counts_what_there_is(self) -> None:
        async with telling() as (story, service, said):
            service.refuses = "parallel"
            assert await story.tell() == 1
            assert [verb for verb, _ in service.verbs] == ["parallel"]
            assert "    parallel may not be." in said
            assert service.manifest


def test_the_table_of_faults_says_where_they_were_found() -> None:
    seeded = {"a": ("wrong_unit", 4), "b": ("wrong_unit", 3), "c": (DROPPED, 2)}
    found = {"a": [Found(1, "OBX-6", "transformation", "clinical", 4), Found(2, "OBX-3.2", "x", "cosmetic", 9)]}
    lines = fault_table(seeded, found).splitlines()
    assert lines[1].split() == ["wrong", "unit", "7", "1", "of", "2", "OBX-6", "transformation", "(4)"]
    assert lines[2].split() == ["dropped", "2", "0", "of", "1", "nothing"]


class TestParts:
    async def test_a_part_that_ends_at_once_is_told_with_its_last_words(self, tmp_path: Path) -> None:
        part = parts.Part("the service", [sys.executable, "-c", "print('no port'); exit(3)"], tmp_path / "log")
        with pytest.raises(Stop) as stop:
            await part.start(never)
        assert stop.value.sentence == f"the service ended with status 3: no port (all of it: {tmp_path / 'log'})"

    async def test_a_part_that_runs_is_ended(self, tmp_path: Path) -> None:
        (port,) = free_ports(1)
        command = [sys.executable, "-m", "engine.simulate.old_engine", "--port", str(port)]
        part = parts.Part("an old engine", command, tmp_path / "log")
        await part.start(lambda: parts.listens(Address(LOOPBACK, port)))
        await part.stop()
        assert not await parts.listens(Address(LOOPBACK, port))
        await part.stop()

    def test_a_checkout_has_a_sandbox_or_says_what_it_lacks(self) -> None:
        why_not = parts.why_no_sandbox()
        assert why_not is None or "Node" in why_not or "npm ci" in why_not


async def never() -> bool:
    return False

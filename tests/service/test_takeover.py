"""A port is handed over under live vendors, and given back: who listens, who answers, and what becomes of messages.

The old listener is a process's own in the field; here it is another listener of the test's process, so that the
kernel's tables show it as one of this machine. Vendors come from addresses of their own (127.0.0.2 …).
"""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from engine.config.edge import Directory, Files, Listen
from engine.config.feed import Rule
from engine.hl7.ack import parse_ack
from engine.ledger.sqlite import journal
from engine.migration.refused import Refused
from engine.migration.selection import Group
from engine.migration.verbs.all import VERBS
from engine.migration.verbs.verb import Asked, Plan
from engine.simulate.messages import Messages
from engine.simulate.old_engine import Faults, OldEngine
from tests.support.house import Peer, assert_balances, channel, configuration, emr, fed, feed, port_of, running, until
from tests.support.moving import Operator
from tests.support.ports import free_port

MESSAGES = Messages("oru", seed=11)
A, B = "127.0.0.2", "127.0.0.3"


def ids(*numbers: int) -> list[str]:
    return [MESSAGES.control_id(number) for number in numbers]


class Vendor:
    """Sends from one address, connects again whenever its connection is gone, and counts who said yes to what."""

    def __init__(self, address: str, port: int) -> None:
        self.address, self.port = address, port
        self.acknowledged: Counter[str] = Counter()
        self._peer: Peer | None = None

    async def connect(self) -> Vendor:
        async with asyncio.timeout(20):
            while self._peer is None:
                try:
                    self._peer = await Peer.connect(self.port, address=self.address)
                except OSError:
                    await asyncio.sleep(0.01)  # nobody listens, and nothing announces it
        return self

    async def send(self, *numbers: int) -> None:
        """Until each has a yes."""
        for number in numbers:
            async with asyncio.timeout(20):
                while not await self._exchange(MESSAGES.message(number)):
                    self.close()

    async def _exchange(self, message: bytes) -> bool:
        await self.connect()
        assert self._peer is not None
        try:
            answer = parse_ack(await self._peer.exchange(message, 20))
        except OSError:
            return False
        assert answer is not None
        assert answer.code == "AA"
        self.acknowledged[answer.control_id or ""] += 1
        return True

    async def gone(self) -> None:
        """The other side has closed."""
        assert self._peer is not None
        async with asyncio.timeout(20):
            assert await self._peer.reader.read() == b""
        self.close()

    def close(self) -> None:
        if self._peer is not None:
            self._peer.writer.close()
        self._peer = None


class Site:
    """One connection: an old listener with two vendors, the old engine behind us, and the service."""

    def __init__(self, tmp_path: Path) -> None:
        self.tmp_path = tmp_path
        self.listener = OldEngine(0)
        self.old = OldEngine()
        self.clinic = OldEngine()

    async def __aenter__(self) -> Site:
        for engine in (self.listener, self.old, self.clinic):
            await engine.start()
        self.port = self.listener.port
        self.vendors = [await Vendor(address, self.port).connect() for address in (A, B)]
        self.channel = channel(
            "acme-results", port=self.port, old_engine=self.old.port, phase="outside",
            destinations=(emr(self.clinic.port),), rollback="none",
        )  # fmt: skip
        await self._start()
        return self

    async def _start(self) -> None:
        self._up = running(configuration(self.tmp_path, self.channel))
        self.service = await self._up.__aenter__()
        self.operator = Operator(self.service)

    async def __aexit__(self, *error: Any) -> None:
        for vendor in self.vendors:
            vendor.close()
        await self._up.__aexit__(None, None, None)
        for engine in (self.listener, self.old, self.clinic):
            await engine.stop()

    async def restart(self) -> None:
        await self._up.__aexit__(None, None, None)
        await self._start()

    async def begin(self, verb: str = "takeover", **options: Any) -> int:
        """Start a run; its number."""
        return await self.operator.begin(verb, "acme-results", **options)

    async def taken_over(self) -> None:
        id = await self.begin()
        await self.listener.stop()
        await asyncio.gather(*(vendor.send(n) for n, vendor in enumerate(self.vendors, 1)))
        run = await self.operator.ended(id)
        assert run["state"] == "done", run

    def phase(self) -> str:
        return self.operator.phase("acme-results")

    def said(self, id: int) -> str:
        return self.service.conductor.runs.row(id).said

    def all_is_well(self) -> None:
        """Each message has one yes, from whoever has it, and nobody else has it."""
        for vendor in self.vendors:
            assert set(vendor.acknowledged.values()) <= {1}
        yes = sum((vendor.acknowledged for vendor in self.vendors), Counter())
        assert Counter([*self.listener.control_ids, *self.old.control_ids]) == yes


def is_open(port: int) -> bool:
    """Whether somebody listens; by the kernel, so that nobody is connected to."""
    return f":{port:04X} 00000000:0000 0A" in Path("/proc/net/tcp").read_text()


async def test_the_port_is_ours_when_the_old_listener_is_off_and_done_when_everybody_is_back(tmp_path: Path) -> None:
    async with Site(tmp_path) as site:
        await site.vendors[0].send(1)
        plan = await site.operator.plan("takeover", "acme-results")
        assert plan["counts"] == {"peers": 2}
        said = "watched until each is back and has sent (recorded from this machine): 127.0.0.2 and 127.0.0.3"
        assert any(said in line for line in plan["lines"])
        id = await site.begin()
        assert site.phase() == "legacy"
        await until(lambda: "Address already in use): the old listener has to stop now" in site.said(id))
        await site.vendors[1].send(2)  # the old listener still works
        await site.listener.stop()
        await site.vendors[0].send(3)
        await until(lambda: "back: 127.0.0.2; not seen: 127.0.0.3" in site.said(id))
        await site.vendors[1].gone()
        await site.vendors[1].connect()
        await until(lambda: "back: 127.0.0.2; connected and silent: 127.0.0.3" in site.said(id))
        await site.vendors[1].send(4)
        run = await site.operator.ended(id)
        assert (run["state"], run["said"]) == ("done", "legacy: acme-results from 1; 2 recorded peers back")
        assert site.listener.control_ids == ids(1, 2)
        assert site.old.control_ids == ids(3, 4)
        site.all_is_well()
        await assert_balances(site.service)


async def test_a_port_that_is_the_old_listeners_is_not_down(tmp_path: Path) -> None:
    async with Site(tmp_path) as site:
        assert not site.service.doors.down
        id = await site.begin()
        await until(lambda: "acme-results" in site.service.doors.down)
        await site.listener.stop()
        await site.operator.at_step(id, "watch")
        assert not site.service.doors.down


async def test_the_audit_names_who_took_the_port_and_who_was_there(tmp_path: Path) -> None:
    async with Site(tmp_path) as site:
        await site.taken_over()
        epoch = site.service.ledger.channels["acme-results"].epoch
        assert '"peers": {"acme-results": ["127.0.0.2", "127.0.0.3"]}' in (epoch.evidence or "")
        rows = await site.service.ledger.read(lambda reader: journal.audit(reader.connection, limit=2))
        assert [(row.entry.verb, row.entry.who) for row in rows] == [("takeover done", "ops"), ("takeover", "ops")]
        fact = site.service.conductor.facts["acme-results"]["takeover"]
        assert (fact.value["peers"], fact.value["missing"]) == ([A, B], [])


async def test_who_does_not_come_back_gets_the_old_listener_again(tmp_path: Path) -> None:
    async with Site(tmp_path) as site:
        id = await site.begin(timeout_s=1.0)
        await site.listener.stop()
        await site.vendors[0].send(1, 2, 3)
        run = await site.operator.ended(id)
        assert run["state"] == "failed"
        assert "not seen: 127.0.0.3" in run["said"]
        assert "what came meanwhile (3 messages) goes on to the old engine" in run["said"]
        assert site.phase() == "outside"
        assert not is_open(site.port)
        await site.vendors[0].gone()
        await site.listener.start()
        await site.vendors[0].send(4)
        await site.vendors[1].send(5)
        assert site.old.control_ids == ids(1, 2, 3)
        site.all_is_well()
        await assert_balances(site.service)
        await site.restart()  # and the port stays the old listener's
        assert (site.phase(), site.service.doors.ports["acme-results"].down) == ("outside", "not opened yet")


async def test_what_came_before_a_port_was_given_back_is_delivered_after_it(tmp_path: Path) -> None:
    async with Site(tmp_path) as site:
        await site.old.stop()
        id = await site.begin(timeout_s=1.0)
        await site.listener.stop()
        sending = asyncio.create_task(site.vendors[0].send(1))
        await until(lambda: site.service.ledger.channels["acme-results"].seq > 0)
        await until(lambda: site.phase() == "outside")
        assert (await site.operator.ended(id))["state"] == "failed"
        await site.old.start()
        await until(lambda: site.old.control_ids != [])
        await assert_balances(site.service)
        sending.cancel()


async def test_a_port_is_never_shut_in_mid_message(tmp_path: Path) -> None:
    async with Site(tmp_path) as site:
        site.old.faults = Faults(delay=1.5)
        id = await site.begin(timeout_s=1.0)
        await site.listener.stop()
        await site.vendors[0].send(1)  # longer than the run: it is answered before the port is shut
        run = await site.operator.ended(id)
        assert run["state"] == "failed"
        await until(lambda: site.old.control_ids == ids(1))
        site.all_is_well()


async def test_while_the_old_listener_stays_nothing_changes_and_the_time_passes(tmp_path: Path) -> None:
    async with Site(tmp_path) as site:
        run = await site.operator.run("takeover", "acme-results", timeout_s=0.3)
        assert run["state"] == "failed"
        assert "Address already in use" in run["said"]
        assert site.phase() == "outside"
        await site.vendors[0].send(1)
        assert site.listener.control_ids == ids(1)


@pytest.mark.parametrize("step", ["open", "watch"])
async def test_an_abort_gives_the_port_back(tmp_path: Path, step: str) -> None:
    async with Site(tmp_path) as site:
        id = await site.begin()
        if step == "watch":
            await site.listener.stop()
        await site.operator.at_step(id, step)
        answer = await site.operator.verb("abort", "acme-results")
        assert [run["id"] for run in answer["runs"]] == [id]
        run = await site.operator.ended(id)
        assert (run["state"], site.phase()) == ("aborted", "outside")
        assert run["said"].startswith("aborted by ops; outside: port")
        if step == "watch":
            await site.listener.start()
        await asyncio.gather(*(vendor.send(n) for n, vendor in enumerate(site.vendors, 1)))
        assert sorted(site.listener.control_ids) == sorted(ids(1, 2))


@pytest.mark.parametrize("step", ["open", "watch"])
async def test_a_takeover_goes_on_after_a_restart(tmp_path: Path, step: str) -> None:
    async with Site(tmp_path) as site:
        id = await site.begin()
        if step == "watch":
            await site.listener.stop()
            await site.vendors[0].send(1)
            await until(lambda: "back: 127.0.0.2" in site.said(id))
        else:
            await site.operator.at_step(id, "open")
        await site.restart()
        if step == "open":
            await site.listener.stop()
            await site.vendors[0].send(1)
        await site.vendors[1].send(2)
        run = await site.operator.ended(id)
        assert (run["state"], site.phase()) == ("done", "legacy")
        assert site.old.control_ids == ids(1, 2)
        site.all_is_well()


async def test_giving_back_goes_on_after_a_restart(tmp_path: Path) -> None:
    async with Site(tmp_path) as site:
        id = await site.begin(timeout_s=60.0)
        await site.listener.stop()
        await site.operator.verb("hold", "acme-results")
        aborting = asyncio.create_task(site.operator.verb("abort", "acme-results"))
        await until(lambda: "acme-results is held: release it" in site.said(id))
        await aborting
        assert is_open(site.port)  # no switch passes a freeze
        await site.restart()
        await until(lambda: "acme-results is held: release it" in site.said(id))
        await site.operator.verb("release", "acme-results")
        run = await site.operator.ended(id)
        assert (run["state"], site.phase()) == ("aborted", "outside")
        assert not is_open(site.port)


async def test_a_hold_that_comes_while_a_port_is_being_shut_is_not_passed(tmp_path: Path) -> None:
    async with Site(tmp_path) as site:
        site.old.faults = Faults(delay=1.0)
        id = await site.begin(timeout_s=0.8)
        await site.listener.stop()
        sending = asyncio.create_task(site.vendors[0].send(1))
        await until(lambda: "is being answered" in site.said(id))
        await site.operator.verb("hold", "acme-results")
        await sending  # what was begun is answered all the same
        await until(lambda: "acme-results is held: release it" in site.said(id))
        assert (site.phase(), is_open(site.port)) == ("legacy", False)
        await site.operator.verb("release", "acme-results")
        run = await site.operator.ended(id)
        assert (run["state"], site.phase()) == ("failed", "outside")


async def test_a_port_that_nobody_takes_back_is_ours_again_when_it_is_released(tmp_path: Path) -> None:
    async with Site(tmp_path) as site:
        await site.taken_over()
        id = await site.begin("give-back", watch="127.0.0.1:1", timeout_s=1.0)
        await until(lambda: site.phase() == "outside")
        await site.operator.verb("hold", "acme-results")
        await until(lambda: "our port again, when acme-results is released" in site.said(id))
        assert site.phase() == "outside"
        await site.operator.verb("release", "acme-results")
        run = await site.operator.ended(id)
        assert (run["state"], site.phase(), is_open(site.port)) == ("failed", "legacy", True)


async def test_what_was_planned_before_a_takeover_began_is_not_done_after_it(tmp_path: Path) -> None:
    async with Site(tmp_path) as site:
        id = await site.begin()
        await site.listener.stop()
        conductor, asked = site.service.conductor, Asked("ops", "a test", "test")
        plan = Plan(Group("acme", (site.channel,)))
        with pytest.raises(Refused, match=f"belongs to run {id}, which goes on"):
            await VERBS["drain"].act(conductor, plan, asked)
        done = await VERBS["parallel"].act(conductor, plan, asked)
        assert "is being moved; nothing is changed" in done.said[0]
        assert site.phase() == "legacy"


async def test_a_defect_gives_the_port_back(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    async with Site(tmp_path) as site:
        id = await site.begin()
        with mock.patch.object(site.service.moves, "seen", side_effect=ZeroDivisionError):
            await site.listener.stop()
            run = await site.operator.ended(id)
        assert (run["state"], site.phase(), is_open(site.port)) == ("failed", "outside", False)
        assert run["said"].startswith("a defect of the product; outside: port")
        assert "ZeroDivisionError" in capfd.readouterr().err


async def test_a_port_that_cannot_be_given_back_stays_ours(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    async with Site(tmp_path) as site:
        id = await site.begin(timeout_s=1.0)
        await site.listener.stop()
        await site.operator.at_step(id, "watch")
        with mock.patch.object(site.service.conductor.switching, "prepared", side_effect=ZeroDivisionError):
            run = await site.operator.ended(id)
        assert (run["state"], site.phase(), is_open(site.port)) == ("failed", "legacy", True)
        assert run["said"] == "a defect of the product ended it; it stays as it is"


async def test_nothing_else_moves_a_connection_whose_port_is_being_handed_over(tmp_path: Path) -> None:
    async with Site(tmp_path) as site:
        id = await site.begin()
        await site.listener.stop()
        for verb in ("parallel", "drain", "give-back", "cutover"):
            with pytest.raises(Refused, match=f"belongs to run {id}"):
                await site.operator.verb(verb, "acme-results")
        assert "already" in (await site.operator.verb("takeover", "acme-results"))["said"][0]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({}, "who is to come back.*no old listener is on this machine: --peers ADDRESS"),
        ({"peers": ["10.0.0"]}, "'10.0.0' is no IP address"),
        ({"peers": ["acme-order=10.0.0.1"]}, "there is no channel or feed 'acme-order'"),
        ({"peers": ["10.0.0.1"]}, "allow: does not let 10.0.0.1 in"),
    ],
)
async def test_who_should_come_back_must_be_known(tmp_path: Path, options: dict[str, Any], sentence: str) -> None:
    made = channel("acme-results", old_engine=free_port(), phase="outside")
    assert isinstance(made.source, Listen)
    made = replace(made, source=replace(made.source, allow=("127.0.0.0/8",)))
    async with running(configuration(tmp_path, made)) as service:
        with pytest.raises(Refused, match=sentence):
            await Operator(service).verb("takeover", "acme-results", **options)
        assert Operator(service).phase("acme-results") == "outside"


async def test_where_nobody_is_expected_the_port_is_all(tmp_path: Path) -> None:
    made = channel("acme-results", old_engine=free_port(), phase="outside")
    async with running(configuration(tmp_path, made)) as service:
        run = await Operator(service).run("takeover", "acme-results", peers=["none"])
        assert run["state"] == "done"
        assert "nobody was expected, and nothing was watched" in run["said"]


async def test_a_channel_that_has_no_old_engine_is_not_taken_over(tmp_path: Path) -> None:
    bare = replace(channel("acme-orders", phase="outside"), legacy=None)
    async with running(configuration(tmp_path, bare)) as service:
        with pytest.raises(Refused) as refused:
            await Operator(service).verb("takeover", "acme-orders", peers=["none"])
        assert refused.value.sentences == (
            "acme-orders has no legacy: there is no old engine that its messages could be passed on to",
        )


# -- give-back


async def test_the_old_listener_gets_its_port_and_its_peers_back(tmp_path: Path) -> None:
    async with Site(tmp_path) as site:
        await site.taken_over()
        plan = await site.operator.plan("give-back", "acme-results")
        assert any("connected now: 127.0.0.2 and 127.0.0.3" in line for line in plan["lines"])
        id = await site.begin("give-back")
        for vendor in site.vendors:
            await vendor.gone()
        await until(lambda: "of this machine: start the old listener now" in site.said(id))
        assert site.phase() == "outside"
        await site.listener.start()
        await until(lambda: "not back at the old listener: 127.0.0.2, 127.0.0.3" in site.said(id))
        await asyncio.gather(*(vendor.send(n) for n, vendor in enumerate(site.vendors, 3)))
        run = await site.operator.ended(id)
        assert (run["state"], run["said"]) == (
            "done", "outside: acme-results from 3; 2 recorded peers back at the old listener",
        )  # fmt: skip
        site.all_is_well()


async def test_a_port_that_nobody_takes_back_is_ours_again(tmp_path: Path) -> None:
    async with Site(tmp_path) as site:
        await site.taken_over()
        run = await site.operator.run("give-back", "acme-results", timeout_s=1.0)
        assert run["state"] == "failed"
        assert run["said"].endswith("ours again")
        assert site.phase() == "legacy"
        for vendor in site.vendors:
            vendor.close()
        await asyncio.gather(*(vendor.send(n) for n, vendor in enumerate(site.vendors, 3)))
        assert sorted(site.old.control_ids) == sorted(ids(1, 2, 3, 4))
        site.all_is_well()
        await assert_balances(site.service)


async def test_a_give_back_is_aborted_and_goes_on_after_a_restart(tmp_path: Path) -> None:
    async with Site(tmp_path) as site:
        await site.taken_over()
        id = await site.begin("give-back", watch="127.0.0.1:1")
        await until(lambda: "nobody answers at 127.0.0.1:1" in site.said(id))
        await site.restart()
        assert site.phase() == "outside"
        await until(lambda: "nobody answers at 127.0.0.1:1" in site.said(id))
        await site.operator.verb("abort", "acme-results")
        run = await site.operator.ended(id)
        assert (run["state"], site.phase()) == ("aborted", "legacy")
        assert is_open(site.port)


async def test_what_cannot_be_watched_is_said(tmp_path: Path, old_engine: OldEngine) -> None:
    made = channel("acme-results", old_engine=free_port())
    port = port_of(made)
    async with running(configuration(tmp_path, made)) as service:
        operator = Operator(service)
        vendor = await Vendor(A, port).connect()
        await until(lambda: service.moves.seen(made) != {})
        run = await operator.run("give-back", "acme-results", watch=f"127.0.0.1:{old_engine.port}")
        assert run["state"] == "done"
        assert f"not watched: whether the peers came back to the old listener at port {port} ({A})" in run["said"]
        vendor.close()


# -- feeds and files


BOTH = ("acme-results", "beta-results")


async def test_the_channels_of_a_feed_are_taken_over_together(tmp_path: Path, old_engine: OldEngine) -> None:
    rules = tuple(Rule((("MSH-6", (name,)),), (name,)) for name in BOTH)
    lab = feed("lab", *BOTH, old_engine=old_engine.port, rules=rules)
    channels = [fed(name, lab, phase="outside") for name in BOTH]
    async with running(configuration(tmp_path, *channels, feeds=(lab,))) as service:
        operator = Operator(service)
        with pytest.raises(Refused, match="move them together, with --connection beta"):
            await operator.verb("takeover", "acme-results", peers=["none"])
        started = await operator.verb("takeover", *BOTH, peers=[f"lab={A}"])
        assert [run["connection"] for run in started["runs"]] == ["acme, beta"]
        vendor = Vendor(A, port_of(lab))
        await vendor.send(1)
        assert (await operator.ended(started["runs"][0]["id"]))["state"] == "done"
        assert {operator.phase(name) for name in BOTH} == {"legacy"}
        with pytest.raises(Refused, match="also carries beta-results, which is legacy"):
            await operator.verb("give-back", "acme-results")
        vendor.close()


async def test_a_folder_is_taken_over_when_it_can_be_read(tmp_path: Path, old_engine: OldEngine) -> None:
    folder = tmp_path / "in"
    source = Files(Directory(folder), poll=0.05, stable=0.05)
    made = channel("acme-orders", source=source, old_engine=old_engine.port, phase="outside")
    async with running(configuration(tmp_path, made)) as service:
        operator = Operator(service)
        plan = await operator.plan("takeover", "acme-orders")
        assert any("its old reader has to be off" in line for line in plan["lines"])
        id = await operator.begin("takeover", "acme-orders")
        await until(lambda: "the old reader has to stop now" in service.conductor.runs.row(id).said)
        folder.mkdir()
        run = await operator.ended(id)
        assert (run["state"], operator.phase("acme-orders")) == ("done", "legacy")
        (folder / "one.hl7").write_bytes(MESSAGES.message(1))
        await until(lambda: old_engine.control_ids == ids(1))
        run = await operator.run("give-back", "acme-orders")
        assert (run["state"], operator.phase("acme-orders")) == ("done", "outside")
        (folder / "two.hl7").write_bytes(MESSAGES.message(2))
        again = await operator.run("takeover", "acme-orders")
        assert again["state"] == "done"
        await until(lambda: old_engine.control_ids == ids(1, 2))


async def test_a_channel_whose_frames_are_copied_does_not_go_live_without_the_others(tmp_path: Path) -> None:
    lab = feed("lab", *BOTH, old_engine=free_port(), rules=(Rule((("MSH-6", ("both",)),), BOTH),))
    acme, beta = (fed(name, lab, phase="parallel", destinations=(emr(free_port()),), rollback="none") for name in BOTH)
    async with running(configuration(tmp_path, acme, beta, feeds=(lab,))) as service:
        refused = (await Operator(service).plan("cutover", "acme-results"))["refused"]
        assert any("copies its frames to beta-results as well" in sentence for sentence in refused)
    together = replace(beta, connection="acme")
    async with running(configuration(tmp_path, acme, together, feeds=(lab,))) as service:
        refused = (await Operator(service).plan("cutover", "acme-results"))["refused"]
        assert not any("copies its frames" in sentence for sentence in refused)

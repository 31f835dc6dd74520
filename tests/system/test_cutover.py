"""Connections move and come back under load, on real processes, and the service is killed in the middle of it.

What is claimed is counted at the endpoints: everything that a vendor has an acknowledgement for is at its receiver, and
no message was sent by both sides. The service's own books must say the same: the equation, the rebuilt totals, the
reconciliation with the vendors' lists, and the audit chain.

A message is a sequence here, not a vendor's number: see `tests.support.accounts`. A vendor whose connection was cut
before its answer sends the message again, and that is another message. What is stated for all sequences:

* one that the old engine has taken came from the old engine, one that our receipt calls delivered came from us, and
  from nowhere else; one of which both is true was given back by a rollback under guard, and came once;
* more copies than sequences come of kills alone, and from the same side: what was on its way then is sent again, since
  nobody knows whether it was taken. A kill meets one message a channel on our way out; on the way through the old
  engine it meets one at our end (which makes it work twice) and one at the tap (repeated with the same number, which
  is no copy);
* one that nobody sent stands in the books as such: superseded by a rollback that replays nothing, or, of unknown fate
  when a rollback began, left to a person.
"""

from __future__ import annotations

import asyncio
import re
import sqlite3
import time
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import pytest

from engine.ledger.sqlite.reader import Reader
from tests.support.accounts import Account, accounts, extras
from tests.support.crossing import Crossing, crossing

POLICIES = ("guarded", "undelivered", "none")
QUICK, SLOW = "200ms", "3s"
"""How long taps have to be quiet: every second connection is through its cutover while the others still wait."""

DAMMED = 3
"""Messages that wait behind one whose answer is owed."""

NEVER = ("ledger_unbalanced", "fault", "row_failed", "relay_late")
"""Events that no kill excuses."""


@dataclass(frozen=True, slots=True)
class Size:
    """rate: orders a second of each connection. back: connections that are rolled back. within: seconds for any one
    thing to happen."""

    connections: int
    rate: float
    back: int
    within: float

    @property
    def some(self) -> int:
        """Messages of each channel between one step and the next: those of about a second, and two at least."""
        return max(2, round(self.rate))


async def crossed(folder: Path, size: Size, *, seed: int) -> None:
    """All cut over, killed, resumed; some rolled back, killed, resumed, and cut over again; then everything counted."""
    slow = lambda place: SLOW if place % 2 else QUICK  # noqa: E731
    async with crossing(folder, size.connections, settle=slow, seed=seed) as site:
        site.world.rate = size.rate
        await site.flows(size.some, size.within)
        await site.moved("parallel", site.connections, "parallel")
        await site.waive()
        await site.flows(size.some, size.within)
        await cut_over_and_kill(site, size)
        await site.flows(size.some, size.within)
        policies = await roll_back_and_kill(site, size)
        await site.flows(size.some, size.within)
        await site.cut_over([connection for some in policies.values() for connection in some])
        assert await site.in_phase("live") == site.connections
        await site.flows(size.some, size.within)
        await site.drained(size.within)
        await assert_reconciled(site)
        assert site.interlock.stop() == 0
        assert site.logged(*NEVER) == []
        assert_counted(site, policies)


async def cut_over_and_kill(site: Crossing, size: Size) -> None:
    """One order for all; the service dies when some are live and others still drain. What it had begun it finishes."""
    runs = await site.order("cutover", None)
    assert len(runs) == size.connections

    async def between() -> list[str]:
        return await site.in_phase("live")

    live = await site.until(between, size.within, "a connection is live")
    await site.killed_and_started()
    assert set(live) <= set(await site.in_phase("live"))  # what was live stays so
    left = [run["id"] for run in runs if run["connection"] not in live]
    assert left, "all were live before the kill: nothing was in the middle"
    await no_runs(site, size)
    if rest := [one for one in site.connections if one not in await site.in_phase("live")]:
        await site.cut_over(rest)


async def roll_back_and_kill(site: Crossing, size: Size) -> dict[str, list[str]]:
    """Some go back, by each policy; the service dies while one clinic of each policy owes an answer, with messages
    behind that one which have not been sent. So all three have to decide about work that is open."""
    some = site.connections[: size.back]
    policies = {policy: some[at :: len(POLICIES)] for at, policy in enumerate(POLICIES)}
    stuck = some[: len(POLICIES)]
    await asyncio.gather(*(dam_up(site, connection, size) for connection in stuck))
    runs = [run for policy, each in policies.items() for run in await site.order("rollback", each, replay=policy)]
    assert len(runs) == size.back

    async def the_others_are_back() -> bool:
        return set(some) - set(stuck) <= set(await site.in_phase("parallel"))

    await site.until(the_others_are_back, size.within, "connections with nothing open are back")
    assert set(stuck) <= set(await site.in_phase("live"))
    await site.killed_and_started()
    for connection in stuck:
        site.world.receivers[f"{connection}-emr"].resume()
    await no_runs(site, size)
    assert set(some) <= set(await site.in_phase("parallel"))
    return policies


async def dam_up(site: Crossing, connection: str, size: Size) -> None:
    """Have its clinic owe an answer, and reports wait behind that, acknowledged to the laboratory."""
    partner, clinic = site.world.partners[connection], site.world.receivers[f"{connection}-emr"]
    reports = partner.report
    clinic.pause()
    arrived = len(clinic.arrivals)
    for _ in range(3 * DAMMED):  # before the owed answer is given up, whatever the rate is
        partner.order()
    await site.world.until(lambda: len(clinic.arrivals) > arrived, size.within)
    taken = len(reports.acknowledged)
    await site.world.until(lambda: len(reports.acknowledged) >= taken + DAMMED, size.within)


async def no_runs(site: Crossing, size: Size) -> None:
    """Until no run goes on any more, and no barrier is left behind."""

    async def ended() -> bool:
        return not await site.active()

    await site.until(ended, size.within, "the runs that a kill interrupted have ended")
    channels = (await site.get("/api/v1/status"))["channels"]
    assert [channel["id"] for channel in channels if channel["run"] is not None] == []


# -- counting


async def assert_reconciled(site: Crossing) -> None:
    """The service's own books, against the vendors' lists."""
    acknowledged = site.world.acknowledged()
    again = {one.control_id for one in acknowledged if one.tries > 1}
    async with site.operator() as operator:
        report = await operator.reconcile(
            [{"control_id": one.control_id, "channel": one.channel} for one in acknowledged]
        )
        audit = await operator.verify_audit()
        status = await operator.status()
    assert all(row["balanced"] for row in report["equation"])
    assert (report["missing"], report["extra"]) == ([], [])
    assert {item["control_id"] for item in report["doubled"]} <= again
    assert [problem for problem in report["problems"] if "for a person to decide" not in problem] == []
    assert (audit["ok"], audit["problems"], status["balanced"]) == (True, [], True)


def assert_counted(site: Crossing, policies: dict[str, list[str]]) -> None:
    """The endpoints, the ledger, and the vendors' acknowledgements."""
    with closing(Reader(site.interlock.ledger)) as reader:
        assert reader.rebuilt() == []
    letters = {f"{link.code}{way.direction[0].upper()}": way.channel for link in site.layout.links for way in link.ways}
    found = accounts(site.interlock.ledger, site.world.arrivals(), letters)
    count = site.world.count()
    assert [sentence for account in found for sentence in account.wrong()] == []
    assert (count.unknown, count.late) == (0, ())
    assert_nothing_lost(site, found, {f"{one}-{way}" for one in policies["none"] for way in ("orders", "results")})
    repeated = {account.control_id for account in found if len(account.sequences) > 1}
    assert set(count.both) <= repeated
    assert repeated <= {one.control_id for one in site.world.acknowledged() if one.tries > 1}
    too_many = {where: number for where, number in extras(found).items() if number > site.kills}
    assert too_many == {}


def assert_nothing_lost(site: Crossing, found: list[Account], unreplayed: set[str]) -> None:
    """What was acknowledged and is nowhere is named: superseded by a rollback that was told to replay nothing, which
    has said how many these are."""
    by_nobody = {
        account.control_id: account for account in found
        if all(one.by_nobody or one.repeats for one in account.sequences)
    }  # fmt: skip
    assert set(site.world.count().lost) <= set(by_nobody)
    assert {account.channel for account in by_nobody.values()} <= unreplayed
    told = sum(int(number) for said in rollbacks(site.interlock.ledger) for number in re.findall(NOBODY, said))
    every = [one for account in found for one in account.sequences]
    left = [one for one in every if one.for_a_person]
    assert len(left) == len(POLICIES)  # the one of each dam that was on its way when the service died
    undecided = sum(one.channel in unreplayed for one in left)  # nobody sends these either, until a person does
    assert DAMMED <= sum(one.by_nobody for one in every) in (told, told - undecided)


NOBODY = r"(\d+) are sent by nobody"


def rollbacks(ledger: Path) -> list[str]:
    """What each rollback said at its end."""
    with closing(sqlite3.connect(ledger)) as connection:
        return [said for (said,) in connection.execute("select said from run where verb = 'rollback'")]


@pytest.mark.system
async def test_eight_connections_cross_over_kills_and_nothing_is_lost_or_sent_by_both(tmp_path: Path) -> None:
    await crossed(tmp_path, Size(8, rate=8.0, back=6, within=60), seed=1)


@pytest.mark.soak
@pytest.mark.system
async def test_forty_connections_cross_over_kills(tmp_path: Path) -> None:
    # ten connections share a laboratory, which takes one message in 30 ms: more than 3 a second each would dam up there
    await crossed(tmp_path, Size(40, rate=2.0, back=12, within=180), seed=2)


@pytest.mark.soak
@pytest.mark.system
async def test_two_hundred_and_fifty_connections_cross_over_kills(tmp_path: Path) -> None:
    await crossed(tmp_path, Size(250, rate=0.2, back=12, within=400), seed=3)


# -- the vendors' side


RATE = 5.0  # orders a second of each connection; the reports on them are more
SETTLE = 0.3  # seconds
MOST_ANSWER = 1.0  # seconds that a vendor may wait for an acknowledgement
MOST_IDLE = 2.0  # seconds from barrier to release where nothing is on the way, besides the settle time


async def there_and_back(folder: Path, connections: int, *, within: float) -> None:
    """Cut over and rolled back under load, as the vendors saw it; then the same with nobody sending."""
    async with crossing(folder, connections, settle=lambda place: f"{SETTLE * 1000:.0f}ms") as site:
        site.world.rate = RATE
        await site.flows(10, within)
        await site.moved("parallel", site.connections, "parallel")
        await site.waive()
        await site.flows(10, within)
        began = time.time()
        await site.moved("cutover", site.connections, "live")
        await site.flows(10, within)
        await site.moved("rollback", site.connections, "parallel")
        await site.flows(10, within)
        assert (site.world.drops(), site.world.negative()) == (0, 0)
        assert site.world.slowest(began) < MOST_ANSWER
        await site.drained(within)
        there = held_back(await site.moved("cutover", site.connections, "live"))
        back = held_back(await site.moved("rollback", site.connections, "parallel"))
        assert max(there) < MOST_IDLE + SETTLE
        assert max(back) < MOST_IDLE
        count = site.world.count()
        assert (count.lost, count.both, count.repeated, count.late) == ((), (), (), ())
        assert site.interlock.stop() == 0
        assert site.logged(*NEVER) == []


def held_back(runs: list[dict[str, str]]) -> list[float]:
    """Seconds from barrier to release: the run's own times, which stand in the transactions that set and lift it."""
    moment = datetime.fromisoformat
    return [(moment(run["ended"]) - moment(run["started"])).total_seconds() for run in runs]


@pytest.mark.system
async def test_vendors_notice_no_cutover_and_no_rollback(tmp_path: Path) -> None:
    await there_and_back(tmp_path, 4, within=60)


@pytest.mark.soak
@pytest.mark.system
async def test_vendors_of_forty_channels_notice_no_cutover_and_no_rollback(tmp_path: Path) -> None:
    await there_and_back(tmp_path, 20, within=120)

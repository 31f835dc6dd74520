"""Rules of engine.simulate.world: the life of orders and results, by both ways."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.simulate.counting import count
from engine.simulate.journal import rows
from engine.simulate.mischief import DOUBLED, DROPPED, Mischief
from engine.simulate.outbox import Acknowledged
from engine.simulate.receiver import Arrival
from engine.simulate.world import ACKNOWLEDGED, ARRIVED, FORWARDED, Plan
from tests.simulate.between import turning

QUICK = {"turnaround": (0.0, 0.02), "pause": 0.02}


async def test_an_order_is_reported_on_in_all_its_stages() -> None:
    async with turning(2) as (world, _):
        partner = world.partners["clinic-001"]
        for _ in range(20):
            partner.order()
        found = await world.finish(20)
        stages = sum(len(partner.orders.stages(number)) for number in range(1, 21))
        assert (partner.placed, partner.reported) == (20, stages)
        assert found.clean
        assert (found.acknowledged, found.arrived, found.by_legacy) == (20 + stages, 20 + stages, 20 + stages)
        assert (found.late, found.repeated, found.doubled, found.unknown) == ((), (), (), 0)
        assert len(world.receivers["clinic-001-emr"].arrivals) == stages
        assert world.receivers["clinic-002-emr"].arrivals == []


async def test_clinics_send_at_their_rate_until_it_is_nought() -> None:
    async with turning(3) as (world, _):
        world.rate = 50.0
        await world.until(lambda: min(partner.placed for partner in world.partners.values()) >= 5, 10)
        found = await world.finish(20)
        placed = sum(partner.placed for partner in world.partners.values())
        assert found.clean
        assert found.acknowledged > placed
        assert (world.drops(), world.negative()) == (0, 0)
        assert 0 < world.slowest() < 5


async def test_the_direct_way_is_seen_as_the_other_side() -> None:
    async with turning(2) as (world, between):
        between.live.update(way.channel for way in world.layout.links[0].ways)
        for partner in world.partners.values():
            partner.order()
        await world.finish(20)
        assert world.count(["clinic-001"]).by_legacy == 0
        assert world.count(["clinic-001"]).by_target > 0
        assert world.count(["clinic-002"]).by_target == 0
        assert world.count().clean


async def test_seeded_faults_are_told_and_do_not_pass_for_losses() -> None:
    spoiled = {"clinic-001-orders": Mischief({DROPPED: 0.3}), "clinic-001-results": Mischief({DOUBLED: 0.3})}
    async with turning(1, Plan(mischief=spoiled, **QUICK)) as (world, _):  # type: ignore[arg-type]
        for _ in range(40):
            world.partners["clinic-001"].order()
        found = await world.finish(20)
        assert found.clean
        assert len(found.dropped) == world.old_engine.faults()[DROPPED] > 0
        assert len(found.doubled) == world.old_engine.faults()[DOUBLED] > 0


async def test_a_loss_is_seen() -> None:
    async with turning(1) as (world, between):
        between.live.add("clinic-001-orders")
        world.partners["clinic-001"].order()
        await world.finish(20)
        world.receivers["lab-1"].arrivals.clear()
        assert world.count().lost == ("C001O00000001",)


async def test_what_does_not_settle_is_named() -> None:
    async with turning(1) as (world, _):
        world.old_engine.pause()
        world.partners["clinic-001"].order()
        await world.until(lambda: world.old_engine.queue_length() == 1, 5)
        with pytest.raises(TimeoutError, match="0 senders, 0 laboratory, 1 old engine"):
            await world.finish(0.05)


async def test_when_the_middle_is_killed_nothing_acknowledged_is_lost_by_the_ends() -> None:
    async with turning(2) as (world, between):
        world.rate = 50.0
        await world.until(lambda: len(world.arrivals()) >= 20, 10)
        await between.stop()
        await between.start()
        kept = len(world.arrivals())
        await world.until(lambda: len(world.arrivals()) >= kept + 20, 10)
        assert (await world.finish(20)).lost == ()
        assert world.drops() > 0


async def test_the_journals_count_as_the_world_does(tmp_path: Path) -> None:
    async with turning(2, folder=tmp_path) as (world, _):
        for partner in world.partners.values():
            partner.order()
            partner.order()
        found = await world.finish(20)
    told = [Acknowledged(**row) for row in rows(tmp_path / ACKNOWLEDGED)]
    arrived = [Arrival(**row) for row in rows(tmp_path / ARRIVED)]
    again = count(told, arrived)
    assert (again.acknowledged, again.arrived, again.clean) == (found.acknowledged, found.arrived, True)
    assert {row["control_id"] for row in rows(tmp_path / FORWARDED)} == {one.control_id for one in told}

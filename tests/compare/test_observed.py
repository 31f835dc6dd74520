"""An old engine in front of us: it had each input before we did, and nobody tells us what it said to it."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.config.model import Shape
from engine.simulate.alterations import FAULTS, own_stamps
from engine.simulate.messages import Messages
from tests.compare.bench import SECOND, Bench, channel, observed, running
from tests.compare.test_shapes import shaped

VENDOR = Messages(seed=12)
RAW = [VENDOR.message(number) for number in range(6)]


async def outputs_of_all_but_the_last(bench: Bench) -> None:
    """One that is the same, one that differs; the last is lost."""
    for raw, sent in zip(RAW, (own_stamps(RAW[0]), FAULTS["wrong_unit"](own_stamps(RAW[1])), None), strict=False):
        (seq,) = await bench.store(raw)
        await bench.settle(seq)
        bench.now += SECOND
        if sent is not None:
            assert await bench.send(sent) == seq
    await bench.wait(61)


async def assert_told(bench: Bench) -> None:
    compared = await bench.compared()
    assert (compared.matched, compared.unexplained, compared.not_comparable, compared.pending_late) == (1, 2, 0, 0)
    found = {row[:2] for row in await bench.found()}
    assert found == {("OBX-6.1", "transformation"), ("message", "missing_in_legacy")}
    await bench.assert_counted()


@pytest.mark.parametrize("shape", ["1:1", "1:n"])
async def test_its_outputs_are_compared_as_those_of_one_behind_us(tmp_path: Path, shape: Shape) -> None:
    for made in (channel(), observed()):
        async with running(tmp_path / str(made.observed), shaped(shape, legacy=made.legacy)) as bench:
            await outputs_of_all_but_the_last(bench)
            await assert_told(bench)


async def test_what_has_no_verdict_yet_gets_it_after_a_restart(tmp_path: Path) -> None:
    async with running(tmp_path, observed()) as bench:
        for raw in RAW[:2]:
            (seq,) = await bench.store(raw)
            await bench.settle(seq)
        bench.now += SECOND
        assert await bench.send(own_stamps(RAW[0])) == 1
    async with running(tmp_path, observed(), bench.now) as bench:
        assert await bench.send(own_stamps(RAW[1])) == 2
        assert (await bench.compared()).matched == 2


async def test_one_that_was_behind_us_before_is_in_front_from_its_epoch_on(tmp_path: Path) -> None:
    async with running(tmp_path, channel()) as bench:
        await bench.both(RAW[5], own_stamps(RAW[5]))
        assert (await bench.compared()).matched == 1
    async with running(tmp_path, channel(), bench.now) as bench:
        bench.channel = observed()
        await bench.switch("outside")
        await bench.switch("parallel")
        bench.comparer.moved()
        await outputs_of_all_but_the_last(bench)
        assert (await bench.compared()).matched == 2
        found = {row[:2] for row in await bench.found()}
        assert found == {("OBX-6.1", "transformation"), ("message", "missing_in_legacy")}

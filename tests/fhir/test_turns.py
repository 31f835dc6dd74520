"""Whoever works on the same key waits; a cancelled wait holds nothing."""

from __future__ import annotations

import asyncio

import pytest

from engine.fhir.turns import Turns

A, B = ("a",), ("b",)


async def test_the_same_key_waits_and_another_does_not() -> None:
    turns, said = Turns(), []
    first, second = asyncio.Event(), asyncio.Event()

    async def hold(name: str, keys: list[tuple[str, ...]], until: asyncio.Event) -> None:
        async with turns.take(keys):
            said.append(name)
            await until.wait()

    async with asyncio.TaskGroup() as group:
        group.create_task(hold("first", [A], first))
        group.create_task(hold("same", [B, A, A], second))
        group.create_task(hold("other", [("c",)], second))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert said == ["first", "other"]
        first.set()
        second.set()
    assert said == ["first", "other", "same"]
    assert len(turns) == 0


async def test_keys_in_any_order_never_wait_in_a_circle() -> None:
    turns = Turns()

    async def hold(keys: list[tuple[str, ...]]) -> None:
        for _ in range(20):
            async with turns.take(keys):
                await asyncio.sleep(0)

    await asyncio.wait_for(asyncio.gather(hold([A, B]), hold([B, A])), 5)


async def test_a_cancelled_wait_leaves_nothing_behind() -> None:
    turns = Turns()
    async with turns.take([A]):
        waiting = asyncio.create_task(turns.take([B, A]).__aenter__())
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
    assert len(turns) == 0

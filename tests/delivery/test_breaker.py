"""The breaker: three troubles in a row open it, one message at a time asks, an answer of any kind closes it."""

from __future__ import annotations

import asyncio
from itertools import pairwise

import pytest

from engine.delivery import breaker as module
from engine.delivery.breaker import Breaker, Position
from engine.ledger.outcome import Outcome, Result

DOWN = Outcome(Result.NOT_TAKEN, "connection refused", trouble=True)
FAULT = Outcome(Result.FAULT, "403")
FINE = Outcome(Result.DELIVERED)
NEVER = Outcome(Result.NEVER, "422")


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FIRST_WAIT", 0.01)


@pytest.fixture
def breaker(quick: None) -> Breaker:
    return Breaker("medplum")


async def test_three_troubles_in_a_row_open_it_and_its_listeners_hear(breaker: Breaker):
    heard: list[bool] = []
    breaker.listeners.append(heard.append)
    for outcome in (DOWN, DOWN, NEVER, DOWN, DOWN):
        breaker.heard(outcome)
    assert not breaker.open
    breaker.heard(DOWN)
    assert breaker.open
    assert heard == [True]
    breaker.stop()


@pytest.mark.parametrize("outcome", [FAULT, Outcome(Result.NOT_TAKEN, "429", after=0.05, trouble=True)])
async def test_a_fault_or_a_wish_to_wait_opens_it_at_once(breaker: Breaker, outcome: Outcome):
    breaker.heard(outcome)
    assert breaker.open
    breaker.stop()


async def test_one_message_asks_and_when_it_gets_through_the_others_follow(breaker: Breaker):
    breaker.heard(FAULT)
    asked: list[str] = []
    began = asyncio.Event()

    def attempt(name: str) -> bool:
        asked.append(name)
        began.set()
        return True

    for name in "abc":
        breaker.enqueue(lambda name=name: attempt(name))
    await began.wait()
    await asyncio.sleep(0.05)
    assert asked == ["a"]
    assert breaker.position is Position.PROBING
    breaker.heard(FINE)
    assert asked == ["a", "b", "c"]
    assert not breaker.open


async def test_while_the_trial_fails_it_stays_open_and_waits_longer(breaker: Breaker):
    breaker.heard(FAULT)
    loop = asyncio.get_running_loop()
    times: list[float] = []
    done = asyncio.Event()

    def attempt() -> bool:
        times.append(loop.time())
        if len(times) == 4:
            done.set()
            return True
        breaker.enqueue(attempt)
        loop.call_soon(breaker.heard, DOWN)
        return True

    breaker.enqueue(attempt)
    await asyncio.wait_for(done.wait(), 5)
    gaps = [later - earlier for earlier, later in pairwise(times)]
    assert gaps == sorted(gaps)
    breaker.stop()


async def test_a_trial_that_no_longer_exists_makes_room_for_the_next(breaker: Breaker):
    breaker.heard(FAULT)
    began = asyncio.Event()
    breaker.enqueue(lambda: False)
    breaker.enqueue(lambda: began.set() or True)
    await asyncio.wait_for(began.wait(), 2)
    breaker.trial_gone()
    assert not breaker.open


async def test_with_nobody_waiting_it_closes_and_the_next_trouble_opens_it_again(breaker: Breaker):
    breaker.heard(FAULT)
    closed = asyncio.Event()
    breaker.listeners.append(lambda opened: None if opened else closed.set())
    await asyncio.wait_for(closed.wait(), 2)
    breaker.heard(DOWN)
    assert breaker.open
    breaker.stop()


async def test_it_says_when_the_endpoint_is_asked_again():
    breaker = Breaker("medplum")
    assert breaker.asks_in is None
    breaker.heard(FAULT)
    assert breaker.asks_in == pytest.approx(module.FIRST_WAIT, abs=0.1)
    breaker.enqueue(lambda: True)
    breaker._probe()
    assert breaker.asks_in is None, "it is being asked"
    breaker.stop()

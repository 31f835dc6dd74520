"""Whenever the process ends, the verdicts are the same as if it had not."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest

from engine.ledger.model import Message, State
from engine.ledger.sqlite import comparisons
from engine.simulate.alterations import FAULTS, HABITS, own_stamps
from tests.compare.bench import Bench, channel, running
from tests.compare.test_correlate import report

Step = Callable[[Bench], Awaitable[Any]]


def story(seed: int) -> list[Step]:
    """Forty reports of ten accessions: some outputs lost, sent twice, altered, late, overtaken; some of ours late."""
    random = Random(seed)
    steps: list[Step] = []
    waiting: list[tuple[int, bytes, bool]] = []
    for seq in range(1, 41):
        raw = report(random.choice("ABCDEFGHIJ"), str(seq), who=random.choice(("1001", "1002", "1003")))
        fate, late = random.random(), random.random() < 0.2
        steps += [_store(raw), _settle(seq, late and fate > 0.1)]
        if fate > 0.1:
            waiting.append((seq, FAULTS["wrong_flag"](raw) if fate > 0.9 else raw, late))
        while len(waiting) > 3:
            steps.append(_send(*waiting.pop(random.randrange(2)), twice=random.random() < 0.1))
        if random.random() < 0.2:
            steps.append(_wait(random.choice((1, 40))))
    steps += [_send(*one, twice=False) for one in waiting]
    return [*steps, _wait(61), _wait(10)]


def _store(raw: bytes) -> Step:
    return lambda bench: bench.store(raw)


def _settle(seq: int, late: bool) -> Step:
    return lambda bench: bench.settle(seq, ours=None if late else State.CAPTURED)


def _wait(seconds: float) -> Step:
    return lambda bench: bench.wait(seconds)


def _send(seq: int, raw: bytes, late: bool, twice: bool) -> Step:
    async def step(bench: Bench) -> None:
        bench.now += 1000
        for _ in range(1 + twice):
            assert await bench.send(own_stamps(HABITS["padding"](raw))) == seq
        if late:
            await bench.settle(seq, legacy=None)

    return step


async def told(folder: Path, steps: list[Step], cuts: set[int]) -> Any:
    """What the comparison has come to. cuts: before which steps the process ends and another one begins."""
    left, now, messages = list(enumerate(steps)), 1_000_000_000_000, {}
    while True:
        async with running(folder, channel(), now) as bench:
            bench.messages = {seq: _again(bench, message) for seq, message in messages.items()}
            while left:
                number, step = left.pop(0)
                await step(bench)
                if number in cuts:
                    break
            if not left:
                await bench.assert_counted()
                words = await bench.ledger.read(
                    lambda reader, id=bench.book.id: comparisons.judged(reader.connection, id, "emr", 0)
                )
                return await bench.compared(), sorted(await bench.found()), words
            now, messages = bench.now, bench.messages


def _again(bench: Bench, message: Message) -> Message:
    """A message as the next process has it."""
    other = Message(bench.book, message.raw, message.received, message.control_id)
    other.id, other.seq = message.id, message.seq
    return other


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


@pytest.mark.parametrize("seed", range(4))
async def test_the_verdicts_do_not_depend_on_when_the_process_ended(tmp_path: Path, seed: int) -> None:
    steps = story(seed)
    plain = await told(_made(tmp_path / "plain"), steps, set())
    assert plain[0].matched == 0
    assert plain[0].open_missing >= 1
    random = Random(seed + 100)
    for count in (1, 1, 2, 6):
        cuts = set(random.sample(range(len(steps) - 1), count))
        cut = await told(_made(tmp_path / f"cut at {sorted(cuts)}"), steps, cuts)
        assert cut == plain, f"cut after steps {sorted(cuts)}"

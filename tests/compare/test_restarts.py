"""Whenever the process ends, the verdicts are the same as if it had not."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest

from engine.config.model import Shape
from engine.ledger.model import Message, State
from engine.ledger.sqlite import comparisons
from engine.simulate.alterations import FAULTS, HABITS, own_stamps
from tests.compare.bench import Bench, channel, running
from tests.compare.test_correlate import report
from tests.compare.test_shapes import shaped

Step = Callable[[Bench], Awaitable[Any]]


def story(seed: int, file: bool = False) -> list[Step]:
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
            steps += _send(*waiting.pop(random.randrange(2)), twice=random.random() < 0.1, file=file)
        if random.random() < 0.2:
            steps.append(_wait(random.choice((1, 40))))
    for one in waiting:
        steps += _send(*one, twice=False, file=file)
    return [*steps, _wait(61), _wait(10)]


def _store(raw: bytes) -> Step:
    return lambda bench: bench.store(raw)


def _settle(seq: int, late: bool) -> Step:
    return lambda bench: bench.settle(seq, ours=None if late else State.CAPTURED)


def _wait(seconds: float) -> Step:
    return lambda bench: bench.wait(seconds)


def _send(seq: int, raw: bytes, late: bool, twice: bool, file: bool) -> list[Step]:
    """Twice within one process, where what comes again after it ended may be a repetition; a file is none."""

    async def send(bench: Bench) -> None:
        bench.now += 1000
        assert await bench.send(own_stamps(HABITS["padding"](raw)), file=file) == seq

    async def step(bench: Bench) -> None:
        for _ in range(1 + (twice and not file)):
            await send(bench)
        if late:
            await bench.settle(seq, legacy=None)

    return [send, step] if twice and file else [step]


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


@pytest.mark.parametrize(("seed", "file"), [(0, False), (1, False), (2, False), (3, False), (4, True), (5, True)])
async def test_the_verdicts_do_not_depend_on_when_the_process_ended(tmp_path: Path, seed: int, file: bool) -> None:
    steps = story(seed, file)
    plain = await told(_made(tmp_path / "plain"), steps, set())
    assert plain[0].matched == 0
    assert plain[0].open_missing >= 1
    random = Random(seed + 100)
    for count in (1, 1, 2, 6):
        cuts = set(random.sample(range(len(steps) - 1), count))
        cut = await told(_made(tmp_path / f"cut at {sorted(cuts)}"), steps, cuts)
        assert cut == plain, f"cut after steps {sorted(cuts)}"


# -- what came as a file is surely taken: what comes again is no repetition of it


@pytest.mark.parametrize("shape", ["1:1", "1:n"])
async def test_a_second_file_that_was_not_told_when_the_process_ended_is_found_once(
    tmp_path: Path, shape: Shape
) -> None:
    async with running(tmp_path, shaped(shape)) as bench:
        await bench.both(report("A"), file=True)
        await bench.comparer.flush()
        await bench.comparer.stop()
        await bench.send(report("A"), file=True)  # stored, and its finding is not
        later = bench.now
    for _ in range(2):
        async with running(tmp_path, shaped(shape), later) as bench:
            assert [(path, count) for path, _, _, _, count in await bench.found()] == [("message-twice", 1)]


@pytest.mark.parametrize("shape", ["1:1", "1:n"])
async def test_a_second_file_is_one_too_many_although_the_first_came_before_a_restart(
    tmp_path: Path, shape: Shape
) -> None:
    async with running(tmp_path, shaped(shape)) as bench:
        seq = await bench.both(report("A"), file=True)
        await bench.comparer.flush()
        later = bench.now
    async with running(tmp_path, shaped(shape), later) as bench:
        assert await bench.send(report("A"), file=True) == seq
        assert [(path, count) for path, _, _, _, count in await bench.found()] == [("message-twice", 1)]


async def test_another_file_is_another_output_although_the_first_came_before_a_restart(tmp_path: Path) -> None:
    async with running(tmp_path, channel()) as bench:
        seq = await bench.both(report("A", "1"), file=True)
        await bench.comparer.flush()
        later = bench.now
    for count in (1, 2):
        async with running(tmp_path, channel(), later) as bench:
            assert await bench.send(report("A", "7"), file=True) == seq
            assert [(path, count) for path, _, _, _, count in await bench.found()] == [("message", count)]

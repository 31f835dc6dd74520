"""Inputs of which we make several outputs: each stands beside the old engine's, and none goes unseen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.compare import comparer
from engine.compare.keys import Keys, body
from engine.compare.pairs import pair
from engine.compare.showing import Showing
from engine.config.model import Compare, Shape
from tests.compare.bench import SECOND, Bench, running
from tests.compare.test_correlate import report
from tests.compare.test_shapes import shaped

KEYS = Keys.of(Compare(), "results")
INPUT = report("A", "0")
ONE, TWO, THREE, FOUR = (report("A", value) for value in "1234")
OURS = [ONE, TWO, THREE]
MORE_OF_OURS = ("message-more", "missing_in_legacy", "clinical", "open", 1)
MORE_OF_THEIRS = ("message-more", "missing_in_target", "clinical", "open", 1)


async def store(bench: Bench, *outputs: bytes, parts: tuple[int, ...] = ()) -> int:
    """An input that the old engine takes, and of which we make these."""
    (seq,) = await bench.store(INPUT)
    await bench.settle(seq, outputs=outputs, parts=parts)
    bench.now += SECOND
    return seq


async def come(bench: Bench, seq: int, *outputs: bytes) -> None:
    for raw in outputs:
        bench.now += SECOND
        assert await bench.send(raw) == seq


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 2, 0)])
async def test_what_both_sides_split_alike_matches_in_whatever_order_it_comes(
    tmp_path: Path, order: tuple[int, ...]
) -> None:
    async with running(tmp_path, shaped("1:n")) as bench:
        await come(bench, await store(bench, *OURS), *(OURS[at] for at in order))
        assert await bench.found() == []
        assert (await bench.compared()).matched == 1
        await bench.assert_counted()


async def test_each_part_is_compared_and_a_fault_in_a_later_one_is_seen(tmp_path: Path) -> None:
    async with running(tmp_path, shaped("1:n")) as bench:
        await come(bench, await store(bench, ONE, TWO), ONE, FOUR)
        assert await bench.found() == [("OBX-5", "transformation", "clinical", "open", 1)]
        assert (await bench.compared()).unexplained == 1
        await bench.assert_counted()
        (row,) = await bench.rows()
        shown = await bench.ledger.read(lambda reader: Showing(reader, bench.channel, bench.book).examples(row))
        assert [(one.legacy, one.target) for one in shown] == [("41", "21")]


async def test_a_part_that_the_old_engine_does_not_make_is_waited_for_and_then_seen(tmp_path: Path) -> None:
    async with running(tmp_path, shaped("1:n")) as bench:
        await come(bench, await store(bench, *OURS), ONE, THREE)
        await bench.wait(30)
        assert (await bench.found(), bench.comparer.counts()["emr"].pending) == ([], 1)
        await bench.wait(31)
        assert await bench.found() == [MORE_OF_OURS]
        compared = await bench.compared()
        assert (compared.unexplained, compared.pending_late, compared.open_missing) == (1, 0, 1)
        await bench.assert_counted()


@pytest.mark.parametrize("soon", [False, True])
async def test_a_part_that_we_do_not_make_is_seen_and_the_others_match(tmp_path: Path, soon: bool) -> None:
    async with running(tmp_path, shaped("1:n")) as bench:
        seq = await store(bench, ONE, THREE)
        await come(bench, seq, ONE, THREE)
        if not soon:
            await bench.comparer.flush()
        await come(bench, seq, TWO)
        assert await bench.found() == [MORE_OF_THEIRS]
        assert (await bench.compared()).matched == 1
        await bench.assert_counted()


@pytest.mark.parametrize("shape", ["1:1", "0..1"])
async def test_where_one_is_due_and_we_make_several_that_is_seen_at_once(tmp_path: Path, shape: Shape) -> None:
    async with running(tmp_path, shaped(shape)) as bench:
        await come(bench, await store(bench, *OURS), TWO)
        assert await bench.found() == [MORE_OF_OURS]
        assert (await bench.compared()).unexplained == 1
        await bench.assert_counted()


async def test_nothing_of_what_we_split_is_missed_piecemeal_where_the_old_engine_makes_nothing(tmp_path: Path) -> None:
    async with running(tmp_path, shaped("1:n")) as bench:
        await store(bench, *OURS)
        await bench.wait(61)
        assert await bench.found() == [("message", "missing_in_legacy", "clinical", "open", 1)]


@pytest.mark.parametrize("shape", ["1:1", "1:n"])
async def test_there_is_no_verdict_before_the_last_of_our_parts(tmp_path: Path, shape: Shape) -> None:
    async with running(tmp_path, shaped(shape)) as bench:
        seq = await store(bench, ONE, TWO, parts=(1,))
        await come(bench, seq, *([ONE, TWO] if shape == "1:n" else [ONE]))
        await bench.wait(3)
        assert bench.comparer.counts()["emr"].pending == 1
        await bench.settle(seq, legacy=None, outputs=(ONE, TWO), parts=(2,))
        assert await bench.found() == ([] if shape == "1:n" else [MORE_OF_OURS])
        assert bench.comparer.counts()["emr"].pending == 0


async def test_a_part_that_is_repeated_is_no_other_part(tmp_path: Path) -> None:
    async with running(tmp_path, shaped("1:n")) as bench:
        await come(bench, await store(bench, ONE, TWO), ONE, ONE)
        await bench.wait(10)
        assert bench.comparer.counts()["emr"].pending == 1
        assert [path for path, *_ in await bench.found()] == ["message-twice"]


@pytest.mark.parametrize("judged", [False, True])
@pytest.mark.parametrize("before", range(4))
async def test_a_restart_changes_nothing_wherever_it_comes(tmp_path: Path, before: int, judged: bool) -> None:
    """Before, between and behind the outputs of the old engine; with and without the last verdict."""
    theirs = [ONE, THREE, TWO]
    async with running(tmp_path, shaped("1:n")) as bench:
        seq = await store(bench, *OURS)
        await come(bench, seq, *theirs[: before if judged else 0])
        if judged:
            await bench.comparer.flush()
        else:
            await bench.comparer.stop()  # these are stored, and nobody hears of it
            await come(bench, seq, *theirs[:before])
        later = bench.now
    async with running(tmp_path, shaped("1:n"), later) as bench:
        await come(bench, seq, *theirs[before:])
        assert await bench.found() == []
        assert (await bench.compared()).matched == 1
        later = bench.now
    async with running(tmp_path, shaped("1:n"), later) as bench:
        assert await bench.found() == []
        await come(bench, seq, FOUR)
        assert await bench.found() == [MORE_OF_THEIRS]
        await bench.assert_counted()


@pytest.mark.parametrize("asked", ["target", "legacy"])
async def test_a_part_that_comes_while_the_others_are_compared_is_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: str
) -> None:
    """The comparer reads what it has not in memory: ours, then theirs."""
    monkeypatch.setattr(comparer, "HELD_BYTES", 0)
    async with running(tmp_path, shaped("1:n")) as bench:
        seq = await store(bench, ONE, THREE)
        await come(bench, seq, ONE, THREE)
        read = getattr(bench.comparer._kept, asked)

        async def slowly(*what: Any) -> Any:
            found = await read(*what)
            monkeypatch.setattr(bench.comparer._kept, asked, read)
            await come(bench, seq, TWO)
            return found

        monkeypatch.setattr(bench.comparer._kept, asked, slowly)
        assert await bench.found() == [MORE_OF_THEIRS]
        assert (await bench.compared()).matched == 1
        await bench.assert_counted()


async def test_an_output_that_comes_just_as_it_is_missed_is_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(tmp_path, shaped("1:1")) as bench:
        seq = await store(bench, ONE)
        taken = bench.comparer._kept.taken

        async def slowly(id: int) -> bool:
            found = await taken(id)
            await come(bench, seq, ONE)
            return found

        monkeypatch.setattr(bench.comparer._kept, "taken", slowly)
        await bench.wait(61)
        assert await bench.found() == []
        assert (await bench.compared()).matched == 1
        await bench.assert_counted()


@pytest.mark.parametrize("came", [False, True])
async def test_what_is_to_have_no_verdict_any_more_gets_none_though_it_is_being_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, came: bool
) -> None:
    """A rollback to where nothing is compared, while the ledger is asked for our output."""
    monkeypatch.setattr(comparer, "HELD_BYTES", 0)
    async with running(tmp_path, shaped("1:1")) as bench:
        seq = await store(bench, ONE)
        if came:
            await come(bench, seq, FOUR)
        target = bench.comparer._kept.target

        async def slowly(*what: Any) -> Any:
            found = await target(*what)
            (case,) = bench.comparer._sides["emr"].pending.values()
            bench.comparer._drop(bench.comparer._sides["emr"], case)
            return found

        monkeypatch.setattr(bench.comparer._kept, "target", slowly)
        await bench.wait(61)
        assert await bench.found() == []
        assert (await bench.compared()).unexplained == 0


async def test_a_restart_between_our_parts_waits_for_the_last_one(tmp_path: Path) -> None:
    async with running(tmp_path, shaped("1:n")) as bench:
        seq = await store(bench, ONE, TWO, parts=(1,))
        await come(bench, seq, ONE, TWO)
        later = bench.now
    async with running(tmp_path, shaped("1:n"), later) as bench:
        await bench.wait(3)
        assert bench.comparer.counts()["emr"].pending == 1
        course = bench.book.course("emr")
        assert course is not None
        assert [work.part for work in course.open.values()] == [2]


async def test_what_is_captured_is_read_back_as_it_was_made(tmp_path: Path) -> None:
    async with running(tmp_path, shaped("1:1")) as bench:
        (seq,) = await bench.store(INPUT)
        await bench.settle(seq, outputs=(ONE,))
        later = bench.now
    async with running(tmp_path, shaped("1:1"), later) as bench:
        await come(bench, seq, ONE)
        assert await bench.found() == []
        assert (await bench.compared()).matched == 1


async def test_what_an_earlier_version_kept_uncompressed_is_read_as_well(tmp_path: Path) -> None:
    async with running(tmp_path, shaped("1:1")) as bench:
        seq = await store(bench, TWO)
        await bench.ledger.transaction(lambda book: None, (("update captured set output = ?", (ONE,)),))
        later = bench.now
    async with running(tmp_path, shaped("1:1"), later) as bench:
        await come(bench, seq, ONE)
        assert (await bench.compared()).matched == 1


TEXTS = st.lists(st.sampled_from("abcdef"), max_size=6)


@given(theirs=TEXTS, ours=TEXTS)
def test_every_output_has_one_place_and_those_that_say_the_same_are_beside_each_other(
    theirs: list[str], ours: list[str]
) -> None:
    def message(text: str, engine: str) -> bytes:
        return f"MSH|^~\\&|{engine}\rOBR|1|P|{'K' if text < 'd' else 'L'}|T\rNTE|1|L|{text}\r".encode()

    legacy, target = [message(one, "OLD") for one in theirs], [message(one, "NEW") for one in ours]
    found = pair(legacy, target, KEYS.read)
    assert sorted([*(one for one, _ in found.both), *found.legacy]) == list(range(len(legacy)))
    assert sorted([*(other for _, other in found.both), *found.target]) == list(range(len(target)))
    assert not (found.legacy and found.target)
    if len(legacy) != 1 or len(target) != 1:
        equal = sum(body(legacy[one]) == body(target[other]) for one, other in found.both)
        assert equal == sum(min(theirs.count(text), ours.count(text)) for text in set(theirs))

"""The shapes of a tap: how many outputs an input may have, and what belongs to it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.compare.correlate import Correlator
from engine.compare.keys import Keys
from engine.compare.slots import Input
from engine.config.edge import FromFeed
from engine.config.model import Channel, Compare, Shape
from engine.ledger.model import State
from engine.simulate.alterations import own_stamps
from engine.simulate.messages import Messages
from tests.compare.bench import SECOND, channel, running
from tests.compare.test_correlate import report

KEYS = Keys.of(Compare(), "results")
RAW = [Messages(seed=12).message(number) for number in range(6)]


def shaped(shape: Shape, **changes: Any) -> Channel:
    made = channel(**changes)
    assert made.legacy is not None
    return replace(made, legacy=replace(made.legacy, taps=(replace(made.legacy.taps[0], shape=shape),)))


def further(raw: bytes, note: str = "a copy for the archive") -> bytes:
    """Another output of the same input: its key, and something of its own."""
    return own_stamps(raw) + f"NTE|1|L|{note}\r".encode()


# -- a model of the rules, and random histories


class Model:
    """Attribution as the rules say it, where nothing but keys, order and repetition tells anything apart.

    1:1, 0..1: the oldest that waits; else the oldest that was given up; else the one that was served last.
    1:n: the same among those after the newest one that has an output, which the old engine has; else that newest one.
    The same bytes once more go where they went before, unless an equal input waits.
    """

    def __init__(self, shape: Shape) -> None:
        self.several = shape == "1:n"
        self.key: dict[int, str] = {}
        self.text: dict[int, str] = {}
        self.waits: list[int] = []
        self.left: list[int] = []  # served or given up, in that order
        self.bodies: dict[int, list[str]] = {}

    def store(self, seq: int, key: str, text: str) -> None:
        self.key[seq], self.text[seq], self.bodies[seq] = key, text, []
        self.waits.append(seq)

    def give_up(self) -> None:
        self.left += self.waits
        self.waits = []

    def send(self, key: str, body: str, reached: int) -> int | None:
        found = self._find(key, body, reached)
        if found is None:
            return None
        if found in self.waits:
            self.waits.remove(found)
            self.left.append(found)
        if self.several or not self.bodies[found]:
            self.bodies[found].append(body)
        return found

    def _find(self, key: str, body: str, reached: int) -> int | None:
        every = [seq for seq in self.waits if self.key[seq] == key]
        waits = [seq for seq in every if seq <= reached] if self.several else every
        left = [seq for seq in self.left if self.key[seq] == key]
        again = next((seq for seq in reversed(left) if body in self.bodies[seq]), None)
        if again is not None:
            return next((seq for seq in waits if self.text[seq] == self.text[again]), again)
        late = [seq for seq in left if not self.bodies[seq]]
        newest = max((seq for seq in left if self.bodies[seq]), default=0)
        if self.several and (waits or late or newest):
            after = [seq for seq in waits if seq > newest] or [seq for seq in late if seq > newest]
            if after or newest:
                return after[0] if after else newest
        return next(iter(every + late), left[-1] if left else None)


def message(key: str, text: str, values: str) -> bytes:
    """An input or output of a key. text: one letter, which no likeness sees; values: what only one of them has."""
    lines = "".join(f"OBX|{at}|NM|{values}{at}^Of {values} {at}||{text}\r" for at in range(1, 6))
    return f"MSH|^~\\&|L|L|E|E|1||ORU^R01|9|P|2.5\rPID|1\rOBR|1|P|{key}|51990-0\r{lines}".encode()


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("store"), st.sampled_from("KL"), st.sampled_from("ab")),
        st.tuples(st.just("send"), st.sampled_from("KL"), st.integers(0, 5)),  # a number: which of those before again
        st.tuples(st.just("reach"), st.just(""), st.integers(1, 3)),
        st.tuples(st.just("give up"), st.just(""), st.just(0)),
    ),
    max_size=40,
)


@pytest.mark.parametrize("shape", ["1:1", "0..1", "1:n"])
def test_attribution_is_what_the_rules_say(shape: Shape) -> None:
    @settings(max_examples=300, deadline=None)
    @given(STEPS)
    def any_history(steps: list[tuple[str, str, Any]]) -> None:
        follow(shape, steps)

    any_history()


def follow(shape: Shape, steps: list[tuple[str, str, Any]]) -> None:
    reached = now = seq = 0
    model, correlator = Model(shape), Correlator(60.0, shape=shape, reached=lambda input: input.seq <= reached)
    sent: dict[str, list[str]] = {"K": [], "L": []}
    gone = 0
    for number, (what, key, value) in enumerate(steps):
        now += SECOND
        if what == "store":
            seq += 1
            raw = message(key, value, f"input of {key}")
            correlator.expect(Input(seq, seq, now, KEYS.read(raw), b"", None, raw))
            model.store(seq, key, value)
        elif what == "reach":
            reached = min(seq, reached + value)
        elif what == "send":
            before = sent[key]
            body = before[-value] if 0 < value <= len(before) else f"output {number}"
            before.append(body)
            raw = message(key, "z", body)
            slot = correlator.attribute(raw, KEYS.read(raw), now, None)
            assert (slot.input.seq if slot else None) == model.send(key, body, reached), (number, steps)
        elif gone < 1:  # later, the first of them would be forgotten
            gone += 1
            now += 61 * SECOND
            assert [slot.input.seq for slot in correlator.expired(now)] == model.waits
            model.give_up()


# -- one or more


class Sequence:
    """A correlator of the shape 1:n; `reached`: the inputs that the old engine has."""

    def __init__(self) -> None:
        self.reached = 99
        self.now = 1000 * SECOND
        self.correlator = Correlator(60.0, shape="1:n", reached=lambda input: input.seq <= self.reached)

    def store(self, seq: int, raw: bytes, expected: bool = True) -> None:
        self.now += SECOND
        input = Input(seq, seq, self.now, KEYS.read(raw), b"", f"C{seq}", raw, int(expected))
        if expected:
            self.correlator.expect(input)
        else:
            self.correlator.await_any(input, most=10)

    def send(self, raw: bytes) -> int | None:
        self.now += SECOND
        self.correlator.expired(self.now)
        slot = self.correlator.attribute(own_stamps(raw), KEYS.read(raw), self.now, None)
        return slot.input.seq if slot else None


def test_a_further_output_belongs_to_the_newest_that_has_one() -> None:
    one = Sequence()
    one.store(1, report("A", "1"))
    assert [one.send(report("A", value)) for value in "123"] == [1, 1, 1]
    one.store(2, report("A", "4"))
    assert [one.send(report("A", value)) for value in "45"] == [2, 2]


def test_a_further_output_is_not_given_to_what_the_old_engine_has_not_got_yet() -> None:
    """What comes between our sending one and its answer is of that one: the next is sent only after."""
    one = Sequence()
    one.store(1, report("A", "1"))
    one.store(2, report("A", "2"))
    one.reached = 1
    assert [one.send(report("A", value)) for value in "17"] == [1, 1]
    one.reached = 2
    assert one.send(report("A", "2")) == 2


def test_a_further_output_moves_no_later_one() -> None:
    """The old engine has both already: what is clearly of the first is not the second's."""
    one = Sequence()
    one.store(1, report("A", "1"))
    one.store(2, report("A", "2"))
    assert [one.send(further(report("A", value), value)) for value in "1112"] == [1, 1, 1, 2]
    assert one.send(further(report("A", "1"), "once more")) == 1


def test_further_outputs_of_one_whose_bytes_are_let_go_move_no_later_one() -> None:
    one = Sequence()
    one.store(1, report("A", "1"))
    slot = one.correlator.slot(1)
    assert slot is not None
    assert one.send(report("A", "1")) == 1
    slot.input.lighten()
    one.store(2, report("A", "2"))
    assert one.send(further(report("A", "1"))) == 1
    assert one.send(report("A", "2")) == 2


def test_several_inputs_that_are_alike_are_served_in_order_though_each_may_have_more() -> None:
    one = Sequence()
    for seq in (1, 2, 3):
        one.store(seq, report("A"))
    outputs = [further(report("A"), f"output {at}") for at in range(4)]
    assert [one.send(raw) for raw in outputs] == [1, 2, 3, 3]


def test_a_repeated_further_output_finds_its_input_although_a_newer_one_waits() -> None:
    one = Sequence()
    one.store(1, report("A", "1"))
    copy = report("A", "7")
    assert [one.send(report("A", "1")), one.send(copy)] == [1, 1]
    one.store(2, report("A", "2"))
    assert [one.send(copy), one.send(report("A", "2"))] == [1, 2]


def test_an_input_that_is_not_missed_is_known_as_long_as_any_other() -> None:
    """As one of a live channel that the old engine gets as well: what is made of it again is no stranger's."""
    one = Sequence()
    one.store(1, report("A", "1"), expected=False)
    assert one.send(report("A", "1")) == 1
    one.now += 30 * SECOND
    assert one.send(report("A", "7")) == 1


async def test_the_first_is_compared_and_each_further_one_is_a_discrepancy_of_its_own(tmp_path: Path) -> None:
    async with running(tmp_path, shaped("1:n")) as bench:
        for raw in RAW[:2]:
            seq = await bench.both(raw, own_stamps(raw))
            assert await bench.send(further(raw)) == seq
            assert await bench.send(further(raw, "and another")) == seq
        await bench.both(RAW[2])
        assert (await bench.compared()).matched == 3
        assert await bench.found() == [("message-more", "missing_in_target", "clinical", "open", 4)]
        await bench.assert_counted()


async def test_where_one_output_is_due_another_one_is_as_before(tmp_path: Path) -> None:
    async with running(tmp_path, shaped("1:1")) as bench:
        seq = await bench.both(RAW[0])
        assert await bench.send(further(RAW[0])) == seq
        assert await bench.found() == [("message", "missing_in_target", "clinical", "open", 1)]


async def test_a_further_output_that_is_repeated_is_told_once_while_it_was_not_answered(tmp_path: Path) -> None:
    async with running(tmp_path, shaped("1:n")) as bench:
        seq, more = await bench.both(RAW[0]), further(RAW[0])
        for number, answered in ((90, False), (91, False), (92, True)):
            assert bench.comparer.attribute("emr", more, bench.now) == seq
            bench.comparer.tapped("emr", number, more, bench.now, seq, answered=answered)
        assert [(path, count) for path, _, _, _, count in await bench.found()] == [("message-more", 1)]
        bench.comparer.tapped("emr", 93, more, bench.now, seq)
        assert [(path, count) for path, _, _, _, count in sorted(await bench.found())] == [
            ("message-more", 1), ("message-twice", 1),
        ]  # fmt: skip


async def test_in_live_what_comes_of_an_input_before_the_cut_is_not_given_to_one_after_it(tmp_path: Path) -> None:
    async with running(tmp_path, shaped("1:n")) as bench:
        seq = await bench.both(report("A", "1"))
        await bench.switch("live")
        (live,) = await bench.store(report("A", "2"))
        assert live == seq + 1
        assert await bench.send(report("A", "7")) == seq


async def test_inputs_of_one_moment_are_no_copies_of_each_other(tmp_path: Path) -> None:
    async with running(tmp_path, shaped("1:n")) as bench:
        (seq,) = await bench.store(report("A", "1"))
        await bench.settle(seq)
        await bench.send(report("A", "1"))
        await bench.switch("live")
        await bench.store(report("A", "2"))
        assert await bench.send(report("A", "7")) == seq


async def test_what_was_deferred_is_not_reached_although_the_old_engine_gets_later_ones_again(tmp_path: Path) -> None:
    async with running(tmp_path, shaped("1:n")) as bench:
        seq = await bench.both(report("A", "1"))
        await bench.switch("live")
        await bench.store(report("A", "2"))
        await bench.switch("parallel")
        bench.comparer.moved()
        (later,) = await bench.store(report("B", "3"))
        await bench.settle(later, ours=None)
        assert await bench.send(report("A", "7")) == seq


@pytest.mark.parametrize("again", [False, True])
async def test_in_live_what_a_feed_copies_nowhere_is_not_given_what_comes_of_an_input_before_the_cut(
    tmp_path: Path, again: bool
) -> None:
    made = shaped("1:n", source=FromFeed("lis"))
    async with running(tmp_path, made) as bench:
        seq = await bench.both(report("A", "1"))
        await bench.switch("live")
        await bench.store(report("A", "2"))
        await bench.fed(report("B", "3"), ours=False)
        later = bench.now
        if not again:
            assert await bench.send(report("A", "7")) == seq
    if again:
        async with running(tmp_path, made, later) as bench:
            assert await bench.send(report("A", "7")) == seq


@pytest.mark.parametrize("shape", ["1:1", "1:n"])
async def test_what_a_feed_copies_to_the_old_engine_in_live_is_known_after_a_restart(
    tmp_path: Path, shape: Shape
) -> None:
    """It has these inputs by another channel's path: their outputs are ours to hold back, not a stranger's."""
    made = shaped(shape, source=FromFeed("lis"))
    async with running(tmp_path, made) as bench:
        before = await bench.both(report("A", "1"))
        await bench.switch("live")
        first, second, third = [await bench.fed(report(name, value)) for name, value in ("A2", "B3", "A4")]
        assert await bench.send(report("A", "2")) == first == before + 1
        later = bench.now
    async with running(tmp_path, made, later) as bench:
        assert await bench.send(report("B", "3")) == second
        assert await bench.send(report("A", "4")) == third
        assert await bench.send(report("A", "7")) == third
        assert await bench.found() == []


@pytest.mark.parametrize("again", [False, True])
async def test_what_a_feed_copies_waits_for_the_path_that_takes_it_to_the_old_engine(
    tmp_path: Path, again: bool
) -> None:
    made = shaped("1:n", source=FromFeed("lis"))
    async with running(tmp_path, made) as bench:
        before = await bench.both(report("A", "1"))
        await bench.switch("live")
        copied = await bench.fed(report("A", "2"), claimed=False)
        assert await bench.send(report("A", "7")) == before
        if not again:
            await bench.claim()
            assert await bench.send(report("A", "2")) == copied
        later = bench.now
    if again:
        async with running(tmp_path, made, later) as bench:
            assert await bench.send(report("A", "8")) == before
            await bench.claim()
            assert await bench.send(report("A", "2")) == copied


async def test_after_a_restart_further_outputs_belong_where_they_did(tmp_path: Path) -> None:
    async with running(tmp_path, shaped("1:n")) as bench:
        seq = await bench.both(report("A", "1"))
        await bench.send(report("A", "7"))
        assert [(path, count) for path, _, _, _, count in await bench.found()] == [("message-more", 1)]
        later = bench.now
    async with running(tmp_path, shaped("1:n"), later) as bench:
        await bench.switch("live")
        await bench.store(report("A", "2"))
        assert await bench.send(report("A", "7")) == seq  # it may not have been answered
        assert [(path, count) for path, _, _, _, count in await bench.found()] == [("message-more", 1)]
        assert await bench.send(report("A", "9")) == seq
        assert [(path, count) for path, _, _, _, count in await bench.found()] == [("message-more", 2)]
        await bench.assert_counted()


async def test_a_further_output_that_was_not_told_when_the_process_ended_is_found_once(tmp_path: Path) -> None:
    async with running(tmp_path, shaped("1:n")) as bench:
        await bench.both(report("A", "1"))
        await bench.comparer.flush()
        await bench.comparer.stop()
        await bench.send(report("A", "8"))  # stored, and its finding is not
        later = bench.now
    for _ in range(2):
        async with running(tmp_path, shaped("1:n"), later) as bench:
            assert [(path, count) for path, _, _, _, count in await bench.found()] == [("message-more", 1)]


# -- none or one


async def test_what_the_old_engine_keeps_back_and_we_send_is_a_discrepancy(tmp_path: Path) -> None:
    async with running(tmp_path, shaped("0..1")) as bench:
        (seq,) = await bench.store(RAW[0])
        await bench.settle(seq)
        await bench.wait(70)
        assert await bench.found() == [("message", "missing_in_legacy", "clinical", "open", 1)]
        compared = await bench.compared()
        assert (compared.unexplained, compared.pending_late) == (1, 0)
        await bench.both(RAW[1])
        assert (await bench.compared()).matched == 1


@pytest.mark.parametrize(("shape", "matched"), [("1:1", 0), ("1:n", 0), ("0..1", 1)])
async def test_what_both_keep_back_has_matched_only_where_there_may_be_none(
    tmp_path: Path, shape: Shape, matched: int
) -> None:
    async with running(tmp_path, shaped(shape)) as bench:
        (seq,) = await bench.store(RAW[0])
        await bench.settle(seq, ours=State.FILTERED)
        await bench.wait(61)
        await bench.wait(10)
        assert await bench.found() == []
        compared = await bench.compared()
        assert (compared.matched, compared.not_comparable, compared.pending_late) == (matched, 1 - matched, 0)
        await bench.assert_counted()


async def test_where_ours_failed_nothing_is_proved_by_the_old_engines_silence(tmp_path: Path) -> None:
    async with running(tmp_path, shaped("0..1")) as bench:
        (seq,) = await bench.store(RAW[0])
        await bench.settle(seq, ours=State.DISCARDED)
        await bench.wait(61)
        await bench.wait(10)
        compared = await bench.compared()
        assert (compared.matched, compared.not_comparable) == (0, 1)


@pytest.mark.parametrize("again", [False, True])
async def test_an_output_that_comes_after_both_seemed_to_keep_it_back_is_found(tmp_path: Path, again: bool) -> None:
    async with running(tmp_path, shaped("0..1")) as bench:
        (seq,) = await bench.store(RAW[0])
        await bench.settle(seq, ours=State.FILTERED)
        await bench.wait(61)
        await bench.wait(10)
        if not again:
            assert await bench.send(RAW[0]) == seq
            assert await bench.found() == [("message", "missing_in_target", "clinical", "open", 1)]
        later = bench.now
    if again:
        async with running(tmp_path, shaped("0..1"), later) as bench:
            assert await bench.send(RAW[0]) == seq
            assert await bench.found() == [("message", "missing_in_target", "clinical", "open", 1)]

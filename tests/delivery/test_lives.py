"""Random lives of delivery: whatever is sent, lost, decided, withheld or killed, its promises hold. And some lives,
step by step, that once broke one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.delivery.dues import Due
from tests.delivery.machine import LANES, STRICT, DeliveryMachine
from tests.delivery.receivers import FAULT, LOST, NO, OK, UNREACHABLE
from tests.delivery.texts import FILTERED, PLAIN, UNMAPPABLE

EXAMPLES = 200  # about 20 seconds
SOAK = 20  # times as many


def _settings(examples: int) -> settings:
    return settings(
        max_examples=examples, stateful_step_count=50, deadline=None, suppress_health_check=[HealthCheck.too_slow]
    )


TestDelivery = DeliveryMachine.TestCase
TestDelivery.settings = _settings(EXAMPLES)


@pytest.mark.soak
def test_thousands_of_lives() -> None:
    run_state_machine_as_test(DeliveryMachine, settings=_settings(EXAMPLES * SOAK))


class Life:
    """Messages of one channel at one destination, led by a test."""

    def __init__(self, machine: DeliveryMachine, to: str) -> None:
        self.machine, self.to = machine, to

    def store(self, *patients: str, kind: str = PLAIN) -> None:
        self.machine.store("north", [(tuple(patients), kind)], 40)
        self.other_answers()

    def other_answers(self) -> None:
        for attempt in list(self.machine.receivers.attempts):
            if attempt.place[1] != self.to:
                self.machine.loop.turns(40, lambda attempt=attempt: self.machine.receivers.answer(attempt, OK))  # type: ignore[misc]

    def answer(self, how: str, turns: int = 40) -> None:
        mine = [each for each in self.machine.receivers.attempts if each.place[1] == self.to]
        self.machine.loop.turns(turns, lambda: self.machine.receivers.answer(mine[0], how))

    def due(self, seq: int) -> Due:
        found = self.machine.promises.open_at("north", self.to, seq)
        assert found is not None
        return found

    def retry(self, seq: int, turns: int = 40) -> None:
        self.machine.loop.turns(turns, lambda: self.machine._verb(self.machine._decide("retry", self.due(seq))))

    def discard(self, seq: int, turns: int = 40) -> None:
        self.machine.loop.turns(turns, lambda: self.machine._verb(self.machine._decide("discard", self.due(seq))))

    def edit(self, seq: int, turns: int = 40, **changed: Any) -> None:
        self.machine.edits += 1
        text = self.due(seq).texts[self.due(seq).revision].edited(f"edit {self.machine.edits}", **changed)
        self.machine.loop.turns(turns, lambda: self.machine._verb(self.machine._edit(self.due(seq), text)))

    def replay(self, seq: int, turns: int = 40) -> None:
        asks: Callable[[list[int]], None] = lambda found: self.machine.promises.replays.update(  # noqa: E731
            ("north", self.to, each) for each in found
        )
        process = self.machine._process
        self.machine.loop.turns(turns, lambda: self.machine._verb(process.replay("north", self.to, [seq], asks)))

    def begins_a_replay_behind_another(self) -> None:
        """The first message was delivered, the second one of its patient is on its way, and the replay of the first is
        open."""
        self.store("A")
        self.answer(OK)
        self.store("A")
        self.replay(1, 0)
        while not self.machine.promises.open_at("north", self.to, 1):
            self.machine.the_loop_turns(1)

    @contextmanager
    def one_transaction(self) -> Iterator[None]:
        """Whatever is asked of the ledger meanwhile is written together, in its order."""
        self.machine._process.ledger.writer.full = True
        self.machine.loop.turns(5)
        yield
        self.machine._process.ledger.writer.full = False
        self.machine.time_passes(0.3)


@contextmanager
def life(to: str, *, parks: bool = False, reading: int = 0, room: int | None = None) -> Iterator[Life]:
    machine = DeliveryMachine()
    try:
        machine.begin(parks=parks, dead=("waits", "waits"), window=4, reading=reading, room=room)
        yield Life(machine, to)
        machine.no_promise_is_broken()
        machine.the_equation_balances_from_both_sources()
        machine.everything_comes_to_an_end()
    finally:
        machine.put_away()


def test_an_edit_that_is_written_together_with_the_claim_is_what_goes_out() -> None:
    with life(STRICT) as it:
        it.store()
        it.answer(UNREACHABLE)
        with it.one_transaction():
            it.edit(1)
            it.machine.time_passes(1.0)  # its own time has come
        assert it.due(1).sent == 2


def test_a_retry_that_is_written_together_with_the_claim_forgets_no_doubt() -> None:
    with life(LANES) as it:
        it.store("A")
        it.answer(LOST)
        with it.one_transaction():
            it.retry(1)
            it.machine.time_passes(1.5)  # its own time has come
        it.machine.time_passes(1.2)
        it.answer(UNREACHABLE)
        it.machine.an_orphan_arrives(_First())


def test_what_is_discarded_stands_in_no_replay_s_way() -> None:
    with life(STRICT) as it:
        it.store()
        it.answer(NO)
        it.discard(1)
        it.replay(1)
        it.store()
        it.answer(OK)
        it.answer(OK)


@pytest.mark.parametrize("turns", range(2, 20))
def test_what_is_just_being_replayed_and_tried_again_goes_out_once(turns: int) -> None:
    with life(LANES, reading=12) as it:
        it.store("A")
        it.answer(OK)
        it.replay(1, 0)
        while not it.machine.promises.open_at("north", LANES, 1):
            it.machine.the_loop_turns(1)
        it.retry(1, turns)
        with it.one_transaction():
            it.machine.the_loop_turns(40)


@pytest.mark.parametrize("turns", range(0, 40, 2))
def test_what_a_person_has_tried_again_while_the_process_begins_goes_out_in_its_place(turns: int) -> None:
    with life(LANES, reading=12) as it:
        for patients in (("A",), ("A",), ("A", "B")):
            it.store(*patients)
        it.machine.the_process_is_killed([], turns)
        it.retry(2, 0)
        it.retry(3)


def test_what_is_discarded_together_with_its_being_parked_is_discarded() -> None:
    with life(LANES, reading=12) as it:
        it.begins_a_replay_behind_another()
        with it.one_transaction():
            it.discard(1)


def test_what_is_tried_again_behind_others_stays_in_doubt_over_the_next_crash() -> None:
    with life(LANES) as it:
        it.store("A")
        it.store("A")
        it.machine.the_process_is_killed([OK], 40)  # not durable, and the second was on its way by then
        assert it.due(2).doubt is not None
        it.retry(2)
        it.machine.the_process_is_killed([], 40)


@pytest.mark.parametrize("turns", range(12))
def test_a_split_message_goes_on_whatever_a_person_does_about_others(turns: int) -> None:
    with life(LANES) as it:
        it.store("B")
        it.answer(NO)
        it.store("A", kind="split2")
        it.store("A")
        it.discard(1, turns)
        it.answer(OK)


def test_what_stands_behind_a_part_that_is_held_back_is_not_on_its_way() -> None:
    with life(LANES) as it:
        it.store("A", kind="split2")
        it.store("A")
        it.other_answers()
        it.machine.withhold("north", False, 40)
        it.answer(OK)
        it.machine.promises.quiet()


def test_the_endpoint_s_own_fault_is_blamed_on_no_message() -> None:
    with life(STRICT) as it:
        it.store()
        for _ in range(8):
            it.answer(FAULT)
            it.machine.time_passes(40.0)
        assert it.due(1).sent == 9


def test_what_was_several_parts_and_is_edited_into_what_is_filtered_is_settled_whole() -> None:
    with life(LANES) as it:
        it.store("A", kind="split3")
        it.answer(NO)
        it.edit(1, kind=FILTERED)


def test_an_edit_that_is_written_together_with_its_being_parked_is_what_goes_out() -> None:
    with life(LANES, reading=30) as it:
        it.begins_a_replay_behind_another()
        it.machine.the_loop_turns(5)
        it.machine._process.ledger.turns = 0  # the edit is there before it is taken up
        with it.one_transaction():
            it.edit(1)


def test_an_edited_message_stands_in_the_lanes_of_both_its_patients() -> None:
    with life(LANES) as it:
        it.store("A")
        it.answer(NO)
        it.store("B")
        it.edit(1, patients=("B",))


def test_an_edited_message_stands_in_the_lanes_of_all_that_was_made_of_it() -> None:
    with life(LANES) as it:
        it.store(kind=UNMAPPABLE)
        it.edit(1, kind=UNMAPPABLE, patients=("B",))
        it.store("B")
        it.edit(1, kind=PLAIN, patients=("A",))


def test_an_edit_that_comes_while_the_one_before_is_still_read_leaves_no_lane_out() -> None:
    with life(LANES, reading=30) as it:
        it.store("A")
        it.answer(NO)
        it.edit(1, patients=(), turns=45)  # it is durable, and its bytes are being read
        it.machine._process.ledger.turns = 0
        it.edit(1, patients=("A",))
        it.store()


@pytest.mark.parametrize("reading", range(6, 24, 2))
def test_an_edit_that_comes_while_what_is_tried_again_is_read_leaves_no_lane_out(reading: int) -> None:
    """It stood in no lane: the mapping could make nothing of it, and its lane had gone on."""
    with life(LANES, reading=reading) as it:
        it.store(kind=UNMAPPABLE)
        it.machine.withhold("north", False, 40)
        it.retry(1, 10)  # it is durable, and its bytes are being read
        it.machine._process.ledger.turns = 0
        it.edit(1, 100, kind=PLAIN, patients=("B",))
        it.store("B")


def test_who_waits_behind_one_that_an_edit_has_put_before_him_says_so() -> None:
    with life(LANES) as it:
        it.store("B")
        it.answer(LOST)
        it.store("A")
        it.store("A")
        it.edit(1, patients=("A",))
        it.answer(OK)
        it.machine.promises.quiet()


def test_a_replay_that_goes_on_while_the_start_still_reads_is_taken_up() -> None:
    with life(LANES, reading=12) as it:
        it.store()
        it.answer(OK)
        it.store()
        it.replay(1, 6)
        it.machine.the_process_is_killed([], 0)
        it.machine.a_calm_hour()


def test_what_may_have_been_taken_stays_in_doubt_where_the_endpoint_was_not_asked() -> None:
    with life(LANES) as it:
        it.store("A")
        it.answer(LOST)
        it.machine.an_orphan_arrives(_First())
        it.edit(1, kind=UNMAPPABLE)
        it.edit(1, kind=PLAIN)


def test_who_has_waited_longest_for_an_endpoint_is_next() -> None:
    with life(STRICT, room=1) as it:
        for channel in ("north", "north", "south"):
            it.machine.store(channel, [((), PLAIN)], 40)
        went = []
        while mine := [each for each in it.machine.receivers.attempts if each.place[1] == STRICT]:
            went += [attempt.place[0] for attempt in mine]
            it.answer(OK)
        assert went == ["north", "south", "north"]


def test_who_waits_for_his_turn_has_it_after_a_time_without_disk() -> None:
    with life(STRICT, room=1) as it:
        for channel in ("north", "south"):
            it.machine.store(channel, [((), PLAIN)], 40)
        with it.one_transaction():
            it.answer(OK)
        assert [each.place[0] for each in it.machine.receivers.attempts if each.place[1] == STRICT] == ["south"]


class _First:
    """In the place of what hypothesis draws."""

    def draw(self, strategy: Any) -> int:
        return 0

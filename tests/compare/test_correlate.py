"""Pairing: which input an output belongs to, whatever was lost, doubled, moved or altered on the way."""

from __future__ import annotations

from functools import reduce
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.compare.correlate import FEWEST_LAGS, KNOWN, Correlator
from engine.compare.keys import Keys
from engine.compare.slots import Input
from engine.config.model import Compare
from engine.delivery.lane import patient
from engine.simulate.alterations import FAULTS, HABITS, own_stamps
from engine.simulate.messages import Messages
from engine.simulate.orders import Orders

KEYS = Keys.of(Compare(), "results")
S = 1_000_000  # microseconds
WITHIN = 60.0


def report(accession: str, value: str = "1", who: str = "700101", status: str = "F") -> bytes:
    """A short result of a patient; versions of one accession have its key."""
    return (
        f"MSH|^~\\&|L|L|E|E|20260101||ORU^R01|{accession}{value}|P|2.5\rPID|1||{who}^^^A^MR||Moss^Ada\r"
        f"OBR|1|P{accession}|{accession}|51990-0^Panel^LN{'|' * 21}{status}\r"
        + "".join(f"OBX|{at}|NM|{at}-1^Test number {at}^LN||{value}{at}|mg/dL|1-9|N|||F\r" for at in range(1, 6))
    ).encode()


class Bench:
    """A correlator, and a clock that goes a second with each thing that happens."""

    def __init__(self, **options: bool) -> None:
        self.correlator = Correlator(WITHIN, **options)
        self.now = 0

    def store(self, seq: int, raw: bytes, expected: bool = True) -> None:
        self.now += S
        key = KEYS.read(raw)
        input = Input(seq, seq, self.now, key, patient(raw), f"C{seq}", raw, int(expected))
        if expected:
            self.correlator.expect(input)
        else:
            self.correlator.await_any(input, most=3)

    def send(self, raw: bytes, control_id: str = "OLD") -> int | None:
        """An output; the input that it was given to."""
        self.now += S
        sent = own_stamps(raw)
        slot = self.correlator.attribute(sent, KEYS.read(sent), self.now, control_id)
        return slot.input.seq if slot else None

    def overtaken(self, seq: int) -> bool:
        slot = self.correlator.slot(seq)
        assert slot is not None
        return slot.overtaken

    def missed(self) -> list[int]:
        return [slot.input.seq for slot in self.correlator.expired(self.now) if slot.expected]


def test_an_output_belongs_to_the_input_with_its_key() -> None:
    bench = Bench()
    for seq, name in enumerate("ABC", 1):
        bench.store(seq, report(name, who=name))
    assert [bench.send(report(name, who=name)) for name in "CAB"] == [3, 1, 2]


def test_versions_of_one_accession_are_taken_in_order() -> None:
    bench = Bench()
    for seq in (1, 2, 3):
        bench.store(seq, report("A"))
    assert [bench.send(report("A")) for _ in range(3)] == [1, 2, 3]


def test_a_lost_output_moves_no_later_one() -> None:
    bench = Bench()
    for seq, value in enumerate("1234", 1):
        bench.store(seq, report("A", value))
    assert [bench.send(report("A", value)) for value in "234"] == [2, 3, 4]
    bench.now += 61 * S
    assert bench.missed() == [1]


@pytest.mark.parametrize("habits", [(), ("padding", "precision", "segment_order", "escapes", "finer_times")])
@pytest.mark.parametrize("code", ["C001", "C002", "C005"])
def test_a_lost_correction_moves_no_later_one(code: str, habits: tuple[str, ...]) -> None:
    """Two corrections of one report have the same key and nearly the same content."""
    orders, corrected = Orders(code, 5), 0
    for order in range(1, 300):
        stages = [at for at, stage in enumerate(orders.stages(order)) if stage == "C"]
        for lost in stages if len(stages) > 1 else ():
            bench = Bench()
            for at in stages:
                bench.store(at, orders.report(10 * order + at, order, at))
            for at in stages:
                if at != lost:
                    raw = orders.report(10 * order + at, order, at)
                    assert bench.send(reduce(lambda raw, habit: HABITS[habit](raw), habits, raw)) == at
                    corrected += 1
    assert corrected > 10


def test_one_sent_twice_with_another_stamp_in_it_moves_no_later_one() -> None:
    bench = Bench()
    bench.store(1, report("A", "1"))
    bench.store(2, report("A", "2"))
    again = report("A", "1") + b"ZST|20260101120001\r"
    assert bench.send(report("A", "1")) == 1
    assert bench.send(again) == 1
    assert bench.send(report("A", "2")) == 2


def test_what_nobody_remembers_is_like_nothing() -> None:
    """A short output is nearer to no bytes at all than to a long input: that makes it nobody else's."""
    bench = Bench()
    bench.store(1, report("A", "1"))
    assert bench.send(report("A", "1")) == 1
    slot = bench.correlator.slot(1)
    assert slot is not None
    slot.input.lighten()
    bench.store(2, report("A", "2"))
    assert bench.send(report("A", "2").partition(b"OBX")[0]) == 2


def test_what_is_not_missed_is_found_whenever_it_comes() -> None:
    bench = Bench()
    for seq, name in enumerate("AB", 1):
        raw = report(name)
        input = Input(seq, seq, bench.now, KEYS.read(raw), patient(raw), None, raw)
        bench.correlator.await_any(input, most=3, granted=True)
        bench.correlator.sent(seq, bench.now)
    bench.store(3, report("C"))
    bench.now += 86_400 * S
    assert bench.missed() == [3]
    assert [bench.send(report(name)) for name in "BA"] == [2, 1]


def test_the_lag_counts_from_when_the_old_engine_got_it() -> None:
    bench = Bench()
    for seq in range(1, FEWEST_LAGS + 1):
        bench.store(seq, report(f"A{seq}"))
        bench.now += 3600 * S
        bench.correlator.sent(seq, bench.now)
        assert bench.missed() == []
        bench.send(report(f"A{seq}"))
    assert bench.correlator.lag() == pytest.approx(1.0)


def test_an_output_never_belongs_to_an_input_that_came_after_it() -> None:
    bench = Bench()
    bench.store(1, report("A"))
    slot = bench.correlator.attribute(report("A"), KEYS.read(report("A")), bench.now - 1, None)
    assert slot is None


def test_the_same_once_more_belongs_to_the_same_input() -> None:
    bench = Bench()
    bench.store(1, report("A", "1"))
    bench.store(2, report("A", "2"))
    assert [bench.send(report("A", value)) for value in "112"] == [1, 1, 2]


def test_an_equal_input_that_waits_is_served_before_anything_counts_as_doubled() -> None:
    """A laboratory's deliberate repeat."""
    bench = Bench()
    bench.store(1, report("A"))
    assert bench.send(report("A")) == 1
    bench.store(2, report("A"))
    assert bench.send(report("A")) == 2


def test_an_output_that_was_overtaken_by_one_of_its_patient_is_seen() -> None:
    bench = Bench()
    for seq, name in enumerate("AB", 1):
        bench.store(seq, report(name))
    assert [bench.send(report(name)) for name in "BA"] == [2, 1]
    assert (bench.overtaken(1), bench.overtaken(2)) == (True, False)


def test_other_patients_may_be_overtaken() -> None:
    bench = Bench()
    for seq, name in enumerate("AB", 1):
        bench.store(seq, report(name, who=name))
    assert [bench.send(report(name, who=name)) for name in "BA"] == [2, 1]
    assert not bench.overtaken(1)


@pytest.mark.parametrize("fault", [name for name in FAULTS if name not in ("damaged_charset", "doubly_encoded")])
def test_a_fault_in_the_key_itself_is_forgiven(fault: str) -> None:
    vendor, bench = Messages(seed=6), Bench()
    bench.correlator = Correlator(WITHIN)
    keys = Keys(["OBR-2.1", "OBR-4.1", "PID-3.1", "OBX-3.1"])
    for seq in range(2, 26, 2):  # so that no altered number is another one's
        raw = vendor.message(seq)
        bench.correlator.expect(Input(seq, seq, bench.now, keys.read(raw), patient(raw), f"C{seq}", raw))
    for seq in range(2, 26, 2):
        sent = FAULTS[fault](own_stamps(vendor.message(seq)))
        slot = bench.correlator.attribute(sent, keys.read(sent), bench.now + S, None)
        assert slot is not None
        assert slot.input.seq == seq


def test_what_is_like_nothing_belongs_to_nobody() -> None:
    bench = Bench()
    bench.store(1, Messages(seed=6).message(1))
    assert bench.send(Messages(seed=7, prefix="XYZ").message(50)) is None


def test_an_input_that_a_person_has_given_an_output_to_waits_for_none() -> None:
    bench = Bench()
    bench.store(1, report("A", "1"))
    bench.store(2, report("A", "2"))
    bench.correlator.give(1, report("Z", who="Z"), bench.now)
    assert bench.send(report("A", "2")) == 2
    bench.now += int(WITHIN * S)
    assert bench.missed() == []


def test_two_that_are_equally_like_it_are_no_answer() -> None:
    bench = Bench()
    bench.store(1, report("A"))
    bench.store(2, report("B"))
    assert bench.send(report("Z")) is None


def test_a_control_id_that_was_kept_tells_where_no_key_does() -> None:
    bench = Bench()
    bench.store(1, report("A"))
    bench.store(2, report("B"))
    assert bench.send(report("Z", "9"), control_id="C2") == 2


def test_what_comes_after_its_time_is_still_known() -> None:
    bench = Bench()
    bench.store(1, report("A", "1"))
    bench.now += 61 * S
    assert bench.missed() == [1]
    bench.store(2, report("A", "2"))
    assert [bench.send(report("A", value)) for value in "12"] == [1, 2]


def test_what_is_not_expected_is_known_and_not_missed() -> None:
    bench = Bench()
    bench.store(1, report("A"), expected=False)
    bench.store(2, report("B"), expected=False)
    assert bench.send(report("A")) == 1
    bench.now += 61 * S
    assert bench.missed() == []
    assert bench.send(report("B")) == 2


def test_nothing_is_missed_that_the_old_engine_never_got() -> None:
    bench = Bench()
    bench.store(1, report("A"))
    bench.now += 61 * S
    assert bench.correlator.expired(bench.now, lambda seq: False) == []
    bench.now += 59 * S
    assert bench.missed() == []
    bench.now += 2 * S
    assert bench.missed() == [1]


def test_a_refused_input_gets_no_output() -> None:
    bench = Bench()
    bench.store(1, report("A"))
    assert bench.correlator.give_up(1) is not None
    bench.store(2, report("A"))
    assert bench.send(report("A")) == 2


def test_without_nth_an_output_belongs_to_the_newest() -> None:
    bench = Bench(nth=False)
    for seq in (1, 2):
        bench.store(seq, report("A"))
    assert bench.send(report("A")) == 2


def test_the_lag_is_that_of_nearly_all() -> None:
    bench = Bench()
    for seq in range(1, FEWEST_LAGS + 1):
        assert bench.correlator.lag() is None
        bench.store(seq, report(f"A{seq}"))
        bench.send(report(f"A{seq}"))
    assert bench.correlator.lag() == pytest.approx(1.0)


def test_of_what_is_not_missed_only_the_newest_are_kept() -> None:
    bench = Bench()
    for seq in range(1, 6):
        bench.store(seq, report(f"A{seq}"), expected=False)
    assert [slot.input.seq for slot in bench.correlator.unmissed()] == [3, 4, 5]
    assert bench.send(report("A1")) is None
    assert bench.send(report("A4")) == 4
    assert [slot.input.seq for slot in bench.correlator.unmissed()] == [3, 5]


def test_memory_is_bounded() -> None:
    bench = Bench()
    for seq in range(1, KNOWN + 200):
        bench.store(seq, report(f"A{seq}"))
        bench.send(report(f"A{seq}"))
    assert bench.correlator.slot(1) is None
    assert bench.correlator.slot(KNOWN) is not None


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.floats(0, 0.2), st.floats(0, 0.2))
def test_whatever_is_lost_or_doubled_the_rest_finds_its_own(seed: int, lost: float, doubled: float) -> None:
    """Ten accessions of three versions each, in a random order; outputs a few inputs late."""
    random, bench = Random(seed), Bench()
    versions = [(accession, value) for accession in "ABCDEFGHIJ" for value in "123"]
    random.shuffle(versions)
    waiting: list[tuple[int, bytes]] = []
    for seq, (accession, value) in enumerate(versions, 1):
        raw = report(accession, value)
        bench.store(seq, raw)
        if random.random() >= lost:
            waiting += [(seq, raw)] * (2 if random.random() < doubled else 1)
        while len(waiting) > 4:
            number, sent = waiting.pop(0)
            assert bench.send(sent) == number
    for number, sent in waiting:
        assert bench.send(sent) == number

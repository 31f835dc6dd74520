"""By what an output is known to be an input's."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.compare.keys import BY_DIRECTION, Keys, body, likeness, sketch
from engine.config.model import Compare
from engine.simulate.alterations import HABITS
from engine.simulate.messages import Messages
from tests.compare.messages import REPORT

RESULTS = Keys.of(Compare(), "results")
RAW = REPORT.encode()


def test_every_direction_has_a_key() -> None:
    assert {direction: Keys.of(Compare(), direction).read(RAW) for direction in BY_DIRECTION} == {
        "results": (b"OBR|A-1|F|51990-0", b"OBR|A-2|F|57698-3"),
        "orders": (b"ORC|RE|P-1",),
        "adt": (b"MSH|R01", b"PID|700101"),
        "query": (b"MSH|R-1",),
    }


def test_a_channel_may_name_its_own() -> None:
    assert Keys.of(Compare(key=("MSH-10", "PID-3.4")), "orders").read(RAW) == (b"MSH|R-1", b"PID|ACME")


def test_what_is_no_path_is_refused() -> None:
    with pytest.raises(ValueError, match="no path"):
        Keys(["OBR"])


@pytest.mark.parametrize("name", HABITS)
def test_no_habit_changes_a_key(name: str) -> None:
    for message in (RAW, *(Messages(seed=5).message(number) for number in range(8))):
        assert RESULTS.read(HABITS[name](message)) == RESULTS.read(message)


def test_a_message_without_the_fields_has_an_empty_key() -> None:
    assert RESULTS.read(b"MSH|^~\\&|A") == ()
    assert RESULTS.read(b"MSH|^~\\&|A\rOBR|1") == (b"OBR|||",)


def test_other_delimiters_and_line_ends() -> None:
    assert RESULTS.read(RAW.replace(b"\r", b"\n")) == RESULTS.read(RAW)
    assert RESULTS.read(RAW.translate(bytes.maketrans(b"|^~\\&", b"#@!$%"))) == RESULTS.read(RAW)


@given(st.binary(max_size=200))
def test_anything_can_be_read(raw: bytes) -> None:
    assert isinstance(RESULTS.read(raw), tuple)
    assert likeness(sketch(raw), sketch(raw)) == 1.0


def test_stamps_are_no_part_of_the_body() -> None:
    assert body(HABITS["own_stamps"](RAW)) == body(RAW)


def test_a_message_is_most_like_itself() -> None:
    others = [sketch(Messages(seed=5).message(number)) for number in range(20)]
    for number, one in enumerate(others):
        altered = sketch(HABITS["padding"](Messages(seed=5).message(number)))
        assert max(range(20), key=lambda at: likeness(others[at], altered)) == number
        assert likeness(one, altered) > 0.9

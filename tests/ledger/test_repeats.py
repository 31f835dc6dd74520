"""A repeat is a message whose sender heard no answer; everything else is a new message, and must arrive.

The model is the design's sentence: the same control id and the same bytes, before any later message was acknowledged on
the connection of the first or of the repeat, within the window, while the first has not failed.
"""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.ledger.repeats import KEPT_WHOLE, MOST_SOCKETS, Repeats, essence

WINDOW = 100
ESSENCE = essence(("MSH-7",))


def raw(text: str = "a", at: str = "1") -> bytes:
    return f"MSH|^~\\&|A|B|C|D|{at}||ORU^R01|X|P|2.5\rOBX|1|ST|T||{text}\r".encode()


class Channel:
    """Numbers messages and tells what a repeat of which one was."""

    def __init__(self) -> None:
        self.repeats = Repeats(WINDOW, ESSENCE)
        self.seq = 0

    def comes(self, control_id: str, socket: int, at: int, content: bytes) -> int | None:
        """The number of the first, or None where it is a new message."""
        self.seq += 1
        first = self.repeats.first_of(control_id, socket, at, content)
        if first is not None:
            return first.seq
        self.repeats.learn(self.seq, self.seq, socket, at, control_id, content)
        return None


@pytest.fixture
def it() -> Channel:
    return Channel()


def test_sent_again_on_a_new_connection_because_no_answer_came(it: Channel):
    assert it.comes("A", 1, 0, raw()) is None
    assert it.comes("A", 2, 5, raw(at="2")) == 1


def test_the_answer_got_lost_on_its_way_and_the_first_was_acknowledged(it: Channel):
    it.comes("A", 1, 0, raw())
    it.repeats.acknowledged(1, 1)
    assert it.comes("A", 2, 5, raw()) == 1


def test_a_repeat_of_a_repeat_is_one_though_the_first_repeat_was_acknowledged(it: Channel):
    it.comes("A", 1, 0, raw())
    assert it.comes("A", 2, 5, raw()) == 1
    it.repeats.acknowledged(1, 2)  # as the first, which it repeats
    assert it.comes("A", 2, 6, raw()) == 1


def test_after_a_later_message_was_acknowledged_on_the_firsts_connection_it_is_new(it: Channel):
    it.comes("A", 1, 0, raw())
    it.comes("B", 1, 1, raw("b"))
    it.repeats.acknowledged(2, 1)
    assert it.comes("A", 2, 5, raw()) is None


def test_before_that_all_of_several_that_nobody_acknowledged_are_repeats(it: Channel):
    for at, name in enumerate("ABC"):
        it.comes(name, 1, at, raw(name))
    assert [it.comes(name, 2, 9, raw(name)) for name in "ABC"] == [1, 2, 3]


def test_after_a_later_message_was_acknowledged_on_its_own_connection_it_is_new(it: Channel):
    it.comes("A", 1, 0, raw())
    it.comes("B", 2, 1, raw("b"))
    it.repeats.acknowledged(2, 2)
    assert it.comes("A", 2, 5, raw()) is None


@pytest.mark.parametrize(("at", "first"), [(WINDOW, 1), (WINDOW + 1, None), (-1, None)])
def test_within_the_window_by_whatever_the_clock_does(it: Channel, at: int, first: int | None):
    it.comes("A", 1, 0, raw())
    assert it.comes("A", 2, at, raw()) == first


def test_other_bytes_or_another_control_id_make_a_new_message(it: Channel):
    it.comes("A", 1, 0, raw())
    assert it.comes("A", 2, 1, raw("corrected")) is None
    assert it.comes("Z", 2, 2, raw()) is None


def test_what_failed_or_was_answered_no_is_repeated_by_a_new_message(it: Channel):
    it.comes("A", 1, 0, raw())
    it.repeats.void(1)
    assert it.comes("A", 2, 1, raw()) is None
    assert it.comes("A", 3, 2, raw()) == 2


def test_large_messages_are_known_by_a_digest(it: Channel):
    large = "x" * (KEPT_WHOLE + 1)
    it.comes("A", 1, 0, raw(large))
    assert it.comes("A", 2, 1, raw(large + "y")) is None
    it.comes("B", 3, 2, raw(large))
    assert it.comes("B", 4, 3, raw(large, at="9")) == 3


def test_what_was_not_stored_after_all_is_repeated_by_a_new_message(it: Channel):
    it.comes("A", 1, 0, raw())
    it.repeats.forget(1, 1)
    assert it.comes("A", 2, 1, raw()) is None
    assert len(it.repeats) == 1


def test_a_vendor_that_connects_for_each_message_does_not_fill_the_memory(it: Channel):
    for n in range(5000):
        it.comes(f"C{n}", n, n, raw(str(n)))
        it.repeats.acknowledged(n + 1, n)
    assert len(it.repeats) <= 2 * 256 + WINDOW


def test_nor_one_that_connects_now_and_then(it: Channel):
    for n in range(200):
        it.comes(f"C{n}", n, n * WINDOW // 10, raw(str(n)))
        it.repeats.acknowledged(n + 1, n)
    assert len(it.repeats) <= 2 * 10 + 2


def test_a_connection_on_which_only_repeats_have_come_is_remembered_for_the_window(it: Channel):
    it.comes("A", 1, 1010, raw())
    it.comes("B", 2, 1010, raw("b"))
    assert it.comes("B", 3, 1010, raw("b")) == 2
    it.repeats.acknowledged(2, 3)
    for n in range(2 * MOST_SOCKETS):
        it.comes(f"C{n}", 10 + n, 1020, raw(str(n)))
    assert it.comes("A", 3, 1030, raw()) is None, "a later one was acknowledged there"


def test_nor_does_a_connection_on_which_nothing_is_acknowledged(it: Channel):
    for n in range(5000):
        it.comes(f"C{n}", 1, n, raw(str(n)))
    assert len(it.repeats) <= WINDOW + 1
    assert it.comes("C4999", 2, 5000, raw("4999")) == 5000


def test_nor_one_whose_clock_is_put_back(it: Channel):
    """What is younger than the clock says is kept until the clock has caught up, and is no first meanwhile."""
    it.comes("A", 1, 5000, raw())
    for n in range(200):
        it.comes(f"C{n}", 1, 1000 + n, raw(str(n)))
    assert it.comes("A", 2, 1200, raw()) is None
    for n in range(5000):
        it.comes(f"D{n}", 1, 5000 + n, raw(str(n)))
    assert len(it.repeats) <= WINDOW + 2


def test_thousands_of_connections_in_the_window_are_not_looked_through_for_each_new_one(
    monkeypatch: pytest.MonkeyPatch,
):
    """Each look is at all of them, and makes a digest of what the new ones have brought."""
    looks: list[int] = []
    sweep = Repeats._sweep
    monkeypatch.setattr(Repeats, "_sweep", lambda self, now: (looks.append(now), sweep(self, now)))
    it = Channel()
    for n in range(4 * MOST_SOCKETS):
        it.comes(f"C{n}", n, 0, raw(str(n)))
    assert len(looks) == 3
    assert it.comes("C0", 1, 0, raw("0")) == 1


@pytest.mark.parametrize(
    ("paths", "one", "other", "same"),
    [
        (("MSH-7",), raw(at="1"), raw(at="22"), True),
        ((), raw(at="1"), raw(at="22"), False),
        (("MSH-7",), raw("1"), raw("2"), False),
        (("OBX-5",), raw("1"), raw("2"), True),
        (("ZDS",), raw() + b"ZDS|1\r", raw() + b"ZDS|2\r", True),
        (("ZDS",), raw() + b"ZDS|1\r", raw(), True),
        (("ZDS",), raw() + b"ZDT|1\r", raw() + b"ZDT|2\r", False),
        (("MSH-7",), b"\n" + raw(at="1"), b"\n" + raw(at="2"), True),
        (("EVN-2",), b"MSH#^#x\rEVN#1#a\r", b"MSH#^#x\rEVN#1#b\r", True),
        (("MSH-7",), b"no header 1", b"no header 2", False),
    ],
)
def test_what_is_left_out_of_what_is_compared(paths: tuple[str, ...], one: bytes, other: bytes, same: bool):
    assert (b"\r".join(essence(paths)(one)) == b"\r".join(essence(paths)(other))) is same


@dataclass
class Stored:
    """A new message, in the model."""

    seq: int
    control_id: str
    socket: int
    at: int
    text: str
    failed: bool = False


ACTS = st.one_of(
    st.tuples(st.just("comes"), st.sampled_from("AB"), st.integers(1, 3), st.sampled_from(["x", "y"])),
    st.tuples(st.just("acknowledge"), st.integers(0, 30)),
    st.tuples(st.just("fails"), st.integers(0, 30)),
    st.tuples(st.just("time"), st.integers(0, 60)),
)


@settings(max_examples=400)
@given(st.lists(ACTS, max_size=30))
def test_a_repeat_is_what_the_design_says(acts: list[tuple[object, ...]]):
    it, now = Channel(), 0
    news: list[Stored] = []
    came: list[tuple[int, int]] = []  # (as which number it counts, connection), by number
    told: list[tuple[int, int]] = []  # (number, connection) that were acknowledged
    for act in acts:
        if act[0] == "time":
            now += act[1]  # type: ignore[operator]
        elif act[0] == "fails" and news:
            failing = news[act[1] % len(news)]  # type: ignore[operator]
            failing.failed = True
            it.repeats.void(failing.seq)
        elif act[0] == "acknowledge" and came:
            seq, socket = came[act[1] % len(came)]  # type: ignore[operator]
            told.append((seq, socket))
            it.repeats.acknowledged(seq, socket)
        elif act[0] == "comes":
            _, control_id, socket, text = act
            newest = next((each for each in reversed(news) if each.control_id == control_id), None)
            expected = None
            if newest is not None and newest.text == text and not newest.failed and now - newest.at <= WINDOW:
                later = any(seq > newest.seq for seq, where in told if where in (newest.socket, socket))
                expected = None if later else newest.seq
            assert it.comes(control_id, socket, now, raw(text)) == expected  # type: ignore[arg-type]
            came.append((expected or it.seq, socket))  # type: ignore[arg-type]
            if expected is None:
                news.append(Stored(it.seq, control_id, socket, now, text))  # type: ignore[arg-type]

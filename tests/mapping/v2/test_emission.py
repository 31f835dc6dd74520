"""Control ids of ours: the same for the same, different for what differs; and how MSH-10 is replaced."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.config.filtering import Emit
from engine.hl7.peek import peek
from engine.mapping.library import Unmappable
from engine.mapping.v2.emission import control_id, emitted, with_control_id
from tests.mapping.v2.mapping import ORU

WHERE = {"incarnation": "i1", "channel": "acme", "seq": 7, "destination": "emr"}


def test_what_differs_in_anything_has_another_control_id() -> None:
    ids = {
        control_id(incarnation, channel, seq, destination, part, delivery)
        for incarnation in ("1", "11")
        for channel in ("a", "a1", "1")
        for seq in range(1, 200)
        for destination in ("emr", "1emr")
        for part in range(1, 8)
        for delivery in (1, 2, 3)
    }
    assert len(ids) == 2 * 3 * 199 * 2 * 7 * 3


@given(
    st.text(max_size=8),
    st.integers(1, 10**12),
    st.integers(16, 199),
    st.from_regex(r"[A-Za-z0-9]{0,4}", fullmatch=True),
)
def test_a_control_id_is_as_long_as_wanted_and_of_safe_characters(
    channel: str, seq: int, length: int, prefix: str
) -> None:
    made = control_id("i", channel, seq, "d", prefix=prefix, length=length)
    assert re.fullmatch(r"[A-Za-z0-9]+", made)
    assert len(made) == length
    assert made.startswith(prefix)
    assert made == control_id("i", channel, seq, "d", prefix=prefix, length=length)


def test_a_control_id_stays_what_it_is_in_later_versions() -> None:
    assert control_id("i1", "acme", 7, "emr") == "HVZJYXAV5VFJF266DKTE"


@pytest.mark.parametrize(
    ("raw", "wanted"),
    [
        (b"MSH|^~\\&|A|b|c|d|e|f|g|h|i\rPID|1|h\r", b"MSH|^~\\&|A|b|c|d|e|f|g|NEW|i\rPID|1|h\r"),
        (b"MSH|^~\\&|A|b|c|d|e|f|g|h\rPID|1\r", b"MSH|^~\\&|A|b|c|d|e|f|g|NEW\rPID|1\r"),
        (b"MSH|^~\\&|A|b|c|d|e|f|g||i\nPID|1\n", b"MSH|^~\\&|A|b|c|d|e|f|g|NEW|i\nPID|1\n"),
        (b"MSH|^~\\&|A\rPID|1\r", b"MSH|^~\\&|A|||||||NEW\rPID|1\r"),
        (b"MSH|^~\\&", b"MSH|^~\\&||||||||NEW"),
        (b"\r\nMSH#*@!%#A#b#c#d#e#f#g#h#i\r", b"\r\nMSH#*@!%#A#b#c#d#e#f#g#NEW#i\r"),
        (b"\xef\xbb\xbfMSH|^~\\&|\xfc|b|c|d|e|f|g|h|i\r", b"\xef\xbb\xbfMSH|^~\\&|\xfc|b|c|d|e|f|g|NEW|i\r"),
    ],
)
def test_nothing_but_msh_10_is_replaced(raw: bytes, wanted: bytes) -> None:
    assert with_control_id(raw, "NEW") == wanted
    assert peek(wanted).control_id == "NEW"


@pytest.mark.parametrize("codec", ["utf-16", "utf-16-be", "utf-32", "utf-16-le"])
def test_msh_10_is_replaced_in_wide_characters(codec: str) -> None:
    raw = ORU.decode().replace("LAB", "Ł")
    assert with_control_id(raw.encode(codec), "NEW") == raw.replace("ID1", "NEW").encode(codec)


def test_what_has_no_header_has_no_control_id() -> None:
    with pytest.raises(Unmappable, match="no-header"):
        with_control_id(b"PID|1\r", "NEW")


def test_one_message_keeps_its_control_id_and_further_parts_get_ours() -> None:
    assert emitted([ORU], Emit(), **WHERE) == [ORU]  # type: ignore[arg-type]
    first, second, third = emitted([ORU, ORU, ORU], Emit(prefix="X"), **WHERE)  # type: ignore[arg-type]
    assert first == ORU
    assert peek(second).control_id == control_id("i1", "acme", 7, "emr", 2, prefix="X")
    assert peek(third).control_id == control_id("i1", "acme", 7, "emr", 3, prefix="X")
    other = with_control_id(ORU, "ID2")
    assert emitted([ORU, other], Emit(), **WHERE) == [ORU, other]  # type: ignore[arg-type]
    empty = with_control_id(ORU, "")
    assert [bool(peek(each).control_id) for each in emitted([empty, empty], Emit(), **WHERE)] == [False, True]  # type: ignore[arg-type]


def test_where_ours_are_wanted_each_delivery_has_its_own() -> None:
    made = {
        peek(each).control_id
        for delivery in (1, 2)
        for each in emitted([ORU, ORU], Emit(ours=True), delivery=delivery, **WHERE)  # type: ignore[arg-type]
    }
    assert len(made) == 4
    assert "ID1" not in made

"""Messages out of files."""

from __future__ import annotations

import pytest

from engine.mapping.read import split_messages

ONE = b"MSH|^~\\&|A\rPID|1"
TWO = b"MSH|^~\\&|B\rPID|2\rNTE|1||MSH stays"


def messages(data: bytes) -> list[bytes]:
    return [message for _, message in split_messages(data)]


@pytest.mark.parametrize("between", [b"\r", b"\n", b"\r\n", b"\r\r", b"\x1c\r\x0b", b"\n\n"])
def test_each_message_begins_at_a_line_with_msh(between: bytes) -> None:
    assert messages(ONE + between + TWO) == [ONE, TWO]


def test_positions_are_where_the_messages_begin() -> None:
    data = b"\x0b" + ONE + b"\x1c\r\x0b" + TWO
    assert [data[place : place + 3] for place, _ in split_messages(data)] == [b"MSH", b"MSH"]


def test_a_batch_envelope_is_no_part_of_a_message() -> None:
    data = b"FHS|^~\\&|X\rBHS|^~\\&|X\r" + ONE + b"\rBTS|1\rBHS|^~\\&|X\r" + TWO + b"\rBTS|1\rFTS|2\r"
    assert messages(data) == [ONE, TWO]


def test_other_delimiters_and_byte_order_marks_are_understood() -> None:
    assert messages(b"\xef\xbb\xbfMSH#*!\\%#A\rPID#1") == [b"MSH#*!\\%#A\rPID#1"]


@pytest.mark.parametrize("data", [b"", b"\r\n", b"PID|1\rOBX|1", b"FHS|^~\\&\rFTS|0"])
def test_a_file_without_a_message_has_none(data: bytes) -> None:
    assert messages(data) == []

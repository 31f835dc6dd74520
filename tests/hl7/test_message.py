"""The message model: segments, fields and their parts, against python-hl7 where that is right."""

from __future__ import annotations

import hl7
from hypothesis import given
from hypothesis import strategies as st

from engine.hl7.escape import Delimiters
from engine.hl7.message import Message, delimiters_of, split_segments

HEADER = "MSH|^~\\&|LAB|ACME|EMR|CLINIC|20260102030405||ORU^R01|1|P|2.5.1"
leaf = st.text("abcXYZ 0123.,-", max_size=5)
component = st.lists(leaf, min_size=1, max_size=3).map("&".join)
repetition = st.lists(component, min_size=1, max_size=3).map("^".join)
fields = st.lists(st.lists(repetition, min_size=1, max_size=3).map("~".join), min_size=1, max_size=5)


@given(fields)
def test_every_part_is_what_python_hl7_reads(values: list[str]) -> None:
    text = HEADER + "\rZZZ|" + "|".join(values) + "|end\r"
    peer = hl7.parse(text).segment("ZZZ")
    segment = Message(text).segments("ZZZ")[0]
    for number, value in enumerate(values, 1):
        if not value:
            assert segment.repetitions(number) == []
            continue
        assert segment.repetitions(number) == [str(one) for one in peer(number)]
        for index, one in enumerate(value.split("~"), 1):
            for place, part in enumerate(one.split("^"), 1):
                for sub, leaf_ in enumerate(part.split("&"), 1):
                    assert segment.get(number, index, place, sub) == leaf_


@given(fields)
def test_nothing_of_the_text_is_lost(values: list[str]) -> None:
    text = HEADER + "\rZZZ|" + "|".join(values)
    assert "\r".join(segment.raw for segment in Message(text)).rstrip() == text.rstrip()


def test_segments_end_with_cr_lf_or_both() -> None:
    lines = [HEADER, "PID|1", "OBR|1"]
    for end in ("\r", "\n", "\r\n"):
        assert split_segments(end.join(lines) + end) == lines


def test_a_line_feed_inside_a_field_stays_where_cr_ends_segments() -> None:
    assert split_segments(f"{HEADER}\rNTE|1||two\nlines\rPID|1\r") == [HEADER, "NTE|1||two\nlines", "PID|1"]


def test_framing_and_empty_segments_are_no_segments() -> None:
    assert split_segments(f"\x0b{HEADER}\r\r\rPID|1\r\x1c\r") == [HEADER, "PID|1"]


def test_delimiters_are_those_of_the_header() -> None:
    message = Message("MSH#*!\\%#LAB\rPID#1##A%B*C!D")
    assert message.delimiters == Delimiters("#", "*", "!", "\\", "%")
    assert message.get("PID-3[1].1.2") == "B"
    assert message.get("PID-3[2]") == "D"


def test_fewer_delimiters_than_the_standard_has_are_no_delimiters() -> None:
    assert delimiters_of("MSH|^~|LAB") == Delimiters("|", "^", "~", "", "")
    assert Message("MSH|^~|LAB\rPID|a&b").get("PID-1.1") == "a&b"


def test_a_fifth_encoding_character_is_no_part_of_a_value() -> None:
    assert Message("MSH|^~\\&#|LAB\rPID|a#b").get("PID-1") == "a#b"


def test_header_fields_count_from_the_separator() -> None:
    message = Message(HEADER)
    assert message.get("MSH-1") == "|"
    assert message.get("MSH-2") == "^~\\&"
    assert message.get("MSH-9.2") == "R01"


def test_absent_empty_and_null_are_three_things() -> None:
    message = Message(f'{HEADER}\rPID|""||x')
    assert message.get("PID-1") == '""'
    assert message.get("PID-2") is None
    assert message.get("PID-9") is None
    assert Message(f"{HEADER}\rPID|a^^c").get("PID-1.2") == ""


def test_the_nth_segment_is_addressed_by_number() -> None:
    assert Message(f"{HEADER}\rOBX|1\rOBX|2").get("OBX[2]-1") == "2"

"""The message model: segments, fields and their parts, against python-hl7 where that is right."""

from __future__ import annotations

import hl7
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.hl7.escape import Delimiters
from engine.hl7.message import Message, delimiters_of, parse_path, split_segments

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


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("MSH|A\rOBX|x\nPID|y\r", ["MSH|A", "OBX|x\nPID|y"]),
        ("MSH|A\nOBX|x\ry\n", ["MSH|A", "OBX|x\ry"]),
        ("MSH|A\nB|C\rPID|1\r", ["MSH|A\nB|C", "PID|1"]),
        ("MSH|A\nPID^1|C\rPID|1\r", ["MSH|A\nPID^1|C", "PID|1"]),
        ("MSH|A\n\nPID|1\rx\n", ["MSH|A", "PID|1\rx"]),
        ("MSH|A\nPID|1\r\nOBX|1\n", ["MSH|A", "PID|1", "OBX|1"]),
        ("MSH|A\r\nPID|1\r\n", ["MSH|A", "PID|1"]),
    ],
    ids=["CR", "LF", "LF in a field", "LF and no segment", "empty line", "LF, then CRLF", "CRLF"],
)
def test_where_both_occur_the_end_of_the_header_decides(text: str, lines: list[str]) -> None:
    assert Message(text).lines == lines


@pytest.mark.parametrize(
    ("path", "parts"),
    [
        ("PID-3", ("PID", 3, 1, 0, 0, 1)),
        ("OBX[2]-5[3].1.2", ("OBX", 5, 3, 1, 2, 2)),
        ("PV1-3.4", ("PV1", 3, 1, 4, 0, 1)),
    ],
)
def test_a_path_names_one_value(path: str, parts: tuple[object, ...]) -> None:
    assert parse_path(path) == parts


@pytest.mark.parametrize(
    "path",
    ["", "PID", "PID-", "PID-x", "PID--1", "PID[0]-1", "PID-1[0]", "PID-1.-1", "PID-1.2.3.4", "PID[-1]-3", "PI-1"],
)
def test_what_is_no_path_is_refused(path: str) -> None:
    with pytest.raises(ValueError, match="is no path; write SEG-field"):
        parse_path(path)

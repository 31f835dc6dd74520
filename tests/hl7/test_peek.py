"""Rules of engine.hl7.peek."""

from __future__ import annotations

import timeit

import hl7
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from engine.hl7.message import Message
from engine.hl7.peek import Peek, peek

HEADER = (
    b"MSH|^~\\&|ACME|LAB|EMR|CLINIC|20260102030405-0600||ORU^R01^ORU_R01|AC0001|P^T|2.5.1^USA|7||AL|NE||"
    b"UNICODE UTF-8~8859/1"
)
BODY = b"PID|1||77^^^ACME^MR||ROE^ANN\rOBX|1|NM|718-7^Hemoglobin^LN||13.5|g/dL\r"
ORU = HEADER + b"\r" + BODY


def everything(it: Peek) -> tuple[object, ...]:
    return (
        *(it.ok, it.problem, it.control_id, it.type, it.trigger, it.structure, it.version, it.charset, it.processing),
        *(it.accept_ack, it.application_ack, it.field, it.head, it.time, it.separator, repr(it)),
        *(it.raw(number) for number in range(2, 19)),
    )


class TestHeader:
    def test_every_field_of_interest_is_read(self) -> None:
        it = peek(ORU)
        assert (it.ok, it.problem) == (True, None)
        assert (it.type, it.trigger, it.structure) == ("ORU", "R01", "ORU_R01")
        assert (it.control_id, it.version, it.charset) == ("AC0001", "2.5.1", "UNICODE UTF-8")
        assert (it.processing, it.accept_ack, it.application_ack) == ("P", "AL", "NE")
        assert it.head == (b"ACME", b"LAB", b"EMR", b"CLINIC")
        assert (it.time, it.field) == (b"20260102030405-0600", ord("|"))

    def test_a_short_header_is_read_as_far_as_it_goes(self) -> None:
        it = peek(b"MSH|^~\\&|ACME\rPID|1\r")
        assert (it.ok, it.control_id, it.type, it.version, it.charset) == (True, None, "", "", "")
        assert it.head == (b"ACME", b"", b"", b"")

    def test_an_empty_control_id_is_none(self) -> None:
        assert peek(ORU.replace(b"AC0001", b"")).control_id is None

    def test_a_control_id_keeps_every_byte(self) -> None:
        control_id = bytes(range(0x20, 0x7C)) + bytes(range(0x80, 0x100))
        read = peek(ORU.replace(b"AC0001", control_id)).control_id
        assert read is not None
        assert read.encode("latin-1") == control_id

    def test_a_type_without_a_trigger_is_read(self) -> None:
        it = peek(ORU.replace(b"ORU^R01^ORU_R01", b"ACK"))
        assert (it.type, it.trigger, it.structure) == ("ACK", "", "")

    def test_nothing_beyond_the_header_is_read(self) -> None:
        assert everything(peek(HEADER + b"\r")) == everything(peek(ORU))

    def test_python_hl7_reads_the_same(self) -> None:
        peer = hl7.parse(ORU.decode())
        it = peek(ORU)
        assert it.control_id == str(peer.segment("MSH")[10])
        assert it.type == str(peer.segment("MSH")[9][0][0])
        assert it.trigger == str(peer.segment("MSH")[9][0][1])
        assert it.version == str(peer.segment("MSH")[12][0][0])
        assert it.head == tuple(str(peer.segment("MSH")[n]).encode() for n in (3, 4, 5, 6))


class TestTolerance:
    @pytest.mark.parametrize("end", [b"\r", b"\n", b"\r\n"], ids=["CR", "LF", "CRLF"])
    def test_segments_may_end_in_any_line_end(self, end: bytes) -> None:
        assert everything(peek(ORU.replace(b"\r", end))) == everything(peek(ORU))

    @pytest.mark.parametrize("front", [b"\xef\xbb\xbf", b"\r\n", b" \t", b"\x00\x00", b"\x0b", b"\xef\xbb\xbf\r\n  "])
    def test_junk_before_the_header_is_passed_over(self, front: bytes) -> None:
        assert everything(peek(front + ORU)) == everything(peek(ORU))

    def test_other_delimiters_are_understood(self) -> None:
        it = peek(ORU.translate(bytes.maketrans(b"|^~\\&", b"#@!$%")))
        assert (it.ok, it.field, it.separator, it.raw(2)) == (True, ord("#"), b"#", b"@!$%")
        assert (it.type, it.trigger, it.structure, it.version) == ("ORU", "R01", "ORU_R01", "2.5.1")
        assert (it.charset, it.head[0]) == ("UNICODE UTF-8", b"ACME")

    @pytest.mark.parametrize("marks", [b"^", b"^~", b"^~\\", b"^~\\&#"])
    def test_fewer_or_more_delimiters_are_understood(self, marks: bytes) -> None:
        it = peek(ORU.replace(b"^~\\&", marks, 1))
        assert (it.ok, it.type, it.trigger, it.control_id) == (True, "ORU", "R01", "AC0001")

    def test_a_lf_that_no_segment_follows_is_a_blank_in_its_field(self) -> None:
        it = peek(ORU.replace(b"|CLINIC|", b"|CLIN\nIC|"))
        assert (it.raw(6), it.control_id) == (b"CLIN IC", "AC0001")
        assert peek(b"MSH|^~\\&|A\n\rPID|1").raw(3) == b"A"
        assert peek(b"MSH|^~\\&|A\nB|C\nPID|1").raw(3) == b"A"  # without any CR, LF ends the segments

    @pytest.mark.parametrize("codec", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"])
    def test_wide_characters_are_read_as_if_they_were_narrow(self, codec: str) -> None:
        text = ORU.decode().replace("CLINIC", "KLINIĶA")
        it = peek(text.encode(codec))
        assert everything(it) == everything(peek(text.encode()))
        assert it.wide is not None
        assert peek(ORU).wide is None

    def test_a_wide_header_is_read_as_far_as_its_characters_go(self) -> None:
        it = peek("MSH|^~\\&|ACME|LAB".encode("utf-16-le") + b"\x00\xd8A\x00" + b"x")
        assert it.head == (b"ACME", b"LAB", b"", b"")

    def test_cr_wins_over_a_later_lf_and_lf_over_a_later_cr(self) -> None:
        assert everything(peek(HEADER + b"\rOBX|a\nb\r")) == everything(peek(ORU))
        assert everything(peek(HEADER + b"\nOBX|a\rb\n")) == everything(peek(ORU))


class TestProblems:
    @pytest.mark.parametrize("frame", [b"", b"M", b"PID|1\r", b"\x16\x03\x01", b"msh|^~\\&|", b" " * 2000 + ORU])
    def test_what_does_not_begin_with_a_header(self, frame: bytes) -> None:
        it = peek(frame)
        assert (it.ok, it.problem, it.control_id, it.type, it.field) == (False, "no MSH", None, "", ord("|"))

    @pytest.mark.parametrize("frame", [b"FHS|^~\\&|", b"BHS|^~\\&|\rMSH|^~\\&|A"])
    def test_a_batch_is_told_from_a_message(self, frame: bytes) -> None:
        assert peek(frame).problem == "batch envelope"

    @pytest.mark.parametrize(
        "frame",
        [
            b"MSH",
            b"MSH|",
            b"MSH||A|B",
            b"MSHA^~\\&AX",
            b"MSH |",
            b"MSH|^^\\&|A",
            b"MSH|^~\\&#$|A",
            b"MSH|ABCD|",
            b"MSH\r|^~",
        ],
    )
    def test_delimiters_that_cannot_separate(self, frame: bytes) -> None:
        assert peek(frame).problem == "broken delimiters"


PIECES = st.sampled_from([b"MSH", b"PID", b"|", b"^", b"~", b"\\", b"&", b"\r", b"\n", b"A", b"\xff", b"2.5"])
BYTES = st.one_of(
    st.binary(max_size=80),
    st.binary(max_size=60).map(lambda tail: b"MSH" + tail),
    st.binary(max_size=60).map(lambda tail: b"MSH|^~\\&|" + tail),
    st.lists(PIECES, max_size=40).map(b"".join),
)


class TestAnything:
    @given(BYTES)
    @example(b"MSH|^~\\&|" + b"|" * 40)
    @example(b"MSH|^~\\&|||||||" + b"^" * 100 + b"|x")
    def test_nothing_makes_it_raise(self, frame: bytes) -> None:
        it = peek(frame)
        everything(it)
        assert it.ok == (it.problem is None)

    @given(BYTES)
    def test_the_fast_and_the_careful_way_agree(self, tail: bytes) -> None:
        frame = b"MSH|^~\\&|" + tail
        assert everything(peek(frame)) == everything(peek(b"\n" + frame))  # anything in front takes the careful way


@given(st.lists(PIECES, max_size=40).map(b"".join))
@example(b"A\n\nPID|B\r")
@example(b"A\nPID^B\rPID|")
@example(b"A\n\rB")
def test_the_header_ends_where_the_readers_first_segment_ends(tail: bytes) -> None:
    for frame in (b"MSH|^~\\&|" + tail + b"\r", b"\n MSH|^~\\&|" + tail + b"\rPID|1", b"MSH#@!%#" + tail + b"\rPID#1"):
        first = Message(frame.decode("latin-1")).lines[0].replace("\n", " ").encode("latin-1").rstrip()
        it = peek(frame)
        assert not it.ok or it.separator.join(it.fields[1:]).rstrip() == first[4:]


def test_a_20_mb_message_costs_no_more_than_its_header() -> None:
    large = HEADER + b"\r" + b"OBX|1|ED|" + b"x" * (20 * 1024 * 1024)
    assert min(timeit.repeat(lambda: peek(large), number=100, repeat=3)) / 100 < 100e-6  # some 1.2 µs

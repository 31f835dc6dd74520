"""Batches: every byte in its piece, every count checked, and one reply for all. python-hl7 reads them beside us."""

from __future__ import annotations

import time

import hl7
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.hl7.ack import acknowledge, parse_ack
from engine.hl7.batch import Batch, Section, acknowledge_batch, is_batch, peek_batch, read_batch
from engine.hl7.modes import is_acknowledgement
from engine.hl7.peek import peek

FHS = b"FHS|^~\\&|ACME|LAB|EMR|CLINIC|20260102||file.hl7||F1\r"
BHS = b"BHS|^~\\&|ACME2|LAB2|EMR2|CLINIC2|20260102||||B1\r"


def message(number: int = 1) -> bytes:
    return b"MSH|^~\\&|ACME|LAB|EMR|CLINIC|20260102||ORU^R01|C%d|T|2.4||||||8859/1\rPID|1\rOBX|1\r" % number


def read(raw: bytes) -> Batch:
    batch = read_batch(raw)
    assert batch is not None
    return batch


def kinds(raw: bytes) -> list[str]:
    return [problem.kind for problem in read(raw).problems]


WHOLE = FHS + BHS + message(1) + message(2) + b"BTS|2\r" + BHS + message(3) + b"BTS|1\rFTS|2\r"


class TestReading:
    def test_a_file_of_batches(self) -> None:
        batch = read(WHOLE)
        assert batch.messages == [message(1), message(2), message(3)]
        assert batch.sections == (Section("B1", 2, 2), Section("B1", 1, 1))
        assert (batch.declared, batch.problems) == (2, ())
        assert [piece.name for piece in batch.pieces] == ["FHS", "BHS", "MSH", "MSH", "BTS", "BHS", "MSH", "BTS", "FTS"]

    @pytest.mark.parametrize(
        ("raw", "found"),
        [
            (BHS + message() + b"BTS|1\r", [1]),
            (FHS + message() + message(2) + b"FTS|1\r", [2]),
            (FHS + message() + b"BTS|1\r" + message(2) + b"BTS|1\rFTS|2\r", [1, 1]),
            (BHS + b"BTS|0\r", [0]),
            (FHS + b"FTS|0\r", []),
            (BHS + message() + b"BTS", [1]),
            (BHS + message() + b"BTS||done|7\r", [1]),
            (BHS + b"NTE|1||nightly\r" + message() + b"BTS|001\r", [1]),
        ],
        ids=["no FHS", "no BHS", "BTS only", "empty batch", "empty file", "bare BTS", "no count", "NTE"],
    )
    def test_what_the_standard_leaves_out_may_be_left_out(self, raw: bytes, found: list[int]) -> None:
        assert [section.found for section in read(raw).sections] == found
        assert read(raw).problems == ()

    @pytest.mark.parametrize(
        ("raw", "kind"),
        [
            (BHS + message() + b"BTS|2\r", "count"),
            (BHS + message() + b"BTS|one\r", "count"),
            (BHS + message() + b"BTS|9999999999\r", "count"),
            (FHS + BHS + message() + b"BTS|1\rFTS|2\r", "count"),
            (BHS + message(), "trailer"),
            (BHS + message() + BHS + b"BTS|0\r", "trailer"),
            (FHS + BHS + message() + b"BTS|1\r", "trailer"),
            (FHS + BHS + message() + b"FTS|1\r", "trailer"),
            (BHS + message() + b"BTS|1\rBTS|1\r", "order"),
            (BHS + message() + b"BTS|1\rFTS|1\r", "order"),
            (FHS + FHS + message() + b"FTS|1\r", "order"),
            (BHS + b"PID|1\r" + message() + b"BTS|1\r", "stray"),
            (BHS + message() + b"BTS|1\rOBX|1\r", "stray"),
        ],
    )
    def test_what_is_wrong_is_said(self, raw: bytes, kind: str) -> None:
        assert kinds(raw) == [kind]

    def test_a_message_after_the_end_of_the_file_is_read_and_said(self) -> None:
        raw = FHS + BHS + message() + b"BTS|1\rFTS|1\r" + message(2)
        assert read(raw).messages == [message(1), message(2)]
        assert "order" in kinds(raw)

    def test_a_problem_names_counts_and_no_content(self) -> None:
        raw = FHS + BHS + message() + b"DOE|JOHN\rBTS|5\rFTS|DOE\r"
        assert [problem.text for problem in read(raw).problems] == [
            "BTS-1 says 5 messages, and there are 1",
            "FTS-1 is not a number of at most nine digits",
        ]

    @pytest.mark.parametrize("end", [b"\r", b"\n", b"\r\n"], ids=["CR", "LF", "CRLF"])
    def test_segments_may_end_in_any_line_end(self, end: bytes) -> None:
        raw = WHOLE.replace(b"\r", end)
        assert (len(read(raw).messages), read(raw).problems) == (3, ())
        assert read(raw).head.control_id == "F1"

    def test_envelope_and_messages_may_end_their_lines_differently(self) -> None:
        raw = BHS.replace(b"\r", b"\n") + message(1) + b"\n" + message(2) + b"\nBTS|2\n"
        assert (len(read(raw).messages), read(raw).problems) == (2, ())

    def test_a_number_is_not_of_any_length(self) -> None:
        assert [problem.text for problem in read(BHS + message() + b"BTS|0000000001\r").problems] == [
            "BTS-1 is not a number of at most nine digits"
        ]

    def test_other_delimiters_are_understood(self) -> None:
        raw = WHOLE.translate(bytes.maketrans(b"|^~\\&", b"#@!$%"))
        assert (len(read(raw).messages), read(raw).problems, read(raw).head.control_id) == (3, (), "F1")

    def test_words_that_look_like_the_envelope_stay_in_their_message(self) -> None:
        odd = message() + b"NTE|1||see BTS|x\nBTSX and FTSY\rMSHX|1\rZZZ|MSH|BHS|\r"
        assert read(BHS + odd + b"BTS|1\r").messages == [odd]

    @pytest.mark.parametrize("codec", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
    def test_wide_characters_are_cut_in_the_same_places(self, codec: str) -> None:
        text = WHOLE.decode().replace("OBX|1", "OBX|1|ĀčłŔœż")  # their low bytes spell CR, BTS and |
        raw = text.encode(codec)
        assert b"".join(piece.raw for piece in read(raw).pieces) == raw
        assert (len(read(raw).messages), read(raw).problems) == (3, ())
        assert [peek(inner).control_id for inner in read(raw).messages] == ["C1", "C2", "C3"]

    @pytest.mark.parametrize("raw", [b"", message(), b"BTS|1\r", b"FHSX", b"bhs|", b"PID|1\r" + BHS])
    def test_what_does_not_begin_with_an_envelope_is_no_batch(self, raw: bytes) -> None:
        batch = raw.startswith(b"FHS")  # by its name only; nothing can be read in it
        assert is_batch(raw) is batch
        assert (read_batch(raw) is not None) is batch

    @pytest.mark.parametrize("front", [b"\xef\xbb\xbf", b"\r\n", b"\x0b"])
    def test_junk_in_front_belongs_to_the_first_piece(self, front: bytes) -> None:
        assert read(front + WHOLE).pieces[0].raw == front + FHS
        assert read(front + WHOLE).problems == ()

    def test_ten_thousand_messages_take_no_time(self) -> None:
        raw = BHS + b"".join(map(message, range(10_000))) + b"BTS|10000\r"
        begin = time.perf_counter()
        assert len(read(raw).messages) == 10_000
        assert time.perf_counter() - begin < 1.0  # some 12 ms

    def test_many_headers_take_no_time_either(self) -> None:
        begin = time.perf_counter()
        assert len(read(b"BHS|^~\\&\n" * 50_000).sections) == 50_000
        assert time.perf_counter() - begin < 5.0  # some 0.3 s


SEGMENTS = st.sampled_from(
    [FHS, BHS, message(), b"BTS|1\r", b"BTS\n", b"FTS|1\r", b"PID|1\r", b"\n", b"MSH", b"\xff", b"BHS#@\n", b"MSH|"]
)


class TestAnything:
    @given(st.lists(SEGMENTS, max_size=12).map(b"".join), st.sampled_from([None, "utf-16-le", "utf-16", "utf-32-be"]))
    def test_the_pieces_are_the_bytes(self, tail: bytes, codec: str | None) -> None:
        for raw in (tail, BHS + tail, FHS + tail):
            raw = raw.decode("latin-1").encode(codec) if codec else raw
            batch = read_batch(raw)
            assert (batch is not None) == is_batch(raw)
            if batch is not None:
                assert b"".join(piece.raw for piece in batch.pieces) == raw
                assert sum(section.found for section in batch.sections) == len(batch.messages)

    @given(st.binary(max_size=80))
    def test_nothing_makes_it_raise(self, tail: bytes) -> None:
        for raw in (tail, BHS + tail, b"FHS" + tail, "BHS|".encode("utf-16") + tail):
            read_batch(raw)
            assert peek(acknowledge(peek_batch(raw), "AA", control_id="1", at=0)).ok
            assert is_batch(acknowledge_batch(peek_batch(raw), [], control_id="1", at=0))


class TestAnswering:
    def test_a_batch_has_a_header_like_a_messages(self) -> None:
        head = peek_batch(WHOLE)
        assert head.head == (b"ACME", b"LAB", b"EMR", b"CLINIC")
        assert (head.control_id, head.version, head.processing, head.charset) == ("F1", "2.4", "T", "8859/1")
        assert (head.type, head.trigger) == ("ORU", "")

    def test_a_batch_of_acknowledgements_is_never_acknowledged(self) -> None:
        single = [acknowledge(peek(one), "AA", control_id="K1", at=0) for one in read(WHOLE).messages]
        reply = acknowledge_batch(peek_batch(WHOLE), single, control_id="K2", at=0)
        assert is_acknowledgement(peek_batch(reply))
        assert not is_acknowledgement(peek_batch(WHOLE))

    def test_the_batchs_own_header_counts_where_the_files_says_nothing(self) -> None:
        head = peek_batch(b"FHS|^~\\&\r" + BHS + message())
        assert head.head == (b"ACME2", b"LAB2", b"EMR2", b"CLINIC2")
        assert head.control_id == "B1"

    def test_only_the_first_batchs_header_counts(self) -> None:
        assert peek_batch(b"FHS|^~\\&\rBHS|^~\\&\rBTS|0\r" + BHS).control_id is None

    def test_what_would_break_the_answer_is_not_borrowed(self) -> None:
        head = peek_batch(b"FHS#@!$%#\r" + BHS.replace(b"ACME2", b"AC#ME").replace(b"B1", b"B#1") + message())
        assert head.control_id is None
        assert head.head == (b"", b"LAB2", b"EMR2", b"CLINIC2")

    @pytest.mark.parametrize("raw", [b"", message(), b"FHS", b"BHS||"])
    def test_without_a_readable_envelope_there_is_no_header(self, raw: bytes) -> None:
        assert not peek_batch(raw).ok

    def test_one_answer_for_all(self) -> None:
        answer = acknowledge(peek_batch(WHOLE), "AA", control_id="K1", at="20260304")
        assert answer == (b"MSH|^~\\&|EMR|CLINIC|ACME|LAB|20260304||ACK|K1|T|2.4||||||8859/1\rMSA|AA|F1\r")

    def test_one_reply_of_many_answers(self) -> None:
        single = [acknowledge(peek(one), "AA", control_id="K1", at="20260304") for one in read(WHOLE).messages]
        reply = acknowledge_batch(peek_batch(WHOLE), single, control_id="K2", at="20260304")
        assert reply == (b"BHS|^~\\&|EMR|CLINIC|ACME|LAB|20260304||||K2|F1\r" + b"".join(single) + b"BTS|3\r")
        assert [parse_ack(one).control_id for one in read(reply).messages] == ["C1", "C2", "C3"]  # type: ignore[union-attr]
        assert read(reply).problems == ()

    def test_a_reply_without_answers_says_that_all_is_well(self) -> None:
        reply = acknowledge_batch(peek_batch(WHOLE), [], control_id="K2", at="20260304")
        assert reply == b"BHS|^~\\&|EMR|CLINIC|ACME|LAB|20260304||||K2|F1\rBTS|0\r"

    @pytest.mark.parametrize("codec", ["utf-16", "utf-16-be", "utf-32"])
    def test_a_reply_is_in_the_characters_of_the_batch(self, codec: str) -> None:
        batch = read(WHOLE.decode().encode(codec))
        single = [acknowledge(peek(one), "AA", control_id="K1", at="20260304") for one in batch.messages]
        reply = acknowledge_batch(batch.head, single, control_id="K2", at="20260304")
        narrow = [acknowledge(peek(one), "AA", control_id="K1", at="20260304") for one in read(WHOLE).messages]
        assert reply.decode(codec).encode() == acknowledge_batch(
            peek_batch(WHOLE), narrow, control_id="K2", at="20260304"
        )


class TestPeer:
    @given(st.lists(st.integers(0, 3), max_size=4), st.booleans())
    def test_python_hl7_finds_the_same_messages(self, sizes: list[int], file: bool) -> None:
        """It reads one batch without an envelope of the file, or a file of batches."""
        sizes = sizes if file else [2]
        batches = [BHS + b"".join(map(message, range(size))) + b"BTS|%d\r" % size for size in sizes]
        raw = FHS + b"".join(batches) + b"FTS|%d\r" % len(sizes) if file else batches[0]
        batch = read(raw)
        theirs = hl7.parse_file(raw.decode()) if file else [hl7.parse_batch(raw.decode())]
        assert [section.found for section in batch.sections] == [len(list(one)) for one in theirs] == sizes
        inner = [str(one).encode() for part in theirs for one in part]
        assert [one.rstrip(b"\r") for one in batch.messages] == [one.rstrip(b"\r") for one in inner]

    def test_python_hl7_reads_the_reply(self) -> None:
        single = [acknowledge(peek(one), "AE", control_id="K1", at=0) for one in read(WHOLE).messages]
        theirs = hl7.parse_batch(acknowledge_batch(peek_batch(WHOLE), single, control_id="K2", at=0).decode())
        assert [str(one["MSA"][0][2]) for one in theirs] == ["C1", "C2", "C3"]
        assert (str(theirs.header[11]), str(theirs.header[12]), str(theirs.trailer[1])) == ("K2", "F1", "3")

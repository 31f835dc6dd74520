"""Rules of engine.hl7.ack, with python-hl7 and hl7apy as independent readers and writers."""

from __future__ import annotations

import hl7
import pytest
from hl7apy.parser import parse_message
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.config.edge import AckError as ErrForm
from engine.config.edge import AckForm, AckType
from engine.hl7.ack import CONDITIONS, PLAIN, AckCode, AckError, Answer, acknowledge, answers, parse_ack
from engine.hl7.peek import peek

NOW = "20260304050607+0000"
CODES: tuple[AckCode, ...] = ("AA", "AE", "AR", "CA", "CE", "CR")
MISSING = AckError(101, "PID-5 is missing", "PID", 1, 5)


def message(version: bytes = b"2.5.1", charset: bytes = b"", kind: bytes = b"ORU^R01") -> bytes:
    return b"MSH|^~\\&|ACME|LAB|EMR|CLINIC|20260102030405||%b|AC0001|P|%b||||||%b\rPID|1\r" % (kind, version, charset)


def answer(
    to: bytes, code: AckCode = "AA", error: AckError | None = None, at: float | str = NOW, form: AckForm = PLAIN
) -> bytes:
    return acknowledge(peek(to), code, control_id="ILK7", at=at, error=error, form=form)


class TestForm:
    def test_the_plain_answer(self) -> None:
        assert answer(message()) == (
            b"MSH|^~\\&|EMR|CLINIC|ACME|LAB|20260304050607+0000||ACK^R01^ACK|ILK7|P|2.5.1\rMSA|AA|AC0001\r"
        )

    @pytest.mark.parametrize(
        ("version", "kind"),
        [
            (b"2.1", b"ACK"),
            (b"2.2", b"ACK"),
            (b"2.3", b"ACK^R01"),
            (b"2.3.1", b"ACK^R01"),
            (b"2.4", b"ACK^R01^ACK"),
            (b"2.5.1", b"ACK^R01^ACK"),
            (b"2.5^USA", b"ACK^R01^ACK"),
            (b"2.8", b"ACK^R01^ACK"),
            (b"2.10", b"ACK^R01^ACK"),
            (b"", b"ACK^R01"),
            (b"two", b"ACK^R01"),
            (b"2.x", b"ACK^R01"),
        ],
    )
    def test_msh_9_is_of_the_senders_version(self, version: bytes, kind: bytes) -> None:
        fields = answer(message(version)).split(b"\r")[0].split(b"|")
        assert fields[8] == kind
        assert fields[11:12] == [version]

    def test_without_a_trigger_msh_9_is_only_ack(self) -> None:
        assert answer(message(kind=b"ORU")).split(b"|")[8] == b"ACK"

    def test_processing_id_and_charset_are_mirrored_whole(self) -> None:
        to = message(charset=b"8859/1~UNICODE UTF-8").replace(b"|P|", b"|T^A|")
        fields = answer(to).split(b"\r")[0].split(b"|")
        assert (fields[10], fields[17], len(fields)) == (b"T^A", b"8859/1~UNICODE UTF-8", 18)

    def test_delimiters_are_the_senders(self) -> None:
        to = message().translate(bytes.maketrans(b"|^~\\&", b"#@!$%"))
        assert answer(to) == (
            b"MSH#@!$%#EMR#CLINIC#ACME#LAB#20260304050607+0000##ACK@R01@ACK#ILK7#P#2.5.1\rMSA#AA#AC0001\r"
        )

    @pytest.mark.parametrize(("bar", "time", "own"), [(b"+", b"20260304050607", b"1.2"), (b".", NOW.encode(), b"12")])
    def test_a_separator_that_stands_in_what_is_ours_is_left_out_of_it(
        self, bar: bytes, time: bytes, own: bytes
    ) -> None:
        to = message().replace(b"2.5.1", b"25").replace(b"|", bar)
        fields = acknowledge(peek(to), "AA", control_id="1.2", at=NOW).split(b"\r")[0].split(bar)
        assert (fields[6], fields[9], fields[11]) == (time, own, b"25")

    def test_seconds_since_1970_become_a_time_stamp(self) -> None:
        assert answer(message(), at=1_772_600_767.9).split(b"|")[6] == b"20260304050607+0000"

    @given(st.binary(max_size=30).filter(lambda b: not set(b) & set(b"\r\n|")))
    def test_msa_2_is_the_control_id_byte_for_byte(self, control_id: bytes) -> None:
        answered = answer(message().replace(b"AC0001", control_id))
        assert answered.endswith(b"\rMSA|AA|" + control_id + b"\r")

    @pytest.mark.parametrize("frame", [b"", b"\x16\x03\x01", b"PID|1\r", b"MSH|", b"FHS|^~\\&|X\r"])
    def test_without_a_readable_header_the_answer_is_in_the_standards_form(self, frame: bytes) -> None:
        assert answer(frame, "AR").endswith(b"||ACK|ILK7|P|2.3\rMSA|AR|\r")
        assert peek(answer(frame, "AR")).ok

    @given(st.binary(max_size=80), st.sampled_from(CODES))
    def test_whatever_comes_can_be_answered(self, tail: bytes, code: AckCode) -> None:
        for frame in (tail, b"MSH" + tail, b"MSH|^~\\&|" + tail):
            for error in (None, MISSING):
                it = peek(frame)
                answered = acknowledge(it, code, control_id="X", at=NOW, error=error)
                assert peek(answered).ok
                assert b"\n" not in answered
                assert answered.count(b"\r") == (2 if error is None else 3)


class TestPartner:
    """What a partner's form changes."""

    def test_the_plain_form_is_the_one_that_configuration_begins_with(self) -> None:
        assert answer(message(), "AE", MISSING, form=AckForm()) == answer(message(), "AE", MISSING)

    @pytest.mark.parametrize(("code", "said"), [("AA", b"CA"), ("AE", b"AE"), ("AR", b"AE")])
    def test_a_code_stands_for_another(self, code: AckCode, said: bytes) -> None:
        form = AckForm(codes={"AA": "CA", "AR": "AE"})
        assert answer(message(), code, form=form).split(b"\r")[1] == b"MSA|" + said + b"|AC0001"

    @pytest.mark.parametrize(
        ("kind", "field"), [("ACK", b"ACK"), ("ACK^trigger", b"ACK^R01"), ("ACK^trigger^ACK", b"ACK^R01^ACK")]
    )
    @pytest.mark.parametrize("version", [b"2.2", b"2.3", b"2.8"])
    def test_msh_9_is_of_the_form_whatever_the_version(self, version: bytes, kind: AckType, field: bytes) -> None:
        assert answer(message(version), form=AckForm(kind=kind)).split(b"|")[8] == field

    def test_a_form_with_a_trigger_needs_one(self) -> None:
        assert answer(message(kind=b"ORU"), form=AckForm(kind="ACK^trigger^ACK")).split(b"|")[8] == b"ACK"

    def test_err_of_v23_whatever_the_version(self) -> None:
        assert answer(message(b"2.8"), "AE", MISSING, form=AckForm(err="2.3")).split(b"\r", 1)[1] == (
            b"MSA|AE|AC0001|PID-5 is missing\rERR|PID^1^5^101&Required field missing&HL70357\r"
        )

    def test_err_of_v25_whatever_the_version(self) -> None:
        assert answer(message(b"2.3"), "AE", MISSING, form=AckForm(err="2.5")).split(b"\r", 1)[1] == (
            b"MSA|AE|AC0001\rERR||PID^1^5|101^Required field missing^HL70357|E||||PID-5 is missing\r"
        )

    @pytest.mark.parametrize("version", [b"2.3", b"2.8"])
    def test_without_err_the_text_is_in_msa_3(self, version: bytes) -> None:
        assert answer(message(version), "AE", MISSING, form=AckForm(err="none")).split(b"\r", 1)[1] == (
            b"MSA|AE|AC0001|PID-5 is missing\r"
        )

    @pytest.mark.parametrize("version", [b"2.3", b"2.8"])
    @pytest.mark.parametrize("err", ["auto", "none"])
    def test_a_partner_may_want_no_text(self, version: bytes, err: ErrForm) -> None:
        assert b"PID-5 is missing" in answer(message(version), "AE", MISSING, form=AckForm(err=err))
        assert b"PID-5 is missing" not in answer(message(version), "AE", MISSING, form=AckForm(err=err, text=False))


class TestWide:
    """An answer is in the characters of its sender (2.9.2.2)."""

    @pytest.mark.parametrize("codec", ["utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"])
    @pytest.mark.parametrize("mark", ["", "\ufeff"])
    def test_a_wide_message_gets_a_wide_answer(self, codec: str, mark: str) -> None:
        to = (mark + message().decode().replace("ACME", "ĀCME")).encode(codec)
        assert answer(to, "AE", MISSING).decode(codec) == mark + (
            "MSH|^~\\&|EMR|CLINIC|ĀCME|LAB|20260304050607+0000||ACK^R01^ACK|ILK7|P|2.5.1\rMSA|AE|AC0001\r"
            "ERR||PID^1^5|101^Required field missing^HL70357|E||||PID-5 is missing\r"
        )

    @pytest.mark.parametrize("codec", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-be"])
    def test_a_wide_answer_is_read(self, codec: str) -> None:
        frame = "MSH|^~\\&|A\rMSA|AE|Ω7\rERR|||206^locked\r".encode(codec)
        read = parse_ack(frame)
        assert read is not None
        assert (read.code, read.error) == ("AE", "206")
        assert read.control_id == peek("MSH|^~\\&|A|||||||Ω7".encode(codec)).control_id == answers(frame)


class TestError:
    def test_from_v25_place_code_severity_and_text_have_fields_of_their_own(self) -> None:
        assert answer(message(b"2.5"), "AE", MISSING).split(b"\r", 1)[1] == (
            b"MSA|AE|AC0001\rERR||PID^1^5|101^Required field missing^HL70357|E||||PID-5 is missing\r"
        )

    @pytest.mark.parametrize("version", [b"2.2", b"2.3", b"2.4"])
    def test_before_v25_place_and_code_are_in_err_1_and_the_text_in_msa_3(self, version: bytes) -> None:
        assert answer(message(version), "AE", MISSING).split(b"\r", 1)[1] == (
            b"MSA|AE|AC0001|PID-5 is missing\rERR|PID^1^5^101&Required field missing&HL70357\r"
        )

    def test_an_error_without_a_place_or_text(self) -> None:
        bare = AckError(207)
        assert answer(message(b"2.5"), "AE", bare).split(b"\r")[2] == b"ERR|||207^Application error^HL70357|E"
        assert answer(message(b"2.3"), "AE", bare).split(b"\r")[2] == b"ERR|^^^207&Application error&HL70357"

    def test_a_text_cannot_break_the_answer(self) -> None:
        nasty = AckError(207, "a|b^c~d\\e&f\rMSA|AA|x\n\x1cé")
        answered = answer(message(b"2.5"), "AE", nasty)
        assert answered.split(b"\r")[2].endswith(b"|a\\F\\b\\S\\c\\R\\d\\E\\e\\T\\f MSA\\F\\AA\\F\\x  ?")
        assert answered.count(b"\r") == 3

    def test_without_an_escape_character_delimiters_become_blanks(self) -> None:
        to = message(b"2.5").replace(b"^~\\&", b"^~", 1)
        assert answer(to, "AE", AckError(207, "a|b^c~d\\e")).split(b"\r")[2].endswith(b"|a b c d\\e")

    def test_every_condition_of_the_table_has_its_words(self) -> None:
        assert all(AckError(code).condition == words for code, words in CONDITIONS.items())
        assert AckError(299).condition == "Application error"


class TestRead:
    @pytest.mark.parametrize("code", CODES)
    @pytest.mark.parametrize("version", [b"2.2", b"2.3", b"2.4", b"2.5.1", b"2.8"])
    def test_what_is_written_is_read(self, code: AckCode, version: bytes) -> None:
        error = None if code[1] == "A" else MISSING
        assert parse_ack(answer(message(version), code, error)) == Answer(code, "AC0001", error and "101")

    @pytest.mark.parametrize("end", [b"\r", b"\n", b"\r\n"], ids=["CR", "LF", "CRLF"])
    def test_segments_may_end_in_any_line_end(self, end: bytes) -> None:
        frame = b"MSH|^~\\&|A\rMSA|AE|7\rERR|||206^locked\r".replace(b"\r", end)
        assert parse_ack(frame) == Answer("AE", "7", "206")

    def test_the_last_segment_may_lack_its_end(self) -> None:
        assert parse_ack(b"MSH|^~\\&|A\rMSA|AA|7") == Answer("AA", "7", None)

    def test_msa_may_follow_other_segments(self) -> None:
        assert parse_ack(b"MSH|^~\\&|A\rSFT|x\rMSA|AR|7\r") == Answer("AR", "7", None)

    @pytest.mark.parametrize("field", [b"AA ", b" aa", b"Aa", b"AA^0"])
    def test_a_code_may_be_padded_in_small_letters_or_a_component(self, field: bytes) -> None:
        assert parse_ack(b"MSH|^~\\&|A\rMSA|" + field + b"|7\r") == Answer("AA", "7", None)

    def test_a_code_outside_the_table_is_read_as_it_is(self) -> None:
        assert parse_ack(b"MSH|^~\\&|A\rMSA|ok|7\rERR|||207\r") == Answer("OK", "7", "207")

    def test_a_lf_inside_msa_does_not_hide_the_next_segment(self) -> None:
        assert parse_ack(b"MSH|^~\\&|A\rMSA|AE|7\nERR|||206\r") == Answer("AE", "7", "206")

    @pytest.mark.parametrize(("theirs", "same"), [("7", True), (" 7 ", True), ("07", False), ("", False)])
    def test_blanks_around_msa_2_do_not_count(self, theirs: str, same: bool) -> None:
        read = parse_ack(f"MSH|^~\\&|A\rMSA|AA|{theirs}\r".encode())
        assert read is not None
        assert read.is_for("7") is same
        assert read.is_for("7  ") is same

    def test_other_delimiters_are_understood(self) -> None:
        assert parse_ack(b"MSH#@!$%#A\rMSA#CE#7\rERR#@@@204%x\r") == Answer("CE", "7", "204")

    @pytest.mark.parametrize(
        ("segments", "error"),
        [
            (b"MSA|AE|7||||207^Application error", "207"),
            (b"MSA|AE|7\rERR|PID^1^5^102&x", "102"),
            (b"MSA|AE|7\rERR||PID^1|E99^DOE JOHN", None),
            (b"MSA|AE|7|DOE JOHN", None),
        ],
    )
    def test_a_code_is_a_number_and_texts_are_left(self, segments: bytes, error: str | None) -> None:
        assert parse_ack(b"MSH|^~\\&|A\r" + segments + b"\r") == Answer("AE", "7", error)

    @pytest.mark.parametrize(
        "frame",
        [
            b"",
            b"MSH",
            b"MSH|^~\\&|A\r",
            b"MSH|^~\\&|A\rMSA|NOT A CODE|7\r",
            b"MSH|^~\\&|A\rMSA|DOE-ROE|7\r",
            b"MSH|^~\\&|A\rMSA|TOOLONGFORACODE|7\r",
            b"MSH|^~\\&|A\rMSA||7\r",
            b"MSH|^~\\&|A\rMSA\r",
            b"MSA|AA|7\r",
            b"HTTP/1.1 400 Bad Request\r\n",
            b"MSH|^~\\&|A\rNTE|1||MSA|AA|7\r",
        ],
    )
    def test_what_is_no_acknowledgement(self, frame: bytes) -> None:
        assert parse_ack(frame) is None

    @given(st.binary(max_size=60))
    def test_nothing_makes_it_raise(self, tail: bytes) -> None:
        for frame in (tail, b"MSH" + tail, b"MSH|^~\\&|A\rMSA|AE|" + tail, b"MSH|^~\\&|A\rMSA|AE|7\rERR|" + tail):
            parse_ack(frame)


class TestAnswers:
    @pytest.mark.parametrize("end", [b"\r", b"\n", b"\r\n"], ids=["CR", "LF", "CRLF"])
    @pytest.mark.parametrize("between", [b"", b"SFT|x\r", b"SFT|x\rUAC|y\r"])
    def test_msa_2_is_read_where_msa_follows_the_header(self, end: bytes, between: bytes) -> None:
        frame = b"MSH|^~\\&|A||||||RSP^K11\r" + between + b"MSA|whatever|7\rQAK|1\r"
        assert answers(frame.replace(b"\r", end)) == "7"

    @pytest.mark.parametrize(
        "frame",
        [
            b"",
            b"MSH",
            b"MSH|^~\\&|A\r",
            b"MSA|AA|7\r",
            b"MSH|^~\\&|A\rPID|1\rMSA|AA|7\r",
            b"MSH|^~\\&|A\rMSA^AA^7\r",
            b"MSH|^~\\&|A\rMSAX|AA|7\r",
        ],
    )
    def test_other_frames_answer_nothing(self, frame: bytes) -> None:
        assert answers(frame) is None

    def test_an_msa_may_name_no_message(self) -> None:
        assert answers(b"MSH|^~\\&|A\rMSA\r") == answers(b"MSH|^~\\&|A\rMSA|AA\r") == ""


class TestPeers:
    @pytest.mark.parametrize("version", [b"2.3", b"2.4", b"2.5.1"])
    def test_python_hl7_writes_the_same_answer_where_it_writes_any(self, version: bytes) -> None:
        theirs = hl7.parse(message(version).decode()).create_ack("AA", "ILK7")
        ours = hl7.parse(answer(message(version)).decode())
        for field in (1, 2, 3, 4, 5, 6, 10, 11, 12):
            assert str(ours.segment("MSH")[field]) == str(theirs.segment("MSH")[field])
        assert str(ours.segment("MSA")) == str(theirs.segment("MSA"))
        assert str(theirs.segment("MSH")[9][0][0]) == str(ours.segment("MSH")[9][0][0]) == "ACK"
        assert parse_ack(str(theirs).encode()) == parse_ack(answer(message(version)))

    @pytest.mark.parametrize("version", ["2.2", "2.3", "2.3.1", "2.4", "2.5", "2.5.1", "2.6"])
    def test_hl7apy_finds_the_answer_in_order(self, version: str) -> None:
        for code, error in (("AA", None), ("AE", MISSING)):
            parsed = parse_message(answer(message(version.encode()), code, error).decode(), find_groups=False)  # type: ignore[arg-type]
            assert parsed.msh.msh_12.value == version
            assert (parsed.msa.msa_1.value, parsed.msa.msa_2.value) == (code, "AC0001")
            parsed.msh.validate()
            parsed.msa.validate()

    @settings(deadline=None)  # hl7apy loads each version's dictionary when it is first asked for
    @given(
        st.sampled_from(["2.1", "2.2", "2.3", "2.3.1", "2.4", "2.5", "2.5.1", "2.6", "2.7", "2.8"]),
        st.sampled_from(CODES),
        st.sampled_from(["auto", "ACK", "ACK^trigger", "ACK^trigger^ACK"]),
        st.sampled_from(["auto", "none", "2.3", "2.5"]),
        st.booleans(),
    )
    def test_every_form_is_a_message_to_both(
        self, version: str, code: AckCode, kind: AckType, err: ErrForm, text: bool
    ) -> None:
        form = AckForm(kind=kind, err=err, text=text)
        whole = answer(message(version.encode()), code, MISSING, form=form).decode()
        theirs = hl7.parse(whole)
        assert [str(segment[0]) for segment in theirs] == ["MSH", "MSA", *([] if err == "none" else ["ERR"])]
        assert (str(theirs["MSA"][0][1]), str(theirs["MSA"][0][2])) == (code, "AC0001")
        parsed = parse_message(whole, find_groups=False)
        assert parsed.msh.msh_9.msh_9_1.value == "ACK"
        assert (parsed.msa.msa_1.value, parsed.msa.msa_2.value) == (code, "AC0001")
        assert len(parsed.err) == (err != "none")

    @pytest.mark.parametrize("version", ["2.5", "2.5.1", "2.6"])
    def test_hl7apy_finds_the_error_in_its_fields(self, version: str) -> None:
        parsed = parse_message(answer(message(version.encode()), "AE", MISSING).decode(), find_groups=False)
        assert parsed.err.err_2.value == "PID^1^5"
        assert parsed.err.err_3.value == "101^Required field missing^HL70357"
        assert (parsed.err.err_4.value, parsed.err.err_8.value) == ("E", "PID-5 is missing")

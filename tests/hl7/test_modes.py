"""Who wants which answer, and what is never answered."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.config.edge import AckMode
from engine.hl7.ack import AckCode, acknowledge
from engine.hl7.modes import ALWAYS, NEVER, ORIGINAL, Wanted, When, accept_code, is_acknowledgement, wanted
from engine.hl7.peek import Peek, peek


def header(accept: str = "", application: str = "", kind: str = "ORU^R01") -> Peek:
    return peek(f"MSH|^~\\&|||||||{kind}|7|P|2.5|||{accept}|{application}\r".encode())


ON_ERROR, ON_SUCCESS = When(False, True), When(True, False)


@pytest.mark.parametrize(
    ("accept", "application", "mode", "told"),
    [
        ("", "", "auto", ORIGINAL),
        ("", "", "original", ORIGINAL),
        ("", "", "enhanced", Wanted(True, ALWAYS, NEVER)),
        ("AL", "NE", "auto", Wanted(True, ALWAYS, NEVER)),
        ("AL", "NE", "original", ORIGINAL),
        ("NE", "NE", "auto", Wanted(True, NEVER, NEVER)),
        ("NE", "NE", "original", ORIGINAL),
        ("ER", "SU", "auto", Wanted(True, ON_ERROR, ON_SUCCESS)),
        ("", "AL", "auto", Wanted(True, NEVER, ALWAYS)),
        ("AL", "", "enhanced", Wanted(True, ALWAYS, NEVER)),
        ("er ", "Su", "auto", Wanted(True, ON_ERROR, ON_SUCCESS)),
        ("AL^x", "NE~AL", "auto", Wanted(True, ALWAYS, NEVER)),
        (" ", "", "auto", ORIGINAL),
        ("??", "ER", "auto", Wanted(True, ALWAYS, ON_ERROR)),
    ],
)
def test_the_table(accept: str, application: str, mode: AckMode, told: Wanted) -> None:
    assert wanted(header(accept, application), mode) == told


@pytest.mark.parametrize(
    "raw", [b"", b"MSH|^~\\&|A\r", b"MSH|^~\\&||||||||7|P|2.5|||\r", b"MSH|^~\\&||||||||7|P|2.5|||AL\r"]
)
def test_a_short_header_says_what_it_says(raw: bytes) -> None:
    asks = Wanted(True, ALWAYS, NEVER)
    assert wanted(peek(raw), "auto") == (asks if b"AL" in raw else ORIGINAL)
    assert wanted(peek(raw), "enhanced") == asks


def test_in_original_mode_the_application_always_answers() -> None:
    assert not ORIGINAL.enhanced
    assert [ORIGINAL.accept.on(ok) or ORIGINAL.application.on(ok) for ok in (True, False)] == [True, True]
    assert ORIGINAL.accept == NEVER


def test_a_condition_is_of_success_or_of_error() -> None:
    assert [ON_SUCCESS.on(True), ON_SUCCESS.on(False)] == [True, False]
    assert [ON_ERROR.on(True), ON_ERROR.on(False)] == [False, True]


def test_accept_codes() -> None:
    codes: tuple[AckCode, ...] = ("AA", "AE", "AR", "CA", "CE", "CR")
    assert [accept_code(code) for code in codes] == ["CA", "CE", "CR", "CA", "CE", "CR"]


@pytest.mark.parametrize(
    ("frame", "answer"),
    [
        (b"MSH|^~\\&|||||||ACK^R01|7\rMSA|AA|6\r", True),
        (b"MSH|^~\\&|||||||ACK|7\r", True),
        (b"MSH|^~\\&|||||||MCF^Q05|7\rMSA|AA|6\r", True),
        (b"MSH|^~\\&|||||||RSP^K11|7\rMSA|AA|6\rQAK|1\r", True),
        (b"MSH|^~\\&|||||||ORR^O02|7\nSFT|x\nMSA|AA|6\n", True),
        (b"MSH|^~\\&|||||||ORU^R01|7\rPID|1\rMSA|AA|6\r", False),
        (b"MSH|^~\\&|||||||ORU^R01|7\r", False),
        (b"MSA|AA|6\r", False),
        (b"", False),
    ],
)
def test_what_answers_a_message_is_never_answered(frame: bytes, answer: bool) -> None:
    assert is_acknowledgement(peek(frame), frame) is answer


def test_without_the_frame_only_the_type_decides() -> None:
    assert is_acknowledgement(header(kind="ACK"))
    assert is_acknowledgement(header(kind="MCF"))
    assert not is_acknowledgement(header(kind="RSP^K11"))


@given(st.binary(max_size=60))
def test_whatever_comes_our_answer_to_it_is_one(tail: bytes) -> None:
    for frame in (tail, b"MSH|^~\\&|" + tail, "MSH|^~\\&|".encode("utf-16") + tail):
        wanted(peek(frame), "auto")
        is_acknowledgement(peek(frame), frame)
        ours = acknowledge(peek(frame), "AA", control_id="1", at=0)
        assert is_acknowledgement(peek(ours), ours)

"""Whether a frame may be taken: one message in it, and only one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.hl7.peek import peek
from engine.intake.judge import LONG, SECOND, Rules, judge

RULES = Rules(None, lambda raw: True)
HEAD = "MSH|^~\\&|LAB|F|EMR|C|20260101||ORU^R01|M1|P|2.3"


def flaw(frame: bytes) -> object:
    return judge(peek(frame), frame, RULES)


ENDS = ("\r", "\n", "\r\n", "\r\r", "\r\n\r\n")
FORMS = ("ascii", "utf-16", "utf-32-be")
IN_FRONT = ("", "\r", "\r\n", "\n", " ")


@pytest.mark.parametrize("long", [False, True])
@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("form", FORMS)
def test_a_second_header_is_a_flaw_however_the_frame_is_written(form: str, end: str, long: bool) -> None:
    rest = f"{end}OBX|1|TX|R||{'x' * LONG * long}{end}"
    assert flaw((HEAD + rest + HEAD + rest).encode(form)) is SECOND
    assert flaw((HEAD + rest).encode(form)) is None


@pytest.mark.parametrize("front", IN_FRONT)
@pytest.mark.parametrize("end", ENDS)
def test_what_stands_before_the_first_header_does_not_make_it_the_second(front: str, end: str) -> None:
    assert flaw((front + HEAD + end + "PID|1||7" + end).encode()) is None
    assert flaw((front + HEAD + end + HEAD + end).encode()) is SECOND


TEXTS = st.text(st.sampled_from("MSH|PID^ \n"), max_size=30)


@given(fields=st.lists(TEXTS, min_size=1, max_size=8), long=st.booleans())
def test_msh_within_a_segment_is_no_header(fields: list[str], long: bool) -> None:
    """Where CR ends the segments, a line feed and whatever follows it is text."""
    lines = "".join(f"OBX|1|TX|R||{text}\r" for text in [*fields, "x" * LONG * long])
    assert flaw(f"{HEAD}\r{lines}".encode()) is None
    assert flaw(f"{HEAD}\r{lines}{HEAD}\r{lines}".encode()) is SECOND


def test_other_delimiters_and_a_name_that_only_begins_so() -> None:
    other = HEAD.replace("|", "#")
    assert flaw(f"{other}\rMSH#x\r".encode()) is SECOND
    assert flaw(f"{other}\rMSH|x\r".encode()) is None
    assert flaw(f"{HEAD}\rMSHX|1\r".encode()) is None

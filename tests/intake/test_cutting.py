"""The messages of a file: cut at its headers, not a byte lost or added."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.intake.cutting import Unreadable, cut
from engine.mllp.framing import encode

A = b"MSH|^~\\&|LAB||||||ORU^R01|1|P|2.5\rPID|1||7\r"
B = b"MSH|^~\\&|LAB||||||ORU^R01|2|P|2.5\rOBX|1|TX|||see MSH|below\r"
BATCH = b"FHS|^~\\&|LAB\rBHS|^~\\&|LAB\r" + A + B + b"BTS|2\rFTS|1\r"


@pytest.mark.parametrize("end", [b"\r", b"\n", b"\r\n"])
@pytest.mark.parametrize("between", [b"", b"\r\n", b"\n\n", b"  \n"])
def test_a_message_begins_at_a_line_that_begins_with_msh(end: bytes, between: bytes) -> None:
    first, second = (each.replace(b"\r", end) + between for each in (A, B))
    assert cut(first + second) == [first, second]


@pytest.mark.parametrize("before", [b"\xef\xbb\xbf", b"\r\n", b"  ", b"\0\0"])
def test_what_means_nothing_in_front_of_the_first_stays_with_it(before: bytes) -> None:
    assert cut(before + A + B) == [before + A, B]


def test_a_message_without_a_last_line_end_is_one() -> None:
    assert cut(A.rstrip()) == [A.rstrip()]


@pytest.mark.parametrize("other", [b"MSHX|1\r", b"MSH\r", b"ZMSH|1\r", b" MSH|1\r"])
def test_a_line_that_only_looks_like_a_header_begins_nothing(other: bytes) -> None:
    assert cut(A + other) == [A + other]


@pytest.mark.parametrize("separator", [b"#", b"\x07", b"\xa7"])
def test_any_field_separator_will_do(separator: bytes) -> None:
    files = [each.replace(b"|", separator) for each in (A, B)]
    assert cut(b"".join(files)) == files


@pytest.mark.parametrize("data", [BATCH, BATCH.replace(b"\r", b"\r\n"), b"\r\n" + BATCH, BATCH[BATCH.index(b"BHS") :]])
def test_a_batch_stays_whole(data: bytes) -> None:
    assert cut(data) == [data]


def test_mllp_blocks_are_unwrapped() -> None:
    assert cut(encode(A) + encode(B)) == [A, B]
    assert cut(b"\r\n" + encode(A) + b"\n\n" + encode(B) + b"\n") == [A, B]
    assert cut(encode(BATCH)) == [BATCH]


@pytest.mark.parametrize("codec", ["utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"])
def test_wide_characters_are_cut_at_characters(codec: str) -> None:
    first, second = A.decode(), B.decode().replace("7", "ü")
    mark = "\ufeff".encode(codec)
    assert cut(mark + (first + second).encode(codec)) == [mark + first.encode(codec), second.encode(codec)]
    assert cut((first + second).encode(codec)) == [first.encode(codec), second.encode(codec)]


def test_wide_characters_whose_halves_look_like_a_header_begin_nothing() -> None:
    data = (A.decode() + "\u0a41\u4d00\u5300\u4800\u4100\r").encode("utf-16-le")
    assert "\nMSH".encode("utf-16-le") in data
    assert cut(data) == [data]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "nothing is in it"),
        (b" \r\n\0", "nothing is in it"),
        (b"name;value\n1;2\n", "does not begin with MSH"),
        (b"OBX|1|TX|the end of another\r" + A, "does not begin with MSH"),
        (b"<xml/>", "does not begin with MSH"),
        (b"MSHX|", None),
        (A + b"\x1c\r", "0x1C"),
        (encode(A)[:-2], "has no end"),
        (encode(A)[:-2] + encode(B), "has no end before the next"),
        (encode(A) + encode(b"") + encode(B), "nothing in it"),
        (encode(A) + b"rest" + encode(B), "bytes between"),
        (encode(A) + b"DOE^JANE", "bytes between"),
    ],
)
def test_a_file_that_does_not_consist_of_messages_is_unreadable(data: bytes, said: str | None) -> None:
    if said is None:
        assert cut(data) == [data]  # its header is for the judge
        return
    with pytest.raises(Unreadable, match=said) as refused:
        cut(data)
    assert "DOE" not in str(refused.value)


@given(
    st.binary(max_size=200)
    | st.lists(st.sampled_from([A, B, b"\r", b"\n", b"x", b"\xff\xfe", b"\0", b"\x0b", b"\x1c\r"])).map(b"".join)
)
def test_put_together_the_messages_are_the_file(data: bytes) -> None:
    try:
        messages = cut(data)
    except Unreadable:
        return
    if b"\x0b" not in data:
        assert b"".join(messages) == data
    assert all(messages)


@given(st.lists(st.sampled_from([A, B, A.replace(b"\r", b"\n")]), min_size=1, max_size=30))
def test_as_many_come_out_as_were_put_in(messages: list[bytes]) -> None:
    assert cut(b"".join(messages)) == messages
    assert cut(b"".join(map(encode, messages))) == messages

"""Wide characters: known by their first bytes, and written back as they came."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.hl7.wide import narrow, wide_form, widen

CODECS = ["utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"]


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("name", ["MSH", "FHS", "BHS"])
def test_the_first_letters_tell_the_form(codec: str, name: str) -> None:
    form = wide_form(f"{name}|".encode(codec))
    assert form is not None
    assert (form.codec, form.size, form.mark) == (codec, 4 if "32" in codec else 2, b"")


@pytest.mark.parametrize("codec", CODECS)
def test_a_mark_tells_the_form_whatever_follows(codec: str) -> None:
    form = wide_form("\ufeffx".encode(codec))
    assert form is not None
    assert (form.codec, form.mark) == (codec, "\ufeff".encode(codec))


@pytest.mark.parametrize(
    "raw", [b"", b"M", b"MSH|^~\\&|", b"\0\0MSH|", b"\xef\xbb\xbfMSH|", b"P\0I\0D\0", b"\xff\xffM"]
)
def test_other_bytes_are_narrow(raw: bytes) -> None:
    assert wide_form(raw) is None


@given(st.text(max_size=30), st.sampled_from(CODECS), st.sampled_from(["", "\ufeff"]))
def test_there_and_back(text: str, codec: str, mark: str) -> None:
    raw = (mark + "MSH|" + text).encode(codec)
    form = wide_form(raw)
    assert form is not None
    assert narrow(raw, form) == ("MSH|" + text).encode()
    assert widen(narrow(raw, form), form) == raw


def test_reading_stops_at_what_is_no_character() -> None:
    raw = "MSH|Ā".encode("utf-16-le") + b"\x00\xd8" + "x".encode("utf-16-le")
    form = wide_form(raw)
    assert form is not None
    assert narrow(raw, form) == "MSH|Ā".encode()

r"""Escape sequences: both ways, and never swallowed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.hl7.escape import Delimiters, escape, unescape


@given(st.text(st.characters(blacklist_categories=("Cs",))))
def test_what_is_escaped_comes_back(value: str) -> None:
    assert unescape(escape(value)) == value


@given(st.text("ab|^~\\&\r\n#"))
def test_an_escaped_value_has_no_delimiters(value: str) -> None:
    assert not set("|^~&\r\n") & set(escape(value))


@pytest.mark.parametrize(
    ("coded", "meant"),
    [
        (r"a\F\b\S\c\T\d\R\e\E\f", "a|b^c&d~e\\f"),
        (r"one\.br\two\.sp2\three", "one\ntwo\n\nthree"),
        (r"\H\bold\N\ plain", "bold plain"),
        (r"\.in+4\text\.fi\ ", "text "),
        (r"\XC3A9\ \X0D\ \XE9\ ", "é \r é "),
    ],
)
def test_sequences_mean_what_the_standard_says(coded: str, meant: str) -> None:
    assert unescape(coded) == meant


@pytest.mark.parametrize("value", [r"\Zlab\ ", r"C:\temp", "\\", r"\X0\ ", r"\XZZ\ ", r"a\\b", r"\Q\F"])
def test_what_is_no_sequence_stays(value: str) -> None:
    assert unescape(value) == value


def test_a_mark_that_is_no_sequence_may_open_the_next() -> None:
    assert unescape(r"C:\dir\T\x") == "C:\\dir&x"


def test_sequences_give_the_senders_own_delimiters() -> None:
    assert unescape("a!F!b!S!c", Delimiters("#", "*", "~", "!", "%")) == "a#b*c"


def test_without_an_escape_character_nothing_is_escaped() -> None:
    assert unescape(r"a\F\b", Delimiters("|", "^", "~", "", "")) == r"a\F\b"

"""Charsets: what the message says, and never a question mark."""

from __future__ import annotations

import pytest

from engine.hl7.charset import Undecodable, declared, decode


def message(charset: str, name: str, codec: str) -> bytes:
    return f"MSH|^~\\&|||||||||||||||| {charset} \rPID|||||{name}".replace("| ", "|").replace(" \r", "\r").encode(codec)


@pytest.mark.parametrize(
    ("charset", "codec", "name"),
    [
        ("UNICODE UTF-8", "utf-8", "Łucja"),
        ("8859/1", "iso-8859-1", "Müller"),
        ("8859/2", "iso-8859-2", "Łucja"),
        ("8859/15", "iso-8859-15", "Œuvre €"),
        ("ISO IR87", "iso2022_jp", "山田"),
        ("GB 18030-2000", "gb18030", "王"),
        ("8859/1~UNICODE UTF-8", "iso-8859-1", "Müller"),
    ],
)
def test_msh_18_names_the_charset(charset: str, codec: str, name: str) -> None:
    assert decode(message(charset, name, codec)).endswith(name)


def test_windows_1252_hides_in_8859_1() -> None:
    assert decode(message("8859/1", "O’Neill €5", "cp1252")).endswith("O’Neill €5")


def test_undeclared_utf_8_is_read() -> None:
    assert decode(message("", "Müller", "utf-8")).endswith("Müller")


def test_undeclared_bytes_are_not_guessed() -> None:
    raw = message("", "Müller", "iso-8859-1")
    with pytest.raises(Undecodable) as caught:
        decode(raw)
    assert caught.value.position == raw.index(b"\xfc")
    assert "listen.encoding" in str(caught.value)


def test_bytes_that_belie_their_declaration_are_an_error_with_their_position() -> None:
    raw = message("UNICODE UTF-8", "Müller", "iso-8859-1")
    with pytest.raises(Undecodable) as caught:
        decode(raw)
    assert caught.value.position == raw.index(b"\xfc")
    assert "Mü" not in str(caught.value)


def test_an_unknown_charset_is_no_matter_where_all_is_ascii() -> None:
    assert decode(message("EN", "Duck", "ascii")).endswith("Duck")


def test_the_channel_overrules_the_message() -> None:
    assert decode(message("UNICODE UTF-8", "Müller", "cp1252"), "cp1252").endswith("Müller")


@pytest.mark.parametrize("codec", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
def test_byte_order_marks_and_wide_characters_are_understood(codec: str) -> None:
    text = decode(message("", "Müller", codec))
    assert text.startswith("MSH|")
    assert text.endswith("Müller")


def test_a_codec_that_does_not_exist_is_an_error() -> None:
    with pytest.raises(Undecodable, match="Python knows"):
        decode(b"MSH|\xff", "latin-99")


def test_a_header_without_msh_18_declares_nothing() -> None:
    assert declared(b"MSH|^~\\&|A\rPID|1") == ""

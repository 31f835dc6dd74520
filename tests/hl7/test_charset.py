"""Charsets: what the message says, and never a question mark."""

from __future__ import annotations

import codecs

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.hl7.charset import CODECS, Undecodable, codec_of, declared, decode


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
        ("~ISO IR87", "iso2022_jp", "Yamada=山田"),
        ("ISO IR6~ISO IR87~ISO IR159", "iso2022_jp_1", "山田 丂"),
        ("ISO IR14", "shift_jis", "山田"),
        ("KS X 1001", "euc_kr", "김"),
        ("BIG-5", "big5", "王"),
        ("GB 18030-2000", "gb18030", "王"),
        ("8859/1~UNICODE UTF-8", "iso-8859-1", "Müller"),
    ],
)
def test_msh_18_names_the_charset(charset: str, codec: str, name: str) -> None:
    assert decode(message(charset, name, codec)).endswith(name)


@pytest.mark.parametrize(
    ("charset", "codec", "name"),
    [
        ("utf-8", "utf-8", "Łucja"),
        ("UTF8", "utf-8", "Łucja"),
        ("UNICODE", "utf-8", "Łucja"),
        ("Unicode UTF8", "utf-8", "Łucja"),
        ("ISO_IR 192", "utf-8", "Łucja"),
        ("8859-1", "iso-8859-1", "Müller"),
        ("ISO8859/1", "iso-8859-1", "Müller"),
        ("ISO-8859-1", "iso-8859-1", "Müller"),
        ("ISO 8859-15", "iso-8859-15", "Œuvre"),
        ("ISO_IR 100", "iso-8859-1", "Müller"),
        ("Latin1", "iso-8859-1", "Müller"),
        ("WINDOWS-1252", "cp1252", "Œuvre"),
        ("CP1250", "cp1250", "Łucja"),
        ("IBM850", "cp850", "Müller"),
        ("GB2312", "gb18030", "王"),
    ],
)
def test_other_spellings_are_understood(charset: str, codec: str, name: str) -> None:
    assert decode(message(charset, name, codec)).endswith(name)


def test_every_name_has_a_codec_that_python_knows() -> None:
    for codec in CODECS.values():
        codecs.lookup(codec)


def test_windows_1252_hides_in_8859_1() -> None:
    assert decode(message("8859/1", "O’Neill €5", "cp1252")).endswith("O’Neill €5")


def test_windows_1254_hides_in_8859_9() -> None:
    assert decode(message("8859/9", "Şükrü’nün", "cp1254")).endswith("Şükrü’nün")


@pytest.mark.parametrize(("charset", "byte"), [("8859/1", b"\x81"), ("8859/1", b"\x9d"), ("8859/2", b"\x92")])
def test_a_byte_that_neither_8859_nor_windows_has_shows_a_wrong_declaration(charset: str, byte: bytes) -> None:
    raw = message(charset, "M", "ascii") + byte + b"ller"
    with pytest.raises(Undecodable, match="name the charset") as caught:
        decode(raw)
    assert caught.value.position == len(raw) - 5
    assert decode(raw, "iso-8859-1").endswith(byte.decode("latin-1") + "ller")  # as the channel's word it is taken


def test_an_undeclared_message_is_what_the_channel_says() -> None:
    raw = message("", "O’Neill, Müller", "cp1252")
    assert decode(raw, undeclared="cp1252").endswith("O’Neill, Müller")
    assert decode(raw, undeclared="iso-8859-1").endswith("O’Neill, Müller")
    with pytest.raises(Undecodable):
        decode(raw, undeclared="utf-8")


@pytest.mark.parametrize("name", ["ASCII", "EN"])
def test_a_name_that_says_nothing_of_these_bytes_counts_as_none(name: str) -> None:
    raw = message(name, "Müller", "cp1252")
    assert decode(raw, undeclared="cp1252").endswith("Müller")
    with pytest.raises(Undecodable, match=f"is not (ascii|{name});"):
        decode(raw)


def test_a_long_name_stands_in_no_error() -> None:
    with pytest.raises(Undecodable) as caught:
        decode(message("DOE JOHN OF SOMEWHERE ELSE", "Müller", "cp1252"))
    assert "DOE" not in str(caught.value)


def test_what_decides_comes_in_order() -> None:
    """The channel's encoding, a mark, MSH-18, the channel's undeclared, UTF-8."""
    name = "Ã¼"  # these two in 8859/1 are one ü in UTF-8
    both = message("8859/1", name, "iso-8859-1")
    assert decode(codecs.BOM_UTF8 + both, "iso-8859-1", "utf-8").endswith(name)
    assert decode(codecs.BOM_UTF8 + both, undeclared="iso-8859-1").endswith("ü")
    assert decode(both, undeclared="utf-8").endswith(name)
    assert decode(both.replace(b"8859/1", b""), undeclared="iso-8859-1").endswith(name)
    assert decode(both.replace(b"8859/1", b"")).endswith("ü")


def test_a_position_counts_from_the_first_byte_that_came() -> None:
    raw = codecs.BOM_UTF8 + message("", "Müller", "iso-8859-1")
    for encoding in ("auto", "ascii"):
        with pytest.raises(Undecodable) as caught:
            decode(raw, encoding)
        assert caught.value.position == raw.index(b"\xfc")


def test_junk_before_the_header_does_not_hide_its_charset() -> None:
    assert decode(b"\r\n" + message("8859/2", "Łucja", "iso-8859-2")).endswith("Łucja")


@pytest.mark.parametrize("name", ["UNICODE UTF-16", "UNICODE UTF-32"])
def test_a_header_of_single_bytes_belies_wide_characters(name: str) -> None:
    assert decode(message(name, "Müller", "utf-8")).endswith("Müller")
    with pytest.raises(Undecodable):
        decode(message(name, "Müller", "iso-8859-1"))


def test_a_switch_that_cannot_be_followed_is_undecodable() -> None:
    raw = message("8859/1~ISO IR149", "Kim", "ascii") + b"\x1b$)C\xb1\xe8"
    with pytest.raises(Undecodable, match="switching") as caught:
        decode(raw)
    assert caught.value.position == raw.index(b"\x1b")
    assert decode(raw.replace(b"\x1b$)C", b"")).endswith("±è")  # what is not switched to does not matter


@given(st.text(max_size=20), st.sampled_from(["utf-8", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-be"]))
def test_unicode_comes_back_as_it_was(name: str, codec: str) -> None:
    text = f"MSH|^~\\&|{name}|||||||||||||||UNICODE UTF-8\rPID|||||{name}."
    assert decode(text.encode(codec)) == text


@given(st.binary(max_size=60), st.sampled_from([None, "cp1252", "iso-8859-1", "hex", "idna", "\0"]), st.booleans())
def test_nothing_raises_anything_else(tail: bytes, codec: str | None, always: bool) -> None:
    for raw in (tail, b"MSH|^~\\&|" + tail, b"MSH|^~\\&||||||||||||||||8859/1~ISO IR87\r" + tail):
        try:
            text = decode(raw, codec or "auto") if always else decode(raw, undeclared=codec)
        except Undecodable as refusal:
            position = refusal.position
        else:
            position = 0
            assert isinstance(text, str)
        assert 0 <= position <= len(raw)


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


@pytest.mark.parametrize(
    ("charset", "text", "codec"),
    [
        ("", "plain", "ascii"),
        ("", "Müller", "utf-8"),
        ("UNICODE UTF-8", "plain", "utf-8"),
        ("8859/1", "Müller", "iso8859-1"),
        ("8859/1", "5 €", "cp1252"),
        ("ISO IR87", "山田", "iso2022_jp_ext"),
    ],
)
def test_the_codec_of_a_message_is_the_one_it_was_read_with(charset: str, text: str, codec: str) -> None:
    raw = f"MSH|^~\\&|A|||||||||||||||{charset}\rPID|1||{text}\r".encode(codec)
    assert codec_of(raw) == codec
    assert decode(raw).encode(codec_of(raw)) == raw


@pytest.mark.parametrize(
    ("encoding", "undeclared", "codec"), [("latin-1", None, "iso8859-1"), ("auto", "cp1252", "cp1252")]
)
def test_the_codec_of_a_message_is_what_its_channel_says(encoding: str, undeclared: str | None, codec: str) -> None:
    assert codec_of(b"MSH|^~\\&|A\r", encoding, undeclared) == codec


@pytest.mark.parametrize("codec", ["utf-16-le", "utf-16-be", "utf-32-le"])
def test_the_codec_of_wide_characters_has_their_order(codec: str) -> None:
    assert codec_of("MSH|^~\\&|A\r".encode(codec)) == codec

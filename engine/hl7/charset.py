"""From a message's bytes to its text: MSH-18 (HL7 table 0211), a byte order mark, or what the channel says.

Nothing is ever replaced by a question mark: bytes that are not what they are declared to be raise `Undecodable`, with
the position of the first of them. One leniency, because it is what senders mean: bytes 0x80-0x9F in a message that is
declared 8859/1 are Windows-1252.
"""

from __future__ import annotations

import codecs
from typing import Final

CODECS: Final = {
    "": "ascii",
    "ASCII": "ascii",
    "UTF-8": "utf-8",
    "UTF8": "utf-8",
    "UNICODE UTF-8": "utf-8",
    "UNICODE UTF8": "utf-8",
    "UNICODE": "utf-8",
    "UNICODE UTF-16": "utf-16",
    "UNICODE UTF-32": "utf-32",
    "8859/1": "iso-8859-1",
    "8859/2": "iso-8859-2",
    "8859/3": "iso-8859-3",
    "8859/4": "iso-8859-4",
    "8859/5": "iso-8859-5",
    "8859/6": "iso-8859-6",
    "8859/7": "iso-8859-7",
    "8859/8": "iso-8859-8",
    "8859/9": "iso-8859-9",
    "8859/15": "iso-8859-15",
    "ISO IR6": "ascii",
    "ISO IR14": "shift_jis",
    "ISO IR87": "iso2022_jp",
    "ISO IR159": "iso2022_jp_1",
    "GB 18030-2000": "gb18030",
    "KS X 1001": "euc_kr",
    "CNS 11643-1992": "euc_tw",
    "BIG-5": "big5",
}
"""HL7 table 0211 and the spellings seen for it. `UNICODE` without a form is read as UTF-8, unless a mark says more."""

_MARKS: Final = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
    (b"M\0S\0H\0", "utf-16-le"),
    (b"\0M\0S\0H", "utf-16-be"),
)


class Undecodable(ValueError):
    """The bytes are not text in the charset that the message or its channel names.

    codec: Python's name of it, or the unknown name itself. position: of the first bad byte, counted from 0.
    """

    def __init__(self, codec: str, position: int, wanted: str) -> None:
        self.codec, self.position, self.wanted = codec, position, wanted
        super().__init__(f"byte {position} is not {codec}; {wanted}")


def decode(raw: bytes, encoding: str = "auto") -> str:
    """The message as text. `encoding` is a Python codec's name, or `auto`: what the message says of itself.

    Raises `Undecodable`.
    """
    if raw.isascii() and b"\x1b" not in raw and b"\0" not in raw and encoding == "auto":
        return raw.decode("ascii")
    if encoding != "auto":
        return _strict(raw, encoding)
    for mark, codec in _MARKS:
        if raw.startswith(mark):
            return _strict(raw, codec)
    name = declared(raw)
    if name.upper() not in CODECS:
        return _undeclared(raw, name)
    codec = CODECS[name.upper()]
    if codec == "ascii":
        return _undeclared(raw, "ascii")
    if codec == "iso-8859-1" and any(0x80 <= byte <= 0x9F for byte in raw):
        return _strict(raw, "cp1252")
    return _strict(raw, codec)


def declared(raw: bytes) -> str:
    """The first repetition of MSH-18, `` where there is none."""
    end = min((at for at in (raw.find(b"\r"), raw.find(b"\n")) if at >= 0), default=len(raw))
    header = raw[:end]
    if len(header) < 8:
        return ""
    fields = header.split(header[3:4])
    if len(fields) < 18:
        return ""
    repeat = fields[1][1:2] or b"~"
    return fields[17].split(repeat)[0].decode("latin-1").strip()


def _undeclared(raw: bytes, name: str) -> str:
    """HL7's default is ASCII (2.14.9.18). Valid UTF-8 can hardly be anything else; the rest is not guessed."""
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        wanted = "name the charset in MSH-18, or as the channel's listen.encoding"
        raise Undecodable(name or "ascii", error.start, wanted) from None


def _strict(raw: bytes, codec: str) -> str:
    try:
        return raw.decode(codec).lstrip("\ufeff")
    except UnicodeDecodeError as error:
        raise Undecodable(codec, error.start, "send the charset that MSH-18 or the channel names") from None
    except LookupError:
        raise Undecodable(codec, 0, "name a codec that Python knows as listen.encoding") from None

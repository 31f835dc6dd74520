r"""From a message's bytes to its text.

What decides, in this order: the channel's `encoding`; a byte order mark, or characters of two or four bytes; MSH-18
(HL7 table 0211, 2.14.9.18); the channel's `undeclared`; else the bytes are ASCII or UTF-8.

Nothing is ever replaced by a question mark: bytes that are not what they are declared to be raise `Undecodable`, with
the position of the first of them. One leniency, because it is what senders mean: no part of ISO 8859 has characters at
0x80-0x9F, so that such bytes in 8859/1 are Windows-1252, and in 8859/9 Windows-1254. The few that Windows leaves open
(0x81 …), and any of them in another part, show that the declaration is wrong: they are undecodable. A channel that
wants them as control characters says `encoding: iso-8859-1`.

Further repetitions of MSH-18 name sets that the text switches to with ISO 2022 escape sequences (MSH-20). The Japanese
ones are followed; a switch that cannot be followed is undecodable. HL7's own \C..\ and \M..\ stay as they are.
"""

from __future__ import annotations

import codecs
import re
from functools import lru_cache
from typing import Final

from engine.hl7.peek import peek
from engine.hl7.wide import wide_form

CODECS: Final = {
    "ASCII": "ascii",
    "US-ASCII": "ascii",
    "ISO IR6": "ascii",
    "UNICODE": "utf-8",
    "UNICODE UTF-8": "utf-8",
    "UTF-8": "utf-8",
    "ISO IR192": "utf-8",
    "UNICODE UTF-16": "utf-16",
    "UTF-16": "utf-16",
    "UNICODE UTF-32": "utf-32",
    "UTF-32": "utf-32",
    **{f"{front}8859/{part}": f"iso-8859-{part}" for part in (*range(1, 11), 13, 14, 15, 16) for front in ("", "ISO")},
    "LATIN-1": "iso-8859-1",
    "LATIN-9": "iso-8859-15",
    "ISO IR100": "iso-8859-1",
    "ISO IR101": "iso-8859-2",
    "ISO IR109": "iso-8859-3",
    "ISO IR110": "iso-8859-4",
    "ISO IR144": "iso-8859-5",
    "ISO IR127": "iso-8859-6",
    "ISO IR126": "iso-8859-7",
    "ISO IR138": "iso-8859-8",
    "ISO IR148": "iso-8859-9",
    "ISO IR203": "iso-8859-15",
    **{f"{front}{page}": f"cp{page}" for page in range(1250, 1259) for front in ("WINDOWS-", "CP")},
    "ANSI": "cp1252",
    "CP437": "cp437",
    "CP850": "cp850",
    "IBM437": "cp437",
    "IBM850": "cp850",
    "KOI8-R": "koi8-r",
    "ISO IR13": "shift_jis",
    "ISO IR14": "shift_jis",
    "SHIFT_JIS": "shift_jis",
    "EUC-JP": "euc_jp",
    "ISO IR87": "iso2022_jp_ext",
    "ISO IR159": "iso2022_jp_ext",
    "ISO-2022-JP": "iso2022_jp_ext",
    "GB 18030-2000": "gb18030",
    "GB 18030": "gb18030",
    "GB2312": "gb18030",
    "GBK": "gb18030",
    "KS X 1001": "cp949",
    "EUC-KR": "cp949",
    "BIG-5": "big5",
}
"""HL7 table 0211 and the names seen in its place; blanks, signs and case do not count. CNS 11643-1992 is missing:
Python has no codec for it. Where two names share a codec, the codec takes in both sets."""


def _plain(name: str) -> str:
    return re.sub(r"[^A-Z0-9]", "", name.upper())


_CODECS: Final = {_plain(name): codec for name, codec in CODECS.items()}
_JAPANESE: Final = frozenset({"ISOIR13", "ISOIR14", "ISOIR87", "ISOIR159"})
_WINDOWS: Final = {"iso8859-1": "cp1252", "iso8859-9": "cp1254"}  # the same but for 0x80-0x9F
_NO_CHARACTERS: Final = re.compile(rb"[\x80-\x9f]")
_SWITCH: Final = re.compile(rb"\x1b[$(-/]")  # the beginning of an ISO 2022 designation
_LONGEST: Final = 20  # characters of a charset's name; what is longer may be anything, and stands in no error
_SAY: Final = "name the charset in MSH-18, or as the channel's listen.encoding or listen.undeclared"


class Undecodable(ValueError):
    """The bytes are not text in the charset that the message or its channel names.

    codec: Python's name of it, or the unknown name itself. position: of the first bad byte, counted from 0.
    """

    def __init__(self, codec: str, position: int, wanted: str) -> None:
        self.codec, self.position, self.wanted = codec, position, wanted
        super().__init__(f"byte {position} is not {codec}; {wanted}")


def decode(raw: bytes, encoding: str = "auto", undeclared: str | None = None) -> str:
    """The message as text. `encoding` is a Python codec's name, or `auto`: what the message says of itself.
    `undeclared` is the codec of messages that say nothing, or nothing that is known.

    Raises `Undecodable`.
    """
    if raw.isascii() and b"\x1b" not in raw and b"\0" not in raw and encoding == "auto":
        return raw.decode("ascii")
    if encoding != "auto":
        return _strict(raw, encoding, "send the charset that the channel names")
    form = wide_form(raw)
    if form is not None:
        return _strict(raw, form.codec, "send the charset that the first bytes announce")
    if raw.startswith(codecs.BOM_UTF8):
        return _strict(raw, "utf-8", "send the charset that the byte order mark announces")
    first, codec = _said(raw)
    if codec == "ascii":
        return _undeclared(raw, first) if undeclared is None else _lenient(raw, undeclared)
    return _lenient(raw, codec)


def readable(raw: bytes, encoding: str = "auto", undeclared: str | None = None) -> str:
    """As `decode`; what is no text there is read as Latin-1, so that whatever of it is ASCII can be read."""
    try:
        return decode(raw, encoding, undeclared)
    except Undecodable:
        return raw.decode("latin-1")


def codec_of(raw: bytes, encoding: str = "auto", undeclared: str | None = None) -> str:
    """Python's name of the codec that `decode` reads these bytes with, and that text put among them is written in.

    ASCII where the message is ASCII and names nothing else. Raises `Undecodable`.
    """
    form = wide_form(raw)
    if form is not None:
        return form.codec
    if encoding != "auto":
        return _known(encoding)
    if raw.startswith(codecs.BOM_UTF8):
        return "utf-8"
    _, codec = _said(raw)
    if codec == "ascii":
        codec = undeclared or ("ascii" if raw.isascii() else "utf-8")
    name = _known(codec)
    return _WINDOWS[name] if name in _WINDOWS and _NO_CHARACTERS.search(raw) else name


def declared(raw: bytes) -> str:
    """The first repetition of MSH-18, `` where there is none."""
    return peek(raw).charset.strip()


def _said(raw: bytes) -> tuple[str, str]:
    """The first repetition of MSH-18, and the codec that the field and the switches come to."""
    head = peek(raw)
    first, codec, others = _named(head.raw(18), head.raw(2)[1:2])
    if others:
        codec = _switched(raw, codec, others)
    return first, "utf-8" if codec in ("utf-16", "utf-32") else codec  # its header can be read, so it is neither


@lru_cache(maxsize=256)
def _named(field: bytes, mark: bytes) -> tuple[str, str, tuple[str, ...]]:
    """MSH-18: its first repetition, that one's codec (ASCII where it is empty or unknown), the other repetitions."""
    first, *others = [part.decode("latin-1").strip() for part in (field.split(mark) if mark else [field])]
    return first, _CODECS.get(_plain(first), "ascii"), tuple(name for name in others if name)


def _switched(raw: bytes, codec: str, others: tuple[str, ...]) -> str:
    """The codec that follows the switches to further sets, if there are any in the bytes."""
    switch = _SWITCH.search(raw)
    if switch is None:
        return codec
    if codec in ("ascii", "shift_jis", "iso2022_jp_ext") and all(_plain(name) in _JAPANESE for name in others):
        return "iso2022_jp_ext"
    wanted = "send one charset for the whole message; switching between those of MSH-18 is understood for Japanese only"
    raise Undecodable(codec, switch.start(), wanted)


def _undeclared(raw: bytes, name: str) -> str:
    """HL7's default is ASCII (2.14.9.18). Valid UTF-8 can hardly be anything else; the rest is not guessed."""
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        shown = name if 0 < len(name) <= _LONGEST and name.isascii() and name.isprintable() else "ascii"
        raise Undecodable(shown, error.start, _SAY) from None


def _lenient(raw: bytes, codec: str) -> str:
    """As `_strict`, but for ISO 8859 with bytes that have no character there."""
    name = _known(codec)
    found = _NO_CHARACTERS.search(raw) if name.startswith("iso8859-") else None
    if found is None:
        return _strict(raw, codec, "send the charset that MSH-18 or the channel names")
    if name not in _WINDOWS:
        raise Undecodable(codec, found.start(), _SAY)
    return _strict(raw, _WINDOWS[name], _SAY)


@lru_cache(maxsize=64)
def _known(codec: str) -> str:
    """Python's one name of a codec; its own where Python has none."""
    try:
        return codecs.lookup(codec).name
    except (LookupError, ValueError):
        return codec


def _strict(raw: bytes, codec: str, wanted: str) -> str:
    mark = len(codecs.BOM_UTF8) if raw.startswith(codecs.BOM_UTF8) else 0  # no character in any other codec either
    try:
        return raw[mark:].decode(codec).lstrip("\ufeff")
    except UnicodeDecodeError as error:
        raise Undecodable(codec, mark + error.start, wanted) from None
    except (LookupError, ValueError):
        raise Undecodable(codec, 0, "name a codec that Python knows as listen.encoding") from None

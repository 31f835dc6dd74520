"""UTF-16 and UTF-32: messages whose characters have two or four bytes, known by their mark or by their first letters.

Such a header is read, and an answer is written, in UTF-8 (`narrow`, `widen`); the message itself stays as it came.
"""

from __future__ import annotations

import codecs
from typing import Final, NamedTuple


class Wide(NamedTuple):
    """codec: Python's name, with the byte order. size: bytes of a unit, 2 or 4. mark: the byte order mark that the
    sender wrote in front, if any; an answer gets the same."""

    codec: str
    size: int
    mark: bytes


_FORMS: Final = (
    Wide("utf-32-le", 4, codecs.BOM_UTF32_LE),  # before UTF-16, whose mark this one begins with
    Wide("utf-32-be", 4, codecs.BOM_UTF32_BE),
    Wide("utf-16-le", 2, codecs.BOM_UTF16_LE),
    Wide("utf-16-be", 2, codecs.BOM_UTF16_BE),
)
_UNMARKED: Final = tuple(
    (name.encode(form.codec), form._replace(mark=b"")) for form in _FORMS for name in ("MSH", "FHS", "BHS")
)


def wide_form(raw: bytes) -> Wide | None:
    """How a message of wide characters is written; None for every other one."""
    start = raw[:4]
    if b"\0" not in start and start[:1] not in (b"\xfe", b"\xff"):
        return None
    for form in _FORMS:
        if start.startswith(form.mark):
            return form
    return next((form for letters, form in _UNMARKED if raw.startswith(letters)), None)


def narrow(raw: bytes, form: Wide) -> bytes:
    """The bytes as UTF-8, without the mark; from the first that are no character on, nothing."""
    raw = raw.removeprefix(form.mark)
    try:
        text = raw.decode(form.codec)
    except UnicodeDecodeError as error:
        text = raw[: error.start].decode(form.codec)
    return text.encode()


def widen(data: bytes, form: Wide) -> bytes:
    """UTF-8 in the form of a sender."""
    return form.mark + data.decode("utf-8", "backslashreplace").encode(form.codec)

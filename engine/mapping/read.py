"""Messages out of a file: one or many, loose or in a batch, with or without MLLP's framing bytes."""

from __future__ import annotations

import re
from collections.abc import Iterator

_ENVELOPE = re.compile(rb"(?:FHS|BHS|BTS|FTS)[^\r\nA-Za-z0-9]")  # HL7 v2 2.10.3: batch headers and trailers
_START = re.compile(rb"(?:^|(?<=[\r\n\x0b\x1c]))[ \t]*(?=MSH[^\r\nA-Za-z0-9])")
_EDGE = b"\x0b\x1c\r\n \t\x00"
_BOM = b"\xef\xbb\xbf"


def split_messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    """(position in the file, message) of each message; a message begins at a line that begins with MSH.

    The segments of a batch's envelope belong to no message. What stands before the first MSH is left out.
    """
    for wide in ("utf-16-le", "utf-16-be"):
        if data[:2] in (b"\xff\xfe", b"\xfe\xff") and data[2:8] == "MSH".encode(wide):
            yield 0, data
            return
    start = len(_BOM) if data.startswith(_BOM) else 0
    places = [match.end() for match in _START.finditer(data, start)]
    if not places and data.startswith(b"MSH", start):
        places = [start]
    for place, end in zip(places, [*places[1:], len(data)][: len(places)], strict=True):
        message = _without_envelope(data[place:end]).strip(_EDGE)
        if message:
            yield place, message


def _without_envelope(chunk: bytes) -> bytes:
    """The chunk up to the first segment of an envelope that follows the message."""
    for match in _ENVELOPE.finditer(chunk):
        if chunk[match.start() - 1 : match.start()] in (b"\r", b"\n", b"\x1c", b"\x0b"):
            return chunk[: match.start()]
    return chunk

"""The messages of a file. Pure.

A message begins at a line that begins with MSH, and goes on to the next one: put together again, the messages of a file
are the file, byte for byte. A batch (FHS or BHS first, HL7 v2 chapter 2, 2.10.3) stays whole. A file of MLLP blocks is
taken as the stream that it was, without its framing bytes. Anything else in a file is no message, and makes the whole
of it unreadable: what stands before a first MSH is likely the end of a message that has lost its beginning.
"""

from __future__ import annotations

import re
from functools import lru_cache

from engine.hl7.batch import is_batch
from engine.hl7.wide import wide_form
from engine.mllp.framing import FILLER, Decoder, Frame, Noise

_START, _END = b"\x0b", b"\x1c"
_JUNK = b"\xef\xbb\xbf \t\r\n\x00"  # in front of a first MSH: a byte order mark, blanks, empty lines


class Unreadable(ValueError):
    """A file that does not consist of messages. Its text says why, without any of the content."""


def cut(data: bytes) -> list[bytes]:
    """The messages of a file, at least one. Raises Unreadable."""
    if not data.strip(FILLER):
        raise Unreadable("nothing is in it")
    if data.lstrip(_JUNK).startswith(_START):
        return _framed(data)
    form = wide_form(data)
    if form is None and _END in data:
        raise Unreadable("an end byte of MLLP (0x1C), and no start byte in front of the first message")
    codec, size = (form.codec, form.size) if form else ("ascii", 1)
    begin = len(form.mark) if form else len(data) - len(data.lstrip(_JUNK))
    if is_batch(data):
        return [data]
    if not data.startswith("MSH".encode(codec), begin):
        raise Unreadable("it does not begin with MSH")
    starts = [found.start() for found in _later(codec).finditer(data, begin + 1) if (found.start() - begin) % size == 0]
    return [data[at:end] for at, end in zip([0, *starts], [*starts, len(data)], strict=True)]


@lru_cache(maxsize=8)
def _later(codec: str) -> re.Pattern[bytes]:
    """An MSH at the beginning of a line."""
    ends = [re.escape(end.encode(codec)) for end in "\r\n"]
    name = re.escape("MSH".encode(codec))
    return re.compile(b"(?:(?<=%b)|(?<=%b))%b" % (*ends, name) + (rb"(?![A-Za-z0-9\r\n])" if codec == "ascii" else b""))


def _framed(data: bytes) -> list[bytes]:
    decoder = Decoder(len(data))
    frames = []
    for event in decoder.feed(data):
        if isinstance(event, Frame):
            if not event.payload.strip(FILLER):
                raise Unreadable("an MLLP block with nothing in it")
            frames.append(event.payload)
        elif not isinstance(event, Noise):
            raise Unreadable("an MLLP block that has no end before the next one begins")
        elif event.data.strip(_JUNK):
            raise Unreadable("bytes between the MLLP blocks")
    if decoder.inside:
        raise Unreadable("an MLLP block that has no end")
    return frames

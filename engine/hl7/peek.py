"""The header of a message, read from its bytes: what acceptance, routing and the acknowledgement need, and no more.

`peek` never raises, whatever it is given, and never looks beyond the first segment. Ids are decoded as Latin-1, so
that every byte survives and `control_id.encode("latin-1")` is the field as it came. Everything else about charsets is
for the mapping. A header in UTF-16 or UTF-32 is read as if it had come in UTF-8; `wide` says so.

The header ends at the first CR (2.5.2). Where there is none it ends at the first LF, and also where a LF comes before
the CR and another segment begins after it. Any other LF stands inside a field, where it is read as a blank, since an
answer repeats these fields and must be read by everybody. `engine.hl7.message` has the same rule for the end.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

from engine.hl7.wide import Wide, narrow, wide_form

DELIMITERS: Final = b"^~\\&"
"""MSH-2 of nearly every sender: component, repetition, escape, subcomponent (HL7 v2 chapter 2, 2.5.4)."""

_LAST = 18  # the last header field of interest: MSH-18, the character set
_JUNK = b"\xef\xbb\xbf \t\r\n\x00\x0b"  # seen in front of MSH: BOM, blanks, line ends, NULs, a doubled start byte
_JUNK_LIMIT = 1024  # bytes
_WIDE_LIMIT = 64 * 1024  # bytes of a wide message among which its header is looked for
_SEGMENT: Final = re.compile(rb"\n+[A-Z][A-Z0-9]{2}([^A-Za-z0-9\s])")


class Peek:
    """A message's header. Where `ok` is false, `problem` says why, and everything else is empty.

    `ok` says that the header can be read, not that it is complete: `control_id` is None where MSH-10 is empty.
    """

    __slots__ = ("control_id", "fields", "ok", "problem", "structure", "trigger", "type")

    wide: Wide | None = None
    """How the message is written if in UTF-16 or UTF-32; `fields` are then in UTF-8."""

    def __init__(
        self, fields: list[bytes], control_id: str | None, kind: tuple[str, str, str], problem: str | None
    ) -> None:
        self.ok: bool = problem is None
        self.problem: str | None = problem
        """`no MSH`, `batch envelope` or `broken delimiters`."""
        self.fields = fields
        """Raw header: `MSH`, MSH-2, MSH-3 … as far as sent; what follows MSH-18 in one piece. Empty where not ok."""
        self.control_id: str | None = control_id
        """MSH-10, whole."""
        self.type, self.trigger, self.structure = kind

    def __repr__(self) -> str:
        return f"Peek({self.problem or f'{self.type}^{self.trigger}'})"

    def raw(self, number: int) -> bytes:
        """MSH-`number` as it came, 2 to 18; empty where it was not sent."""
        return self.fields[number - 1] if len(self.fields) >= number else b""

    def _first(self, number: int) -> str:
        """The first component of the first repetition of a header field."""
        marks = self.raw(2)
        value = self.raw(number).split(marks[1:2], 1)[0] if len(marks) > 1 else self.raw(number)
        return value.split(marks[:1], 1)[0].decode("latin-1") if marks else ""

    @property
    def version(self) -> str:
        """MSH-12.1, `2.5.1`."""
        return self._first(12)

    @property
    def charset(self) -> str:
        """The first repetition of MSH-18, `UNICODE UTF-8`."""
        return self._first(18)

    @property
    def processing(self) -> str:
        """MSH-11.1: P, T or D."""
        return self._first(11)

    @property
    def event(self) -> str:
        """`ORU^R01`; empty where there is no type."""
        return f"{self.type}^{self.trigger}" if self.type else ""

    @property
    def accept_ack(self) -> str:
        """MSH-15: AL, NE, ER, SU or empty."""
        return self._first(15)

    @property
    def application_ack(self) -> str:
        """MSH-16: AL, NE, ER, SU or empty."""
        return self._first(16)

    @property
    def field(self) -> int:
        """The field separator, as a byte; the standard's where the header could not be read."""
        return self.separator[0]

    @property
    def separator(self) -> bytes:
        """The field separator: the last byte of `MSH|`."""
        return self.fields[0][3:] if self.fields else b"|"

    @property
    def head(self) -> tuple[bytes, bytes, bytes, bytes]:
        """MSH-3 to MSH-6 raw: sending application and facility, receiving application and facility."""
        return self.raw(3), self.raw(4), self.raw(5), self.raw(6)

    @property
    def time(self) -> bytes:
        """MSH-7 raw."""
        return self.raw(7)


class _WidePeek(Peek):
    """A header that came in wide characters."""

    __slots__ = ("wide",)

    def __init__(self, head: Peek, form: Wide) -> None:
        super().__init__(head.fields, head.control_id, (head.type, head.trigger, head.structure), head.problem)
        self.wide = form


def peek(frame: bytes) -> Peek:
    """The header of the message in `frame`."""
    if frame[:9] != b"MSH|^~\\&|":
        return _careful(frame)
    end = frame.find(b"\r")
    header = frame[:end] if end > 0 else frame
    if b"\n" in header:
        header = _header_line(frame, 0)
    fields = header.split(b"|", _LAST)
    fields[0] = b"MSH|"
    if len(fields) < 10:
        return _read(fields)
    kind = fields[8]
    return Peek(
        fields,
        fields[9].decode("latin-1") or None,
        _kind(kind, b"^") if len(kind) < 32 else _split_kind(kind, b"^"),
        None,
    )


def _careful(frame: bytes) -> Peek:
    """The same for a header that does not begin as most do."""
    form = wide_form(frame)
    if form is not None:
        return as_wide(peek(narrow(frame[:_WIDE_LIMIT], form)), form)
    begin = after_junk(frame)
    name = frame[begin : begin + 3]
    if name in (b"FHS", b"BHS"):
        return unreadable("batch envelope")
    if name != b"MSH":
        return unreadable("no MSH")
    fields = header_fields(frame, begin)
    return _read(fields) if fields else unreadable("broken delimiters")


def after_junk(frame: bytes) -> int:
    """Where the first byte stands that is not a byte order mark, blank, line end, NUL or start byte."""
    start = frame[:_JUNK_LIMIT]
    return len(start) - len(start.lstrip(_JUNK))


def header_fields(frame: bytes, begin: int) -> list[bytes]:
    """The fields of the MSH, FHS or BHS that begins at `begin`, as `Peek.fields`. None of them where
    its delimiters cannot separate."""
    header = _header_line(frame, begin)
    separator = header[3:4]
    if not _is_mark(separator):
        return []
    fields = header.split(separator, _LAST)
    fields[0] = b"MSH" + separator
    return fields if _are_marks(separator, fields[1]) else []


def _header_line(frame: bytes, begin: int) -> bytes:
    """The header segment that begins at `begin`, without its end."""
    cr = frame.find(b"\r", begin)
    end = cr if cr >= 0 else len(frame)
    lf = frame.find(b"\n", begin, end)
    if lf >= 0:
        segment = _SEGMENT.match(frame, lf)
        if cr < 0 or (segment and segment[1] == frame[begin + 3 : begin + 4]):
            end = lf
    return frame[begin:end].rstrip(b"\n").replace(b"\n", b" ")


def as_wide(head: Peek, form: Wide) -> Peek:
    """The header, read from its narrow form, of a message that came in `form`."""
    return _WidePeek(head, form)


def _read(fields: list[bytes]) -> Peek:
    component = fields[1][:1]
    kind = fields[8] if len(fields) > 8 else b""
    control_id = fields[9].decode("latin-1") if len(fields) > 9 else ""
    return Peek(fields, control_id or None, _split_kind(kind, component), None)


def unreadable(problem: str) -> Peek:
    """What `peek` says of bytes without a header."""
    return Peek([], None, ("", "", ""), problem)


def _is_mark(byte: bytes) -> bool:
    """Whether a byte may separate: printable ASCII, neither letter, digit nor blank."""
    return len(byte) == 1 and 0x20 < byte[0] < 0x7F and not byte.isalnum()


def _are_marks(separator: bytes, marks: bytes) -> bool:
    """Whether MSH-2 can be used: one to five separators, all different (the fifth came with v2.7)."""
    every = separator + marks
    return 1 <= len(marks) <= 5 and len(set(every)) == len(every) and all(_is_mark(bytes([b])) for b in marks)


def _split_kind(field: bytes, component: bytes) -> tuple[str, str, str]:
    """MSH-9 as message code, trigger event and structure; empty where not sent."""
    parts = field.decode("latin-1").split(component.decode("latin-1"))
    parts += ["", ""]
    return parts[0], parts[1], parts[2]


_kind = lru_cache(maxsize=512)(_split_kind)

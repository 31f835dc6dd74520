"""The header of a message, read from its bytes: what acceptance, routing and the acknowledgement need, and no more.

`peek` never raises, whatever it is given, and never looks beyond the first segment. Ids are decoded as Latin-1, so
that every byte survives and `control_id.encode("latin-1")` is the field as it came. Everything else about charsets is
for the mapping.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

DELIMITERS: Final = b"^~\\&"
"""MSH-2 of nearly every sender: component, repetition, escape, subcomponent (HL7 v2 chapter 2, 2.5.4)."""

_LAST = 18  # the last header field of interest: MSH-18, the character set
_JUNK = b"\xef\xbb\xbf \t\r\n\x00\x0b"  # seen in front of MSH: BOM, blanks, line ends, NULs, a doubled start byte
_JUNK_LIMIT = 1024  # bytes


class Peek:
    """A message's header. Where `ok` is false, `problem` says why, and everything else is empty.

    `ok` says that the header can be read, not that it is complete: `control_id` is None where MSH-10 is empty.
    """

    __slots__ = ("control_id", "fields", "ok", "problem", "structure", "trigger", "type")

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


def peek(frame: bytes) -> Peek:
    """The header of the message in `frame`."""
    if frame[:9] != b"MSH|^~\\&|":
        return _careful(frame)
    end = frame.find(b"\r")
    header = frame[:end] if end > 0 else frame
    if b"\n" in header:
        header = header[: header.index(b"\n")]
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
    start = frame[:_JUNK_LIMIT].lstrip(_JUNK)
    if start[:3] in (b"FHS", b"BHS"):
        return _unreadable("batch envelope")
    if start[:3] != b"MSH":
        return _unreadable("no MSH")
    begin = min(len(frame), _JUNK_LIMIT) - len(start)
    ends = [at for at in (frame.find(b"\r", begin), frame.find(b"\n", begin)) if at >= 0]
    header = frame[begin : min(ends, default=len(frame))]
    separator = header[3:4]
    if not _is_mark(separator):
        return _unreadable("broken delimiters")
    fields = header.split(separator, _LAST)
    fields[0] = b"MSH" + separator
    if not _are_marks(separator, fields[1]):
        return _unreadable("broken delimiters")
    return _read(fields)


def _read(fields: list[bytes]) -> Peek:
    component = fields[1][:1]
    kind = fields[8] if len(fields) > 8 else b""
    control_id = fields[9].decode("latin-1") if len(fields) > 9 else ""
    return Peek(fields, control_id or None, _split_kind(kind, component), None)


def _unreadable(problem: str) -> Peek:
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

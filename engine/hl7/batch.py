"""Batches: many messages in one file or frame, between FHS, BHS and BTS, FTS (HL7 v2 chapter 2, 2.10.3).

    [FHS] { [BHS] { message } [BTS] } [FTS]

A batch is cut into pieces, each beginning at one of these segments or at MSH; all pieces together are the bytes as
they came. What is wrong with it is a list of sentences, without any content; nothing here raises.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, Literal, NamedTuple

from engine.hl7.ack import stamp
from engine.hl7.peek import DELIMITERS, Peek, after_junk, as_wide, header_fields, unreadable
from engine.hl7.wide import Wide, narrow, wide_form, widen

_HEAD_LIMIT: Final = 64 * 1024  # bytes among which the headers are looked for that an answer is made from
_MARK: Final = rb"(?=[!-/:-@\[-`{-~])"
_PLACE: Final = re.compile(rb"[\r\n](?:(FHS|BHS|MSH)" + _MARK + rb"|(BTS|FTS)(?:" + _MARK + rb"|(?=[\r\n\x1c])|\Z))")
_BESIDE: Final = (b"NTE", b"SFT", b"UAC")  # segments that may stand beside a header or trailer

Name = Literal["FHS", "BHS", "MSH", "BTS", "FTS"]
Trouble = Literal["count", "trailer", "order", "stray"]


class Piece(NamedTuple):
    """The bytes from one header, trailer or message to the next. `raw` of an MSH is a whole message."""

    name: Name
    raw: bytes


class Problem(NamedTuple):
    """What is wrong with a batch, as a sentence.

    kind: `count`, the messages or batches are not as many as declared; `trailer`, one is missing; `order`, a segment
    of the envelope stands where it cannot; `stray`, there are segments that belong to no message.
    """

    kind: Trouble
    text: str


@dataclass(frozen=True, slots=True)
class Section:
    """One BHS … BTS, or messages without them. control_id: BHS-11, Latin-1. declared: BTS-1; None where not sent.
    found: the number of messages."""

    control_id: str | None
    declared: int | None
    found: int


@dataclass(frozen=True, slots=True)
class Batch:
    """A batch as it came. head: the header that its acknowledgement is made from. declared: FTS-1, a number of
    sections; None where not sent."""

    head: Peek
    pieces: tuple[Piece, ...]
    sections: tuple[Section, ...]
    declared: int | None
    problems: tuple[Problem, ...]

    @property
    def messages(self) -> list[bytes]:
        """The messages in order, with the line ends that follow them."""
        return [piece.raw for piece in self.pieces if piece.name == "MSH"]


def is_batch(raw: bytes) -> bool:
    """Whether the first segment is FHS or BHS."""
    if raw[:3] == b"MSH":
        return False
    form = wide_form(raw)
    if form is not None:
        raw = narrow(raw[:_HEAD_LIMIT], form)
    begin = after_junk(raw)
    return raw[begin : begin + 3] in (b"FHS", b"BHS")


def peek_batch(raw: bytes) -> Peek:
    """A header for a batch, as if it were a message's, so that `acknowledge` can answer it.

    control_id: FHS-11, or the first BHS-11 where that is empty. Applications and facilities are those of the FHS, or of
    the first BHS where it names none; type (without trigger), version, processing id and charset those of the first
    message. So a batch of acknowledgements is known as what is never acknowledged.
    """
    form = wide_form(raw)
    if form is not None:
        return as_wide(peek_batch(narrow(raw[:_HEAD_LIMIT], form)), form)
    begin = after_junk(raw)
    if raw[begin : begin + 3] not in (b"FHS", b"BHS"):
        return unreadable("no batch")
    fields = header_fields(raw, begin)
    if not fields:
        return unreadable("broken delimiters")
    fields = _padded(fields)
    inner, message = None, [b""] * 18
    for found in _PLACE.finditer(raw, begin, begin + _HEAD_LIMIT):
        if found[1] == b"MSH":
            message = _padded(header_fields(raw, found.start() + 1))
            break
        if found[1] == b"BHS" and inner is None:
            inner = _padded(header_fields(raw, found.start() + 1))
    inner = inner or [b""] * 18
    sides = fields[2:6] if any(fields[2:6]) else inner[2:6]
    found_in = (*sides, fields[10] or inner[10], message[10], message[11], message[17])
    values = [b"" if fields[0][3:] in value else value for value in found_in]  # they may have other delimiters
    control_id = values[4]
    head = [*fields[:2], *values[:4], fields[6], b"", b"", control_id, *values[5:7], *[b""] * 5, values[7]]
    kind = message[8].split(message[1][:1])[0] if message[1] else b""
    return Peek(head, control_id.decode("latin-1") or None, (kind.decode("latin-1"), "", ""), None)


def _padded(fields: list[bytes]) -> list[bytes]:
    return fields + [b""] * (18 - len(fields))


def read_batch(raw: bytes) -> Batch | None:
    """The batch in `raw`; None where it is none."""
    if not is_batch(raw):
        return None
    form = wide_form(raw)
    pieces = tuple(_pieces(raw, form))
    reader = _Reader()
    inner = form._replace(mark=b"") if form else None
    for index, piece in enumerate(pieces):
        shown = form if index == 0 else inner
        reader.read(piece.name, narrow(piece.raw, shown) if shown and piece.name != "MSH" else piece.raw)
    reader.end()
    return Batch(peek_batch(raw), pieces, tuple(reader.sections), reader.declared, tuple(reader.problems))


def acknowledge_batch(head: Peek, answers: Sequence[bytes], *, control_id: str, at: float | str) -> bytes:
    """One reply: the answers to a batch's messages between BHS and BTS. BHS-12 is the control id of the batch.

    Without answers it says that all is well where only errors are answered (2.10.3.3). `head` is of `peek_batch`, the
    answers are whole, as `acknowledge` makes them; `control_id` and `at` are as there.
    """
    fields = head.fields if head.ok else [b"MSH|", DELIMITERS, *[b""] * 16]
    bar = fields[0][3:]
    own = control_id.encode().replace(bar, b"")
    sides = (fields[4], fields[5], fields[2], fields[3])
    header = bar.join((b"BHS", fields[1], *sides, stamp(at).split(bar, 1)[0], b"", b"", b"", own, fields[9])) + b"\r"
    trailer = bar.join((b"BTS", b"%d" % len(answers))) + b"\r"
    if head.wide is None:
        return b"".join((header, *answers, trailer))
    inner = head.wide._replace(mark=b"")
    return b"".join((widen(header, head.wide), *answers, widen(trailer, inner)))


def _pieces(raw: bytes, form: Wide | None) -> Iterator[Piece]:
    starts = list(_starts(raw, form))
    for (begin, name), (end, _) in pairwise([*starts, (len(raw), starts[0][1])]):
        yield Piece(name, raw[begin:end])


def _starts(raw: bytes, form: Wide | None) -> Iterator[tuple[int, Name]]:
    """Where the pieces begin. Whatever stands before the first header is part of it."""
    if form is None:
        begin = after_junk(raw)
        yield 0, _name(raw[begin : begin + 3])
        for found in _PLACE.finditer(raw, begin):
            yield found.start() + 1, _name(found[1] or found[2])
        return
    first = narrow(raw[:_HEAD_LIMIT], form)
    begin = after_junk(first)
    yield 0, _name(first[begin : begin + 3])
    front, size = len(form.mark), form.size
    low = raw[front + (size - 1 if form.codec.endswith("be") else 0) :: size]  # of ASCII all that there is
    for found in _PLACE.finditer(low, len(first[:begin].decode())):
        at = front + found.start() * size
        if raw.startswith(found[0].decode().encode(form.codec), at):
            yield at + size, _name(found[1] or found[2])


def _name(name: bytes) -> Name:
    return name.decode("latin-1")  # type: ignore[return-value]


class _Reader:
    """Follows a batch piece by piece, counts, and notes what is wrong."""

    def __init__(self) -> None:
        self.sections: list[Section] = []
        self.problems: list[Problem] = []
        self.declared: int | None = None
        self._file = False  # a FHS was read
        self._closed = False  # a FTS was read
        self._open = False  # a BHS was read, and not its BTS
        self._header: str | None = None
        self._found = 0

    def read(self, name: Name, line: bytes) -> None:
        """`line` is of the envelope's pieces; what is in a message does not matter."""
        if self._closed:
            self._wrong("order", f"{name} after FTS; send nothing after the end of the file")
            self._closed = False
        if name == "MSH":
            self._found += 1
            return
        begin = after_junk(line)
        fields = header_fields(line, begin) if name in ("FHS", "BHS") else _fields(line)
        if name == "FHS":
            self._begin_file()
        elif name == "BHS":
            self._finish(None)
            self._open = True
            self._header = (fields[10].decode("latin-1") or None) if len(fields) > 10 else None
        elif name == "BTS":
            self._end_section(fields)
        else:
            self._end_file(fields)
        if any(rest[:3] not in _BESIDE for rest in re.split(rb"[\r\n]+", line[begin:].strip(b"\r\n\x1c \t\0"))[1:]):
            self._wrong("stray", f"segments after {name} that belong to no message; is an MSH missing?")

    def end(self) -> None:
        self._finish(None)
        if self._file and not self._closed:
            self._wrong("trailer", "FHS without FTS; the file may have been cut off")

    def _begin_file(self) -> None:
        self._finish(None)
        if self._file or self.sections:
            self._wrong("order", "a second FHS; send one file at a time")
        self._file = True

    def _end_section(self, fields: list[bytes]) -> None:
        if not self._open and not self._found:
            self._wrong("order", "BTS without BHS; each BTS ends one batch")
            return
        declared = self._count(fields, "BTS-1")
        if declared is not None and declared != self._found:
            self._wrong("count", f"BTS-1 says {declared} messages, and there are {self._found}")
        self._open = self._open or bool(self._found)
        self._finish(declared, ended=True)

    def _end_file(self, fields: list[bytes]) -> None:
        self._finish(None)
        if not self._file:
            self._wrong("order", "FTS without FHS")
        self.declared = self._count(fields, "FTS-1")
        if self.declared is not None and self.declared != len(self.sections):
            self._wrong("count", f"FTS-1 says {self.declared} batches, and there are {len(self.sections)}")
        self._closed = True

    def _finish(self, declared: int | None, ended: bool = False) -> None:
        """End the section that is open, or that messages without a BHS make up."""
        if not self._open and not self._found:
            return
        if self._open and not ended:
            self._wrong("trailer", f"batch {len(self.sections) + 1} has no BTS; it may have been cut off")
        self.sections.append(Section(self._header, declared, self._found))
        self._open, self._header, self._found = False, None, 0

    def _count(self, fields: list[bytes], where: str) -> int | None:
        """The number in the trailer's first field; None where it was not sent."""
        value = fields[1].strip() if len(fields) > 1 else b""
        if not value:
            return None
        if not value.isdigit() or len(value) > 9:
            self._wrong("count", f"{where} is not a number of at most nine digits")
            return None
        return int(value)

    def _wrong(self, kind: Trouble, text: str) -> None:
        self.problems.append(Problem(kind, text))


def _fields(line: bytes) -> list[bytes]:
    """A trailer's fields, the name first."""
    first = re.split(rb"[\r\n]", line, maxsplit=1)[0]
    return first.split(first[3:4]) if first[3:4] else [first]

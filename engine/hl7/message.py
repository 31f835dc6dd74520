"""A message as segments, fields, repetitions, components and subcomponents, each split only when it is asked for.

Nothing is checked here and nothing is lost: `Message(text).text` is the text. Absent is None, empty is "", and HL7's
explicit null is `NULL` (`""`, two quotes: the sender wants the value gone, 2.5.3).
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from engine.hl7.escape import STANDARD, Delimiters, unescape

NULL = '""'
HEADERS = frozenset({"MSH", "FHS", "BHS"})
"""Segments whose first field is the field separator itself."""
_EDGE = "\r\n\x0b\x1c\x00 \t\ufeff"
_SEGMENT = re.compile(r"\n+[A-Z][A-Z0-9]{2}([^A-Za-z0-9\s])", re.ASCII)
_INDEX = r"(?:\[([1-9][0-9]{0,4})\])?"
_PATH = re.compile(rf"([A-Za-z0-9]{{3}}){_INDEX}-([0-9]{{1,4}}){_INDEX}(?:\.([0-9]{{1,4}}))?(?:\.([0-9]{{1,4}}))?")


def split_segments(text: str) -> list[str]:
    """The segments of a message, without empty ones.

    They end with CR (2.5.2). LF and CRLF are understood too, but a LF stays inside its field where the message uses CR.
    Where both occur, the end of the header decides which of them the message uses.
    """
    text = text.lstrip(_EDGE)
    if "\n" not in text:
        lines = text.rstrip(_EDGE).split("\r")
    elif _lf_ends(text):
        lines = [line.strip("\r") for line in text.rstrip(_EDGE).split("\n")]
    else:
        lines = [line.strip("\n") for line in text.rstrip(_EDGE).split("\r")]
    return lines if all(lines) else [line for line in lines if line]


def _lf_ends(text: str) -> bool:
    """Whether LF ends the segments of a text that has some: there is no CR, or a segment begins after the first LF and
    before any CR."""
    at, cr = text.index("\n"), text.find("\r")
    if cr < 0:
        return True
    segment = _SEGMENT.match(text, at) if at < cr else None
    return segment is not None and segment[1] == text[3]


def spans(raw: bytes) -> Iterator[tuple[int, int]]:
    """Where the segments stand, each from and up to, in a message that ends them with CR: nothing is copied, since it
    may be a report of many megabytes."""
    begin, size = 0, len(raw)
    while begin <= size:
        end = raw.find(b"\r", begin)
        end = size if end < 0 else end
        yield begin, end
        begin = end + 1


def delimiters_of(text: str) -> Delimiters:
    """MSH-1 and MSH-2 of a text that begins with MSH. A fifth encoding character (2.9, truncation) plays no part."""
    if text.startswith("MSH|^~\\&"):
        return STANDARD
    field = text[3:4] or "|"
    rest = text[4:12].split(field, 1)[0].split("\r", 1)[0]
    component, repetition, mark, sub = (*rest[:4], *("",) * 4)[:4]
    return Delimiters(field, component or "^", repetition, mark, sub)


class Segment:
    """One segment. Field 0 is its name; in MSH, field 1 is the separator, as the standard counts."""

    __slots__ = ("_fields", "delimiters", "raw")

    def __init__(self, raw: str, delimiters: Delimiters = STANDARD) -> None:
        self.raw = raw
        self.delimiters = delimiters
        self._fields: list[str] | None = None

    @property
    def name(self) -> str:
        """`PID`."""
        return self.raw[:3]

    @property
    def fields(self) -> list[str]:
        """The raw fields."""
        if self._fields is None:
            fields = self.raw.split(self.delimiters.field)
            if fields[0] in HEADERS:
                fields.insert(1, self.delimiters.field)
            self._fields = fields
        return self._fields

    def repetitions(self, number: int) -> list[str]:
        """The raw repetitions of a field; none where it is absent or empty."""
        fields = self.fields
        if number >= len(fields) or not fields[number]:
            return []
        if self.name in HEADERS and number <= 2:
            return [fields[number]]
        mark = self.delimiters.repetition
        return fields[number].split(mark) if mark else [fields[number]]

    def get(self, number: int, repetition: int = 1, component: int = 0, subcomponent: int = 0) -> str | None:
        """One value, unescaped if it is a leaf; a component of 0 is the whole repetition. All count from 1.

        A whole repetition or component that has parts comes raw, since unescaping would make new delimiters of it.
        """
        found = self.repetitions(number)
        if repetition > len(found):
            return None
        value = found[repetition - 1]
        if self.name in HEADERS and number <= 2:
            return value
        _, split, _, _, sub = self.delimiters
        for index, mark in ((component, split), (subcomponent, sub)):
            if index:
                parts = value.split(mark) if mark else [value]
                if index > len(parts):
                    return None
                value = parts[index - 1]
        if split in value or (sub and sub in value):
            return value
        return unescape(value, self.delimiters)


class Message:
    """A message's segments in order."""

    __slots__ = ("delimiters", "lines", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        self.lines = split_segments(text)
        self.delimiters = delimiters_of(self.lines[0]) if self.lines else STANDARD

    def __iter__(self) -> Iterator[Segment]:
        return (Segment(line, self.delimiters) for line in self.lines)

    def segments(self, name: str) -> list[Segment]:
        """All segments of a name."""
        return [Segment(line, self.delimiters) for line in self.lines if line.startswith(name)]

    def get(self, path: str) -> str | None:
        """The value at `PID-5.1`, `OBX[2]-5[1].1.2`: of the first segment and repetition unless numbered."""
        segment, field, repetition, component, sub, nth = parse_path(path)
        found = self.segments(segment)
        return found[nth - 1].get(field, repetition, component, sub) if nth <= len(found) else None


def parse_path(path: str) -> tuple[str, int, int, int, int, int]:
    """`OBX[2]-5[1].1.2` → (OBX, field 5, repetition 1, component 1, subcomponent 2, second OBX). Raises ValueError."""
    found = _PATH.fullmatch(path)
    if found is None:
        raise ValueError(f"{path} is no path; write SEG-field[.component[.subcomponent]]")
    nth, field, repetition, component, sub = (int(part) if part else None for part in found.groups()[1:])
    return found[1], field or 0, repetition or 1, component or 0, sub or 0, nth or 1

"""A message while its steps work on it: lines that are cut into fields on need, and put together again.

What was not changed is written as it came, byte by byte: other line ends, blank lines, what stands before MSH and
after the last segment, and also what no codec would write a second time in the same way.
"""

from __future__ import annotations

from collections.abc import Iterable

from engine.hl7 import charset
from engine.hl7.escape import STANDARD, Delimiters, escape, unescape
from engine.hl7.message import HEADERS, NULL, delimiters_of, split_segments
from engine.hl7.peek import peek
from engine.mapping.library import Context, Unmappable
from engine.mapping.v2.groups import Groups

_FRONT = "\r\n\x0b\x1c\x00 \t\ufeff"
_TAIL = "\r\n\x0b\x1c\x00"


class Line:
    """One segment. Field 0 is its name; in MSH, field 1 is the separator.

    key: the group that it stands in (groups.py). number: the line of the message that it came in, -1 for a new one.
    end: what ends it, where the message has more than one way. gone: it was deleted.
    """

    __slots__ = ("changed", "end", "fields", "gone", "key", "name", "number", "text")

    def __init__(self, text: str, number: int = -1) -> None:
        self.text, self.number = text, number
        self.name = text[:3]
        self.fields: list[str] | None = None
        self.changed = self.gone = False
        self.key = (0, 0, 0)
        self.end: str | None = None

    def cut(self, mark: str) -> list[str]:
        """The raw fields."""
        fields = self.fields
        if fields is None:
            fields = self.text.split(mark)
            if self.name in HEADERS:
                fields.insert(1, mark)
            self.fields = fields
        return fields

    def put(self, number: int, value: str, mark: str) -> None:
        """Set a field as it is to stand there, with as many empty ones before it as are missing."""
        fields = self.fields or self.cut(mark)
        if number < len(fields):
            fields[number] = value
        else:
            fields.extend([""] * (number - len(fields)))
            fields.append(value)
        self.changed = True

    def written(self, mark: str) -> str:
        """The line as it stands now."""
        if not self.changed or self.fields is None:
            return self.text
        if self.name in HEADERS:
            return self.name + mark + mark.join(self.fields[2:])
        return mark.join(self.fields)

    def copy(self) -> Line:
        """Another line that can be changed by itself."""
        other = Line(self.text, self.number)
        other.fields = None if self.fields is None else list(self.fields)
        other.changed, other.key, other.end = self.changed, self.key, self.end
        return other


class Draft:
    """One message in the making. part, parts: which of how many it is."""

    __slots__ = (
        "_ends",
        "_groups",
        "_lines",
        "_raw",
        "_removed",
        "_tail",
        "_text",
        "context",
        "front",
        "head",
        "mark",
        "marks",
        "part",
        "parts",
    )  # fmt: skip

    def __init__(self, raw: bytes, context: Context) -> None:
        """Raises `Unmappable` where the bytes are not text in their charset, or no message."""
        self._raw, self.context = raw, context
        self._text = text = _decoded(raw, context)
        body = text.lstrip(_FRONT) if text[:1] in _FRONT else text
        self.front = text[: len(text) - len(body)]
        self.head = peek(raw)
        if body[:3] != "MSH" or not self.head.ok:
            raise Unmappable("no-header", "the first segment", "MSH with delimiters that can be told apart")
        self.marks = delimiters_of(body)
        self.mark = self.marks.field
        self.part = self.parts = 1
        self._groups: Groups | None = None
        self._removed = False
        if "\n" in body:
            self._lines, self._tail = _lines(body)
            self._ends = self._lines[0].end or "\r"
            return
        kept = body.rstrip(_TAIL)
        self._tail = body[len(kept) :]
        self._lines, self._ends = [Line(line, at) for at, line in enumerate(kept.split("\r"))], ""

    @property
    def lines(self) -> list[Line]:
        """The segments that are left, and the new ones."""
        if self._removed:
            self._lines = [line for line in self._lines if not line.gone]
            self._removed = False
        return self._lines

    @property
    def groups(self) -> Groups:
        """What belongs to what; made when first asked for."""
        if self._groups is None:
            self._groups = Groups(self.lines)
        return self._groups

    def first(self, name: str) -> Line | None:
        """The first segment of a name."""
        for line in self._lines:
            if line.name == name and not line.gone:
                return line
        return None

    def all(self, name: str) -> list[Line]:
        """All segments of a name."""
        return [line for line in self._lines if line.name == name and not line.gone]

    def add(self, name: str, after: Line) -> Line:
        """A new segment, empty, behind another one."""
        new = Line(name)
        new.fields, new.changed, new.end = [name], True, after.end
        lines = self.lines
        lines.insert(lines.index(after) + 1, new)
        if self._groups is not None and not self._groups.add(new, after):
            self._groups = None
        return new

    def remove(self, gone: Iterable[Line]) -> None:
        """Take segments out. The groups of the others stay as they are."""
        for line in gone:
            line.gone = True
        self._removed = True

    def branch(self, lines: Iterable[Line], part: int, parts: int) -> Draft:
        """A message of its own with these lines of this one."""
        other = Draft.__new__(Draft)
        for name in ("_ends", "_raw", "_tail", "_text", "context", "front", "head", "mark", "marks"):
            setattr(other, name, getattr(self, name))
        other._lines, other._removed = [line.copy() for line in lines], False
        other.part, other.parts, other._groups = part, parts, None
        return other

    def encoded(self) -> bytes:
        """The message as it stands now. Raises `Unmappable` where its charset has no characters for what was set."""
        text = self.text
        if text == self._text:
            return self._raw
        if text.isascii() and len(self._text) == len(self._raw) and self.context.encoding == "auto":
            return text.encode("ascii")  # so many characters as bytes, and all of them ASCII or of one byte
        context = self.context
        codec = charset.codec_of(self._raw, context.encoding, context.undeclared)
        try:
            data = text.encode(codec)
            before = self._text.encode(codec)
        except UnicodeEncodeError:
            raise Unmappable("charset", "what was set", f"characters that {codec} has, the message's charset") from None
        if self._raw.endswith(before):
            return self._raw[: len(self._raw) - len(before)] + data  # in front, a byte order mark
        return self._line_by_line(codec)

    @property
    def text(self) -> str:
        """The message as it stands now."""
        mark = self.mark
        if not self._ends:
            return self.front + "\r".join([line.written(mark) for line in self.lines]) + self._tail
        parts = [self.front]
        for line in self.lines:
            parts += (line.written(mark), self._ends if line.end is None else line.end)
        parts[-1] = self._tail
        return "".join(parts)

    def _line_by_line(self, codec: str) -> bytes:
        """Where the codec would write the message in another way than its sender: unchanged lines from the bytes."""
        came = self._raw.rstrip(_TAIL.encode()).split(b"\r")
        if self._ends or self.front or b"\0" in self._raw or len(came) != self._text.rstrip(_TAIL).count("\r") + 1:
            raise Unmappable("charset", "the line ends", f"segments that end in CR, where {codec} is written unusually")
        out = []
        for line in self.lines:
            fresh = line.changed or line.number < 0
            out.append(line.written(self.mark).encode(codec) if fresh else came[line.number])
        return b"\r".join(out) + self._tail.encode("ascii")


def _decoded(raw: bytes, context: Context) -> str:
    try:
        return charset.decode(raw, context.encoding, context.undeclared)
    except charset.Undecodable as error:
        raise Unmappable("charset", f"byte {error.position}", f"{error.codec}; {error.wanted}") from None


def _lines(text: str) -> tuple[list[Line], str]:
    """The lines of a text that has LF, each with what ends it, so that they can be put together as they were; and what
    stands behind the last."""
    out: list[Line] = []
    at = 0
    for number, line in enumerate(split_segments(text)):
        start = text.index(line, at)
        if out:
            out[-1].end = text[at:start]
        out.append(Line(line, number))
        at = start + len(line)
    return out, text[at:]


def leaf(raw: str, draft: Draft) -> str:
    """The text that a raw value stands for; `` for HL7's null."""
    if raw == NULL:
        return ""
    return unescape(raw, draft.marks) if draft.marks.escape and draft.marks.escape in raw else raw


def written(text: str, draft: Draft, where: str) -> str:
    """A text as a leaf among this message's delimiters. Raises `Unmappable` where it cannot be written."""
    if text.isalnum():
        return text
    marks = draft.marks
    if not marks.escape:
        if any(mark in text for mark in marks if mark) or not text.isprintable():
            raise Unmappable("no-escape", where, "a text without delimiters, as MSH-2 names no escape character")
        return text
    out = escape(text, marks)
    if out.isprintable():
        return out
    return "".join(f"{marks.escape}X{ord(char):02X}{marks.escape}" if char < " " else char for char in out)


def canonical(raw: str, draft: Draft) -> str:
    """A raw value among the standard's delimiters, the same whoever sent it."""
    return raw if draft.marks == STANDARD else _recoded(raw, draft.marks, STANDARD)


def localised(raw: str, draft: Draft) -> str:
    """A canonical value among this message's delimiters."""
    return raw if draft.marks == STANDARD else _recoded(raw, STANDARD, draft.marks)


def _recoded(raw: str, before: Delimiters, after: Delimiters) -> str:
    def cut(value: str, levels: tuple[int, ...]) -> str:
        if not levels:
            return escape(unescape(value, before), after)
        mark, to = before[levels[0]], after[levels[0]]
        parts = value.split(mark) if mark else [value]
        if len(parts) > 1 and not to:
            raise Unmappable("no-delimiter", "MSH-2", "all delimiters, for a value that has parts")
        return to.join(cut(part, levels[1:]) for part in parts)

    return cut(raw, (2, 1, 4))

"""MLLP blocks without I/O: bytes in, events out.

A block is `0x0B payload 0x1C 0x0D` (HL7 v2.3.1 appendix C; MLLP release 1), or has the start and end bytes of a
`Framing`. What peers really send is wider, and all of it is understood here: a missing last CR, LF or a doubled end
after a block, doubled start bytes, text and NULs between blocks, many blocks in a read, one block over many reads.

Three rules make the outcome independent of how the network cuts the stream:

* The first end byte always ends a block. MLLP forbids it inside one, and a peer that leaves out the second waits for
  its answer now. Only where the first end byte is CR or LF, which stand inside every message, the end counts whole:
  `0x0D 0x0D` is a blank line, as some peers without framing send it.
* After a block, any run of end bytes, CR and LF belongs to its end.
* A start byte inside a block is data (word processors use 0x0B as a line break), unless an HL7 header follows it: then
  the sender began again, and what came before is reported as `Unfinished`.

Where the peer answers by a byte outside of any block (`Framing.bare`), that byte is a frame too, of the type `Bare`.

In release 2 a block that is nothing but ACK (0x06) or NAK (0x15) is no message: the other side says with it whether it
has stored a block of ours (`Commit`).

Without a start byte a block begins with the first byte that is not filler (`FILLER` and end bytes), and what stands in
it before an HL7 header at the beginning of a line is noise. That is known only when the block ends.

No byte disappears: bytes fed = bytes in events + `Decoder.framing` + `Decoder.pending`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeAlias

from engine.config.edge import BARE, MLLP, Framing

MAX_BYTES = 32 * 1024 * 1024
"""Default limit of one payload, in bytes."""

HEAD_BYTES = 64 * 1024
"""How much of a payload beyond the limit is kept as evidence, in bytes."""

PIECE_BYTES = 16 * 1024
"""Reads of an open block are put together until they have this size."""

FILLER = b"\x00\r\n\t "
"""Bytes that peers put between blocks and that mean nothing."""

_HEADERS = (b"MSH", b"FHS", b"BHS")
_HEADER_LATER = re.compile(rb"(?<=[\r\n\x00])(?:MSH|FHS|BHS)")


_BARE = re.compile(b"[%b]|[^%b]+" % (BARE, BARE))


class Bare(bytes):
    """A payload that stands outside of any block: an answer of one byte, `STORED` or `NOT_STORED`."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One whole block, without its framing bytes. Or, as `Bare`, a byte that is an answer."""

    payload: bytes


@dataclass(frozen=True, slots=True)
class Commit:
    """A commit acknowledgement of release 2: whether the other side has stored one of our blocks, which it takes in
    their order."""

    stored: bool


@dataclass(frozen=True, slots=True)
class Noise:
    """Bytes outside any block. One stretch of noise gives as many events as reads it came in."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Unfinished:
    """A block whose sender began a new one before it had ended: all of its bytes."""

    head: bytes


@dataclass(frozen=True, slots=True)
class TooLarge:
    """A block over the limit: its first bytes (at most `HEAD_BYTES`) and its size so far. The decoder stops here."""

    head: bytes
    size: int


Event: TypeAlias = Frame | Commit | Noise | Unfinished | TooLarge

STORED, NOT_STORED = b"\x06", b"\x15"
"""ACK and NAK: what a commit acknowledgement holds, and nothing else."""

MOST_UNCOMMITTED = 1024
"""Blocks of ours that are known to wait for theirs. A peer that leaves out more of them gives none at all."""

_COMMITS = {STORED: Commit(True), NOT_STORED: Commit(False)}


def encode(payload: bytes, framing: Framing = MLLP) -> bytes:
    """The block that carries `payload`; one that is `Bare` has none."""
    if type(payload) is Bare:
        return payload
    if framing is MLLP:
        return b"\x0b%b\x1c\r" % payload
    return framing.start + payload + framing.end


class _Marks:
    """What a decoder looks for, from its framing. ValueError where blocks could not be told apart."""

    __slots__ = ("body", "mark", "restarts", "trailing")

    def __init__(self, framing: Framing) -> None:
        if framing.flaw:
            _, found, wanted = framing.flaw
            raise ValueError(f"framing: found {found}; expected {wanted}")
        start, end = framing.start, framing.end
        self.mark = end if end[:1] in b"\r\n" else end[:1]
        """What ends a block."""
        self.trailing = end + b"\r\n"
        self.restarts = tuple(start + header for header in _HEADERS)
        self.body = re.compile(b"[^%b]" % re.escape(FILLER + end))
        """A byte that begins a block where there is no start byte."""


_marks = lru_cache(maxsize=64)(_Marks)


def check(framing: Framing) -> None:
    """ValueError, with what would be right, where blocks of this framing could not be told apart."""
    _marks(framing)


class Decoder:
    """Finds blocks in a stream of bytes. Each byte is looked at once, however the stream is cut."""

    __slots__ = (
        "_bare",
        "_block",
        "_first",
        "_held",
        "_last",
        "_limit",
        "_mark",
        "_marks",
        "_parts",
        "_size",
        "_start",
        "_tail",
        "_trailing",
        "_width",
        "framing",
        "inside",
        "serial",
        "stopped",
    )

    def __init__(self, max_bytes: int = MAX_BYTES, framing: Framing = MLLP) -> None:
        """`max_bytes` limits one payload. ValueError where `framing` cannot work."""
        self._limit = max_bytes
        self._marks = _marks(framing)
        self._mark = self._marks.mark
        self._block: Callable[[bytes], Event] = Frame if framing.release == 1 else _of_release_2
        self._bare = framing.bare
        self._start = framing.start
        self._first = framing.start or b"none"  # what a read's first byte is compared with
        self._width = len(framing.end)
        self._last = framing.end[-1]
        self._parts: list[bytes] = []
        self._tail = bytearray()
        self._size = 0
        self._held = b""  # half of an end that counts whole
        self._trailing = False
        self.framing = 0
        """Framing bytes seen so far."""
        self.inside = False
        """True between a block's beginning and its end."""
        self.serial = 0
        """Number of the block begun last; tells one unfinished block from the next."""
        self.stopped = False
        """True after `TooLarge`: whatever is fed from then on is ignored, the connection is to be closed."""

    @property
    def size(self) -> int:
        """Bytes that have come of the block that has not ended yet."""
        return self._size

    @property
    def pending(self) -> bytes:
        """What has come of the block that has not ended yet."""
        return b"".join((*self._parts, self._tail, self._held))

    def feed(self, data: bytes) -> list[Event]:
        """The events that `data` completes, in their order."""
        if not self.inside and data[:1] == self._first:
            end = data.find(self._mark, 1)
            if end == len(data) - self._width and data[-1] == self._last and end <= self._limit and not self.stopped:
                payload = data[1:end]
                if self._first not in payload:  # exactly one block: nearly every read of a busy day
                    self.framing += 1 + self._width
                    self.serial += 1
                    self._trailing = True
                    return [self._block(payload)]
        return self._scan(data)

    def _scan(self, data: bytes) -> list[Event]:
        events: list[Event] = []
        if self._held:
            data, self._held = self._held + data, b""
        at = 0
        while at < len(data) and not self.stopped:
            if self.inside:
                at = self._inside(data, at, events)
            elif self._trailing:
                at = self._after(data, at)
            else:
                at = self._outside(data, at, events)
        return events

    def _outside(self, data: bytes, at: int, events: list[Event]) -> int:
        start = self._beginning(data, at)
        if start < 0:
            events += self._noise(data[at:])
            return len(data)
        if start > at:
            events += self._noise(data[at:start])
        self.inside = True
        self.serial += 1
        self.framing += len(self._start)
        return start + len(self._start)

    def _noise(self, data: bytes) -> list[Event]:
        """Bytes outside of any block, each answer among them as what it is."""
        if not self._bare:
            return [Noise(data)]
        return [Frame(Bare(part)) if part in _COMMITS else Noise(part) for part in _BARE.findall(data)]

    def _beginning(self, data: bytes, at: int) -> int:
        """Where the next block begins, -1 where none does."""
        if self._start:
            return data.find(self._start, at)
        body = self._marks.body.search(data, at)
        return body.start() if body else -1

    def _after(self, data: bytes, at: int) -> int:
        rest = data[at : at + 16].lstrip(self._marks.trailing)
        skipped = min(16, len(data) - at) - len(rest)
        self.framing += skipped
        self._trailing = not rest
        return at + skipped

    def _inside(self, data: bytes, at: int, events: list[Event]) -> int:
        end = data.find(self._mark, at)
        if end >= 0 and not self._size and end - at <= self._limit:
            self._finish(data[at:end], events)
            return end + 1
        stop = end
        if end < 0:
            stop = len(data)
            if len(self._mark) == 2 and data[-1] == self._mark[0]:
                stop -= 1
                self._held = data[stop:]
        self._keep(data[at:stop])
        if self._size > self._limit:
            self.stopped = True
            self._held = b""
            events.append(TooLarge(self.pending[:HEAD_BYTES], self._size))
        elif end >= 0:
            self._finish(self.pending, events)
            self._parts.clear()
            self._tail.clear()
            self._size = 0
            return end + 1
        return len(data)

    def _keep(self, piece: bytes) -> None:
        """Add to the open block. Small pieces are put together, since an object for each would be many times their
        size; large ones are copied only once, at the end."""
        self._size += len(piece)
        if len(piece) >= PIECE_BYTES and not self._tail:
            self._parts.append(piece)
            return
        self._tail += piece
        if len(self._tail) >= PIECE_BYTES:
            self._parts.append(bytes(self._tail))
            self._tail.clear()

    def _finish(self, block: bytes, events: list[Event]) -> None:
        self.inside = False
        self._trailing = True
        self.framing += 1
        if not self._start:
            events += _without_start(block)
            return
        payload = block.lstrip(self._start)
        self.framing += len(block) - len(payload)
        if self._start in payload:
            payload = self._restarted(payload, events)
        events.append(self._block(payload))

    def _restarted(self, payload: bytes, events: list[Event]) -> bytes:
        """The last message of a block in which the sender began again; what stands before it becomes `Unfinished`."""
        begin = max(payload.rfind(mark) for mark in self._marks.restarts)
        if begin < 0:
            return payload
        self.framing += 1
        events.append(Unfinished(payload[:begin]))
        return payload[begin + 1 :]


def _of_release_2(payload: bytes) -> Event:
    return _COMMITS.get(payload) or Frame(payload)


def _without_start(block: bytes) -> list[Event]:
    """The message of a block that had no start byte, and the text that stood before it."""
    header = None if block.startswith(_HEADERS) else _HEADER_LATER.search(block)
    if header is None:
        return [Frame(block)]
    return [Noise(block[: header.start()]), Frame(block[header.start() :])]

"""MLLP blocks without I/O: bytes in, events out.

A block is `0x0B payload 0x1C 0x0D` (HL7 v2.3.1 appendix C; MLLP release 1). What peers really send is wider, and all
of it is understood here: a missing last CR, LF or a doubled end after a block, doubled start bytes, text and NULs
between blocks, many blocks in a read, one block over many reads.

Three rules make the outcome independent of how the network cuts the stream:

* 0x1C always ends a block. MLLP forbids it inside one, and a peer that leaves out the CR waits for its answer now.
* After a block, any run of 0x1C, CR and LF belongs to its end.
* A 0x0B inside a block is data (word processors use it as a line break), unless an HL7 header follows it: then the
  sender began again, and what came before is reported as `Unfinished`.

No byte disappears: bytes fed = bytes in events + `Decoder.framing` + `Decoder.pending`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

START = 0x0B
END = 0x1C

MAX_BYTES = 32 * 1024 * 1024
"""Default limit of one payload, in bytes."""

HEAD_BYTES = 64 * 1024
"""How much of a payload beyond the limit is kept as evidence, in bytes."""

_START = b"\x0b"
_END = b"\x1c"
_RESTARTS = (b"\x0bMSH", b"\x0bFHS", b"\x0bBHS")


@dataclass(frozen=True, slots=True)
class Frame:
    """One whole block, without its framing bytes."""

    payload: bytes


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


Event: TypeAlias = Frame | Noise | Unfinished | TooLarge


def encode(payload: bytes) -> bytes:
    """The block that carries `payload`."""
    return b"\x0b%b\x1c\r" % payload


class Decoder:
    """Finds blocks in a stream of bytes. Each byte is looked at once, however the stream is cut."""

    __slots__ = ("_limit", "_parts", "_size", "_trailing", "framing", "inside", "serial", "stopped")

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        self._limit = max_bytes
        self._parts: list[bytes] = []
        self._size = 0
        self._trailing = False
        self.framing = 0
        """Framing bytes seen so far."""
        self.inside = False
        """True between a start byte and its end."""
        self.serial = 0
        """Number of the block begun last; tells one unfinished block from the next."""
        self.stopped = False
        """True after `TooLarge`: whatever is fed from then on is ignored, the connection is to be closed."""

    @property
    def pending(self) -> bytes:
        """What has come of the block that has not ended yet."""
        return b"".join(self._parts)

    def feed(self, data: bytes) -> list[Event]:
        """The events that `data` completes, in their order."""
        if not self.inside and data[:1] == _START:
            end = data.find(_END, 1)
            if end == len(data) - 2 and data[-1] == 0x0D and end <= self._limit and not self.stopped:
                payload = data[1:end]
                if _START not in payload:  # exactly one block: nearly every read of a busy day
                    self.framing += 3
                    self.serial += 1
                    self._trailing = True
                    return [Frame(payload)]
        return self._scan(data)

    def _scan(self, data: bytes) -> list[Event]:
        events: list[Event] = []
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
        start = data.find(_START, at)
        if start < 0:
            events.append(Noise(data[at:]))
            return len(data)
        if start > at:
            events.append(Noise(data[at:start]))
        self.framing += 1
        self.inside = True
        self.serial += 1
        return start + 1

    def _after(self, data: bytes, at: int) -> int:
        rest = data[at : at + 16].lstrip(b"\x1c\r\n")
        skipped = min(16, len(data) - at) - len(rest)
        self.framing += skipped
        self._trailing = not rest
        return at + skipped

    def _inside(self, data: bytes, at: int, events: list[Event]) -> int:
        end = data.find(_END, at)
        stop = len(data) if end < 0 else end
        self._parts.append(data[at:stop])
        self._size += stop - at
        if self._size > self._limit:
            events.append(TooLarge(self.pending[:HEAD_BYTES], self._size))
            self.stopped = True
        elif end >= 0:
            self._finish(events)
            return end + 1
        return stop

    def _finish(self, events: list[Event]) -> None:
        block = self.pending
        self._parts = []
        self._size = 0
        self.inside = False
        self._trailing = True
        payload = block.lstrip(_START)
        self.framing += 1 + len(block) - len(payload)
        if _START in payload:
            payload = self._restarted(payload, events)
        events.append(Frame(payload))

    def _restarted(self, payload: bytes, events: list[Event]) -> bytes:
        """The last message of a block in which the sender began again; what stands before it becomes `Unfinished`."""
        begin = max(payload.rfind(mark) for mark in _RESTARTS)
        if begin < 0:
            return payload
        self.framing += 1
        events.append(Unfinished(payload[:begin]))
        return payload[begin + 1 :]

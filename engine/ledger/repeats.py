"""Which message repeats an earlier one, because its sender heard no answer. No I/O and no clock.

A repeat has the control id and the bytes of the first, but for what is ignored, and comes before any later message was
acknowledged on the connection of either: who has been told that a later one is stored has no reason to repeat an
earlier one, and a laboratory that sends a result again on purpose must get it through. So what can be repeated are the
newest messages of each connection only, and these are kept here, by control id. In doubt a message is a new one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from hashlib import blake2b

from engine.hl7.message import spans

MOST_SOCKETS = 256  # new connections of one channel, until those that have been silent for the window are left out
LONGEST_NAME = 64  # bytes of a segment that its name stands in, with what some senders put before it
KEPT_WHOLE = 1 << 14  # bytes: a larger message is kept as its digest only

Essence = Callable[[bytes], Iterator[bytes | memoryview]]
"""A message's segments, less the fields that differ from one sending to the next."""


def digest(raw: bytes, essence: Essence) -> bytes:
    """By which a message is known again: 16 bytes. Of a large one it is made elsewhere than on the event loop."""
    found = blake2b(digest_size=16)
    for segment in essence(raw):
        found.update(segment)
        found.update(b"\r")
    return found.digest()


class First:
    """A message that may be repeated. `answer`: the authority's, once it is known. `void`: it failed, or was answered
    "no": whatever comes now is a new message."""

    __slots__ = ("_digest", "_raw", "answer", "control_id", "id", "received", "seq", "socket", "void")

    def __init__(
        self, id: int, seq: int, socket: int, received: int, control_id: str, raw: bytes, essence: Essence,
        known: bytes | None,
    ) -> None:  # fmt: skip
        """`known`: its digest, where it was made already."""
        self.id = id
        self.seq = seq
        self.socket = socket
        self.received = received
        self.control_id = control_id
        self.answer: bytes | None = None
        self.void = False
        self._raw: bytes | None = raw if len(raw) <= KEPT_WHOLE else None
        self._digest = b"" if self._raw is not None else known or digest(raw, essence)

    def same(self, raw: bytes, essence: Essence, known: bytes | None) -> bool:
        if self._raw is None:
            return (known or digest(raw, essence)) == self._digest
        return self._raw == raw or b"\r".join(essence(self._raw)) == b"\r".join(essence(raw))

    def lighten(self, essence: Essence) -> None:
        """Its connection is quiet: the digest will do."""
        if self._raw is not None:
            self._digest, self._raw = digest(self._raw, essence), None


class _Socket:
    """One connection: the newest number that was acknowledged on it, and its messages from that one on."""

    __slots__ = ("acknowledged", "firsts", "newest")

    def __init__(self) -> None:
        self.acknowledged = 0
        self.newest = 0  # when its newest message came
        self.firsts: deque[First] = deque()


class Repeats:
    """What can be repeated in one channel."""

    def __init__(self, window: int, essence: Essence) -> None:
        """`window`: microseconds after which nothing is taken for a repeat any more."""
        self.window = window
        self._essence = essence
        self._firsts: dict[str, First] = {}
        self._numbers: dict[int, First] = {}
        self._sockets: dict[int, _Socket] = {}
        self._swept = 0  # when they were looked through
        self._room = MOST_SOCKETS  # how many there may be before they are looked through

    def __len__(self) -> int:
        return len(self._firsts)

    def digest(self, raw: bytes) -> bytes:
        """What may be given as `known`. On any thread."""
        return digest(raw, self._essence)

    def first_of(
        self, control_id: str, socket: int, received: int, raw: bytes, known: bytes | None = None
    ) -> First | None:
        """The message that this one repeats, or None. `known`: its digest, where it was made already."""
        first = self._firsts.get(control_id)
        if first is None or first.void or not 0 <= received - first.received <= self.window:
            return None
        here = self._sockets.get(socket)
        if here is not None and here.acknowledged > first.seq:
            return None
        return first if first.same(raw, self._essence, known) else None

    def learn(
        self, id: int, seq: int, socket: int, received: int, control_id: str, raw: bytes, known: bytes | None = None
    ) -> First:
        """A message was stored that is a new one. `known`: its digest, where it was made already."""
        here = self._sockets.get(socket)
        if here is None:
            if len(self._sockets) >= self._room or received - self._swept > self.window:
                self._sweep(received)
            here = self._sockets[socket] = _Socket()
        while here.firsts and received - here.firsts[0].received > self.window:
            self._drop(here.firsts.popleft())  # where nothing is acknowledged, they go by their age
        first = First(id, seq, socket, received, control_id, raw, self._essence, known)
        here.firsts.append(first)
        here.newest = received
        self._firsts[control_id] = self._numbers[seq] = first
        return first

    def forget(self, seq: int, socket: int) -> None:
        """It was not stored after all."""
        here = self._sockets.get(socket)
        if here is not None and here.firsts and here.firsts[-1].seq == seq:
            self._drop(here.firsts.pop())

    def acknowledged(self, seq: int, socket: int) -> None:
        """The message with this number, or the first of it, was acknowledged on a connection."""
        here = self._sockets.get(socket)
        if here is None:
            here = self._sockets[socket] = _Socket()
        if seq > here.acknowledged:
            here.acknowledged = seq
            while here.firsts and here.firsts[0].seq < seq:
                self._drop(here.firsts.popleft())

    def answered(self, seq: int, answer: bytes) -> None:
        """The authority has answered a message."""
        if first := self._numbers.get(seq):
            first.answer = answer

    def void(self, seq: int) -> None:
        """It was refused, died, was discarded or superseded somewhere, or its sender was told "no"."""
        if first := self._numbers.get(seq):
            first.void = True

    def _drop(self, first: First) -> None:
        self._numbers.pop(first.seq, None)
        if self._firsts.get(first.control_id) is first:
            del self._firsts[first.control_id]

    def _sweep(self, now: int) -> None:
        """Leave out connections that have been silent for longer than the window; the others are kept small. It looks
        through all of them, and therefore makes room for many new ones."""
        for number, here in list(self._sockets.items()):
            here.newest = here.newest or now  # where only repeats have come
            if now - here.newest > self.window:
                for first in here.firsts:
                    self._drop(first)
                del self._sockets[number]
            else:
                for first in here.firsts:
                    first.lighten(self._essence)
        self._room, self._swept = len(self._sockets) + MOST_SOCKETS, now


def essence(paths: tuple[str, ...]) -> Essence:
    """`paths`: fields such as MSH-7, segments such as ZDS: left out of what is compared, wherever they stand."""
    fields: dict[bytes, set[int]] = {}
    segments = set()
    for path in paths:
        name, _, number = path.partition("-")
        if number:
            fields.setdefault(name.encode(), set()).add(int(number.partition(".")[0]))
        else:
            segments.add(name.encode())

    def less(raw: bytes) -> Iterator[bytes | memoryview]:
        head = raw.find(b"MSH")
        separator = raw[head + 3 : head + 4]
        if head < 0 or not separator:
            yield raw
            return
        view = memoryview(raw)
        for begin, end in spans(raw):
            name = raw[begin : min(end, begin + LONGEST_NAME)].strip(b"\n\xef\xbb\xbf\x00")[:3]
            if name in fields:
                parts = raw[begin:end].split(separator)
                for number in fields[name]:
                    at = number - 1 if name == b"MSH" else number
                    if 0 < at < len(parts):
                        parts[at] = b""
                yield separator.join(parts)
            elif name not in segments:
                yield view[begin:end]

    return less

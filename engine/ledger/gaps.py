"""What a mapping could not carry over of a message: codes that no table knows, and values that are in no resource.

It is noted when the message is settled, summed up in memory, and written behind the settlements about once a second
(`engine.ledger.sqlite.noting`): a kill may cost a second's counts, and never a delivery. Pure.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final, NamedTuple, TypeVar

K = TypeVar("K")

MOST_CODES: Final = 10_000  # of a channel: a coded field that holds free text must not fill the disk
MOST_FIELDS: Final = 500  # of a channel: each is a time series
MOST_PENDING: Final = 20_000  # codes that wait to be written, of all channels
LONGEST: Final = 200  # characters of a code and of its system
CUT: Final = "…"  # the last of what was cut
OTHER: Final = "other"  # all fields that are too many, or no fields

_FIELD: Final = re.compile(r"[A-Z][A-Z0-9]{2}-[1-9][0-9]{0,2}")


class Code(NamedTuple):
    """A code that a table did not know. field: where it stood, `OBX-3`."""

    table: str
    field: str
    system: str
    code: str


class Gaps(NamedTuple):
    """Of one message: each code once; (field, how many of its values are in no resource)."""

    codes: tuple[Code, ...] = ()
    lost: tuple[tuple[str, int], ...] = ()


def cut(text: str) -> str:
    """As it is kept: what a disk can hold, and not longer than LONGEST."""
    text = text.encode(errors="replace").decode()
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + CUT


def was_cut(text: str) -> bool:
    """Whether it is only the beginning of a code."""
    return len(text) == LONGEST and text.endswith(CUT)


@dataclass(slots=True)
class Sighting:
    """How often something was seen, and when first and last. seq: the lowest and the highest number of a message, as
    messages settle in whatever order; at: microseconds since 1970.

    fresh: a message with it was mapped by the mapping that is in force, and not again as it once was.
    """

    count: int
    first_seq: int
    last_seq: int
    first_at: int
    last_at: int
    fresh: bool = False

    def add(self, other: Sighting) -> None:
        self.count += other.count
        self.first_seq, self.last_seq = min(self.first_seq, other.first_seq), max(self.last_seq, other.last_seq)
        self.last_at = max(self.last_at, other.last_at)
        self.fresh |= other.fresh


@dataclass(slots=True)
class Noted:
    """What was noted and is not written yet, by channel. more: of codes for which there was no room."""

    codes: dict[tuple[int, Code], Sighting] = field(default_factory=dict)
    lost: dict[tuple[int, str], Sighting] = field(default_factory=dict)
    more: dict[int, Sighting] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.codes or self.lost or self.more)

    def note(self, channel: int, seq: int, gaps: Gaps, at: int, *, counts: bool = True, fresh: bool = True) -> None:
        """counts: it is not another attempt with a message that was noted before."""
        for code in gaps.codes:
            sighting = Sighting(int(counts), seq, seq, at, at, fresh)
            self._note(channel, Code(code.table, code.field, cut(code.system), cut(code.code)), sighting)
        if counts:
            for name, values in gaps.lost:
                name = name if _FIELD.fullmatch(name) else OTHER
                _add(self.lost, (channel, name), Sighting(values, seq, seq, at, at))

    def _note(self, channel: int, code: Code, sighting: Sighting) -> None:
        key = (channel, code)
        if key in self.codes or len(self.codes) < MOST_PENDING:
            _add(self.codes, key, sighting)
        elif sighting.count:
            _add(self.more, channel, sighting)

    def leave_out(self, key: tuple[int, Code]) -> None:
        """There is no room for a code: it is only counted."""
        sighting = self.codes.pop(key)
        if sighting.count:
            _add(self.more, key[0], sighting)

    def call_other(self, channel: int, name: str) -> None:
        """There is no room for a field."""
        _add(self.lost, (channel, OTHER), self.lost.pop((channel, name)))

    def taken(self, most: int) -> Noted:
        """At most so many codes, the oldest first, with everything else; they are no longer here."""
        keys = list(self.codes)[:most]
        taken = Noted({key: self.codes.pop(key) for key in keys}, self.lost, self.more)
        self.lost, self.more = {}, {}
        return taken

    def put_back(self, earlier: Noted) -> None:
        """What was taken could not be written: it goes before what has been noted since."""
        later = Noted(self.codes, self.lost, self.more)
        self.codes, self.lost, self.more = earlier.codes, earlier.lost, earlier.more
        for (channel, code), sighting in later.codes.items():
            self._note(channel, code, sighting)
        for place, sighting in later.lost.items():
            _add(self.lost, place, sighting)
        for channel, sighting in later.more.items():
            _add(self.more, channel, sighting)


def _add(table: dict[K, Sighting], key: K, sighting: Sighting) -> None:
    known = table.setdefault(key, sighting)
    if known is not sighting:
        known.add(sighting)

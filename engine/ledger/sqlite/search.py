"""Search keys: by what people look for messages, kept behind the hot path, a block of 4,096 messages at a time.

A key is 28 bits of a CRC-32, the quickest hash that is the same in every process. Eight of them choose one of the
block's 256 buckets, a row each, and the other 20 stand in it beside the place of the message in the block, in four
bytes. So a search looks at one row a block, a block's keys are written once, one after the other at the end of the
table, and dropping a block is dropping its rows. What it finds may be another message with the same hash, or may be
gone: each candidate is read, and its own keys decide.

The newest block of `search_block` is how far this has come. The block behind it is gathered in memory (`Filling`), from
the messages themselves, so that nothing is missing and nothing doubled after a crash.
"""

from __future__ import annotations

import sqlite3
import sys
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any, Final, NamedTuple
from zlib import crc32

from engine.hl7.search_keys import Key, Kind, keys, normal
from engine.ledger.sqlite.large import whole

TABLES = """
create table search_block (            -- blocks whose keys are written, with the times of their messages
  block integer primary key, first integer not null, last integer not null);
create table search_bucket (           -- id: block * 256 + bucket, keys: four bytes each
  id integer primary key, keys blob not null);
"""

FORGET: Final = (  # the newest stays: it says how far the keys have come
    "delete from search_bucket where id < 256 * min(?, (select max(block) from search_block))",
    "delete from search_block where block < ? and block < (select max(block) from search_block)",
)
"""Drops the keys of all blocks below one (`id >> 12`), whose messages are gone. Their value: that block."""

BLOCK: Final = 12  # as in the schema
PLACES: Final = 1 << BLOCK
_BUCKETS: Final = 256
_REST: Final = 20  # bits of a hash that stand in the bucket
_MARKS: Final = {"control_id": b"c", "order": b"n", "accession": b"n", "patient": b"p", "type": b"t"}
"""A number that is both an order's and an accession is kept once: the message says which it is."""
_START: Final = {kind: crc32(mark) for kind, mark in _MARKS.items()}

MOST_BLOCKS = 32  # looked at in one read
MOST_CANDIDATES = 256  # given by one read, and the rest of a block


@dataclass(frozen=True, slots=True)
class Selection:
    """Which messages are meant: those with all of these keys, of these channels (none: of all), received in this time.

    keys: as `engine.hl7.search_keys.wanted` makes them. channels: the ledger's numbers. since, until: microseconds
    since 1970, the first within, the last without.
    """

    keys: frozenset[Key] = frozenset()
    channels: frozenset[int] = frozenset()
    since: int = 0
    until: int = 1 << 62


class Found(NamedTuple):
    """A message that is meant. channel: the ledger's number of it."""

    channel: int
    seq: int
    id: int


def digest(kind: Kind, value: str) -> int:
    """28 bits."""
    return crc32(value.encode("utf-8", "surrogatepass"), _START[kind]) >> 4


class Filling:
    """The keys of a block that is not complete, or not written yet. Filled by one at a time, asked on the reading
    thread: what it has no keys of yet is above `upto`, whenever it is asked.

    `upto`: the id of the last message that it has read; below its block everything is written.
    """

    def __init__(self, block: int) -> None:
        self.block = block
        self.upto = max(block << BLOCK, 1) - 1
        self.first, self.last = 1 << 62, 0
        self._buckets = [array("I") for _ in range(_BUCKETS)]

    def read(self, connection: sqlite3.Connection, seconds: float) -> int:
        """Read on in this block, for about so long; how many messages it were."""
        until, count = perf_counter() + seconds, 0
        for id, received, control_id, large, raw in connection.execute(
            "select id, received, control_id, large, raw from message where id > ? and id < ? order by id",
            (self.upto, (self.block + 1) << BLOCK),
        ):
            self.add(id, received, control_id, whole(connection, raw, large))
            count += 1
            if perf_counter() > until:
                break
        return count

    def add(self, id: int, received: int, control_id: str | None, raw: bytes) -> None:
        """The next message of the block."""
        found = _keys(control_id, raw)
        buckets, place = self._buckets, id & (PLACES - 1)
        for hashed in {digest(kind, value) for kind, value in found}:
            buckets[hashed >> _REST].append((hashed << BLOCK | place) & 0xFFFFFFFF)
        self.first, self.last = min(self.first, received), max(self.last, received)
        self.upto = id

    @property
    def empty(self) -> bool:
        """Whether it has seen no message."""
        return self.upto < max(self.block << BLOCK, 1)

    def rows(self) -> tuple[tuple[str, tuple[Any, ...]], ...]:
        """The statements that write the block, to be run in one transaction."""
        buckets = [
            (
                "insert or replace into search_bucket (id, keys) values (?,?)",
                (self.block * _BUCKETS + n, _little(array("I", sorted(each))).tobytes()),
            )
            for n, each in enumerate(self._buckets)
            if each
        ]
        done = (self.block, self.first, self.last)
        return (*buckets, ("insert or replace into search_block (block, first, last) values (?,?,?)", done))

    def places(self, hashed: int) -> set[int]:
        """As `_places`, of this block."""
        rest = hashed & ((1 << _REST) - 1)
        return {entry & (PLACES - 1) for entry in self._buckets[hashed >> _REST] if entry >> BLOCK == rest}


def _keys(control_id: str | None, raw: bytes) -> frozenset[Key]:
    """A message whose bytes are no longer kept is still known by its control id."""
    return keys(raw) if raw else frozenset({("control_id", normal(control_id))} if control_id else ())


def _little(entries: array[int]) -> array[int]:
    """As they stand in the file, the low byte first, or back again."""
    if sys.byteorder == "big":
        entries.byteswap()
    return entries


def newest_written(connection: sqlite3.Connection) -> int:
    """The last block whose keys are written; -1 for none."""
    return int(connection.execute("select coalesce(max(block), -1) from search_block").fetchone()[0])


def bounds(connection: sqlite3.Connection) -> tuple[int, int]:
    """The ids of the oldest and the newest message; (1, 0) where there are none."""
    # Two queries: min and max in one would read the whole table.
    (low,) = connection.execute("select coalesce(min(id), 1) from message").fetchone()
    (high,) = connection.execute("select coalesce(max(id), 0) from message").fetchone()
    return low, high


def oldest_written(connection: sqlite3.Connection) -> int:
    """The first block whose keys are written; -1 for none."""
    return int(connection.execute("select coalesce(min(block), -1) from search_block").fetchone()[0])


def next_block(connection: sqlite3.Connection, filling: Filling) -> int | None:
    """The block of the first message that it has not read: its own while that may still grow, since ids become durable
    in their order. None where all is read."""
    (id,) = connection.execute("select min(id) from message where id > ?", (filling.upto,)).fetchone()
    return None if id is None else int(id) >> BLOCK


# -- the search


def candidates(
    connection: sqlite3.Connection, filling: Filling, selection: Selection, low: int, high: int, *, newest_first: bool
) -> tuple[list[int], int | None]:
    """Ids from `low` to `high`, in order, that may be of messages that are meant, as far as one read goes; and the id
    to go on with, None at the end. What has no keys yet may always be meant."""
    hashes = [digest(kind, value) for kind, value in sorted(selection.keys)]
    ids: list[int] = []
    blocks = range(low >> BLOCK, (high >> BLOCK) + 1)
    for count, block in enumerate(reversed(blocks) if newest_first else blocks, 1):
        begin, end = max(low, block << BLOCK), min(high, ((block + 1) << BLOCK) - 1)
        found = _of_block(connection, filling, selection, hashes, begin, end)
        ids += sorted(found, reverse=newest_first)
        if count >= MOST_BLOCKS or len(ids) >= MOST_CANDIDATES:
            further = begin - 1 if newest_first else end + 1
            return ids, further if low <= further <= high else None
    return ids, None


def _of_block(
    connection: sqlite3.Connection, filling: Filling, selection: Selection, hashes: list[int], begin: int, end: int
) -> Iterable[int]:
    block = begin >> BLOCK
    if block < filling.block and _out_of_time(connection, block, selection):
        return ()
    if not hashes:
        return _listed(connection, selection, begin, end)
    read = end if block < filling.block else filling.upto if block == filling.block else begin - 1
    places: set[int] | None = None
    for hashed in hashes if read >= begin else ():
        found = _places(connection, block, hashed) if block < filling.block else filling.places(hashed)
        places = found if places is None else places & found
        if not places:
            break
    known = {id for place in places or () if begin <= (id := (block << BLOCK) + place) <= read}
    if known and selection.channels:
        known.intersection_update(_of_channels(connection, block, selection.channels))
    return [*known, *(_listed(connection, selection, max(begin, read + 1), end) if read < end else ())]


def _out_of_time(connection: sqlite3.Connection, block: int, selection: Selection) -> bool:
    row = connection.execute("select first, last from search_block where block = ?", (block,)).fetchone()
    return row is not None and (row[0] >= selection.until or row[1] < selection.since)


def _places(connection: sqlite3.Connection, block: int, hashed: int) -> set[int]:
    """Where in a written block messages may have a key."""
    id = block * _BUCKETS + (hashed >> _REST)
    row = connection.execute("select keys from search_bucket where id = ?", (id,)).fetchone()
    if row is None:
        return set()
    entries = _little(array("I", row[0]))
    begin = (hashed << BLOCK) & 0xFFFFFFFF
    low = bisect_left(entries, begin)
    return {entry - begin for entry in entries[low : bisect_left(entries, begin + PLACES, low)]}


def _of_channels(connection: sqlite3.Connection, block: int, channels: Iterable[int]) -> Iterator[int]:
    """The ids in a block that are of some channels."""
    for channel in channels:
        query = "select id from message indexed by message_block where id >> 12 = ? and channel = ?"
        yield from (id for (id,) in connection.execute(query, (block, channel)))


def _listed(connection: sqlite3.Connection, selection: Selection, begin: int, end: int) -> list[int]:
    """What is there from `begin` to `end`, in one block, of the channels and the time that are meant."""
    when = "id between ? and ? and received >= ? and received < ?"
    values: tuple[int, ...] = (begin, end, selection.since, selection.until)
    if not selection.channels:
        query = f"select id from message not indexed where {when}"
    else:
        marks = ",".join("?" * len(selection.channels))
        query = (
            f"select id from message indexed by message_block where id >> 12 = ? and channel in ({marks}) and {when}"
        )
        values = (begin >> BLOCK, *selection.channels, *values)
    return [id for (id,) in connection.execute(query, values)]


def verified(connection: sqlite3.Connection, ids: Sequence[int], selection: Selection) -> list[Found]:
    """Those of the candidates that are there and are meant, in their order."""
    return [found for id in ids if (found := _verified(connection, id, selection))]


def _verified(connection: sqlite3.Connection, id: int, selection: Selection) -> Found | None:
    row = connection.execute("select channel, seq, received, large from message where id = ?", (id,)).fetchone()
    if row is None:
        return None
    channel, seq, received, large = row
    if not selection.since <= received < selection.until:
        return None
    if selection.channels and channel not in selection.channels:
        return None
    if selection.keys:
        control_id, raw = connection.execute("select control_id, raw from message where id = ?", (id,)).fetchone()
        if not selection.keys <= _keys(control_id, whole(connection, raw, large)):
            return None
    return Found(channel, seq, id)

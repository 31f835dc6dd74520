"""The search keys: what is found is what is there, however far they have come, and whatever a crash left of them."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.hl7.search_keys import Key, Kind
from engine.ledger.sqlite import schema, search
from engine.ledger.sqlite.search import FORGET, Filling, Found, Selection

KINDS: tuple[Kind, ...] = ("control_id", "order", "patient")
NEVER = 1 << 62


@dataclass(frozen=True)
class Put:
    """A message as a test wants it. gap: how many ids before it are nobody's."""

    gap: int
    channel: int
    received: int
    control_id: str
    order: str
    patient: str

    @property
    def raw(self) -> bytes:
        numbers = f"OBR|1|{self.order}\rPID|1||{self.patient}\r" if self.order else "NTE|1\r"
        return f"MSH|^~\\&|||||||ORU^R01|{self.control_id}\r{numbers}".encode()

    @property
    def keys(self) -> dict[str, str]:
        return {"control_id": self.control_id} | ({"order": self.order, "patient": self.patient} if self.order else {})


@dataclass
class Kept:
    """The tables, and what is in them by a model that knows no keys."""

    connection: sqlite3.Connection
    filling: Filling = field(default_factory=lambda: Filling(0))
    messages: dict[int, tuple[Put, int]] = field(default_factory=dict)  # by id, with the number in its channel
    seqs: dict[int, int] = field(default_factory=dict)
    last: int = 0

    def store(self, put: Put) -> None:
        self.last = id = self.last + 1 + put.gap
        self.seqs[put.channel] = seq = self.seqs.get(put.channel, 0) + 1
        self.messages[id] = put, seq
        row = (id, put.channel, seq, 1, put.received, put.control_id, None, None, put.raw)
        self.connection.execute(schema.INSERT_MESSAGE, row)

    def read(self) -> None:
        """One message, or the end of a block."""
        if self.filling.read(self.connection, 0.0) == 0:
            block = search.next_block(self.connection, self.filling)
            if block is not None and block > self.filling.block:
                self.write()
                self.filling = Filling(block)

    def write(self) -> None:
        if not self.filling.empty:
            for sql, values in self.filling.rows():
                self.connection.execute(sql, values)

    def crash(self) -> None:
        """What was in memory only is gone."""
        self.filling = Filling(search.newest_written(self.connection) + 1)

    def forget(self) -> None:
        """The messages of the oldest block that has some, and their keys."""
        if self.messages:
            block = min(self.messages) >> search.BLOCK
            gone = [id for id in self.messages if id >> search.BLOCK == block]
            for id in gone:
                del self.messages[id]
                self.connection.execute("delete from message where id = ?", (id,))
            for sql in FORGET:
                self.connection.execute(sql, (block + 1,))

    def found(self, selection: Selection, *, newest_first: bool = True) -> list[Found]:
        low, high = search.bounds(self.connection)
        rows: list[Found] = []
        at: int | None = high if newest_first else low
        while at is not None and low <= at <= high:
            begin, end = (low, at) if newest_first else (at, high)
            ids, at = search.candidates(self.connection, self.filling, selection, begin, end, newest_first=newest_first)
            rows += search.verified(self.connection, ids, selection)
        return rows

    def expected(self, selection: Selection) -> list[Found]:
        """Looked for one by one."""
        return [
            Found(put.channel, seq, id)
            for id, (put, seq) in sorted(self.messages.items(), reverse=True)
            if selection.since <= put.received < selection.until
            and (not selection.channels or put.channel in selection.channels)
            and all(put.keys.get(kind) == value for kind, value in selection.keys)
        ]


@pytest.fixture
def kept() -> Iterator[Kept]:
    with closing(made()) as connection:
        yield Kept(connection)


def made() -> sqlite3.Connection:
    connection = schema.connect(":memory:")
    schema.create(connection, "test")
    return connection


def by(kind: Kind, value: str, **options: Any) -> Selection:
    return Selection(frozenset({(kind, value)}), **options)


NUMBERS = st.sampled_from(["a1", "b2", "c3"])
PUTS = st.builds(
    Put,
    gap=st.integers(0, 20) | st.integers(4000, 9000),
    channel=st.integers(1, 3),
    received=st.just(0) | st.integers(0, 40),
    control_id=NUMBERS,
    order=NUMBERS | st.just(""),
    patient=NUMBERS,
)
KEYS: st.SearchStrategy[Key] = st.tuples(st.sampled_from(KINDS), NUMBERS)
SELECTIONS = st.builds(
    Selection,
    keys=st.frozensets(KEYS, max_size=2),
    channels=st.frozensets(st.integers(1, 3), max_size=2),
    since=st.integers(0, 40),
    until=st.integers(0, 41) | st.just(NEVER),
)
STEPS = st.lists(st.sampled_from(["read", "read", "read", "crash", "forget"]) | PUTS, max_size=60)


@pytest.mark.parametrize("bits", [28, 1, 0])
@given(steps=STEPS, selections=st.lists(SELECTIONS, min_size=1, max_size=8))
@settings(max_examples=150, deadline=None)
def test_what_is_found_is_what_a_look_at_every_message_finds(
    bits: int, steps: list[str | Put], selections: list[Selection]
) -> None:
    """Though hashes collide; before, while and after keys are written; after crashes; when old messages are gone."""
    with pytest.MonkeyPatch.context() as patch, closing(made()) as connection:
        real = search.digest
        patch.setattr(search, "digest", lambda kind, value: real(kind, value) & ((1 << bits) - 1) << 28 - bits)
        patch.setattr(search, "MOST_BLOCKS", 3)
        kept = Kept(connection)
        for step in steps:
            if isinstance(step, Put):
                kept.store(step)
            else:
                getattr(kept, step)()
        for selection in [*selections, Selection()]:
            expected = kept.expected(selection)
            assert kept.found(selection) == expected
            assert kept.found(selection, newest_first=False) == expected[::-1]


def message(number: int, gap: int = 0, **options: Any) -> Put:
    usual = {"received": number, "control_id": f"m{number}", "order": "o1", "patient": "p1"}
    return Put(gap, 1, **(usual | options))


def test_a_block_is_written_whole_and_once(kept: Kept) -> None:
    for number in range(1, 10):
        kept.store(message(number))
        kept.read()
    assert search.newest_written(kept.connection) == -1
    kept.store(message(99, gap=5000))
    kept.read()
    assert kept.connection.execute("select block, first, last from search_block").fetchall() == [(0, 1, 9)]
    before = kept.connection.execute("select * from search_bucket").fetchall()
    kept.filling = Filling(0)  # a crash before anybody knew
    for _ in range(10):
        kept.read()
    assert kept.connection.execute("select * from search_bucket").fetchall() == before
    assert [row.seq for row in kept.found(by("order", "o1"))] == [10, 9, 8, 7, 6, 5, 4, 3, 2, 1]


def test_messages_from_before_all_time_are_found_too(kept: Kept) -> None:
    for number in (1, 2):
        kept.store(message(number, received=0))
    kept.store(message(3, gap=5000))
    for _ in range(4):
        kept.read()
    assert [row.seq for row in kept.found(by("order", "o1"))] == [3, 2, 1]


def test_only_messages_that_have_all_keys_are_read_to_search_a_written_block(kept: Kept) -> None:
    for number in range(1, 200):
        kept.store(message(number, order=f"o{number}", patient=f"p{number % 2}"))
        kept.read()
    kept.store(message(200, gap=5000))
    kept.read()
    _, high = search.bounds(kept.connection)

    def looked_at(*keys: Key) -> list[int]:
        ids, at = search.candidates(
            kept.connection, kept.filling, Selection(frozenset(keys)), 1, high - 1, newest_first=True
        )
        assert at is None
        return ids

    assert looked_at(("order", "o7")) == [7]
    assert looked_at(("order", "o7"), ("patient", "p1")) == [7]
    assert looked_at(("order", "o7"), ("patient", "p0")) == []


def test_a_block_outside_the_time_is_not_looked_at(kept: Kept) -> None:
    for number in range(5, 20):
        kept.store(message(number))
        kept.read()
    kept.store(message(100, gap=5000))
    kept.read()
    low, high = search.bounds(kept.connection)

    def looked_at(**time: int) -> list[int]:
        ids, _ = search.candidates(
            kept.connection, kept.filling, by("order", "o1", **time), low, high - 1, newest_first=True
        )
        return ids

    assert looked_at(since=20) == looked_at(until=5) == []
    assert len(looked_at(since=19)) == len(looked_at(until=6)) == 15


def test_keys_go_with_their_block_and_the_place_where_to_go_on_stays(kept: Kept) -> None:
    for number in range(3):
        kept.store(message(number + 1, gap=5000 * (number > 0)))
    for _ in range(10):
        kept.read()
    kept.write()  # the newest, too
    blocks = [row[0] for row in kept.connection.execute("select block from search_block order by 1")]
    assert len(blocks) == 3
    for sql in FORGET:
        kept.connection.execute(sql, (blocks[-1] + 10,))
    assert [row[0] for row in kept.connection.execute("select block from search_block")] == blocks[-1:]
    assert {id >> 8 for (id,) in kept.connection.execute("select id from search_bucket")} == {blocks[-1]}


def test_a_message_whose_bytes_are_no_longer_kept_is_found_by_its_control_id(kept: Kept) -> None:
    for number in (1, 2):
        kept.store(message(number))
        kept.read()
    kept.connection.execute("update message set raw = x'' where id = 1")
    assert [row.seq for row in kept.found(by("control_id", "m1"))] == [1]
    assert [row.seq for row in kept.found(by("order", "o1"))] == [2]
    kept.crash()
    kept.read()
    assert [row.seq for row in kept.found(by("control_id", "m1"))] == [1]


def test_a_large_message_is_read_to_its_end(kept: Kept) -> None:
    put = message(1)
    kept.store(put)
    kept.connection.execute("insert into piece values (1, 0, ?)", (b"OBR|2|far\r",))
    kept.connection.execute("update message set large = 1 where id = 1")
    kept.read()
    assert [row.id for row in kept.found(by("order", "far"))] == [1]


def test_keys_of_a_block_take_four_bytes_each(kept: Kept) -> None:
    for number in range(1, 1001):
        kept.store(message(number, order=f"o{number}", patient=f"p{number}"))
        kept.read()
    rows = kept.filling.rows()
    assert sum(len(values[1]) for _, values in rows[:-1]) == 1000 * 4 * 5  # and two for the type

"""Where the messages of a replay stand: found by number, without a look at the rest of the ledger."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.ledger.sqlite.replays import stored

BLOCK = 1 << 12
STEP = 1000  # ids between two messages of a channel: others' stand there
GONE = {30, 31}


@pytest.fixture(scope="module")
def ledger() -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(":memory:")
    connection.execute("create table message (id integer primary key, channel integer, seq integer)")
    connection.execute("create unique index message_block on message(id >> 12, channel, seq)")
    rows = [(STEP * seq + channel, channel, seq) for channel in (1, 2) for seq in range(1, 60) if seq not in GONE]
    connection.executemany("insert into message values (?, ?, ?)", rows)
    yield connection
    connection.close()


@given(st.sets(st.integers(1, 70), max_size=20), st.integers(0, 70))
def test_all_that_are_there_are_found(ledger: sqlite3.Connection, numbers: set[int], before: int) -> None:
    low = min(numbers, default=0)
    there = {seq: STEP * seq + 1 for seq in numbers if seq < 60 and seq not in GONE}
    assert stored(ledger, 1, sorted(numbers), STEP * min(before, low)) == there


def test_no_block_is_looked_at_but_those_from_the_first_to_the_last(ledger: sqlite3.Connection) -> None:
    asked: list[str] = []
    ledger.set_trace_callback(asked.append)
    try:
        stored(ledger, 1, range(10, 20), STEP * 9)
    finally:
        ledger.set_trace_callback(None)
    blocks = [sql for sql in asked if "message_block" in sql]
    assert len(blocks) == (STEP * 19 + 1) // BLOCK - (STEP * 9) // BLOCK + 1

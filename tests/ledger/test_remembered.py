"""What is remembered: the newest before the asking message, while it is kept; and the same whenever asked again."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.ledger.sqlite import remembered, schema
from engine.ledger.sqlite.remembered import Kept, Unread

SECOND = 1_000_000


def made() -> sqlite3.Connection:
    connection = schema.connect(":memory:")
    schema.create(connection, "test")
    return connection


@pytest.fixture
def connection() -> Iterator[sqlite3.Connection]:
    with closing(made()) as made_here:
        yield made_here


def store(connection: sqlite3.Connection, id: int, at: int, channel: int = 1, raw: bytes = b"x") -> None:
    connection.execute(schema.INSERT_MESSAGE, (id, channel, id, 1, at * SECOND, None, None, None, raw))


def remember(connection: sqlite3.Connection, id: int, at: int, key: str, values: dict[str, Any], keep: float) -> None:
    message = Unread(id, id, at * SECOND, b"")
    connection.execute(remembered.PUT, remembered.row(Kept("orders", key, values, keep), message))


def prune(connection: sqlite3.Connection) -> None:
    oldest = remembered.oldest(connection) or 0
    while remembered.expired(connection, oldest):
        connection.execute(remembered.PRUNE, (oldest,))


ORDERS = st.lists(
    st.tuples(
        st.integers(0, 50),  # received
        st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 30)), max_size=2),  # (key, kept for)
    ),
    max_size=20,
)


@given(ORDERS, st.integers(0, 20))
def test_the_newest_before_that_was_still_kept_when_the_asking_one_came_counts(
    orders: list[tuple[int, list[tuple[str, int]]]], gone: int
) -> None:
    with closing(made()) as connection:
        for id, (at, brought) in enumerate(orders, 1):
            store(connection, id, at)
            for key, keep in brought:
                remember(connection, id, at, key, {"of": id, "keep": keep}, keep)

        def expected(key: str, asking: int) -> dict[str, int] | None:
            for id in range(asking - 1, 0, -1):
                at, brought = orders[id - 1]
                kept = [keep for each, keep in brought if each == key]
                if kept and at + kept[-1] > orders[asking - 1][0]:
                    return {"of": id, "keep": kept[-1]}
            return None

        def check(first: int) -> None:
            for asking in range(first, len(orders) + 1):
                for key in "ab":
                    assert remembered.recall(connection, "orders", key, asking) == expected(key, asking)

        check(1)
        received = [at for at, _ in orders]
        if gone < len(orders) and received[gone:] == sorted(received[gone:]):
            connection.execute("delete from message where id <= ?", (gone,))
            prune(connection)
            check(gone + 1)  # what is still there gets the same answers


def test_stores_and_keys_are_apart_and_a_message_does_not_see_itself(connection: sqlite3.Connection) -> None:
    store(connection, 1, 0)
    store(connection, 2, 1)
    remember(connection, 1, 0, "4711", {"ward": "3W", "more": ["ü", 1, None]}, 60)
    remember(connection, 2, 1, "4711", {"ward": "ICU"}, 60)
    assert remembered.recall(connection, "orders", "4711", 2) == {"ward": "3W", "more": ["ü", 1, None]}
    assert remembered.recall(connection, "orders", "4712", 2) is None
    assert remembered.recall(connection, "other", "4711", 2) is None
    assert remembered.recall(connection, "orders", "4711", 1) is None


def test_what_nobody_can_ask_for_any_more_is_dropped(connection: sqlite3.Connection) -> None:
    for id in range(1, 2502):
        remember(connection, id, 0, f"{id}", {}, 10)
    remember(connection, 9000, 0, "late", {}, 11)
    store(connection, 9001, 10)
    prune(connection)
    assert connection.execute("select key from remembered").fetchall() == [("late",)]


@pytest.mark.parametrize(
    "kept",
    [
        Kept("orders", "k", {"x": object()}, 1),
        Kept("orders", "\ud800", {}, 1),
        Kept("orders", "k", {}, float("nan")),
        Kept("orders", "k", {}, float("inf")),
    ],
)
def test_what_cannot_be_kept_is_told_before_it_is_written(kept: Kept) -> None:
    with pytest.raises((TypeError, ValueError, OverflowError)):
        remembered.row(kept, Unread(1, 1, 1, b""))


def test_of_bytes_that_are_not_those_that_were_stored_nothing_is_remembered(connection: sqlite3.Connection) -> None:
    store(connection, 1, at=1)
    connection.execute("update message set crc = 1")
    assert remembered.unread(connection, 1, 0, 9) == ([Unread(1, 1, SECOND, b"")], True)


def test_messages_of_a_channel_are_read_in_order_and_in_bounds(
    connection: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = [*range(1, 100), *range(5000, 5100), 90_000]
    for id in ids:
        store(connection, id, 0, channel=1 + id % 2)
    mine = [id for id in ids if id % 2]
    monkeypatch.setattr(remembered, "MOST", 7)
    seen: list[int] = []
    after, all_of_them = 0, False
    while not all_of_them:
        found, all_of_them = remembered.unread(connection, 2, after, 90_000)
        assert len(found) <= 7
        seen += [message.id for message in found]
        after = seen[-1] if found else after
    assert seen == mine
    assert [message.id for message in remembered.unread(connection, 2, 0, 5)[0]] == [1, 3, 5]

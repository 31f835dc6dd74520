"""The audit chain: whatever is done to its rows shows, and the row is named."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.ledger.audit import START, Entry, Head, Row, append, digest, verify


def chain(entries: list[Entry]) -> tuple[list[Row], Head]:
    rows, head = [], START
    for entry in entries:
        row, head = append(head, entry)
        rows.append(row)
    return rows, head


ENTRIES = [Entry(1000 + n, "ann", "cli", "hold", f"acme-{n}", "why", "legacy", "parallel") for n in range(5)]
FIELDS = {
    "at": 7, "who": "bob", "origin": "api", "verb": "release", "subject": "x", "why": "", "before": "y", "after": "z",
}  # fmt: skip


def test_an_untouched_chain_is_whole():
    rows, head = chain(ENTRIES)
    assert verify(rows, head) == []
    assert [row.id for row in rows] == [1, 2, 3, 4, 5]
    assert head == Head(5, rows[-1].hash)


def test_no_rows_are_a_whole_chain():
    assert verify([], START) == []


@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize("place", range(5))
def test_an_edited_row_is_named_whatever_was_edited(place: int, field: str):
    rows, head = chain(ENTRIES)
    rows[place] = replace(rows[place], entry=replace(rows[place].entry, **{field: FIELDS[field]}))
    (told,) = verify(rows, head)
    assert told.startswith(f"Row {place + 1} was edited")


def test_a_row_that_was_edited_with_its_hash_shows_in_the_next():
    rows, head = chain(ENTRIES)
    entry = replace(rows[1].entry, who="eve")
    rows[1] = Row(2, entry, digest(rows[0].hash, 2, entry))
    assert verify(rows, head) == ["Row 3 was edited, or row 2 with its hash: its hash does not fit."]


def test_the_last_row_edited_with_its_hash_shows_in_the_head():
    rows, head = chain(ENTRIES)
    entry = replace(rows[4].entry, who="eve")
    rows[4] = Row(5, entry, digest(rows[3].hash, 5, entry))
    assert verify(rows, head) == ["Row 5 was edited with its hash: the head has another."]


@pytest.mark.parametrize(
    ("gone", "told"),
    [
        ([1], ["Row 1 was removed."]),
        ([3], ["Row 3 was removed."]),
        ([2, 3], ["Rows 2 to 3 were removed."]),
        ([5], ["Row 5 was cut off at the end."]),
        ([4, 5], ["Rows 4 to 5 were cut off at the end."]),
        ([1, 4], ["Row 1 was removed.", "Row 4 was removed."]),
        ([1, 2, 3, 4, 5], ["Rows 1 to 5 were cut off at the end."]),
    ],
)
def test_removed_rows_are_named(gone: list[int], told: list[str]):
    rows, head = chain(ENTRIES)
    assert verify([row for row in rows if row.id not in gone], head) == told


def test_rows_that_the_head_does_not_count_are_told():
    rows, head = chain(ENTRIES)
    assert verify(rows, Head(3, rows[2].hash)) == [
        "Row 4 and what follows is not counted by the head: added, or the head was set back."
    ]
    assert verify([], head) != []


def test_a_row_moved_to_the_place_of_another_shows():
    rows, head = chain(ENTRIES)
    rows[1], rows[2] = replace(rows[2], id=2), replace(rows[1], id=3)
    assert [told.split(" was")[0] for told in verify(rows, head)] == ["Row 2", "Row 3", "Row 4"]


def test_a_row_comes_back_from_its_columns():
    (row, *_), _ = chain(ENTRIES)
    assert Row.of(row.columns) == row
    assert row.columns[:2] == (1, 1000)


TEXT = st.text(max_size=6)


@given(TEXT, TEXT, TEXT, TEXT)
def test_what_stands_in_two_fields_never_hashes_like_another_division_of_it(a: str, b: str, c: str, d: str):
    one, other = Entry(1, a, b, "", "", ""), Entry(1, c, d, "", "", "")
    assert (digest("", 1, one) == digest("", 1, other)) == ((a, b) == (c, d))

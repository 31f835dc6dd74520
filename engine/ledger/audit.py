"""The audit chain: each row's hash covers its content and the hash of the row before. Pure.

The head, how many rows there are and the last one's hash, stands elsewhere and is written in the same transaction. So
an edited row shows by its own hash, a removed one by its number, and a cut-off end by the head. Whoever can write the
whole file can make all of it again: a head that was noted outside shows even that.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import astuple, dataclass
from typing import Any

FORM = 1  # of what is hashed; another form gets another number


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing that somebody did. Never patient data: ids, numbers, words of the configuration.

    at: microseconds since 1970. origin: from where (`cli`, an address). subject: what it was done to, such as a
    connection or a channel. before, after: text, JSON where it is more than a word.
    """

    at: int
    who: str
    origin: str
    verb: str
    subject: str
    why: str
    before: str = ""
    after: str = ""


@dataclass(frozen=True, slots=True)
class Row:
    """An entry in its place; ids count from 1 without gaps."""

    id: int
    entry: Entry
    hash: str

    @classmethod
    def of(cls, columns: tuple[Any, ...]) -> Row:
        """From (id, at, who, origin, verb, subject, why, before, after, hash)."""
        return cls(columns[0], Entry(*columns[1:-1]), columns[-1])

    @property
    def columns(self) -> tuple[Any, ...]:
        return (self.id, *astuple(self.entry), self.hash)


@dataclass(frozen=True, slots=True)
class Head:
    """How many rows there are, and the hash of the last."""

    count: int = 0
    hash: str = ""


START = Head()
"""The head of a chain without rows."""


def digest(previous: str, id: int, entry: Entry) -> str:
    """The hash of a row after the row with the hash `previous`: SHA-256 over JSON in one form, in hexadecimal."""
    content = json.dumps([FORM, previous, id, *astuple(entry)], ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(content.encode()).hexdigest()


def append(head: Head, entry: Entry) -> tuple[Row, Head]:
    """The row that comes next, and the head after it. Both are to be written in one transaction."""
    id = head.count + 1
    row = Row(id, entry, digest(head.hash, id, entry))
    return row, Head(id, row.hash)


def verify(rows: Iterable[Row], head: Head, start: Head = START) -> list[str]:
    """What is wrong with the chain, a sentence for each row; empty where nothing is. `rows` come by rising id.

    start: the last row that was removed by age, and its hash; the chain that is left starts behind it.
    """
    problems: list[str] = []
    last = Row(start.count, Entry(0, "", "", "", "", ""), start.hash)
    for row in rows:
        if row.id > last.id + 1:
            problems.append(_missing(last.id + 1, row.id - 1, "removed"))
        elif digest(last.hash, row.id, row.entry) != row.hash:
            problems.append(_edited(row.id))
        last = row
    return problems + _end(last, head)


def _edited(id: int) -> str:
    before = f", or row {id - 1} with its hash" if id > 1 else ""
    return f"Row {id} was edited{before}: its hash does not fit."


def _end(last: Row, head: Head) -> list[str]:
    if last.id < head.count:
        return [_missing(last.id + 1, head.count, "cut off at the end")]
    if last.id > head.count:
        return [f"Row {head.count + 1} and what follows is not counted by the head: added, or the head was set back."]
    if last.hash != head.hash:
        return [f"Row {last.id} was edited with its hash: the head has another."]
    return []


def _missing(first: int, last: int, how: str) -> str:
    return f"Row {first} was {how}." if first == last else f"Rows {first} to {last} were {how}."

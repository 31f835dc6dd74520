"""Messages, and outputs at a tap, that are too large for one transaction.

A 20 MB report written at once would keep every other sender waiting for its commit. So its rest is written in pieces,
one in a transaction, between those of others; the row that makes it a message comes last. Pieces without a row are
what a crash left of a message that was never acknowledged, and are removed when the ledger is opened.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from zlib import crc32

from engine.ledger.book import HEAD, Book

LARGE = 1 << 20  # bytes; from here on a message is stored in pieces
PIECE = 256 << 10  # bytes written in one transaction

STATEMENTS = {
    "add_piece": "insert into piece (large, n, data) values (?,?,?)",
    "add_large": "insert into large (id, size) values (?,?)",
}


def pieces(raw: bytes) -> Iterator[bytes]:
    """What does not stand in the message's row."""
    view = memoryview(raw)
    return (bytes(view[at : at + PIECE]) for at in range(HEAD, len(raw), PIECE))


def put_piece(large: int, n: int, data: bytes, book: Book) -> None:
    book.put("add_piece", large, n, data)


def put_size(large: int, size: int, book: Book) -> None:
    book.put("add_large", large, size)


def whole(connection: sqlite3.Connection, head: bytes, large: int | None) -> bytes:
    """All bytes of what stands in a row with its beginning, or whole."""
    if large is None:
        return head
    rest = connection.execute("select data from piece where large = ? order by n", (large,))
    return b"".join((head, *(data for (data,) in rest)))


def checked(connection: sqlite3.Connection, head: bytes, large: int | None, crc: int | None) -> tuple[bytes, bool]:
    """As `whole`, and whether these are the bytes that were stored. crc: as in the row; what has none is believed."""
    raw = whole(connection, head, large)
    return raw, crc is None or crc32(raw) == crc


def tidy(connection: sqlite3.Connection) -> int:
    """Remove pieces that became no message; the highest number of a large one."""
    orphans = (
        "not in (select large from message where large is not null"
        " union all select large from tap_output where large is not null)"
    )
    connection.execute(f"delete from piece where large {orphans}")
    connection.execute(f"delete from large where id {orphans}")
    (last,) = connection.execute("select coalesce(max(id), 0) from large").fetchone()
    return int(last)

"""What messages brought for later ones to look up: what an order said, when its result comes.

A message sees what came before it, and no more: of the rows of a key whose messages have a lower id, the newest that
was still kept when the asking message was received. Both are facts of the two messages, so that an output made again
later looks up the same.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from engine.ledger.sqlite.large import checked

TABLES = """
create table remembered (
  store text, key text, message integer,
  until integer not null,              -- microseconds since 1970: nobody received later sees it
  given text not null,                 -- JSON: name and value
  primary key (store, key, message)) without rowid;
create index remembered_until on remembered(until);
create table remembered_upto (         -- how far a channel's messages have been read
  channel integer primary key, upto integer not null);
"""

PUT: Final = "insert or replace into remembered (store, key, message, until, given) values (?,?,?,?,?)"
PUT_UPTO: Final = (
    "insert into remembered_upto (channel, upto) values (?,?)"
    " on conflict do update set upto = excluded.upto where upto < excluded.upto"
)
PRUNE: Final = (
    "delete from remembered where (store, key, message) in"
    " (select store, key, message from remembered indexed by remembered_until where until <= ? limit 1000)"
)
"""Drops some of what nobody can ask for any more. Its value: a time before which no message that is still there was
received, since each of them can be mapped again."""

STATEMENTS: Final = {"put_remembered": PUT, "put_remembered_upto": PUT_UPTO}

BLOCK: Final = 12  # as in the schema
FOR_EVER: Final = 1 << 62
MOST: Final = 64  # messages in one read
MOST_BYTES: Final = 4 << 20


class Kept(NamedTuple):
    """What a message brings. values: what JSON can hold. keep_seconds: for how long after it was received."""

    store: str
    key: str
    values: Mapping[str, Any]
    keep_seconds: float


class Unread(NamedTuple):
    """A message that has not been asked what is to be remembered of it. received: microseconds since 1970. raw: empty
    where the bytes are no longer kept, or are not those that were stored."""

    id: int
    seq: int
    received: int
    raw: bytes


def row(kept: Kept, message: Unread) -> tuple[Any, ...]:
    """The values of `PUT`. Where a message brings a key several times, the last one counts. TypeError or ValueError
    where they cannot be kept: values that are no JSON, a key that is no text."""
    until = min(message.received + round(kept.keep_seconds * 1e6), FOR_EVER)
    given = json.dumps(dict(kept.values), separators=(",", ":"))
    return kept.store.encode().decode(), kept.key.encode().decode(), message.id, until, given


def recall(
    connection: sqlite3.Connection, store: str, key: str, message: int, later: bool = False
) -> dict[str, Any] | None:
    """What the newest message before `message` brought under a key, of those that were still kept when `message` was
    received; None where there is none. So what is over counts for nothing, whether it has been dropped yet or not.
    later: what the first one after it brought."""
    if later:
        first = connection.execute(
            "select given from remembered where store = ? and key = ? and message > ? order by message limit 1",
            (store, key, message),
        ).fetchone()
        return json.loads(first[0]) if first else None
    found = connection.execute(
        "select given from remembered where store = ? and key = ? and message < ?"
        " and until > (select received from message where id = ?) order by message desc limit 1",
        (store, key, message, message),
    ).fetchone()
    return json.loads(found[0]) if found else None


def upto(connection: sqlite3.Connection) -> dict[int, int]:
    """By channel: the id up to which its messages have been read."""
    return dict(connection.execute("select channel, upto from remembered_upto").fetchall())


def unread(connection: sqlite3.Connection, channel: int, after: int, upto: int) -> tuple[list[Unread], bool]:
    """Messages of a channel with ids above `after`, up to `upto`, in order, and whether that is all of them."""
    (first,) = connection.execute("select coalesce(min(id), 0) from message").fetchone()
    found: list[Unread] = []
    size = 0
    for block in range(max(after + 1, first) >> BLOCK, (upto >> BLOCK) + 1):
        for id, seq, received, large, crc, raw in connection.execute(
            "select id, seq, received, large, crc, raw from message indexed by message_block"
            " where id >> 12 = ? and channel = ? and id > ? and id <= ? order by seq",
            (block, channel, after, upto),
        ):
            if len(found) == MOST or size > MOST_BYTES:
                return found, False
            raw, sound = checked(connection, raw, large, crc)
            found.append(Unread(id, seq, received, raw if sound else b""))
            size += len(found[-1].raw)
    return found, True


def oldest(connection: sqlite3.Connection) -> int | None:
    """When the oldest message that is there was received."""
    found = connection.execute("select received from message order by id limit 1").fetchone()
    return int(found[0]) if found else None


def expired(connection: sqlite3.Connection, at: int) -> bool:
    """Whether `PRUNE` has something to drop."""
    query = "select 1 from remembered indexed by remembered_until where until <= ? limit 1"
    return connection.execute(query, (at,)).fetchone() is not None

"""Which rows may go, in the order of their ids, and the statements that remove them, a slice at a time.

A slice is bounded in rows and bytes: it shares the writer with messages whose senders wait. What is too large for that
goes piece by piece afterwards.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from operator import itemgetter
from typing import Any, Final, NamedTuple

from engine.ledger.keeping import AUDIT, CAPTURED, EVENTS, NUMBERED, OUTPUTS, RAW, RECEIPTS, Compared
from engine.ledger.model import first_of
from engine.ledger.sqlite import parked, retention
from engine.ledger.sqlite.schema import BLOCK

MOST_ROWS: Final = 48  # in one slice
MOST_BYTES: Final = 128 << 10
PIECES: Final = 8  # of 256 KiB, removed in one transaction
SAME_DAY: Final = 24 * 3600 * 1_000_000  # microseconds in which what goes by one rule is one row of `pruning`

_IDS = "(select value from json_each(?))"
_MESSAGES: Final = {
    RAW: (
        f"update message set raw = x'', large = null, crc = null where id in {_IDS}",
        f"delete from revision where message in {_IDS}",
    ),
    CAPTURED: (f"delete from captured where message in {_IDS}",),
    RECEIPTS: (
        f"delete from captured where message in {_IDS}",
        f"delete from revision where message in {_IDS}",
        f"delete from repeat where message in {_IDS}",
        f"delete from message where id in {_IDS}",
    ),
    EVENTS: (f"delete from intake_event where id in {_IDS}",),
    OUTPUTS: (f"delete from tap_output where id in {_IDS}",),
}
"""Class → what removes the rows of some ids, given as a JSON array."""

_OUTPUTS_OF = f"delete from tap_output where channel = ? and seq between ? and ? and {parked.SETTLED}"
_DECISIONS = "delete from tap_decision where not exists (select 1 from tap_output o where o.id = tap_decision.output)"
_RECEIPTS_OF = f"delete from receipt where message in {_IDS} and id <= ?"
_PAIRS_OF = (  # a message that was different is counted again when somebody decides about a discrepancy
    "delete from pair where channel = ? and tap = ? and seq between ? and ?"
    " and verdict not in ('different', 'missing_in_legacy')"
)
_PRUNING = (
    "insert into pruning (channel, class, first, last, last_id, at, rule) values (?,?,?,?,?,?,?)"
    " on conflict do update set last = excluded.last, last_id = excluded.last_id"
)
_PRUNED = (
    "insert into pruned (channel, destination, epoch, replay, state, count) values (?,?,?,?,?,?)"
    " on conflict do update set count = count + excluded.count"
)
_PIECES = "delete from piece where large = ? and n >= ? and n < ?"
_LARGE = "delete from large where id = ?"

Statement = tuple[str, tuple[Any, ...]]


class Limit(NamedTuple):
    """How far a channel may go in one class: above `mark`, up to number `upto` and row `upto_id`; `after`: the row of
    the mark. undecided: what `live` would refuse must stay."""

    mark: int
    after: int
    upto: int
    upto_id: int
    undecided: bool = False


class Row(NamedTuple):
    """A row that may go. seq: of a message; of other classes the id. size: in bytes. large: where the rest of it is."""

    channel: int
    seq: int
    id: int
    size: int
    large: int | None


@dataclass(slots=True)
class Part:
    """What goes of one channel in one transaction."""

    channel: int
    first: int
    last: int
    last_id: int
    size: int = 0
    ids: list[int] = field(default_factory=list)
    large: list[int] = field(default_factory=list)
    begun: int = 0  # the first number of its row in `pruning`
    facts: Compared = field(default_factory=Compared)
    receipts: int = 0  # the highest id of a receipt that is counted
    counts: Counter[tuple[int, int, int, int]] = field(default_factory=Counter)  # (destination, epoch, replay, state)


# -- what may go next


def walk(connection: sqlite3.Connection, kind: str, limits: dict[int, Limit]) -> Iterator[Row]:
    """Rows that may go, in the order of their ids, as far as the limits allow. It holds no read transaction between the
    rows of different blocks."""
    if not limits:
        return
    if kind in (RAW, RECEIPTS):
        yield from _messages(connection, limits)
    elif kind == CAPTURED:
        yield from _captured(connection, limits)
    elif kind == EVENTS:
        yield from _events(connection, limits)
    else:
        yield from _outputs(connection, limits)


def _messages(connection: sqlite3.Connection, limits: dict[int, Limit]) -> Iterator[Row]:
    first, last = min(one.after for one in limits.values()) + 1, max(one.upto_id for one in limits.values())
    for block in range(first >> BLOCK, (last >> BLOCK) + 1):
        there = connection.execute(
            "select channel, min(seq), max(seq) from message indexed by message_block where id >> 12 = ?"
            " group by channel",
            (block,),
        ).fetchall()
        if not any(
            channel in limits and high > limits[channel].mark and low <= limits[channel].upto
            for channel, low, high in there
        ):
            continue
        rows = connection.execute(  # one by one: of a block a slice takes a few
            "select channel, seq, id, length(raw), large from message where id between ? and ? order by id",
            (max(first, block << BLOCK), min(last, ((block + 1) << BLOCK) - 1)),
        )
        yield from _within(rows, limits)


def highest(connection: sqlite3.Connection, channel: int, limit: Limit) -> int:
    """The highest number of a channel that may go, looked for from the newest block down."""
    for block in range(limit.upto_id >> BLOCK, (limit.after >> BLOCK) - 1, -1):
        (last,) = connection.execute(
            "select max(seq) from message indexed by message_block"
            " where id >> 12 = ? and channel = ? and seq > ? and seq <= ? and id <= ?",
            (block, channel, limit.mark, limit.upto, limit.upto_id),
        ).fetchone()
        if last is not None:
            return int(last)
    return limit.mark


def _captured(connection: sqlite3.Connection, limits: dict[int, Limit]) -> Iterator[Row]:
    after, last = min(one.after for one in limits.values()), max(one.upto_id for one in limits.values())
    while rows := connection.execute(
        "select m.channel, m.seq, m.id, sum(length(c.output)), null from captured c join message m on m.id = c.message"
        " where c.message > ? and c.message <= ? group by c.message order by c.message limit ?",
        (after, last, MOST_ROWS * 8),
    ).fetchall():
        after = rows[-1][2]
        yield from _within(rows, limits)


def _events(connection: sqlite3.Connection, limits: dict[int, Limit]) -> Iterator[Row]:
    """All of the table: what `live` would refuse stays until its channel has moved, and others go before it."""
    after, last = min(one.after for one in limits.values()), max(one.upto_id for one in limits.values())
    while rows := connection.execute(
        "select channel, id, id, length(raw) + coalesce(length(answer), 0), null, kind from intake_event"
        " where id > ? and id <= ? order by id limit ?",
        (after, last, MOST_ROWS * 8),
    ).fetchall():
        after = rows[-1][2]
        wanted = [row[:5] for row in rows if not _undecided(limits, row[0], row[5])]
        yield from _within(wanted, limits)


def _undecided(limits: dict[int, Limit], channel: int, kind: str) -> bool:
    return kind == "would_refuse" and channel in limits and limits[channel].undecided


def _outputs(connection: sqlite3.Connection, limits: dict[int, Limit]) -> Iterator[Row]:
    for channel, limit in limits.items():
        after = 0
        while rows := connection.execute(
            "select channel, id, id, length(raw), large from tap_output where channel = ? and seq is null"
            f" and id > ? and id <= ? and {parked.SETTLED} and not exists (select 1 from difference d"
            "  join discrepancy x on x.id = d.discrepancy and x.state = 'open'"
            "  where d.channel = tap_output.channel and d.seq = 0 and d.output = tap_output.id) order by id limit ?",
            (channel, after, limit.upto_id, MOST_ROWS * 8),
        ).fetchall():
            after = rows[-1][2]
            yield from _within(rows, limits)


def _within(rows: Iterable[tuple[Any, ...]], limits: dict[int, Limit]) -> Iterator[Row]:
    for row in map(Row._make, rows):
        limit = limits.get(row.channel)
        if limit is not None and limit.mark < row.seq <= limit.upto and row.id <= limit.upto_id:
            yield row


def parts(rows: Sequence[Row]) -> list[Part]:
    """By channel."""
    found: dict[int, Part] = {}
    for row in rows:
        part = found.setdefault(row.channel, Part(row.channel, row.seq, row.seq, row.id))
        part.last, part.last_id = row.seq, row.id
        part.size += row.size
        part.ids.append(row.id)
        part.large += [row.large] if row.large is not None else []
    return list(found.values())


def complete(connection: sqlite3.Connection, kind: str, part: Part, at: int, rule: str) -> None:
    """What else goes with a part, and what is to be counted of it."""
    if kind in NUMBERED:
        part.begun = _begins(connection, part.channel, kind, part.first, at, rule)
        part.facts = retention.compared(connection, part.channel)
    if kind in (RAW, RECEIPTS):
        _large_of(connection, part)
    if kind == RECEIPTS:
        _count(connection, part)


def _count(connection: sqlite3.Connection, part: Part) -> None:
    """Count a part's receipts as the totals do: at a destination a message counts once, and so does a replay of it."""
    rows = connection.execute(
        "select id, destination, message, delivery, epoch, state from receipt indexed by receipt_message"
        f" where message in {_IDS} order by destination, message, delivery",
        (as_json(part.ids),),
    ).fetchall()
    part.receipts = max((row[0] for row in rows), default=0)
    for (destination, _, delivery), group in groupby(rows, key=itemgetter(1, 2, 3)):
        several = list(group)
        replay = int(delivery > 1)
        state = first_of(row[5] for row in several)
        part.counts[destination, 0 if replay else several[0][4], replay, state.value] += 1


def _large_of(connection: sqlite3.Connection, part: Part) -> None:
    """Outputs at taps that are too large for one transaction."""
    rows = connection.execute(
        f"select large from tap_output where channel = ? and seq between ? and ? and {parked.SETTLED}"
        " and large is not null",
        (part.channel, part.first, part.last),
    )
    part.large += [large for (large,) in rows]


# -- what removes it


def as_json(ids: Sequence[int]) -> str:
    return f"[{','.join(map(str, ids))}]"


def removal(kind: str, part: Part, at: int, rule: str) -> Iterator[Statement]:
    """The statements that remove a part. at: microseconds since 1970. rule: why, in words."""
    ids = as_json(part.ids)
    if kind == RECEIPTS:
        yield _RECEIPTS_OF, (ids, part.receipts)
        for place, n in part.counts.items():
            yield _PRUNED, (part.channel, *place, n)
        for tap in part.facts.watermarks:
            yield _PAIRS_OF, (part.channel, tap, part.first, part.last)
    if kind in (RAW, RECEIPTS):
        yield _OUTPUTS_OF, (part.channel, part.first, part.last)
    for statement in _MESSAGES[kind]:
        yield statement, (ids,)
    if kind in (RAW, RECEIPTS, OUTPUTS):
        yield _DECISIONS, ()
    if kind in NUMBERED:
        yield _PRUNING, (part.channel, kind, part.begun, part.last, part.last_id, at, rule)


def removal_of_large(connection: sqlite3.Connection, large: int) -> list[list[Statement]]:
    """For each transaction its statements. What a crash leaves of it is removed when the ledger is opened."""
    (last,) = connection.execute("select coalesce(max(n), -1) from piece where large = ?", (large,)).fetchone()
    pieces: list[list[Statement]] = [[(_PIECES, (large, n, n + PIECES))] for n in range(0, last + 1, PIECES)]
    return [*pieces, [(_LARGE, (large,))]]


def removal_of_audit(connection: sqlite3.Connection, upto: int, at: int, rule: str) -> list[Statement]:
    """The oldest rows of the audit chain up to `upto`; the chain then starts behind them."""
    row = connection.execute(
        "select id, hash from (select id, hash from audit where id <= ? order by id limit ?) order by id desc limit 1",
        (upto, MOST_ROWS),
    ).fetchone()
    if row is None:
        return []
    return [
        ("delete from audit where id <= ?", (row[0],)),
        ("insert or replace into audit_start (only, id, hash) values (1,?,?)", (row[0], row[1])),
        (_PRUNING, (0, AUDIT, row[0], row[0], row[0], at, rule)),
    ]


def _begins(connection: sqlite3.Connection, channel: int, kind: str, first: int, at: int, rule: str) -> int:
    """The first number of the row of `pruning` that `first` belongs to: what goes on one day by one rule is one row."""
    row = connection.execute(
        "select first, last, at, rule from pruning where channel = ? and class = ? order by first desc limit 1",
        (channel, kind),
    ).fetchone()
    if row and row[1] < first and row[3] == rule and 0 <= at - row[2] < SAME_DAY:
        return int(row[0])
    return first

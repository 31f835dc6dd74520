"""Everything counted again from the rows and compared with what the ledger keeps as counts. Reads whole tables."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterator
from itertools import groupby
from operator import itemgetter

from engine.ledger.model import SETTLED, State, first_of
from engine.ledger.sqlite import mappings, retention
from engine.ledger.sqlite.large import checked

SETTLED_COLUMNS = ", ".join(state.label for state in SETTLED)
Place = tuple[int, int, int, int]  # channel, destination, epoch, state


def differences(connection: sqlite3.Connection) -> list[str]:
    """What differs, a sentence each; in one read transaction."""
    connection.execute("begin")
    try:
        return [
            *_counters(connection), *_totals(connection), *_replays(connection), *mappings.differences(connection)
        ]  # fmt: skip
    finally:
        connection.execute("commit")


def damaged(connection: sqlite3.Connection, first: int, last: int) -> list[str]:
    """Of the messages with ids from `first` to `last` those whose bytes are not those that were stored, a sentence
    each. Reads them all."""
    rows = connection.execute(
        "select c.name, m.seq, m.large, m.crc, m.raw from message m join channel c on c.id = m.channel"
        " where m.id between ? and ? and m.crc is not null order by m.id",
        (first, last),
    )
    return [
        f"{name}/{seq}: its bytes are not those that were stored"
        for name, seq, large, crc, raw in rows
        if not checked(connection, raw, large, crc)[1]
    ]


def _counters(connection: sqlite3.Connection) -> Iterator[str]:
    rows = connection.execute(
        "select c.id, c.name, c.seq, coalesce(m.n, 0), coalesce(m.top, 0) from channel c left join"
        " (select channel, count(*) n, max(seq) top from message indexed by message_block group by channel) m"
        " on m.channel = c.id where c.seq <> coalesce(m.n, 0) or c.seq <> coalesce(m.top, 0)"
    ).fetchall()
    gone = retention.heads(connection) if rows else {}
    for id, name, seq, stored, newest in rows:
        count, top = stored + gone.get(id, 0), newest or gone.get(id, 0)
        if seq == count == top:
            continue
        yield f"channel {name}: the counter says {seq}, {count} messages are stored, the highest number is {top}"


def _totals(connection: sqlite3.Connection) -> Iterator[str]:
    counted: Counter[Place] = Counter()
    for *place, count in connection.execute(
        "select channel, destination, epoch, state, count(*) from receipt where part = 1 and delivery = 1"
        " group by 1, 2, 3, 4"
    ):
        counted[place[0], place[1], place[2], place[3]] = count
    counted.update(_in_parts(connection))
    counted.update(retention.counted(connection))
    kept: Counter[Place] = Counter()
    for channel, destination, epoch, *totals in connection.execute(
        f"select channel, destination, epoch, {SETTLED_COLUMNS} from progress"
    ):
        for state, count in zip(SETTLED, totals, strict=True):
            kept[channel, destination, epoch, state.value] = count
    for place in sorted(counted.keys() | kept.keys()):
        if counted[place] != kept[place]:
            yield (
                f"channel {place[0]}, destination {place[1]}, epoch {place[2]}: {counted[place]} receipts say"
                f" {State(place[3]).label}, the total says {kept[place]}"
            )


def _in_parts(connection: sqlite3.Connection) -> Counter[Place]:
    """What is to be added to the count of first parts, for messages that have several: such a message counts once, when
    none of it is open any more, by the state of its parts that counts first."""
    several = (
        "select destination, message from receipt where part > 1 and delivery = 1"
        " union select destination, message from open_work where part > 1 and delivery = 1"
    )
    unfinished = set(connection.execute("select destination, message from open_work where delivery = 1"))
    rows = connection.execute(
        "select channel, destination, epoch, message, part, state from receipt join"
        f" ({several}) using (destination, message) where delivery = 1 order by destination, message, part"
    )
    more: Counter[Place] = Counter()
    for (destination, message), parts in groupby(rows, key=itemgetter(1, 3)):
        receipts = list(parts)
        channel, epoch = receipts[0][0], receipts[0][2]
        for *_, part, state in receipts:
            more[channel, destination, epoch, state] -= part == 1
        if (destination, message) not in unfinished:
            more[channel, destination, epoch, first_of(row[-1] for row in receipts).value] += 1
    return more


def _replays(connection: sqlite3.Connection) -> Iterator[str]:
    counted: dict[tuple[int, int], list[int]] = {}
    opened = set()
    for channel, destination, message, delivery in connection.execute(
        "select channel, destination, message, delivery from open_work where delivery > 1"
    ):
        opened.add((destination, message, delivery))
        counted.setdefault((channel, destination), [0] * (1 + len(SETTLED)))[0] += 1
    rows = connection.execute(
        "select channel, destination, message, delivery, state from receipt where delivery > 1"
        " order by destination, message, delivery"
    )
    for (channel, destination, message, delivery), parts in groupby(rows, key=itemgetter(0, 1, 2, 3)):
        state = first_of([row[-1] for row in parts])
        if (destination, message, delivery) not in opened:
            count = counted.setdefault((channel, destination), [0] * (1 + len(SETTLED)))
            count[0] += 1
            count[1 + SETTLED.index(state)] += 1
    for (channel, destination, gone), n in retention.replayed(connection).items():
        count = counted.setdefault((channel, destination), [0] * (1 + len(SETTLED)))
        count[0] += n
        count[1 + SETTLED.index(State(gone))] += n
    kept = {
        (channel, destination): totals
        for channel, destination, *totals in connection.execute(
            f"select channel, destination, begun, {SETTLED_COLUMNS} from again"
        )
    }
    for place in sorted(counted.keys() | kept.keys()):
        if counted.get(place) != kept.get(place):
            yield (
                f"channel {place[0]}, destination {place[1]}: of replays (begun, then settled by state) the rows say"
                f" {counted.get(place)}, the counts say {kept.get(place)}"
            )

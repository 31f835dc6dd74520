"""Reading the ledger: short queries on a connection of their own, one read transaction each."""

from __future__ import annotations

import sqlite3
from collections import Counter
from pathlib import Path
from typing import Any

from engine.ledger.course import ChannelBook
from engine.ledger.model import SETTLED, State
from engine.ledger.sqlite.large import whole
from engine.ledger.sqlite.schema import BLOCK

MOST_BYTES = 4 << 20  # of messages in one read: large ones come a few at a time
PEEKED = 1024  # bytes of a message that its head is read from
SEARCHED = 200_000  # newest messages among which a control id is looked for

_SETTLED = ", ".join(state.label for state in SETTLED)
_HEAD = "id, seq, socket, received, control_id"


class Reader:
    """Queries. Not thread-safe: used from one thread. What is asked of the tables beside the messages stands in modules
    of their own (`journal`, `comparisons`), as functions of `connection`."""

    def __init__(self, path: Path) -> None:
        self.connection = sqlite3.connect(
            f"file:{path}?mode=ro", uri=True, isolation_level=None, check_same_thread=False
        )
        self.connection.execute("pragma cache_size = -8192")

    def close(self) -> None:
        self.connection.close()

    def backlog(self, channel: int, after: int, from_id: int, limit: int) -> list[tuple[Any, ...]]:
        """(id, seq, socket, received, control_id, raw) of the channel's messages above `after`, in order."""
        rows: list[tuple[Any, ...]] = []
        size = 0
        for block in self._blocks(from_id):
            cursor = self.connection.execute(
                f"select {_HEAD}, large, raw from message indexed by message_block"
                " where id >> 12 = ? and channel = ? and seq > ? order by seq limit ?",
                (block, channel, after, limit - len(rows)),
            )
            for *head, large, raw in cursor:
                rows.append((*head, whole(self.connection, raw, large)))
                size += len(rows[-1][-1])
                if size > MOST_BYTES or len(rows) == limit:
                    cursor.close()
                    return rows
        return rows

    def message(self, id: int) -> tuple[Any, ...]:
        row = self.connection.execute(f"select {_HEAD}, large, raw from message where id = ?", (id,)).fetchone()
        if row is None:
            raise LookupError(f"no message with id {id} in the ledger")
        *head, large, raw = row
        return (*head, whole(self.connection, raw, large))

    def _blocks(self, from_id: int) -> range:
        (last,) = self.connection.execute("select coalesce(max(id), 0) from message").fetchone()
        return range(from_id >> BLOCK, (last >> BLOCK) + 1)

    # -- the equation

    def balance(self, books: list[ChannelBook]) -> list[dict[str, Any]]:
        """Per channel, epoch and destination: stored, and every state counted, in one read transaction.

        `stored` comes from intake's counter, the settled states from the totals that receipts were counted into,
        `waiting` and `sending` from message rows above the claim and the frontier, the rest from `open_work`.
        """
        connection = self.connection
        connection.execute("begin")
        try:
            return [row for book in books for row in self._balance(book)]
        finally:
            connection.execute("commit")

    def _balance(self, book: ChannelBook) -> list[dict[str, Any]]:
        connection = self.connection
        (seq,) = connection.execute("select seq from channel where id = ?", (book.id,)).fetchone()
        firsts = dict(connection.execute("select number, first from epoch where channel = ?", (book.id,)))
        lasts = {number: firsts.get(number + 1, seq + 1) - 1 for number in firsts}
        opened: dict[tuple[int, int], Counter[str]] = {}
        for destination, epoch, state, count in connection.execute(
            "select destination, epoch, state, count(*) from open_work where channel = ? and part = 1 and delivery = 1"
            " group by 1, 2, 3",
            (book.id,),
        ):
            opened.setdefault((destination, epoch), Counter())[State(state).label] += count
        names = dict(connection.execute("select id, name from destination"))
        rows = connection.execute(
            f"select destination, epoch, claim, frontier, frontier_id, {_SETTLED} from progress"
            " where channel = ? order by epoch, destination",
            (book.id,),
        ).fetchall()
        result = []
        for destination, epoch, claim, frontier, frontier_id, *totals in rows:
            states = Counter(opened.get((destination, epoch), {}))
            last = lasts[epoch]
            states["waiting"] += self._count(book.id, claim, last, frontier_id)
            states["sending"] += self._count(book.id, frontier, min(claim, last), frontier_id)
            states.update({state.label: count for state, count in zip(SETTLED, totals, strict=True)})
            stored = max(0, last - firsts[epoch] + 1)
            result.append(
                {
                    "channel": book.name, "epoch": epoch, "destination": names[destination], "stored": stored,
                    "claim": claim, "frontier": frontier, "states": {k: v for k, v in states.items() if v},
                    "balanced": stored == sum(states.values()),
                }
            )  # fmt: skip
        return result

    def _count(self, channel: int, after: int, upto: int, from_id: int) -> int:
        if upto <= after:
            return 0
        return sum(
            self.connection.execute(
                "select count(*) from message indexed by message_block"
                " where id >> 12 = ? and channel = ? and seq > ? and seq <= ?",
                (block, channel, after, upto),
            ).fetchone()[0]
            for block in self._blocks(from_id)
        )

    def rebuilt(self) -> list[str]:
        """Count everything again from the rows and compare; what differs, a sentence each. Reads whole tables."""
        connection = self.connection
        connection.execute("begin")
        try:
            return [*self._counters_differ(), *self._totals_differ()]
        finally:
            connection.execute("commit")

    def _counters_differ(self) -> list[str]:
        rows = self.connection.execute(
            "select c.name, c.seq, coalesce(m.n, 0), coalesce(m.top, 0) from channel c left join"
            " (select channel, count(*) n, max(seq) top from message indexed by message_block group by channel) m"
            " on m.channel = c.id where c.seq <> coalesce(m.n, 0) or c.seq <> coalesce(m.top, 0)"
        )
        return [
            f"channel {name}: the counter says {seq}, {count} messages are stored, the highest number is {top}"
            for name, seq, count, top in rows
        ]

    def _totals_differ(self) -> list[str]:
        counted: Counter[tuple[int, int, int, int]] = Counter()
        for *place, count in self.connection.execute(
            "select channel, destination, epoch, state, count(*) from receipt where part = 1 and delivery = 1"
            " group by 1, 2, 3, 4"
        ):
            counted[place[0], place[1], place[2], place[3]] = count
        kept: Counter[tuple[int, int, int, int]] = Counter()
        for channel, destination, epoch, *totals in self.connection.execute(
            f"select channel, destination, epoch, {_SETTLED} from progress"
        ):
            for state, count in zip(SETTLED, totals, strict=True):
                kept[channel, destination, epoch, state.value] = count
        return [
            f"channel {place[0]}, destination {place[1]}, epoch {place[2]}: {counted[place]} receipts say"
            f" {State(place[3]).label}, the total says {kept[place]}"
            for place in sorted(counted.keys() | kept.keys())
            if counted[place] != kept[place]
        ]

    # -- for people

    def messages(
        self, channel: int | None, before: int | None, limit: int, control_id: str | None = None
    ) -> list[tuple[Any, ...]]:
        """(id, channel, seq, received, control_id, size, the first bytes), newest first.

        `before`: sequence numbers below it, of one channel. A control id is looked for without an index, among the
        newest SEARCHED messages.
        """
        size = (
            "case when large is null then length(raw) else (select size from large where large.id = message.large) end"
        )
        head = f"id, channel, seq, received, control_id, {size}, substr(raw, 1, {PEEKED})"
        if control_id is not None:
            return self.connection.execute(
                f"select {head} from message not indexed where id > (select max(id) from message) - {SEARCHED}"
                " and control_id = ? and (? is null or channel = ?) order by id desc limit ?",
                (control_id, channel, channel, limit),
            ).fetchall()
        if channel is None:
            return self.connection.execute(f"select {head} from message order by id desc limit ?", (limit,)).fetchall()
        rows: list[tuple[Any, ...]] = []
        for block in reversed(self._blocks(0)):
            rows += self.connection.execute(
                f"select {head} from message indexed by message_block"
                " where id >> 12 = ? and channel = ? and seq < ? order by seq desc limit ?",
                (block, channel, before or (1 << 62), limit - len(rows)),
            )
            if len(rows) >= limit:
                break
        return rows

    def settled(self, ids: list[int]) -> dict[int, dict[str, str]]:
        """Message id → destination → the state its newest receipt says."""
        names = dict(self.connection.execute("select id, name from destination"))
        marks = ",".join("?" * len(ids))
        found: dict[int, dict[str, str]] = {id: {} for id in ids}
        for id, destination, state in self.connection.execute(
            "select message, destination, state from receipt indexed by receipt_message"
            f" where message in ({marks}) order by id",
            ids,
        ):
            found[id][names[destination]] = State(state).label
        return found

    def received(self, id: int) -> int:
        """When a message was received, in microseconds since 1970."""
        return int(self.connection.execute("select received from message where id = ?", (id,)).fetchone()[0])

    def id_of(self, channel: int, seq: int) -> int | None:
        """The message id of a sequence number, looked for from the newest block down."""
        for block in reversed(self._blocks(0)):
            row = self.connection.execute(
                "select id from message indexed by message_block where id >> 12 = ? and channel = ? and seq = ?",
                (block, channel, seq),
            ).fetchone()
            if row:
                return int(row[0])
        return None

    def receipts(self, id: int) -> list[tuple[Any, ...]]:
        """(destination, part, delivery, epoch, state, at, why, answer) of a message, in the order they were written."""
        names = dict(self.connection.execute("select id, name from destination"))
        rows = self.connection.execute(
            "select destination, part, delivery, epoch, state, at, why, answer from receipt indexed by receipt_message"
            " where message = ? order by id",
            (id,),
        ).fetchall()
        return [(names[row[0]], *row[1:4], State(row[4]), *row[5:]) for row in rows]

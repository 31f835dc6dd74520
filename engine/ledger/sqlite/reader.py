"""Reading the ledger: short queries on a connection of their own, one read transaction each."""

from __future__ import annotations

import sqlite3
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

from engine.ledger.course import ChannelBook
from engine.ledger.model import SETTLED, Message, State, first_of
from engine.ledger.sqlite import recount
from engine.ledger.sqlite.large import checked
from engine.ledger.sqlite.schema import BLOCK

MOST_BYTES = 4 << 20  # of messages in one read: large ones come a few at a time
PEEKED = 1024  # bytes of a message that its head is read from

_HEAD = "id, seq, socket, received, control_id"
_SIZE = "case when large is null then length(raw) else (select size from large where large.id = message.large) end"
_SHOWN = f"id, channel, seq, received, control_id, {_SIZE}, coalesce(substr(raw, 1, {PEEKED}), x'')"


class Stored(NamedTuple):
    """A row of `message`. received: microseconds since 1970. raw: all of a large one; empty where it was pruned.
    damaged: the bytes are not those that were stored."""

    id: int
    seq: int
    socket: int
    received: int
    control_id: str | None
    raw: bytes
    damaged: bool = False

    def of(self, channel: ChannelBook) -> Message:
        """As the message that it was."""
        message = Message(channel, self.raw, self.received, self.control_id, self.socket)
        message.id, message.seq, message.damaged = self.id, self.seq, self.damaged
        return message


class Receipt(NamedTuple):
    """A row of `receipt`, for people. at: microseconds since 1970."""

    destination: str
    part: int
    delivery: int
    epoch: int
    state: State
    at: int
    why: str | None
    answer: bytes | None
    revision: int


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

    def backlog(self, channel: int, after: int, from_id: int, limit: int) -> list[Stored]:
        """The channel's messages above `after`, in order."""
        rows: list[Stored] = []
        size = 0
        for block in self._blocks(from_id):
            cursor = self.connection.execute(
                f"select {_HEAD}, large, crc, raw from message indexed by message_block"
                " where id >> 12 = ? and channel = ? and seq > ? order by seq limit ?",
                (block, channel, after, limit - len(rows)),
            )
            for row in cursor:
                rows.append(self._stored(*row))
                size += len(rows[-1].raw)
                if size > MOST_BYTES or len(rows) == limit:
                    cursor.close()
                    return rows
        return rows

    def message(self, id: int, revision: int = 1) -> Stored:
        """One message; LookupError where it is not there."""
        if revision > 1:
            row = self.connection.execute(
                f"select {_HEAD}, null, null, (select raw from revision where message = id and revision = ?)"
                " from message where id = ?",
                (revision, id),
            ).fetchone()
            if row is None or row[-1] is None:
                raise LookupError(f"no revision {revision} of message {id} in the ledger")
            return self._stored(*row)
        row = self.connection.execute(f"select {_HEAD}, large, crc, raw from message where id = ?", (id,)).fetchone()
        if row is None:
            raise LookupError(f"no message with id {id} in the ledger")
        return self._stored(*row)

    def _stored(
        self, id: int, seq: int, socket: int, received: int, control_id: str | None, large: int | None, crc: int | None,
        raw: bytes,
    ) -> Stored:  # fmt: skip
        raw, sound = checked(self.connection, raw, large, crc)
        return Stored(id, seq, socket, received, control_id, raw, not sound)

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
            "select destination, epoch, state, count(*) from open_work where channel = ? and delivery = 1"
            " group by 1, 2, 3",
            (book.id,),
        ):
            opened.setdefault((destination, epoch), Counter())[State(state).label] += count
        again = self._again(book)
        names = dict(connection.execute("select id, name from destination"))
        rows = connection.execute(
            f"select destination, epoch, claim, frontier, frontier_id, {recount.SETTLED_COLUMNS} from progress"
            " where channel = ? order by epoch, destination",
            (book.id,),
        ).fetchall()
        newest = {row[0]: row[1] for row in rows}
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
            if epoch == newest[destination] and destination in again:
                result[-1]["replayed"] = replayed = again[destination]
                result[-1]["balanced"] &= replayed["begun"] == sum(replayed["states"].values())
        return result

    def _again(self, book: ChannelBook) -> dict[int, dict[str, Any]]:
        """Destination → what became of the replays there that people asked for; counted apart from the messages."""
        opened: dict[int, Counter[str]] = {}
        for destination, state, count in self.connection.execute(
            "select destination, state, count(*) from open_work where channel = ? and delivery > 1 group by 1, 2",
            (book.id,),
        ):
            opened.setdefault(destination, Counter())[State(state).label] += count
        found = {}
        for destination, begun, *totals in self.connection.execute(
            f"select destination, begun, {recount.SETTLED_COLUMNS} from again where channel = ?", (book.id,)
        ):
            states = opened.get(destination, Counter())
            states.update({state.label: count for state, count in zip(SETTLED, totals, strict=True)})
            found[destination] = {"begun": begun, "states": {k: v for k, v in states.items() if v}}
        return found

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
        return recount.differences(self.connection)

    # -- for people

    def heads(self, ids: list[int]) -> list[tuple[Any, ...]]:
        """As `messages`, of those ids that are there."""
        marks = ",".join("?" * len(ids))
        query = f"select {_SHOWN} from message where id in ({marks}) order by id desc"
        return self.connection.execute(query, ids).fetchall()

    def messages(self, channel: int | None, before: int | None, limit: int) -> list[tuple[Any, ...]]:
        """(id, channel, seq, received, control_id, size, the first bytes), newest first. `before`: sequence numbers
        below it, of one channel."""
        if channel is None:
            query = f"select {_SHOWN} from message order by id desc limit ?"
            return self.connection.execute(query, (limit,)).fetchall()
        rows: list[tuple[Any, ...]] = []
        for block in reversed(self._blocks(0)):
            rows += self.connection.execute(
                f"select {_SHOWN} from message indexed by message_block"
                " where id >> 12 = ? and channel = ? and seq < ? order by seq desc limit ?",
                (block, channel, before or (1 << 62), limit - len(rows)),
            )
            if len(rows) >= limit:
                break
        return rows

    def settled(self, ids: list[int]) -> dict[int, dict[str, str]]:
        """Message id → destination → the state of its newest delivery there, as far as it has receipts."""
        names = dict(self.connection.execute("select id, name from destination"))
        marks = ",".join("?" * len(ids))
        found: dict[int, dict[str, str]] = {id: {} for id in ids}
        ends: dict[tuple[int, int], tuple[int, list[int]]] = {}
        for id, destination, delivery, state in self.connection.execute(
            "select message, destination, delivery, state from receipt indexed by receipt_message"
            f" where message in ({marks}) order by id",
            ids,
        ):
            known = ends.get((id, destination))
            if known is None or known[0] < delivery:
                ends[id, destination] = (delivery, [state])
            elif known[0] == delivery:
                known[1].append(state)
        for (id, destination), (_, states) in ends.items():
            found[id][names[destination]] = first_of(states).label
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

    def receipts(self, id: int) -> list[Receipt]:
        """Of a message, in the order they were written."""
        names = dict(self.connection.execute("select id, name from destination"))
        rows = self.connection.execute(
            "select destination, part, delivery, epoch, state, at, why, answer, revision"
            " from receipt indexed by receipt_message"
            " where message = ? order by id",
            (id,),
        ).fetchall()
        return [
            Receipt(names[to], part, delivery, epoch, State(state), at, why, answer, revision)
            for to, part, delivery, epoch, state, at, why, answer, revision in rows
        ]

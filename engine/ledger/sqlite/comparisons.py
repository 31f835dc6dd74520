"""What the comparison of taps writes and asks: outputs, verdicts, discrepancies. Functions of a reading connection.

A message *is different* where a difference of it was found (or it is missing); it is explained where none of its
discrepancies is open. What a rule covers has rows for the first messages only: it can never be open.
"""

from __future__ import annotations

import sqlite3
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from engine.ledger.model import AS_IT_CAME
from engine.ledger.sqlite.large import whole

STATEMENTS: Final[dict[str, str]] = {
    "put_pair": "insert or replace into pair (channel, tap, seq, output, verdict, at) values (?,?,?,?,?,?)",
    "put_compared": (
        "insert or replace into compared (channel, tap, matched, explained, unexplained, not_comparable, watermark,"
        " watermark_id) values (?,?,?,?,?,?,?,?)"
    ),
    "put_discrepancy": (
        "insert into discrepancy (channel, tap, path, kind, severity, state, owner, first_at, last_at, count, due, why,"
        " who, settled_at) values (?,?,?,?,?,?,?,?,?,?,?,?,?,?) on conflict (channel, tap, path, kind) do update set"
        " severity = excluded.severity, state = excluded.state, owner = excluded.owner, last_at = excluded.last_at,"
        " count = excluded.count, due = excluded.due, why = excluded.why, who = excluded.who,"
        " settled_at = excluded.settled_at"
    ),
    "add_difference": (
        "insert or ignore into difference (discrepancy, channel, seq, output, at)"
        " select id, channel, ?, ?, ? from discrepancy where channel = ? and tap = ? and path = ? and kind = ?"
    ),
    "drop_missing": (  # what was missed has come
        "delete from difference where channel = ? and seq = ? and output = 0 and discrepancy in"
        " (select id from discrepancy where channel = ? and tap = ? and kind in ('missing_in_legacy', 'expected')"
        " and path = 'message')"
    ),
}

ZLIB: Final = b"\x78"  # with which compressed bytes begin; what was kept by earlier versions is not

DIFFERENT: Final = ("different", "missing_in_legacy")
"""Verdicts of messages that are explained or not."""

_ROW: Final = (
    "id, channel, tap, path, kind, severity, state, owner, first_at, last_at, count, due, why, who, settled_at"
)


@dataclass(frozen=True, slots=True)
class DiscrepancyRow:
    """A row of `discrepancy`; times in microseconds, `channel` is the ledger's number of it."""

    id: int
    channel: int
    tap: str
    path: str
    kind: str
    severity: str
    state: str
    owner: str
    first_at: int
    last_at: int
    count: int
    due: int
    why: str
    who: str
    settled_at: int | None


class TotalsRow(NamedTuple):
    """A row of `compared`. Inputs at or below `watermark` have their verdict; `watermark_id`: where reading starts."""

    matched: int
    explained: int
    unexplained: int
    not_comparable: int
    watermark: int
    watermark_id: int


class OutputRow(NamedTuple):
    """What a tap got, without its bytes."""

    id: int
    at: int
    control_id: str | None
    decision: str
    seq: int | None


# -- for the comparison itself


def totals(connection: sqlite3.Connection, channel: int) -> dict[str, TotalsRow]:
    """By tap; `` is the answers to the sender."""
    rows = connection.execute(
        "select tap, matched, explained, unexplained, not_comparable, watermark, watermark_id from compared"
        " where channel = ?",
        (channel,),
    )
    return {tap: TotalsRow(*rest) for tap, *rest in rows}


def discrepancies(connection: sqlite3.Connection, channel: int) -> list[DiscrepancyRow]:
    """All of a channel."""
    rows = connection.execute(f"select {_ROW} from discrepancy where channel = ?", (channel,))
    return [DiscrepancyRow(*row) for row in rows]


def judged(connection: sqlite3.Connection, channel: int, tap: str, after: int) -> dict[int, str]:
    """The inputs above `after` that have a verdict, with it."""
    rows = connection.execute(
        "select seq, verdict from pair where channel = ? and tap = ? and seq > ?", (channel, tap, after)
    )
    return dict(rows.fetchall())


def verdict(connection: sqlite3.Connection, channel: int, tap: str, seq: int) -> str | None:
    """Of one input, where it has one."""
    row = connection.execute(
        "select verdict from pair where channel = ? and tap = ? and seq = ?", (channel, tap, seq)
    ).fetchone()
    return str(row[0]) if row else None


def unjudged_outputs(connection: sqlite3.Connection, channel: int, tap: str, after: int) -> list[OutputRow]:
    """Outputs of inputs above `after` that have no verdict, or that of having none; oldest first."""
    rows = connection.execute(
        "select id, at, control_id, decision, seq from tap_output o where channel = ? and seq > ? and tap = ?"
        " and not exists (select 1 from pair p where p.channel = o.channel and p.tap = o.tap and p.seq = o.seq"
        " and p.verdict <> 'missing_in_legacy')"
        " order by id",
        (channel, after, tap),
    )
    return [OutputRow(*row) for row in rows]


class CameRow(NamedTuple):
    """One output of an input. first: the first one of it. answered: it had an answer. socket: its connection."""

    id: int
    seq: int
    first: int
    answered: bool
    socket: int


def came(connection: sqlite3.Connection, channel: int, tap: str, after: int) -> list[CameRow]:
    """Every output of the inputs above `after`, in the order in which they came."""
    rows = connection.execute(
        "select id, seq, min(id) over (partition by seq), answer is not null, socket from tap_output"
        " where channel = ? and seq > ? and tap = ? order by id",
        (channel, after, tap),
    )
    return [CameRow(id, seq, first, bool(answered), socket) for id, seq, first, answered, socket in rows]


def shown(connection: sqlite3.Connection, channel: int, after: int) -> set[int]:
    """The outputs of the inputs above `after` of which a difference is recorded."""
    rows = connection.execute(
        "select output from difference where channel = ? and seq > ? and output > 0", (channel, after)
    )
    return {output for (output,) in rows}


def strays(connection: sqlite3.Connection, channel: int, tap: str, since: int) -> list[OutputRow]:
    """Outputs from `since` on that belong to no input, and are not yet recorded as such."""
    rows = connection.execute(
        "select id, at, control_id, decision, seq from tap_output o where channel = ? and seq is null and tap = ?"
        " and at >= ? and not exists"
        " (select 1 from difference d where d.channel = o.channel and d.seq = 0 and d.output = o.id) order by id",
        (channel, tap, since),
    )
    return [OutputRow(*row) for row in rows]


def attributed(connection: sqlite3.Connection, channel: int, tap: str, first: int, last: int) -> list[int]:
    """The inputs from `first` to `last` whose output came, in the order in which it did."""
    rows = connection.execute(
        "select seq from tap_output where channel = ? and seq between ? and ? and tap = ? order by id",
        (channel, first, last, tap),
    )
    return [seq for (seq,) in rows]


def outputs(connection: sqlite3.Connection, channel: int, tap: str, seq: int) -> list[int]:
    """All that a tap got of an input, in the order in which it came."""
    rows = connection.execute(
        "select id from tap_output where channel = ? and seq = ? and tap = ? order by id", (channel, seq, tap)
    )
    return [id for (id,) in rows]


def output(connection: sqlite3.Connection, id: int) -> bytes | None:
    """The bytes of what a tap got."""
    row = connection.execute("select raw, large from tap_output where id = ?", (id,)).fetchone()
    return zlib.decompress(whole(connection, *row)) if row else None


def captured(connection: sqlite3.Connection, message: int, destination: int) -> list[bytes]:
    """The bytes of what we would have sent, part by part; none where nothing was captured."""
    rows = connection.execute(
        "select output from captured where message = ? and destination = ? order by part", (message, destination)
    )
    return [_made(connection, message, output) for (output,) in rows.fetchall()]


def _made(connection: sqlite3.Connection, message: int, output: bytes) -> bytes:
    if output == AS_IT_CAME:
        row = connection.execute("select raw, large from message where id = ?", (message,)).fetchone()
        return whole(connection, *row)
    return zlib.decompress(output) if output[:1] == ZLIB else output


class Recount(NamedTuple):
    """Different messages of a tap, by whether one of their discrepancies is open."""

    explained: int
    unexplained: int


def recount(
    connection: sqlite3.Connection, channel: int, tap: str, id: int | None = None, state: str = "open"
) -> Recount:
    """Count the different messages of a tap again, as though discrepancy `id` were in `state`."""
    one, other = DIFFERENT
    (different,) = connection.execute(
        "select count(*) from pair where channel = ? and tap = ? and verdict in (?,?)", (channel, tap, one, other)
    ).fetchone()
    (unexplained,) = connection.execute(
        "select count(distinct d.seq) from discrepancy x join difference d on d.discrepancy = x.id"
        " join pair p on p.channel = x.channel and p.tap = x.tap and p.seq = d.seq"
        " where x.channel = ? and x.tap = ? and (case when x.id = ? then ? else x.state end) = 'open'"
        " and p.verdict in (?,?)",
        (channel, tap, id, state, one, other),
    ).fetchone()
    return Recount(different - unexplained, unexplained)


# -- for people


def listing(
    connection: sqlite3.Connection, channels: Sequence[int], state: str | None, limit: int
) -> list[DiscrepancyRow]:
    """Discrepancies of some channels: open ones first, the worst first, then those seen most."""
    marks = ",".join("?" * len(channels))
    rows = connection.execute(
        f"select {_ROW} from discrepancy where channel in ({marks}) and (? is null or state = ?)"
        " order by state <> 'open', case severity when 'clinical' then 0 when 'business' then 1 else 2 end,"
        " count desc, id limit ?",
        (*channels, state, state, limit),
    )
    return [DiscrepancyRow(*row) for row in rows]


def discrepancy(connection: sqlite3.Connection, id: int) -> DiscrepancyRow | None:
    """One of them."""
    row = connection.execute(f"select {_ROW} from discrepancy where id = ?", (id,)).fetchone()
    return DiscrepancyRow(*row) if row else None


def examples(connection: sqlite3.Connection, id: int, limit: int) -> list[tuple[int, int, int]]:
    """(seq, output, at) of the newest messages that show a discrepancy. seq 0: no input; output 0: no output."""
    return connection.execute(
        "select seq, output, at from difference where discrepancy = ? order by seq desc, output desc limit ?",
        (id, limit),
    ).fetchall()


def paired_output(connection: sqlite3.Connection, channel: int, tap: str, seq: int) -> int:
    """The output that an input's verdict is about; 0 where there is none."""
    row = connection.execute(
        "select output from pair where channel = ? and tap = ? and seq = ?", (channel, tap, seq)
    ).fetchone()
    return int(row[0] or 0) if row else 0

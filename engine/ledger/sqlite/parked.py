"""Outputs of the old engine that a tap has kept for a person, and what became of them. Functions of a connection.

A row of `tap_output` never changes: a backup copies it once. So what a person decides stands in a table of its own, a
row for each output that somebody has looked after. An output waits as long as it is `parked` there and has no decision
that ended it. `parked` is written out in each query: only so the index of these few rows serves it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

TABLES = """
create index tap_output_parked on tap_output(channel, tap) where decision = 'parked';

create table tap_decision (            -- what became of a parked output; how it came to that, the audit record says
  output integer primary key, seq integer,     -- the input that a person has given it to
  state text not null, said text not null, who text not null, why text not null, at integer not null,
  ended integer, answer blob);                 -- ended: null as long as it waits
"""

STATEMENTS: Final = {
    "put_tap_decision": (
        "insert or replace into tap_decision (output, seq, state, said, who, why, at, ended, answer)"
        " values (?,?,?,?,?,?,?,?,?)"
    ),
}

WAITS, SENDING, UNKNOWN = "parked", "sending", "unknown"
FORWARDED, CAPTURED, DISCARDED = "forwarded", "captured", "discarded"
ENDS: Final = frozenset({FORWARDED, CAPTURED, DISCARDED})
"""States in which an output waits no more. CAPTURED: it is of an input that is ours to send."""
GIVEN: Final = "given"
"""The decision of the row that an output has at the input to which a person has given it."""

SETTLED: Final = (
    "(decision <> 'parked' or exists (select 1 from tap_decision d where d.output = tap_output.id"
    " and d.ended is not null))"
)
"""Of `tap_output`: nobody need decide about it."""

_ROW: Final = (
    "select o.id, o.channel, o.tap, o.at, o.socket, o.control_id, o.seq, o.answer, d.seq, coalesce(d.state, 'parked'),"
    " coalesce(d.said, ''), coalesce(d.who, ''), coalesce(d.why, ''), coalesce(d.at, 0), d.ended, d.answer"
    " from tap_output o left join tap_decision d on d.output = o.id where o.decision = 'parked'"
)


@dataclass(frozen=True, slots=True)
class ParkedRow:
    """An output that waits for a person, or did. channel: the ledger's number of it. at: when it came; decided: when
    somebody last did something about it; microseconds. own: the input that the tap found for it. acknowledged: what the
    old engine was told. given: the input that a person has given it to. state: of the names above. said: how the last
    sending ended. answer: the endpoint's."""

    id: int
    channel: int
    tap: str
    at: int
    socket: int
    control_id: str | None
    own: int | None
    acknowledged: bytes | None
    given: int | None = None
    state: str = WAITS
    said: str = ""
    who: str = ""
    why: str = ""
    decided: int = 0
    ended: int | None = None
    answer: bytes | None = None

    @property
    def seq(self) -> int | None:
        """The input that it belongs to, as far as that is known."""
        return self.own if self.own is not None else self.given

    def becomes(self, state: str, who: str, why: str, at: int, **more: Any) -> ParkedRow:
        """The same row after something was done about it."""
        return replace(self, state=state, who=who, why=why, decided=at, ended=at if state in ENDS else None, **more)

    def values(self) -> tuple[Any, ...]:
        """For `put_tap_decision`."""
        return (
            self.id, self.given, self.state, self.said, self.who, self.why, self.decided, self.ended, self.answer,
        )  # fmt: skip


def row(connection: sqlite3.Connection, id: int) -> ParkedRow | None:
    """One of them, decided or not."""
    found = connection.execute(f"{_ROW} and o.id = ?", (id,)).fetchone()
    return ParkedRow(*found) if found else None


def waiting(connection: sqlite3.Connection, channels: Sequence[int], limit: int) -> list[ParkedRow]:
    """Those of some channels that wait, oldest first."""
    marks = ",".join("?" * len(channels))
    rows = connection.execute(
        f"{_ROW} and o.channel in ({marks}) and d.ended is null order by o.id limit ?", (*channels, limit)
    )
    return [ParkedRow(*found) for found in rows]


def counts(connection: sqlite3.Connection) -> dict[int, dict[str, int]]:
    """Channel → tap → how many wait, where any do."""
    found: dict[int, dict[str, int]] = {}
    for channel, tap, count in connection.execute(
        "select channel, tap, count(*) from tap_output o where decision = 'parked'"
        " and not exists (select 1 from tap_decision d where d.output = o.id and d.ended is not null)"
        " group by channel, tap order by channel, tap"
    ):
        found.setdefault(channel, {})[tap] = count
    return found

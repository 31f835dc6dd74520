"""What was sent lately, as far as the ledger's newest rows tell. Functions of a reading connection."""

from __future__ import annotations

import sqlite3
from typing import Final, NamedTuple

from engine.ledger.sqlite.schema import BLOCK

BLOCKS: Final = 64  # of all channels' newest messages that are looked through for those of one
OUTPUTS: Final = 100_000  # at all taps, for those at one


class Sent(NamedTuple):
    """A part of a message that may have been sent to a destination, in one delivery."""

    message: int
    seq: int
    control_id: str | None
    part: int
    delivery: int


def sent(connection: sqlite3.Connection, channel: int, destination: int, claim: int, most: int) -> list[Sent]:
    """Of the newest `most` messages up to `claim`: each part with a receipt, and the one behind it, which may be on its
    way. Newest first."""
    (newest,) = connection.execute("select coalesce(max(id), 0) from message").fetchone()
    found: list[Sent] = []
    heads = 0
    for block in range(newest >> BLOCK, max(-1, (newest >> BLOCK) - BLOCKS), -1):
        rows = connection.execute(
            "select id, seq, control_id from message where id >> 12 = ? and channel = ? and seq <= ? order by seq desc"
            " limit ?",
            (block, channel, claim, most - heads),
        ).fetchall()
        for id, seq, control_id in rows:
            places = connection.execute(
                "select max(part), delivery from receipt where message = ? and destination = ? group by delivery",
                (id, destination),
            ).fetchall()
            for last, delivery in places or [(0, 1)]:
                found += [Sent(id, seq, control_id, part, delivery) for part in range(1, last + 2)]
        heads += len(rows)
        if heads >= most:
            break
    return found


def forwarded(connection: sqlite3.Connection, channel: int, tap: str, most: int) -> list[str]:
    """The control ids of the newest outputs that were sent on at a tap, answered or not; newest first."""
    (newest,) = connection.execute("select coalesce(max(id), 0) from tap_output").fetchone()
    rows = connection.execute(
        "select control_id from tap_output where id > ? and channel = ? and tap = ? and control_id is not null"
        " and decision in ('forwarded', 'unanswered') order by id desc limit ?",
        (newest - OUTPUTS, channel, tap, most),
    )
    return [control_id for (control_id,) in rows]

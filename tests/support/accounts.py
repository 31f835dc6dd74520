"""What became of each message, from two sides: what the ledger says of its sequences, and what the endpoints got.

Vendors number their messages, and send one again with its number when their connection was cut before the answer.
Such a repeat is a message of its own here: another sequence, which may lie in another epoch than the first. So a
vendor's number that came from both sides proves nothing by itself. The rule is about sequences: each is sent by one
side, by the old engine if that has taken it, else by us if our receipt says so. An account therefore puts the sequences
of one vendor's number together, says from which sides copies of it are due, and holds the arrivals against that.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from engine.ledger.model import State
from engine.ledger.routing import LEGACY
from engine.simulate.receiver import Arrival, Side


@dataclass(slots=True)
class Sequence:
    """One stored message. legacy, target: its state on the way to the old engine and at the real endpoint, None where
    nothing was due. guarded: a rollback gave it to the old engine, whose output is held back where we had delivered.
    parked: an output of the old engine for it waits for a person."""

    channel: str
    seq: int
    control_id: str
    legacy: State | None = None
    target: State | None = None
    guarded: bool = False
    parked: bool = False

    @property
    def by_target(self) -> bool:
        return self.target is State.DELIVERED

    @property
    def by_legacy(self) -> bool:
        """Not where a rollback gave it back under guard and we had sent it, or the first one that it repeats."""
        held_back = self.by_target or (self.guarded and self.target is State.DUPLICATE)
        return self.legacy is State.DELIVERED and not held_back and not self.parked

    @property
    def for_a_person(self) -> bool:
        """It may have left, or not: it stands in the ledger by its number, and nothing more is done by itself."""
        return self.parked or State.PARKED in (self.legacy, self.target)

    @property
    def repeats(self) -> bool:
        """The vendor's repeat of one that had been taken, where only we send: the first one stands for it."""
        return self.target is State.DUPLICATE and not self.by_legacy

    @property
    def by_nobody(self) -> bool:
        """Closed on both ways: what a rollback that replays nothing had not sent yet."""
        return not (self.by_target or self.by_legacy or self.for_a_person or self.repeats)

    @property
    def by_both(self) -> bool:
        """Sent from here, and given to the old engine as well with nothing that holds its output back."""
        return self.by_target and self.legacy is State.DELIVERED and not self.guarded


@dataclass(slots=True)
class Account:
    """One vendor's number: the sequences that carry it, and what came of it to the real endpoint."""

    channel: str
    control_id: str
    sequences: list[Sequence] = field(default_factory=list)
    arrivals: list[Arrival] = field(default_factory=list)

    def due(self, side: Side) -> int:
        return sum(one.by_target if side == "target" else one.by_legacy for one in self.sequences)

    def came(self, side: Side) -> int:
        """How many copies a side sent: the old engine's by its own numbers, since it repeats with the same one."""
        if side == "target":
            return sum(one.side == side for one in self.arrivals)
        return len({one.control_id for one in self.arrivals if one.side == side})

    def extra(self, side: Side) -> int:
        """Copies beyond one a sequence."""
        return max(0, self.came(side) - self.due(side))

    def wrong(self) -> Iterator[str]:
        """Everything that must never be, as sentences. Copies beyond one a sequence are counted elsewhere."""
        name = f"{self.channel} {self.control_id} ({', '.join(str(one.seq) for one in self.sequences)})"
        if not self.sequences:
            yield f"{name}: came to an endpoint, and is not in the ledger"
        if any(one.by_both for one in self.sequences):
            yield f"{name}: sent by both sides, and nothing holds one of them back"
        person = any(one.for_a_person for one in self.sequences)
        for side in ("legacy", "target"):
            if self.due(side) and not self.came(side):
                yield f"{name}: sent by {side}, says the ledger, and never came"
            if self.came(side) and not self.due(side) and not person:
                yield f"{name}: came from {side}, which had no right to it"


def accounts(ledger: Path, arrivals: Iterable[Arrival], channel_of: dict[str, str]) -> list[Account]:
    """All of them. channel_of: by the letters that a vendor's numbers begin with, its channel."""
    found: dict[tuple[str, str], Account] = {}
    for one in sequences(ledger):
        key = (one.channel, one.control_id)
        found.setdefault(key, Account(*key)).sequences.append(one)
    for arrival in arrivals:
        key = (channel_of[arrival.origin[:-8]], arrival.origin)
        found.setdefault(key, Account(*key)).arrivals.append(arrival)
    return list(found.values())


def extras(found: Iterable[Account]) -> Counter[tuple[str, Side]]:
    """Copies beyond one a sequence, by channel and side."""
    counted: Counter[tuple[str, Side]] = Counter()
    for account in found:
        counted[account.channel, "legacy"] += account.extra("legacy")
        counted[account.channel, "target"] += account.extra("target")
    return counted


def sequences(ledger: Path) -> list[Sequence]:
    """Every stored message, in the order of the ledger. The service must have ended, or what is open may move."""
    with closing(sqlite3.connect(ledger)) as connection:
        names = dict(connection.execute("select id, name from channel").fetchall())
        places = dict(connection.execute("select id, name from destination").fetchall())
        found = {
            (channel, seq): Sequence(names[channel], seq, control_id)
            for channel, seq, control_id in connection.execute(
                "select channel, seq, control_id from message order by id"
            )
        }
        for table in ("receipt", "open_work"):
            for channel, seq, place, state in connection.execute(
                f"select channel, seq, destination, state from {table}"
            ):
                _become(found[channel, seq], places[place], State(state))
        for channel, first, last in connection.execute(
            "select channel, first, last from replay_grant where destination = ? and guarded = 1", (LEGACY,)
        ):
            for seq in range(first, last + 1):
                found[channel, seq].guarded = True
        for channel, seq in connection.execute("select channel, seq from tap_output where decision = 'parked'"):
            if seq is not None:
                found[channel, seq].parked = True
    return list(found.values())


def _become(one: Sequence, place: str, state: State) -> None:
    if place == LEGACY:
        one.legacy = state
    else:
        one.target = state

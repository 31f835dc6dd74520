"""The ledger's file as an auditor reads it: claims, open work, receipts, holds. Channels and destinations by name."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass, field

from engine.ledger.model import State

Course = tuple[str, str]
Place = tuple[str, str, int, int]


@dataclass(slots=True)
class Rows:
    """What is durable now."""

    term: int = 0
    names: dict[int, str] = field(default_factory=dict)  # channels
    places: dict[int, str] = field(default_factory=dict)  # destinations
    progress: dict[Course, tuple[int, int, int]] = field(default_factory=dict)  # claim, frontier, term
    open: dict[Place, tuple[int, State, int]] = field(default_factory=dict)  # part, state, term
    replayed: dict[Place, int] = field(default_factory=dict)  # of open work: the replay that began it
    blocking: dict[Course, set[tuple[int, int]]] = field(default_factory=dict)  # sequence and delivery
    holds: set[str] = field(default_factory=set)
    barriers: dict[str, int] = field(default_factory=dict)
    grants: list[tuple[str, str, int, int]] = field(default_factory=list)

    @classmethod
    def read(cls, db: sqlite3.Connection) -> Rows:
        (term,) = db.execute("select term from ledger").fetchone()
        rows = cls(term, dict(db.execute("select id, name from channel")))
        rows.places = dict(db.execute("select id, name from destination"))
        for channel, to, claim, frontier, of in db.execute(
            "select channel, destination, claim, frontier, term from progress"
        ):
            rows.progress[rows.names[channel], rows.places[to]] = (claim, frontier, of)
        for channel, to, seq, part, delivery, state, of, why, blocks in db.execute(
            "select channel, destination, seq, part, delivery, state, term, why, blocks from open_work"
        ):
            place = (rows.names[channel], rows.places[to], seq, delivery)
            rows.open[place] = (part, State(state), of)
            if blocks:
                rows.blocking.setdefault(place[:2], set()).add(place[2:])
            if delivery > 1 and why.startswith("replay "):
                rows.replayed[place] = int(why.removeprefix("replay "))
        rows.holds = {rows.names[channel] for (channel,) in db.execute("select channel from hold")}
        rows.barriers = {rows.names[channel]: at for channel, at in db.execute("select channel, at_seq from barrier")}
        rows.grants = [
            (rows.names[channel], *grant)
            for channel, *grant in db.execute("select channel, destination, first, last from replay_grant")
        ]
        return rows

    @property
    def courses(self) -> list[Course]:
        return list(self.progress)

    def state(self, place: Place, part: int) -> State | None:
        """Of open work."""
        found = self.open.get(place)
        return found[1] if found is not None and found[0] == part else None

    def claimed(self, place: Place, part: int) -> bool:
        """Whether this part may be sent, by a claim of the present term."""
        if place in self.open:
            at, state, term = self.open[place]
            return at == part and state is State.SENDING and term == self.term
        channel, to, seq, delivery = place
        claim, frontier, term = self.progress[channel, to]
        return part == delivery == 1 and frontier < seq <= claim and term == self.term

    def on_the_way(self, course: Course) -> set[tuple[int, int]]:
        """Sequence and delivery of what may be on its way: claimed, and not settled or failed since."""
        found = {place[2:] for place, (_, state, _) in self.open.items()
                 if place[:2] == course and state is State.SENDING}  # fmt: skip
        if course in self.progress:
            claim, frontier, _ = self.progress[course]
            found |= {(seq, 1) for seq in range(frontier + 1, claim + 1)}
        return found

    def receipts_after(self, db: sqlite3.Connection, id: int) -> list[tuple[int, Place, int, State, int]]:
        """(id, place, part, state, term)"""
        rows = db.execute(
            "select id, channel, destination, seq, delivery, part, state, term from receipt where id > ? order by id",
            (id,),
        )
        return [
            (id, (self.names[channel], self.places[to], seq, delivery), part, State(state), term)
            for id, channel, to, seq, delivery, part, state, term in rows
        ]

    def audited_after(self, db: sqlite3.Connection, id: int) -> list[tuple[int, str, str]]:
        return db.execute("select id, verb, subject from audit where id > ? order by id", (id,)).fetchall()

    def last_revision(self, db: sqlite3.Connection, channel: str, seq: int) -> tuple[int, bytes]:
        """What a person made of a message, and how often it was made into something else by then."""
        row: tuple[int, bytes] = db.execute(
            "select revision, raw from revision where message ="
            " (select id from message where seq = ? and channel = (select id from channel where name = ?))"
            " order by revision desc limit 1",
            (seq, channel),
        ).fetchone()
        return row

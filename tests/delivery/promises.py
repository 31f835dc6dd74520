"""What the design promises of delivery (sections 2 and 4), asked at each byte that goes out and after each commit.

For every delivery of a message to a destination it keeps what may be sent next, and whether it may be sent at all:
once; once more after an outcome that was no answer or "later", after a process that ended while it was claimed, and
where a person says so. An attempt of a process that was killed may still arrive: then it counts as unknown, like any
other attempt without an answer, and is the "once more" of that crash. What is known of a delivery is what is durable,
and what the endpoints have said since. The ledger is read as an auditor would; the engine's own rules are never asked.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from engine.ledger.model import State
from engine.ledger.outcome import Outcome, Result
from tests.delivery.books import Rows
from tests.delivery.dues import Due, Kind, Place, Stands
from tests.delivery.texts import Text, read
from tests.support.referee import need

SETTLED = State.DELIVERED
ENDS_ALL = (State.DISCARDED, State.SUPERSEDED, State.REFUSED)
AGAIN = (Result.NOT_TAKEN, Result.FAULT)
THE_CHANNEL = "the channel"  # the one lane of a destination without lanes
GOES_ON, STOPS = "goes_on", "stops_channel"
PATIENCE = 5  # attempts, after which an answer of "later" may be one for a person


@dataclass(slots=True)
class Promises:
    """Of all channels and destinations, over all lives of the process."""

    kinds: Mapping[str, Kind]
    dues: dict[Place, Due] = field(default_factory=dict)
    rows: Rows = field(default_factory=Rows)
    texts: dict[str, Text] = field(default_factory=dict)  # by control id: what was given to the ledger
    edits: set[Text] = field(default_factory=set)  # that a person has asked for
    releasing: int = 0  # people who are just now letting channels go on
    asked: set[tuple[str, str, str, int]] = field(default_factory=set)  # verb, channel, destination, sequence
    replays: set[tuple[str, str, int]] = field(
        default_factory=set
    )  # numbers that are to be sent once more, and have not begun
    barred: set[Place] = field(default_factory=set)  # granted to the other side
    _receipts: int = 0
    _audited: int = 0

    # -- bytes

    def sends(self, place: Place, part: int, revision: int, raw: bytes, doubtful: bool, since: float) -> None:
        """A part is about to go out. doubtful: it is taken for one that may have arrived; since: as of when."""
        due = self.dues.get(place)
        need(due is not None, f"{place}: sent, and not due")
        assert due is not None
        kind = self.kinds[place[1]]
        need(not due.ended, f"{due}: sent after it was settled")
        need(place not in self.barred, f"{due}: sent, and the other side has it")
        need(due.stands is Stands.OPEN, f"{due}: sent while {due.stands.value}")
        need(part == due.part, f"{due}: part {part} sent, and part {due.part} is next")
        need(due.may and not due.on_the_way, f"{due}, part {part}: sent once more than promised")
        need(self.rows.claimed(place, part), f"{due}, part {part}: sent without a claim of the present term")
        need(revision == due.revision and raw == due.texts[revision].raw, f"{due}: sent with other bytes than decided")
        if due.doubt is not None:
            need(doubtful, f"{due}, part {part}: it may have been taken, and is sent as if that were not so")
            need(kind.settle is None or since >= due.doubt, f"{due}: looked for before it can have arrived")
        near = [each for each in self._beside(due) if each.on_the_way]
        need(not near, f"{due}: sent while {near[0] if near else ''} of its lane is on the way")
        for other in self._beside(due):
            need(not self._goes_first(other, due), f"{due}: sent before {other} of its lane")
        due.may, due.on_the_way, due.out = False, True, True
        due.sent += 1

    def makes(self, place: Place, part: int, outcome: Outcome | None, parts: int) -> None:
        """The outputs of a message are made, by the mapping as it is now, or cannot be."""
        due = self.dues[place]
        if due.part == 1:
            due.parts = parts if outcome is None else 1
        elif outcome is None and parts != due.parts:
            outcome = Outcome(Result.NEVER, "other parts than those that were sent", local=True)
        if outcome is not None:
            due.heard = outcome

    def hears(self, place: Place, outcome: Outcome, now: float) -> None:
        due = self.dues[place]
        need(due.on_the_way and due.heard is None, f"{due}: an outcome of nothing")
        due.on_the_way, due.heard, due.heard_at = False, outcome, now

    def _course(self, due: Due) -> Iterator[Due]:
        """The others of the same channel and destination."""
        for other in self.dues.values():
            if other.place[:2] == due.place[:2] and other is not due and not other.ended:
                yield other

    def _beside(self, due: Due) -> Iterator[Due]:
        """The others of its lanes."""
        return (other for other in self._course(due) if other.lanes & due.lanes)

    def _goes_first(self, other: Due, due: Due) -> bool:
        """Whether `other` has to be through before `due` is sent."""
        if other.seq >= due.seq or other.asked_by != due.asked_by or self._is_through(other):
            return False
        return other.passed is not None and due.seq > other.passed

    def _is_through(self, due: Due) -> bool:
        """Whether its lane goes on, by what is durable or was heard."""
        if due.ended or due.stands is Stands.ASIDE or due.place in self.barred:
            return True
        heard = due.heard
        if heard is None or (heard.local and due.doubt is not None):
            return False
        if heard.result is Result.DELIVERED:
            return due.part == due.parts
        aside = heard.aside or self.kinds[due.place[1]].dead == GOES_ON
        return heard.result in (Result.REFUSED, Result.FILTERED) or (heard.result is Result.NEVER and aside)

    # -- transactions

    def wrote(self, commit: Any, db: sqlite3.Connection) -> None:
        """A transaction is durable."""
        before, self.rows = self.rows, Rows.read(db)
        self._withheld(before, self.rows)
        self._in_order(before, self.rows)
        for message in commit.stored:
            self._stored(message.channel.name, message.seq, self.texts[message.control_id])
        for grant in self.rows.grants:
            self.barred.update(
                place
                for place in self.dues
                if place[:2] == grant[:2] and grant[2] <= place[2] <= grant[3] and place[3] == 1
            )
        for place, number in self.rows.replayed.items():
            if place not in self.dues:
                self._replayed(place, number)
        receipts = self.rows.receipts_after(db, self._receipts)
        ended = {(place, part) for _, place, part, state, _ in receipts if state in (State.DISCARDED, State.SUPERSEDED)}
        for settled in commit.settled:
            place = (settled.course.channel.name, settled.course.name, settled.seq, settled.delivery)
            self._settled(self.dues[place], settled)
            last = settled.parts if settled.state in ENDS_ALL else settled.part
            if settled.state >= SETTLED:
                ended |= {(place, part) for part in range(settled.part, last + 1)}
        need(ended == {(place, part) for _, place, part, _, _ in receipts}, f"receipts {receipts} for {ended}")
        for id, place, part, state, term in receipts:
            self._receipts = id
            self._ended(self.dues[place], part, state)
            need(term == self.rows.term, f"{place}: a receipt of term {term}")
        for _, place, part, state, _ in receipts:
            self.dues[place].ended |= state in ENDS_ALL or part == self.dues[place].parts
        for id, verb, subject in self.rows.audited_after(db, self._audited):
            self._audited = id
            self._decided(verb, subject, db)

    def _stored(self, channel: str, seq: int, text: Text) -> None:
        for kind in self.kinds.values():
            place = (channel, kind.name, seq, 1)
            self.dues[place] = Due(place, {1: text}, self._lanes(kind, text), passed=0)

    def _lanes(self, kind: Kind, text: Text) -> frozenset[str]:
        return text.lanes if kind.lanes else frozenset((THE_CHANNEL,))

    def _replayed(self, place: Place, number: int) -> None:
        channel, to, seq, delivery = place
        need((channel, to, seq) in self.replays, f"{place}: replayed, and nobody asked for it")
        self.replays.discard((channel, to, seq))
        before = self.dues[channel, to, seq, delivery - 1]
        need(before.ended, f"{place}: replayed while {before} is not settled")
        self.dues[place] = Due(place, dict(before.texts), before.lanes, number, passed=0)

    def _withheld(self, before: Rows, after: Rows) -> None:
        """Nothing new is claimed under a hold, nor above a barrier."""
        for course in after.courses:
            fresh = after.on_the_way(course) - before.on_the_way(course)
            held = course[0] in before.holds and course[0] in after.holds
            need(not (held and fresh), f"{course}: {fresh} claimed under a hold")
            if course[0] in before.barriers and course[0] in after.barriers:
                above = [seq for seq, _ in fresh if seq > after.barriers[course[0]]]
                need(not above, f"{course}: {above} claimed above a barrier")

    def _in_order(self, before: Rows, after: Rows) -> None:
        """Where messages go strictly one after the other, nothing is claimed behind one that is not through."""
        for course in before.courses:
            blocked = before.blocking.get(course, set()) & after.blocking.get(course, set())
            if blocked and not self.kinds[course[1]].lanes:
                need(after.progress[course][0] == before.progress[course][0], f"{course}: claimed behind {blocked}")

    def quiet(self) -> None:
        """Nothing is on its way: then nothing is claimed, and what waits behind others says so."""
        for course in self.rows.courses:
            claimed = self.rows.on_the_way(course)
            need(not claimed, f"{course}: {claimed} is claimed, and on its way nowhere")

    def _settled(self, due: Due, settled: Any) -> None:
        """What became of an attempt is recorded: as it was heard, and nothing that was not."""
        state, heard, kind = settled.state, due.heard, self.kinds[due.place[1]]
        what = f"{due}, part {settled.part}: {state.label}, and heard was {heard.result if heard else 'nothing'}"
        if state is State.PARKED and due.ended:
            return  # closed in the same transaction, before this
        need(settled.part == due.part and not due.ended, f"{due}: part {settled.part} is {state.label} out of turn")
        if state is State.SUPERSEDED:
            need(due.place in self.barred, what)
            return
        if state is State.PARKED and heard is None:
            if settled.blocks:
                need(kind.parks_unknown and (due.doubt is not None or due.inherited), what)
                due.stands, due.may = Stands.PERSON, False
            return  # it waits behind another one of its lane
        if state is State.UNKNOWN and heard is None:
            need(due.doubt is not None or due.inherited, what)
            return  # so does this, and may have been taken
        need(heard is not None, what)
        assert heard is not None
        need(state in self._becomes(due, heard, kind), what)
        due.heard = None
        if not heard.local:
            due.out = False
        if heard.answer is not None or heard.result is Result.DELIVERED:
            due.doubt, due.inherited = None, False
        if state in (State.RETRYING, State.UNKNOWN):
            due.may = True
        if heard.result is Result.UNKNOWN:
            due.doubt = due.heard_at
        if state in (State.DEAD, State.PARKED):
            aside = state is State.DEAD and (heard.aside or kind.dead == GOES_ON)
            due.stands = Stands.ASIDE if aside else Stands.PERSON
            need(settled.blocks == (not aside), f"{due}: {state.label}, and its lane {'waits' if aside else 'goes on'}")
            due.may = False
            if kind.dead == STOPS and self.rows.state(due.place, due.part) is State.DEAD and not self.releasing:
                need(due.place[0] in self.rows.holds, f"{due}: dead, and its channel goes on")

    def _becomes(self, due: Due, heard: Outcome, kind: Kind) -> tuple[State, ...]:
        if heard.result in AGAIN:
            if due.doubt is not None and heard.answer is None:
                return (State.UNKNOWN,)
            # What had been claimed when a process ended may be unknown, though nothing of it had gone out.
            enough = heard.answer is not None and due.sent >= PATIENCE
            return (State.RETRYING, State.UNKNOWN, State.DEAD) if enough else (State.RETRYING, State.UNKNOWN)
        if heard.local and due.doubt is not None:
            return (State.PARKED,)  # the endpoint was not asked, and may have it
        parked = (State.PARKED,) if heard.local and due.inherited else ()
        return (
            parked
            + {
                Result.DELIVERED: (State.DELIVERED,),
                Result.REFUSED: (State.REFUSED,),
                Result.FILTERED: (State.FILTERED,),
                Result.NEVER: (State.DEAD,),
                Result.UNKNOWN: (State.PARKED if kind.parks_unknown else State.UNKNOWN,),
            }[heard.result]
        )

    def _ended(self, due: Due, part: int, state: State) -> None:
        """A part has its receipt, the last word on it."""
        need(part == due.part and not due.ended, f"{due}: another receipt for part {part}: {state.label}")
        if state in (State.DISCARDED, State.SUPERSEDED):
            allowed = due.place in self.barred if state is State.SUPERSEDED else False
            need(allowed or ("discard", *due.place[:3]) in self.asked, f"{due}: {state.label}, and nobody asked for it")
            need(not due.on_the_way, f"{due}: {state.label} while it is on its way")
        due.part, due.may, due.doubt, due.inherited = part + 1, True, None, False

    def _decided(self, verb: str, subject: str, db: sqlite3.Connection) -> None:
        """A person's decision is durable."""
        if verb not in ("retry", "edit-and-retry"):
            return
        where, _, to = subject.partition(" at ")
        channel, _, seq = where.partition("/")
        due = self.open_at(channel, to, int(seq)) or self._newest(channel, to, int(seq))
        need((verb, channel, to, int(seq)) in self.asked, f"{subject}: {verb}, and nobody asked")
        need(not due.on_the_way, f"{due}: {verb} while it is on its way")
        if verb != "retry":
            revision, raw = self.rows.last_revision(db, channel, int(seq))
            due.texts[revision] = text = read(raw)
            need(text in self.edits and text.raw == raw, f"{due}: changed into what nobody asked for")
            due.lanes |= self._lanes(self.kinds[to], text)
        if due.ended:  # discarded in the same transaction
            return
        due.passed = None if due.stands is Stands.ASIDE or verb != "retry" else due.passed
        due.stands, due.may, due.heard = Stands.OPEN, True, None

    def joined(self, channel: str, to: str, seq: int) -> None:
        """A person's order is carried out: what comes from now on stands behind it."""
        due = self.open_at(channel, to, seq)
        if due is not None and due.passed is None:
            due.passed = max((each.seq for each in self._course(due)), default=0)

    def open_at(self, channel: str, to: str, seq: int) -> Due | None:
        found = [due for due in self.dues.values() if due.place[:3] == (channel, to, seq) and not due.ended]
        need(len(found) < 2, f"{channel}/{seq} is open at {to} in several deliveries")
        return found[0] if found else None

    def _newest(self, channel: str, to: str, seq: int) -> Due:
        return max(
            (due for due in self.dues.values() if due.place[:3] == (channel, to, seq)), key=lambda due: due.place[3]
        )

    # -- the end of a process

    def crashed(self, now: float) -> None:
        """It is gone: what was claimed may have been sent, and what had come in and was not durable is lost."""
        for place, due in self.dues.items():
            if due.ended:
                continue
            claimed = self.rows.claimed(place, due.part)
            if due.out:
                due.doubt = now
            if claimed or self.rows.state(place, due.part) is State.UNKNOWN:
                parks = self.kinds[place[1]].parks_unknown and place not in self.barred
                due.inherited = True
                due.stands, due.may = (Stands.PERSON, False) if parks else (due.stands, True)
            due.on_the_way, due.out, due.heard = False, False, None
            due.passed = 0

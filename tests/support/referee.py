"""The interlock as the design says it (sections 2 and 3), asked at each byte that goes out and after each transaction.

It reads the ledger's rows (epochs, claims, holds, barriers, runs, grants, open work) as an auditor would, and never
asks the engine's own rules what may be sent: the tables below are the design's, in its words.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

from engine.ledger.model import State

OLD, NEW = "the old engine", "Interlock"  # the two sides
LEGACY = "legacy"
OLD_ENGINE_SENDS = ("legacy", "parallel")  # phases in which the old engine is the one to send to real endpoints
NEXT = {
    "outside": {"legacy"}, "legacy": {"outside", "parallel"}, "parallel": {"legacy", "live"}, "live": {"parallel"},
}  # fmt: skip
"""The moves, as far as built."""
HANDOVERS = ("takeover", "give-back")  # runs that withhold nothing, and so have no barrier

Numbers = set[int]


@dataclass(frozen=True, slots=True)
class Row:
    """A row of `progress`."""

    claim: int
    frontier: int


class Run(NamedTuple):
    """A row of `run`."""

    verb: str
    state: str
    step: str
    options: dict[str, Any]
    channels: tuple[str, ...]

    @property
    def goes_on(self) -> bool:
        return self.state == "running"


@dataclass(slots=True)
class Rows:
    """What the ledger's file says of who may send. Channels and destinations by name."""

    phases: dict[str, list[tuple[int, str]]] = field(default_factory=dict)  # (first, phase), oldest first
    why: dict[str, str] = field(default_factory=dict)  # of the newest epoch: its evidence
    holds: dict[str, tuple[Any, ...]] = field(default_factory=dict)
    barriers: dict[str, tuple[int, int, tuple[str, ...]]] = field(default_factory=dict)  # run, number, shut
    runs: dict[int, Run] = field(default_factory=dict)
    grants: list[tuple[str, str, int, int, str, bool, int]] = field(default_factory=list)
    progress: dict[tuple[str, str, int], Row] = field(default_factory=dict)  # channel, destination, epoch's number
    open: dict[tuple[str, str, int], tuple[State, bool]] = field(default_factory=dict)  # state, blocks

    @classmethod
    def read(cls, db: sqlite3.Connection) -> Rows:
        channels = dict(db.execute("select id, name from channel"))
        names = dict(db.execute("select id, name from destination"))
        rows = cls({name: [] for name in channels.values()})
        for channel, first, phase, evidence in db.execute(
            "select channel, first, phase, evidence from epoch order by channel, number"
        ):
            rows.phases[channels[channel]].append((first, phase))
            rows.why[channels[channel]] = evidence or "{}"
        for channel, *hold in db.execute("select channel, until, who, why, at from hold"):
            rows.holds[channels[channel]] = tuple(hold)
        for channel, run, at, shut in db.execute("select channel, run, at_seq, shut from barrier"):
            rows.barriers[channels[channel]] = (run, at, tuple(json.loads(shut)))
        for id, verb, state, step, options, of in db.execute(
            "select id, verb, state, step, options, channels from run"
        ):
            rows.runs[id] = Run(verb, state, step, json.loads(options), tuple(json.loads(of)))
        for channel, *grant, guarded, run in db.execute(
            "select channel, destination, first, last, mode, guarded, run from replay_grant order by id"
        ):
            rows.grants.append((channels[channel], *grant, bool(guarded), run))
        for channel, to, epoch, *numbers in db.execute(
            "select channel, destination, epoch, claim, frontier from progress"
        ):
            rows.progress[channels[channel], names[to], epoch] = Row(*numbers)
        for channel, to, seq, state, blocks in db.execute(
            "select channel, destination, seq, state, blocks from open_work"
        ):
            rows.open[channels[channel], names[to], seq] = (State(state), bool(blocks))
        return rows

    def stretches(self, channel: str) -> Iterator[tuple[int, int, int | None, str]]:
        """(number, first, last, phase) of each epoch."""
        epochs = self.phases[channel]
        for at, (first, phase) in enumerate(epochs):
            yield at + 1, first, epochs[at + 1][0] - 1 if at + 1 < len(epochs) else None, phase

    def epoch(self, channel: str, seq: int) -> tuple[int, str]:
        """(number, phase) of the epoch that a message is in."""
        return next(
            (number, phase) for number, first, last, phase in reversed(list(self.stretches(channel)))
            if first <= seq and (last is None or seq <= last)
        )  # fmt: skip

    def phase(self, channel: str) -> str:
        return self.phases[channel][-1][1]

    def closed(self, channel: str, seq: int) -> bool:
        """Whether a rollback has closed our side at real endpoints for a message of a live epoch."""
        number, _ = self.epoch(channel, seq)
        return any(phase != "live" for _, phase in self.phases[channel][number:])

    def granted(self, channel: str, seq: int) -> tuple[bool, bool]:
        """(granted to the old engine, under a guard)."""
        for name, to, first, last, mode, guarded, _ in self.grants:
            if (name, to, mode) == (channel, LEGACY, "send") and first <= seq <= last:
                return True, guarded
        return False, False

    def claimed(self, channel: str, to: str) -> Numbers:
        """What may be on its way: claimed, and not settled or failed since."""
        found = {seq for (name, where, seq), (state, _) in self.open.items()
                 if (name, where) == (channel, to) and state is State.SENDING}  # fmt: skip
        for number, first, _, _ in self.stretches(channel):
            if row := self.progress.get((channel, to, number)):
                found.update(range(max(first - 1, row.frontier) + 1, row.claim + 1))
        return found

    def waiting(self, channel: str, to: str, upto: int) -> Numbers:
        """What is due and not begun."""
        found: Numbers = set()
        for number, first, last, _ in self.stretches(channel):
            if row := self.progress.get((channel, to, number)):
                found.update(range(max(first - 1, row.claim) + 1, min(upto, upto if last is None else last) + 1))
        return found


class Foul(AssertionError):
    """A rule of the design is broken. Kept in `called`, since the engine goes on after whatever an event raises."""

    called: ClassVar[list[Foul]] = []

    def __init__(self, said: str) -> None:
        super().__init__(said)
        self.called.append(self)


def need(rule: bool, said: str) -> None:
    if not rule:
        raise Foul(said)


class Referee:
    """Watches a ledger and the outside world of one connection's channels.

    real: channel → its real endpoints. policies: channel → its file's `rollback.replay`.
    """

    def __init__(self, real: Mapping[str, tuple[str, ...]], policies: Mapping[str, str]) -> None:
        self.real = real
        self.policies = policies
        self.rows = Rows()
        self.sent: dict[tuple[str, str], list[int]] = {}  # by channel and destination: each time bytes went out
        self.lanes: dict[tuple[str, str, str], int] = {}  # channel, destination, lane → the highest number sent
        self.on_the_way: dict[tuple[str, str, int], int] = {}  # by our side: channel, destination, seq → how many
        self.doubt: set[tuple[str, str, int]] = set()  # may have been taken, as far as the ledger can know
        self.taken: dict[tuple[str, str, int], set[str]] = {}  # endpoint, channel, seq → the sides it has it from

    # -- bytes

    def sends(self, channel: str, to: str, seq: int, lane: str, *, repeats: bool) -> None:
        """Our side is about to send a message to a destination. repeats: it is idempotent, and has this message."""
        rows, what = self.rows, f"{channel}/{seq} to {to}"
        number, phase = rows.epoch(channel, seq)
        row = rows.progress.get((channel, to, number))
        need(row is not None and seq <= row.claim, f"{what}: sent without a claim")
        need(seq in rows.claimed(channel, to), f"{what}: sent again without being claimed anew")
        if to == LEGACY:
            need(phase in OLD_ENGINE_SENDS or rows.granted(channel, seq)[0], f"{what}: {phase}, and no grant")
        elif to in self.real[channel]:
            need(phase == "live", f"{what}: it is {phase}, where nothing is sent there")
            need(not rows.closed(channel, seq), f"{what}: sent after a rollback has closed our side")
            self._alone(to, NEW, channel, seq)
        else:
            need(phase in ("parallel", "live"), f"{what}: it is {phase}, where nothing is sent there")
        before = self.lanes.get((channel, to, lane), 0)
        need(seq >= before or repeats, f"{what}: out of order, {before} of its lane has been sent")
        self.lanes[channel, to, lane] = max(seq, before)
        self.sent.setdefault((channel, to), []).append(seq)
        key = (channel, to, seq)
        self.on_the_way[key] = self.on_the_way.get(key, 0) + 1
        self.doubt.add(key)

    def answered(self, channel: str, to: str, seq: int) -> None:
        """The outcome of an attempt of our side is known, or it has died."""
        self.on_the_way[channel, to, seq] -= 1

    def forwards(self, endpoint: str, channel: str, seq: int) -> None:
        """The old engine's output of a message is about to reach a real endpoint."""
        rows, what = self.rows, f"the old engine's output of {channel}/{seq} to {endpoint}"
        _, phase = rows.epoch(channel, seq)
        granted, _ = rows.granted(channel, seq)
        need(phase in OLD_ENGINE_SENDS or granted, f"{what}: it is {phase}, and no grant")
        self._alone(endpoint, OLD, channel, seq)

    def took(self, endpoint: str, side: str, channel: str, seq: int) -> None:
        """A real endpoint has taken a message."""
        self.taken.setdefault((endpoint, channel, seq), set()).add(side)

    def _alone(self, endpoint: str, side: str, channel: str, seq: int) -> None:
        """No real endpoint gets a message from both sides, unless a grant without a guard says so."""
        granted, guarded = self.rows.granted(channel, seq)
        if granted and not guarded:
            return  # as its policy says; that the grant itself is right was seen when it was written
        others = self.taken.get((endpoint, channel, seq), set()) - {side}
        need(not others, f"{channel}/{seq} reaches {endpoint} from {side}, which has it from {''.join(others)}")
        busy = side == OLD and self.on_the_way.get((channel, endpoint, seq), 0)
        need(not busy, f"{channel}/{seq} reaches {endpoint} from {side} while {NEW} is sending it")

    # -- transactions

    def wrote(self, db: sqlite3.Connection) -> None:
        """A transaction is durable."""
        before, after = self.rows, Rows.read(db)
        self.rows = after
        self._runs_and_barriers(before, after)
        self._together(after)
        for channel in after.phases:
            if channel in before.phases:
                self._claims(before, after, channel)
                if len(after.phases[channel]) > len(before.phases[channel]):
                    self._switched(before, after, channel)
        if len(after.grants) > len(before.grants):
            self._grants(before, after)

    def _runs_and_barriers(self, before: Rows, after: Rows) -> None:
        for channel, (id, _, _) in after.barriers.items():
            run = after.runs.get(id)
            need(run is not None and run.goes_on, f"{channel} has a barrier of run {id}, which does not go on: {run}")
            need(run is None or run.step != "replay", f"{channel} has a barrier of run {id}, which has switched")
        for id, run in before.runs.items():
            need(run.goes_on or after.runs[id] == run, f"run {id} had ended, and has changed: {run} {after.runs[id]}")
        for id, run in after.runs.items():
            behind = run.step == "replay" or all(after.barriers.get(name, (0,))[0] == id for name in run.channels)
            free = run.verb in HANDOVERS
            need(not run.goes_on or behind or free, f"run {id} ({run.verb}) goes on, and its barrier is gone")

    def _together(self, rows: Rows) -> None:
        phases = {epochs[-1][1] for epochs in rows.phases.values() if epochs}
        need(len(phases) < 2 or not all(rows.phases.values()), f"the channels are apart: {phases}")

    def _claims(self, before: Rows, after: Rows, channel: str) -> None:
        held = channel in after.holds and before.holds.get(channel) == after.holds[channel]
        barrier = after.barriers.get(channel) if before.barriers.get(channel) == after.barriers.get(channel) else None
        if not held and barrier is None:
            return
        for to in {where for name, where, _ in after.progress if name == channel}:
            fresh = after.claimed(channel, to) - before.claimed(channel, to)
            need(not (held and fresh), f"{channel} to {to}: {fresh} claimed under a hold")
            if barrier is not None:
                _, at, shut = barrier
                need(
                    not any(seq > at for seq in fresh), f"{channel} to {to}: {fresh} claimed above the barrier at {at}"
                )
                need(not (fresh and to in shut), f"{channel} to {to}: {fresh} claimed where all is shut")
                need(not (fresh and to in self.real[channel] and self._rolling(after, barrier[0])),
                     f"{channel} to {to}: {fresh} claimed while a rollback waits")  # fmt: skip

    def _rolling(self, rows: Rows, run: int) -> bool:
        return rows.runs[run].verb == "rollback"

    def _switched(self, before: Rows, after: Rows, channel: str) -> None:
        was, (first, phase) = before.phases[channel], after.phases[channel][-1]
        if not was:
            return
        what = f"{channel} to {phase} from {first}"
        need(len(after.phases[channel]) == len(was) + 1, f"{what}: two epochs at once")
        need(was == after.phases[channel][:-1], f"{what}: an older epoch has changed")
        need(phase in NEXT[was[-1][1]], f"{what}: no way leads there from {was[-1][1]}")
        held = before.holds.get(channel)
        need(held is None or after.holds.get(channel) != held, f"{what}: passes a hold")
        run = json.loads(after.why[channel]).get("run")
        barrier = before.barriers.get(channel)
        need(channel not in after.barriers or after.barriers[channel] != barrier, f"{what}: passes a barrier")
        for (name, to), numbers in self.sent.items():
            need(name != channel or max(numbers) < first, f"{what}: {max(numbers)} has been sent to {to}")
        for (name, to, _), row in before.progress.items():
            need(name != channel or row.claim < first, f"{what}: {row.claim} is claimed at {to}")
        if {phase, was[-1][1]} in ({"parallel", "live"}, {"outside", "legacy"}):
            need(run is not None, f"{what}: without a run")
            need(before.runs.get(run, after.runs[run]).state == "running", f"{what}: by run {run}, which has ended")
            if barrier is not None:
                need(barrier[:2] == (run, first - 1), f"{what}: not at the barrier {barrier}")
        if phase == "live":
            self._drained(after, channel, first - 1, after.runs[run].options)
        elif was[-1][1] == "live":
            self._quiet(channel)

    def _drained(self, rows: Rows, channel: str, last: int, options: Mapping[str, Any]) -> None:
        """What the design says must have settled at or below `last` before our side may send."""
        carried = set(options.get("carry", ()))
        for to in {where for name, where, _ in rows.progress if name == channel}:
            what = f"{channel} is live above {last}"
            going = {seq for seq in rows.claimed(channel, to) if seq <= last}
            if to == LEGACY:
                going |= rows.waiting(channel, to, last)
            if to == LEGACY or to in self.real[channel]:
                need(not going, f"{what}, and {going} is not settled at {to}")
            for (name, where, seq), (state, _) in rows.open.items():
                if (name, where) != (channel, to) or seq > last:
                    continue
                named = bool(carried & {"all", to, f"{channel}/{seq}"})
                need(named, f"{what}, and {seq} is {state.label} at {to}, which nobody carries")
                moves = state not in (State.DEAD, State.PARKED)
                if to == LEGACY:
                    need(not moves, f"{what}, and {seq} is {state.label} for the old engine")
                elif to in self.real[channel]:
                    need(state is not State.UNKNOWN, f"{what}, and {seq} is unknown at {to}")

    def _quiet(self, channel: str) -> None:
        going = [(to, seq) for (name, to, seq), n in self.on_the_way.items()
                 if name == channel and n and to in self.real[channel]]  # fmt: skip
        need(not going, f"{channel} is rolled back, and {going} is on its way")

    def _grants(self, before: Rows, after: Rows) -> None:
        """Each grant is a row, named in the transaction of the rollback that makes it, and says what its policy
        says."""
        fresh = after.grants[len(before.grants) :]
        for channel in {grant[0] for grant in fresh}:
            need(after.phase(channel) == "parallel" and before.phase(channel) == "live", f"{channel}: a grant alone")
            last = after.phases[channel][-1][0] - 1
            for name, to, first, until, mode, *_ in fresh:
                need(name != channel or until <= last, f"{channel}: a grant above {last}")
                need(mode != "send" or to == LEGACY, f"{channel}: {first}…{until} granted to {to}")
            run = next(grant[6] for grant in fresh if grant[0] == channel)
            policy = after.runs[run].options.get("replay") or self.policies[channel]
            for seq in self._deferred(after, channel, last):
                self._granted(after, channel, seq, last, policy)

    def _deferred(self, after: Rows, channel: str, last: int) -> Numbers:
        """The numbers that the old engine has missed since the last rollback."""
        found: Numbers = set()
        for _, first, until, phase in reversed(list(after.stretches(channel))[:-1]):
            if phase != "live":
                break
            found.update(range(first, (last if until is None else until) + 1))
        return found

    def _granted(self, rows: Rows, channel: str, seq: int, last: int, policy: str) -> None:
        what = f"{channel}/{seq}, replay {policy}"
        granted, guarded = rows.granted(channel, seq)
        there = self.real[channel]
        doubtful = [to for to in there if (channel, to, seq) in self.doubt]
        need(not (granted and doubtful), f"{what}: granted, and unknown at {doubtful}")
        need(not (granted and policy == "none"), f"{what}: granted")
        need(not granted or guarded == (policy == "guarded"), f"{what}: guarded: {guarded}")
        has = [to for to in there if NEW in self.taken.get((to, channel, seq), ())]
        above = range(seq + 1, last + 1)
        later = [to for to in there if any(NEW in self.taken.get((to, channel, each), ()) for each in above)]
        if policy == "undelivered":
            need(not (granted and has), f"{what}: granted, and {has} has it")
            need(not (granted and later), f"{what}: granted, and would overtake at {later}")
        wanted = {"none": False, "undelivered": not has and not later}.get(policy, True)
        need(granted or bool(doubtful) or not wanted, f"{what}: not granted, and nobody has it")

    def settled(self, channel: str, to: str, seq: int, doubtful: bool) -> None:
        """What came of an attempt is durable."""
        if not doubtful:
            self.doubt.discard((channel, to, seq))

    def ended(self) -> None:
        """The process has ended: what it had claimed may have been sent, whether it was or not."""
        for channel, to in {(name, where) for name, where, _ in self.rows.progress}:
            self.doubt.update((channel, to, seq) for seq in self.rows.claimed(channel, to))


__all__ = ["LEGACY", "NEW", "OLD", "Foul", "Referee", "Rows", "need"]

"""The interlock as a state machine: whatever is stored, sent, lost, moved, stopped or killed, in whatever order, its
rules hold.

The ledger, the runners, the ports, the taps, the conductor and the verbs are the real ones, as the service builds
them; the world outside is in memory (`tests.support.outside`), time stands still between the steps
(`tests.support.still`), and the rules are the design's (`tests.support.referee`). A port is ours or the old listener's;
what a vendor sends to the old listener goes past us, and is not looked at.
"""

from __future__ import annotations

import asyncio
import errno
import shutil
import sqlite3
import sys
import tempfile
from collections.abc import Callable, Coroutine
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from engine.config.address import Address
from engine.config.edge import Listen
from engine.config.endpoint import Endpoint
from engine.config.model import Channel, Destination, Tap
from engine.config.model import Replay as Policy
from engine.ledger.model import State
from engine.ledger.sqlite.writer import Commit
from engine.migration.peers import Here
from engine.migration.refused import Refused
from engine.migration.selection import Selector
from engine.mllp.server import Listener
from engine.service.moves import Moves
from engine.service.service import Service
from tests.support.fake import crash_image
from tests.support.house import MEDPLUM, channel, configuration
from tests.support.moving import Operator
from tests.support.outside import (
    ANSWERS,
    LOST,
    LOST_BUT_TAKEN,
    OK,
    UNREACHABLE,
    Line,
    Outside,
    OutsideTaps,
    OutsideWays,
)
from tests.support.referee import LEGACY, NEW, OLD, Foul, Referee, need
from tests.support.still import StillLedger, StillLoop, still

RESULTS, ORDERS = "acme-results", "acme-orders"
CHANNELS = (RESULTS, ORDERS)  # one connection: the first with taps, the second without
POLICIES: tuple[Policy, ...] = ("undelivered", "all", "none")
GUARDED: tuple[Policy, ...] = ("guarded", *POLICIES)
SOON = st.sampled_from((0, 1, 2, 3, 5, 40))  # turns of the event loop after a step: a crash may come after any
PERSON = (State.DEAD, State.PARKED)
FIRST = ("outside", "legacy", "parallel", "live", "live")  # the phase to begin with
VENDOR = "127.0.0.1"  # where the lines of both channels come from
NOBODY = ["none"]
ENDS = ("delivered", "captured", "refused", "superseded")


def endpoint(name: str, on_unknown: Any) -> Destination:
    to = Endpoint(name, Address("127.0.0.1", 1), ack_timeout=5, on_unknown=on_unknown, probe="none")
    return Destination(name, "mllp", to, order_by="channel")


class InterlockMachine(RuleBasedStateMachine):
    """Random life of one connection."""

    def __init__(self) -> None:
        super().__init__()
        Foul.called.clear()
        self.folder = Path(tempfile.mkdtemp())
        self.loop = StillLoop()
        self.loop.set_exception_handler(lambda loop, context: self.trouble.append(context))
        self.trouble: list[dict[str, Any]] = []
        self.attributed: list[int | None] = [None]
        self.stored = self.lives = self.orders = 0
        self.verbs: list[asyncio.Task[Any]] = []
        self.service: Service | None = None
        self.taken = False  # the old listener has the ports
        self.ahead = 0.0  # seconds by which the wall clock was set
        self._stack = ExitStack()
        self.faults = self._stack.enter_context(still(
            self.loop.time, partial(StillLedger, wrote=self._wrote), partial(OutsideTaps, self.attributed),
            ahead=lambda: self.ahead,
        ))  # fmt: skip
        for where, name, value in (
            (Listener, "start", self._listen), (Listener, "close", self._close), (Moves, "here", self._here),
        ):  # fmt: skip
            self._stack.enter_context(mock.patch.object(where, name, value))

    # -- the service's lives

    @initialize(
        relays=st.tuples(st.booleans(), st.booleans()), wards=st.booleans(),
        phase=st.sampled_from(FIRST),
        unknown=st.tuples(*[st.sampled_from(("resend", "park"))] * 3),
        policies=st.tuples(st.sampled_from(("guarded", *GUARDED)), st.sampled_from(POLICIES)),
    )  # fmt: skip
    def begin(
        self, relays: tuple[bool, bool], wards: bool, phase: str, unknown: tuple[str, str, str],
        policies: tuple[Policy, Policy],
    ) -> None:  # fmt: skip
        clinics = [endpoint("clinic", unknown[0]), *([endpoint("ward", unknown[1])] if wards else [])]
        first = phase if phase in ("outside", "legacy") else "parallel"
        lis = endpoint("lis", unknown[2])
        taps = tuple(
            Tap(each.name, Listen(1, "127.0.0.1"), each.endpoint, settle=0.5) for each in clinics if each.endpoint
        )
        self.channels = (
            self._channel(RESULTS, relays[0], (*clinics, MEDPLUM), first, policies[0], taps),
            self._channel(ORDERS, relays[1], (lis, MEDPLUM), first, policies[1], ()),
        )
        self.referee = Referee(
            {RESULTS: tuple(each.name for each in clinics), ORDERS: ("lis",)},
            dict(zip(CHANNELS, policies, strict=True)),
        )
        self.outside = Outside(self.referee)
        self._start(self.folder / "0")
        self._do(self._operator.waive_all(*CHANNELS))
        if phase == "live":
            self.a_good_night()

    def _channel(
        self, id: str, relays: bool, to: tuple[Destination, ...], phase: str, policy: Policy, taps: tuple[Tap, ...]
    ) -> Channel:
        made = channel(
            id, port=1, old_engine=1, ack="authoritative" if relays else "stored", destinations=to, phase=phase,
            rollback=policy, taps=taps, settle=0.5,
        )  # fmt: skip
        return replace(made, connection="acme")

    def _start(self, folder: Path) -> None:
        made = configuration(folder, *self.channels)
        self.service = Service(made, OutsideWays(made, self.outside, self.loop.call_soon))
        self.lines: dict[str, Line] = {}
        self._do(self.service.start())
        self._operator = Operator(self.service)

    async def _listen(self) -> None:
        if self.taken:
            raise OSError(errno.EADDRINUSE, "Address already in use")

    async def _close(self, grace: float = 0.0) -> None:
        """At once, as where the time for answers is over; both channels' ports close together."""
        for line in self.lines.values():
            line.close()

    async def _here(self, channel: Channel) -> Here:
        return Here(self.taken, frozenset({VENDOR} if self.taken else ()))

    def _is_open(self, id: str) -> bool:
        return self.service is not None and id in self.service.doors.ports and self.service.doors.is_open(id)

    def _line(self, id: str) -> Line:
        """The vendor's connection at our port, made again where it has been closed."""
        assert self.service is not None
        line = self.lines.get(id)
        if line is None or not line.open:
            line = self.lines[id] = self.outside.sender()
            self.service.doors.ports[id].connected(line)  # type: ignore[arg-type]
        return line

    def _wrote(self, commit: Commit, db: sqlite3.Connection) -> None:
        for message in commit.stored:
            self.outside.stored(message)
        for each in commit.settled:
            self.outside.settled(each.course.channel.name, each.course.name, each.seq)
        for output in commit.outputs:
            self.outside.decided(output)
        self.referee.wrote(db)
        for message in commit.stored:
            phase = self.referee.rows.epoch(message.channel.name, message.seq)[1]
            need(phase != "outside", f"{message.channel.name}/{message.seq} came while we are outside")
        for id in CHANNELS:
            outside = self.referee.rows.phases.get(id) and self.referee.rows.phase(id) == "outside"
            need(not (outside and self._is_open(id)), f"{id} is outside, and its port is open")

    @property
    def _ledger(self) -> StillLedger:
        assert self.service is not None
        ledger = self.service.ledger
        assert isinstance(ledger, StillLedger)
        return ledger

    # -- time

    def _do(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self.loop.run_until_complete(work)

    # -- what may happen

    @rule(id=st.sampled_from(CHANNELS), patients=st.lists(st.sampled_from("ABC"), min_size=1, max_size=4), soon=SOON)
    def store(self, id: str, patients: list[str], soon: int) -> None:
        self.loop.turns(soon, lambda: self._frames(id, patients))

    def _frames(self, id: str, patients: list[str]) -> None:
        assert self.service is not None
        if not self._is_open(id):
            return  # the vendor's are the old listener's affair
        for patient in patients:
            self.stored += 1
            raw = f"MSH|^~\\&|LAB|ACME|EMR|EMR|20260101||ORU^R01|C{self.stored}|P|2.5.1\rPID|1||{patient}^^^ACME\r"
            self.service.doors.ports[id].frame(self._line(id), raw.encode())  # type: ignore[arg-type]

    @precondition(lambda self: self.service and self.outside.attempts)
    @rule(data=st.data(), how=st.sampled_from((OK, OK, *ANSWERS)), soon=SOON)
    def answer(self, data: st.DataObject, how: str, soon: int) -> None:
        at = data.draw(st.integers(0, len(self.outside.attempts) - 1))
        self.loop.turns(soon, lambda: self.outside.answer(self.outside.attempts[at], how))

    @rule(
        patients=st.lists(st.sampled_from("ABC"), min_size=1, max_size=4),
        answers=st.lists(st.sampled_from(ANSWERS), max_size=6),
    )
    def traffic(self, patients: list[str], answers: list[str]) -> None:
        """Messages on both channels; some of what they lead to has an outcome."""
        for id in CHANNELS:
            self.loop.turns(10, partial(self._frames, id, patients))
        for how in answers:
            if self.outside.attempts:
                self.loop.turns(10, lambda how=how: self.outside.answer(self.outside.attempts[-1], how))  # type: ignore[misc]

    @precondition(lambda self: self.service and self.outside.attempts)
    @rule(rounds=st.integers(1, 6))
    def all_answer(self, rounds: int) -> None:
        for _ in range(rounds):
            self.loop.turns(12, self._all_answer)

    def _all_answer(self) -> None:
        for attempt in list(self.outside.attempts):
            self.outside.answer(attempt, OK)

    @precondition(lambda self: self.service and self._outputs())
    @rule(data=st.data(), how=st.sampled_from((OK, OK, OK, LOST, LOST_BUT_TAKEN, UNREACHABLE)), soon=SOON)
    def the_old_engine_sends(self, data: st.DataObject, how: str, soon: int) -> None:
        """Late or soon, in any order; a tap that answers with nothing is asked again."""
        waiting = self._outputs()
        output, lost = waiting[data.draw(st.integers(0, len(waiting) - 1))], data.draw(st.integers(0, 5)) == 0
        self.loop.turns(soon, lambda: self._emit(output, how, lost=lost))

    def _outputs(self) -> list[Any]:
        return [output for output in self.outside.outputs if output.line is None]

    def _emit(self, output: Any, how: str, *, lost: bool = False) -> None:
        """`lost`: the comparison cannot say which input it belongs to. Never so for what a rollback has given back: a
        guard has nothing else to go by."""
        assert self.service is not None
        tapped = self.service.comparisons.channels.get(output.channel)
        found = not lost or self.referee.rows.granted(output.channel, output.seq)[0]
        guarded = any(grant.guarded for grant in self.service.ledger.channels[output.channel].grants)
        phase = self.referee.rows.phase(output.channel)
        blind = phase in ("outside", "legacy") and not guarded  # nothing is compared there
        self.attributed[0] = output.seq if found and not blind else None
        self.outside.emit(output, tapped.ports[output.to] if tapped else None, how)

    @rule(seconds=st.sampled_from((0.06, 0.3, 0.6, 1.5, 7.0, 40.0)))
    def time_passes(self, seconds: float) -> None:
        self._do(asyncio.sleep(seconds))

    @rule(seconds=st.sampled_from((-3600.0, -1.0, 1.0, 3600.0)))
    def the_clock_is_set(self, seconds: float) -> None:
        self.ahead += seconds

    @rule(soon=SOON)
    def the_loop_turns(self, soon: int) -> None:
        self.loop.turns(soon)

    @rule(seconds=st.sampled_from((0.3, 2.0)))
    def the_disk_is_full(self, seconds: float) -> None:
        self._ledger.writer.full = True
        self._do(asyncio.sleep(seconds))
        self._ledger.writer.full = False

    # -- verbs

    @precondition(lambda self: self._phase() != "live")
    @rule(soon=SOON, dry=st.booleans())
    def begin_or_end_a_parallel_run(self, soon: int, dry: bool) -> None:
        self._order("legacy" if self._phase() == "parallel" else "parallel", soon, dry_run=dry)

    @precondition(lambda self: self._phase() == "outside")
    @rule(
        peers=st.sampled_from((NOBODY, [f"{id}={VENDOR}" for id in CHANNELS], None)),
        seconds=st.sampled_from((2.0, 60.0)), soon=SOON,
    )  # fmt: skip
    def takeover(self, peers: list[str] | None, seconds: float, soon: int) -> None:
        more: dict[str, Any] = {"peers": peers} if peers else {}
        self._order("takeover", soon, timeout_s=seconds, **more)

    @precondition(lambda self: self._phase() == "legacy")
    @rule(seconds=st.sampled_from((2.0, 60.0)), soon=SOON)
    def give_back(self, seconds: float, soon: int) -> None:
        self._order("give-back", soon, timeout_s=seconds)

    @precondition(lambda self: self.taken or not any(self._is_open(id) for id in CHANNELS))
    @rule()
    def the_old_listener_stops_or_starts(self) -> None:
        self.taken = not self.taken

    @precondition(lambda self: self._running())
    @rule(soon=SOON)
    def abort(self, soon: int) -> None:
        self._order("abort", soon)

    @rule(ids=st.sampled_from((CHANNELS, (RESULTS,), (ORDERS,))), soon=SOON)
    def hold(self, ids: tuple[str, ...], soon: int) -> None:
        self._order("hold", soon, ids)

    @precondition(lambda self: self.service and (self.referee.rows.holds or self.referee.rows.barriers))
    @rule(ids=st.sampled_from((CHANNELS, CHANNELS, (RESULTS,), (ORDERS,))), soon=SOON)
    def release(self, ids: tuple[str, ...], soon: int) -> None:
        self._order("release", soon, ids)

    @rule(seconds=st.sampled_from((1.0, 5.0, 900.0)), soon=SOON)
    def drain(self, seconds: float, soon: int) -> None:
        self._order("drain", soon, for_s=seconds)

    @precondition(lambda self: self._phase() == "parallel")
    @rule(carry=st.sampled_from(("none", "all", "medplum", "each")), seconds=st.sampled_from((2.0, 60.0)), soon=SOON)
    def cutover(self, carry: str, seconds: float, soon: int) -> None:
        self._order("cutover", soon, carry=self._carried(carry), timeout_s=seconds)

    @precondition(lambda self: self._phase() == "live")
    @rule(policy=st.sampled_from((None, None, None, None, *POLICIES)), seconds=st.sampled_from((2.0, 60.0)), soon=SOON)
    def rollback(self, policy: str | None, seconds: float, soon: int) -> None:
        more: dict[str, Any] = {"replay": policy} if policy else {}
        self._order("rollback", soon, timeout_s=seconds, **more)

    @precondition(lambda self: self._phase() != "live")
    @rule(late=st.booleans())
    def a_good_night(self, late: bool = False) -> None:
        """Everybody answers, and the connection goes live. late: what the old engine makes of it comes only later."""
        self.taken = False
        steps: tuple[Callable[[], None], ...] = (
            lambda: self._order("abort", 3), lambda: self._order("release", 3), lambda: self._settle(12.0, late=late),
            lambda: self._order("takeover", 3, peers=NOBODY), lambda: self._settle(3.0, late=late),
            lambda: self._order("parallel", 20),
            lambda: self._settle(3.0, late=late),
            lambda: self._order("cutover", 20, carry=self._carried("each"), timeout_s=60.0),
            lambda: self._settle(1.0, late=late),
        )  # fmt: skip
        self.outside.always = True
        self.loop.turns(1, self._all_answer)
        for step in steps:
            step()
        self.outside.always = False

    def _phase(self) -> str:
        return self.referee.rows.phase(RESULTS) if self.service else ""

    def _running(self) -> bool:
        return self.service is not None and any(run.goes_on for run in self.referee.rows.runs.values())

    def _carried(self, how: str) -> list[str]:
        """`each`: every number that is open now."""
        each = sorted({f"{name}/{seq}" for name, _, seq in self.referee.rows.open})
        return {"none": [], "all": ["all"], "medplum": ["medplum"], "each": each}[how]

    def _order(
        self, verb: str, soon: int, ids: tuple[str, ...] = CHANNELS, dry_run: bool = False, **options: Any
    ) -> None:
        self.orders += 1
        work = self._operator._orders.verb(
            verb, Selector(ids=ids), options=options, reason=f"order {self.orders}", who="ops", origin="test",
            dry_run=dry_run,
        )  # fmt: skip
        self.loop.turns(soon, lambda: self.verbs.append(self.loop.create_task(work)))

    # -- ends and beginnings

    @rule(data=st.data(), killed=st.booleans())
    def the_process_ends(self, data: st.DataObject, killed: bool) -> None:
        """It is stopped, or killed after any turn of its loop, with the files as they are; and begins again."""
        assert self.service is not None
        folder = self._ledger.path.parent
        if killed:
            self.lives += 1
            folder = self.folder / str(self.lives)
            crash_image(self._ledger.path, folder)
            self._abandon()
        else:
            self._do(self.service.stop())
            self._cancel()
        self.outside.gone(lambda: data.draw(st.booleans()))
        self._start(folder)

    def _abandon(self) -> None:
        self._ledger.abandon()
        self._cancel()
        self.service.delivery.release()
        self.service = None

    def _cancel(self) -> None:
        self.loop.cancel()
        self._verbs_ended()
        self.verbs.clear()

    def _verbs_ended(self) -> None:
        for verb in [verb for verb in self.verbs if verb.done()]:
            self.verbs.remove(verb)
            error = None if verb.cancelled() else verb.exception()
            if error is not None and not isinstance(error, Refused):
                raise error

    # -- what must hold

    @invariant()
    def no_rule_is_broken(self) -> None:
        if Foul.called:
            raise Foul.called[0]
        assert not self.faults.found, self.faults.found
        assert not self.trouble, self.trouble
        if self.service:
            assert self.service.fatal is None
        self._verbs_ended()

    @invariant()
    def the_equation_balances_from_both_sources(self) -> None:
        if self.service:
            rows = self._ledger._reader.balance(list(self._ledger.channels.values()))
            assert all(row["balanced"] for row in rows), rows
            assert self._ledger._reader.rebuilt() == []

    @invariant()
    def nothing_stored_is_lost(self) -> None:
        if self.service:
            kept = {id for (id,) in self._ledger._reader.connection.execute("select control_id from message")}
            assert kept == set(self.outside.numbers)

    # -- at the end

    def everything_comes_to_an_end(self) -> None:
        """Nobody holds, everybody answers: what is due is done, or waits for a person; and it can all be done again."""
        self.outside.always = True
        self.taken = False
        self.loop.turns(1, self._all_answer)
        self._settle()
        for verb in ("abort", "release"):
            self._verb(verb)
        self._settle()
        need(not self.referee.rows.barriers, f"a barrier is left: {self.referee.rows.barriers}")
        need(not self.referee.rows.holds, "a hold is left")
        self._settled()
        if self.referee.rows.phase(RESULTS) == "outside":
            self._run("takeover", peers=NOBODY)
        if self.referee.rows.phase(RESULTS) == "legacy":
            self._verb("parallel")
        for _ in range(2):
            if self.referee.rows.phase(RESULTS) == "parallel":
                self._run("cutover", carry=self._carried("each"))
            self.store(RESULTS, ["A", "B"], 40)
            self.store(ORDERS, ["A"], 40)
            self._run("rollback")
            self.store(RESULTS, ["C"], 40)
        self._verb("legacy")
        self._give_back()
        need(not any(self._is_open(id) for id in CHANNELS), "a port was given back, and is open")
        self._settle()
        self._settled()

    def _settle(self, seconds: float = 70.0, *, late: bool = False) -> None:
        """Time passes, by default enough for every wait between attempts, and the old engine sends what it has, unless
        it is late."""
        for _ in range(2):
            self._do(asyncio.sleep(seconds))
            for output in [] if late else self._outputs():
                self.loop.turns(5, partial(self._emit, output, OK))
        self.no_rule_is_broken()

    def _verb(self, verb: str) -> None:
        self._order(verb, 0)
        self._do(asyncio.sleep(1.0))
        self.no_rule_is_broken()

    def _run(self, verb: str, **options: Any) -> None:
        run = self._do(self._operator.run(verb, *CHANNELS, **options))
        need(run["state"] == "done", f"{verb}: {run}")
        self._settle()

    def _give_back(self) -> None:
        """The old listener starts again when its ports are free."""
        id = self._do(self._operator.begin("give-back", *CHANNELS))
        for _ in range(100):
            if not any(self._is_open(each) for each in CHANNELS):
                break
            self._do(asyncio.sleep(0.1))
        self.taken = True
        run = self._do(self._operator.ended(id))
        need(run["state"] == "done", f"give-back: {run}")
        self._settle()

    def _settled(self) -> None:
        for row in self._ledger._reader.balance(list(self._ledger.channels.values())):
            left = {state: n for state, n in row["states"].items() if state not in (*ENDS, "dead", "parked")}
            behind = any(
                blocks and state in PERSON for (name, to, _), (state, blocks) in self.referee.rows.open.items()
                if (name, to) == (row["channel"], row["destination"])
            )  # fmt: skip
            need(not left or (behind and "sending" not in left), f"{row['channel']} at {row['destination']}: {left}")
        for id, seq in self.outside.numbers.values():
            self._message_is_somewhere(id, seq)

    def _message_is_somewhere(self, id: str, seq: int) -> None:
        """What the rows say of a message is what its destinations have."""
        rows = self.referee.rows
        _, phase = rows.epoch(id, seq)
        handed = seq in self.outside.has.get((id, LEGACY), ())
        if phase in ("legacy", "parallel"):
            asked = (
                (id, LEGACY, seq) in rows.open
                or seq in rows.waiting(id, LEGACY, seq)
                or (id, seq) in self.outside.said_no
            )
            need(handed or asked, f"{id}/{seq} is {phase}, and the old engine has not got it")
        for to in self.referee.real[id]:
            sides = self.referee.taken.get((to, id, seq), set())
            parked = (to, id, seq) in self.outside.parked
            if handed:
                kept_back = (to, id, seq) in self.outside.kept_back
                need(bool(sides) or parked, f"{id}/{seq}: the old engine sent it, and {to} has not got it")
                need(not kept_back or NEW in sides, f"{id}/{seq} was kept back, and {to} has it not from {NEW}")
            if phase == "live" and not rows.closed(id, seq):
                person = (id, to, seq) in rows.open or seq in rows.waiting(id, to, seq)
                need(NEW in sides or person, f"{id}/{seq} is live, and {to} has not got it")
            if sides == {OLD} and phase == "live":
                need(rows.granted(id, seq)[0], f"{id}/{seq} is live, and {to} has it from {OLD}")

    def teardown(self) -> None:
        try:
            if self.service and sys.exc_info()[0] is None and not Foul.called:
                self.everything_comes_to_an_end()
                self._do(self.service.stop())
        finally:
            self.put_away()

    def put_away(self) -> None:
        if self.service and not self._ledger.writer.dead:
            self._ledger.abandon()
            self.service.delivery.release()
        self._cancel()
        self.loop.close()
        self._stack.close()
        shutil.rmtree(self.folder)

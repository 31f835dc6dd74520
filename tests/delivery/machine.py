"""Delivery as a state machine: whatever is stored, answered, lost, decided by people, withheld or killed, in whatever
order, it keeps its promises.

The ledger, the runners, the replays and the remedies are the real ones (`process`); the endpoints are in memory
(`receivers`), time stands still between the steps (`tests.support.still`), and the promises are the design's
(`promises`). Two channels share two endpoints: one that gets everything strictly in order, one by patient lanes.
"""

from __future__ import annotations

import asyncio
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Coroutine
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, get_args
from unittest import mock

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from engine.config.endpoint import Dead
from engine.ledger.sqlite.loading import LedgerError
from engine.ledger.sqlite.writer import Commit
from engine.migration.refused import Refused
from engine.observe import events
from tests.delivery.dues import Due, Kind, Stands
from tests.delivery.process import Process
from tests.delivery.promises import Promises
from tests.delivery.receivers import ANSWERS, OK, Receivers
from tests.delivery.texts import KINDS, PLAIN, Text
from tests.support.referee import Foul, need
from tests.support.still import Faults, StillLoop

CHANNELS = ("north", "south")
STRICT, LANES = "emr", "medplum"
SETTLE = 1.0  # seconds
SOON = st.sampled_from((0, 1, 2, 3, 5, 40))  # turns of the event loop after a step: a crash may come after any
PATIENTS = st.sampled_from(((), ("A",), ("A",), ("B",), ("C",), ("A", "B"), ("B", "C")))
TEXTS = st.lists(st.tuples(PATIENTS, st.sampled_from(KINDS)), min_size=1, max_size=5)
DEAD: st.SearchStrategy[Dead] = st.sampled_from(get_args(Dead))
READING = st.sampled_from((0, 0, 2, 12))  # turns until a message is read from the ledger
ROOM = st.sampled_from((None, None, 1, 3))  # how many messages of all channels may be claimed for one endpoint
A_WHILE = 400.0  # seconds: longer than every wait between attempts together


class DeliveryMachine(RuleBasedStateMachine):
    """Random life of delivery."""

    def __init__(self) -> None:
        super().__init__()
        Foul.called.clear()
        self.folder = Path(tempfile.mkdtemp())
        self.loop = StillLoop()
        self.trouble: list[dict[str, Any]] = []
        self.loop.set_exception_handler(lambda loop, context: self.trouble.append(context))
        self.verbs: list[asyncio.Task[None]] = []
        self.numbers = self.edits = 0
        self.process: Process | None = None
        self._stack = ExitStack()
        self.faults = Faults()
        self._stack.enter_context(mock.patch.object(events, "LOG", self.faults))

    # -- the process's lives

    @initialize(
        parks=st.booleans(), dead=st.tuples(DEAD, DEAD), window=st.sampled_from((2, 4)), reading=READING, room=ROOM
    )
    def begin(
        self, parks: bool, dead: tuple[Dead, Dead], window: int, reading: int = 0, room: int | None = None
    ) -> None:
        self.reading, self.room = reading, room
        self.kinds = (
            Kind(STRICT, False, 1, parks_unknown=parks, dead=dead[0]),
            Kind(LANES, True, window, dead=dead[1], settle=SETTLE),
        )
        self.promises = Promises({kind.name: kind for kind in self.kinds})
        self.receivers = Receivers(self.promises, self.loop.time)
        self._start()
        self.loop.turns(40)

    def _start(self) -> None:
        self.process = Process(
            self.folder / "ledger.db", CHANNELS, self.kinds, self.receivers, self.loop.time, self._wrote,
            self.reading, self.room,
        )  # fmt: skip
        self._do(self.process.start())

    def _wrote(self, commit: Commit, db: Any) -> None:
        self.promises.wrote(commit, db)

    @property
    def _process(self) -> Process:
        assert self.process is not None
        return self.process

    def _do(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self.loop.run_until_complete(work)

    # -- messages and answers

    @rule(channel=st.sampled_from(CHANNELS), texts=TEXTS, soon=SOON)
    def store(self, channel: str, texts: list[tuple[tuple[str, ...], str]], soon: int) -> None:
        self.loop.turns(soon, lambda: self._store(channel, texts))

    def _store(self, channel: str, texts: list[tuple[tuple[str, ...], str]]) -> None:
        for patients, kind in texts:
            self.numbers += 1
            text = Text(self.numbers, patients, kind)
            self.promises.texts[text.control_id] = text
            self._process.store(channel, text)

    @precondition(lambda self: self.process and self.receivers.attempts)
    @rule(data=st.data(), how=st.sampled_from((OK, OK, *ANSWERS)), soon=SOON)
    def answer(self, data: st.DataObject, how: str, soon: int) -> None:
        at = data.draw(st.integers(0, len(self.receivers.attempts) - 1))
        self.loop.turns(soon, lambda: self.receivers.answer(self.receivers.attempts[at], how))

    @precondition(lambda self: self.process and self.receivers.attempts)
    @rule(hows=st.lists(st.sampled_from((OK, OK, OK, *ANSWERS)), min_size=2, max_size=8), soon=SOON)
    def answers(self, hows: list[str], soon: int) -> None:
        for how in hows:
            if self.receivers.attempts:
                self.loop.turns(soon, lambda how=how: self.receivers.answer(self.receivers.attempts[0], how))  # type: ignore[misc]

    @precondition(lambda self: self.process and self.receivers.orphans)
    @rule(data=st.data())
    def an_orphan_arrives(self, data: st.DataObject) -> None:
        at = data.draw(st.integers(0, len(self.receivers.orphans) - 1))
        self.receivers.arrives(self.receivers.orphans[at])

    @rule(seconds=st.sampled_from((0.1, 0.35, 0.7, 1.2, 3.0, 40.0)))
    def time_passes(self, seconds: float) -> None:
        self._do(asyncio.sleep(seconds))

    @rule(soon=SOON)
    def the_loop_turns(self, soon: int) -> None:
        self.loop.turns(soon)

    @rule(seconds=st.sampled_from((0.3, 2.0)), data=st.data(), verb=st.sampled_from((None, "retry", "discard", "edit")))
    def the_disk_is_full(self, seconds: float, data: st.DataObject, verb: str | None) -> None:
        """What comes meanwhile is written together."""
        self._process.ledger.writer.full = True
        if verb is not None and self._open():
            due = self._some(data)
            self.loop.turns(
                5, lambda: self._verb(self._edit(due, self._edited(due)) if verb == "edit" else self._decide(verb, due))
            )
        self._do(asyncio.sleep(seconds))
        self._process.ledger.writer.full = False

    @rule(lost=st.lists(st.sampled_from((OK, OK, *ANSWERS)), max_size=3), soon=SOON)
    def the_process_is_killed(self, lost: list[str], soon: int) -> None:
        """After any turn of its loop, with answers that came and never became durable; and another begins on the same
        file."""
        self._process.ledger.writer.full = True
        self.answers(lost, 3)
        self._kill()
        self.receivers.gone()
        self.promises.crashed(self.loop.time())
        self._start()
        self.loop.turns(soon)

    def _kill(self) -> None:
        self._process.kill()
        self.loop.cancel()
        self._verbs_ended()
        self.verbs.clear()
        self.promises.releasing = 0
        self.process = None

    # -- what people do

    @precondition(lambda self: self.process and self._open())
    @rule(data=st.data(), verb=st.sampled_from(("retry", "discard")), soon=SOON)
    def decide(self, data: st.DataObject, verb: str, soon: int) -> None:
        due = self._some(data)
        self.loop.turns(soon, lambda: self._verb(self._decide(verb, due)))

    @precondition(lambda self: self.process and self._wanting())
    @rule(verb=st.sampled_from(("retry", "retry", "discard")), soon=SOON)
    def decide_all(self, verb: str, soon: int) -> None:
        self.loop.turns(soon, lambda: self._verb(self._decide(verb)))

    @precondition(lambda self: self.process and self._open())
    @rule(data=st.data(), kind=st.sampled_from((PLAIN, *KINDS)), patients=st.one_of(st.none(), PATIENTS), soon=SOON)
    def edit(self, data: st.DataObject, kind: str, patients: tuple[str, ...] | None, soon: int) -> None:
        due = self._some(data)
        text = self._edited(due, kind=kind, **({} if patients is None else {"patients": patients}))
        self.loop.turns(soon, lambda: self._verb(self._edit(due, text)))

    @precondition(lambda self: self.process and self._open())
    @rule(data=st.data(), what=st.sampled_from(("nothing", "control id", "no message")))
    def edit_in_vain(self, data: st.DataObject, what: str) -> None:
        """Refused: nothing is changed by it."""
        if self.verbs:  # which may just be changing it
            return
        due = self._some(data)
        raw = due.texts[due.revision].raw
        raw = {"nothing": raw, "control id": raw.replace(b"|C", b"|D"), "no message": b"PID|1\r"}[what]
        channel, to, seq, _ = due.place

        async def edit() -> None:
            items = self._process.items(to, (channel, seq))
            await self._process.edit(items[0], raw)
            need(False, f"{due}: edited into {what}")

        self.loop.turns(10, lambda: self._verb(edit()))

    @precondition(lambda self: self.process and self._ended())
    @rule(
        channel=st.sampled_from(CHANNELS), to=st.sampled_from((STRICT, LANES)), data=st.data(),
        many=st.integers(1, 6), soon=SOON,
    )  # fmt: skip
    def replay(self, channel: str, to: str, data: st.DataObject, many: int, soon: int) -> None:
        newest = max((due.seq for due in self.promises.dues.values() if due.place[:2] == (channel, to)), default=0)
        first = data.draw(st.integers(max(1, newest - 4), newest)) if newest else 1
        numbers = list(range(first, min(newest, first + many - 1) + 1))

        def asks(found: list[int]) -> None:
            places = {(channel, to, seq) for seq in found}
            if places & self.promises.replays or any(self.promises.open_at(*place) for place in places):
                raise Refused("Another replay of these is under way, or has not come to them yet.")
            self.promises.replays |= places

        self.loop.turns(soon, lambda: self._verb(self._process.replay(channel, to, numbers, asks)))

    @rule(channel=st.sampled_from(CHANNELS), barrier=st.booleans(), soon=SOON)
    def withhold(self, channel: str, barrier: bool, soon: int) -> None:
        act = self._process.bar if barrier else self._process.hold
        self.loop.turns(soon, lambda: self._verb(act(channel)))

    @precondition(lambda self: self.process and (self.promises.rows.holds or self.promises.rows.barriers))
    @rule(soon=SOON)
    def release(self, soon: int) -> None:
        self.loop.turns(soon, self._release)

    def _release(self) -> None:
        for channel in CHANNELS:
            self._verb(self._let_go(channel))

    async def _let_go(self, channel: str) -> None:
        self.promises.releasing += 1
        await self._process.release(channel)
        self.promises.releasing -= 1

    @rule(channel=st.sampled_from(CHANNELS), to=st.sampled_from((STRICT, LANES)), data=st.data(), soon=SOON)
    def the_other_side_has_it(self, channel: str, to: str, data: st.DataObject, soon: int) -> None:
        last = data.draw(st.integers(0, self._process.book(channel).seq))
        self.loop.turns(soon, lambda: self._verb(self._process.supersede(channel, to, last)))

    def _some(self, data: st.DataObject) -> Due:
        """Something that is not settled; half the time it wants a person, if anything does."""
        found = (self._wanting() if data.draw(st.booleans()) else []) or self._open()
        return found[data.draw(st.integers(0, len(found) - 1))]

    def _open(self) -> list[Due]:
        return [due for due in self.promises.dues.values() if not due.ended]

    def _wanting(self) -> list[Due]:
        return [due for due in self.promises.dues.values() if not due.ended and due.stands is not Stands.OPEN]

    def _ended(self) -> list[Due]:
        return [due for due in self.promises.dues.values() if due.ended]

    def _verb(self, work: Coroutine[Any, Any, None]) -> None:
        self.verbs.append(self.loop.create_task(work))

    async def _decide(self, verb: str, due: Due | None = None) -> None:
        """`due`: all that wants a person, if none is given."""
        items = self._process.items(due.place[1], (due.place[0], due.seq)) if due else self._process.items()
        sending = due is not None and due.on_the_way
        for item in items:
            self.promises.asked.add((verb, item.course.channel.name, item.course.name, item.work.seq))
        await self._process.decide(verb, items)
        need(not sending, f"{due}: {verb}, and it was on its way")
        for item in items:
            self.promises.joined(item.course.channel.name, item.course.name, item.work.seq)

    def _edited(self, due: Due, **changed: Any) -> Text:
        self.edits += 1
        return due.texts[due.revision].edited(f"edit {self.edits}", **changed)

    async def _edit(self, due: Due, text: Text) -> None:
        channel, to, seq, _ = due.place
        items = self._process.items(to, (channel, seq))
        begun = due.part > 1
        self.promises.asked.add(("edit-and-retry", channel, to, seq))
        self.promises.edits.add(text)
        await self._process.edit(items[0], text.raw)
        need(not begun, f"{due}: edited, and the receiver has its first part as it was")
        self.promises.joined(channel, to, seq)

    # -- what must hold

    @invariant()
    def no_promise_is_broken(self) -> None:
        if Foul.called:
            raise Foul.called[0]
        assert not self.faults.found, self.faults.found
        assert not self.trouble, self.trouble
        self._verbs_ended()

    def _verbs_ended(self) -> None:
        for verb in [verb for verb in self.verbs if verb.done()]:
            self.verbs.remove(verb)
            error = None if verb.cancelled() else verb.exception()
            if error is not None and not isinstance(error, Refused | LedgerError):
                raise error

    @invariant()
    def the_equation_balances_from_both_sources(self) -> None:
        if self.process:
            reader = self._process.ledger._reader
            rows = reader.balance(list(self._process.ledger.channels.values()))
            assert all(row["balanced"] for row in rows), rows
            assert reader.rebuilt() == []

    @invariant()
    def no_more_is_on_its_way_than_an_endpoint_has_room_for(self) -> None:
        on_the_way = Counter(attempt.kind.name for attempt in self.receivers.attempts)
        assert self.room is None or max(on_the_way.values(), default=0) <= self.room

    # -- at the end

    @rule()
    def a_calm_hour(self) -> None:
        """Everybody answers, nobody holds: what then is open waits for a person, or behind what does."""
        self._calm()
        self.receivers.always = False

    def _calm(self) -> None:
        self.loop.turns(40, self._release)
        self.loop.turns(1, self.receivers.all_say_yes)
        self._do(asyncio.sleep(A_WHILE))
        self.no_promise_is_broken()
        self.promises.quiet()
        wanting = [due for due in self._wanting() if due.stands is Stands.PERSON]
        behind = {(due.place[0], due.place[1], lane) for due in wanting for lane in due.lanes}
        while True:
            more = {
                (due.place[0], due.place[1], lane)
                for due in self._open()
                if any((*due.place[:2], lane) in behind for lane in due.lanes)
                for lane in due.lanes
            }
            if more <= behind:
                break
            behind |= more
        for due in self._open():
            waits = any((*due.place[:2], lane) in behind for lane in due.lanes)
            stopped = due.place[0] in self.promises.rows.holds  # by itself, behind a dead one
            need(waits or stopped or due.stands is not Stands.OPEN, f"{due} is open, and waits for nobody")

    def everything_comes_to_an_end(self) -> None:
        for verb in ("retry", "retry", *["discard"] * 60):
            self._calm()
            if not self._wanting():
                break
            self.loop.turns(40, partial(lambda verb: self._verb(self._decide(verb)), verb))
            self.no_promise_is_broken()
        need(not self._open(), f"open to the end: {[str(due) for due in self._open()]}")
        need(not self._process.replaying.running(), "a replay goes on")
        for row in self._process.ledger._reader.balance(list(self._process.ledger.channels.values())):
            left = {"waiting", "sending", "retrying", "unknown", "parked", "dead"} & set(row["states"])
            need(not left, f"{row['channel']} at {row['destination']}: {row['states']}")

    def teardown(self) -> None:
        try:
            if self.process and sys.exc_info()[0] is None and not Foul.called:
                self.everything_comes_to_an_end()
        finally:
            self.put_away()

    def put_away(self) -> None:
        if self.process:
            self._kill()
        self.loop.close()
        self._stack.close()
        shutil.rmtree(self.folder)

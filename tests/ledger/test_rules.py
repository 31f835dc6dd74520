"""The ledger's rules as a state machine: whatever is stored, settled, failed, undone or lost in a crash, they hold.

The model is the design's: a message has a state at each destination where work is due; what was claimed and not
settled may have been sent; what was not claimed was not. It knows nothing of rows, frontiers or batches.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from engine.ledger.book import Book
from engine.ledger.course import ChannelBook, Course
from engine.ledger.model import FIRST_SETTLED, Message, Settlement, State
from engine.ledger.routing import Epoch, Mode, Route, Routing
from engine.ledger.sqlite.loading import Opened, open_ledger
from engine.ledger.sqlite.reader import Reader
from engine.ledger.sqlite.writer import Order, Reclaim, Writer
from tests.ledger.writing import write

WINDOWS = {"legacy": 1, "medplum": 4}
ROUTING = Routing(
    (
        Route("legacy", "legacy", Mode.SEND, "channel"),
        Route("medplum", "medplum", Mode.SEND, "patient"),
    ),
    None,
)
CHANNELS = ("north", "south")
ENDS = (State.DELIVERED, State.CAPTURED, State.REFUSED)
COUNTS = ("discarded", "superseded", "refused", "duplicate", "captured", "delivered", "filtered")
"""The design: a message counts once, by the part that comes first in one of these."""
FAILURES = (State.RETRYING, State.UNKNOWN, State.DEAD, State.PARKED)


class DiskFull(Exception):
    """What a transaction that cannot be written looks like here."""


class LedgerMachine(RuleBasedStateMachine):
    """Random life of a ledger with two channels and two destinations each."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.path = self.folder / "ledger.db"
        self.model: dict[tuple[str, str], dict[int, State]] = {}
        self.stored = dict.fromkeys(CHANNELS, 0)
        self.parts: dict[tuple[str, str, int, int], list[State]] = {}  # of what is open: how its parts ended so far
        self.split: dict[tuple[str, str, int, int], int] = {}  # and how many there are
        self.revived: set[tuple[str, str, int]] = set()  # later messages may be on the way by then
        self.replays: dict[tuple[str, str], dict[tuple[int, int], State]] = {}
        self.opened: Opened | None = None

    @initialize()
    def open(self) -> None:
        self._open()
        for id, name in enumerate(CHANNELS, 1):
            book = ChannelBook(id, name, 0)
            courses = [Course(book, at, route.destination, 1, False) for at, route in enumerate(ROUTING.routes, 1)]
            rows = [("insert into destination values (?,?)", (c.id, c.name)) for c in courses if id == 1]
            rows.append(("insert into channel values (?,?,0)", (id, name)))
            self.channels[name] = book
            self._arrange(book, courses)
            epoch = Epoch(0, 0, "parallel", ROUTING, who="test", why="first")
            self._write(
                Order(
                    lambda b, book=book, courses=courses, epoch=epoch: b.switch(book, epoch, courses), None, tuple(rows)
                )
            )
            for course in courses:
                self._write(Order(lambda b, course=course: b.pause(course, False)))
                self.model[name, course.name] = {}
                self.replays[name, course.name] = {}

    def _open(self) -> None:
        self.opened = open_ledger(self.path)
        self.channels = self.opened.channels
        self.messages: dict[tuple[str, int], Message] = {}
        self.book = Book(self.opened.term, self.opened.last_message, self.opened.audited)
        self.writer = Writer(self.opened.connection, self.book, lambda _: None, lambda _: None, lambda _: None)
        self.reader = Reader(self.path)
        for book in self.channels.values():
            self._arrange(book, book.courses)

    def _arrange(self, book: ChannelBook, courses: list[Course]) -> None:
        for course in courses:
            course.window = WINDOWS[course.name]

    def _write(self, *operations: object) -> None:
        write(self.writer, *operations)

    def _courses(self) -> list[Course]:
        return [course for book in self.channels.values() for course in book.courses]

    def _message(self, course: Course, seq: int) -> Message:
        name = course.channel.name
        if (name, seq) not in self.messages:
            id = self.reader.id_of(course.channel.id, seq)
            assert id is not None
            message = Message(course.channel, b"", 0)
            message.id, message.seq = id, seq
            self.messages[name, seq] = message
        course.ids[seq] = self.messages[name, seq].id
        return self.messages[name, seq]

    def _on_the_way(self) -> list[tuple[Course, int, int]]:
        """(course, number, delivery)"""
        first = [
            (course, seq, 1)
            for course in self._courses()
            for seq, state in self.model[course.channel.name, course.name].items()
            if state is State.SENDING
        ]
        return first + [
            (course, *key)
            for course in self._courses()
            for key, state in self.replays[course.channel.name, course.name].items()
            if state is State.SENDING
        ]

    def _settlement(self, course: Course, seq: int, delivery: int, state: State, split: int) -> Settlement:
        """How one part ends; the model learns what that means for the message."""
        place = (course.channel.name, course.name, seq, delivery)
        ended = self.parts.setdefault(place, [])
        parts = self.split.setdefault(place, split)
        settlement = Settlement(
            course, self._message(course, seq), state, 1, blocks=state is not State.PARKED,
            part=len(ended) + 1, parts=parts, delivery=delivery,
        )  # fmt: skip
        if state.value >= FIRST_SETTLED:
            ended.append(state)
            if len(ended) < parts and state is not State.REFUSED:
                state = State.SENDING  # the next part, in the same transaction
            else:
                state = next(State[name.upper()] for name in COUNTS if State[name.upper()] in ended)
                del self.parts[place], self.split[place]
        self._is(course, seq, delivery, state)
        return settlement

    def _is(self, course: Course, seq: int, delivery: int, state: State) -> None:
        where = (course.channel.name, course.name)
        if delivery == 1:
            self.model[where][seq] = state
        else:
            self.replays[where][seq, delivery] = state

    def _see_claims(self) -> None:
        """What the model must learn from outside: which waiting messages were claimed."""
        for course in self._courses():
            states = self.model[course.channel.name, course.name]
            for seq, state in states.items():
                if state is State.WAITING and seq <= course.claim:
                    states[seq] = State.SENDING
                    self._message(course, seq)

    # -- what may happen

    @rule(batch=st.lists(st.sampled_from(CHANNELS), min_size=1, max_size=6))
    def store(self, batch: list[str]) -> None:
        self._write(*(Message(self.channels[name], b"raw", 1, f"C{i}") for i, name in enumerate(batch)))
        for name in batch:
            self.stored[name] += 1
            for destination in WINDOWS:
                self.model[name, destination][self.stored[name]] = State.WAITING
        self._see_claims()

    @precondition(lambda self: self._on_the_way())
    @rule(data=st.data())
    def settle_some(self, data: st.DataObject) -> None:
        chosen = data.draw(st.lists(st.sampled_from(self._on_the_way()), unique=True, min_size=1, max_size=5))
        operations = []
        for course, seq, delivery in chosen:
            state = data.draw(st.sampled_from(ENDS + ENDS + FAILURES))
            split = data.draw(st.sampled_from((1, 2, 3)))
            operations.append(self._settlement(course, seq, delivery, state, split))
        self._write(*operations)
        self._see_claims()

    @precondition(lambda self: any(course.open for course in self._courses()))
    @rule(data=st.data())
    def claim_anew(self, data: st.DataObject) -> None:
        places = [(c, key) for c in self._courses() for key, work in c.open.items() if work.state is not State.SENDING]
        if not places:
            return
        course, key = data.draw(st.sampled_from(places))
        if not course.open[key].blocks:  # it stood in nobody's way, and later ones may be on theirs
            self.revived.add((course.channel.name, course.name, key[0]))
        self._write(Reclaim(course, key))
        self._is(course, key[0], key[2], State.SENDING)
        self._message(course, key[0])

    @precondition(lambda self: any(course.open for course in self._courses()))
    @rule(data=st.data())
    def a_person_discards_it(self, data: st.DataObject) -> None:
        """The message, or what is left of its parts."""
        places = [(c, key) for c in self._courses() for key, work in c.open.items() if work.state is not State.SENDING]
        if not places:
            return
        course, key = data.draw(st.sampled_from(places))
        self._write(Order(lambda book: book.close_open(course, key, State.DISCARDED, "enough", 1)))
        place = (course.channel.name, course.name, key[0], key[2])
        self.parts.pop(place, None), self.split.pop(place, None)
        self._is(course, key[0], key[2], State.DISCARDED)
        self._see_claims()

    @precondition(lambda self: any(course.open for course in self._courses()))
    @rule(data=st.data())
    def a_person_has_it_tried_again(self, data: st.DataObject) -> None:
        places = [(c, key) for c in self._courses() for key, work in c.open.items() if work.state is not State.SENDING]
        if not places:
            return
        course, key = data.draw(st.sampled_from(places))
        work = course.open[key]
        maybe = work.state is State.UNKNOWN or (work.state is State.PARKED and work.blocks)
        self._write(Order(lambda book: book.revive(course, key, why="now")))
        self._is(course, key[0], key[2], State.UNKNOWN if maybe else State.RETRYING)
        self.revived.add((course.channel.name, course.name, key[0]))

    @rule(data=st.data())
    def a_person_has_it_sent_once_more(self, data: st.DataObject) -> None:
        places = [
            (course, seq)
            for course in self._courses()
            for seq, state in self.model[course.channel.name, course.name].items()
            if state.value >= FIRST_SETTLED
        ]
        if not places:
            return
        course, seq = data.draw(st.sampled_from(places))
        known = self.replays[course.channel.name, course.name]
        delivery = max([1, *(number for of, number in known if of == seq)]) + 1
        message = self._message(course, seq).id
        course.ids.pop(seq, None)
        self._write(Order(lambda book: book.replay(course, message, seq, delivery, 1, "again")))
        known[seq, delivery] = State.RETRYING

    @rule(batch=st.lists(st.sampled_from(CHANNELS), min_size=1, max_size=3), data=st.data())
    def fail_to_write(self, batch: list[str], data: st.DataObject) -> None:
        """A transaction that cannot be written changes nothing, whatever it held."""
        operations: list[object] = [Message(self.channels[name], b"raw", 1) for name in batch]
        if self._on_the_way():
            course, seq, delivery = data.draw(st.sampled_from(self._on_the_way()))
            place = (course.channel.name, course.name, seq, delivery)
            ended, parts = self.parts.get(place, []), self.split.get(place, 1)
            state = data.draw(st.sampled_from(ENDS + FAILURES))
            operations.append(
                Settlement(
                    course, self._message(course, seq), state, 1, part=len(ended) + 1, parts=parts, delivery=delivery
                )
            )

        def full(book: Book) -> None:
            raise DiskFull

        with pytest.raises(DiskFull):
            self._write(*operations, Order(full))

    @rule()
    def crash(self) -> None:
        """The process is gone: what was on the way may have been sent, and nothing else changes."""
        self._close()
        for states in (*self.model.values(), *self.replays.values()):
            for key, state in states.items():
                if state is State.SENDING:
                    states[key] = State.UNKNOWN  # type: ignore[index]
        self._open()
        for course in self._courses():
            self._write(Order(lambda b, course=course: b.pause(course, False)))
        self._see_claims()

    # -- what must hold

    @invariant()
    def every_message_is_in_the_state_it_was_put_in(self) -> None:
        if not self.model:
            return
        for row in self.reader.balance(list(self.channels.values())):
            expected: dict[str, int] = {}
            for state in self.model[row["channel"], row["destination"]].values():
                expected[state.label] = expected.get(state.label, 0) + 1
            assert row["states"] == expected
            again: dict[str, int] = {}
            for state in self.replays[row["channel"], row["destination"]].values():
                again[state.label] = again.get(state.label, 0) + 1
            assert row.get("replayed", {"states": {}})["states"] == again
            assert row["stored"] == self.stored[row["channel"]]
            assert row["balanced"]

    @invariant()
    def everything_kept_can_be_counted_again_from_the_rows(self) -> None:
        if self.opened:
            assert self.reader.rebuilt() == []

    @invariant()
    def no_more_is_claimed_than_may_be_on_the_way(self) -> None:
        for course in self._courses():
            states = self.model[course.channel.name, course.name]
            on_the_way = [seq for seq, state in states.items() if state is State.SENDING]
            opened = {key[0] for key in course.open if key[2] == 1}
            fresh = [seq for seq in on_the_way if seq not in opened]
            assert len(fresh) <= course.window
            if course.window == 1:
                place = (course.channel.name, course.name)
                blocked = [
                    s for s, state in states.items()
                    if state in FAILURES and state is not State.PARKED and (*place, s) not in self.revived
                ]  # fmt: skip
                assert not (fresh and [seq for seq in blocked if seq < fresh[0]])

    @invariant()
    def what_waits_is_above_every_claim(self) -> None:
        for course in self._courses():
            states = self.model[course.channel.name, course.name]
            waiting = [seq for seq, state in states.items() if state is State.WAITING]
            begun = [seq for seq, state in states.items() if state is not State.WAITING]
            assert not waiting or not begun or max(begun) < min(waiting)
            assert course.frontier <= course.claim <= self.stored[course.channel.name]

    @invariant()
    def the_ledger_never_stalls(self) -> None:
        """Where nothing is on the way or in the way, the next message is claimed."""
        for course in self._courses():
            states = self.model[course.channel.name, course.name]
            again = self.replays[course.channel.name, course.name]
            known = [*(state for state in states.values() if state is not State.WAITING), *again.values()]
            if all(state.value >= FIRST_SETTLED for state in known):
                assert course.claim == min(self.stored[course.channel.name], course.frontier + course.window)

    def _close(self) -> None:
        if self.opened:
            self.reader.close()
            self.opened.connection.close()
            self.opened.lock.close()

    def teardown(self) -> None:
        self._close()
        shutil.rmtree(self.folder)


TestLedgerRules = LedgerMachine.TestCase
TestLedgerRules.settings = settings(max_examples=120, stateful_step_count=40, deadline=None)


class Drawn:
    """In the place of what hypothesis draws."""

    def __init__(self, *values: object) -> None:
        self._values = iter(values)

    def draw(self, _: object) -> object:
        return next(self._values)


@pytest.mark.parametrize("interrupted", [None, State.RETRYING, State.DEAD, "crash"])
@pytest.mark.parametrize(
    ("ends", "counts"),
    [
        ((State.CAPTURED, State.DELIVERED), "captured"),
        ((State.DELIVERED, State.CAPTURED), "captured"),
        ((State.DELIVERED, State.DELIVERED), "delivered"),
        ((State.DELIVERED, State.REFUSED), "refused"),
        ((State.CAPTURED, State.DELIVERED, State.DELIVERED), "captured"),
    ],
)
def test_a_message_in_parts_counts_once_by_the_part_that_comes_first(
    ends: tuple[State, ...], counts: str, interrupted: State | str | None
) -> None:
    machine = LedgerMachine()
    try:
        machine.open()
        machine.store(["north"])
        course = machine.channels["north"].courses[1]
        for number, state in enumerate(ends):
            if number and interrupted == "crash":
                machine.crash()
                course = machine.channels["north"].courses[1]
                machine.claim_anew(Drawn((course, (1, number + 1, 1))))  # type: ignore[arg-type]
            elif number and interrupted is not None:
                machine.settle_some(Drawn([(course, 1, 1)], interrupted, len(ends)))  # type: ignore[arg-type]
                machine.claim_anew(Drawn((course, (1, number + 1, 1))))  # type: ignore[arg-type]
            machine.settle_some(Drawn([(course, 1, 1)], state, len(ends)))  # type: ignore[arg-type]
            machine.every_message_is_in_the_state_it_was_put_in()
            machine.everything_kept_can_be_counted_again_from_the_rows()
        rows = machine.reader.balance([machine.channels["north"]])
        assert [row["states"] for row in rows if row["destination"] == "medplum"] == [{counts: 1}]
    finally:
        machine.teardown()

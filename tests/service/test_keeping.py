"""What may be removed by age, as a model from the design: nothing open, dead, held or still needed ever goes, and
everything can still be counted, after each look and after opening again."""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.ledger.course import Course
from engine.ledger.keeping import EVENTS, RAW, Keep, LegalHold, believed
from engine.ledger.model import IntakeEvent, Message, Settlement, State
from engine.ledger.routing import LEGACY, Mode, Route, Routing
from engine.ledger.sqlite import retention
from engine.ledger.sqlite.ledger import SqliteLedger
from engine.ledger.sqlite.mappings import KeptMapping, part_hash
from engine.service import keeping
from engine.service.keeping import Keeping

DAY = 86_400_000_000
DIRECT = Routing((Route("emr", "mllp", Mode.SEND, "channel"), Route("medplum", "medplum", Mode.SEND, "patient")))
KEEP = Keep(raw=10 * 86400.0, captured=5 * 86400.0, receipts=20 * 86400.0, events=10 * 86400.0)
CHANNELS = ("north", "south")


@pytest.fixture(autouse=True)
def _no_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeping, "LEAST_REST", 0.0)
    monkeypatch.setattr(keeping, "REST", 0.0)


class House:
    """A ledger and its keeping, under a clock that only the test moves. Machine time passes as the clock does."""

    def __init__(self, path: Path, keep: Keep = KEEP) -> None:
        self.path, self.keep = path, keep
        self.wall = 1_000 * DAY
        self.taps: dict[str, list[str]] = {}
        self.messages: dict[tuple[str, int], Message] = {}

    async def open(self) -> None:
        self.ledger = SqliteLedger(self.path, lambda: self.wall)
        self.ledger.start(lambda commit: None)
        keeps, audit = dict.fromkeys(CHANNELS, self.keep), 3000 * 86400.0
        self.keeping = Keeping(self.ledger, keeps, audit, lambda: self.wall, taps=self.taps)
        for book in self.ledger.channels.values():
            self._ready(book.courses)
        await self.settled()

    async def begin(self, routing: Routing = DIRECT, phase: str = "live") -> None:
        for name in CHANNELS:
            book = await self.ledger.switch(name, phase, routing, {}, who="test", why="first")
            book.rerouted()
            self._ready(book.courses)
        await self.settled()

    def _ready(self, courses: list[Course]) -> None:
        for course in courses:
            course.window = 8
            self.ledger.pause(course, False)

    async def settled(self) -> None:
        await self.ledger.transaction(lambda book: None)

    async def close(self) -> None:
        self.keeping.close()
        await self.ledger.close()

    async def pass_days(self, days: float) -> None:
        """The clock goes on, and so does the machine's."""
        await self.keeping.now()
        self.wall += int(days * DAY)
        self.keeping._since -= days * 86400.0
        await self.keeping.now()

    async def store(self, name: str, count: int = 1) -> None:
        for _ in range(count):
            message = Message(self.ledger.channels[name], b"MSH|^~\\&|" + b"x" * 500, self.wall, "C")
            self.ledger.store(message)
            await self.settled()
            self.messages[name, message.seq] = message

    async def settle(self, name: str, destination: str, seq: int, state: State) -> None:
        course = self.ledger.channels[name].course(destination)
        assert course is not None
        message = self.messages.get((name, seq))
        if message is None or message.channel is not course.channel:
            id = await self.ledger.read(lambda reader: reader.id_of(course.channel.id, seq))
            message = Message(course.channel, b"", 0)
            message.id, message.seq = id, seq
        if seq > course.frontier:
            course.ids[seq] = message.id
        self.ledger.settle(Settlement(course, message, state, self.wall, blocks=False))
        await self.settled()

    async def ask(self, sql: str) -> list[tuple[Any, ...]]:
        return await self.ledger.read(lambda reader: reader.connection.execute(sql).fetchall())

    async def left(self, name: str) -> tuple[set[int], set[int]]:
        """Numbers whose head is there, and those whose bytes are."""
        id = self.ledger.channels[name].id
        rows = await self.ask(f"select seq, length(raw) from message where channel = {id}")
        return {seq for seq, _ in rows}, {seq for seq, size in rows if size}

    async def assert_counted(self) -> None:
        books = list(self.ledger.channels.values())
        rows = await self.ledger.read(lambda reader: reader.balance(books))
        assert all(row["balanced"] for row in rows), rows
        assert await self.ledger.read(lambda reader: reader.rebuilt()) == []


def in_house(work: Callable[[House], Awaitable[None]], keep: Keep = KEEP) -> None:
    async def run() -> None:
        with tempfile.TemporaryDirectory() as folder:
            house = House(Path(folder) / "ledger.db", keep)
            await house.open()
            try:
                await work(house)
            finally:
                await house.close()

    asyncio.run(run())


TAPPED = replace(DIRECT, taps="forward")
TAKEN_OUT: dict[str, tuple[list[str], dict[str, int], bool, int]] = {
    "what is compared at its tap": (["clinic"], {"clinic": 3}, False, 0),
    "what is not compared yet": (["clinic"], {"clinic": 1}, False, 2),
    "a comparison that has not begun": (["clinic"], {}, False, 3),
    "the answers to the sender, which are compared as they come": (["clinic"], {"clinic": 3, "": 0}, False, 0),
    "a tap that was taken out": (["clinic"], {"clinic": 3, "gone": 1}, False, 0),
    "all taps were taken out": ([], {"gone": 1}, False, 0),
    "what an open discrepancy shows": (["clinic"], {"clinic": 3, "gone": 3}, True, 2),
    "what an open discrepancy of a channel without taps shows": ([], {"gone": 3}, True, 0),
}
"""The taps of the file, how far each has come, whether a discrepancy at the second number is open; how many stay."""


@pytest.mark.parametrize("case", TAKEN_OUT)
def test_only_what_a_tap_of_the_channels_file_still_needs_is_held_back(case: str) -> None:
    taps, marks, shown, stays = TAKEN_OUT[case]

    async def work(house: House) -> None:
        house.taps["north"] = taps
        await house.begin(TAPPED, "parallel")
        await house.store("north", 3)
        for seq in (1, 2, 3):
            for destination in ("emr", "medplum"):
                await house.settle("north", destination, seq, State.DELIVERED)
        id = house.ledger.channels["north"].id
        rows = [
            ("insert into compared values (?,?,0,0,0,0,?,0)", (id, tap, watermark)) for tap, watermark in marks.items()
        ]
        if shown:
            rows += [
                (
                    "insert into discrepancy values (1,?,'gone','OBX-5','transformation','clinical','open','x',1,1,1,1,"
                    "'','',null)",
                    (id,),
                ),
                ("insert into difference values (1,?,2,7,1)", (id,)),
            ]
        await house.ledger.transaction(lambda book: None, rows)
        await house.pass_days(30)
        await house.keeping.once()
        _, raws = await house.left("north")
        assert len(raws) == stays

    in_house(work)


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("store"), st.sampled_from(CHANNELS), st.integers(1, 4)),
        st.tuples(
            st.just("settle"),
            st.sampled_from(CHANNELS),
            st.sampled_from(("emr", "medplum")),
            st.sampled_from((State.DELIVERED, State.DELIVERED, State.REFUSED, State.DEAD, State.RETRYING)),
        ),
        st.tuples(st.just("all"), st.sampled_from(CHANNELS)),
        st.tuples(st.just("days"), st.sampled_from((1.0, 6.0, 12.0, 25.0))),
        st.tuples(st.just("legal"), st.sampled_from(CHANNELS)),
        st.tuples(st.just("epoch"), st.sampled_from(CHANNELS)),
        st.tuples(st.just("look")),
        st.tuples(st.just("reopen")),
    ),
    max_size=30,
)


class Model:
    """By the design: a state for each number and destination, when it came, and what must stay."""

    def __init__(self) -> None:
        self.came: dict[str, list[float]] = {name: [] for name in CHANNELS}
        self.states: dict[tuple[str, str, int], State] = {}
        self.legal: set[str] = set()
        self.today = 0.0

    def may_go(self, name: str, days: float) -> set[int]:
        gone = set()
        for seq, day in enumerate(self.came[name], 1):
            states = [self.states[name, where, seq] for where in ("emr", "medplum")]
            if name in self.legal or self.today - day < days or any(state < State.DELIVERED for state in states):
                break
            gone.add(seq)
        return gone


@settings(max_examples=40, deadline=None)
@given(STEPS)
def test_only_what_is_settled_old_and_free_goes_and_all_of_it_still_counts(steps: list[tuple[Any, ...]]) -> None:
    async def work(house: House) -> None:
        await house.begin()
        model = Model()
        gone: dict[str, tuple[set[int], set[int]]] = {name: (set(), set()) for name in CHANNELS}
        for step, *what in steps:
            await _step(house, model, step, what)
            for name in CHANNELS:
                numbers = set(range(1, len(model.came[name]) + 1))
                heads, raws = (numbers - left for left in await house.left(name))
                before = gone[name]
                assert heads - before[0] <= model.may_go(name, 20), "a head went that must stay"
                assert raws - before[1] <= model.may_go(name, 10), "bytes went that must stay"
                if step == "look":
                    assert heads >= model.may_go(name, 21), "a head stayed that may go"
                    assert raws >= model.may_go(name, 11), "bytes stayed that may go"
                gone[name] = (heads, raws)
            await house.assert_counted()

    in_house(work)


async def _step(house: House, model: Model, step: str, what: list[Any]) -> None:
    if step == "store":
        name, count = what
        await house.store(name, count)
        for _ in range(count):
            model.came[name].append(model.today)
            for where in ("emr", "medplum"):
                model.states[name, where, len(model.came[name])] = State.WAITING
    elif step == "settle":
        await _settle(house, model, *what)
    elif step == "all":
        for where in ("emr", "medplum"):
            while await _settle(house, model, what[0], where, State.DELIVERED):
                pass
    elif step == "days":
        await house.pass_days(what[0])
        model.today += what[0]
    elif step == "legal":
        (name,) = what
        model.legal ^= {name}
        kept = house.ledger.kept[house.ledger.channels[name].id]
        kept.legal = LegalHold("ops", "test", 1) if name in model.legal else None
    elif step == "epoch":
        await house.ledger.switch(what[0], "live", DIRECT, {}, who="test", why="again")
    elif step == "look":
        await house.keeping.once()
    else:
        await house.close()
        await house.open()
        for key, state in model.states.items():
            course = house.ledger.channels[key[0]].course(key[1])
            if course and (key[2], 1, 1) in course.open and state is State.WAITING:
                model.states[key] = State.UNKNOWN
        for name in model.legal:
            house.ledger.kept[house.ledger.channels[name].id].legal = LegalHold("ops", "test", 1)


async def _settle(house: House, model: Model, name: str, where: str, state: State) -> bool:
    """The next number that can be settled there; False where there is none."""
    course = house.ledger.channels[name].course(where)
    assert course is not None
    fresh = [seq for seq in range(course.frontier + 1, course.claim + 1) if seq not in course.done]
    opened = sorted(key[0] for key in course.open)
    if not fresh and (not opened or state < State.DELIVERED):
        return False
    seq = fresh[0] if fresh else opened[0]
    await house.settle(name, where, seq, state)
    model.states[name, where, seq] = state
    return True


async def settle_all(house: House, name: str) -> None:
    for where in ("emr", "medplum"):
        model = Model()
        while await _settle(house, model, name, where, State.DELIVERED):
            pass


def test_what_is_not_settled_at_one_destination_stays_whatever_its_age() -> None:
    async def work(house: House) -> None:
        await house.begin()
        await house.store("north", 3)
        for seq in (1, 2, 3):
            await house.settle("north", "emr", seq, State.DELIVERED)
        await house.settle("north", "medplum", 1, State.DELIVERED)
        await house.pass_days(25)
        await house.keeping.once()
        assert await house.left("north") == ({2, 3}, {2, 3})
        await house.assert_counted()

    in_house(work)


def test_what_is_gone_still_counts_and_numbers_go_on() -> None:
    async def work(house: House) -> None:
        await house.begin()
        await house.store("north", 3)
        await house.settle("north", "emr", 1, State.REFUSED)
        await settle_all(house, "north")
        await house.pass_days(25)
        await house.keeping.once()
        assert await house.left("north") == (set(), set())
        assert await house.ask("select count(*) from receipt") == [(0,)]
        await house.assert_counted()
        await house.close()
        await house.open()
        await house.assert_counted()
        await house.store("north", 1)
        message = house.messages["north", 4]
        assert (message.seq, message.id) == (4, 4)  # ids too are never given twice
        books = [house.ledger.channels["north"]]
        rows = await house.ledger.read(lambda reader: reader.balance(books))
        told = {row["destination"]: row["states"] for row in rows}
        assert told["emr"] == {"delivered": 2, "refused": 1, "sending": 1}

    in_house(work)


def test_a_legal_hold_and_a_dead_message_are_what_the_plan_says_holds_back() -> None:
    async def work(house: House) -> None:
        await house.begin()
        await house.store("north", 3)
        await house.store("south", 3)
        await settle_all(house, "south")
        for seq in (1, 2, 3):
            await house.settle("north", "emr", seq, State.DEAD if seq == 2 else State.DELIVERED)
            await house.settle("north", "medplum", seq, State.DELIVERED)
        house.ledger.kept[house.ledger.channels["south"].id].legal = LegalHold("ops", "case 12", 1)
        await house.pass_days(12)
        plan = {(row["channel"], row["kind"]): row for row in await house.keeping.plan()}
        assert plan["north", RAW]["rows"] == 1
        assert plan["north", RAW]["held_by"] == "2 is dead at emr"
        assert plan["south", RAW]["rows"] == 0
        assert plan["south", EVENTS]["held_by"] == "legal hold by ops: case 12"
        assert 400 < plan["north", RAW]["bytes"] < 700
        await house.keeping.once()
        assert (await house.left("north"))[1] == {2, 3}
        assert (await house.left("south"))[1] == {1, 2, 3}

    in_house(work)


def test_what_a_rollback_could_still_need_stays_until_its_time_is_over() -> None:
    async def work(house: House) -> None:
        old = Routing((Route(LEGACY, "legacy", Mode.SEND, "channel"),))
        await house.begin(old, "legacy")
        book = house.ledger.channels["north"]
        now_live = Routing((Route(LEGACY, "legacy", Mode.DEFER, "channel"), *DIRECT.routes))
        await house.ledger.switch("north", "live", now_live, {}, who="test", why="cutover")
        house._ready(book.courses)
        evidence = json.dumps({"rollback_until": house.wall + 30 * DAY})
        book.epochs[-1] = replace(book.epochs[-1], evidence=evidence)
        await house.store("north", 2)
        await settle_all(house, "north")
        await house.pass_days(25)
        await house.keeping.once()
        assert await house.left("north") == ({1, 2}, {1, 2})
        await house.pass_days(10)
        await house.keeping.once()
        assert await house.left("north") == ({1, 2}, set())  # heads: the channel is not signed off
        await house.assert_counted()

    in_house(work)


def test_a_clock_that_jumps_a_year_ahead_removes_nothing() -> None:
    async def work(house: House) -> None:
        await house.begin()
        await house.store("north", 3)
        await settle_all(house, "north")
        await house.keeping.now()
        house.wall += 365 * DAY
        await house.keeping.once()
        assert await house.left("north") == ({1, 2, 3}, {1, 2, 3})
        await house.close()
        await house.open()  # and not after a restart either
        await house.keeping.once()
        assert await house.left("north") == ({1, 2, 3}, {1, 2, 3})

    in_house(work)


def test_a_clock_that_goes_back_keeps_everything_longer_and_no_number_twice() -> None:
    async def work(house: House) -> None:
        await house.begin()
        await house.store("north", 2)
        await settle_all(house, "north")
        await house.keeping.now()
        house.wall -= 3650 * DAY
        await house.store("north", 2)
        await settle_all(house, "north")
        await house.keeping.once()
        assert (await house.left("north"))[0] == {1, 2, 3, 4}
        house.wall += 3650 * DAY
        await house.pass_days(12)
        await house.keeping.once()
        assert await house.left("north") == ({1, 2, 3, 4}, set())
        await house.assert_counted()

    in_house(work)


@given(st.integers(0, 10**16), st.integers(0, 10**16), st.floats(0, 10**7))
def test_time_is_never_believed_to_go_faster_than_twice_the_machines(wall: int, last: int, elapsed: float) -> None:
    now = believed(wall, last, elapsed)
    assert last <= now <= max(last, wall)
    assert now <= last + elapsed * 2e6 + 1


def test_what_came_in_between_holds_its_channel_back_in_the_transaction_itself() -> None:
    async def work(house: House) -> None:
        await house.begin()
        await house.store("north", 2)
        await settle_all(house, "north")
        await house.pass_days(12)
        remove, channel = house.keeping._remove, house.ledger.channels["north"]

        async def held_first(*what: Any) -> Any:
            house.ledger.kept[channel.id].legal = LegalHold("ops", "just now", 1)
            return await remove(*what)

        house.keeping._remove = held_first  # type: ignore[method-assign]
        await house.keeping.once()
        assert (await house.left("north"))[1] == {1, 2}

    in_house(work)


def test_it_can_be_asked_when_and_by_which_rule_bytes_went() -> None:
    async def work(house: House) -> None:
        await house.begin()
        await house.store("north", 3)
        await settle_all(house, "north")
        await house.pass_days(12)
        await house.keeping.once()
        id = house.ledger.channels["north"].id
        ((kind, at, rule),) = await house.ledger.read(lambda reader: retention.told(reader.connection, id, 2))
        assert (kind, rule) == (RAW, "raw is kept for 10 days")
        assert at == house.keeping._believed
        assert house.ledger.kept[id].bytes_gone(3)
        assert not house.ledger.kept[id].bytes_gone(4)

    in_house(work)


def test_the_file_gives_its_space_back() -> None:
    async def work(house: House) -> None:
        await house.begin()
        for _ in range(40):
            messages = [Message(house.ledger.channels["north"], b"x" * 20_000, house.wall, "C") for _ in range(20)]
            for message in messages:
                house.ledger.store(message)
            await house.settled()
            await settle_all(house, "north")
        pages = (await house.ask("pragma page_count"))[0][0]
        await house.pass_days(12)
        done = await house.keeping.once()
        assert done.pages
        assert (await house.ask("pragma page_count"))[0][0] < pages / 3
        await house.assert_counted()

    in_house(work)


def test_evidence_goes_by_its_own_age_and_what_live_would_refuse_stays_until_it_is_decided() -> None:
    async def work(house: House) -> None:
        await house.begin(phase="parallel")
        book = house.ledger.channels["north"]
        for kind in ("noise", "would_refuse"):
            house.ledger.event(IntakeEvent(book, kind, "test", house.wall, "p:1", 1, b"bytes", 5))
        await house.settled()
        await house.pass_days(12)
        await house.keeping.once()
        assert await house.ask("select kind from intake_event") == [("would_refuse",)]

    in_house(work)


def test_large_messages_go_with_their_pieces() -> None:
    async def work(house: House) -> None:
        await house.begin()
        message = Message(house.ledger.channels["north"], b"x" * (5 << 20), house.wall, "C")
        await house.ledger.lay_down(message)
        house.ledger.store(message)
        await house.settled()
        await settle_all(house, "north")
        await house.pass_days(12)
        await house.keeping.once()
        assert await house.ask("select count(*) from piece") == [(0,)]
        assert await house.ask("select count(*) from large") == [(0,)]

    in_house(work)


def test_the_audit_chain_is_whole_behind_what_was_removed_of_it() -> None:
    async def work(house: House) -> None:
        from engine.ledger.audit import Entry
        from engine.ledger.sqlite import journal

        await house.begin()
        house.keeping._audit = 10 * 86400.0
        for n in range(5):
            await house.ledger.transaction(lambda book, n=n: book.audit(Entry(n, "ops", "test", "note", "x", "y")))
        await house.pass_days(12)
        await house.ledger.transaction(lambda book: book.audit(Entry(9, "ops", "test", "note", "x", "y")))
        await house.keeping.once()
        assert (await house.ask("select count(*) from audit"))[0][0] == 1
        rows, _, problems = await house.ledger.read(lambda reader: journal.verify_audit(reader.connection))
        assert (rows, problems) == (6, [])

    in_house(work)


def test_a_mapping_goes_when_the_bytes_of_all_that_it_may_have_made_have_gone() -> None:
    async def work(house: House) -> None:
        for version in ("one", "two"):
            made = KeptMapping(version, b"{}", {part_hash(version.encode()): version.encode()})
            await house.ledger.keep_mappings([version], {version: made}.__getitem__)
            await house.begin(Routing((replace(DIRECT.routes[0], mapping=version), DIRECT.routes[1])))
            await house.store("north", 2)
            await settle_all(house, "north")
        await house.close()
        await house.open()
        await house.keeping.once()
        assert house.ledger.mappings == {"one", "two"}
        await house.pass_days(12)
        await house.keeping.once()
        assert await house.ask("select version, parts from mapping") == [("two", f'["{part_hash(b"two")}"]')]

    in_house(work)

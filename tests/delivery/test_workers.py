"""Worker processes: what intake hears of its messages, whatever becomes of the process that has them."""

from __future__ import annotations

import asyncio
import fcntl
import marshal
import os
import pickle
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.delivery.attempt import Attempt, outcome_of, values
from engine.delivery.workers import pool
from engine.delivery.workers.lock import DeliveryLock
from engine.delivery.workers.pool import RemoteCarrier, Workers
from engine.delivery.workers.wire import Wire
from engine.ledger.gaps import Code, Gaps
from engine.ledger.outcome import Outcome, Result
from engine.observe.service_events import FAULTS
from engine.observe.worker_events import CPU, ENDED, MEMORY, UP
from tests.support.house import until
from tests.support.processes import ROOT

STUB = "tests.support.stub_worker"


@pytest.fixture(autouse=True)
def _stub_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))  # a worker takes no module from the folder that it is started in


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: st.tuples(inner, inner),
)


def attempt(raw: bytes, seq: int = 1) -> Attempt:
    return Attempt("acme", seq, raw, 0, "i", f"i/acme/{seq}")


def of_patient(name: str) -> bytes:
    return f"deliver MSH|^~\\&|\rPID|1||{name}^^^A".encode()


class Heard:
    """The outcome of one attempt."""

    def __init__(self, carrier: RemoteCarrier, raw: bytes) -> None:
        self.outcomes: list[Outcome] = []
        carrier.carry(attempt(raw), self.outcomes.append)

    async def outcome(self) -> Outcome:
        await until(lambda: self.outcomes)
        assert len(self.outcomes) == 1
        return self.outcomes[0]


@asynccontextmanager
async def hired(folder: Path, count: int = 1, setup: Any = None, module: str = STUB) -> AsyncIterator[Workers]:
    lock = DeliveryLock(folder / "interlock.db")
    workers = Workers(count, module, pickle.dumps(setup), lock)
    workers.start()
    try:
        yield workers
    finally:
        async with asyncio.timeout(20):
            await workers.close()
        lock.release()


@given(batches=st.lists(st.lists(PLAIN.map(lambda each: (each,)), max_size=4), max_size=4), cuts=st.data())
def test_what_is_sent_arrives_as_it_was_however_it_is_cut(batches: list[list[tuple[Any]]], cuts: st.DataObject) -> None:
    class Kept:
        data = b""

        def write(self, data: bytes) -> None:
            self.data += data

        def is_closing(self) -> bool:
            return False

    heard: list[tuple[Any, ...]] = []
    kept: Any = Kept()

    async def send() -> None:
        wire = Wire(heard.append, lambda: None)
        wire.connection_made(kept)
        for batch in batches:
            for each in batch:
                wire.send(each)
            await asyncio.sleep(0)

    asyncio.run(send())
    other, data = Wire(heard.append, lambda: None), kept.data
    while data:
        size = cuts.draw(st.integers(1, len(data)))
        other.data_received(data[:size])
        data = data[size:]
    assert heard == [each for batch in batches for each in batch]


GAPS = st.builds(
    Gaps,
    st.lists(st.builds(Code, *[st.text()] * 4)).map(tuple),
    st.lists(st.tuples(st.text(), st.integers(1, 1 << 60))).map(tuple),
)


@given(
    st.builds(
        Outcome, st.sampled_from(Result), st.text(), st.none() | st.binary(), st.none() | st.floats(0, 1e6),
        st.integers(0), st.booleans(), st.booleans(), st.booleans(), st.booleans(), st.none() | GAPS,
    )
)  # fmt: skip
def test_an_outcome_is_the_same_in_both_processes(outcome: Outcome) -> None:
    assert outcome_of(marshal.loads(marshal.dumps(values(outcome)))) == outcome


async def test_a_message_goes_to_a_worker_and_its_outcome_comes_back(tmp_path: Path) -> None:
    async with hired(tmp_path) as workers:
        found = await Heard(workers.carrier("medplum"), b"deliver me").outcome()
        assert (found.result, found.answer, found.points) == (Result.DELIVERED, b"deliver me", 10)
        assert found.reason != f"by {os.getpid()}"
        assert await workers.carrier("other").reach() == (True, f"other {found.reason}")
        assert workers.told == {"1": ""}
        assert UP.of("1").n == 1


async def test_large_messages_and_many_come_through(tmp_path: Path) -> None:
    async with hired(tmp_path) as workers:
        carrier = workers.carrier("medplum")
        large = b"d" + bytes(8_000_000)
        heard = [Heard(carrier, large), *(Heard(carrier, b"d%d" % n) for n in range(2000))]
        assert [(await each.outcome()).answer for each in heard] == [large, *(b"d%d" % n for n in range(2000))]


async def test_all_of_a_patient_goes_to_one_worker_and_patients_are_spread(tmp_path: Path) -> None:
    async with hired(tmp_path, 3) as workers:
        carrier = workers.carrier("medplum")
        by: dict[str, set[str]] = {}
        for name in [f"P{n}" for n in range(30)] * 2:
            by.setdefault(name, set()).add((await Heard(carrier, of_patient(name)).outcome()).reason)
        assert {len(found) for found in by.values()} == {1}
        assert len(set.union(*by.values())) == 3


async def test_what_was_on_its_way_when_a_worker_ends_is_unknown_and_the_rest_goes_to_the_next_one(
    tmp_path: Path,
) -> None:
    ends = ENDED.of("1").n
    async with hired(tmp_path) as workers:
        carrier = workers.carrier("medplum")
        first = await Heard(carrier, b"deliver").outcome()
        kept, fatal = Heard(carrier, b"keep"), Heard(carrier, b"x")
        for each in (kept, fatal):
            outcome = await each.outcome()
            assert (outcome.result, outcome.local) == (Result.UNKNOWN, True)
            assert outcome.reason == "its worker process ended"
        assert workers.told == {"1": "it ended with status 3"}
        assert await carrier.reach() == (False, "worker 1: it ended with status 3")
        later = await Heard(carrier, b"deliver").outcome()
        assert later.result is Result.DELIVERED
        assert later.reason != first.reason
        assert ENDED.of("1").n == ends + 1


async def test_a_worker_that_does_not_come_back_gives_back_what_waits_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "PATIENCE", 0.1)
    async with hired(tmp_path, module="no.such.module") as workers:
        outcome = await Heard(workers.carrier("medplum"), b"deliver").outcome()
        assert (outcome.result, outcome.local) == (Result.NOT_TAKEN, True)
        await until(lambda: workers.told == {"1": "it ended with status 1"})


@pytest.mark.parametrize("turns", range(12))
async def test_workers_can_be_ended_at_any_moment_of_their_start(tmp_path: Path, turns: int) -> None:
    async with hired(tmp_path, 2, "beats"):
        for _ in range(turns):
            await asyncio.sleep(0.0 if turns < 6 else 0.02 * (turns - 5))
    again = DeliveryLock(tmp_path / "interlock.db")
    assert again.held
    again.release()


async def test_a_worker_that_hangs_is_ended_and_started_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "SILENT", 1.0)
    monkeypatch.setattr(pool, "LOOK", 0.1)
    async with hired(tmp_path) as workers:
        carrier = workers.carrier("medplum")
        assert (await Heard(carrier, b"h").outcome()).result is Result.UNKNOWN
        assert (await Heard(carrier, b"deliver").outcome()).result is Result.DELIVERED


async def test_what_waits_is_recalled_as_not_taken(tmp_path: Path) -> None:
    async with hired(tmp_path) as workers:
        carrier = workers.carrier("medplum")
        early = Heard(carrier, b"keep")  # no process is there yet
        carrier.recall()
        await Heard(carrier, b"deliver").outcome()
        late = Heard(carrier, b"keep")
        carrier.recall()
        for each in (early, late):
            outcome = await each.outcome()
            assert (outcome.result, outcome.local) == (Result.NOT_TAKEN, True)


async def test_what_a_worker_reports_is_counted_here(tmp_path: Path) -> None:
    before = FAULTS.of().n
    async with hired(tmp_path, setup="beats") as workers:
        await Heard(workers.carrier("medplum"), b"deliver").outcome()
        assert FAULTS.of().n == before + 1
        assert (CPU.of("1").n, MEMORY.of("1").n) == (1.5, 4096)


async def test_the_lock_is_held_until_the_last_worker_has_ended(tmp_path: Path) -> None:
    lock = DeliveryLock(tmp_path / "interlock.db")
    assert lock.held
    workers = Workers(1, STUB, pickle.dumps(None), lock)
    workers.start()
    found = await Heard(workers.carrier("medplum"), b"deliver").outcome()
    lock.release()  # as the end of our process would
    next_one = DeliveryLock(tmp_path / "interlock.db")
    assert not next_one.held
    os.kill(int(found.reason.removeprefix("by ")), 9)
    async with asyncio.timeout(5):
        await next_one.acquire()
    for task in workers._tasks:
        task.cancel()
    next_one.release()


def test_two_processes_never_have_the_lock(tmp_path: Path) -> None:
    first, second = DeliveryLock(tmp_path / "a.db"), DeliveryLock(tmp_path / "a.db")
    assert (first.held, second.held) == (True, False)
    first.release()
    fcntl.flock(second, fcntl.LOCK_EX | fcntl.LOCK_NB)
    second.release()

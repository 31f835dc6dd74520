"""Unmapped codes and lost values: counted once, bounded, written behind everything else, never lost by a failure."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from engine.ledger import gaps as bounds
from engine.ledger.gaps import Code, Gaps, Noted, cut, was_cut
from engine.ledger.routing import Mode, Route, Routing
from engine.ledger.sqlite import backup, gaps, noting, restoring
from engine.ledger.sqlite.gaps import Wanted
from engine.ledger.sqlite.ledger import SqliteLedger
from engine.ledger.sqlite.loading import LedgerError
from engine.observe import events
from engine.observe.gap_events import LOST, UNMAPPED
from tests.support.house import until

ROUTING = Routing((Route("medplum", "medplum", Mode.SEND, "patient"),))
WBC = Code("LabTests", "OBX-3", "L", "WBC")
RBC = Code("LabTests", "OBX-3", "L", "RBC")
SEX = Code("Genders", "PID-8", "", "Z")


class Told:
    """In the place of the log."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def write(self, event: events.Event) -> None:
        self.names.append(event.name())


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Told:
    found = Told()
    monkeypatch.setattr(events, "LOG", found)
    return found


async def opened(path: Path) -> SqliteLedger:
    ledger = SqliteLedger(path, Clock())
    ledger.start(lambda commit: None)
    for name in ("north", "south"):
        if name not in ledger.channels:
            await ledger.switch(name, "live", ROUTING, {}, who="test", why="first")
    return ledger


class Clock:
    def __init__(self) -> None:
        self.now = 1_700_000_000_000_000

    def __call__(self) -> int:
        self.now += 1
        return self.now


@pytest.fixture
async def ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[SqliteLedger]:
    monkeypatch.setattr(noting, "LINGER", 0.01)
    monkeypatch.setattr(noting, "AGAIN_AFTER", 0.01)
    ledger = await opened(tmp_path / "ledger.db")
    yield ledger
    await ledger.close()


def note(ledger: SqliteLedger, seq: int, *codes: Code, channel: str = "north", **more: Any) -> None:
    given = {"counts": True, "fresh": True, "lost": ()} | more
    found = Gaps(codes, tuple(given.pop("lost")))
    ledger.note(ledger.channels[channel], seq, found, **given)


async def rows(ledger: SqliteLedger, **wanted: Any) -> dict[str, tuple[int, int, int, str]]:
    """Code → count, first and last message, state."""
    async with ledger.noting.settled():
        found, _ = await ledger.read(lambda reader: gaps.codes(reader.connection, Wanted(**wanted), 1000))
    return {row.code: (row.count, row.first_seq, row.last_seq, row.state) for row in found}


async def sums(ledger: SqliteLedger, query: Any) -> dict[str, tuple[int, int]]:
    async with ledger.noting.settled():
        found = await ledger.read(lambda reader: query(reader.connection))
    return {each.field: (each.count, each.last_seq) for each in found}


async def decide(ledger: SqliteLedger, code: Code, state: str) -> None:
    async with ledger.noting.settled():
        found, _ = await ledger.read(lambda reader: gaps.codes(reader.connection, Wanted(code=code.code), 10))
        (row,) = found
        await ledger.transaction(lambda book: book.put("decide_unmapped", state, "lab", "", "ann", 1, row.id))
        await ledger.noting.count()


# -- what is counted


async def test_a_code_counts_once_for_each_message_and_knows_its_first_and_last(ledger: SqliteLedger) -> None:
    note(ledger, 3, WBC, RBC)
    note(ledger, 5, WBC)
    assert await rows(ledger) == {"WBC": (2, 3, 5, "open"), "RBC": (1, 3, 3, "open")}
    note(ledger, 9, WBC)
    assert (await rows(ledger))["WBC"] == (3, 3, 9, "open")


async def test_another_attempt_or_a_replay_does_not_count_again(ledger: SqliteLedger) -> None:
    note(ledger, 3, WBC, lost=[("PID-12", 2)])
    note(ledger, 3, WBC, lost=[("PID-12", 2)], counts=False)
    assert await rows(ledger) == {"WBC": (1, 3, 3, "open")}
    assert await sums(ledger, gaps.fields) == {"PID-12": (2, 3)}


async def test_a_code_that_only_a_replay_shows_is_one_of_one_message(ledger: SqliteLedger) -> None:
    note(ledger, 3, WBC, counts=False)
    assert await rows(ledger) == {"WBC": (1, 3, 3, "open")}


async def test_the_same_code_is_another_one_in_another_channel_table_field_or_system(ledger: SqliteLedger) -> None:
    note(ledger, 1, WBC, WBC._replace(table="T"), WBC._replace(field="OBR-4"), WBC._replace(system="99LAB"))
    note(ledger, 1, WBC, channel="south")
    async with ledger.noting.settled():
        found, total = await ledger.read(lambda reader: gaps.codes(reader.connection, Wanted(code="WBC"), 3))
    assert (len(found), total) == (3, 5)


async def test_values_of_a_field_are_summed_and_what_is_no_field_is_other(ledger: SqliteLedger) -> None:
    before = LOST.of("north", "PV1-44").n
    note(ledger, 1, lost=[("PV1-44", 2), ("ZPI-3", 1), ("DOE^JOHN", 1)])
    note(ledger, 2, lost=[("PV1-44", 1)])
    assert await sums(ledger, gaps.fields) == {"PV1-44": (3, 2), "ZPI-3": (1, 1), "other": (1, 1)}
    assert LOST.of("north", "PV1-44").n == before + 3
    assert ("north", "DOE^JOHN") not in LOST.cells


async def test_what_is_open_is_a_gauge_and_what_is_decided_is_not(ledger: SqliteLedger) -> None:
    note(ledger, 1, WBC, RBC, SEX)
    await rows(ledger)
    assert (UNMAPPED.of("north", "LabTests").n, UNMAPPED.of("north", "Genders").n) == (2, 1)
    await decide(ledger, WBC, "as-is")
    await decide(ledger, SEX, "asked")
    assert (UNMAPPED.of("north", "LabTests").n, UNMAPPED.of("north", "Genders").n) == (1, 0)
    assert ledger.noting.open == {("north", "LabTests"): 1}


# -- what people said


@pytest.mark.parametrize(("state", "then"), [("mapped", "open"), ("asked", "asked"), ("as-is", "as-is")])
async def test_only_what_is_called_mapped_is_open_again_when_it_is_seen(
    ledger: SqliteLedger, told: Told, state: str, then: str
) -> None:
    note(ledger, 1, WBC)
    await decide(ledger, WBC, state)
    note(ledger, 2, WBC)
    assert await rows(ledger) == {"WBC": (2, 1, 2, then)}
    assert ("mapping_missed" in told.names) == (state == "mapped")
    assert UNMAPPED.of("north", "LabTests").n == (1 if then == "open" else 0)


async def test_an_earlier_mapping_says_nothing_of_the_present_one(ledger: SqliteLedger) -> None:
    note(ledger, 1, WBC)
    await decide(ledger, WBC, "mapped")
    note(ledger, 1, WBC, counts=False, fresh=False)
    assert await rows(ledger) == {"WBC": (1, 1, 1, "mapped")}


async def test_what_was_noted_before_a_decision_does_not_undo_it(
    ledger: SqliteLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    note(ledger, 1, WBC)
    await rows(ledger)
    monkeypatch.setattr(noting, "LINGER", 60.0)
    note(ledger, 2, WBC)
    await decide(ledger, WBC, "mapped")
    assert await rows(ledger) == {"WBC": (2, 1, 2, "mapped")}


async def test_codes_are_found_by_what_is_said_of_them_most_often_seen_first(ledger: SqliteLedger) -> None:
    note(ledger, 1, WBC, RBC, SEX)
    note(ledger, 2, RBC)
    await decide(ledger, SEX, "asked")
    assert list(await rows(ledger)) == ["RBC", "Z", "WBC"]  # then by table
    assert list(await rows(ledger, table="LabTests")) == ["RBC", "WBC"]
    assert list(await rows(ledger, state="asked")) == ["Z"]
    assert list(await rows(ledger, owner="lab")) == ["Z"]
    assert list(await rows(ledger, code="Z", system="")) == ["Z"]
    assert list(await rows(ledger, system="99LAB")) == []
    assert list(await rows(ledger, channels=[ledger.channels["south"].id])) == []
    assert list(await rows(ledger, channels=[])) == []


# -- bounds


async def test_free_text_in_a_coded_field_does_not_fill_the_disk(
    ledger: SqliteLedger, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(noting, "MOST_CODES", 3)
    for seq in range(1, 8):
        note(ledger, seq, WBC._replace(code=f"text {seq}"))
    note(ledger, 8, WBC, channel="south")
    assert await rows(ledger) == {
        "text 1": (1, 1, 1, "open"), "text 2": (1, 2, 2, "open"), "text 3": (1, 3, 3, "open"), "WBC": (1, 8, 8, "open"),
    }  # fmt: skip
    note(ledger, 9, WBC._replace(code="text 2"), WBC._replace(code="text 9"))
    assert (await rows(ledger))["text 2"] == (2, 2, 9, "open")
    assert await sums(ledger, gaps.more) == {"": (5, 9)}
    assert told.names.count("codes_full") == 1


async def test_what_waits_to_be_written_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "MOST_PENDING", 2)
    noted = Noted()
    for seq in range(1, 5):
        noted.note(1, seq, Gaps((WBC._replace(code=str(seq)), WBC)), seq)
    assert [code.code for _, code in noted.codes] == ["1", "WBC"]
    assert (noted.codes[1, WBC].count, noted.more[1].count) == (4, 3)


@pytest.mark.parametrize("between", [False, True])
async def test_messages_that_settle_out_of_order_leave_the_lowest_and_the_highest(
    ledger: SqliteLedger, between: bool
) -> None:
    for seq in (2, 3, 1):
        note(ledger, seq, WBC)
        if between:
            await rows(ledger)  # written each by itself
    assert await rows(ledger) == {WBC.code: (3, 1, 3, "open")}


async def test_fields_are_bounded_too(ledger: SqliteLedger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(noting, "MOST_FIELDS", 2)
    note(ledger, 1, lost=[("ZAA-1", 1), ("ZAA-2", 1), ("ZAA-3", 1), ("ZAA-4", 2)])
    note(ledger, 2, lost=[("ZAA-2", 1), ("ZAA-3", 1)])
    assert await sums(ledger, gaps.fields) == {"other": (4, 2), "ZAA-2": (2, 2), "ZAA-1": (1, 1)}


async def test_many_codes_are_few_transactions(ledger: SqliteLedger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(noting, "LINGER", 0.05)
    written: list[int] = []
    put = noting._put
    monkeypatch.setattr(noting, "_put", lambda book, noted: (written.append(len(noted.codes)), put(book, noted)))
    monkeypatch.setattr(noting, "AT_ONCE", 100)
    for seq in range(1, 251):
        note(ledger, seq, WBC._replace(code=str(seq)), RBC)
    await until(lambda: sum(written) == 251)
    assert written == [100, 100, 51]
    assert len(await rows(ledger)) == 251


async def test_who_decides_does_not_wait_for_what_goes_on(
    ledger: SqliteLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    put, seqs = noting._put, iter(range(2, 1000))

    def going_on(book: Any, noted: Noted) -> None:
        put(book, noted)
        note(ledger, next(seqs), WBC)

    monkeypatch.setattr(noting, "_put", going_on)
    note(ledger, 1, WBC)
    async with asyncio.timeout(5), ledger.noting.settled():
        assert ledger.noting._noted


def test_a_long_code_is_cut_and_says_so() -> None:
    assert cut("x" * 200) == "x" * 200
    assert (len(cut("x" * 201)), was_cut(cut("x" * 201)), was_cut("x" * 200)) == (200, True, False)
    noted = Noted()
    noted.note(1, 1, Gaps((WBC._replace(code="y" * 1000, system="\ud800"),)), 1)
    ((_, code),) = noted.codes
    assert (len(code.code), code.system) == (200, "?")


# -- trouble


async def test_what_cannot_be_written_is_kept_and_nobody_waits_for_it(
    ledger: SqliteLedger, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    put, full = noting._put, [True]

    def failing(book: Any, noted: Noted) -> None:
        if full[0]:
            raise sqlite3.OperationalError("database or disk is full")
        put(book, noted)

    monkeypatch.setattr(noting, "_put", failing)
    note(ledger, 1, WBC, lost=[("PID-12", 1)])
    await until(lambda: "gaps_wait" in told.names)
    assert ledger.unwritable is None
    with pytest.raises(LedgerError):
        async with ledger.noting.settled():
            pass
    note(ledger, 2, WBC, RBC, lost=[("PID-12", 1)])
    full[0] = False
    assert await rows(ledger) == {"WBC": (2, 1, 2, "open"), "RBC": (1, 2, 2, "open")}
    assert await sums(ledger, gaps.fields) == {"PID-12": (2, 2)}


async def test_the_end_writes_what_was_noted_and_a_new_process_knows_it(tmp_path: Path) -> None:
    for seq in (1, 2):
        ledger = await opened(tmp_path / "ledger.db")
        note(ledger, seq, WBC, lost=[("PID-12", 1)])
        await ledger.close()
    UNMAPPED.of("north", "LabTests").n = 0
    ledger = await opened(tmp_path / "ledger.db")
    try:
        assert ledger.noting.open == {("north", "LabTests"): 1}
        assert UNMAPPED.of("north", "LabTests").n == 1
        assert await rows(ledger) == {"WBC": (2, 1, 2, "open")}
    finally:
        await ledger.close()


async def test_the_end_does_not_wait_for_a_ledger_that_is_dead(
    ledger: SqliteLedger, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(noting, "PATIENCE", 0.05)

    async def never(*_: Any, **__: Any) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(ledger, "transaction", never)
    note(ledger, 1, WBC)
    await ledger.noting.close()
    assert "gaps_wait" in told.names


async def test_a_restored_ledger_has_the_lists(tmp_path: Path) -> None:
    ledger = await opened(tmp_path / "ledger.db")
    note(ledger, 1, WBC, lost=[("PID-12", 1)])
    await rows(ledger)
    await decide(ledger, WBC, "asked")
    await asyncio.to_thread(backup.backup, ledger.path, tmp_path / "copy.db", lambda: 1)
    await ledger.close()
    restoring.restore(tmp_path / "copy.db", tmp_path / "other.db", 2, "ann", "lost")
    ledger = await opened(tmp_path / "other.db")
    try:
        assert await rows(ledger) == {"WBC": (1, 1, 1, "asked")}
        assert await sums(ledger, gaps.fields) == {"PID-12": (1, 1)}
    finally:
        await ledger.close()


def test_no_code_is_in_an_event_or_a_metric(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async def life() -> None:
        ledger = await opened(tmp_path / "ledger.db")
        note(ledger, 1, WBC._replace(code="CANARY", system="CANARY"))
        await rows(ledger)
        await ledger.close()

    events.LOG.flush()
    capsys.readouterr()  # what others have said before
    asyncio.run(life())
    events.LOG.flush()
    said = capsys.readouterr().err
    assert "CANARY" not in said
    (line,) = [json.loads(line) for line in said.splitlines() if "code_unmapped" in line]
    assert (line["channel"], line["table"], line["seq"]) == ("north", "LabTests", 1)
    assert not any("CANARY" in label for values in UNMAPPED.cells for label in values)
    with closing(sqlite3.connect(tmp_path / "ledger.db")) as connection:
        assert connection.execute("select code from unmapped").fetchall() == [("CANARY",)]

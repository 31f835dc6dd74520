"""What outputs were made by is kept whole, each part once, for as long as a message may need it; and every receipt and
open part says by which."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.ledger.course import ChannelBook
from engine.ledger.keeping import RAW, Kept, needed
from engine.ledger.model import Message, Settlement, State
from engine.ledger.routing import Epoch, Mode, Route, Routing
from engine.ledger.sqlite import backup, later, mappings, restoring
from engine.ledger.sqlite.backup import BackupError
from engine.ledger.sqlite.ledger import SqliteLedger
from engine.ledger.sqlite.mappings import KeptMapping, part_hash

NOW = 1_700_000_000_000_000
SHARED, OWN, OTHER = b"files" * 100, b"table of one", b"table of another"


def kept(version: str, *parts: bytes) -> KeptMapping:
    return KeptMapping(version, version.encode(), {part_hash(part): part for part in parts})


BY_VERSION = {one.version: one for one in (kept("v1", SHARED, OWN), kept("v2", SHARED, OTHER))}


def routing(version: str | None) -> Routing:
    return Routing((Route("emr", "mllp", Mode.SEND, "channel", version),))


@pytest.fixture
async def ledger(tmp_path: Path) -> AsyncIterator[SqliteLedger]:
    ledger = SqliteLedger(tmp_path / "ledger.db", lambda: NOW)
    ledger.start(lambda commit: None)
    await ledger.keep_mappings(BY_VERSION, BY_VERSION.__getitem__)
    yield ledger
    await ledger.close()


async def opened(ledger: SqliteLedger, version: str | None) -> ChannelBook:
    book = await ledger.switch("acme", "live", routing(version), {}, who="test", why="first")
    ledger.pause(book.courses[0], False)
    return book


async def stored(ledger: SqliteLedger, book: ChannelBook) -> Message:
    message = Message(book, b"MSH|", NOW)
    ledger.store(message)
    await ledger.transaction(lambda book: None)
    return message


async def settle(ledger: SqliteLedger, message: Message, state: State, **more: Any) -> None:
    ledger.settle(Settlement(message.channel.courses[0], message, state, NOW, **more))
    await ledger.transaction(lambda book: None)


async def asked(ledger: SqliteLedger, sql: str) -> list[tuple[Any, ...]]:
    return await ledger.read(lambda reader: reader.connection.execute(sql).fetchall())


class TestKept:
    async def test_a_version_comes_back_as_it_was_in_any_process(self, ledger: SqliteLedger):
        for version, one in BY_VERSION.items():
            assert await asyncio.to_thread(mappings.read_from, ledger.path, version) == one
        assert mappings.read_from(ledger.path, "v3") is None

    async def test_what_versions_share_is_kept_once(self, ledger: SqliteLedger):
        assert await asked(ledger, "select count(*) from mapping_part") == [(3,)]

    async def test_what_is_kept_is_not_made_again(self, ledger: SqliteLedger):
        made: list[str] = []
        await ledger.keep_mappings(["v1", "v3"], lambda version: (made.append(version), kept(version, OWN))[1])
        assert made == ["v3"]
        assert ledger.mappings == {"v1", "v2", "v3"}

    async def test_it_is_there_after_a_start(self, ledger: SqliteLedger, tmp_path: Path):
        await ledger.close()
        again = SqliteLedger(tmp_path / "ledger.db", lambda: NOW)
        assert again.mappings == {"v1", "v2"}
        await again.close()

    @pytest.mark.parametrize(
        ("damage", "said"),
        [
            ("delete from mapping_part", "is not there"),
            (
                "update mapping_part set content = (select content from mapping_part order by hash desc)",
                "is another one",
            ),
            ("update mapping_part set content = x'00'", "is another one"),
        ],
    )
    async def test_a_count_again_finds_what_is_not_whole(self, ledger: SqliteLedger, damage: str, said: str):
        assert await ledger.read(lambda reader: reader.rebuilt()) == []
        await ledger.transaction(lambda book: None, [(damage, ())])
        found = await ledger.read(lambda reader: reader.rebuilt())
        assert found
        assert all(text.endswith(said) for text in found), found

    async def test_a_backup_has_it_and_a_restored_ledger_too(self, ledger: SqliteLedger, tmp_path: Path):
        await opened(ledger, "v1")
        file = tmp_path / "copy.db"
        await asyncio.to_thread(backup.backup, ledger.path, file, lambda: NOW)
        restoring.restore(file, tmp_path / "new.db", NOW, "ops", "gone")
        for path in (file, tmp_path / "new.db"):
            assert mappings.read_from(path, "v1") == BY_VERSION["v1"]

    async def test_a_backup_that_lacks_a_part_is_none(self, ledger: SqliteLedger, tmp_path: Path):
        await ledger.transaction(lambda book: None, [("delete from mapping_part", ())])
        with pytest.raises(BackupError, match="mapping v1: its part"):
            await asyncio.to_thread(backup.backup, ledger.path, tmp_path / "copy.db", lambda: NOW)


class TestDropped:
    async def test_it_goes_with_the_bytes_of_the_last_message_that_may_need_it(self, tmp_path: Path):
        ledger = SqliteLedger(tmp_path / "ledger.db", lambda: NOW)
        ledger.start(lambda commit: None)
        for version in ("v1", "v2"):
            await ledger.keep_mappings([version], BY_VERSION.__getitem__)
            book = await opened(ledger, version)
            for _ in range(2):
                await settle(ledger, await stored(ledger, book), State.DELIVERED)
        assert await ledger.drop_mappings() == 0, "this process has used it"
        await ledger.close()
        ledger = SqliteLedger(tmp_path / "ledger.db", lambda: NOW)
        ledger.start(lambda commit: None)
        gone = ledger.kept[ledger.channels["acme"].id]
        for mark, dropped in ((1, 0), (2, 1), (4, 0)):
            gone.marks[RAW] = mark
            assert await ledger.drop_mappings() == dropped
        assert mappings.read_from(ledger.path, "v1") is None
        assert mappings.read_from(ledger.path, "v2") == BY_VERSION["v2"]
        assert await asked(ledger, "select count(*) from mapping_part") == [(2,)], "its own part has gone with it"
        assert await ledger.read(lambda reader: reader.rebuilt()) == []
        await ledger.close()

    async def test_what_is_wanted_again_while_it_goes_is_kept(self, ledger: SqliteLedger, tmp_path: Path):
        """A configuration that is put back in that moment: an epoch is about to name what the drop removes."""
        await ledger.close()
        ledger = SqliteLedger(tmp_path / "ledger.db", lambda: NOW)
        ledger.start(lambda commit: None)
        dropped = asyncio.ensure_future(ledger.drop_mappings())
        await asyncio.sleep(0)
        await ledger.keep_mappings(["v1"], BY_VERSION.__getitem__)
        assert await dropped == 2
        assert ledger.mappings == {"v1"}
        assert mappings.read_from(ledger.path, "v1") == BY_VERSION["v1"]
        assert await ledger.drop_mappings() == 0
        await ledger.close()

    @given(st.lists(st.tuples(st.integers(0, 3), st.sampled_from("abc")), min_size=1, max_size=6), st.integers(0, 20))
    def test_whatever_may_still_be_made_again_is_needed(self, epochs: list[tuple[int, str]], mark: int):
        """The design: outputs are made again from the raw message and the mapping that made them. A message is made by
        its own epoch's or, where it waited, by a later one's; without its bytes by none."""
        book = ChannelBook(1, "acme", 0)
        made: set[str] = set()
        for number, (messages, version) in enumerate(epochs, 1):
            book.epochs.append(Epoch(number, book.seq + 1, "live", routing(version)))
            book.seq += messages
        for number, (_, version) in enumerate(epochs, 1):
            last = book.epochs[number].first - 1 if number < len(epochs) else book.seq
            made |= {version} if any(seq > mark for seq in range(1, last + 1)) else set()
        made.add(epochs[-1][1])
        assert needed([book], {1: Kept({RAW: mark})}) == made


class TestSaid:
    async def test_a_receipt_says_by_which_epochs_mapping_it_was_made(self, ledger: SqliteLedger):
        book = await opened(ledger, "v1")
        await settle(ledger, await stored(ledger, book), State.DELIVERED, made_by=1)
        await settle(ledger, await stored(ledger, book), State.DISCARDED)
        assert await asked(ledger, "select seq, made_by from receipt order by id") == [(1, 1), (2, None)]

    async def test_the_part_behind_one_that_went_out_is_bound_to_the_same(self, ledger: SqliteLedger):
        book = await opened(ledger, "v1")
        message = await stored(ledger, book)
        await opened(ledger, "v2")
        await settle(ledger, message, State.DELIVERED, parts=3, made_by=1)
        (work,) = book.courses[0].open.values()
        assert (work.part, work.bound) == (2, 1)
        assert await asked(ledger, "select part, bound from open_work") == [(2, 1)]

    async def test_what_is_set_aside_stays_bound(self, ledger: SqliteLedger):
        book = await opened(ledger, "v1")
        message, course = await stored(ledger, book), book.courses[0]
        await settle(ledger, message, State.UNKNOWN, made_by=1)
        await ledger.transaction(lambda b: b.close_open(course, (1, 1, 1), State.PARKED, "a rollback", NOW))
        assert course.open[1, 1, 1].bound == 1

    @pytest.mark.parametrize(("version", "bound"), [("v1", 1), (None, 1), ("v9", None)])
    async def test_after_a_crash_what_may_have_gone_out_is_bound_to_what_is_kept(
        self, ledger: SqliteLedger, tmp_path: Path, version: str | None, bound: int | None
    ):
        book = await opened(ledger, version)
        await stored(ledger, book)
        for suffix in ("", "-wal"):
            shutil.copy(tmp_path / f"ledger.db{suffix}", tmp_path / f"crashed.db{suffix}")
        after = SqliteLedger(tmp_path / "crashed.db", lambda: NOW)
        (work,) = after.channels["acme"].courses[0].open.values()
        assert (work.state, work.bound) == (State.UNKNOWN, bound)
        await after.close()

    async def test_a_person_who_retries_wants_the_present_one_but_not_behind_a_part_that_went_out(
        self, ledger: SqliteLedger
    ):
        book = await opened(ledger, "v1")
        course = book.courses[0]
        for seq, more in ((1, {}), (2, {"parts": 2})):
            message = await stored(ledger, book)
            if more:
                await settle(ledger, message, State.DELIVERED, made_by=1, **more)
            part = 2 if more else 1
            await settle(ledger, message, State.DEAD, made_by=1, part=part, blocks=False, **more)
            await ledger.transaction(lambda b, key=(seq, part, 1): b.revive(course, key, why="again"))
            assert course.open[seq, part, 1].bound == (1 if more else None)
            await settle(ledger, message, State.DISCARDED, part=part, **more)

    async def test_other_bytes_are_always_made_by_the_present_one(self, ledger: SqliteLedger):
        book = await opened(ledger, "v1")
        course, message = book.courses[0], await stored(ledger, book)
        await settle(ledger, message, State.DELIVERED, made_by=1)
        await ledger.transaction(lambda b: b.replay(course, message.id, 1, 2, 1, "replay 1", 1))
        assert course.open[1, 1, 2].bound == 1
        await ledger.transaction(lambda b: b.revive(course, (1, 1, 2), why="edited", revision=2))
        assert course.open[1, 1, 2].bound is None


async def test_later_answers_are_found_by_their_index(ledger: SqliteLedger):
    book = await opened(ledger, None)
    message = await stored(ledger, book)
    put = "insert into intake_event (at, channel, kind, reason, peer, socket, size, message, answer, raw)"
    rows = [(f"{put} values (?,1,?,?,'',0,0,?,?,x'')", (n, kind, f"no {n}", message.id, b"A"))
            for n, kind in enumerate(("application_answer", "would_refuse", "application_answer"))]  # fmt: skip
    await ledger.transaction(lambda book: None, rows)
    found = await ledger.read(lambda reader: later.answers(reader.connection, message.id))
    assert found == [(0, "no 0", b"A"), (2, "no 2", b"A")]
    with closing(sqlite3.connect(f"file:{ledger.path}?mode=ro", uri=True)) as connection:
        seen: list[str] = []
        connection.set_trace_callback(seen.append)
        later.answers(connection, message.id)
        connection.set_trace_callback(None)
        (plan,) = connection.execute(f"explain query plan {seen[0]}").fetchall()
    assert "intake_event_later" in plan[-1]

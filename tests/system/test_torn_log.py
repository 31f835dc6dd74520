"""A ledger whose log was torn: it opens with exactly the transactions that are whole in front of the tear.

The ledger is that of a service that was killed. Its log is then cut, flipped and spoiled in every kind of place. What
is whole is known from the log's own bytes: a transaction ends with the page whose head tells the file's new size
(SQLite's file format, section 4), and the message whose bytes stand in it was stored by it.
"""

from __future__ import annotations

import asyncio
import sqlite3
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.ledger.sqlite import recount
from engine.ledger.sqlite.loading import LedgerError, Opened, open_ledger
from engine.ledger.sqlite.reader import Reader
from tests.support.disk import FRAME_HEAD, LOG, ends_a_transaction
from tests.support.forking import nursery
from tests.support.stepping import Clinic, result, site

pytestmark = pytest.mark.system

FIRST, AGAIN = 3, 9  # messages of the first process, which ended in peace, and of the one that was killed
HEAD = 32  # bytes of the log's own head
PAGE = 8192
FRAME = FRAME_HEAD + PAGE


@dataclass
class Crashed:
    """file: what was brought into the ledger's one file; log: the rest. heard: after each acknowledged message of it,
    how long the log was. beside: other files there. young: the file before anything was brought into it."""

    incarnation: str
    file: bytes
    log: bytes
    heard: list[int]
    beside: dict[str, bytes]
    young: bytes

    @property
    def ends(self) -> list[int]:
        """Where a transaction of the log ends."""
        at = range(HEAD, len(self.log), FRAME)
        return [n + FRAME for n in at if ends_a_transaction(self.log[n : n + FRAME_HEAD])]

    def names(self, whole: int) -> list[str]:
        """The messages that are there where the log is whole up to here."""
        ends = [end for end in self.ends if end <= whole]
        log = self.log[: ends[-1]] if ends else b""
        again = [name for name in names(FIRST, FIRST + AGAIN) if f"ORU_R01|{name}|".encode() in log]
        return names(0, FIRST) + again


def names(first: int, last: int) -> list[str]:
    return [f"M{number:03}" for number in range(first, last)]


@pytest.fixture(scope="module")
def crashed(tmp_path_factory: pytest.TempPathFactory) -> Crashed:
    return asyncio.run(crash(tmp_path_factory.mktemp("crashed")))


async def crash(folder: Path) -> Crashed:
    clinic = Clinic()
    with nursery() as births:
        async with site(births, folder, clinic) as at:
            ledger, log = at.interlock.ledger, at.interlock.ledger.with_name(at.interlock.ledger.name + LOG)
            await at.start()
            for name in names(0, FIRST):
                assert await at.say(result(name))
            await at.all_settled()
            young = ledger.read_bytes()
            assert at.interlock.stop() == 0
            assert not log.exists()
            await at.start()
            heard = []
            for name in names(FIRST, FIRST + AGAIN):
                assert await at.say(result(name))
                heard.append(log.stat().st_size)
            await at.all_settled()
            at.interlock.kill()
            file, torn = ledger.read_bytes(), log.read_bytes()
            beside = {path.suffix: path.read_bytes() for path in ledger.parent.glob("interlock.db.*") if path.is_file()}
            return Crashed(incarnation_of(ledger), file, torn, heard, beside, young)


def incarnation_of(ledger: Path) -> str:
    with closing(sqlite3.connect(ledger)) as connection:
        return str(connection.execute("select incarnation from ledger").fetchone()[0])


@contextmanager
def ledger_of(file: bytes, log: bytes | None = None, beside: Mapping[str, bytes] | None = None) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="interlock-torn-") as folder:
        ledger = Path(folder) / "ledger.db"
        for suffix, content in {"": file, LOG: log, **(beside or {})}.items():
            if content is not None:
                ledger.with_name(ledger.name + suffix).write_bytes(content)
        yield ledger


def found(ledger: Path) -> list[str]:
    """Open it as the service does. The messages that it has, once every count of it is right and the equation holds."""
    opened = open_ledger(ledger)
    try:
        return counted(ledger, opened)
    finally:
        opened.connection.close()
        opened.lock.close()


def counted(ledger: Path, opened: Opened) -> list[str]:
    with closing(Reader(ledger)) as reader:
        assert reader.rebuilt() == []
        assert all(row["balanced"] for row in reader.balance(list(opened.channels.values())))
        stored = [name for (name,) in reader.connection.execute("select control_id from message order by id")]
        assert [book.seq for book in opened.channels.values()] == [len(stored)]
        return stored


def found_with(crashed: Crashed, log: bytes | None) -> list[str]:
    with ledger_of(crashed.file, log) as ledger:
        return found(ledger)


def test_the_whole_log_has_everything(crashed: Crashed) -> None:
    assert len(crashed.ends) > AGAIN
    assert found_with(crashed, crashed.log) == crashed.names(len(crashed.log)) == names(0, FIRST + AGAIN)


def cuts(crashed: Crashed) -> list[int]:
    """In the log's head, behind it; and between frames, in a frame's head, behind that, in its page, at its end."""
    places = [0, 1, HEAD - 1, HEAD]
    for frame in range(HEAD, len(crashed.log), FRAME):
        places += [frame, frame + 5, frame + FRAME_HEAD, frame + FRAME_HEAD + PAGE // 2, frame + FRAME - 1]
    return places


def test_a_log_that_was_cut_has_the_transactions_in_front_of_the_cut(crashed: Crashed) -> None:
    for place in [*cuts(crashed)[:9], *cuts(crashed)[9:-5:7], *cuts(crashed)[-5:]]:
        assert found_with(crashed, crashed.log[:place]) == crashed.names(place), place


@given(share=st.floats(0, 1))
@settings(max_examples=40, deadline=None)
def test_wherever_it_is_cut_what_was_acknowledged_before_is_there(crashed: Crashed, share: float) -> None:
    place = int(share * len(crashed.log))
    acknowledged = FIRST + sum(heard <= place for heard in crashed.heard)
    there = found_with(crashed, crashed.log[:place])
    assert there == crashed.names(place)
    assert there[:acknowledged] == names(0, acknowledged)


@given(garbage=st.binary(min_size=1, max_size=3 * FRAME))
@settings(max_examples=20, deadline=None)
def test_garbage_behind_the_log_is_nothing(crashed: Crashed, garbage: bytes) -> None:
    assert found_with(crashed, crashed.log + garbage) == names(0, FIRST + AGAIN)


def test_what_an_earlier_use_of_the_log_left_behind_it_is_nothing(crashed: Crashed) -> None:
    def of_before(frame: bytes) -> bytes:
        return frame[:8] + bytes([frame[8] ^ 1]) + frame[9:]  # another salt

    left = b"".join(of_before(crashed.log[at : at + FRAME]) for at in range(HEAD, len(crashed.log), FRAME))
    assert found_with(crashed, crashed.log + left) == names(0, FIRST + AGAIN)


@given(bit=st.integers(0, FRAME * 8 - 1))
@settings(max_examples=40, deadline=None)
def test_a_flipped_bit_in_the_last_frame_costs_the_last_transaction_and_no_other(crashed: Crashed, bit: int) -> None:
    log = bytearray(crashed.log[: crashed.ends[-1]])
    log[crashed.ends[-1] - FRAME + bit // 8] ^= 1 << bit % 8
    assert found_with(crashed, bytes(log)) == crashed.names(crashed.ends[-2])


@given(share=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
@settings(max_examples=40, deadline=None)
def test_a_flipped_bit_anywhere_in_the_log_leaves_whole_transactions_and_right_counts(
    crashed: Crashed, share: float, bit: int
) -> None:
    at = int(share * crashed.ends[-1])
    log = bytearray(crashed.log)
    log[at] ^= 1 << bit
    with suppress(LedgerError):  # which would be better still
        assert found_with(crashed, bytes(log)) == crashed.names(at)


@given(garbage=st.binary(min_size=1, max_size=40_000))
@settings(max_examples=20, deadline=None)
def test_the_file_that_processes_share_is_made_anew_after_a_crash(crashed: Crashed, garbage: bytes) -> None:
    with ledger_of(crashed.file, crashed.log, {"-shm": garbage}) as ledger:
        assert found(ledger) == names(0, FIRST + AGAIN)


def test_a_copy_of_the_file_alone_has_what_was_brought_into_it(crashed: Crashed) -> None:
    assert found_with(crashed, None) == names(0, FIRST)


def test_a_file_that_is_no_ledger_any_more_is_refused_in_a_sentence(crashed: Crashed) -> None:
    file = bytearray(crashed.file)
    file[100] ^= 4  # what kind of page the first one is, which has the list of the tables
    sentence = r"the ledger .*/ledger\.db cannot be opened: .*malformed"
    with ledger_of(bytes(file)) as ledger, pytest.raises(LedgerError, match=sentence):
        open_ledger(ledger)


@pytest.mark.parametrize("table", ["message", "receipt", "progress", "open_work", "channel"])
def test_a_flipped_bit_in_what_holds_rows_together_is_said_at_the_start_or_by_the_count(
    crashed: Crashed, table: str
) -> None:
    with ledger_of(crashed.file) as ledger, closing(sqlite3.connect(ledger)) as connection:
        (root,) = connection.execute("select rootpage from sqlite_master where name = ?", (table,)).fetchone()
    file = bytearray(crashed.file)
    file[(root - 1) * PAGE] ^= 4  # what kind of page it is
    with ledger_of(bytes(file)) as ledger, pytest.raises((LedgerError, sqlite3.DatabaseError), match="malformed"):
        found(ledger)


def test_a_total_that_has_changed_is_said_by_the_count(crashed: Crashed) -> None:
    with ledger_of(crashed.file) as ledger:
        with closing(sqlite3.connect(ledger)) as connection:
            connection.execute("update progress set delivered = delivered - 1")
            connection.commit()
        with closing(Reader(ledger)) as reader:
            said = [text.partition(": ")[2] for text in reader.rebuilt()]
    assert said == ["3 receipts say delivered, the total says 2"]


# What cannot be got back is at least said.


def test_whole_transactions_behind_a_damaged_one_are_not_left_out_in_silence(crashed: Crashed) -> None:
    log = bytearray(crashed.log)
    log[crashed.ends[1] + FRAME_HEAD + 100] ^= 1
    with ledger_of(crashed.file, bytes(log)) as ledger, pytest.raises(LedgerError, match="log"):
        found(ledger)


def test_a_log_that_is_gone_after_a_kill_is_missed(crashed: Crashed) -> None:
    with ledger_of(crashed.file, None, crashed.beside) as ledger, pytest.raises(LedgerError, match="log"):
        found(ledger)


def test_a_ledger_that_lost_its_first_log_is_not_taken_for_a_new_one(crashed: Crashed) -> None:
    with ledger_of(crashed.young, None, crashed.beside) as ledger, suppress(LedgerError):
        opened = open_ledger(ledger)
        opened.connection.close()
        opened.lock.close()
        assert opened.incarnation == crashed.incarnation


def test_a_flipped_bit_in_the_bytes_of_a_message_is_noticed_where_they_are_read(crashed: Crashed) -> None:
    file = bytearray(crashed.file)
    file[crashed.file.index(result(*names(0, 1))) + 200] ^= 1
    with ledger_of(bytes(file)) as ledger, closing(Reader(ledger)) as reader:
        assert [reader.message(id).damaged for id in (1, 2)] == [True, False]
        assert [row.damaged for row in reader.backlog(1, 0, 1, 2)] == [True, False]
        assert recount.damaged(reader.connection, 1, 9) == ["acme/1: its bytes are not those that were stored"]

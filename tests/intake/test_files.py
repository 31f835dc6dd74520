"""Messages that come as files: each stored once, all of a file or none, whatever ends when."""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.config.address import Address
from engine.config.edge import Directory, Files, Place, Takes
from engine.config.endpoint import Endpoint
from engine.config.model import Legacy
from engine.files.folder import HEAD_BYTES, Folder
from engine.files.local import LocalFolder
from engine.files.places import folder_of
from engine.intake.files import FileSource
from engine.intake.judge import Rules
from engine.ledger.course import ChannelBook
from engine.ledger.model import Message
from engine.ledger.sqlite import schema
from engine.ledger.sqlite.large import LARGE
from engine.ledger.sqlite.statements import STATEMENTS
from engine.mllp.framing import encode
from engine.observe import file_events as events
from engine.observe.intake_events import STORED
from tests.support.sshd import Sshd

MOMENTS = count(1_760_000_000_000_000)  # microseconds since 1970; they go on from one process to the next


def hl7(id: str, kind: str = "ORU^R01", rest: str = "") -> bytes:
    return f"MSH|^~\\&|LAB||||||{kind}|{id}|P|2.5\rPID|1||7||DOE^JANE\r{rest}".encode()


class Crash(BaseException):
    """The process ends here."""


class Steps:
    """Counts the steps of what can be interrupted, and ends the process at one of them."""

    def __init__(self, at: int | None = None) -> None:
        self.at = at
        self.taken = 0

    def step(self) -> None:
        self.taken += 1
        if self.taken == self.at:
            raise Crash


class FakeLedger:
    """What the source asks of the ledger; each call is a transaction, done whole or not at all."""

    def __init__(self) -> None:
        self.connection = sqlite3.connect(":memory:", check_same_thread=False)
        schema.create(self.connection, "test")
        self.messages: list[Message] = []
        self.laid_down: list[Message] = []
        self.events: list[Any] = []
        self.full = False
        self.steps = Steps()

    async def store_together(
        self, messages: Sequence[Message], rows: Sequence[tuple[str, tuple[Any, ...]]] = ()
    ) -> bool:
        self.steps.step()
        if self.full:
            return False
        with self.connection:
            for name, values in rows:
                self.connection.execute(STATEMENTS[name], values)
        for message in messages:
            message.seq = len(self.messages) + 1
            self.messages.append(message)
        self.steps.step()
        return True

    async def lay_down(self, large: Message) -> None:
        self.steps.step()
        self.laid_down.append(large)

    async def transaction(self, act: Callable[[Any], Any]) -> Any:
        self.steps.step()
        act(SimpleNamespace(event=self.events.append))
        self.steps.step()

    async def read(self, query: Callable[[Any], Any]) -> Any:
        self.steps.step()
        return query(self)

    @property
    def raw(self) -> list[bytes]:
        return [message.raw for message in self.messages]


class Lab:
    """A channel that reads files, its folder, and its ledger."""

    def __init__(self, path: Path, place: Place | None = None, **settings: Any) -> None:
        self.path = path
        self.ledger = FakeLedger()
        self.rules = Rules(frozenset({"ORU^R01"}), lambda raw: raw.isascii())
        self.files = Files(place or Directory(path), **{"stable": 0.0, **settings})
        self.takes = Takes(max_bytes=100_000)
        self.live = False
        self.moments: Iterator[int] = MOMENTS
        self.legacy = Legacy(Endpoint("old", None, place=Directory(path / "old")))
        self.folder = folder_of(self.files.place)
        self.start(self.folder)

    def start(self, folder: Folder) -> None:
        """As a new process does."""
        channel = SimpleNamespace(id="acme", source=self.files, takes=self.takes, legacy=self.legacy)
        self.book = ChannelBook(1, "acme", 0)
        self.source = FileSource(
            channel, self.book, self.ledger, self.rules, folder, lambda: next(self.moments), lambda: not self.live  # type: ignore[arg-type]
        )  # fmt: skip

    def drop(self, name: str, data: bytes, modified: float = 1.0) -> None:
        (self.path / name).write_bytes(data)
        os.utime(self.path / name, (modified, modified))

    @property
    def names(self) -> list[str]:
        return sorted(str(each.relative_to(self.path)) for each in self.path.rglob("*") if each.is_file())


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[Lab]:
    lab = Lab(tmp_path)
    yield lab
    await lab.folder.close()


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    told: list[str] = []
    monkeypatch.setattr("engine.intake.files.emit", lambda event: (told.append(event.name()), event.count()))
    return told


# -- what is stored


async def test_all_messages_of_a_file_are_stored_in_their_order_as_they_came(lab: Lab, told: list[str]) -> None:
    stored = STORED.of("acme").n
    lab.drop("a.hl7", hl7("1") + hl7("2") + hl7("3"))
    await lab.source.scan()
    assert lab.ledger.raw == [hl7("1"), hl7("2"), hl7("3")]
    assert [(m.control_id, m.channel, m.flaw) for m in lab.ledger.messages] == [(id, lab.book, None) for id in "123"]
    assert {message.received for message in lab.ledger.messages} == {lab.source.last_received}
    assert lab.names == ["archive/a.hl7"]
    assert told == ["file_read", "place_up"]
    assert STORED.of("acme").n - stored == 3


async def test_the_files_claimed_name_and_digest_are_stored_with_its_messages(lab: Lab) -> None:
    lab.drop("a.hl7", hl7("1"))
    await lab.source.scan()
    ((channel, name, *rest),) = lab.ledger.connection.execute("select * from file").fetchall()
    assert re.fullmatch(r"\.a\.hl7~[0-9a-f]{14}\.taking", name)
    assert [channel, *rest] == [1, len(hl7("1")), hashlib.sha256(hl7("1")).digest(), lab.source.last_received]


async def test_a_batch_is_one_message(lab: Lab) -> None:
    batch = b"FHS|^~\\&|LAB||||||||F1\rBHS|^~\\&|LAB\r" + hl7("1") + hl7("2") + b"BTS|2\rFTS|1\r"
    lab.drop("a.hl7", batch)
    await lab.source.scan()
    assert lab.ledger.raw == [batch]
    assert (lab.ledger.messages[0].control_id, lab.ledger.messages[0].flaw) == ("F1", None)


async def test_mllp_blocks_lose_their_framing_bytes(lab: Lab) -> None:
    lab.drop("a.hl7", encode(hl7("1")) + encode(hl7("2")))
    await lab.source.scan()
    assert lab.ledger.raw == [hl7("1"), hl7("2")]


async def test_a_large_message_is_laid_down_first(tmp_path: Path) -> None:
    lab = Lab(tmp_path)
    lab.takes = Takes()
    lab.start(lab.folder)
    large = hl7("2", rest="OBX|1|ED|" + "x" * LARGE)
    lab.drop("a.hl7", hl7("1") + large)
    await lab.source.scan()
    assert [message.raw for message in lab.ledger.laid_down] == [large]
    assert lab.ledger.raw == [hl7("1"), large]
    await lab.folder.close()


async def test_a_name_that_is_no_utf_8_is_stored_and_archived(lab: Lab) -> None:
    name = os.fsdecode(b"M\xfcller.hl7")
    lab.drop(name, hl7("1"))
    await lab.source.scan()
    assert lab.ledger.raw == [hl7("1")]
    assert lab.names == [f"archive/{name}"]


# -- what is not


async def test_a_flaw_is_recorded_while_the_old_engine_judges(lab: Lab, told: list[str]) -> None:
    lab.drop("a.hl7", hl7("1") + hl7("2", "ADT^A01"))
    await lab.source.scan()
    assert [message.flaw is not None for message in lab.ledger.messages] == [False, True]
    assert told == ["would_refuse", "file_read", "place_up"]


async def test_in_live_one_flaw_refuses_the_whole_file_and_is_named(lab: Lab, told: list[str]) -> None:
    lab.live = True
    lab.drop("a.hl7", hl7("1") + hl7("2", "ADT^A01") + hl7("3"))
    lab.drop("b.hl7", hl7("4"), modified=2)
    await lab.source.scan()
    assert lab.ledger.raw == [hl7("4")]
    assert lab.names == ["archive/b.hl7", "failed/a.hl7"]
    (event,) = lab.ledger.events
    assert (event.kind, event.peer, event.size) == ("failed_file", "a.hl7", 3 * len(hl7("1")))
    assert event.reason.startswith("message 2 of 3: a message type that this channel does not take")
    assert told == ["file_failed", "file_read", "place_up"]


NO_MESSAGES = {
    "an empty file": b"",
    "blanks": b"\r\n",
    "a table": b"name;value\nDOE;7\n",
    "a line before the header": b"OBX|1|\r" + hl7("1"),
    "an end byte of MLLP": hl7("1") + b"\x1c\r" + hl7("2"),
    "bytes behind a block": encode(hl7("1")) + b"DOE^JANE",
}


@pytest.mark.parametrize("data", NO_MESSAGES.values(), ids=NO_MESSAGES)
async def test_a_file_that_cannot_be_read_as_messages_is_set_aside_with_evidence_in_live(lab: Lab, data: bytes) -> None:
    lab.live = True
    lab.drop("a.hl7", data)
    await lab.source.scan()
    assert lab.ledger.messages == []
    assert lab.names == ["failed/a.hl7"]
    (event,) = lab.ledger.events
    assert (event.raw, event.size) == (data, len(data))
    assert "DOE" not in event.reason


@pytest.mark.parametrize("data", NO_MESSAGES.values(), ids=NO_MESSAGES)
async def test_while_the_old_engine_judges_it_goes_on_byte_for_byte_and_the_flaw_is_recorded(
    lab: Lab, told: list[str], data: bytes
) -> None:
    lab.drop("a.hl7", data)
    await lab.source.scan()
    assert lab.ledger.raw == [data]
    assert lab.names == ["archive/a.hl7"]
    assert lab.ledger.events == []
    assert told == ["would_refuse", "file_read", "place_up"]
    assert "DOE" not in str(lab.ledger.messages[0].flaw)


@pytest.mark.parametrize("data", NO_MESSAGES.values(), ids=NO_MESSAGES)
async def test_what_no_mllp_block_can_hold_is_set_aside_where_the_old_engine_is_a_listener(
    lab: Lab, data: bytes
) -> None:
    lab.legacy = Legacy(Endpoint("old", Address("127.0.0.1", 1)))
    lab.start(lab.folder)
    lab.drop("a.hl7", data)
    await lab.source.scan()
    cannot = not data.strip() or b"\x1c" in data
    assert lab.ledger.raw == ([] if cannot else [data])
    assert lab.names == ["failed/a.hl7" if cannot else "archive/a.hl7"]


async def test_a_file_that_is_too_large_is_set_aside_and_only_its_beginning_read(lab: Lab) -> None:
    data = hl7("1", rest="x" * 100_000)
    lab.drop("a.hl7", data)
    await lab.source.scan()
    (event,) = lab.ledger.events
    assert (event.raw, event.size) == (data[:HEAD_BYTES], len(data))
    assert lab.names == ["failed/a.hl7"]


async def test_while_the_ledger_cannot_be_written_files_stay_and_nothing_is_lost(lab: Lab) -> None:
    lab.ledger.full = True
    lab.drop("a.hl7", hl7("1"))
    lab.drop("b.hl7", hl7("2"), modified=2)
    await lab.source.scan()
    await lab.source.scan()
    assert lab.ledger.messages == []
    assert not any("/" in name for name in lab.names)
    assert lab.source.waiting == 2
    lab.ledger.full = False
    await lab.source.scan()
    assert lab.ledger.raw == [hl7("1"), hl7("2")]
    assert lab.names == ["archive/a.hl7", "archive/b.hl7"]


# -- once


async def test_the_same_file_put_again_is_a_new_one(lab: Lab, told: list[str]) -> None:
    for modified in (1.0, 1.0, 2.0):
        lab.drop("a.hl7", hl7("1"), modified)
        await lab.source.scan()
        lab.start(lab.folder)  # also by another process
    assert lab.ledger.raw == [hl7("1")] * 3
    assert told.count("file_read") == 3
    assert len(lab.names) == 3


async def test_what_was_stored_before_a_crash_is_archived_and_not_stored_again(lab: Lab, told: list[str]) -> None:
    lab.drop("a.hl7", hl7("1"))
    lab.ledger.steps = Steps(3)  # asked whether it is known, then stored
    with pytest.raises(Crash):
        await lab.source.scan()
    assert lab.ledger.raw == [hl7("1")]
    lab.ledger.steps = Steps()
    lab.drop("a.hl7", hl7("1"), modified=2)  # and the lab sends it again
    lab.start(lab.folder)
    await lab.source.scan()
    assert lab.ledger.raw == [hl7("1")] * 2
    assert [name for name in told if name.startswith("file")] == ["file_found_again", "file_read"]
    assert len(lab.names) == 2


async def test_a_file_of_the_same_name_with_other_content_is_new(lab: Lab) -> None:
    for id in "12":
        lab.drop("a.hl7", hl7(id))
        await lab.source.scan()
    assert lab.ledger.raw == [hl7("1"), hl7("2")]


async def test_a_file_of_another_name_with_the_same_content_is_new(lab: Lab) -> None:
    for name in ("a.hl7", "b.hl7"):
        lab.drop(name, hl7("1"))
    await lab.source.scan()
    assert lab.ledger.raw == [hl7("1")] * 2


class Mortal(LocalFolder):
    """A folder whose process may end before or after each thing that it does."""

    def __init__(self, path: Path, steps: Steps) -> None:
        super().__init__(path)
        self._steps = steps

    async def entries(self) -> list[Any]:
        self._steps.step()
        return await super().entries()

    async def read(self, name: str, most: int) -> bytes:
        self._steps.step()
        data = await super().read(name, most)
        self._steps.step()
        return data

    async def move(self, name: str, to: str) -> None:
        self._steps.step()
        await super().move(name, to)
        self._steps.step()

    async def remove(self, name: str) -> bool:
        self._steps.step()
        removed = await super().remove(name)
        self._steps.step()
        return removed


FILES = {
    "a.hl7": hl7("1") + hl7("2"),
    "b.hl7": b"no message",
    "c.hl7": hl7("3"),
    "d.hl7": b"x" * 200_000,
    "e.hl7": hl7("4") + hl7("5"),
}


async def live_through(lab: Lab, crashes: Sequence[int]) -> int:
    """Read FILES with a process that ends at these steps, counted from each start; the steps of the last one."""
    lab.live = True
    for number, (name, data) in enumerate(FILES.items()):
        lab.drop(name, data, modified=number)
    for at in (*crashes, None):
        steps = lab.ledger.steps = Steps(at)
        folder = Mortal(lab.path, steps)
        lab.start(folder)
        try:
            for _ in range(3):
                await lab.source.scan()
        except Crash:
            pass
        finally:
            await folder.close()
    return steps.taken


def assert_each_once(lab: Lab) -> None:
    assert [message.control_id for message in lab.ledger.messages] == list("12345")
    kept = sorted((lab.path / name).read_bytes() for name in lab.names)
    bad = sorted((FILES["b.hl7"], FILES["d.hl7"]))
    if lab.files.after == "archive":
        assert kept == sorted(FILES.values())
        assert not any(name.startswith(".") for name in lab.names)
    else:
        assert kept == bad
    assert {event.peer for event in lab.ledger.events if event.kind == "failed_file"} == {"b.hl7", "d.hl7"}


@pytest.mark.parametrize("after", ["archive", "delete"])
async def test_killed_between_any_two_steps_every_message_is_stored_once_and_no_file_lost(
    tmp_path: Path, after: str
) -> None:
    (tmp_path / "0").mkdir()
    whole = Lab(tmp_path / "0", after=after)
    steps = await live_through(whole, ())
    assert_each_once(whole)
    assert steps > 40
    for at in range(1, steps + 1):
        (tmp_path / str(at)).mkdir()
        lab = Lab(tmp_path / str(at), after=after)
        await live_through(lab, (at,))
        assert_each_once(lab)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(crashes=st.lists(st.integers(1, 40), min_size=2, max_size=6))
def test_killed_again_and_again_every_message_is_stored_once_and_no_file_lost(
    tmp_path_factory: pytest.TempPathFactory, crashes: list[int]
) -> None:
    lab = Lab(tmp_path_factory.mktemp("lab"))
    asyncio.run(live_through(lab, crashes))
    assert_each_once(lab)


# -- at the end


async def test_what_was_in_hand_is_taken_at_the_end_and_nothing_new(lab: Lab, told: list[str]) -> None:
    lab.ledger.full = True
    lab.drop("a.hl7", hl7("1"))
    await lab.source.scan()
    lab.drop("b.hl7", hl7("2"))
    lab.ledger.full = False
    await lab.source.finish(10.0)
    assert lab.ledger.raw == [hl7("1")]
    assert lab.names == ["archive/a.hl7", "b.hl7"]
    assert "files_left" not in told


async def test_at_the_end_a_place_that_hangs_is_not_waited_for_and_that_is_told(
    lab: Lab, told: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def hangs() -> list[Any]:
        await asyncio.Event().wait()
        raise AssertionError

    monkeypatch.setattr(lab.folder, "entries", hangs)
    await asyncio.wait_for(lab.source.finish(0.01), 10)
    assert told == ["files_left"]


# -- from a server


async def test_files_of_an_sftp_server_are_read_once_and_the_place_may_go_away(tmp_path: Path, told: list[str]) -> None:
    sshd = Sshd(tmp_path)
    sshd.start()
    lab = Lab(sshd.drop, sshd.place())
    try:
        lab.drop("a.hl7", hl7("1") + hl7("2"))
        await lab.source.scan()
        sshd.kill()
        lab.drop("b.hl7", hl7("3"))
        await lab.source.scan()
        assert lab.source.down is not None
        sshd.start()
        await lab.source.scan()
        assert lab.source.down is None
        lab.live = True
        lab.drop("c.hl7", b"no message")
        await lab.source.scan()
        assert lab.ledger.raw == [hl7("1"), hl7("2"), hl7("3")]
        assert lab.names == ["archive/a.hl7", "archive/b.hl7", "failed/c.hl7"]
    finally:
        await lab.folder.close()
        sshd.kill()


async def test_no_event_and_no_reason_holds_what_is_in_a_file_or_its_name(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines: list[str] = []
    monkeypatch.setattr("engine.intake.files.emit", lambda event: lines.append(str(event)))
    lab.live = True
    lab.drop("DOE_JANE.hl7", hl7("1"))
    await lab.source.scan()
    lab.drop("DOE_JANE.hl7", hl7("1"))
    await lab.source.scan()
    for number, data in enumerate([b"DOE^JANE", hl7("1", "DOE^JANE"), b"DOE" * 100_000]):
        lab.drop(f"DOE_{number}.hl7", data)
    await lab.source.scan()
    lab.path.rename(lab.path.with_name("DOE"))
    await lab.source.scan()
    assert len(lines) == 7
    assert "DOE" not in "".join(lines)
    assert events.FileFailed("acme", "x", 1).values()["size"] == 1


async def test_each_file_has_a_moment_of_its_own_also_where_the_clock_stands_still_or_goes_back(lab: Lab) -> None:
    """By it the ledger knows which messages came together."""
    lab.moments = iter((5, 5, 3, 3, 3, 3))
    for name in "abc":
        lab.drop(f"{name}.hl7", hl7(f"{name}1") + hl7(f"{name}2"))
        await lab.source.scan()
        await lab.source.scan()
    came = [message.received for message in lab.ledger.messages]
    assert came[::2] == came[1::2]
    assert len(set(came)) == 3
    assert came == sorted(came)

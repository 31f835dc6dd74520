"""Messages as files: one each, whole, in their order; and what follows where it cannot be written."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from engine.config.edge import Directory
from engine.config.endpoint import Endpoint
from engine.delivery.breaker import Breaker
from engine.delivery.decision import Manner
from engine.delivery.destinations.file import FileDestination
from engine.delivery.work import Work
from engine.files.folder import Folder, FolderError
from engine.files.places import folder_of
from engine.ledger.course import ChannelBook
from engine.ledger.model import Message
from engine.ledger.outcome import Outcome, Result
from tests.support.sshd import Sshd

RAW = b"MSH|^~\\&|LAB||||||ORU^R01|X1|P|2.5\rPID|1||7\r\n"
BOOK = ChannelBook(1, "acme", 0)


class Course:
    """A destination, and what it says of each message."""

    def __init__(self, folder: Folder, file_name: str = "{channel}-{sequence}.hl7") -> None:
        endpoint = Endpoint("acme-drop", None, file_name=file_name)
        self.destination = FileDestination("acme", endpoint, folder, Breaker("acme-drop"), Manner())

    async def send(self, seq: int, raw: bytes = RAW, part: int = 1, delivery: int = 1) -> Outcome:
        message = Message(BOOK, raw, 0, "X1")
        message.seq = seq
        heard: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        work = Work(message, lambda _, outcome: heard.set_result(outcome))
        work.part, work.delivery = part, delivery
        self.destination.send(work)
        return await asyncio.wait_for(heard, 30)


@pytest.fixture
async def folder(tmp_path: Path) -> AsyncIterator[Folder]:
    folder = folder_of(Directory(tmp_path))
    yield folder
    await folder.close()


def names(path: Path) -> list[str]:
    return sorted(each.name for each in path.iterdir())


async def test_a_message_is_a_file_of_its_very_bytes(folder: Folder, tmp_path: Path) -> None:
    assert await Course(folder).send(812) == Outcome(Result.DELIVERED)
    assert (tmp_path / "acme-0000000812.hl7").read_bytes() == RAW


async def test_a_repeat_after_a_crash_is_the_same_file(folder: Folder, tmp_path: Path) -> None:
    for _ in range(2):
        assert (await Course(folder).send(1)).result is Result.DELIVERED
    assert names(tmp_path) == ["acme-0000000001.hl7"]


async def test_a_file_with_other_content_is_left_alone_and_needs_a_person(folder: Folder, tmp_path: Path) -> None:
    (tmp_path / "acme-0000000001.hl7").write_bytes(b"theirs")
    outcome = await Course(folder).send(1)
    assert (outcome.result, outcome.reason) == (Result.NEVER, "a file of this name and with other content is there")
    assert (tmp_path / "acme-0000000001.hl7").read_bytes() == b"theirs"


async def test_a_delivery_that_a_person_asked_for_is_a_file_of_its_own(folder: Folder, tmp_path: Path) -> None:
    course = Course(folder)
    await course.send(1)
    assert (await course.send(1, b"MSH|edited\r", delivery=2)).result is Result.DELIVERED
    assert names(tmp_path) == ["acme-0000000001.1.2.hl7", "acme-0000000001.hl7"]


async def test_the_control_id_can_stand_in_the_name(folder: Folder, tmp_path: Path) -> None:
    await Course(folder, "{control_id}_{sequence}.txt").send(5)
    assert names(tmp_path) == ["X1_0000000005.txt"]


def test_a_name_in_which_two_messages_would_meet_is_refused_when_it_is_built() -> None:
    with pytest.raises(ValueError, match=r"expected \{sequence\} in it"):
        Course(SimpleNamespace(), "{control_id}.hl7")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("error", "result", "trouble"),
    [
        (FolderError("connection refused"), Result.NOT_TAKEN, True),
        (FolderError("no space left"), Result.NOT_TAKEN, True),
        (FolderError("permission denied", fault=True), Result.FAULT, False),
        (FolderError("the connection was lost", uncertain=True), Result.UNKNOWN, True),
        (FolderError("permission denied", fault=True, uncertain=True), Result.UNKNOWN, True),
        (ValueError("a defect"), Result.UNKNOWN, True),
    ],
)
async def test_what_follows_from_a_failure(
    folder: Folder, monkeypatch: pytest.MonkeyPatch, error: Exception, result: Result, trouble: bool
) -> None:
    async def fails(*_: Any) -> None:
        raise error

    monkeypatch.setattr(folder, "put", fails)
    outcome = await Course(folder).send(1)
    assert (outcome.result, outcome.trouble) == (result, trouble)
    if isinstance(error, FolderError):
        assert outcome.reason == error.reason


async def test_closing_ends_what_is_on_the_way(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, heard = asyncio.Event(), []

    async def hangs(*_: Any) -> None:
        begun.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(folder, "put", hangs)
    course = Course(folder)
    course.destination.send(Work(Message(BOOK, RAW, 0, "X1"), lambda *outcome: heard.append(outcome)))
    await begun.wait()
    await course.destination.close()
    assert heard == []  # it stays claimed, and is unknown at the next start


async def test_onto_an_sftp_server_that_goes_away_and_comes_back(tmp_path: Path) -> None:
    sshd = Sshd(tmp_path)
    sshd.start()
    folder = folder_of(sshd.place())
    course = Course(folder)
    try:
        assert (await course.send(1)).result is Result.DELIVERED
        sshd.kill()
        lost = await course.send(2)
        assert (lost.result, lost.trouble) == (Result.NOT_TAKEN, True)
        sshd.start()
        assert (await course.send(2)).result is Result.DELIVERED
        assert names(sshd.drop) == ["acme-0000000001.hl7", "acme-0000000002.hl7"]
        await folder.close()
        stranger = folder_of(replace(sshd.place(), user="nobody"))
        assert (await Course(stranger).send(3)).result is Result.FAULT
        await stranger.close()
    finally:
        await folder.close()
        sshd.kill()

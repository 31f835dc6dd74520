"""Which messages of a file go to the old engine's folder together, and which by themselves."""

from __future__ import annotations

import asyncio
import hashlib
import sqlite3
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from engine.config.edge import Directory
from engine.config.endpoint import Endpoint
from engine.delivery.breaker import Breaker
from engine.delivery.decision import Manner
from engine.delivery.destinations.file import FileDestination
from engine.delivery.destinations.whole import WITH_OTHERS, Wholes
from engine.delivery.work import Work
from engine.files.places import folder_of
from engine.ledger.course import FOR_EVER, ChannelBook, Course
from engine.ledger.model import Message
from engine.ledger.outcome import Outcome
from engine.ledger.routing import LEGACY, Mode
from engine.ledger.sqlite import files, schema

RAWS = [b"MSH|^~\\&|LAB||||||ORU^R01|%d|P|2.5\r" % number for number in range(3)]
FILE = b"".join(RAWS)
CAME = 1_000


class Stand:
    """A ledger that holds one file of three messages, the numbers 5 to 7, and a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.connection = sqlite3.connect(":memory:")
        schema.create(self.connection, "test")
        self.book = ChannelBook(1, "drop", 7)
        self.course = Course(self.book, 2, LEGACY, 1, False)
        self.course.frontier = 4
        self.book.courses = [self.course]
        self.due = (1, FOR_EVER, Mode.SEND)
        self.messages = [self._message(5 + at, raw) for at, raw in enumerate(RAWS)]
        self.connection.execute("insert into destination (id, name) values (2, ?)", (LEGACY,))
        self.file(FILE)
        endpoint = Endpoint("old", None, place=Directory(path))
        self.folder = folder_of(Directory(path))
        self.destination = FileDestination("drop", endpoint, self.folder, Breaker("old"), Manner(), None, Wholes(self))

    def _message(self, seq: int, raw: bytes) -> Message:
        message = Message(self.book, raw, CAME, str(seq))
        message.seq, message.id = seq, 100 + seq
        self.connection.execute(
            "insert into message (id, channel, seq, socket, received, raw) values (?,1,?,0,?,?)",
            (message.id, seq, CAME, raw),
        )
        return message

    def file(self, data: bytes, name: str = "1.hl7") -> None:
        digest = hashlib.sha256(data).digest()
        self.connection.execute(files.STATEMENTS["add_file"], (1, name, len(data), digest, CAME))

    async def read(self, query: Callable[[Any], Any]) -> Any:
        return query(SimpleNamespace(connection=self.connection))

    async def backlog(self, course: Course, after: int, limit: int) -> list[Message]:
        return [each for each in self.messages if each.seq > after][:1]

    async def send(self, seq: int, **how: int) -> Outcome:
        heard: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        work = Work(self.messages[seq - 5], lambda _, outcome: heard.set_result(outcome))
        for name, value in how.items():
            setattr(work, name, value)
        self.destination.send(work)
        outcome = await asyncio.wait_for(heard, 10)
        if not how:
            self.connection.execute(
                "insert into receipt (message, channel, seq, destination, part, delivery, revision, epoch, state, at,"
                " term, why) values (?,1,?,2,1,1,1,1,10,0,1,?)",
                (work.message.id, seq, outcome.reason),
            )
            self.course.frontier = seq
        return outcome

    @property
    def written(self) -> list[bytes]:
        return [each.read_bytes() for each in sorted(self.path.iterdir())]


@pytest.fixture
async def stand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    made = Stand(tmp_path)
    monkeypatch.setattr(Course, "stretch", lambda course, seq: made.due)
    yield made
    await made.folder.close()


async def test_the_first_writes_it_and_the_others_are_in_it(stand: Stand) -> None:
    reasons = [(await stand.send(seq)).reason for seq in (5, 6, 7)]
    assert reasons == [WITH_OTHERS, "in the file of message 5", "in the file of message 5"]
    assert stand.written == [FILE]


async def test_where_a_rollback_leaves_some_of_them_to_the_other_side_each_goes_by_itself(stand: Stand) -> None:
    stand.due = (5, 6, Mode.SEND)
    for seq in (5, 6):
        await stand.send(seq)
    assert stand.written == RAWS[:2]


async def test_where_others_have_gone_already_the_first_goes_by_itself(stand: Stand) -> None:
    """It was dead, its lane went on, and a person has it tried again."""
    stand.course.frontier = 7
    await stand.send(5)
    assert stand.written == RAWS[:1]


async def test_where_the_first_went_by_itself_the_others_do_too(stand: Stand) -> None:
    stand.course.frontier = 7
    await stand.send(5)
    stand.course.frontier = 5
    for seq in (6, 7):
        await stand.send(seq)
    assert stand.written == RAWS


@pytest.mark.parametrize("how", [{"delivery": 2}, {"revision": 2}])
async def test_what_a_person_sends_again_goes_by_itself(stand: Stand, how: dict[str, int]) -> None:
    await stand.send(5)
    await stand.send(6, **how)
    assert len(stand.written) == 2


async def test_bytes_that_are_not_those_of_the_file_are_never_written_as_it(stand: Stand) -> None:
    stand.connection.execute("update file set digest = ?", (hashlib.sha256(FILE + b"\n").digest(),))
    for seq in (5, 6, 7):
        await stand.send(seq)
    assert stand.written == RAWS


async def test_two_files_of_one_moment_are_not_put_together(stand: Stand) -> None:
    stand.file(RAWS[2], "2.hl7")
    for seq in (5, 6, 7):
        await stand.send(seq)
    assert stand.written == RAWS

"""A folder that is read: in order, when its files are whole, each once."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from engine.config.edge import Directory, Files
from engine.files import local
from engine.files.folder import FolderError
from engine.files.inbox import Claimed, Fate, Inbox
from engine.files.local import LocalFolder

NOON = 1_760_000_000_000_000  # microseconds since 1970
TOKEN = f"{NOON:014x}"


class Takes:
    """Remembers what it was given; `fates` says what becomes of a name that is not stored."""

    def __init__(self) -> None:
        self.got: list[tuple[str, bytes]] = []
        self.fates: dict[str, Fate] = {}
        self.large: list[tuple[str, int, int]] = []
        self.ids: list[str] = []
        self.news: list[str | None] = []
        self.waiting = 0

    async def take(self, file: Claimed, data: bytes) -> Fate:
        self.got.append((file.name, data))
        self.ids.append(file.id)
        return self.fates.get(file.name, Fate.STORED)

    async def too_large(self, file: Claimed, head: bytes, size: int) -> Fate:
        self.large.append((file.name, len(head), size))
        return Fate.FAILED

    def told(self, down: str | None) -> None:
        self.news.append(down)

    def waits(self, count: int) -> None:
        self.waiting = count

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.got]


class Place:
    """An inbox on a folder of the test's."""

    def __init__(self, path: Path, **settings: object) -> None:
        self.path = path
        self.takes = Takes()
        self.folder = LocalFolder(path)
        files = Files(Directory(path), **{"stable": 0.0, **settings})  # type: ignore[arg-type]
        self.inbox = Inbox(files, self.folder, 1000, self.takes, lambda: NOON)

    async def __aenter__(self) -> Place:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.folder.close()

    @asynccontextmanager
    async def read(self) -> AsyncIterator[None]:
        """It is looked at again and again meanwhile."""
        task = asyncio.create_task(self.inbox.run())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def drop(self, name: str, data: bytes = b"x", modified: float = 1.0) -> None:
        (self.path / name).write_bytes(data)
        os.utime(self.path / name, (modified, modified))

    @property
    def names(self) -> list[str]:
        return sorted(str(each.relative_to(self.path)) for each in self.path.rglob("*") if each.is_file())


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    async with Place(tmp_path) as place:
        yield place


async def test_files_are_taken_in_the_order_of_their_times_then_names(place: Place) -> None:
    place.drop("c.hl7", modified=1)
    place.drop("b.hl7", modified=2)
    place.drop("a.hl7", modified=2)
    await place.inbox.scan()
    assert place.takes.names == ["c.hl7", "a.hl7", "b.hl7"]
    assert place.names == ["archive/a.hl7", "archive/b.hl7", "archive/c.hl7"]


async def test_only_files_of_the_pattern_are_read_and_none_that_is_hidden(place: Place) -> None:
    for name in ("a.HL7", "a.txt", ".a.hl7", ".a.hl7.0123.part", ".other.txt.taking"):
        place.drop(name)
    await place.inbox.scan()
    assert place.takes.names == []
    assert len(place.names) == 5


async def test_a_file_is_read_when_it_has_not_changed_for_a_while(tmp_path: Path) -> None:
    async with Place(tmp_path, stable=2.0) as place:
        loop = asyncio.get_running_loop()
        moment = loop.time()
        loop.time = lambda: moment  # type: ignore[method-assign]
        try:
            place.drop("a.hl7", b"x", modified=1)
            assert await place.inbox.scan() is False
            moment += 1.9
            assert await place.inbox.scan() is False
            place.drop("a.hl7", b"xy", modified=1)  # grew, within the same second
            moment += 1.9
            assert await place.inbox.scan() is False
            moment += 1.9
            assert await place.inbox.scan() is False
            assert place.takes.got == []
            moment += 0.1
            assert await place.inbox.scan() is True
            assert place.takes.got == [("a.hl7", b"xy")]
        finally:
            del loop.time  # type: ignore[method-assign]


async def test_what_comes_after_a_file_that_is_not_ready_waits(tmp_path: Path) -> None:
    async with Place(tmp_path, stable=60.0) as place:
        place.drop("b.hl7", modified=2)
        await place.inbox.scan()
        place.inbox._seen["b.hl7"] = (place.inbox._seen["b.hl7"][0], -1000.0)  # seen long ago
        place.drop("a.hl7", modified=1)
        assert await place.inbox.scan() is False
        assert place.takes.got == []


async def test_a_file_that_grows_while_it_is_claimed_is_read_when_it_has_ended(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.drop("a.hl7", b"half")
    writer = (place.path / "a.hl7").open("ab")
    move = place.folder.move

    async def meanwhile(name: str, to: str) -> None:
        await move(name, to)
        if to.endswith(".taking"):
            writer.write(b" and half")
            writer.flush()

    monkeypatch.setattr(place.folder, "move", meanwhile)
    await place.inbox.scan()
    assert place.takes.got == []
    writer.close()
    await place.inbox.scan()
    assert place.takes.got == [("a.hl7", b"half and half")]


async def test_a_new_file_of_the_same_name_is_never_taken_for_the_one_that_was_read(place: Place) -> None:
    place.drop("a.hl7", b"first")

    async def meanwhile(file: Claimed, data: bytes) -> Fate:
        place.takes.got.append((file.name, data))
        if data == b"first":
            place.drop("a.hl7", b"second")
        return Fate.STORED

    place.takes.take = meanwhile  # type: ignore[method-assign]
    await place.inbox.scan()
    await place.inbox.scan()
    assert place.takes.got == [("a.hl7", b"first"), ("a.hl7", b"second")]
    assert sorted((place.path / name).read_bytes() for name in place.names) == [b"first", b"second"]


async def test_files_of_one_name_are_all_kept_in_the_archive(place: Place) -> None:
    place.drop("a.hl7", b"1")
    await place.inbox.scan()
    place.drop("a.hl7", b"2")
    await place.inbox.scan()
    assert place.names == ["archive/a.hl7", "archive/a.hl7.20251009T085320.000000"]


async def test_files_can_be_removed_instead(tmp_path: Path) -> None:
    async with Place(tmp_path, after="delete") as place:
        place.drop("a.hl7")
        await place.inbox.scan()
        assert place.names == []


async def test_what_cannot_be_read_as_messages_goes_to_a_folder_of_its_own(place: Place) -> None:
    place.takes.fates["a.hl7"] = Fate.FAILED
    place.drop("a.hl7")
    place.drop("b.hl7")
    await place.inbox.scan()
    assert place.names == ["archive/b.hl7", "failed/a.hl7"]


async def test_a_file_over_the_limit_is_not_taken(place: Place) -> None:
    place.drop("a.hl7", b"x" * 1001)
    await place.inbox.scan()
    assert place.takes.large == [("a.hl7", 1001, 1001)]
    assert place.names == ["failed/a.hl7"]


async def test_what_cannot_be_stored_now_is_tried_again_and_the_rest_waits(place: Place) -> None:
    place.takes.fates["a.hl7"] = Fate.LATER
    place.drop("a.hl7", modified=1)
    place.drop("b.hl7", modified=2)
    await place.inbox.scan()
    assert place.takes.names == ["a.hl7"]
    assert place.inbox.waiting == place.takes.waiting == 2
    place.takes.fates.clear()
    await place.inbox.scan()
    assert place.takes.names == ["a.hl7", "a.hl7", "b.hl7"]
    assert place.inbox.waiting == place.takes.waiting == 0


async def test_what_an_ended_process_had_claimed_is_read_first(place: Place) -> None:
    place.drop(f".z.hl7~{TOKEN}.taking", modified=9)
    place.drop("a.hl7", modified=1)
    await place.inbox.scan()
    assert place.takes.names == ["z.hl7", "a.hl7"]
    assert place.names == ["archive/a.hl7", "archive/z.hl7"]


async def test_a_claim_without_a_token_is_understood(place: Place) -> None:
    place.drop(".a~0.hl7.taking")
    await place.inbox.scan()
    assert (place.takes.names, place.takes.ids) == (["a~0.hl7"], [".a~0.hl7.taking"])
    assert place.names == ["archive/a~0.hl7"]


async def test_every_claim_has_a_name_that_no_other_file_has(place: Place) -> None:
    place.takes.fates["a.hl7"] = Fate.LATER
    place.drop("a.hl7")
    await place.inbox.scan()
    place.drop("a.hl7")  # the same once more, while the first is in hand, at the same moment
    place.takes.fates.clear()
    await place.inbox.scan()
    first, again, second = place.takes.ids
    assert first == again == f".a.hl7~{TOKEN}.taking"
    assert second == f".a.hl7~{NOON + 1:014x}.taking"


async def test_a_claim_is_on_disk_before_the_file_is_read(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[str] = []
    sync, read = local._sync, local._read
    monkeypatch.setattr(local, "_sync", lambda path: (steps.append(f"sync {path.name}"), sync(path)))
    monkeypatch.setattr(local, "_read", lambda path, most: (steps.append("read"), read(path, most))[1])
    place.drop("a.hl7")
    await place.inbox.scan()
    assert steps == [f"sync {place.path.name}", "read"]


async def test_what_waits_for_a_person_is_kept_even_where_files_are_removed(tmp_path: Path) -> None:
    async with Place(tmp_path, after="delete") as place:
        place.takes.fates["a.hl7"] = Fate.PARKED
        place.drop("a.hl7")
        await place.inbox.scan()
        assert place.names == ["parked/a.hl7"]


async def test_at_the_end_what_is_in_hand_is_taken_at_once_and_nothing_new(tmp_path: Path) -> None:
    async with Place(tmp_path, stable=60.0) as place:
        place.drop("a.hl7", modified=1)
        place.drop("b.hl7", modified=2)
        await place.inbox.scan()
        for name, (entry, _) in list(place.inbox._seen.items()):
            place.inbox._seen[name] = (entry, -1000.0)  # seen long ago
        place.takes.fates["a.hl7"] = Fate.LATER
        await place.inbox.scan()
        assert place.names == [f".a.hl7~{TOKEN}.taking", "b.hl7"]
        assert await place.inbox.finish() is False
        place.takes.fates.clear()
        assert await place.inbox.finish() is True
        assert place.takes.names == ["a.hl7"] * 3
        assert place.names == ["archive/a.hl7", "b.hl7"]


async def test_at_the_end_a_place_that_is_down_is_not_finished(place: Place) -> None:
    place.path.rmdir()
    assert await place.inbox.finish() is False


@pytest.mark.parametrize("fate", [Fate.STORED, Fate.FAILED])
async def test_a_file_that_only_has_to_be_moved_is_not_read_again(
    place: Place, monkeypatch: pytest.MonkeyPatch, fate: Fate
) -> None:
    place.takes.fates["a.hl7"] = fate
    place.drop("a.hl7")
    move = place.folder.move

    async def refuses(name: str, to: str) -> None:
        if "/" in to:
            raise FolderError("permission denied", fault=True)
        await move(name, to)

    with monkeypatch.context() as patch:
        patch.setattr(place.folder, "move", refuses)
        for _ in range(3):
            await place.inbox.scan()
            assert place.inbox.down == "permission denied"
    await place.inbox.scan()
    assert place.inbox.down is None
    assert place.takes.news == ["permission denied", None]
    assert place.takes.names == ["a.hl7"]
    assert not any(name.startswith(".") for name in place.names)


async def test_a_place_that_goes_down_and_comes_back_is_told_once_each(place: Place) -> None:
    await place.inbox.scan()
    await place.inbox.scan()
    assert place.takes.news == [None]
    place.path.rename(place.path.with_name("elsewhere"))
    await place.inbox.scan()
    await place.inbox.scan()
    assert place.inbox.down == "the folder is not there"
    assert place.takes.news == [None, "the folder is not there"]
    place.path.with_name("elsewhere").rename(place.path)
    await place.inbox.scan()
    assert (place.takes.news[2:], place.inbox.down) == ([None], None)


async def test_a_place_that_is_down_at_first_is_told(place: Place) -> None:
    place.path.rmdir()
    await place.inbox.scan()
    assert place.takes.news == [place.inbox.down] == ["the folder is not there"]


@pytest.mark.parametrize("when", ["before the claim", "before it is read", "before it is moved"])
async def test_a_file_that_somebody_takes_away_stops_nobody(
    place: Place, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    place.drop("a.hl7", modified=1)
    place.drop("b.hl7", modified=2)
    move, read = place.folder.move, place.folder.read

    async def moving(name: str, to: str) -> None:
        if (name == "a.hl7" and when == "before the claim") or ("/a" in to and when == "before it is moved"):
            (place.path / name).unlink()
        await move(name, to)

    async def reading(name: str, most: int) -> bytes:
        if name.startswith(".a.hl7~") and when == "before it is read":
            (place.path / name).unlink()
        return await read(name, most)

    monkeypatch.setattr(place.folder, "move", moving)
    monkeypatch.setattr(place.folder, "read", reading)
    await place.inbox.scan()
    assert place.takes.names[-1:] == ["b.hl7"]
    assert place.inbox.down is None


async def test_it_goes_on_by_itself(tmp_path: Path) -> None:
    async with Place(tmp_path, poll=0.001) as place:
        came = asyncio.Event()
        take = place.takes.take

        async def taking(file: Claimed, data: bytes) -> Fate:
            came.set()
            return await take(file, data)

        place.takes.take = taking  # type: ignore[method-assign]
        async with place.read():
            for name in ("a.hl7", "b.hl7"):
                came.clear()
                place.drop(name)
                await asyncio.wait_for(came.wait(), 10)
        assert place.takes.names == ["a.hl7", "b.hl7"]


async def test_a_defect_does_not_end_it(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    monkeypatch.setattr("engine.files.inbox.emit", lambda event: told.append(event.name()))
    monkeypatch.setattr("engine.files.inbox.AGAIN", 0.0)
    taken = asyncio.Event()

    async def fails_once(file: Claimed, data: bytes) -> Fate:
        place.takes.got.append((file.name, data))
        if len(place.takes.got) == 1:
            raise RuntimeError("a defect")
        taken.set()
        return Fate.STORED

    place.takes.take = fails_once  # type: ignore[method-assign]
    place.drop("a.hl7")
    async with place.read():
        await asyncio.wait_for(taken.wait(), 10)
    assert (place.takes.names, told) == (["a.hl7"] * 2, ["fault"])

"""What every folder does, whether it is one of this machine or one of a real SFTP server."""

from __future__ import annotations

import os
import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from engine.config.edge import Directory
from engine.files.folder import HEAD_BYTES, Entry, FileTaken, FileTooLarge, Folder, FolderError, NoSuchFile
from engine.files.places import folder_of
from tests.support.listing import names
from tests.support.sshd import Sshd

DATA = b"MSH|^~\\&|a\rPID|1\r"
LARGE = random.Random(1).randbytes(20 << 20)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the folder lies."""
    return tmp_path / "drop"


@pytest.fixture(params=["local", "sftp"])
async def drop(request: pytest.FixtureRequest, path: Path) -> AsyncIterator[Folder]:
    server = None
    if request.param == "sftp":
        server = Sshd(path.parent)
        server.start()
    else:
        os.mkdir(path)
    folder = folder_of(server.place() if server else Directory(path))
    yield folder
    await folder.close()
    if server:
        server.kill()


async def test_what_is_put_is_there_whole_and_nothing_else(drop: Folder, path: Path) -> None:
    await drop.put("a.hl7", DATA)
    assert (path / "a.hl7").read_bytes() == DATA
    await drop.put("a.hl7", DATA)
    assert names(path) == ["a.hl7"]


@pytest.mark.parametrize("other", [b"", DATA[:-1], DATA + b"x", DATA[:-1] + b"x"])
async def test_another_file_of_that_name_is_never_overwritten(drop: Folder, path: Path, other: bytes) -> None:
    (path / "a.hl7").write_bytes(other)
    with pytest.raises(FileTaken):
        await drop.put("a.hl7", DATA)
    assert (path / "a.hl7").read_bytes() == other
    assert names(path) == ["a.hl7"]


async def test_twenty_megabytes_go_both_ways_and_no_more_is_read_than_may_be(drop: Folder, path: Path) -> None:
    await drop.put("a.hl7", LARGE)
    assert (path / "a.hl7").read_bytes() == LARGE
    assert await drop.read("a.hl7", len(LARGE)) == LARGE
    with pytest.raises(FileTooLarge) as refused:
        await drop.read("a.hl7", len(LARGE) - 1)
    assert (refused.value.head, refused.value.size) == (LARGE[:HEAD_BYTES], len(LARGE))


async def test_files_are_listed_and_nothing_else(drop: Folder, path: Path) -> None:
    (path / "a.hl7").write_bytes(DATA)
    os.utime(path / "a.hl7", (5, 7))
    (path / ".b").write_bytes(b"")
    (path / "folder").mkdir()
    (path / "link").symlink_to(path / "a.hl7")
    found = {each.name: each for each in await drop.entries()}
    assert found.keys() == {"a.hl7", ".b"}
    assert found["a.hl7"] == Entry("a.hl7", len(DATA), 7.0)


async def test_a_name_that_is_no_utf_8_is_read_and_moved_like_any_other(drop: Folder, path: Path) -> None:
    (path / os.fsdecode(b"M\xfcller.hl7")).write_bytes(DATA)
    (entry,) = await drop.entries()
    assert await drop.read(entry.name, 100) == DATA
    await drop.move(entry.name, f"archive/{entry.name}")
    assert os.listdir(os.fsencode(path / "archive")) == [b"M\xfcller.hl7"]


async def test_a_file_is_moved_into_a_folder_that_is_made_and_never_over_another(drop: Folder, path: Path) -> None:
    for name in ("a.hl7", "b.hl7"):
        (path / name).write_bytes(name.encode())
    await drop.move("a.hl7", "archive/x.hl7")
    with pytest.raises(FileTaken):
        await drop.move("b.hl7", "archive/x.hl7")
    assert (path / "archive/x.hl7").read_bytes() == b"a.hl7"
    with pytest.raises(NoSuchFile):
        await drop.move("a.hl7", "archive/y.hl7")


async def test_whether_files_can_be_written_is_tried_and_nothing_is_left_or_seen(drop: Folder, path: Path) -> None:
    seen: list[str] = []
    publish = drop._publish

    async def watched(temporary: str, name: str) -> None:
        await publish(temporary, name)
        seen.extend(os.listdir(path))

    drop._publish = watched  # type: ignore[method-assign]
    assert await drop.try_writing() is None
    assert len(seen) == 1
    assert seen[0].startswith("."), "readers pass over what is hidden"
    assert os.listdir(path) == []
    os.rmdir(path)
    assert await drop.try_writing() == "the folder is not there"


async def test_what_is_not_there_is_told(drop: Folder, path: Path) -> None:
    with pytest.raises(NoSuchFile):
        await drop.read("a.hl7", 10)
    assert await drop.remove("a.hl7") is False
    (path / "a.hl7").write_bytes(DATA)
    assert await drop.remove("a.hl7") is True
    assert await drop.check() is None
    os.rename(path, path.with_name("elsewhere"))
    for act in (drop.put("a.hl7", DATA), drop.entries()):
        with pytest.raises(FolderError, match="the folder is not there") as failed:
            await act
        assert failed.value.fault
    assert await drop.check() == "the folder is not there"

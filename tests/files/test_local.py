"""A folder of this machine: whole files or none, and none overwritten."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from engine.files import folder as folders
from engine.files.folder import FileTaken, FolderError
from engine.files.local import LocalFolder
from tests.support.listing import names

DATA = b"MSH|^~\\&|a\rPID|1\r"


@pytest.fixture
async def drop(tmp_path: Path) -> AsyncIterator[LocalFolder]:
    folder = LocalFolder(tmp_path)
    yield folder
    await folder.close()


def failing(code: int) -> Callable[..., Any]:
    def fail(*_: object, **__: object) -> None:
        raise OSError(code, "it failed")

    return fail


async def test_the_same_again_is_done(drop: LocalFolder, tmp_path: Path) -> None:
    await drop.put("a.hl7", DATA)
    before = (tmp_path / "a.hl7").stat()
    await drop.put("a.hl7", DATA)
    assert (tmp_path / "a.hl7").stat().st_ino == before.st_ino


@pytest.mark.parametrize("links", [True, False])
async def test_a_file_that_comes_in_between_is_not_overwritten(
    drop: LocalFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool
) -> None:
    if not links:
        monkeypatch.setattr(os, "link", failing(errno.EPERM))
    write = LocalFolder._write

    async def slow(self: LocalFolder, name: str, data: bytes) -> None:
        await write(self, name, data)
        (tmp_path / "a.hl7").write_bytes(b"theirs")

    monkeypatch.setattr(LocalFolder, "_write", slow)
    with pytest.raises(FileTaken):
        await drop.put("a.hl7", DATA)
    assert (tmp_path / "a.hl7").read_bytes() == b"theirs"


@pytest.mark.parametrize("code", [errno.EPERM, errno.EOPNOTSUPP])
async def test_where_there_are_no_hard_links_a_file_is_renamed(
    drop: LocalFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    monkeypatch.setattr(os, "link", failing(code))
    await drop.put("a.hl7", DATA)
    assert names(tmp_path) == ["a.hl7"]
    (tmp_path / "b.hl7").write_bytes(b"theirs")
    with pytest.raises(FileTaken):
        await drop.put("b.hl7", DATA)


async def test_both_the_file_and_its_name_are_on_disk_before_it_is_done(
    drop: LocalFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    fsync, link = os.fsync, os.link

    def syncing(descriptor: int) -> None:
        order.append(f"sync {Path(f'/proc/self/fd/{descriptor}').readlink().name[:1]}")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", syncing)
    monkeypatch.setattr(os, "link", lambda a, b: (order.append("link"), link(a, b)))
    await drop.put("a.hl7", DATA)
    assert order == ["sync .", "link", f"sync {tmp_path.name[:1]}"]
    order.clear()
    await drop.put("a.hl7", DATA)  # as after a crash between the two
    assert order == ["sync a", f"sync {tmp_path.name[:1]}"]


@pytest.mark.parametrize(
    ("code", "reason", "fault"),
    [
        (errno.ENOSPC, "no space left", False),
        (errno.EACCES, "permission denied", True),
        (errno.EROFS, "the file system is read-only", True),
        (errno.EIO, "the file system said EIO", False),
    ],
)
async def test_what_went_wrong_is_said_and_nothing_is_left(
    drop: LocalFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, reason: str, fault: bool
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", failing(code))
        with pytest.raises(FolderError) as failed:
            await drop.put("a.hl7", DATA)
    assert (failed.value.reason, failed.value.fault, failed.value.uncertain) == (reason, fault, False)
    assert names(tmp_path) == []
    await drop.put("a.hl7", DATA)


async def test_no_file_is_there_before_it_is_whole(
    drop: LocalFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[list[str]] = []
    fsync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda fd: (seen.append(names(tmp_path)), fsync(fd))[1])
    await drop.put("a.hl7", DATA)
    assert len(seen[0]) == 1
    assert seen[0][0].startswith(".a.hl7.")


async def test_what_an_ended_process_left_is_removed_after_an_hour(drop: LocalFolder, tmp_path: Path) -> None:
    old, new, foreign = (tmp_path / name for name in (".a.hl7.0011.part", ".b.hl7.0011.part", ".hidden"))
    for path in (old, new, foreign):
        path.write_bytes(b"half")
    for path in (old, foreign):
        os.utime(path, (1_700_000_000, 1_700_000_000))
    await drop.put("a.hl7", DATA)
    assert names(tmp_path) == [".b.hl7.0011.part", ".hidden", "a.hl7"]
    assert folders.ABANDONED == 3600


async def test_a_look_says_whether_the_folder_can_be_used(drop: LocalFolder, tmp_path: Path) -> None:
    assert await drop.check() is None
    (tmp_path / "file").write_bytes(b"")
    file = LocalFolder(tmp_path / "file")
    assert await file.check() == "the folder is a file"
    await file.close()
    if os.geteuid() != 0:
        os.chmod(tmp_path, 0o500)
        assert await drop.check() == "permission denied"
        os.chmod(tmp_path, 0o700)


async def test_several_at_once_are_all_there(drop: LocalFolder, tmp_path: Path) -> None:
    await asyncio.gather(*(drop.put(f"{n}.hl7", DATA * n) for n in range(20)))
    assert len(names(tmp_path)) == 20

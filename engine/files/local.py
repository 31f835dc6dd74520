"""A folder of this machine. Its calls block, so they run on a thread of the folder's own: a network mount that hangs
holds up its own channel and no other."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import stat
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from engine.files.folder import HEAD_BYTES, Entry, FileTaken, FileTooLarge, Folder, FolderError, NoSuchFile

T = TypeVar("T")

_REASONS = {
    errno.EACCES: ("permission denied", True),
    errno.EPERM: ("permission denied", True),
    errno.EROFS: ("the file system is read-only", True),
    errno.ENOTDIR: ("the folder is a file", True),
    errno.ENAMETOOLONG: ("the name is too long", True),
    errno.ENOSPC: ("no space left", False),
    errno.EDQUOT: ("no space left in the quota", False),
    errno.ESTALE: ("the network mount is stale", False),
}
_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}  # no hard links here


class LocalFolder(Folder):
    """`path` need not exist yet; until it does, every call says so."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path
        self._thread = ThreadPoolExecutor(1, f"folder {path.name}")

    async def entries(self) -> list[Entry]:
        return await self._run(self._entries)

    async def read(self, name: str, most: int) -> bytes:
        return await self._run(lambda: _read(self._path / name, most))

    async def move(self, name: str, to: str) -> None:
        def act() -> None:
            _move(self._path / name, self._path / to)
            if "/" not in to:
                _sync(self._path)

        await self._run(act)

    async def remove(self, name: str) -> bool:
        try:
            await self._run((self._path / name).unlink)
        except NoSuchFile:
            return False
        return True

    async def check(self) -> str | None:
        try:
            await self._run(self._look)
        except FolderError as error:
            return error.reason
        return None

    async def close(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _write(self, name: str, data: bytes) -> None:
        await self._run(lambda: self._write_new(self._path / name, data))

    async def _publish(self, temporary: str, name: str) -> None:
        await self._run(lambda: self._name(self._path / temporary, self._path / name))

    async def _secure(self, name: str) -> None:
        def act() -> None:
            _sync(self._path / name)
            _sync(self._path)

        await self._run(act)

    async def _run(self, act: Callable[[], T]) -> T:
        def run() -> T:
            try:
                return act()
            except FolderError:
                raise
            except FileNotFoundError:
                if not self._path.is_dir():
                    raise FolderError("the folder is not there", fault=True) from None
                raise NoSuchFile from None
            except OSError as error:
                reason, fault = _REASONS.get(error.errno or 0, (f"the file system said {_code(error)}", False))
                raise FolderError(reason, fault=fault) from None

        return await asyncio.get_running_loop().run_in_executor(self._thread, run)

    # -- on the thread

    def _entries(self) -> list[Entry]:
        entries = []
        with os.scandir(self._path) as found:
            for each in found:
                with contextlib.suppress(FileNotFoundError):  # gone meanwhile
                    if each.is_file(follow_symlinks=False):
                        seen = each.stat(follow_symlinks=False)
                        entries.append(Entry(each.name, seen.st_size, seen.st_mtime))
        return entries

    def _look(self) -> None:
        if not stat.S_ISDIR(self._path.stat().st_mode):
            raise NotADirectoryError(errno.ENOTDIR, "")
        if not os.access(self._path, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, "")

    def _write_new(self, path: Path, data: bytes) -> None:
        try:
            with path.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        except OSError:
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)  # what did not fit takes no room
            raise

    def _name(self, temporary: Path, path: Path) -> None:
        _link(temporary, path)
        try:
            _sync(self._path)
        except OSError as error:
            raise FolderError(f"the file system said {_code(error)}", uncertain=True) from None


def _read(path: Path, most: int) -> bytes:
    with path.open("rb") as file:
        data = file.read(most + 1)
        if len(data) > most:
            raise FileTooLarge(data[:HEAD_BYTES], max(len(data), os.fstat(file.fileno()).st_size))
        return data


def _link(path: Path, to: Path) -> None:
    """Rename, but never over another file: a link says no where the name exists, rename() would not."""
    try:
        os.link(path, to)
    except FileExistsError:
        raise FileTaken from None
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        if os.path.lexists(to):
            raise FileTaken from None
        path.rename(to)
    else:
        path.unlink()


def _move(path: Path, to: Path) -> None:
    if not os.path.lexists(path):
        raise NoSuchFile
    to.parent.mkdir(exist_ok=True)
    if os.path.lexists(to):  # nobody else writes where we move to, so nothing comes between this and the next line
        raise FileTaken
    path.rename(to)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _code(error: OSError) -> str:
    return errno.errorcode.get(error.errno or 0, "error")

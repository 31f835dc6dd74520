"""A folder, wherever it is: what can be done with the files in it, and what is certain afterwards.

Names are plain: no slash, one folder. A file is written under a hidden temporary name and then given its own in one
step, so that a reader sees a whole file or none; and nothing that is there is ever overwritten.
"""

from __future__ import annotations

import secrets
from abc import ABC, abstractmethod
from dataclasses import dataclass
from time import time

HEAD_BYTES = 64 * 1024  # how much of a file that is too large is read, as evidence
PART = ".part"  # how a temporary name ends; it begins with a dot
ABANDONED = 3600.0  # seconds after which a temporary file belongs to a process that no longer is
LONGEST_NAME = 200  # bytes of a name that is written: a temporary one is longer, and 255 is what file systems take


class FolderError(Exception):
    """Something did not work. `reason` is short and stable, and holds neither names nor contents.

    fault: a person has to mend the place (credentials, permissions, a missing folder); else it may pass by itself.
    uncertain: what was asked may have been done all the same.
    """

    def __init__(self, reason: str, *, fault: bool = False, uncertain: bool = False) -> None:
        super().__init__(reason)
        self.reason, self.fault, self.uncertain = reason, fault, uncertain


class NoSuchFile(FolderError):
    """The file is not there (any more)."""

    def __init__(self) -> None:
        super().__init__("no such file")


class FileTaken(FolderError):
    """The name belongs to another file."""

    def __init__(self) -> None:
        super().__init__("another file has this name")


class FileTooLarge(FolderError):
    """A file over the limit: its first bytes (at most HEAD_BYTES), and its size in bytes as far as it is known."""

    def __init__(self, head: bytes, size: int) -> None:
        super().__init__("larger than this place takes")
        self.head, self.size = head, size


@dataclass(frozen=True, slots=True)
class Entry:
    """A file. size: bytes. modified: seconds since 1970, by the clock of the machine that has the file."""

    name: str
    size: int
    modified: float


class Folder(ABC):
    """One folder. Every method but `close` may raise FolderError, and nothing else."""

    def __init__(self) -> None:
        self._left: set[str] | None = None  # temporary files to be removed; None: not looked for yet
        self._doubts: dict[str, str] = {}  # name asked for without an answer → the temporary file that was to get it

    # -- what a place has to be able to do

    @abstractmethod
    async def entries(self) -> list[Entry]:
        """The regular files, hidden ones too, in no order. Folders and links are left out."""

    @abstractmethod
    async def read(self, name: str, most: int) -> bytes:
        """A whole file. Raises NoSuchFile, and FileTooLarge where it has more than `most` bytes."""

    @abstractmethod
    async def move(self, name: str, to: str) -> None:
        """Give a file another name, in one step: `to` may be `folder/name` beneath this one; the folder is made. A new
        name in this folder itself is on disk where that can be asked for.

        Raises NoSuchFile, and FileTaken where `to` exists.
        """

    @abstractmethod
    async def remove(self, name: str) -> bool:
        """Remove a file. Whether it was there."""

    @abstractmethod
    async def check(self) -> str | None:
        """Why the folder cannot be used; None where it can, as far as that is seen without writing."""

    @abstractmethod
    async def close(self) -> None:
        """End what is open. Never raises."""

    @abstractmethod
    async def _write(self, name: str, data: bytes) -> None:
        """Make a file that is not there yet, and have its bytes on disk where that can be asked for."""

    @abstractmethod
    async def _publish(self, temporary: str, name: str) -> None:
        """Give a written file its name, in one step. Raises FileTaken where the name exists, and an `uncertain` error
        where no answer came."""

    @abstractmethod
    async def _secure(self, name: str) -> None:
        """Have a file that is there, and its name, on disk where that can be asked for."""

    # -- writing

    async def try_writing(self) -> str | None:
        """Why no file can be written as `put` does it; None where one was, under names that are hidden, and removed
        again."""
        name = f".interlock-test.{secrets.token_hex(4)}"
        first, second = f"{name}.1{PART}", f"{name}.2{PART}"
        try:
            await self._write(first, b"interlock test-connection\n")
            await self._publish(first, second)
            await self.remove(second)
        except FolderError as error:
            return error.reason
        return None

    async def put(self, name: str, data: bytes) -> None:
        """Write a file. One that is there with the same bytes is done; raises FileTaken where it has others.

        After an error that is not `uncertain` the file did not appear, and will not. What is uncertain is found out by
        the next `put` of the same file, also where the file was taken away meanwhile.
        """
        assert plain(name), "a name of a single file is wanted"
        if (name in self._doubts and await self._appeared(name, data)) or await self.holds(name, data):
            return
        left = await self._tidy()
        # A name that is never used twice: at the server, an upload that was cut off may still be going on.
        temporary = f".{name}.{secrets.token_hex(4)}{PART}"
        left.add(temporary)
        await self._write(temporary, data)
        try:
            await self._publish(temporary, name)
        except FileTaken:
            if not await self.holds(name, data):  # raises FileTaken where it is really another
                raise
        except FolderError as error:
            if not error.uncertain:
                raise
            self._doubts[name] = temporary
            if not await self._appeared(name, data):
                raise FolderError(error.reason) from None

    async def _appeared(self, name: str, data: bytes) -> bool:
        """Whether a file got the name that was asked for without an answer. Either the temporary file is still there,
        and once it is removed nothing can appear any more; or it got the name, even if that is gone by now."""
        try:
            appeared = await self.holds(name, data) or not await self.remove(self._doubts[name])
        except FileTaken:
            del self._doubts[name]
            raise
        except FolderError as error:
            raise FolderError(error.reason, uncertain=True) from None
        del self._doubts[name]
        return appeared

    async def holds(self, name: str, data: bytes) -> bool:
        """Whether the file is there with exactly these bytes, to stay. Raises FileTaken where it has others."""
        try:
            found = await self.read(name, len(data))
        except NoSuchFile:
            return False
        except FileTooLarge:
            raise FileTaken from None
        if found != data:
            raise FileTaken
        await self._secure(name)
        return True

    async def _tidy(self) -> set[str]:
        """Remove what was begun and not ended, by this process or, an hour ago, by one before it."""
        if self._left is None:
            try:
                self._left = {each.name for each in await self.entries() if abandoned(each, time())}
            except FolderError as error:
                if not error.fault:
                    raise  # the place is away: so it would be for the file
                self._left = set()  # a folder to drop into need not let us look
        for name in list(self._left):
            if name not in self._doubts.values():
                await self.remove(name)
                self._left.discard(name)
        return self._left


def plain(name: str) -> bool:
    """Whether a name is that of a file within the folder, and of none that is hidden."""
    return bool(name) and not name.startswith(".") and not set(name) & set("/\\\0")


def hidden(name: str) -> bool:
    return name.startswith(".")


def storable(name: str) -> str:
    """A file's name as text that can be stored, even where it was no UTF-8."""
    return name.encode("utf-8", "backslashreplace").decode()


def abandoned(entry: Entry, now: float) -> bool:
    """Whether a file is a temporary one whose writer is gone. `now`: seconds since 1970."""
    return hidden(entry.name) and entry.name.endswith(PART) and now - entry.modified > ABANDONED

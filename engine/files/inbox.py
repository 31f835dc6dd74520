"""A folder that is read: each file whole, once, in its order.

    seen, and unchanged for `stable` seconds
      → claimed: renamed to a hidden name that no other file ever has, so that none is taken for this one
      → read, and given to whoever takes it: durable from then on
      → moved to the archive or removed; or moved to a folder for what is not stored

A file is a claimed one or not yet one in every moment. What an ended process has claimed is read before anything else;
whoever takes it knows by its claimed name whether it was taken already. So the same file put there again is a new one.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Callable
from datetime import UTC, datetime
from enum import Enum
from fnmatch import fnmatchcase
from typing import NamedTuple, Protocol

from engine.config.edge import Files
from engine.files.folder import Entry, FileTaken, FileTooLarge, Folder, FolderError, NoSuchFile, hidden, storable
from engine.observe.events import emit
from engine.observe.service_events import Fault

AGAIN = 1.0  # seconds after a defect of ours
PARKED = "parked"  # the folder of what waits for a person, beneath the place

# `.NAME~TOKEN.taking`; without a token where it was claimed by an earlier version.
_CLAIMED = re.compile(r"\.(.+?)(?:~[0-9a-f]{14})?\.taking", re.DOTALL)


class Fate(Enum):
    """What becomes of a file that was read."""

    STORED = "stored"  # durable: to the archive
    PARKED = "parked"  # durable, and a person decides about it: to `parked`
    FAILED = "failed"  # never to be read again as it is: to `failed`
    LATER = "later"  # could not be taken now: tried again, and what comes after it waits


class Claimed(NamedTuple):
    """A file in hand. name: what it was called. id: its claimed name, as text that can be stored."""

    name: str
    id: str


class Taker(Protocol):
    """Who gets the files."""

    async def take(self, file: Claimed, data: bytes) -> Fate: ...

    async def too_large(self, file: Claimed, head: bytes, size: int) -> Fate: ...

    def told(self, down: str | None) -> None:
        """Hears at first, and whenever it has changed, why the place cannot be read; None where it can."""

    def waits(self, count: int) -> None:
        """Hears how many files are there and not taken."""


class Inbox:
    """One place that one reader reads."""

    def __init__(self, files: Files, folder: Folder, most: int, taker: Taker, now: Callable[[], int]) -> None:
        """most: bytes of the largest file. now: microseconds since 1970. The folder is closed by whoever opened it."""
        self.down: str | None = None  # why the place cannot be read
        self.waiting = 0  # files that are there and not taken, as of the last look
        self._files = files
        self._folder = folder
        self._most = most
        self._taker = taker
        self._now = now
        self._token = 0
        self._seen: dict[str, tuple[Entry, float]] = {}  # name → as it was, and since when (the event loop's clock)
        self._done: dict[str, tuple[Entry, Fate]] = {}  # claimed names that only have to be moved away
        self._told = False

    async def run(self) -> None:
        """Look for ever; ends when it is cancelled."""
        poll = self._files.poll
        while True:
            try:
                pause = poll if await self.scan() else min(poll, self._files.stable)
            except Exception as error:  # a defect must not end it: the file is still there
                emit(Fault.of(error))
                pause = AGAIN
            await asyncio.sleep(pause)

    async def scan(self) -> bool:
        """Look once and take what is there. False where a file has yet to become stable."""
        return await self._look(new=True)

    async def finish(self) -> bool:
        """Take what is claimed, and nothing new: it is hidden from whoever reads here next. Whether none is left."""
        return await self._look(new=False) and self.down is None and self.waiting == 0

    async def _look(self, *, new: bool) -> bool:
        stable, reason = True, None
        try:
            stable = await self._scan(new)
        except FolderError as error:
            reason = error.reason
        news = reason != self.down or not self._told
        self.down, self._told = reason, True
        if news:
            self._taker.told(reason)
        return stable

    async def _scan(self, new: bool) -> bool:
        entries = await self._folder.entries()
        claimed = sorted((each for each in entries if self._wants(_claimed(each.name))), key=_order)
        fresh = sorted((each for each in entries if not hidden(each.name) and self._wants(each.name)), key=_order)
        found = [*claimed, *fresh] if new else claimed
        self._note(found)
        for entry in found:
            if not self._stable(entry):
                return False
            if not await self._one(await self._claim(entry)):
                break
            self._count(self.waiting - 1)
        return True

    def _wants(self, name: str | None) -> bool:
        return name is not None and fnmatchcase(name, self._files.pattern)

    def _note(self, entries: list[Entry]) -> None:
        clock = asyncio.get_running_loop().time()
        before, self._seen = self._seen, {}
        for entry in entries:
            known = before.get(entry.name)
            self._seen[entry.name] = known if known and known[0] == entry else (entry, clock)
        self._done = {name: done for name, done in self._done.items() if name in self._seen}
        self._count(len(entries))

    def _count(self, waiting: int) -> None:
        self.waiting = waiting
        self._taker.waits(waiting)

    def _stable(self, entry: Entry) -> bool:
        return asyncio.get_running_loop().time() - self._seen[entry.name][1] >= self._files.stable

    async def _claim(self, entry: Entry) -> Entry:
        if hidden(entry.name):
            return entry
        self._token = max(self._token + 1, self._now())
        claimed = Entry(f".{entry.name}~{self._token:014x}.taking", entry.size, entry.modified)
        with contextlib.suppress(NoSuchFile):  # somebody was quicker: that it is gone is seen when it is read
            await self._folder.move(entry.name, claimed.name)
            self._seen[claimed.name] = (claimed, self._seen[entry.name][1])
        return claimed

    async def _one(self, entry: Entry) -> bool:
        """Take a claimed file and move it away. False where it has to be tried again."""
        file = Claimed(_claimed(entry.name) or "", storable(entry.name))
        known, fate = self._done.get(entry.name, (None, Fate.LATER))
        with contextlib.suppress(NoSuchFile):  # somebody took it away
            if known != entry:
                fate = await self._take(file, entry)
            if fate is Fate.LATER:
                return False
            self._done[entry.name] = (entry, fate)
            await self._away(entry.name, file.name, fate)
        self._done.pop(entry.name, None)
        return True

    async def _take(self, file: Claimed, entry: Entry) -> Fate:
        try:
            data = await self._folder.read(entry.name, self._most)
        except FileTooLarge as large:
            return await self._taker.too_large(file, large.head, large.size)
        if len(data) != entry.size:  # its writer was not ready: it has to become stable under its new name
            return Fate.LATER
        return await self._taker.take(file, data)

    async def _away(self, claimed: str, name: str, fate: Fate) -> None:
        if fate is Fate.STORED and self._files.after == "delete":
            await self._folder.remove(claimed)
            return
        to = {Fate.STORED: self._files.archive, Fate.PARKED: PARKED, Fate.FAILED: self._files.failed}[fate]
        try:
            await self._folder.move(claimed, f"{to}/{name}")
        except FileTaken:  # senders that give all their files one name
            moment = datetime.fromtimestamp(self._now() / 1e6, UTC)
            await self._folder.move(claimed, f"{to}/{name}.{moment:%Y%m%dT%H%M%S.%f}")


def _claimed(name: str) -> str | None:
    """The name that a claimed file had; None where it is not claimed."""
    found = _CLAIMED.fullmatch(name)
    return found[1] if found else None


def _order(entry: Entry) -> tuple[float, str]:
    return entry.modified, entry.name

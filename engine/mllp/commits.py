"""What a peer hears of its blocks on the transport level (release 2 of MLLP)."""

from __future__ import annotations

from collections.abc import Callable

from engine.mllp.framing import NOT_STORED, STORED


class Commits:
    """Of one connection. The peer takes what it hears in the order of its blocks: so nothing is said of one before it
    is known what became of those before it."""

    __slots__ = ("_came", "_known", "_told", "_write")

    def __init__(self, write: Callable[[bytes], object]) -> None:
        self._write = write
        self._came = 0
        self._told = 0
        self._known: dict[int, bool | None] = {}

    def came(self) -> int:
        """One more block, by its number."""
        self._came += 1
        return self._came

    def became(self, block: int, stored: bool | None) -> None:
        """It is stored, or could not be. None: nothing is to be said of it."""
        self._known[block] = stored
        while self._told + 1 in self._known:
            self._told += 1
            stored = self._known.pop(self._told)
            if stored is not None:
                self._write(STORED if stored else NOT_STORED)

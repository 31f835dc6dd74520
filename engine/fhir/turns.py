"""Taking turns: whoever works on the same key waits, everybody else goes on."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from types import TracebackType

Key = tuple[str, ...]


class Turns:
    """One lock a key, kept only while somebody wants it."""

    def __init__(self) -> None:
        self._locks: dict[Key, _Turn] = {}

    def __len__(self) -> int:
        return len(self._locks)

    def take(self, keys: Iterable[Key]) -> _Taken:
        """Hold all of the keys: `async with turns.take(keys)`.

        They are taken in one order by everybody, so nobody waits in a circle.
        """
        return _Taken(self._locks, sorted(set(keys)))


class _Turn:
    __slots__ = ("lock", "wanted")

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.wanted = 0


class _Taken:
    __slots__ = ("_held", "_keys", "_locks")

    def __init__(self, locks: dict[Key, _Turn], keys: list[Key]) -> None:
        self._locks = locks
        self._keys = keys
        self._held: list[Key] = []

    async def __aenter__(self) -> None:
        try:
            for key in self._keys:
                await self._acquire(key)
        except BaseException:
            self._release()
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._release()

    async def _acquire(self, key: Key) -> None:
        turn = self._locks.get(key)
        if turn is None:
            turn = self._locks[key] = _Turn()
        turn.wanted += 1
        try:
            await turn.lock.acquire()
        except BaseException:
            self._leave(key, turn)
            raise
        self._held.append(key)

    def _release(self) -> None:
        for key in reversed(self._held):
            turn = self._locks[key]
            turn.lock.release()
            self._leave(key, turn)
        self._held.clear()

    def _leave(self, key: Key, turn: _Turn) -> None:
        turn.wanted -= 1
        if not turn.wanted:
            del self._locks[key]

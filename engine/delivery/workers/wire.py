"""The socket between intake and one of its workers: tuples of plain values, both ways, in order.

    4 bytes, the length of the rest, little-endian · a list of tuples, marshalled

What is sent within one turn of the event loop goes out in one piece. Both ends are the same program on the same Python.
"""

from __future__ import annotations

import asyncio
import marshal
from collections.abc import Callable
from enum import IntEnum
from typing import Any

HEAD = 4


class Kind(IntEnum):
    """The first value of each tuple, and what follows it."""

    ATTEMPT = 0  # to a worker: number, project, an Attempt's values
    REACH = 1  # to a worker: number, project
    OUTCOME = 2  # from a worker: number, an Outcome's values
    REACHED = 3  # from a worker: number, whether, why not
    READY = 4  # from a worker: nothing; it takes attempts now
    RECALL = 7  # to a worker: 0, project
    EVENT = 5  # from a worker: an event of engine.observe, pickled
    BEAT = 6  # from a worker: its CPU time in seconds, its resident memory in bytes


class Wire(asyncio.Protocol):
    """One end."""

    def __init__(self, heard: Callable[[tuple[Any, ...]], None], lost: Callable[[], None]) -> None:
        """`heard`: each tuple. `lost`: the other end is gone."""
        self._heard = heard
        self._lost = lost
        self._transport: asyncio.Transport | None = None
        self._data = bytearray()
        self._waiting: list[tuple[Any, ...]] = []

    def send(self, values: tuple[Any, ...]) -> None:
        """Plain values only: numbers, bytes, strings, None, tuples of them."""
        if not self._waiting:
            asyncio.get_running_loop().call_soon(self._flush)
        self._waiting.append(values)

    def close(self) -> None:
        """What was sent goes out first."""
        self._flush()
        if self._transport is not None:
            self._transport.close()

    def _flush(self) -> None:
        waiting, self._waiting = self._waiting, []
        if waiting and self._transport is not None and not self._transport.is_closing():
            data = marshal.dumps(waiting)
            self._transport.write(len(data).to_bytes(HEAD, "little") + data)

    # -- from the event loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment] # uvloop's are no subclass of it

    def data_received(self, data: bytes) -> None:
        self._data += data
        at = 0
        while len(self._data) - at >= HEAD:
            end = at + HEAD + int.from_bytes(self._data[at : at + HEAD], "little")
            if end > len(self._data):
                break
            for values in marshal.loads(memoryview(self._data)[at + HEAD : end]):
                self._heard(values)
            at = end
        if at:
            self._data = self._data[at:]

    def connection_lost(self, error: Exception | None) -> None:
        self._lost()

"""A worker process: takes messages from intake, maps them, delivers them to Medplum, and says what became of each.

`interlock run` starts it with the number of an open socket. It ends when that is closed, at once and whatever it is
doing: then intake has ended, and the next one waits for the delivery lock, which this process has open. Signals for
the whole group of processes are intake's; it ends us when nothing is on its way any more.
"""

from __future__ import annotations

import signal

if __name__ == "__main__":  # before all that takes long to import
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)

import asyncio
import gc
import os
import pickle
import resource
import socket
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import uvloop

from engine.config.model import Configuration
from engine.delivery.attempt import Attempt, values
from engine.delivery.carrier import LocalCarrier
from engine.delivery.workers.wire import HEAD, Kind, Wire
from engine.ledger.outcome import Outcome
from engine.mapping.library import Library
from engine.observe import events
from engine.observe.events import Event, Log
from engine.service.carriers import carrier_to, from_setup, versions_of

BEAT = 1.0  # seconds
COLLECT = (100_000, 50, 50)


class Told(Log):
    """Where this process's events go: to intake, which counts them and writes their lines."""

    def __init__(self, wire: Wire) -> None:
        super().__init__()
        self._wire = wire

    def write(self, event: Event) -> None:
        self._wire.send((Kind.EVENT.value, pickle.dumps(event)))


class Work:
    """What this process does for intake."""

    def __init__(self, configuration: Configuration, library: Library, incarnations: Sequence[str]) -> None:
        self._incarnations = incarnations
        self._configuration = configuration
        self._versions = versions_of(configuration, library)
        self._carriers: dict[str, LocalCarrier] = {}
        self._asking: set[asyncio.Task[None]] = set()
        self.wire = Wire(self._heard, lambda: os._exit(0))

    def ready(self) -> None:
        events.LOG = Told(self.wire)
        self.wire.send((Kind.READY.value,))
        self._beat()

    def _beat(self) -> None:
        used = resource.getrusage(resource.RUSAGE_SELF)
        self.wire.send((Kind.BEAT.value, used.ru_utime + used.ru_stime, _memory()))
        asyncio.get_running_loop().call_later(BEAT, self._beat)

    def _heard(self, told: tuple[Any, ...]) -> None:
        kind, number, project, *rest = told
        if kind == Kind.ATTEMPT:
            self._carrier(project).carry(Attempt(*rest), partial(self._done, number))
        elif kind == Kind.RECALL:
            self._carrier(project).recall()
        else:
            task = asyncio.get_running_loop().create_task(self._reach(number, project))
            self._asking.add(task)
            task.add_done_callback(self._asking.discard)

    def _done(self, number: int, outcome: Outcome) -> None:
        self.wire.send((Kind.OUTCOME.value, number, *values(outcome)))

    async def _reach(self, number: int, project: str) -> None:
        ok, why = await self._carrier(project).reach()
        self.wire.send((Kind.REACHED.value, number, ok, why))

    def _carrier(self, project: str) -> LocalCarrier:
        found = self._carriers.get(project)
        if found is None:
            found = self._carriers[project] = carrier_to(
                project, self._configuration, self._versions, self._incarnations
            )
        return found


def _memory() -> int:
    """Resident bytes; 0 where the system does not tell."""
    try:
        return int(Path("/proc/self/statm").read_bytes().split()[1]) * resource.getpagesize()
    except OSError:
        return 0


async def serve(connection: socket.socket) -> None:
    """Until the other end is closed, which ends the process."""
    work = Work(*from_setup(_read(connection)))
    await asyncio.get_running_loop().create_unix_connection(lambda: work.wire, sock=connection)
    work.ready()
    gc.collect()
    gc.freeze()
    gc.set_threshold(*COLLECT)
    await asyncio.Event().wait()


def _read(connection: socket.socket) -> bytes:
    """The first thing that intake tells. Ends the process where intake has ended before."""
    size = int.from_bytes(_exactly(connection, HEAD), "little")
    return _exactly(connection, size)


def _exactly(connection: socket.socket, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        piece = connection.recv(size - len(data))
        if not piece:
            os._exit(0)
        data += piece
    return bytes(data)


def main() -> None:
    if len(sys.argv) != 2 or not sys.argv[1].isdigit():
        raise SystemExit("this is started by interlock run (workers: N), not by hand")
    uvloop.run(serve(socket.socket(fileno=int(sys.argv[1]))))


if __name__ == "__main__":
    main()

"""The worker processes of one service, as intake sees them.

Everything of one patient goes to the same worker, so that no two processes write the same resources at the same time.
A worker that ends is started again. What was on its way there may have been taken: it is `unknown`, as it would be if
our own process had been killed.
"""

from __future__ import annotations

import asyncio
import contextlib
import pickle
import socket
import sys
import zlib
from collections.abc import Callable
from typing import Any

from engine.delivery import lane
from engine.delivery.attempt import RECALLED, Attempt, outcome_of
from engine.delivery.carrier import AT_ONCE
from engine.delivery.workers.lock import DeliveryLock
from engine.delivery.workers.wire import HEAD, Kind, Wire
from engine.ledger.outcome import Outcome, Result
from engine.observe import worker_events as events
from engine.observe.events import emit
from engine.observe.service_events import Fault

FIRST_WAIT, LONGEST_WAIT = 0.1, 10.0  # seconds until one that ended is started again
WELL_AFTER = 60.0  # seconds after which the next end counts as the first
SILENT = 60.0  # seconds without a beat: it hangs, and is ended
AHEAD = 4 * AT_ONCE  # messages that one worker is given: it finds the next ones there while it waits for the project
LOOK = 5.0  # seconds between looks at whether it hangs
PATIENCE = 3.0  # seconds that messages wait for a worker which does not run
GRACE = 5.0  # seconds that one may take to end

Done = Callable[[Outcome], None]
ENDED = Outcome(Result.UNKNOWN, "its worker process ended", local=True)
AWAY = Outcome(Result.NOT_TAKEN, "its worker process does not run", local=True)


class Workers:
    """All of them."""

    def __init__(self, count: int, module: str, setup: bytes, lock: DeliveryLock) -> None:
        """`module`: what they run, `python -m module FD`. `setup`: the first thing that each is told, pickled."""
        self.each = [Worker(number, module, setup, lock) for number in range(1, count + 1)]
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(each.run(), name=f"worker {each.number}") for each in self.each]

    def slot(self, attempt: Attempt) -> int:
        """Which worker has a message: its first patient's."""
        return zlib.crc32(lane.patient(attempt.raw)) % len(self.each) if len(self.each) > 1 else 0

    def carrier(self, project: str) -> RemoteCarrier:
        return RemoteCarrier(project, self)

    @property
    def told(self) -> dict[str, str]:
        """Why each takes nothing at present; empty where it does."""
        return {str(each.number): each.down for each in self.each}

    async def close(self) -> None:
        for each in self.each:
            each.end()
        await asyncio.gather(*self._tasks, return_exceptions=True)


class RemoteCarrier:
    """Carries to one project by way of the workers (engine.delivery.attempt.Carrier)."""

    def __init__(self, project: str, workers: Workers) -> None:
        self._project = project
        self._workers = workers

    def slot(self, attempt: Attempt) -> int:
        return self._workers.slot(attempt)

    def carry(self, attempt: Attempt, done: Done, slot: int | None = None) -> None:
        self._workers.each[self.slot(attempt) if slot is None else slot].carry(self._project, attempt, done)

    def recall(self) -> None:
        for worker in self._workers.each:
            worker.recall(self._project)

    async def reach(self) -> tuple[bool, str]:
        up = next((each for each in self._workers.each if not each.down), self._workers.each[0])
        return await up.reach(self._project)

    async def close(self) -> None:
        """The workers are closed by whoever opened them."""


class Worker:
    """One, whatever its process at present."""

    def __init__(self, number: int, module: str, setup: bytes, lock: DeliveryLock) -> None:
        self.number = number
        self.down = "it has not started yet"
        self._module = module
        self._setup = setup
        self._lock = lock
        self._wire: Wire | None = None  # while it takes attempts
        self._process: asyncio.subprocess.Process | None = None
        self._numbers = 0
        self._waiting: list[tuple[str, Attempt, Done]] = []
        self._begun: dict[int, Done] = {}
        self._asked: dict[int, asyncio.Future[tuple[bool, str]]] = {}
        self._up = events.UP.of(str(number))
        self._memory = events.MEMORY.of(str(number))
        self._seconds = events.CPU.of(str(number))
        self._beat = 0.0
        self._ending = asyncio.Event()

    def carry(self, project: str, attempt: Attempt, done: Done) -> None:
        if self._wire is None:
            if not self._waiting:
                asyncio.get_running_loop().call_later(PATIENCE, self._give_back)
            self._waiting.append((project, attempt, done))
            return
        self._numbers += 1
        self._begun[self._numbers] = done
        self._wire.send((Kind.ATTEMPT.value, self._numbers, project, *attempt))

    def recall(self, project: str) -> None:
        mine = [each for each in self._waiting if each[0] == project]
        self._waiting = [each for each in self._waiting if each[0] != project]
        for _, _, done in mine:
            done(RECALLED)
        if self._wire is not None:
            self._wire.send((Kind.RECALL.value, 0, project))

    async def reach(self, project: str) -> tuple[bool, str]:
        if self._wire is None:
            return False, f"worker {self.number}: {self.down}"
        self._numbers += 1
        asked = self._asked[self._numbers] = asyncio.get_running_loop().create_future()
        self._wire.send((Kind.REACH.value, self._numbers, project))
        found: tuple[bool, str] = await asked
        return found

    def end(self) -> None:
        """Nothing more is heard of what is on the way: it stays claimed."""
        self._ending.set()
        self._begun.clear()
        self._waiting.clear()
        if self._wire is not None:
            self._wire.close()
            asyncio.get_running_loop().call_later(GRACE, self._kill)  # where it hangs
        else:
            self._kill()  # it has begun nothing

    def _kill(self) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.kill()

    async def run(self) -> None:
        """Start it, and start it again whenever it ends."""
        wait = FIRST_WAIT
        tick = asyncio.get_running_loop().time
        while not self._ending.is_set():
            begun = tick()
            try:
                why = await self._live()
            except OSError as error:
                why = error.strerror or "it cannot be started"
            except Exception as error:
                emit(Fault.of(error))
                why = "a defect of the product ended it"
            self._wire, self._up.n = None, 0
            if self._ending.is_set():
                return
            self.down = why
            emit(events.WorkerEnded(self.number, why, len(self._begun)))
            self._gone()
            wait = FIRST_WAIT if tick() - begun > WELL_AFTER else min(LONGEST_WAIT, 2 * wait)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._ending.wait(), wait)

    async def _live(self) -> str:
        """One process, from its start to its end; why it ended."""
        ours, theirs = socket.socketpair()
        with theirs:
            fds = theirs.fileno(), self._lock.fileno()
            self._process = process = await asyncio.create_subprocess_exec(
                sys.executable, "-P", "-m", self._module, str(fds[0]), stdin=asyncio.subprocess.DEVNULL, pass_fds=fds
            )
        if self._ending.is_set():
            process.kill()
        loop = asyncio.get_running_loop()
        gone = asyncio.Event()
        wire = Wire(lambda values: self._heard(wire, values), gone.set)
        self._beat = loop.time()
        transport, _ = await loop.create_unix_connection(lambda: wire, sock=ours)
        transport.write(len(self._setup).to_bytes(HEAD, "little") + self._setup)
        why = ""
        while not gone.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(gone.wait(), LOOK)
            if loop.time() - self._beat > SILENT:
                why = f"no sign of life for {SILENT:.0f} s"
                process.kill()
                self._beat = loop.time()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(GRACE):
                await process.wait()
        if process.returncode is None:
            process.kill()
        return why or _ended(await process.wait())

    def _heard(self, wire: Wire, values: tuple[Any, ...]) -> None:
        kind = values[0]
        if kind == Kind.OUTCOME:
            if (done := self._begun.pop(values[1], None)) is not None:
                done(outcome_of(values[2:]))
        elif kind == Kind.BEAT:
            self._beat = asyncio.get_running_loop().time()
            self._seconds.n, self._memory.n = values[1], values[2]
        elif kind == Kind.REACHED:
            if (asked := self._asked.pop(values[1], None)) is not None and not asked.done():
                asked.set_result((values[2], values[3]))
        elif kind == Kind.EVENT:
            emit(pickle.loads(values[1]))
        elif kind == Kind.READY and self._ending.is_set():
            wire.close()
        elif kind == Kind.READY:
            self._wire, self.down = wire, ""
            self._up.n = 1
            emit(events.WorkerStarted(self.number, self._process.pid if self._process else 0))
            waiting, self._waiting = self._waiting, []
            for each in waiting:
                self.carry(*each)

    def _gone(self) -> None:
        begun, self._begun = self._begun, {}
        asked, self._asked = self._asked, {}
        for future in asked.values():
            if not future.done():
                future.set_result((False, f"worker {self.number}: {self.down}"))
        for done in begun.values():
            done(ENDED)

    def _give_back(self) -> None:
        """It is not back yet: what waits for it may wait in the ledger."""
        if self._wire is None:
            waiting, self._waiting = self._waiting, []
            for _, _, done in waiting:
                done(AWAY)


def _ended(status: int) -> str:
    return f"it was ended by signal {-status}" if status < 0 else f"it ended with status {status}"

"""A worker process that maps and delivers nothing: what it is sent says what it is to do.

The first byte of an attempt's message: `d` deliver, `k` keep it for ever, `x` end without a word, `h` hang.
"""

from __future__ import annotations

import asyncio
import os
import pickle
import socket
import sys
import time
from typing import Any

from engine.delivery.attempt import RECALLED, Attempt, values
from engine.delivery.workers.wire import HEAD, Kind, Wire
from engine.ledger.outcome import Outcome, Result
from engine.observe.service_events import Fault


class Stub:
    def __init__(self) -> None:
        self.wire = Wire(self.heard, lambda: os._exit(0))
        self.kept: list[int] = []

    def heard(self, told: tuple[Any, ...]) -> None:
        kind, number, project, *rest = told
        if kind == Kind.REACH:
            self.wire.send((Kind.REACHED.value, number, True, f"{project} by {os.getpid()}"))
        elif kind == Kind.RECALL:
            for each in self.kept:
                self.wire.send((Kind.OUTCOME.value, each, *values(RECALLED)))
            self.kept.clear()
        else:
            self.attempt(number, Attempt(*rest))

    def attempt(self, number: int, attempt: Attempt) -> None:
        what = attempt.raw[:1]
        if what == b"k":
            self.kept.append(number)
        elif what == b"x":
            os._exit(3)
        elif what == b"h":
            time.sleep(3600)
        else:
            self.wire.send((Kind.EVENT.value, pickle.dumps(Fault.of(RuntimeError("a stub's")))))
            outcome = Outcome(Result.DELIVERED, f"by {os.getpid()}", attempt.raw, points=len(attempt.raw))
            self.wire.send((Kind.OUTCOME.value, number, *values(outcome)))


async def main() -> None:
    connection = socket.socket(fileno=int(sys.argv[1]))
    size = int.from_bytes(connection.recv(HEAD, socket.MSG_WAITALL), "little")
    setup = pickle.loads(connection.recv(size, socket.MSG_WAITALL))
    stub = Stub()
    await asyncio.get_running_loop().create_unix_connection(lambda: stub.wire, sock=connection)
    if setup == "beats":
        stub.wire.send((Kind.BEAT.value, 1.5, 4096))
    stub.wire.send((Kind.READY.value,))
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())

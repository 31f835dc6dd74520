"""What a listener is exposed to: `loris`, `flood` or `garbage`, at one port, for at most 30 seconds.

    python -m bench.load.attack KIND --port 6101

`loris`: 500 connections, each of which sends a message at a byte a second. `flood`: connect and close, as fast as one
process can, from ever other addresses of this machine. `garbage`: random bytes on four connections, as fast as they are
taken. Each line on stdin is answered with how much there was of it.

An attacker has a machine of its own. Here one that does all that a process can has a low priority, so that the load
generator, which measures, does not wait for it; what it sends is the service's to bear.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import socket
import time
from itertools import count
from typing import Any, cast

import uvloop

from bench.load.limits import open_files
from bench.load.ready import serve
from engine.mllp.framing import encode
from engine.simulate.messages import Messages

LORIS = 500
GARBAGE = 4
SLICE = 256 * 1024  # bytes of garbage in one write
POOL = 16 * 1024 * 1024
LONGEST = 30.0
LOW = 10  # niceness
PATIENCE = 0.02  # seconds for one connection of the flood; then it is given up, and the next one made


class Attack(asyncio.Protocol):
    """One connection of an attacker; what is answered is read and forgotten."""

    def __init__(self) -> None:
        self.free = asyncio.Event()
        self.free.set()
        self.lost = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def pause_writing(self) -> None:
        self.free.clear()

    def resume_writing(self) -> None:
        self.free.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        self.free.set()


class Attacker:
    def __init__(self, port: int) -> None:
        self.port = port
        self.begun = time.monotonic()
        self.running: list[asyncio.Task[None]] = []
        self.connections = self.bytes = self.failed = 0
        self.ended = False

    @property
    def over(self) -> bool:
        return self.ended or time.monotonic() > self.begun + LONGEST

    async def figures(self) -> dict[str, Any]:
        return {
            "connections": self.connections,
            "bytes": self.bytes,
            "failed": self.failed,
            "seconds": round(time.monotonic() - self.begun, 2),
        }

    async def connect(self) -> Attack:
        _, made = await asyncio.get_running_loop().create_connection(Attack, "127.0.0.1", self.port)
        self.connections += 1
        return made

    async def loris(self) -> None:
        """Ready when all are connected and have begun."""
        message = encode(Messages("oru", seed=1).message(1))
        peers = [await self.connect() for _ in range(LORIS)]
        for peer in peers:
            self._write(peer, message[:1])
        self.running = [asyncio.create_task(self._drip(peers, message))]

    async def _drip(self, peers: list[Attack], message: bytes) -> None:
        """In turn, so that each has its byte a second, and all of them never at once."""
        begun = time.monotonic()
        for at in range(1, len(message)):
            for index in range(LORIS):
                if self.over:
                    return
                if peers[index].lost:  # it begins again, in mid-message
                    self.failed += 1
                    peers[index] = await self.connect()
                self._write(peers[index], message[at : at + 1])
                due = begun + at - 1 + index / LORIS
                await asyncio.sleep(max(0.0, due - time.monotonic()))

    async def garbage(self) -> None:
        self.pool = memoryview(os.urandom(POOL))
        peers = [await self.connect() for _ in range(GARBAGE)]
        self.running = [asyncio.create_task(self._pour(peer)) for peer in peers]

    async def _pour(self, peer: Attack) -> None:
        while not self.over:
            await peer.free.wait()
            if peer.lost:
                self.failed += 1
                peer = await self.connect()
            at = random.randrange(POOL - SLICE)
            self._write(peer, self.pool[at : at + SLICE])
            await asyncio.sleep(0)

    def _write(self, peer: Attack, data: bytes | memoryview) -> None:
        peer.transport.write(data)
        self.bytes += len(data)

    async def flood(self) -> None:
        self.running = [asyncio.create_task(asyncio.to_thread(self._flood))]

    def _flood(self) -> None:
        for number in count():
            if self.over:
                return
            with socket.socket() as peer:
                peer.settimeout(PATIENCE)
                peer.bind((f"127.1.{number // 250 % 250}.{number % 250 + 1}", 0))
                try:
                    peer.connect(("127.0.0.1", self.port))
                    self.connections += 1
                except OSError:
                    self.failed += 1


async def run(options: argparse.Namespace) -> None:
    if options.kind != "loris":
        os.nice(LOW)
    open_files(LORIS + 100)
    attacker = Attacker(options.port)
    await {"loris": attacker.loris, "flood": attacker.flood, "garbage": attacker.garbage}[options.kind]()
    await serve({"kind": options.kind}, attacker.figures)
    attacker.ended = True
    for task in attacker.running:
        if options.kind == "flood":
            await task  # a thread, which looks whether it is over before each connection
        else:
            task.cancel()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.load.attack", description=__doc__)
    parser.add_argument("kind", choices=["loris", "flood", "garbage"])
    parser.add_argument("--port", type=int, required=True)
    uvloop.run(run(parser.parse_args()))


if __name__ == "__main__":
    main()

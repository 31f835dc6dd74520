"""Large messages: an embedded PDF of random bytes in a result, from one connection to each port.

    python -m bench.load.large --ports 6101 --endless            one after the other, until it is ended
    python -m bench.load.large --ports 6101-6350                 one on each, at the same time, for a line on stdin

Each line on stdin is answered with how many were acknowledged: without `--endless` after the last one. When it is ended
it finishes what it has begun.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import os
import time
from typing import Any, cast

import uvloop

from bench.load.generator import port_numbers
from bench.load.limits import open_files
from bench.load.ready import serve
from engine.simulate.messages import Messages

PATIENCE = 600.0
"""Seconds for the acknowledgement of one message."""


class Sender(asyncio.Protocol):
    """One connection; `send` returns the answer, empty where the connection is gone."""

    def __init__(self) -> None:
        self.heard = b""
        self.answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self.heard += data
        if self.heard.endswith(b"\x1c\r") and not self.answer.done():
            self.answer.set_result(self.heard)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.answer.done():
            self.answer.set_result(b"")

    async def send(self, *pieces: bytes) -> bytes:
        if self.transport.is_closing():
            return b""
        self.heard, self.answer = b"", asyncio.get_running_loop().create_future()
        for piece in pieces:
            self.transport.write(piece)
        async with asyncio.timeout(PATIENCE):
            return await self.answer


class Large:
    def __init__(self, size: int) -> None:
        """`size`: bytes of each message."""
        self.next = time.time_ns() // 1_000_000 % 10**9 * 10
        message = Messages("oru", seed=1).message(1)
        self.begins = (
            b"\x0b" + message.replace(b"%", b"%%").replace(b"0010000001", b"%010d") + b"OBX|99|ED|PDF||^AP^^Base64^"
        )
        self.places = self.begins.count(b"%010d")
        # The same document in each message: as bytes that are not copied, it costs this process its size once.
        self.document = base64.b64encode(os.urandom(size * 3 // 4))[:size] + b"||||||F\r\x1c\r"
        self.accepted = self.failed = 0
        self.slowest = 0.0
        self.ended = False

    async def one(self, sender: Sender) -> None:
        self.next += 1
        begun = time.perf_counter()
        answer = await sender.send(self.begins % ((self.next,) * self.places), self.document)
        self.slowest = max(self.slowest, time.perf_counter() - begun)
        if b"MSA|AA" in answer:
            self.accepted += 1
        else:
            self.failed += 1

    async def endless(self, sender: Sender) -> None:
        while not self.ended and not self.failed:
            await self.one(sender)

    async def figures(self) -> dict[str, Any]:
        return {"accepted": self.accepted, "failed": self.failed, "slowest_s": round(self.slowest, 3)}


async def run(options: argparse.Namespace) -> None:
    loop = asyncio.get_running_loop()
    ports = port_numbers(options.ports)
    open_files(len(ports) + 100)
    large = Large(options.size)
    senders = [(await loop.create_connection(Sender, "127.0.0.1", port))[1] for port in ports]

    async def together() -> dict[str, Any]:
        begun = time.perf_counter()
        await asyncio.gather(*map(large.one, senders))
        return {**await large.figures(), "seconds": round(time.perf_counter() - begun, 3)}

    if options.endless:
        running = [asyncio.ensure_future(large.endless(sender)) for sender in senders]
        await serve({"size": options.size}, large.figures)
        large.ended = True
        await asyncio.gather(*running)
    else:
        await serve({"size": options.size}, together)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.load.large", description=__doc__)
    parser.add_argument("--ports", required=True, help="as for the generator; one connection each")
    parser.add_argument("--size", type=int, default=20 * 1024 * 1024, help="bytes of a message")
    parser.add_argument("--endless", action="store_true")
    uvloop.run(run(parser.parse_args()))


if __name__ == "__main__":
    main()

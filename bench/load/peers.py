"""Peers that connect to a port each, send one message, and stay. Each line on stdin: they all reconnect at once.

    python -m bench.load.peers --ports 21000-22999 [--ca FILE]

The ready line, and the answer to each line on stdin: how many are acknowledged, and the seconds from the first
connection to the last acknowledgement. `--ca`: over TLS, this file says who is trusted.
"""

from __future__ import annotations

import argparse
import asyncio
import ssl
import time
from typing import Any, cast

import uvloop

from bench.load.generator import port_numbers, templates
from bench.load.limits import open_files
from bench.load.ready import serve

PATIENCE = 60.0
"""Seconds that a peer may take to be acknowledged."""


class Peer(asyncio.Protocol):
    def __init__(self, block: bytes) -> None:
        self.block = block
        self.heard = b""
        self.answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.transport.write(self.block)

    def data_received(self, data: bytes) -> None:
        self.heard += data
        if self.heard.endswith(b"\x1c\r") and not self.answer.done():
            self.answer.set_result(self.heard)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.answer.done():
            self.answer.set_result(b"")


class Peers:
    def __init__(self, ports: list[int], context: ssl.SSLContext | None) -> None:
        self.ports, self.context = ports, context
        self.blocks, self.places = templates("oru", 1)
        self.next = time.time_ns() // 1_000_000 % 10**9 * 10
        self.open: list[Peer] = []

    async def connect(self) -> dict[str, Any]:
        """All at once, each anew."""
        for peer in self.open:
            peer.transport.abort()
        self.open = []
        begun = time.perf_counter()
        answers = await asyncio.gather(*(self._one(port) for port in self.ports))
        took = round(time.perf_counter() - begun, 3)
        return {"peers": len(self.ports), "accepted": sum(b"MSA|AA" in answer for answer in answers), "seconds": took}

    async def _one(self, port: int) -> bytes:
        self.next += 1
        block = self.blocks[0] % ((self.next,) * self.places)
        limit = PATIENCE if self.context else None
        try:
            async with asyncio.timeout(PATIENCE):
                _, peer = await asyncio.get_running_loop().create_connection(
                    lambda: Peer(block), "127.0.0.1", port, ssl=self.context, ssl_handshake_timeout=limit
                )
                self.open.append(peer)
                return await peer.answer
        except (OSError, TimeoutError):
            return b""


async def run(options: argparse.Namespace) -> None:
    ports = port_numbers(options.ports)
    open_files(len(ports) + 100)
    context = ssl.create_default_context(cafile=options.ca) if options.ca else None
    peers = Peers(ports, context)
    await serve(await peers.connect(), peers.connect)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.load.peers", description=__doc__)
    parser.add_argument("--ports", required=True, help="as for the generator; one connection each")
    parser.add_argument("--ca", help="over TLS; a PEM file with who is trusted")
    uvloop.run(run(parser.parse_args()))


if __name__ == "__main__":
    main()

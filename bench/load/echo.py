"""The ceiling: Interlock's own listener and acknowledgement, and nothing behind them. No message is kept.

python -m bench.load.echo --listeners 50        prints {"port": …, "ports": […]} when it listens
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time

import uvloop

from bench.load.ready import serve
from engine.config.address import Address
from engine.hl7.ack import acknowledge
from engine.hl7.peek import peek
from engine.mllp.server import Connection, Listener


class Echo:
    """Answers AA as soon as a message is there."""

    def __init__(self) -> None:
        self.count = 0

    def connected(self, conn: Connection) -> None: ...

    def frame(self, conn: Connection, payload: bytes) -> None:
        self.count += 1
        conn.send(acknowledge(peek(payload), "AA", control_id=f"E{self.count}", at=time.time()))

    def noise(self, conn: Connection, data: bytes) -> None: ...

    def too_large(self, conn: Connection, head: bytes, size: int) -> None: ...

    def unfinished(self, conn: Connection, head: bytes, why: str) -> None: ...

    def refused(self, peer: str, why: str) -> None: ...

    def probed(self, peer: str) -> None: ...

    def closed(self, conn: Connection) -> None: ...


async def run(options: argparse.Namespace) -> None:
    echo = Echo()
    listeners = [
        Listener(Address(options.host, options.port + index if options.port else 0), lambda: echo)
        for index in range(options.listeners)
    ]
    begun = time.perf_counter()
    for listener in listeners:
        await listener.start()
    took = time.perf_counter() - begun
    await serve({"ports": [listener.port for listener in listeners], "start_ms": round(took * 1000, 1)})
    print(json.dumps({"count": echo.count}), flush=True)
    await asyncio.gather(*(listener.close() for listener in listeners))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.load.echo", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="the first one; 0: free ones")
    parser.add_argument("--listeners", type=int, default=1)
    uvloop.run(run(parser.parse_args()))


if __name__ == "__main__":
    main()

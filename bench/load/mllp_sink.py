"""An instant MLLP receiver: answers AA with as little work as Python allows, and keeps nothing but a count.

python -m bench.load.mllp_sink --listeners 2        prints {"port": …, "ports": […]} when it listens
"""

from __future__ import annotations

import argparse
import asyncio
import json
from typing import cast

import uvloop

from bench.load.ready import serve
from engine.mllp.framing import Decoder, Frame

ANSWER = b"\x0bMSH|^~\\&|SINK|S|I|L|20260101000000||ACK|%d|P|2.5.1\rMSA|AA|%b\r\x1c\r"


class Counter:
    def __init__(self) -> None:
        self.count = 0


class Sink(asyncio.Protocol):
    def __init__(self, counter: Counter) -> None:
        self.counter = counter
        self.decoder = Decoder()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        for event in self.decoder.feed(data):
            if type(event) is Frame and not self.transport.is_closing():
                self.counter.count += 1
                self.transport.write(ANSWER % (self.counter.count, event.payload[:1000].split(b"|", 10)[9]))


async def run(options: argparse.Namespace) -> None:
    loop = asyncio.get_running_loop()
    counter = Counter()
    servers = [
        await loop.create_server(lambda: Sink(counter), options.host, options.port + index if options.port else 0)
        for index in range(options.listeners)
    ]
    await serve({"ports": [server.sockets[0].getsockname()[1] for server in servers]})
    print(json.dumps({"count": counter.count}), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.load.mllp_sink", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="the first one; 0: free ones")
    parser.add_argument("--listeners", type=int, default=1)
    uvloop.run(run(parser.parse_args()))


if __name__ == "__main__":
    main()

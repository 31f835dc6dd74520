"""An old engine that sends on, with as little work as Python allows: what comes at an input port is answered AA, and
goes to the tap of that port with a number and a time of its own. `--differ` changes a unit in each message, too.

    python -m bench.load.forwarder --inputs 22000 --taps 23000 --count 250
"""

from __future__ import annotations

import argparse
import asyncio
import json
from typing import cast

import uvloop

from bench.load.mllp_sink import ANSWER
from bench.load.ready import serve
from engine.config.address import Address
from engine.mllp.client import Answered, Client, Reply
from engine.mllp.framing import Decoder, Frame


class Input(asyncio.Protocol):
    count = 0
    unanswered = 0

    def __init__(self, tap: Client, differ: bool) -> None:
        self.tap = tap
        self.differ = differ
        self.decoder = Decoder()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        for event in self.decoder.feed(data):
            if type(event) is Frame and not self.transport.is_closing():
                Input.count += 1
                head = event.payload.split(b"|", 10)
                self.transport.write(ANSWER % (Input.count, head[9]))
                head[6], head[9] = b"20260101120000", b"OE%d" % Input.count
                output = b"|".join(head)
                self.tap.send(output.replace(b"mg/dL", b"mg/L") if self.differ else output, 30.0, _heard)


def _heard(reply: Reply) -> None:
    Input.unanswered += not isinstance(reply, Answered)


async def run(options: argparse.Namespace) -> None:
    loop = asyncio.get_running_loop()
    taps = [Client(Address("127.0.0.1", options.taps + index)) for index in range(options.count)]
    for index, tap in enumerate(taps):
        await loop.create_server(lambda tap=tap: Input(tap, options.differ), "127.0.0.1", options.inputs + index)
    await serve({"ports": [options.inputs]})
    print(json.dumps({"count": Input.count, "unanswered": Input.unanswered}), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.load.forwarder", description=__doc__)
    parser.add_argument("--inputs", type=int, default=22000, help="the first input port")
    parser.add_argument("--taps", type=int, default=23000, help="the first tap's port")
    parser.add_argument("--count", type=int, default=1)
    parser.add_argument("--differ", action="store_true")
    uvloop.run(run(parser.parse_args()))


if __name__ == "__main__":
    main()

"""Pass-through with nothing behind it: a frame comes, its header is read, it goes on over one connection a channel, and
the answer is relayed. Interlock's own listener and client; nothing is kept.

    python -m bench.load.bare --listeners 250 --sink PORT        prints {"port": …, "ports": […]} when it listens
"""

from __future__ import annotations

import argparse
import asyncio
from functools import partial

import uvloop

from bench.load.echo import Echo
from bench.load.limits import open_files
from bench.load.ready import serve
from engine.config.address import Address
from engine.hl7.peek import peek
from engine.mllp.client import Answered, Client, Reply
from engine.mllp.server import Connection, Listener

ACK_TIMEOUT = 30.0


class Passing(Echo):
    """Relays the answer of the other side; where there is none, its sender hears nothing."""

    def __init__(self, client: Client) -> None:
        super().__init__()
        self.client = client

    def frame(self, conn: Connection, payload: bytes) -> None:
        if not peek(payload).ok:
            return

        def heard(reply: Reply) -> None:
            if isinstance(reply, Answered):
                conn.send(reply.payload)

        self.client.send(payload, ACK_TIMEOUT, heard)


async def run(options: argparse.Namespace) -> None:
    open_files(3 * options.listeners + 100)
    clients = [Client(Address("127.0.0.1", options.sink)) for _ in range(options.listeners)]
    listeners = [Listener(Address("127.0.0.1", 0), partial(Passing, client)) for client in clients]
    for listener in listeners:
        await listener.start()
    await serve({"ports": [listener.port for listener in listeners]})
    await asyncio.gather(*(listener.close() for listener in listeners), *(client.aclose() for client in clients))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.load.bare", description=__doc__)
    parser.add_argument("--listeners", type=int, default=1)
    parser.add_argument("--sink", type=int, required=True, help="the port of the other side, on this machine")
    uvloop.run(run(parser.parse_args()))


if __name__ == "__main__":
    main()

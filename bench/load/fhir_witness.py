"""The instant sink that knows what it has: for each message how often it came, and whether it came in its lane's order.

    python -m bench.load.fhir_witness     prints {"port": …, "pid": …} when it listens; figures for each line on stdin

On SIGUSR1 it is down: nobody listens, and every connection is dropped in whatever it is; on SIGUSR2 it is up again, at
the same port. A lane is a patient of a channel. Like the sink beneath it, it searches for a few byte sequences only.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
from typing import Any
from urllib.parse import unquote_to_bytes

import uvloop

from bench.load.fhir_sink import Counts, Sink
from bench.load.ready import serve

TAG = b'"urn:interlock:message","code":"'
PATIENT = b'"reference":"Patient/'
FOUND = (
    b'{"response":{"status":"200"},"resource":{"resourceType":"Bundle","type":"searchset","entry":[{"resource":'
    b'{"resourceType":"Provenance","id":"found","meta":{"versionId":"1"}}}]}}'
)


class Witness:
    """What came. doubled: more than once; disordered: behind a later one of its lane."""

    def __init__(self) -> None:
        self.messages = self.doubled = self.disordered = self.found = 0
        self._seen: dict[bytes, bytearray] = {}  # by channel, a byte for each number
        self._newest: dict[tuple[bytes, bytes], int] = {}

    def came(self, body: bytes) -> None:
        """A transaction. Its last mark is its own: what it changes may bear those of earlier messages as well."""
        tag, patient = _quoted(body, body.rfind(TAG) + len(TAG)), _quoted(body, body.find(PATIENT) + len(PATIENT))
        channel, number = _parted(tag)
        seen = self._seen.setdefault(channel, bytearray())
        if number >= len(seen):
            seen.extend(bytes(max(number + 1 - len(seen), len(seen))))
        self.doubled += seen[number]
        self.messages += not seen[number]
        seen[number] = 1
        lane = (channel, patient)
        if number <= self._newest.get(lane, 0):
            self.disordered += 1
        else:
            self._newest[lane] = number

    def has(self, tag: bytes) -> bool:
        channel, number = _parted(tag)
        seen = self._seen.get(channel, b"")
        return number < len(seen) and bool(seen[number])


def _quoted(body: bytes, at: int) -> bytes:
    """From here to the closing quote."""
    return body[at : body.find(b'"', at)]


def _parted(tag: bytes) -> tuple[bytes, int]:
    """Channel and number of `<incarnation>/<channel>/<number>`."""
    _, channel, number = tag.split(b"/")[:3]
    return channel, int(number)


class WitnessSink(Sink):
    """One connection."""

    def __init__(self, counts: Counts, witness: Witness, open: set[asyncio.BaseTransport]) -> None:
        super().__init__(counts)
        self._witness = witness
        self._open = open

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._open.add(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._open.discard(self.transport)

    def bundle(self, body: bytes) -> tuple[bytes, bytes, bytes]:
        if b'"type":"transaction"' in body[:100] and TAG in body:
            self._witness.came(body)
        return super().bundle(body)

    def entry(self, part: bytes) -> bytes:
        at = part.find(b'"url":"Provenance?_tag=')
        if at >= 0:
            query = unquote_to_bytes(part[at + 23 : part.find(b'"', at + 23)].split(b"&")[0])
            if self._witness.has(query.rpartition(b"|")[2]):
                self._witness.found += 1
                return FOUND
        return super().entry(part)


class Place:
    """The port, where somebody listens or nobody does."""

    def __init__(self, host: str, port: int) -> None:
        self._host, self._port = host, port
        self.counts, self.witness = Counts(), Witness()
        self._open: set[asyncio.BaseTransport] = set()
        self._server: asyncio.Server | None = None
        self._changing: asyncio.Task[None] | None = None

    async def up(self) -> None:
        loop = asyncio.get_running_loop()
        made = lambda: WitnessSink(self.counts, self.witness, self._open)  # noqa: E731
        self._server = await loop.create_server(made, self._host, self._port)
        self._port = self._server.sockets[0].getsockname()[1]

    async def down(self) -> None:
        if self._server is not None:
            self._server.close()
        for transport in tuple(self._open):
            transport.abort()  # type: ignore[attr-defined]

    def change(self, up: bool) -> None:
        self._changing = asyncio.ensure_future(self.up() if up else self.down())

    async def figures(self) -> dict[str, Any]:
        seen = {name: value for name, value in vars(self.witness).items() if not name.startswith("_")}
        return {**seen, "requests": self.counts.requests, "transactions": self.counts.transactions}

    @property
    def port(self) -> int:
        return self._port


async def run(options: argparse.Namespace) -> None:
    place = Place(options.host, options.port)
    await place.up()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGUSR1, place.change, False)
    loop.add_signal_handler(signal.SIGUSR2, place.change, True)
    await serve({"ports": [place.port], "pid": os.getpid()}, place.figures)
    print(place.counts.json().decode(), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.load.fhir_witness", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0)
    uvloop.run(run(parser.parse_args()))


if __name__ == "__main__":
    main()

"""What one delivery costs this side: CPU of the process and quota points.

    python bench/fhir_delivery.py [messages]

Every message is a new report of a known patient with five results: one search and one transaction. The answers are
those of the sandbox, recorded first and then given at once by a process that does nothing else: the sandbox itself
computes so much on the same processors that its load would be measured.
"""

from __future__ import annotations

import asyncio
import gc
import multiprocessing
import resource
import statistics
import sys
from multiprocessing.connection import Connection
from pathlib import Path

import uvloop

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from engine.fhir.client import Answer, FhirClient
from engine.fhir.deliverer import Deliverer
from engine.ledger.outcome import Result
from tests.fhir.outputs import oru
from tests.support.sandbox import CLIENT_ID, CLIENT_SECRET, launch, stop

ROUNDS = 5
AT_ONCE = 4
TOKEN = b'{"access_token":"t","expires_in":3600}'


class Recorder(FhirClient):
    """Remembers the bodies of the answers."""

    def __init__(self, base: str) -> None:
        super().__init__(base, CLIENT_ID, CLIENT_SECRET)
        self.bodies: list[bytes] = []

    async def _send(self, *args: object, **options: object) -> Answer:
        answer: Answer = await super()._send(*args, **options)  # type: ignore[arg-type]
        self.bodies.append(answer.body)
        return answer


class Replay(asyncio.Protocol):
    """Answers a whole request by what it is: a token, a search, a transaction."""

    def __init__(self, search: bytes, transaction: bytes) -> None:
        self._search, self._transaction, self._data = search, transaction, b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: asyncio.Transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        self._data += data
        head = self._data.find(b"\r\n\r\n")
        if head < 0:
            return
        length = int(self._data[:head].lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        if len(self._data) < head + 4 + length:
            return
        body, self._data = self._answer(self._data[:head], self._data[head + 4 :]), b""
        said = b"HTTP/1.1 200 OK\r\nContent-Type: application/fhir+json\r\nContent-Length: %d\r\n\r\n" % len(body)
        self._transport.write(said + body)

    def _answer(self, head: bytes, body: bytes) -> bytes:
        if head.startswith(b"POST /oauth2"):
            return TOKEN
        return self._search if b'"type":"batch"' in body[:100] else self._transaction


def serve(pipe: Connection, search: bytes, transaction: bytes) -> None:
    async def run() -> None:
        server = await asyncio.get_running_loop().create_server(lambda: Replay(search, transaction), "127.0.0.1", 0)
        pipe.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    uvloop.run(run())


async def record() -> list[bytes]:
    """The answers to the search and the transaction of a second message."""
    process, sandbox = launch()
    client = Recorder(sandbox.base)
    deliverer = Deliverer(client)
    try:
        await deliverer.deliver(oru("first"), "bench/c/1")
        client.bodies.clear()
        await deliverer.deliver(oru("second"), "bench/c/2")
        return client.bodies
    finally:
        await deliverer.close()
        stop(process)


async def measure(base: str, messages: int) -> None:
    gc.freeze()
    deliverer = Deliverer(FhirClient(base, CLIENT_ID, CLIENT_SECRET))
    deliverer._learn(True)
    deliverer._probe_at = float("inf")
    figures = []
    for number in range(ROUNDS):
        for n in range(AT_ONCE):  # the patients become known
            deliverer._anchors.learn(oru(mrn=f"P{n}").entries[0], [stored("Patient", n)])
            deliverer._anchors.learn(oru(mrn=f"P{n}").entries[1], [stored("Organization", n)])
        user, kernel, points = await one_round(deliverer, number, messages)
        figures.append(user + kernel)
        print(f"round {number}: {user:.0f} µs user, {kernel:.0f} µs kernel, {points / messages:.0f} points a message")
    print(f"a message: median {statistics.median(figures):.0f}, best {min(figures):.0f} µs CPU")
    await deliverer.close()


def stored(kind: str, n: int) -> dict[str, object]:
    resource_: dict[str, object] = dict(next(e for e in oru(mrn=f"P{n}").entries if e.type == kind).resource)
    return {**resource_, "id": str(n), "meta": {"versionId": "1"}}


async def one_round(deliverer: Deliverer, number: int, messages: int) -> tuple[float, float, int]:
    outputs = [oru(f"{number}-{n}", mrn=f"P{n % AT_ONCE}") for n in range(messages)]
    points = 0

    async def lane(first: int) -> None:
        nonlocal points
        for n in range(first, messages, AT_ONCE):
            outcome = await deliverer.deliver(outputs[n], f"bench/c/{number * messages + n + 3}")
            assert outcome.result is Result.DELIVERED, outcome.reason
            points += outcome.points

    before = resource.getrusage(resource.RUSAGE_SELF)
    await asyncio.gather(*(lane(first) for first in range(AT_ONCE)))
    after = resource.getrusage(resource.RUSAGE_SELF)
    scale = 1e6 / messages
    return (after.ru_utime - before.ru_utime) * scale, (after.ru_stime - before.ru_stime) * scale, points


def main() -> None:
    search, transaction = asyncio.run(record())
    ours, theirs = multiprocessing.Pipe()
    server = multiprocessing.get_context("spawn").Process(target=serve, args=(theirs, search, transaction), daemon=True)
    server.start()
    try:
        uvloop.run(measure(f"http://127.0.0.1:{ours.recv()}", int(sys.argv[1]) if len(sys.argv) > 1 else 1000))
    finally:
        server.terminate()
        server.join()


if __name__ == "__main__":
    main()

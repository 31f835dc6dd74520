"""Load on MLLP ports from one process: pre-built results, the least work per message, figures as one JSON line.

    python -m bench.load.generator --ports 6101-6150 --connections 50 --seconds 10            closed loop
    python -m bench.load.generator --ports 6101-6350 --connections 250 --seconds 10 --rate 200

Closed loop: each connection sends when its answer has come (`--window` messages may be outstanding). Fixed rate: the
connections take turns, and a latency counts from when the message was due, so that a stall is not hidden by the
sender's waiting. Control ids and order numbers are unique over runs, unless `--first` says where to begin.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import ssl
import time
from array import array
from collections import deque
from typing import Any, cast

import uvloop

from engine.mllp.framing import encode
from engine.simulate.messages import Kind, Messages

BUCKET = 1e-5  # seconds
BUCKETS = 1_000_000  # to 10 s; the last one has all above
VARIANTS = 500
DRAIN = 5.0  # seconds for the last answers


class Latencies:
    """A histogram with buckets of 10 µs."""

    def __init__(self) -> None:
        self.buckets = array("I", bytes(4 * (BUCKETS + 1)))
        self.count = 0
        self.longest = 0.0

    def add(self, seconds: float) -> None:
        self.count += 1
        if seconds > self.longest:
            self.longest = seconds
        at = int(seconds / BUCKET)
        self.buckets[at if at < BUCKETS else BUCKETS] += 1

    def quantiles(self, *shares: float) -> list[float]:
        """Upper bounds in milliseconds."""
        out: list[float] = []
        seen, wanted = 0, [share * self.count for share in shares]
        for at, n in enumerate(self.buckets):
            seen += n
            while len(out) < len(wanted) and seen >= wanted[len(out)] and seen:
                out.append(min((at + 1) * BUCKET, self.longest) * 1000)
            if len(out) == len(wanted):
                break
        return out or [0.0] * len(shares)


class Load:
    """What all connections share: the messages, the figures, the end."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.templates, self.places = templates(options.kind, VARIANTS, known_orders=options.known_orders)
        self.next = options.first if options.first is not None else time.time_ns() // 1_000_000 % 10**9 * 10
        self.first = self.next
        self.limit = self.next + options.count if options.count else 10**10
        self.window = options.window
        self.closed_loop = options.rate is None
        self.latencies = Latencies()
        self.accepted = self.refused = self.wrong = self.lost = 0
        self.stopping = False
        self.outstanding = 0
        self.late = 0.0  # seconds that this process itself was late with a message, at a fixed rate
        self.begun = 0.0
        self.ended = 0.0
        self.done = asyncio.Event()

    def stop(self) -> None:
        self.stopping = True
        if not self.outstanding:
            self.done.set()


class Connection(asyncio.Protocol):
    def __init__(self, load: Load) -> None:
        self.load = load
        self.waiting: deque[tuple[bytes, float]] = deque()
        self.rest = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def send(self, due: float) -> None:
        load = self.load
        number = load.next
        if number >= load.limit or load.stopping:
            if not load.stopping:
                load.stop()
            return
        load.next = number + 1
        load.outstanding += 1
        self.waiting.append((b"%010d" % number, due))
        self.transport.write(load.templates[number % VARIANTS] % ((number,) * load.places))

    def data_received(self, data: bytes) -> None:
        now = time.perf_counter()
        if self.rest:
            data = self.rest + data
            self.rest = b""
        if data[-2:] != b"\x1c\r":
            end = data.rfind(b"\x1c\r")
            data, self.rest = data[: end + 2], data[end + 2 :]
        for answer in data.split(b"\x1c\r")[:-1]:
            self.answered(answer, now)

    def answered(self, answer: bytes, now: float) -> None:
        load = self.load
        if not self.waiting:
            load.wrong += 1
            return
        control_id, due = self.waiting.popleft()
        load.outstanding -= 1
        load.latencies.add(now - due)
        load.ended = now
        if control_id not in answer:
            load.wrong += 1
        elif b"MSA|AA" in answer or b"MSA|CA" in answer:
            load.accepted += 1
        else:
            load.refused += 1
        if load.stopping:
            if not load.outstanding:
                load.done.set()
        elif load.closed_loop:
            self.send(now)

    def connection_lost(self, exc: Exception | None) -> None:
        self.load.lost += len(self.waiting)
        self.load.outstanding -= len(self.waiting)
        self.waiting.clear()
        if not self.load.outstanding and self.load.stopping:
            self.load.done.set()


def templates(kind: Kind, count: int, *, known_orders: bool = False) -> tuple[list[bytes], int]:
    """Whole blocks with `%010d` where the control id and the order numbers have their number; how many places.

    known_orders: only the control id has a number of its own, and the orders come again and again.
    """
    blocks = []
    for number in range(count):
        digits = b"001%07d" % number
        block = encode(Messages(kind, seed=1).message(number))
        places = 1 if known_orders else block.count(digits)
        blocks.append(block.replace(b"%", b"%%").replace(digits, b"%010d", places))
    return blocks, places


async def run(options: argparse.Namespace) -> dict[str, Any]:
    loop = asyncio.get_running_loop()
    load = Load(options)
    ports = port_numbers(options.ports)
    tls = ssl.create_default_context(cafile=options.ca) if options.ca else None
    connections = [
        (await loop.create_connection(lambda: Connection(load), options.host, ports[index % len(ports)], ssl=tls))[1]
        for index in range(options.connections)
    ]
    cpu = _cpu()
    load.begun = time.perf_counter()
    loop.call_later(options.seconds, load.stop)
    if load.closed_loop:
        for connection in connections:
            for _ in range(load.window):
                connection.send(time.perf_counter())
    else:
        await _at_rate(load, connections, options.rate)
    try:
        async with asyncio.timeout(options.seconds + DRAIN):
            await load.done.wait()
    except TimeoutError:
        load.lost += load.outstanding
    cpu = _cpu() - cpu
    for connection in connections:
        connection.transport.abort()
    return figures(load, len(connections), len(ports), cpu)


async def _at_rate(load: Load, connections: list[Connection], rate: float) -> None:
    """Send what is due, connections in turn, until the end."""
    sent = 0
    while not load.stopping:
        now = time.perf_counter()
        while load.begun + sent / rate <= now and not load.stopping:
            due = load.begun + sent / rate
            load.late = max(load.late, time.perf_counter() - due)
            connections[sent % len(connections)].send(due)
            sent += 1
        await asyncio.sleep(max(0.0, min(load.begun + sent / rate - time.perf_counter(), 0.05)))


def figures(load: Load, connections: int, ports: int, cpu: float) -> dict[str, Any]:
    seconds = max(load.ended - load.begun, 1e-9)
    p50, p90, p99, p999 = (round(value, 3) for value in load.latencies.quantiles(0.5, 0.9, 0.99, 0.999))
    sent = load.next - load.first
    return {
        "connections": connections,
        "ports": ports,
        "seconds": round(seconds, 3),
        "sent": sent,
        "accepted": load.accepted,
        "refused": load.refused,
        "wrong": load.wrong,
        "lost": load.lost,
        "per_second": round(load.accepted / seconds, 1),
        "p50_ms": p50,
        "p90_ms": p90,
        "p99_ms": p99,
        "p999_ms": p999,
        "max_ms": round(load.latencies.longest * 1000, 3),
        "late_ms": round(load.late * 1000, 3),
        "generator_cpu_us": round(cpu / max(sent, 1) * 1e6, 2),
        "first": load.first,
    }


def port_numbers(text: str) -> list[int]:
    """`6101`, `6101-6150`, `6101,6103`."""
    out: list[int] = []
    for part in text.split(","):
        low, _, high = part.partition("-")
        out += range(int(low), int(high or low) + 1)
    return out


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.load.generator", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--ports", required=True, help="6101 or 6101-6150 or 6101,6103")
    parser.add_argument("--connections", type=int, default=1)
    parser.add_argument("--window", type=int, default=1, help="messages outstanding per connection")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--count", type=int, default=0, help="stop after so many messages")
    parser.add_argument("--rate", type=float, help="messages a second over all connections")
    parser.add_argument("--kind", choices=["oru", "orm", "oml"], default="oru")
    parser.add_argument("--first", type=int, help="number of the first message")
    parser.add_argument("--ca", help="over TLS; a PEM file with who is trusted")
    parser.add_argument("--known-orders", action="store_true", help="few orders, again and again, in new messages")
    print(json.dumps(uvloop.run(run(parser.parse_args()))), flush=True)


if __name__ == "__main__":
    main()

"""What a POST of a transaction's size costs the client: aiohttp, httpx, and httpx over aiohttp, in turns.

    python bench/http_clients.py [requests]

The server is a process of its own that answers every request with 200 and a small body. `httpx_aiohttp` is left out
where it is not installed. CPU is the client process's own.
"""

from __future__ import annotations

import asyncio
import importlib.util
import multiprocessing
import resource
import statistics
import sys
from collections.abc import Awaitable, Callable
from multiprocessing.connection import Connection

import aiohttp
import httpx
import uvloop

BODY = b"x" * 6400
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 15\r\n\r\n" + b'{"answer":true}'
ROUNDS = 5
Post = Callable[[], Awaitable[object]]


class Sink(asyncio.Protocol):
    """Answers when the bytes of a whole request are there."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: asyncio.Transport = transport  # type: ignore[assignment]
        self._data = b""

    def data_received(self, data: bytes) -> None:
        self._data += data
        head = self._data.find(b"\r\n\r\n")
        if head >= 0 and len(self._data) >= head + 4 + len(BODY):
            self._data = b""
            self._transport.write(ANSWER)


def serve(port: Connection) -> None:
    async def run() -> None:
        server = await asyncio.get_running_loop().create_server(Sink, "127.0.0.1", 0)
        port.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    uvloop.run(run())


async def with_aiohttp(url: str, run: Callable[[Post], Awaitable[float]]) -> float:
    async with aiohttp.ClientSession() as session:

        async def post() -> object:
            async with session.post(url, data=BODY) as response:
                return await response.read()

        return await run(post)


async def with_httpx(url: str, run: Callable[[Post], Awaitable[float]]) -> float:
    async with httpx.AsyncClient() as client:
        return await run(lambda: client.post(url, content=BODY))


async def with_httpx_aiohttp(url: str, run: Callable[[Post], Awaitable[float]]) -> float:
    module = importlib.import_module("httpx_aiohttp")
    async with module.HttpxAiohttpClient() as client:
        return await run(lambda: client.post(url, content=BODY))


async def measure(url: str, requests: int) -> None:
    kernel: list[float] = []

    async def run(post: Post) -> float:
        for _ in range(20):
            await post()
        start = resource.getrusage(resource.RUSAGE_SELF)
        for _ in range(requests):
            await post()
        end = resource.getrusage(resource.RUSAGE_SELF)
        kernel.append((end.ru_stime - start.ru_stime) / requests * 1e6)
        return (end.ru_utime - start.ru_utime) / requests * 1e6

    clients = {"aiohttp": with_aiohttp, "httpx": with_httpx}
    if importlib.util.find_spec("httpx_aiohttp"):
        clients["httpx on aiohttp"] = with_httpx_aiohttp
    figures: dict[str, list[float]] = {name: [] for name in clients}
    for _ in range(ROUNDS):
        for name, client in clients.items():
            figures[name].append(await client(url, run))
    for name, taken in figures.items():
        print(f"{name:<18} median {statistics.median(taken):6.0f}, best {min(taken):6.0f} µs a request in user mode")
    print(f"and in the kernel, whichever client: median {statistics.median(kernel):.0f} µs")


def main() -> None:
    ours, theirs = multiprocessing.Pipe()
    server = multiprocessing.get_context("spawn").Process(target=serve, args=(theirs,), daemon=True)
    server.start()
    try:
        requests = int(sys.argv[1]) if len(sys.argv) > 1 else 300
        uvloop.run(measure(f"http://127.0.0.1:{ours.recv()}/", requests))
    finally:
        server.terminate()
        server.join()


if __name__ == "__main__":
    main()

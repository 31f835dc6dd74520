"""How a load process says that it is ready, answers for its figures, and waits to be ended."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import Awaitable, Callable
from typing import Any

Figures = dict[str, Any]


async def serve(ready: Figures, answer: Callable[[], Awaitable[Figures]] | None = None) -> None:
    """Print the ready line, with the first port by itself; return on SIGTERM or SIGINT. `answer`: what is printed for
    each line that comes on stdin."""
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, stop.set)
    if "ports" in ready:
        ready = {"port": ready["ports"][0], **ready}
    print(json.dumps(ready), flush=True)
    answering = asyncio.ensure_future(_answer(answer)) if answer is not None else None
    await stop.wait()
    if answering is not None:
        answering.cancel()
        await asyncio.gather(answering, return_exceptions=True)


async def _answer(answer: Callable[[], Awaitable[Figures]]) -> None:
    """One line of figures for each line of stdin, until there are no more."""
    loop = asyncio.get_running_loop()
    lines = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    while await lines.readline():
        print(json.dumps(await answer()), flush=True)

"""A peer that runs in a Node of its own: `deploy/peers/*.mjs`, driven by lines of JSON."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.sandbox import start

FOLDER = Path(__file__).resolve().parents[2] / "deploy" / "peers"
LONGEST = 64 << 20  # bytes of a line
PATIENCE = 20.0  # seconds


def require_node() -> str:
    """The Node to use; without one, or without the peers' packages, the test is skipped."""
    node: str | None = start.node()
    if node is None:
        pytest.skip(f"not installed: Node {start.OLDEST_NODE} or newer")
    if not (FOLDER / "node_modules" / "@medplum" / "hl7").is_dir():
        pytest.skip("not installed: the packages of deploy/peers (make setup)")
    return node


class Node:
    """One process. `heard` gets what it says unasked: a name and a value."""

    def __init__(self, script: str, heard: Callable[[str, Any], None] = lambda name, value: None) -> None:
        self._script = script
        self._heard = heard
        self._asked: asyncio.Future[Any] | None = None

    async def start(self) -> None:
        self._process = await asyncio.create_subprocess_exec(
            require_node(), str(FOLDER / self._script),
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, limit=LONGEST,
        )  # fmt: skip
        self._reading = asyncio.create_task(self._read())

    async def ask(self, command: str, value: Any = None) -> Any:
        """Carry out a command; what it gave. ConnectionError, with the peer's words, where it could not."""
        self._asked = asyncio.get_running_loop().create_future()
        stdin = self._process.stdin
        assert stdin is not None
        stdin.write(json.dumps([command, value]).encode() + b"\n")
        async with asyncio.timeout(PATIENCE):
            await stdin.drain()
            return await self._asked

    async def close(self) -> None:
        """End the process and all of its connections."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        async with asyncio.timeout(PATIENCE):
            await self._reading
            await self._process.wait()

    async def _read(self) -> None:
        assert self._process.stdout is not None
        while line := await self._process.stdout.readline():
            name, value = json.loads(line)
            if name == "received":
                self._heard(name, value)
            elif self._asked is not None and not self._asked.done():
                if name == "failed":
                    self._asked.set_exception(ConnectionError(value))
                else:
                    self._asked.set_result(value)
        if self._asked is not None and not self._asked.done():
            self._asked.set_exception(ConnectionError(f"{self._script} ended"))

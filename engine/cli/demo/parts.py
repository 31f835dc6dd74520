"""The processes of the demo: the service, and the Medplum sandbox where Node is. Each ends with the demo."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

import aiohttp

from engine.cli.console import Stop
from engine.config.address import Address

SANDBOX: Final = Path(__file__).resolve().parents[3] / "deploy" / "sandbox" / "start.py"
"""Beside the package in a checkout; an installed wheel has none."""

START_S: Final = 60.0
STOP_S: Final = 30.0


class Part:
    """One process, whose words go to a log file."""

    def __init__(self, name: str, command: list[str], log: Path) -> None:
        self.name = name
        self._command = command
        self._log = log
        self._process: asyncio.subprocess.Process | None = None

    async def start(self, ready: Callable[[], Awaitable[bool]]) -> None:
        """Start it, and return when it is ready. Stops with a sentence if it never is."""
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *self._command, stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        try:
            async with asyncio.timeout(START_S):
                while not await ready():
                    if self._process.returncode is not None:
                        raise Stop(f"{self.name} ended with status {self._process.returncode}: {self.last_words()}")
                    await asyncio.sleep(0.1)
        except TimeoutError:
            raise Stop(f"{self.name} is not ready after {START_S:.0f} s: {self.last_words()}") from None

    async def stop(self) -> None:
        """SIGTERM; SIGKILL to its whole session where that is not heard."""
        process = self._process
        if process is None or process.returncode is not None:
            return
        process.terminate()
        try:
            async with asyncio.timeout(STOP_S):
                await process.wait()
        except TimeoutError:
            os.killpg(process.pid, signal.SIGKILL)
            await process.wait()

    def last_words(self) -> str:
        """The last line of its log. It is the service's own, which has no patients in it."""
        lines = self._log.read_text(errors="replace").strip().splitlines()
        return (lines[-1] if lines else "it said nothing") + f" (all of it: {self._log})"


def service(settings: Path, folder: Path) -> Part:
    """`interlock run`, on these settings."""
    command = [sys.executable, "-c", "from engine.cli.main import main; main()", "run", "--config", str(settings)]
    return Part("the service", command, folder / "service.log")


def why_no_sandbox() -> str | None:
    """Why there can be no sandbox, as a sentence; None where there can."""
    if not SANDBOX.is_file():
        return "the sandbox is part of the source code, and this is an installation without it"
    spec = importlib.util.spec_from_file_location("sandbox_start", SANDBOX)
    if spec is None or spec.loader is None:
        return f"{SANDBOX} cannot be read"
    start = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(start)
    found: str | None = start.problem()
    return found


def sandbox(address: Address, folder: Path) -> Part:
    """A Medplum sandbox with transactions that listens at `address`."""
    flags = ["--port", str(address.port), "--host", address.host, "--transactions", "on"]
    return Part("the Medplum sandbox", [sys.executable, str(SANDBOX), *flags], folder / "sandbox.log")


async def listens(address: Address) -> bool:
    try:
        _, writer = await asyncio.open_connection(address.host, address.port)
    except OSError:
        return False
    writer.transport.abort()
    return True


async def is_ready(http: Address) -> bool:
    """Whether a service says so of itself."""
    try:
        async with aiohttp.ClientSession() as session, session.get(f"http://{http}/readyz") as response:
            return response.status == 200
    except aiohttp.ClientError:
        return False

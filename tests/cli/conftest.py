"""The command line as a user has it: arguments in; output, complaints and exit status out."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from aiohttp import web

from engine.api.application import application
from engine.api.token import write_token
from engine.cli import main as cli
from tests.support.ports import free_port
from tests.support.told import Told


@dataclass
class Result:
    status: int
    out: str
    err: str


Interlock = Callable[..., Result]


@pytest.fixture
def interlock(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Interlock:
    """Runs the command in an empty folder of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TZ", "UTC")

    def run(*arguments: str) -> Result:
        monkeypatch.setattr("sys.argv", ["interlock", *arguments])
        capfd.readouterr()
        try:
            cli.main()
            status = 0
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else 1
        captured = capfd.readouterr()
        return Result(status, captured.out, captured.err)

    return run


@pytest.fixture
def settings(tmp_path: Path) -> int:
    """interlock.yaml with a free HTTP port, which is returned; nothing runs there."""
    port = free_port()
    (tmp_path / "channels").mkdir()
    (tmp_path / "interlock.yaml").write_text(f"http: 127.0.0.1:{port}\n")
    return port


@pytest.fixture
def service(settings: int, tmp_path: Path) -> Iterator[Told]:
    """A service that tells fixed things, behind the real API, in a thread of its own."""
    told = Told()
    loop = asyncio.new_event_loop()
    runner = web.AppRunner(application(told.asked_of, "secret", "0.1.0"), access_log=None, shutdown_timeout=0.1)

    async def start() -> None:
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", settings).start()

    loop.run_until_complete(start())
    write_token(tmp_path / "var/interlock.db", "secret")
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    yield told
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.run_until_complete(runner.cleanup())
    loop.close()

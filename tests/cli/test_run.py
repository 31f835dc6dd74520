"""run, as real processes: how it ends, and what it says when it cannot begin."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import orjson
import pytest

from tests.support.ports import free_port

COMMAND = [sys.executable, "-c", "from engine.cli.main import main; main()", "run"]
ROOT = Path(__file__).resolve().parents[2]
PATIENCE_S = 20.0

pytestmark = pytest.mark.system

Process = subprocess.Popen[str]
Start = Callable[[], Process]


@pytest.fixture
def ports(tmp_path: Path) -> tuple[int, int]:
    """A service of one channel; its HTTP port and its MLLP port."""
    http, mllp = free_port(), free_port()
    (tmp_path / "channels").mkdir()
    medplum = f"medplum: {{base_url: 'http://127.0.0.1:{free_port()}', client_id: a, client_secret: b}}\n"
    (tmp_path / "interlock.yaml").write_text(f"http: 127.0.0.1:{http}\n{medplum}")
    (tmp_path / "channels/acme.yaml").write_text(
        f"id: acme\nconnection: acme\ndirection: results\ntimezone: UTC\nlisten: {{port: {mllp}, host: 127.0.0.1}}\n"
        "target: {destinations: [{medplum: {}}]}\n"
    )
    return http, mllp


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    running: list[Process] = []

    def start() -> Process:
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        process = subprocess.Popen(COMMAND, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True)
        running.append(process)
        return process

    yield start
    for process in running:
        if process.poll() is None:
            process.kill()
        process.communicate(timeout=PATIENCE_S)


def until(process: Process, event: str) -> None:
    """Read the log until the event is there."""
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("{") and orjson.loads(line)["event"] == event:
            return
    raise AssertionError(f"the process ended without {event}")


def sentence(process: Process) -> str:
    """The last line of a process that ends by itself."""
    _, err = process.communicate(timeout=PATIENCE_S)
    return str(err.splitlines()[-1])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_in_good_order(
    number: signal.Signals, start: Start, ports: tuple[int, int], tmp_path: Path
) -> None:
    process = start()
    until(process, "service_started")
    assert (tmp_path / "var/interlock.token").stat().st_mode & 0o777 == 0o600
    process.send_signal(number)
    until(process, "service_stopped")
    assert process.wait(PATIENCE_S) == 0
    assert not (tmp_path / "var/interlock.token").exists()


def test_a_hangup_changes_nothing_and_says_what_would(start: Start, ports: tuple[int, int]) -> None:
    process = start()
    until(process, "service_started")
    process.send_signal(signal.SIGHUP)
    until(process, "hangup_ignored")
    socket.create_connection(("127.0.0.1", ports[1])).close()
    process.send_signal(signal.SIGTERM)
    until(process, "service_stopped")
    assert process.wait(PATIENCE_S) == 0


def test_a_second_service_on_the_ledger_says_so_and_leaves_the_first_alone(
    start: Start, ports: tuple[int, int], tmp_path: Path
) -> None:
    first = start()
    until(first, "service_started")
    token = (tmp_path / "var/interlock.token").read_text()
    second = start()
    assert "is in use by another running service" in sentence(second)
    assert second.returncode == 1
    assert (tmp_path / "var/interlock.token").read_text() == token
    assert first.poll() is None


def test_an_http_port_that_is_taken_is_told(start: Start, ports: tuple[int, int]) -> None:
    with socket.create_server(("127.0.0.1", ports[0])):
        process = start()
        assert sentence(process) == f"interlock: http 127.0.0.1:{ports[0]} cannot be had: Address already in use"
    assert process.returncode == 1

"""`make run`, with the sample channels on free ports: a minute of a newcomer's life, and nothing left behind."""

from __future__ import annotations

import importlib.util
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.support.ports import free_port
from tests.support.sandbox import require_sandbox

ROOT = Path(__file__).resolve().parents[2]
INTERLOCK = [sys.executable, "-c", "from engine.cli.main import main; main()"]
PATIENCE_S = 30.0

pytestmark = pytest.mark.system


@pytest.fixture
def sample(tmp_path: Path) -> tuple[Path, dict[int, int]]:
    """The sample configuration in a folder of its own, and the free port that stands for each of its ports."""
    sources = [ROOT / "interlock.yaml", *sorted((ROOT / "channels").glob("*.yaml"))]
    text = {source: source.read_text() for source in sources}
    known = sorted({int(port) for one in text.values() for port in re.findall(r"(?:port: |127\.0\.0\.1:)(\d{4})", one)})
    ports = {port: free_port() for port in known}
    for source, one in text.items():
        target = tmp_path / source.relative_to(ROOT)
        target.parent.mkdir(exist_ok=True)
        target.write_text(re.sub(r"(port: |\.0\.1:)(\d{4})", lambda found: f"{found[1]}{ports[int(found[2])]}", one))
    return tmp_path, ports


@pytest.fixture
def start(sample: tuple[Path, dict[int, int]]) -> Iterator[Callable[[], subprocess.Popen[str]]]:
    require_sandbox()
    settings = str(sample[0] / "interlock.yaml")
    environment = {key: value for key, value in os.environ.items() if not key.startswith("INTERLOCK_")}
    started = []

    def begin() -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, str(ROOT / "deploy/local/run.py"), settings],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment | {"PYTHONPATH": str(ROOT)},
        )
        started.append(process)
        return process

    yield begin
    for process in started:
        if process.poll() is None:
            process.terminate()
            process.communicate(timeout=PATIENCE_S)


@pytest.fixture
def running(start: Callable[[], subprocess.Popen[str]]) -> subprocess.Popen[str]:
    return start()


def welcome(process: subprocess.Popen[str]) -> str:
    """What it prints before it waits."""
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line)
        if "Ctrl-C" in line:
            return "".join(lines)
    raise AssertionError("".join(lines))


def interlock(folder: Path, *words: str) -> Any:
    command = [*INTERLOCK, *words, "--json"]
    if words[0] != "send":
        command += ["--config", str(folder / "interlock.yaml")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, timeout=PATIENCE_S)
    return orjson.loads(done.stdout or b"null")


def settled(folder: Path, message: str) -> dict[str, Any]:
    """The message, once nothing of it is open."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        found: dict[str, Any] | None = interlock(folder, "show", message)
        if found and set(found["states"].values()) == {"delivered"}:
            return found
        time.sleep(0.1)  # another process: there is no event to await
    raise AssertionError(found)


def test_an_order_and_a_result_are_stored_answered_mapped_delivered_and_found(
    sample: tuple[Path, dict[int, int]], running: subprocess.Popen[str]
) -> None:
    folder, ports = sample
    text = welcome(running)
    assert f"--to 127.0.0.1:{ports[6101]}" in text
    for file, port, control_id, code in (
        ("order.hl7", 6101, "ACME-ORD-0001", "AA"),
        ("order-oml.hl7", 6101, "ACME-ORD-0002", "AA"),
        ("result.hl7", 6102, "ACME-RES-0001", "AA"),  # the old engine's answer, as it gives it
        ("result-harbor.hl7", 6103, "HBR-RES-0001", "CA"),  # ours, to a sender that asks for an accept answer (MSH-15)
    ):
        answer = interlock(folder, "send", f"samples/{file}", "--to", f"127.0.0.1:{ports[port]}")
        assert (answer["control_id"], answer["code"], answer["problem"]) == (control_id, code, None)
        found = settled(folder, control_id)
        assert set(found["states"]) == ({"medplum"} if port == 6103 else {"legacy", "medplum"})
    status = interlock(folder, "status")
    assert status["balanced"]
    assert status["writable"]

    running.send_signal(signal.SIGTERM)
    running.communicate(timeout=PATIENCE_S)
    assert running.returncode == 0
    for port in ports.values():
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port), 1)


def test_a_later_start_welcomes_with_the_phases_of_the_ledger_and_ctrl_c_is_logged_as_such(
    sample: tuple[Path, dict[int, int]], start: Callable[[], subprocess.Popen[str]]
) -> None:
    folder, ports = sample
    first = start()
    assert f"port {ports[6102]}, parallel" in welcome(first)
    interlock(folder, "send", "samples/result.hl7", "--to", f"127.0.0.1:{ports[6102]}")
    settled(folder, "acme-results/1")
    interlock(folder, "legacy", "--connection", "acme", "--reason", "a test")
    interlock(folder, "hold", "harbor-results", "--reason", "a test")
    first.send_signal(signal.SIGINT)
    _, log = first.communicate(timeout=PATIENCE_S)
    assert '"event":"service_stopping","reason":"SIGINT"' in log
    second = start()
    text = welcome(second)
    assert f"port {ports[6101]}, legacy\n" in text
    assert f"port {ports[6102]}, legacy\n" in text
    assert f"port {ports[6103]}, live, held\n" in text
    second.send_signal(signal.SIGTERM)
    _, log = second.communicate(timeout=PATIENCE_S)
    assert '"messages":1,"open":0' in log.splitlines()[0]
    assert '"event":"service_stopping","reason":"SIGTERM"' in log


def test_a_part_that_ended_is_told_with_how_to_start_it_and_how_to_end_it_then(
    capsys: pytest.CaptureFixture[str],
) -> None:
    spec = importlib.util.spec_from_file_location("local_run", ROOT / "deploy/local/run.py")
    assert spec is not None
    assert spec.loader is not None
    run = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(run)
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait(PATIENCE_S)
    parts = run.Parts()
    parts._running.append(("the stand-in old engine", ended))
    parts.check()
    parts.check()
    told = capsys.readouterr().out
    assert told.count("the stand-in old engine has ended") == 1
    assert f"  {sys.executable} -c ''\n" in told
    assert "end it there, with Ctrl-C of its own" in told


def test_a_taken_port_is_told_before_anything_starts(sample: tuple[Path, dict[int, int]]) -> None:
    folder, ports = sample
    require_sandbox()
    with socket.create_server(("127.0.0.1", ports[6102])):
        done = subprocess.run(
            [sys.executable, str(ROOT / "deploy/local/run.py"), str(folder / "interlock.yaml")],
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
    assert done.returncode == 1
    assert f"port {ports[6102]} is taken by another process, but listen of" in done.stderr
    assert not (folder / "var").exists()

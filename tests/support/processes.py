"""`interlock run` as a real process, on files in a folder of the test's."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any, Self

import yaml

from tests.support.ports import free_port

ROOT = Path(__file__).resolve().parents[2]
START_S = 20.0
COMMAND = "from engine.cli.main import main; main()"


class Interlock:
    """One service: its files, its process, its API."""

    def __init__(self, folder: Path, channels: dict[str, dict[str, Any]], **settings: Any) -> None:
        self.folder = folder
        self.http = free_port()
        self.process: Any = None  # a subprocess.Popen, or what serves as one
        self.log = folder / "log.ndjson"
        (folder / "channels").mkdir(parents=True)
        endpoints = settings.pop("endpoints", {})
        self._write(
            "interlock.yaml", {"http": f"127.0.0.1:{self.http}", "ledger": "sqlite:///interlock.db", **settings}
        )
        self._write("channels/endpoints.yaml", endpoints)
        self._write("channels/defaults.yaml", {"timezone": "America/Chicago", "owner": "test@example.org"})
        for id, channel in channels.items():
            self._write(f"channels/{id}.yaml", {"id": id, "connection": id, "title": id, **channel})

    def _write(self, name: str, content: dict[str, Any]) -> None:
        (self.folder / name).write_text(yaml.safe_dump(content))

    def launch(self, *dying: str) -> None:
        """Start the process. `dying`: the step at which it is to end, and of which message (tests.support.dying)."""
        command = ["-m", "tests.support.dying", *dying] if dying else ["-c", COMMAND]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, *command, "run", "--config", str(self.folder / "interlock.yaml")],
                stderr=log,
                stdout=log,
                cwd=ROOT,
            )

    def start(self, *dying: str) -> None:
        """Start, and return when the service is ready."""
        self.launch(*dying)
        assert self.process
        deadline = time.monotonic() + START_S
        while not self.ready():
            assert self.process.poll() is None, self.log.read_text()[-3000:]
            assert time.monotonic() < deadline, self.log.read_text()[-3000:]
            time.sleep(0.02)

    def ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.http}/readyz", timeout=2) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    def kill(self) -> None:
        """SIGKILL: no goodbye."""
        assert self.process
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def killed(self) -> None:
        """Wait until it has been killed, by itself or by a peer."""
        assert self.process
        assert self.process.wait(START_S) == -signal.SIGKILL, self.log.read_text()[-3000:]

    def strike(self) -> None:
        """SIGKILL, at this very moment, from whoever sees that it has come."""
        assert self.process
        self.process.send_signal(signal.SIGKILL)

    def stop(self) -> int:
        assert self.process
        self.process.terminate()
        return self.process.wait(30)

    def get(self, path: str) -> Any:
        return self._ask(path, None)

    def post(self, path: str, order: dict[str, Any]) -> Any:
        """urllib.error.HTTPError where it is refused, OSError where nobody is there."""
        return self._ask(path, json.dumps(order).encode())

    def _ask(self, path: str, data: bytes | None) -> Any:
        token = (self.folder / "interlock.token").read_text().strip()
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        request = urllib.request.Request(f"http://127.0.0.1:{self.http}{path}", data=data, headers=headers)
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.loads(answer.read())

    def messages(self, channel: str) -> list[dict[str, Any]]:
        """All of a channel, oldest first."""
        rows: list[dict[str, Any]] = []
        before = ""
        while page := self.get(f"/api/v1/messages?channel={channel}&limit=1000{before}"):
            rows += page
            before = f"&before={page[-1]['seq']}"
        return rows[::-1]

    def open_messages(self) -> int:
        return sum(at["open"] for channel in self.get("/api/v1/status")["channels"] for at in channel["destinations"])

    def wait_settled(self, seconds: float = 60.0) -> None:
        deadline = time.monotonic() + seconds
        while left := self.open_messages():
            assert time.monotonic() < deadline, f"{left} messages are still open"
            time.sleep(0.1)

    @property
    def ledger(self) -> Path:
        return self.folder / "interlock.db"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.wait()

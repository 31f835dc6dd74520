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
from typing import Any

import yaml

from tests.support.ports import free_port

START_S = 20.0
COMMAND = "from engine.cli.main import main; main()"


class Interlock:
    """One service: its files, its process, its API."""

    def __init__(self, folder: Path, channels: dict[str, dict[str, Any]], **settings: Any) -> None:
        self.folder = folder
        self.http = free_port()
        self.process: subprocess.Popen[bytes] | None = None
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

    def start(self) -> None:
        """Start, and return when the service is ready."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", COMMAND, "run", "--config", str(self.folder / "interlock.yaml")],
                stderr=log,
                stdout=log,
            )
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

    def stop(self) -> int:
        assert self.process
        self.process.terminate()
        return self.process.wait(30)

    def get(self, path: str) -> Any:
        token = (self.folder / "interlock.token").read_text().strip()
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.http}{path}", headers={"Authorization": f"Bearer {token}"}
        )
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

    def __enter__(self) -> Interlock:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.wait()

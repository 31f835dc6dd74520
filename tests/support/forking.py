"""`interlock run` as a real process that starts in a tenth of a second: forked from one that has imported everything.

    python -m tests.support.forking       one JSON line on stdin (`command`: what to run, `log`: where its output goes)
                                          gives {"pid": …}; {"wait": PID} gives {"status": …} when that has ended

The service forks nothing itself, so that what is killed is whole: its own memory, files and locks.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from engine.cli.main import main as interlock
from tests.support import dying
from tests.support.processes import ROOT, Interlock

EVERYTHING = (
    "engine.api.application", "engine.cli.process", "engine.cli.running", "engine.config.loading",
    "engine.service.evidence", "engine.service.orders", "engine.service.remedies", "engine.service.upkeep",
)  # fmt: skip


class Nursery:
    """The process that they are forked from."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
        )

    def ask(self, **question: Any) -> dict[str, int]:
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        stdin.write(json.dumps(question) + "\n")
        stdin.flush()
        answer: dict[str, int] = json.loads(stdout.readline())
        return answer

    def close(self) -> None:
        self._process.communicate(timeout=10)


class Child:
    """A forked process, with what `subprocess.Popen` would have of it."""

    def __init__(self, nursery: Nursery, command: list[str], log: Path) -> None:
        self._nursery = nursery
        self.pid = nursery.ask(command=command, log=str(log))["pid"]
        self.returncode: int | None = None
        self._end = os.pidfd_open(self.pid)

    def poll(self) -> int | None:
        return self.returncode if self.returncode is not None or not self._ended(0) else self.wait()

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None:
            if not self._ended(timeout):
                raise subprocess.TimeoutExpired("interlock run", timeout or 0)
            self.returncode = os.waitstatus_to_exitcode(self._nursery.ask(wait=self.pid)["status"])
            os.close(self._end)
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.returncode is None:
            signal.pidfd_send_signal(self._end, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def _ended(self, timeout: float | None) -> bool:
        return bool(select.select([self._end], [], [], timeout)[0])


class Forked(Interlock):
    """One service, forked."""

    def __init__(self, nursery: Nursery, folder: Path, channels: dict[str, dict[str, Any]], **settings: Any) -> None:
        super().__init__(folder, channels, **settings)
        self._nursery = nursery

    def launch(self, *dying: str) -> None:
        self.process = Child(self._nursery, [*dying, "run", "--config", str(self.folder / "interlock.yaml")], self.log)


@contextmanager
def nursery() -> Iterator[Nursery]:
    made = Nursery()
    try:
        yield made
    finally:
        made.close()


def born(command: list[str], log: str) -> None:
    """In the child: be the service, and never return."""
    status = 1
    try:
        with open(log, "ab", buffering=0) as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        sys.argv = ["interlock", *command]
        run = interlock if command[0] == "run" else dying.main
        try:
            run()
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


def main() -> None:
    for name in EVERYTHING:
        __import__(name)
    for line in sys.stdin:
        question = json.loads(line)
        if "wait" in question:
            answer = {"status": os.waitpid(question["wait"], 0)[1]}
        else:
            answer = {"pid": os.fork()}
            if answer["pid"] == 0:
                born(question["command"], question["log"])
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()

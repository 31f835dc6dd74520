"""Processes of a benchmark: started, asked, loaded, and what their figures come to."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

Figures = dict[str, Any]
Ask = Callable[[], Figures]

CALM = 1.0
"""Seconds between a window of disturbance and the next one without, so that no window pays for another."""


@contextmanager
def process(module: str, *arguments: str) -> Iterator[tuple[Figures, Ask]]:
    """A module that prints a ready line; the line, and a function that asks it for figures."""
    running = subprocess.Popen(
        [sys.executable, "-m", module, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    )
    assert running.stdin
    assert running.stdout

    def ask() -> Figures:
        assert running.stdin
        assert running.stdout
        running.stdin.write("figures\n")
        running.stdin.flush()
        if not (line := running.stdout.readline()):
            raise SystemExit(f"{module} ended before it answered")
        answer: Figures = json.loads(line)
        return answer

    try:
        line = running.stdout.readline()
        if not line:
            raise SystemExit(f"{module} did not start")
        yield json.loads(line), ask
    finally:
        running.terminate()
        try:
            running.communicate(timeout=60)
        finally:
            running.kill()


def load(ports: str, *flags: str, **options: Any) -> Figures:
    arguments = [*flags, *(f"--{name}={value}" for name, value in options.items())]
    found = subprocess.run(
        [sys.executable, "-m", "bench.load.generator", "--ports", ports, *arguments],
        check=True,
        stdout=subprocess.PIPE,
    )
    answer: Figures = json.loads(found.stdout)
    return answer


def settled(ask: Ask, seconds: float = 120.0, ways: int = 1) -> Figures:
    """Once nothing comes any more, and everything is through, on each of so many ways. SystemExit where that takes
    longer."""
    return _once(ask, lambda now: now["settled"] >= ways * now["stored"], seconds)


def read(ask: Ask, seconds: float = 120.0) -> Figures:
    """The same, and the search keys of everything are kept."""
    return _once(ask, lambda now: not now["unread"], seconds)


def _once(ask: Ask, through: Callable[[Figures], bool], seconds: float) -> Figures:
    deadline = time.monotonic() + seconds
    while not through(now := ask()):
        if time.monotonic() > deadline:
            raise SystemExit(f"not through within {seconds:.0f} s: {json.dumps(now)}")
        time.sleep(0.02)
    return now


def fdatasync() -> float:
    """1.6 KB appended and synced, times a second."""
    with tempfile.NamedTemporaryFile(dir=".") as file:
        block, count, began = b"x" * 1600, 0, time.perf_counter()
        while time.perf_counter() - began < 1.5:
            os.write(file.fileno(), block)
            os.fdatasync(file.fileno())
            count += 1
        return count / (time.perf_counter() - began)


def median(rows: list[Figures], name: str) -> float:
    return round(float(statistics.median(row[name] for row in rows)), 2)


def summed(rows: list[Figures], cpu: float | None = None) -> Figures:
    result = {
        "msg_per_s": median(rows, "per_second"),
        "p50_ms": median(rows, "p50_ms"),
        "p99_ms": median(rows, "p99_ms"),
    }
    if lost := sum(row["lost"] + row["wrong"] + row["refused"] for row in rows):
        result["not_accepted"] = lost
    if cpu is not None:
        result["engine_cpu_us_per_msg"] = round(cpu / max(1, sum(row["accepted"] for row in rows)) * 1e6, 1)
    return result


def compared(without: list[Figures], disturbed: list[Figures]) -> Figures:
    """Windows without and with something else going on, and how many times higher the latencies are with it."""
    before, after = _worst(without), _worst(disturbed)
    return {
        "without": before,
        "with": after,
        "p50_ratio": ratio(after["p50_ms"], before["p50_ms"]),
        "p99_ratio": ratio(after["p99_ms"], before["p99_ms"]),
    }


def _worst(rows: list[Figures]) -> Figures:
    """The longest that the service's event loop stood still, and that the load generator itself was late: where the
    latter is in the size of a latency, the machine was too busy for the figure to mean anything."""
    longest = {"stall_ms": "longest_stall_ms", "late_ms": "generator_late_ms"}
    return summed(rows) | {said: max(row[name] for row in rows) for name, said in longest.items()}


def ratio(one: float, other: float) -> float | None:
    """None where there is nothing to compare with."""
    return round(one / other, 2) if other else None

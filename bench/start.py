"""`interlock run` on 250 channel files: seconds from exec to every port accepting, and memory then."""

from __future__ import annotations

import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

FIRST_PORT = 23000
CHANNELS = 250

CHANNEL = """\
id: c{n:04}
connection: bench
title: bench {n}
direction: results
owner: bench@example.org
timezone: America/Chicago
phase: parallel
listen: {{host: 127.0.0.1, port: {port}, accepts: [ORU^R01]}}
legacy: {{mllp: old-engine}}
target: {{mapping: oru_r01, destinations: [{{medplum: {{}}}}]}}
"""
SETTINGS = """\
http: 127.0.0.1:22999
medplum: {base_url: "http://127.0.0.1:9", client_id: bench, client_secret: bench}
"""


def figures(rounds: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="interlock-bench-") as name:
        folder = Path(name)
        (folder / "channels").mkdir()
        (folder / "interlock.yaml").write_text(SETTINGS)
        (folder / "channels" / "endpoints.yaml").write_text('old-engine: {mllp: "127.0.0.1:9"}\n')
        for n in range(CHANNELS):
            (folder / "channels" / f"c{n:04}.yaml").write_text(CHANNEL.format(n=n, port=FIRST_PORT + n))
        runs = [_run(folder) for _ in range(rounds)]
    return {
        "first_start_s": runs[0][0],
        "start_s": round(statistics.median(seconds for seconds, _ in runs), 3),
        "rss_mib": statistics.median(memory for _, memory in runs),
    }


def _run(folder: Path) -> tuple[float, int]:
    command = [str(Path(sys.executable).with_name("interlock")), "run", "--config", str(folder / "interlock.yaml")]
    began = time.perf_counter()
    # Compiled modules are kept as on any installation, whatever this environment says.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, env=environment)
    try:
        for n in range(CHANNELS - 1, -1, -1):
            while not _accepts(FIRST_PORT + n):
                if process.poll() is not None:
                    raise SystemExit(f"interlock run ended with {process.returncode}")
                time.sleep(0.002)
        seconds = time.perf_counter() - began
        status = Path(f"/proc/{process.pid}/status").read_text()
        return round(seconds, 3), int(status.split("VmRSS:")[1].split()[0]) // 1024
    finally:
        process.terminate()
        process.wait(30)


def _accepts(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 0.5).close()
    except OSError:
        return False
    return True

"""Ports that a test may listen on later."""

from __future__ import annotations

import os
import random
import socket
from itertools import count
from pathlib import Path

_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")
_LOWEST = 10_000
_HIGHEST = int(_RANGE.read_text().split()[0]) - 1 if _RANGE.exists() else 32_000
_PROCESS = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
_PROCESSES = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
_SHARE = (_HIGHEST - _LOWEST) // _PROCESSES  # of each process that runs tests
_numbers = count(random.SystemRandom().randrange(_SHARE))


def free_port() -> int:
    """A port of this machine that nobody listens on. It lies below those that the kernel hands out by itself: of these,
    one that was free a moment ago may by now be the end of another test's connection."""
    for number in _numbers:
        port = _LOWEST + _PROCESS * _SHARE + number % _SHARE
        with socket.socket() as sock:
            try:
                sock.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port
    raise AssertionError("the numbers never end")

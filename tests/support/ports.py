"""Ports that a test may listen on later."""

from __future__ import annotations

import random
import socket
from itertools import count
from pathlib import Path

_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")
_LOWEST = 10_000
_HIGHEST = int(_RANGE.read_text().split()[0]) - 1 if _RANGE.exists() else 32_000
_numbers = count(random.SystemRandom().randrange(_HIGHEST - _LOWEST))


def free_port() -> int:
    """A port of this machine that nobody listens on. It lies below those that the kernel hands out by itself: of these,
    one that was free a moment ago may by now be the end of another test's connection."""
    for number in _numbers:
        port = _LOWEST + number % (_HIGHEST - _LOWEST)
        with socket.socket() as sock:
            try:
                sock.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port
    raise AssertionError("the numbers never end")

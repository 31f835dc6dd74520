"""Ports that somebody else may have: tried again until they are ours, and down until then."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Protocol

AGAIN = 2.0  # seconds until a port that could not be had is tried again


class Opens(Protocol):
    """Whatever has a port. `down`: why nobody can connect, as far as that is known."""

    @property
    def down(self) -> str | None: ...

    async def open(self) -> None:
        """OSError where the port cannot be had; `down` says why."""


async def opened(port: Opens) -> bool:
    """Try once. Whether it is open now."""
    with contextlib.suppress(OSError):
        await port.open()
    return port.down is None


async def keep_opening(port: Opens) -> None:
    """Returns when it is open."""
    while port.down is not None:
        await asyncio.sleep(AGAIN)
        if port.down is not None:  # somebody else may have opened it meanwhile
            await opened(port)

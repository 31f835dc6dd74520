"""How a load process says that it is ready, and waits to be ended."""

from __future__ import annotations

import asyncio
import json
import signal
from typing import Any


async def serve(ready: dict[str, Any]) -> None:
    """Print the ready line, with the first port by itself; return on SIGTERM or SIGINT."""
    stop = asyncio.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(name, stop.set)
    print(json.dumps({"port": ready["ports"][0], **ready}), flush=True)
    await stop.wait()

"""A message that is to be sent, and whom to tell what became of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import NamedTuple

from engine.mllp.replies import Reply


class Exchange(NamedTuple):
    """See `Client.send`."""

    payload: bytes
    timeout: float
    done: Callable[[Reply], None]
    final: Callable[[bytes], bool] | None
    expects: bool


def tell(exchange: Exchange, reply: Reply) -> None:
    """Call back. What goes wrong there is the owner's, and must not stop the exchange after it."""
    try:
        exchange.done(reply)
    except Exception as error:
        loop = asyncio.get_running_loop()
        loop.call_exception_handler({"message": "an MLLP reply's callback failed", "exception": error})

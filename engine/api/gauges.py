"""The gauges that are counted from the ledger when somebody scrapes, not while messages flow."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from engine.api.reading import Reading
from engine.observe.delivery_events import OLDEST, OPEN
from engine.observe.events import emit
from engine.observe.ledger_events import UNBALANCED, LedgerUnbalanced
from engine.observe.service_events import Fault
from engine.observe.tap_events import PARKED

OPEN_STATES = ("waiting", "sending", "retrying", "unknown", "parked", "dead")
EVERY_S = 5.0
PATIENCE_S = 3.0


class Gauges:
    """Open work, its age and the balance of every destination, and what taps keep for a person; at most `EVERY_S` old.
    Never fails a scrape."""

    def __init__(self, reading: Reading) -> None:
        self._reading = reading
        self._next = 0.0

    async def refresh(self) -> None:
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + EVERY_S
        try:
            async with asyncio.timeout(PATIENCE_S):
                show(await self._reading.status())
        except TimeoutError:
            pass  # a ledger that is slow just now: the other metrics matter all the more
        except Exception as error:  # the rim: what cannot be counted must not hide what was
            emit(Fault.of(error))


def show(status: dict[str, Any]) -> None:
    """Set the gauges from a `Status`."""
    for cell in PARKED.cells.values():
        cell.n = 0
    for channel in status["channels"]:
        counts = {tap["name"]: 0 for tap in channel["taps"]} | channel["parked"]
        for tap, count in counts.items():
            PARKED.of(channel["id"], tap).n = count
        for destination in channel["destinations"]:
            where = (channel["id"], destination["name"])
            for state in OPEN_STATES:
                OPEN.of(*where, state).n = destination["counts"].get(state, 0) + destination["replayed"].get(state, 0)
            OLDEST.of(*where).n = destination["oldest_s"] or 0.0
            if not destination["balanced"] and not UNBALANCED.of(*where).n:
                emit(LedgerUnbalanced(*where))
            UNBALANCED.of(*where).n = int(not destination["balanced"])

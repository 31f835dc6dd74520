"""What a running service writes into its log."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from engine.observe import events
from engine.observe.delivery_events import RelayLate
from engine.observe.events import LOG, emit
from engine.service import service
from tests.support.house import configuration, live, running, until


async def test_the_newest_of_a_burst_waits_for_no_other_event(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = io.StringIO()
    monkeypatch.setattr(LOG, "_stream", lines)
    monkeypatch.setattr(events, "WINDOW_S", 0.1)
    monkeypatch.setattr(service, "SWEEP", 0.02)
    async with running(configuration(tmp_path, live())):
        for seq in (1, 2):
            emit(RelayLate("burst", seq, 1.0))
        await until(lambda: lines.getvalue().count("relay_late") == 2, 5.0)

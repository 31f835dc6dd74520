"""The application's answer after an accept acknowledgement: where it cannot be kept, nobody else's is touched."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from engine.intake.inlet import LATER
from engine.intake.port import Port
from engine.ledger.model import IntakeEvent
from engine.simulate.messages import Messages
from tests.support.house import channel, served, until
from tests.support.scripted import Scripted, ack

MESSAGES = Messages("oru", seed=82)


@pytest.mark.parametrize("lost", [Port.unkept, Port.unwritten])
async def test_one_that_cannot_be_kept_leaves_the_others_owed(tmp_path: Path, lost: object) -> None:
    async with (
        Scripted(lambda payload: (0.5, ack(payload))) as engine,
        served(tmp_path, channel("acme", old_engine=engine.port)) as (service, peer),
    ):
        peer.send(MESSAGES.message(1))
        port = service.doors.ports["acme"]
        await until(lambda: bool(engine.payloads))
        (conn,) = port.listener.connections
        book = service.ledger.channels["acme"]
        event = IntakeEvent(book, LATER, "", 1, conn.peer, conn.number, b"", 0, b"AA", None, SimpleNamespace(conn=conn))
        lost(port, event)  # type: ignore[operator]
        assert conn.owed == 1
        port.recovered()
        assert await peer.answer() == ack(MESSAGES.message(1))

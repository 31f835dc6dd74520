"""What a rollback left to a person stands in nobody's way; a person's own replay of it does, as any delivery."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.ledger.model import Message, Settlement, State
from engine.ledger.routing import Grant, Mode, Route, Routing
from engine.ledger.sqlite.ledger import SqliteLedger

NOW = 1_700_000_000_000_000
ROUTING = Routing((Route("emr", "mllp", Mode.SEND, "channel"),))


@pytest.mark.parametrize(("delivery", "blocks"), [(1, False), (2, True)])
async def test_parked_work_waits_for_a_person_unless_its_own_delivery_is_one_of_them(
    tmp_path: Path, delivery: int, blocks: bool
) -> None:
    ledger = SqliteLedger(tmp_path / "ledger.db", lambda: NOW)
    ledger.start(lambda commit: None)
    book = await ledger.switch("acme", "live", ROUTING, {}, who="test", why="first")
    (course,) = book.courses
    ledger.pause(course, False)
    message = Message(book, b"MSH|", NOW)
    ledger.store(message)
    await ledger.transaction(lambda b: b.grant(book, Grant("emr", 1, 1, Mode.ASK, 4), at=NOW, who="ops", why="back"))
    if delivery > 1:
        ledger.settle(Settlement(course, message, State.DELIVERED, NOW))
        await ledger.transaction(lambda b: b.replay(course, message.id, 1, delivery, 1, "replay 1"))
        ledger.claim(course, (1, 1, delivery))
    ledger.settle(Settlement(course, message, State.PARKED, NOW, "it may have been taken", delivery=delivery))
    await ledger.transaction(lambda b: None)
    assert course.open[1, 1, delivery].blocks is blocks
    await ledger.close()

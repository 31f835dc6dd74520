"""What is claimed for a peer, and the peer may be sent to no more before it is handed over."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from engine.config.address import Address
from engine.config.endpoint import Endpoint
from engine.delivery.breaker import Breaker
from engine.delivery.decision import Manner
from engine.delivery.destinations.mllp import MllpDestination
from engine.delivery.sender import Sender
from engine.delivery.work import Work
from engine.ledger.course import ChannelBook
from engine.ledger.model import Message
from engine.ledger.outcome import Outcome, Result
from engine.mllp.replies import Answered
from tests.delivery.test_sender import Wire, ack

UNTIL = datetime(2026, 11, 23, 7, 0, tzinfo=UTC)
BOOK = ChannelBook(1, "acme", 0)


class Scene:
    """Two courses to one endpoint of one line."""

    def __init__(self) -> None:
        endpoint = Endpoint("emr", Address("127.0.0.1", 1))
        self.wire, self.breaker, self.sender = Wire(), Breaker("emr"), Sender()
        self.sender.use([self.wire])
        self.heard: list[tuple[int, Outcome]] = []
        self.ways = [
            MllpDestination("emr", endpoint, self.sender, self.breaker, Manner("waits", True), lambda *_: None)
            for _ in range(2)
        ]

    def send(self, number: int) -> None:
        raw = f"MSH|^~\\&|A|B|C|D|1||ORU^R01|{number}|P|2.5\r".encode()
        message = Message(BOOK, raw, 0, str(number))
        message.seq = number
        work = Work(message, lambda work, outcome: self.heard.append((work.message.seq, outcome)))
        self.ways[number % 2].send(work)


@pytest.fixture
async def it() -> Scene:
    return Scene()


async def test_what_is_not_handed_over_when_the_hours_end_is_provably_not_taken(it: Scene) -> None:
    for number in (1, 2, 3):
        it.send(number)
    it.breaker.rest(UNTIL)
    told = Outcome(Result.NOT_TAKEN, "not sent: closed until Mon 07:00 UTC", local=True)
    assert sorted(it.heard, key=lambda heard: heard[0]) == [(2, told), (3, told)]
    it.wire.answer(Answered(ack("AA", "1")))
    assert [outcome.result for seq, outcome in it.heard if seq == 1] == [Result.DELIVERED]
    assert len(it.wire.sent) == 1


async def test_so_it_is_when_the_breaker_opens(it: Scene) -> None:
    it.send(1)
    it.send(2)
    it.breaker.heard(Outcome(Result.FAULT, "certificate expired"))
    assert it.heard == [(2, Outcome(Result.NOT_TAKEN, "not sent: certificate expired", local=True))]


async def test_what_was_being_claimed_meanwhile_is_not_sent_either_and_what_asks_is(it: Scene) -> None:
    it.breaker.heard(Outcome(Result.FAULT, "certificate expired"))
    it.send(1)
    assert [(seq, outcome.result) for seq, outcome in it.heard] == [(1, Result.NOT_TAKEN)]
    assert it.wire.sent == []
    it.breaker.enqueue(lambda: (it.send(1), True)[1])
    it.breaker.here()
    assert len(it.wire.sent) == 1
    it.breaker.stop()


async def test_who_is_gone_hears_of_no_breaker(it: Scene) -> None:
    it.send(1)
    it.send(2)
    for way in it.ways:
        await way.close()
    it.breaker.rest(UNTIL)
    assert it.heard == []

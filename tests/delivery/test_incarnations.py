"""What a message leaves outside is named after the incarnation that numbered it, also when another one sends it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from engine.delivery.destinations.medplum import MedplumDestination
from engine.delivery.work import Work
from engine.ledger.course import ChannelBook
from engine.ledger.model import Message
from engine.ledger.sqlite.incarnations import Incarnations


@pytest.mark.parametrize(
    ("id", "seq", "tag"), [(20, 10, "old/acme/10"), (21, 11, "new/acme/11")], ids=["before the restore", "after it"]
)
def test_a_tag_names_the_incarnation_of_its_message(id: int, seq: int, tag: str) -> None:
    submitted: list[Any] = []
    project: Any = SimpleNamespace(
        breaker=None, settle_time=0.0, submit=lambda attempt, done: submitted.append(attempt)
    )
    incarnations = Incarnations("new", [(0, "old"), (21, "new")])
    outputs: Any = SimpleNamespace(version=lambda work: "")
    destination = MedplumDestination("medplum", project, incarnations, outputs, order_by="patient")
    message = Message(ChannelBook(1, "acme", seq), b"MSH|", 0)
    message.id, message.seq = id, seq
    destination.send(Work(message, lambda work, outcome: None))
    assert submitted[0].tag == tag


def test_a_ledger_that_was_never_restored_has_one_incarnation() -> None:
    assert Incarnations("only").of(7) == "only"

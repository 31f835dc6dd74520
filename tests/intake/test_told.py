"""What `show` says that a sender has heard is what it has heard."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, get_args

import pytest

from engine.config.address import Address
from engine.config.edge import Ack, AckForm, AckMode, Batch
from engine.config.endpoint import Endpoint
from engine.hl7.ack import parse_ack
from engine.hl7.batch import is_batch, peek_batch, read_batch
from engine.hl7.peek import peek
from engine.intake.answering import Answering
from engine.intake.reply import Reply
from engine.intake.told import told

PLAIN = "MSH|^~\\&|LAB|F|EMR|C|20260101||ORU^R01|M1|P|2.5|||{}|{}\rPID|1||7\r"
CONDITIONS = ("", "AL", "NE", "ER", "SU")
THERE = Endpoint("there", Address("127.0.0.1", 1))


class Heard:
    """A connection that remembers what is sent on it."""

    commits = None

    def __init__(self) -> None:
        self.codes: list[str] = []

    def send(self, answer: bytes) -> bool:
        self.codes += codes(answer)
        return True

    transmit = send

    def unanswered(self) -> None: ...


def codes(answer: bytes) -> list[str]:
    batch = read_batch(answer)
    return [str(parse_ack(each).code) for each in (batch.messages if batch else [answer])]


def heard(raw: bytes, ack: Ack, batch: Batch) -> tuple[list[str], list[str]]:
    """On its own connection, and elsewhere."""
    conn, elsewhere = Heard(), Heard()
    to = (lambda conn, answer, sent: elsewhere.send(answer)) if ack.to else None
    answering = Answering("acme", ack, batch, lambda: "1", lambda: 0, to)
    head = peek_batch(raw) if is_batch(raw) else peek(raw)
    port: Any = SimpleNamespace()
    answering.accept(Reply(port, conn, head, 0.0, answering.asks(head), raw if is_batch(raw) else None))  # type: ignore[arg-type]
    return conn.codes, elsewhere.codes


@pytest.mark.parametrize("mode", get_args(AckMode))
@pytest.mark.parametrize("accept", CONDITIONS)
@pytest.mark.parametrize("application", CONDITIONS)
@pytest.mark.parametrize("changed", [{}, {"AA": "CA"}, {"CA": "AA"}])
@pytest.mark.parametrize("to", [None, THERE])
def test_it_names_every_answer_in_its_order_and_where_it_went(
    mode: AckMode, accept: str, application: str, changed: dict[str, str], to: Endpoint | None
) -> None:
    ack = Ack("stored", mode=mode, form=AckForm(codes=changed), to=to)
    raw = PLAIN.format(accept, application).encode()
    here, there = heard(raw, ack, "one")
    said = told(raw, ack, "one").removesuffix(", as the options are now")
    parts = [] if said.startswith("nothing") else said.split(", then ")
    assert [part for part in parts if " " not in part] == here
    assert [part.partition(" to 127.0.0.1:1")[0] for part in parts if " to " in part] == there


def test_usual_options_need_no_words_and_others_are_told_as_what_they_are_now() -> None:
    raw = PLAIN.format("", "").encode()
    assert told(raw, Ack("stored"), "one") == "AA"
    assert told(PLAIN.format("NE", "NE").encode(), Ack("stored"), "one") == "nothing, as MSH-15 and MSH-16 ask"
    assert told(raw, Ack("stored", form=AckForm(codes={"AA": "CA"})), "one") == "CA, as the options are now"
    assert told(raw, Ack("stored"), "none") == "AA", "it is no batch"


@pytest.mark.parametrize(
    ("batch", "said"),
    [
        ("one", "AA"),
        ("each", "AA for each message, as the options are now"),
        ("errors", "a batch answer without errors, as the options are now"),
        ("none", "nothing, as the options are now"),
    ],
)
def test_batches(batch: Batch, said: str) -> None:
    one = PLAIN.format("", "").encode()
    raw = b"BHS|^~\\&|LAB|F|EMR|C|20260101||||B1\r" + one + one + b"BTS|2\r"
    assert told(raw, Ack("stored"), batch) == said
    assert heard(raw, Ack("stored"), batch)[0] == {"one": ["AA"], "each": ["AA"] * 2}.get(batch, [])

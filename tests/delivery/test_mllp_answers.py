"""What an answer over MLLP means for the message it should belong to."""

from __future__ import annotations

import pytest

from engine.config.edge import ACKNOWLEDGES
from engine.delivery.destinations.mllp import classify
from engine.ledger.outcome import Result


def answer(code: str, id: str = "X1", error: str = "") -> bytes:
    err = f"ERR||PID^1|{error}|E\r" if error else ""
    return f"MSH|^~\\&|L|L|E|E|20260101||ACK|9|P|2.5.1\rMSA|{code}|{id}\r{err}".encode()


@pytest.mark.parametrize(
    ("payload", "result"),
    [
        (answer("AA"), Result.DELIVERED),
        (answer("CA"), Result.DELIVERED),
        (answer("AE"), Result.NOT_TAKEN),
        (answer("CE"), Result.NOT_TAKEN),
        (answer("AE", error="207"), Result.NOT_TAKEN),
        (answer("AE", error="206"), Result.NOT_TAKEN),
        (answer("AE", error="101"), Result.NEVER),
        (answer("AE", error="200"), Result.NEVER),
        (answer("AR"), Result.NEVER),
        (answer("CR"), Result.NEVER),
        (answer("AA", id="X2"), Result.UNKNOWN),
        (answer("AR", id="X2"), Result.UNKNOWN),
        (answer("AA", id=""), Result.UNKNOWN),
        (b"", Result.UNKNOWN),
        (b"hello", Result.UNKNOWN),
        (b"MSH|^~\\&|L|L|E|E|20260101||ORU^R01|9|P|2.5.1\rPID|1", Result.UNKNOWN),
    ],
)
def test_the_answers_class(payload: bytes, result: Result):
    assert classify(payload, "X1", ACKNOWLEDGES).result is result


def test_a_message_without_a_control_id_takes_any_acknowledgement():
    assert classify(answer("AA", id="whatever"), None, ACKNOWLEDGES).result is Result.DELIVERED


def test_a_reason_repeats_no_text_of_the_answer():
    payload = answer("AE", error="101").replace(b"|E\r", b"|E||||DOE^JANE\r")
    assert "DOE" not in classify(payload, "X1", ACKNOWLEDGES).reason


LONG = "20260101120000123456789"


@pytest.mark.parametrize(
    ("payload", "result"),
    [
        (b"NACK", Result.DELIVERED),
        (b"", Result.DELIVERED),
        (b"MSH|^~\\&|L|L|E|E|20260101||ACK|9|P|2.5.1\r", Result.DELIVERED),
        (b"MSH|^~\\&|L|L|E|E|20260101|||9|P|2.5.1\r", Result.DELIVERED),
        (answer("OK", LONG), Result.DELIVERED),
        (answer("AA", ""), Result.DELIVERED),
        (answer("AA", LONG[:20]), Result.DELIVERED),
        (answer("AR", LONG[:20]), Result.NEVER),
        (answer("AE", LONG), Result.NOT_TAKEN),
        (answer("AA", LONG[:19]), Result.UNKNOWN),  # may be another's whole control id
        (answer("AA", LONG[1:]), Result.UNKNOWN),
        (answer("AA", LONG + "0"), Result.UNKNOWN),
        (answer("OK", "X1"), Result.UNKNOWN),
        (b"MSH|^~\\&|L|L|E|E|20260101||ORU^R01|9|P|2.5.1\rPID|1", Result.UNKNOWN),  # its own message
    ],
)
def test_where_we_are_transparent_only_what_names_another_message_is_no_answer(payload: bytes, result: Result):
    outcome = classify(payload, LONG, ACKNOWLEDGES, transparent=True)
    assert outcome.result is result
    assert (outcome.answer == payload) is (result is not Result.UNKNOWN)
    if result is Result.DELIVERED:
        assert classify(payload, LONG, ACKNOWLEDGES).result is Result.UNKNOWN, "not so at a real endpoint"

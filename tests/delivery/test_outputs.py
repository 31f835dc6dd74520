"""What a destination without a mapping gets, where it wants control ids of ours."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest

from engine.config.filtering import Emit
from engine.delivery.outputs import Outputs
from engine.delivery.work import Work
from engine.hl7.peek import peek
from engine.ledger.outcome import Outcome, Result
from engine.ledger.routing import Mode, Route, Routing
from engine.mapping.effective import Effective
from engine.mapping.library import Library
from engine.mapping.v2.emission import control_id
from engine.mapping.v2.library import V2Library
from engine.mapping.versions import Versions
from tests.support.house import channel, emr

NOW = 1_767_225_600_000_000
FIRST, SECOND = (f"MSH|^~\\&|LAB|L|EMR|C|20260101||ORU^R01|C{n}|P|2.5\rPID|1||7\r".encode() for n in (1, 2))
ENVELOPE = b"FHS|^~\\&|LAB\rBHS|^~\\&|LAB\r", b"BTS|2\rFTS|1\r"


def made(raw: bytes) -> tuple[Work, Outcome | None]:
    to = replace(emr(1), name="emr", emit=Emit(ours=True))
    by = Effective.of(channel("acme", destinations=(to,)), to, Library.empty(), V2Library({}, {}))
    versions = Versions(lambda version: None)
    versions.use([by])
    routing = Routing((Route("emr", "mllp", Mode.SEND, "channel", by.version),))
    book = SimpleNamespace(epoch=SimpleNamespace(routing=routing))
    message = SimpleNamespace(raw=raw, channel=book, id=1, seq=7, received=NOW)
    work = Work(message, lambda work, outcome: None)  # type: ignore[arg-type]
    return work, Outputs("acme", "emr", versions, SimpleNamespace(of=lambda id: "i"), None).make(work)  # type: ignore[arg-type]


def test_of_a_batch_each_message_goes_by_itself_with_an_id_of_its_own() -> None:
    head, tail = ENVELOPE
    work, ended = made(head + FIRST + SECOND + tail)
    assert ended is None
    assert [peek(raw).control_id for raw in work.outputs or ()] == [
        control_id("i", "acme", 7, "emr", n) for n in (1, 2)
    ]
    assert [raw.split(b"\r")[1] for raw in work.outputs or ()] == [b"PID|1||7"] * 2


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (b"".join(ENVELOPE), "empty-batch"),
        (ENVELOPE[0] + FIRST + ENVELOPE[1], "broken-batch"),
        (b"PID|1||7\r", "no-header"),
    ],
)
def test_what_no_id_can_be_given_to_waits_for_a_person_and_says_why(raw: bytes, why: str) -> None:
    _, ended = made(raw)
    assert ended is not None
    assert (ended.result, ended.aside) == (Result.NEVER, True)
    assert ended.reason.startswith(why)

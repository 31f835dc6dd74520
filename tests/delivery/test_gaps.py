"""What a mapping could not carry over, on its way from the outputs to the ledger."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from engine.delivery.attempt import Attempt
from engine.delivery.carrier import LocalCarrier
from engine.delivery.runner import Runner
from engine.delivery.work import Work
from engine.fhir.output import Output, UnmappedCode
from engine.ledger.gaps import Code, Gaps
from engine.ledger.model import Message
from engine.ledger.outcome import Outcome, Result
from engine.ledger.routing import Epoch, Mode, Route, Routing

ATTEMPT = Attempt("acme", 1, b"MSH", 0, "i", "i/acme/1")
WBC = UnmappedCode("LabTests", "OBX-3", "WBC", "L")
SEX = UnmappedCode("Genders", "PID-8", "Z", "")


class Deliverer:
    def __init__(self, *results: Result) -> None:
        self.results = list(results)

    async def deliver(self, output: Output, tag: str, *, unknown: bool = False, since: float = 0.0) -> Outcome:
        return Outcome(self.results.pop(0), points=5)

    async def probe(self) -> Any: ...

    async def close(self) -> None: ...


async def carried(outputs: list[Output], *results: Result) -> Outcome:
    carrier = LocalCarrier(lambda _: outputs, Deliverer(*results))
    heard: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
    carrier.carry(ATTEMPT, heard.set_result)
    async with asyncio.timeout(5):
        outcome = await heard
    await carrier.close()
    return outcome


async def test_nothing_is_told_of_a_message_that_was_carried_over_whole() -> None:
    assert await carried([Output()], Result.DELIVERED) == Outcome(Result.DELIVERED, points=5)


@pytest.mark.parametrize("last", [Result.DELIVERED, Result.NEVER])
async def test_the_messages_of_a_batch_are_told_of_together_whatever_becomes_of_them(last: Result) -> None:
    outputs = [
        Output(unmapped=(WBC,), lost={"PID-12": 1}),
        Output(unmapped=(WBC, SEX), lost={"PID-12": 2, "ZAC-2": 1}),
        Output(),
    ]
    outcome = await carried(outputs, Result.DELIVERED, last, Result.DELIVERED)
    codes = (Code("LabTests", "OBX-3", "L", "WBC"), Code("Genders", "PID-8", "", "Z"))
    assert outcome.gaps == Gaps(codes, (("PID-12", 3), ("ZAC-2", 1)))


def noted(made_by: int | None, **changes: Any) -> tuple[bool, bool]:
    """Whether it counts, and whether it says something of the present mapping: of a channel whose second epoch has
    another mapping, and the third the same as the second."""
    tables = [Routing((Route("medplum", "medplum", Mode.SEND, "patient", mapping),)) for mapping in ("a", "b", "b")]
    epochs = [Epoch(number, 1, "live", table) for number, table in enumerate(tables, 1)]
    channel: Any = SimpleNamespace(name="acme", epochs=epochs, epoch=epochs[-1])
    told: list[tuple[bool, bool]] = []
    runner: Any = SimpleNamespace(
        course=SimpleNamespace(channel=channel, name="medplum"),
        _ledger=SimpleNamespace(note=lambda *_, counts, fresh: told.append((counts, fresh))),
    )
    work = Work(Message(channel, b"", 0), lambda *_: None)
    work.made_by = made_by
    for name, value in changes.items():
        setattr(work, name, value)
    Runner._note(runner, work, Gaps())
    assert work.noted
    return told[0]


def test_only_the_present_mapping_is_spoken_of() -> None:
    assert noted(3) == noted(2) == noted(None) == (True, True)
    assert noted(1) == (True, False)


def test_a_replay_and_a_second_attempt_count_nothing() -> None:
    assert noted(3, delivery=2) == noted(3, noted=True) == (False, True)

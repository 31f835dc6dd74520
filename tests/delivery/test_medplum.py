"""A project tells of every message what became of it, whatever ends the delivery."""

from __future__ import annotations

import asyncio
from typing import Any

from engine.delivery.destinations.medplum import Attempt, Project
from engine.delivery.work import Work
from engine.fhir.output import Output
from engine.ledger.course import ChannelBook
from engine.ledger.model import Message
from engine.ledger.outcome import Outcome, Result

OUTPUT: Any = Output([])


class Broken:
    """A deliverer whose HTTP client ends the task from within, as a time limit does that strikes too late."""

    async def deliver(self, output: Output, tag: str, *, unknown: bool = False, since: float = 0.0) -> Outcome:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(0)
        raise AssertionError

    async def probe(self) -> Any: ...

    async def close(self) -> None: ...


def attempt(heard: asyncio.Future[Outcome]) -> Attempt:
    message = Message(ChannelBook(1, "acme", 0), b"MSH", 0)
    return Attempt(Work(message, lambda _, outcome: heard.set_result(outcome)), lambda _: [OUTPUT], "tag")


async def test_a_delivery_that_is_broken_off_from_within_is_unknown_and_not_forgotten() -> None:
    project = Project("medplum", Broken(), settle_time=0.0)
    heard: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
    project.submit(attempt(heard))
    async with asyncio.timeout(5):
        assert (await heard).result is Result.UNKNOWN
    await project.close()


async def test_what_is_broken_off_by_the_end_of_the_service_stays_claimed() -> None:
    class Slow(Broken):
        async def deliver(self, *_: Any, **__: Any) -> Outcome:
            await asyncio.sleep(60)
            raise AssertionError

    project = Project("medplum", Slow(), settle_time=0.0)
    heard: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
    project.submit(attempt(heard))
    await asyncio.sleep(0)
    await project.close()
    assert not heard.done()

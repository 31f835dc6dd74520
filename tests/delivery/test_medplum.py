"""A project tells of every message what became of it, whatever ends the delivery."""

from __future__ import annotations

import asyncio
from typing import Any

from engine.delivery.attempt import Attempt
from engine.delivery.carrier import LocalCarrier
from engine.delivery.destinations.medplum import Project
from engine.fhir.output import Output
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


ATTEMPT = Attempt("acme", 1, b"MSH", 0, "i", "i/acme/1")


def project_of(deliverer: Any) -> Project:
    return Project("medplum", LocalCarrier(lambda _: [OUTPUT], deliverer), settle_time=0.0, at_once=1)


async def test_a_delivery_that_is_broken_off_from_within_is_unknown_and_not_forgotten() -> None:
    project = project_of(Broken())
    heard: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
    project.submit(ATTEMPT, heard.set_result)
    async with asyncio.timeout(5):
        assert (await heard).result is Result.UNKNOWN
    await project.close()


async def test_what_is_broken_off_by_the_end_of_the_service_stays_claimed() -> None:
    begun = asyncio.Event()

    class Slow(Broken):
        async def deliver(self, *_: Any, **__: Any) -> Outcome:
            begun.set()
            await asyncio.sleep(60)
            raise AssertionError

    project = project_of(Slow())
    heard: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
    project.submit(ATTEMPT, heard.set_result)
    async with asyncio.timeout(5):
        await begun.wait()
    await project.close()
    assert not heard.done()

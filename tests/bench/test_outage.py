"""Rules of bench.outage: what the other side is asked must find a message that is missing, doubled or out of order."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from bench.load.fhir_witness import Witness
from engine.fhir.client import FhirClient, Query, Spent, bundle_bytes
from engine.fhir.condition import tagged
from engine.fhir.failure import Trouble
from engine.fhir.tags import mark


def transaction(channel: str, number: int, patient: str = "p", *before: int) -> bytes:
    """A message's transaction; it also changes something that bears the marks of the messages `before`."""
    marks = [mark(f"inc/{channel}/{each}") for each in (*before, number)]
    resource = {"meta": {"tag": marks}, "subject": {"reference": f"Patient/{patient}"}}
    return bundle_bytes("transaction", [{"resource": resource, "request": {"method": "POST", "url": "Observation"}}])


def seen(*bodies: bytes) -> tuple[int, int, int]:
    witness = Witness()
    for body in bodies:
        witness.came(body)
    return witness.messages, witness.doubled, witness.disordered


@pytest.mark.parametrize(
    ("bodies", "counts"),
    [
        ([transaction("a", 1), transaction("a", 2), transaction("b", 1)], (3, 0, 0)),
        ([transaction("a", 1), transaction("a", 3, "p", 1, 2)], (2, 0, 0)),
        ([transaction("a", 1), transaction("a", 1)], (1, 1, 1)),
        ([transaction("a", 1), transaction("a", 2), transaction("a", 1)], (2, 1, 1)),
        ([transaction("a", 2), transaction("a", 1)], (2, 0, 1)),
        ([transaction("a", 2), transaction("a", 1, "q")], (2, 0, 0)),
        ([transaction("a", 70_000), transaction("a", 1, "q")], (2, 0, 0)),
    ],
)
def test_what_came_is_counted_once_and_each_lane_has_its_order(
    bodies: list[bytes], counts: tuple[int, int, int]
) -> None:
    assert seen(*bodies) == counts


@asynccontextmanager
async def running() -> AsyncIterator[tuple[int, asyncio.subprocess.Process]]:
    """The witness's process, and its port."""
    pipe = asyncio.subprocess.PIPE
    command = (sys.executable, "-m", "bench.load.fhir_witness")
    process = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe)
    assert process.stdout is not None
    try:
        async with asyncio.timeout(20):
            yield json.loads(await process.stdout.readline())["port"], process
    finally:
        process.send_signal(signal.SIGTERM)
        await process.communicate()


@asynccontextmanager
async def logged_in(port: int) -> AsyncIterator[FhirClient]:
    client = FhirClient(f"http://127.0.0.1:{port}", "bench", "bench")
    try:
        yield client
    finally:
        await client.close()


async def heard(client: FhirClient, code: str) -> int | str:
    """How many provenances bear this mark, or why that cannot be said."""
    try:
        [resources] = await client.search([Query("Provenance", tagged(code))], Spent())
    except Trouble as trouble:
        return trouble.reason
    return len(resources)


async def test_it_finds_a_message_by_its_mark_and_keeps_what_it_has_while_it_is_down() -> None:
    async with running() as (port, process), logged_in(port) as client:
        await client.send_bundle(transaction("a", 1), 1, repeatable=False)
        assert [await heard(client, code) for code in ("inc/a/1", "inc/a/2")] == [1, 0]
        process.send_signal(signal.SIGUSR1)
        while "refused" not in str(await heard(client, "inc/a/1")):
            pass
        process.send_signal(signal.SIGUSR2)
        while (found := await heard(client, "inc/a/1")) != 1:
            assert isinstance(found, str)

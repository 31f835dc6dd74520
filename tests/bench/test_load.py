"""Rules of bench.load: figures are worth something only if the load and the sinks count right."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from bench.load.generator import Latencies, templates
from engine.fhir.client import FhirClient, Query, Spent, bundle_bytes
from engine.fhir.probe import Reachability, probe
from engine.mllp.framing import Decoder, Frame
from engine.simulate.messages import Kind, Messages
from engine.simulate.old_engine import Faults, OldEngine


@asynccontextmanager
async def process(module: str, *arguments: str) -> AsyncIterator[dict[str, Any]]:
    """A load process, from its ready line on. Its last line is under `last` afterwards."""
    started = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", f"bench.load.{module}", *arguments), stdout=asyncio.subprocess.PIPE
    )
    assert started.stdout is not None
    try:
        async with asyncio.timeout(20):
            ready: dict[str, Any] = json.loads(await started.stdout.readline())
        yield ready
    finally:
        started.send_signal(signal.SIGTERM)
        out, _ = await started.communicate()
        ready["last"] = json.loads(out)


async def generate(ports: list[int], *arguments: str) -> dict[str, Any]:
    started = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bench.load.generator", "--ports", ",".join(map(str, ports)), *arguments),
        stdout=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(30):
        out, _ = await started.communicate()
    figures: dict[str, Any] = json.loads(out)
    return figures


class TestGenerator:
    @pytest.mark.parametrize("sink", ["echo", "mllp_sink"])
    async def test_every_message_is_counted_on_both_sides(self, sink: str) -> None:
        async with process(sink, "--listeners", "3") as ready:
            figures = await generate(ready["ports"], "--connections", "6", "--count", "500")
        assert (figures["sent"], figures["accepted"], figures["refused"]) == (500, 500, 0)
        assert (figures["wrong"], figures["lost"], ready["last"]) == (0, 0, {"count": 500})
        assert 0 < figures["p50_ms"] <= figures["p99_ms"] <= figures["max_ms"]

    async def test_a_fixed_rate_is_kept(self) -> None:
        async with process("echo") as ready:
            figures = await generate(ready["ports"], "--connections", "4", "--seconds", "1", "--rate", "100")
        assert 90 <= figures["accepted"] <= 101

    async def test_other_answers_are_told_from_acceptance(self) -> None:
        engine = OldEngine(faults=Faults(ae=0.2, wrong_id=0.1))
        await engine.start()
        try:
            figures = await generate(engine.ports, "--count", "300")
        finally:
            await engine.stop()
        assert figures["accepted"] + figures["refused"] + figures["wrong"] == engine.count == 300
        assert figures["refused"] > 20

    async def test_silence_ends_in_time_and_counts_as_lost(self) -> None:
        engine = OldEngine(faults=Faults(cut=1))
        await engine.start()
        try:
            figures = await generate(engine.ports, "--connections", "2", "--seconds", "0.5")
        finally:
            await engine.stop()
        assert (figures["accepted"], figures["lost"]) == (0, 2)

    @pytest.mark.parametrize("kind", ["oru", "orm", "oml"])
    def test_a_numbered_template_is_the_message_with_that_number(self, kind: Kind) -> None:
        blocks, places = templates(kind, 5)
        number = 4_000_000_004
        expected = Messages(kind).message(4).replace(b"0010000004", b"%010d" % number)
        assert Decoder().feed(blocks[4] % ((number,) * places)) == [Frame(expected)]
        assert expected.count(b"%010d" % number) == places

    def test_quantiles_are_upper_bounds(self) -> None:
        latencies = Latencies()
        for n in range(1, 101):
            latencies.add(n / 1000)
        p50, p99, p100 = latencies.quantiles(0.5, 0.99, 1.0)
        assert 50 <= p50 <= 50.02
        assert 99 <= p99 <= 99.02
        assert p100 == pytest.approx(100)
        assert Latencies().quantiles(0.5) == [0.0]


class TestFhirSink:
    async def test_it_answers_the_products_client_as_a_server_would(self) -> None:
        async with process("fhir_sink") as ready:
            client = FhirClient(f"http://127.0.0.1:{ready['port']}", "id", "secret")
            spent = Spent()
            try:
                assert await probe(client) == Reachability(True, True)
                queries = [Query("Patient", "identifier=a"), Query("Observation", "identifier=b")]
                assert await client.search(queries, spent) == [[], []]
                mine = {"resourceType": "Patient", "meta": {"tag": []}, "birthDate": "1980-01-01"}
                first, new = await client.create_once(mine, "identifier=s%7Cv", spent)
                again, _ = await client.create_once(mine, "identifier=s%7Cv", spent)
                other, _ = await client.create_once(mine, "identifier=s%7Cw", spent)
                assert new
                assert first == again == {**mine, "id": first["id"], "meta": {"versionId": "1", "tag": []}}
                assert other["id"] != first["id"]
                assert (await client.update(first, spent))["id"] == first["id"]
                assert (await client.read("Patient", "p1", spent))["id"] == "p1"
                assert (await client.upload("application/pdf", b"%PDF" * 100_000, spent)).startswith("Binary/")
            finally:
                await client.close()
        last = ready["last"]
        assert (last["tokens"], last["batches"], last["searches"], last["updates"], last["reads"]) == (1, 1, 2, 1, 1)
        assert last["creates"] == 4

    async def test_each_entry_of_a_transaction_gets_its_answer_in_order(self) -> None:
        entries = [
            {"resource": {"text": '"request":{"method":"'}, "request": {"method": "POST", "url": "Observation"}},
            {"resource": {"id": "p1"}, "request": {"method": "PUT", "url": "Patient/p1", "ifMatch": 'W/"1"'}},
            {"request": {"method": "GET", "url": "Patient/p2"}},
        ]
        async with process("fhir_sink") as ready:
            client = FhirClient(f"http://127.0.0.1:{ready['port']}", "id", "secret")
            try:
                body = bundle_bytes("transaction", entries * 20)
                answers = [answer["response"] for answer in await client.send_bundle(body, 60, repeatable=False)]
            finally:
                await client.close()
        assert [answer["status"] for answer in answers] == ["201", "200", "200"] * 20
        created = [answer["location"] for answer in answers[::3]]
        assert len(set(created)) == 20
        assert all(place.startswith("Observation/") and place.endswith("/_history/1") for place in created)
        assert answers[1]["location"] == "Patient/p1/_history/2"

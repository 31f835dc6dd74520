"""Rules of engine.simulate.vendor."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from engine.config.address import Address
from engine.simulate.messages import Messages
from engine.simulate.old_engine import Down, Faults, OldEngine
from engine.simulate.vendor import Tally, Vendor

MESSAGES = Messages()


@asynccontextmanager
async def receiver(*ports: int, **options: Any) -> AsyncIterator[OldEngine]:
    engine = OldEngine(*ports, **options)
    await engine.start()
    try:
        yield engine
    finally:
        await engine.stop()


def vendor(engine: OldEngine, **options: Any) -> Vendor:
    addresses = [Address("127.0.0.1", port) for port in engine.ports]
    return Vendor(addresses, MESSAGES, **{"pause": 0.02, "timeout": 5.0, **options})


async def run(it: Vendor) -> Tally:
    async with asyncio.timeout(20):
        return await it.run()


def ids(*numbers: int) -> list[str]:
    return [MESSAGES.control_id(number) for number in numbers]


class TestSending:
    async def test_every_message_is_sent_once_and_in_order(self) -> None:
        async with receiver() as engine:
            tally = await run(vendor(engine, count=50))
            assert tally == Tally(sent=50, acknowledged=50, connects=1)
            assert engine.control_ids == ids(*range(1, 51))

    async def test_connections_share_the_messages_and_the_addresses(self) -> None:
        async with receiver(0, 0) as engine:
            tally = await run(vendor(engine, count=40, connections=4))
            assert (tally.acknowledged, tally.connects) == (40, 4)
            assert sorted(engine.control_ids) == ids(*range(1, 41))
            by_socket: dict[int, list[str]] = {}
            for arrival in engine.arrivals:
                by_socket.setdefault(arrival.socket, []).append(arrival.control_id)
            assert all(one == sorted(one) for one in by_socket.values())

    async def test_a_rate_is_kept(self) -> None:
        async with receiver() as engine:
            begun = asyncio.get_running_loop().time()
            await run(vendor(engine, count=20, connections=2, rate=100))
            assert 0.18 <= asyncio.get_running_loop().time() - begun < 2

    async def test_stop_ends_it_early(self) -> None:
        async with receiver() as engine:
            it = vendor(engine, count=100_000, rate=50)
            running = asyncio.create_task(run(it), name="vendor")
            await asyncio.sleep(0.1)
            it.stop()
            tally = await running
            assert 1 <= tally.acknowledged < 100


class TestInsisting:
    @pytest.mark.parametrize("fault", ["ae", "cut", "wrong_id", "silent"])
    async def test_without_a_positive_answer_the_same_message_is_sent_again(self, fault: str) -> None:
        faults = Faults(by_id={MESSAGES.control_id(2): (fault, fault)})
        async with receiver(faults=faults) as engine:
            tally = await run(vendor(engine, count=3, timeout=0.1))
            assert engine.control_ids == ids(1, 2, 2, 2, 3)
            assert (tally.sent, tally.acknowledged) == (5, 3)
            assert tally.connects == (1 if fault == "ae" else 3)

    async def test_a_reject_is_final(self) -> None:
        faults = Faults(by_id={MESSAGES.control_id(2): ("ar",)})
        async with receiver(faults=faults) as engine:
            it = vendor(engine, count=3)
            tally = await run(it)
            assert (tally.acknowledged, tally.refused) == (2, 1)
            assert it.acknowledged == ids(1, 3)

    async def test_a_receiver_that_is_gone_for_a_while_gets_everything(self) -> None:
        async with receiver(faults=Faults(down=Down(after=5, seconds=0.2))) as engine:
            it = vendor(engine, count=20)
            await run(it)
            assert it.acknowledged == ids(*range(1, 21))
            assert set(engine.control_ids) == set(it.acknowledged)


class TestJournal:
    async def test_it_lists_what_was_acknowledged(self, tmp_path: Path) -> None:
        journal = tmp_path / "acknowledged.ndjson"
        faults = Faults(by_id={MESSAGES.control_id(1): ("ae",), MESSAGES.control_id(2): ("ar",)})
        async with receiver(faults=faults) as engine:
            await run(vendor(engine, count=3, journal=journal))
        lines = [json.loads(line) for line in journal.read_text().splitlines()]
        assert [(line["control_id"], line["tries"]) for line in lines] == [(ids(1)[0], 2), (ids(3)[0], 1)]
        assert lines[0]["code"] == "AA"

    async def test_as_a_module_it_sends_and_prints_its_tally(self, tmp_path: Path) -> None:
        journal = tmp_path / "acknowledged.ndjson"
        async with receiver() as engine:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "engine.simulate.vendor", "--port", str(engine.port), "--kind", "orm"),
                *("--count", "7", "--connections", "2", "--journal", str(journal), "--prefix", "ACME", "--seed", "9"),
                stdout=asyncio.subprocess.PIPE,
            )
            async with asyncio.timeout(20):
                out, _ = await process.communicate()
            assert json.loads(out)["acknowledged"] == 7
            assert set(engine.control_ids) == {Messages("orm", 9, "ACME").control_id(n) for n in range(1, 8)}
        assert len(journal.read_text().splitlines()) == 7

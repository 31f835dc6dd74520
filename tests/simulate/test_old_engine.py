"""Rules of engine.simulate.old_engine."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from engine.config.address import Address
from engine.hl7.ack import parse_ack
from engine.mllp.client import Answered, Client, Lost, NotSent, Reply
from engine.simulate.messages import Messages
from engine.simulate.old_engine import Down, Faults, OldEngine

MESSAGES = Messages()


@asynccontextmanager
async def running(**options: Any) -> AsyncIterator[OldEngine]:
    engine = OldEngine(**options)
    await engine.start()
    try:
        yield engine
    finally:
        await engine.stop()


class Sender:
    """One connection to a port of the engine."""

    def __init__(self, engine: OldEngine, index: int = 0) -> None:
        self.client = Client(Address("127.0.0.1", engine.ports[index]), connect_timeout=2)

    async def send(self, number: int, within: float = 5.0) -> Reply:
        reply: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self.client.send(MESSAGES.message(number), within, reply.set_result)
        return await reply

    async def code(self, number: int) -> str:
        reply = await self.send(number)
        assert isinstance(reply, Answered)
        answer = parse_ack(reply.payload)
        assert answer is not None
        return answer.code if answer.control_id == MESSAGES.control_id(number) else "wrong id"


@asynccontextmanager
async def sender(engine: OldEngine, index: int = 0) -> AsyncIterator[Sender]:
    it = Sender(engine, index)
    try:
        yield it
    finally:
        await it.client.aclose()


class TestAnswers:
    async def test_a_message_is_accepted_in_the_engines_own_manner(self) -> None:
        async with running() as engine, sender(engine) as vendor:
            reply = await vendor.send(1)
            assert isinstance(reply, Answered)
            msh, msa, end = reply.payload.split(b"\r")
            assert msa == b"MSA|AA|SIM0010000001|Message accepted"
            assert msh.split(b"|")[2:6] == [b"EMR", b"CLINIC", b"SIM", b"REFLAB"]
            assert msh.split(b"|")[8:10] == [b"ACK^R01", b"OLD0000001"]
            assert end == b""

    async def test_an_unreadable_message_is_still_answered(self) -> None:
        async with running() as engine, sender(engine) as vendor:
            reply: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
            vendor.client.send(b"no message", 5, reply.set_result)
            answered = await reply
            assert isinstance(answered, Answered)
            assert parse_ack(answered.payload) is not None

    async def test_what_arrived_is_kept_in_order_with_its_socket(self) -> None:
        async with running() as engine:
            async with sender(engine) as one, sender(engine) as two:
                for vendor, number in ((one, 1), (two, 2), (one, 3), (one, 3)):
                    await vendor.send(number)
            assert engine.control_ids == [MESSAGES.control_id(n) for n in (1, 2, 3, 3)]
            assert [arrival.socket for arrival in engine.arrivals] == [1, 2, 1, 1]
            assert engine.count == 4
            assert engine.payloads[0] == MESSAGES.message(1)

    async def test_it_may_have_several_ports(self) -> None:
        engine = OldEngine(0, 0)
        await engine.start()
        try:
            async with sender(engine, 0) as one, sender(engine, 1) as two:
                assert (await one.code(1), await two.code(2)) == ("AA", "AA")
            assert engine.ports[0] != engine.ports[1]
        finally:
            await engine.stop()


class TestFaults:
    async def test_by_id_each_arrival_has_its_own_fate(self) -> None:
        faults = Faults(by_id={MESSAGES.control_id(1): ("ae", "ar", "wrong_id")})
        async with running(faults=faults) as engine, sender(engine) as vendor:
            assert [await vendor.code(1) for _ in range(4)] == ["AE", "AR", "wrong id", "AA"]
            assert await vendor.code(2) == "AA"

    async def test_cut_ends_the_connection_in_mid_answer(self) -> None:
        faults = Faults(by_id={MESSAGES.control_id(1): ("cut",)})
        async with running(faults=faults) as engine, sender(engine) as vendor:
            assert await vendor.send(1) == Lost("connection closed in mid-answer")
            assert await vendor.code(1) == "AA"

    async def test_silent_gives_no_answer(self) -> None:
        faults = Faults(by_id={MESSAGES.control_id(1): ("silent",)})
        async with running(faults=faults) as engine, sender(engine) as vendor:
            assert await vendor.send(1, within=0.05) == Lost("answer timed out")
            assert engine.count == 1

    async def test_a_delay_delays_and_keeps_the_order(self) -> None:
        async with running(faults=Faults(delay=0.05)) as engine, sender(engine) as vendor:
            begun = asyncio.get_running_loop().time()
            assert [await vendor.code(n) for n in (1, 2)] == ["AA", "AA"]
            assert asyncio.get_running_loop().time() - begun >= 0.095

    async def test_rates_are_shares_and_the_same_for_the_same_seed(self) -> None:
        async def codes() -> list[str]:
            async with running(faults=Faults(ae=0.3, ar=0.2, seed=5)) as engine, sender(engine) as vendor:
                return [await vendor.code(n) for n in range(200)]

        first = await codes()
        assert first == await codes()
        assert 40 <= first.count("AE") <= 80
        assert 25 <= first.count("AR") <= 60

    async def test_down_drops_everybody_and_comes_back_on_the_same_port(self) -> None:
        async with running(faults=Faults(down=Down(after=2, seconds=0.2))) as engine, sender(engine) as vendor:
            port = engine.port
            await vendor.code(1)
            await vendor.send(2)
            assert isinstance(await vendor.send(3), NotSent)
            assert engine.count == 2
            async with asyncio.timeout(5):
                while not isinstance(await vendor.send(3), Answered):  # noqa: ASYNC110
                    await asyncio.sleep(0.02)
            assert (engine.port, engine.count) == (port, 3)

    def test_faults_are_read_from_json(self) -> None:
        text = '{"delay": 0.5, "ae": 0.1, "by_id": {"A1": ["ae", ""]}, "down": {"after": 3, "seconds": 1.5}}'
        assert Faults.parse(text) == Faults(delay=0.5, ae=0.1, by_id={"A1": ("ae", "")}, down=Down(3, 1.5))

    @pytest.mark.parametrize("text", ['{"typo": 1}', "not json"])
    def test_unknown_faults_are_refused(self, text: str) -> None:
        with pytest.raises((TypeError, ValueError)):
            Faults.parse(text)


class TestJournal:
    async def test_a_line_is_written_before_the_answer_is_sent(self, tmp_path: Path) -> None:
        journal = tmp_path / "arrived.ndjson"
        async with running(journal=journal) as engine, sender(engine) as vendor:
            for number in range(1, 4):
                await vendor.send(number)
                lines = [json.loads(line) for line in journal.read_text().splitlines()]
                assert [line["control_id"] for line in lines] == engine.control_ids
            assert set(lines[0]) == {"control_id", "at", "socket"}

    async def test_it_goes_on_after_a_restart(self, tmp_path: Path) -> None:
        journal = tmp_path / "arrived.ndjson"
        for number in (1, 2):
            async with running(journal=journal) as engine, sender(engine) as vendor:
                await vendor.send(number)
        assert len(journal.read_text().splitlines()) == 2


class TestProcess:
    async def test_as_a_module_it_says_its_port_and_ends_on_sigterm(self, tmp_path: Path) -> None:
        journal = tmp_path / "arrived.ndjson"
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "engine.simulate.old_engine", "--port", "0", "--port", "0"),
            *("--faults", '{"ae": 1}', "--journal", str(journal)),
            stdout=asyncio.subprocess.PIPE,
        )
        try:
            assert process.stdout is not None
            async with asyncio.timeout(20):
                ready = json.loads(await process.stdout.readline())
            assert ready["port"] == ready["ports"][0]
            stand_in = OldEngine(*ready["ports"])  # only its ports are used
            async with sender(stand_in, 1) as vendor:
                assert await vendor.code(1) == "AE"
            assert len(journal.read_text().splitlines()) == 1
        finally:
            process.send_signal(signal.SIGTERM)
            assert await process.wait() == 0

"""Large messages: a report with an embedded PDF is stored and delivered byte for byte, and nobody else waits for it."""

from __future__ import annotations

import asyncio
import base64
from pathlib import Path
from random import Random
from statistics import quantiles

from engine.hl7.ack import parse_ack
from engine.mllp.framing import encode
from engine.simulate.messages import Messages
from tests.support.fake import crash_image
from tests.support.house import (
    Peer,
    assert_balances,
    channel,
    configuration,
    emr,
    kept,
    live,
    running,
    served,
    settled,
    states,
    until,
)
from tests.support.ports import free_port
from tests.support.scripted import Scripted, ack

MESSAGES = Messages("oru", seed=101)
SMALL = Messages("oru", seed=102)
MIB = 1 << 20
BESIDE = 20  # senders that send small messages meanwhile
RATE = 200  # of these messages a second, all together
SECONDS = 3.0
TIMES, BOUND = 3.0, 0.060  # how much slower the others may become, and what is never too slow


def report(number: int, mib: int = 20) -> bytes:
    """One whose OBX-5 is a PDF of this size in base64: nothing of it compresses."""
    pdf = base64.b64encode(Random(number).randbytes(mib * MIB * 3 // 4))
    return MESSAGES.message(number) + b"OBX|99|ED|PDF^Report||LAB^application^pdf^Base64^" + pdf + b"||||||F\r"


async def beside(port: int, first: int, seconds: float) -> list[float]:
    """Small messages at the rate for so long; seconds to each acknowledgement."""
    loop = asyncio.get_running_loop()
    end, taken = loop.time() + seconds, []

    async def one(line: int) -> None:
        peer = await Peer.connect(port)
        await asyncio.sleep(line / RATE)
        number = first + line
        due = loop.time()
        while due < end:
            begun = loop.time()
            assert parse_ack(await peer.exchange(SMALL.message(number))).code == "AA"
            taken.append(loop.time() - begun)
            number += BESIDE
            due += BESIDE / RATE
            await asyncio.sleep(max(0.0, due - loop.time()))
        await peer.close()

    await asyncio.gather(*(one(line) for line in range(BESIDE)))
    return taken


def p99(taken: list[float]) -> float:
    return quantiles(taken, n=100)[98]


async def test_the_others_hardly_notice_a_report_of_twenty_megabytes(tmp_path: Path):
    async with Scripted() as engine, Scripted() as clinic:
        large, small = free_port(), free_port()
        reports = channel("reports", port=large, old_engine=engine.port)
        others = live("others", port=small, destinations=(emr(clinic.port),))
        async with running(configuration(tmp_path, reports, others)) as service:
            alone = p99(await beside(small, 0, SECONDS))
            payloads = [report(number) for number in range(2)]
            frames = [encode(payload) for payload in payloads]
            peer = await Peer.connect(large)

            async def send() -> None:
                for frame, payload in zip(frames, payloads, strict=True):
                    for at in range(0, len(frame), 64 * 1024):  # as a network brings it, some 50 MB/s
                        peer.writer.write(frame[at : at + 64 * 1024])
                        await asyncio.sleep(0.00125)
                    assert await peer.answer(30) == ack(payload)

            taken, _ = await asyncio.gather(beside(small, 100_000, SECONDS), send())
            with_it = p99(taken)
            assert with_it <= max(TIMES * alone, BOUND), f"{with_it * 1000:.1f} ms, alone {alone * 1000:.1f} ms"
            assert engine.payloads == payloads
            await settled(service, "reports", "legacy", 2)
            book = service.ledger.channels["reports"]
            query = f"select id from message where channel = {book.id} order by seq"
            rows = await service.ledger.read(lambda reader: reader.connection.execute(query).fetchall())
            assert [(await service.ledger.message(book, id)).raw for (id,) in rows] == payloads
            await assert_balances(service)
            await peer.close()


async def test_a_large_message_comes_to_each_destination_byte_for_byte(tmp_path: Path):
    async with Scripted() as first, Scripted() as second:
        there = emr(first.port), emr(second.port)
        async with served(tmp_path, live("reports", destinations=there)) as (service, peer):
            payload = report(1)
            assert parse_ack(await peer.exchange(payload, 30)).code == "AA"
            for clinic, destination in zip((first, second), there, strict=True):
                await settled(service, "reports", destination.name, 1)
                assert clinic.payloads == [payload]


async def test_what_comes_behind_a_large_message_on_its_connection_keeps_its_place(tmp_path: Path):
    async with Scripted() as engine, served(tmp_path, channel("reports", old_engine=engine.port)) as (service, peer):
        sent = [SMALL.message(1), report(2, 2), SMALL.message(3), report(4, 3), report(5, 2), SMALL.message(6)]
        peer.writer.write(b"".join(map(encode, sent)))
        answers = [await peer.answer(30) for _ in sent]
        assert sorted(answers) == sorted(map(ack, sent))
        assert engine.payloads == sent
        await settled(service, "reports", "legacy", 6)
        assert await states(service, "reports", "legacy") == {"delivered": 6}


async def test_a_large_message_that_was_stored_before_a_crash_is_delivered_after_it(tmp_path: Path):
    port, away, image = free_port(), free_port(), tmp_path / "image"
    chan = live("reports", port=port, destinations=(emr(away),))
    payload = report(1, 3)
    async with running(configuration(tmp_path, chan)) as service:
        peer = await Peer.connect(port)
        assert parse_ack(await peer.exchange(payload, 30)).code == "AA"
        crash_image(service.ledger.path, image)
        await peer.close()
    async with running(configuration(image, chan)) as service, Scripted(port=away) as clinic:
        await settled(service, "reports", f"emr-{away}", 1)
        assert clinic.payloads == [payload]


async def test_a_large_message_that_was_never_whole_leaves_nothing(tmp_path: Path):
    async with served(tmp_path, channel("reports", old_engine=1)) as (service, peer):
        frame = encode(report(1, 3))
        peer.writer.write(frame[: len(frame) // 2])
        await peer.writer.drain()
        await peer.close()
        await until(lambda: not list(service.doors.ports["reports"].listener.connections))
        ((kind, reason, size),) = await kept(service, "kind", "reason", "size")
        assert (kind, reason) == ("unfinished", "closed")
        assert 0 < size <= len(frame) // 2
        assert service.ledger.channels["reports"].seq == 0


async def test_a_sender_that_goes_while_its_large_message_is_written_loses_nothing(tmp_path: Path):
    async with Scripted() as engine, served(tmp_path, channel("reports", old_engine=engine.port)) as (service, peer):
        peer.writer.write(encode(report(1, 4)) + encode(SMALL.message(2)))
        await peer.writer.drain()
        await until(lambda: service.ledger._large > 0)  # it is being written
        await peer.close()
        await settled(service, "reports", "legacy", 2)
        assert engine.payloads == [report(1, 4), SMALL.message(2)]


async def test_a_message_over_the_limit_is_refused_before_all_of_it_has_come(tmp_path: Path):
    async with served(tmp_path, channel("reports", old_engine=1, max_bytes=2 * MIB)) as (service, peer):
        peer.writer.write(encode(report(1, 3)))
        answer = parse_ack(await peer.answer())
        assert (answer.code, answer.control_id) == ("AR", MESSAGES.control_id(1))
        assert await peer.closed()
        ((kind, size),) = await kept(service, "kind", "size")
        assert kind == "too_large"
        assert size > 2 * MIB


async def test_a_ledger_that_cannot_be_written_stops_a_large_message_and_lets_it_in_later(tmp_path: Path):
    async with Scripted() as engine, served(tmp_path, channel("reports", old_engine=engine.port)) as (service, peer):
        writer = service.ledger._writer
        assert writer is not None
        payload = report(1, 2)
        writer._connection.execute("pragma query_only = on")
        peer.send(payload)
        await until(lambda: service.ledger.unwritable is not None)
        writer._connection.execute("pragma query_only = off")
        assert await peer.answer(20) == ack(payload)
        assert await peer.exchange(SMALL.message(2)) == ack(SMALL.message(2))


async def test_a_piece_that_could_not_be_written_is_a_no_and_the_connection_goes_on(tmp_path: Path):
    async with Scripted() as engine, served(tmp_path, channel("reports", old_engine=engine.port)) as (service, peer):
        real, failures = service.ledger.lay_down, [RuntimeError("no room for a piece")]

        async def lay_down(large: object) -> None:
            if failures:
                raise failures.pop()
            await real(large)  # type: ignore[arg-type]

        service.ledger.lay_down = lay_down  # type: ignore[method-assign]
        peer.writer.write(encode(report(1, 2)) + encode(SMALL.message(2)))
        answers = [parse_ack(await peer.answer()) for _ in range(2)]
        assert [(each.code, each.control_id) for each in answers] == [
            ("AE", MESSAGES.control_id(1)), ("AA", SMALL.control_id(2)),
        ]  # fmt: skip
        assert await peer.exchange(report(1, 2), 20) == ack(report(1, 2))

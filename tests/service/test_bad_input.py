"""What is not a message of the channel: a clear no in `live`, passed on as it came before that, evidence in both."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from engine.config.filtering import Remember, Written
from engine.config.model import Channel
from engine.hl7.ack import parse_ack
from engine.mllp.framing import encode
from engine.simulate.messages import Messages
from engine.simulate.old_engine import OldEngine
from tests.support.house import (
    ORU,
    Peer,
    channel,
    emr,
    kept,
    live,
    port_of,
    served,
    settled,
    states,
    until,
)

GOOD = Messages("oru", seed=5).message(1)

NOT_A_MESSAGE = {
    "no MSH": (b"PID|1||123\rPV1|1|I", "AR", "100"),
    "broken delimiters": (b"MSHAAAAAAAAA\rPID|1", "AR", "102"),
    "unknown type": (GOOD.replace(b"ORU^R01^ORU_R01", b"ADT^A01^ADT_A01"), "AR", "200"),
    "unknown trigger": (GOOD.replace(b"ORU^R01^ORU_R01", b"ORU^R99^ORU_R99"), "AR", "201"),
    "no control id": (GOOD.replace(b"|" + GOOD.split(b"|")[9] + b"|", b"||", 1), "AE", "101"),
    "bytes that are not UTF-8": (
        b"MSH|^~\\&|A|B|C|D|20260101||ORU^R01|X1|P|2.5|||||||UNICODE UTF-8\rPID|1||1||D\xfcrer", "AE", "102",
    ),
}  # fmt: skip


def to(clinic: OldEngine, **options: Any) -> Channel:
    """To a clinic, and something of ours reads the messages as text."""
    chan = live("acme-results", destinations=(emr(clinic.port),), **options)
    return replace(chan, remember=(Remember("seen", Written("PID-3", "test", 1, 1), {}, 3600.0),))


@pytest.mark.parametrize("name", NOT_A_MESSAGE)
async def test_live_says_no_with_an_error_and_keeps_the_bytes(tmp_path: Path, old_engine, name):
    payload, code, error = NOT_A_MESSAGE[name]
    async with served(tmp_path, to(old_engine)) as (service, peer):
        answer = await peer.exchange(payload)
        parsed = parse_ack(answer)
        assert (parsed.code, parsed.error) == (code, error), answer
        assert b"\rERR|" in answer
        assert await kept(service, "kind", "raw", "answer", "message") == [("refused", payload, answer, None)]
        assert parse_ack(await peer.exchange(GOOD)).code == "AA"
        await until(lambda: len(old_engine.control_ids) == 1)
        assert service.ledger.channels["acme-results"].seq == 1


@pytest.mark.parametrize("name", NOT_A_MESSAGE)
async def test_before_live_the_old_engine_gets_it_as_it_came_and_the_flaw_is_recorded(tmp_path, old_engine, name):
    payload, _, _ = NOT_A_MESSAGE[name]
    chan = channel("acme-results", old_engine=old_engine.port, takes=ORU)
    async with served(tmp_path, chan) as (service, peer):
        peer.send(payload)
        await until(lambda: list(old_engine.payloads)[:1] == [payload])
        ((kind, message),) = await kept(service, "kind", "message")
        assert (kind, message) == ("would_refuse", 1)


async def test_a_frame_over_the_limit_is_refused_and_the_connection_closed(tmp_path, old_engine):
    async with served(tmp_path, to(old_engine, max_bytes=100_000)) as (service, peer):
        peer.writer.write(encode(GOOD + b"OBX|9|TX|||" + b"x" * 200_000))
        answer = parse_ack(await peer.answer())
        assert (answer.code, answer.control_id) == ("AR", GOOD.split(b"|")[9].decode())
        with pytest.raises(ConnectionError):
            await peer.answer()
        ((kind, raw),) = await kept(service, "kind", "raw")
        assert kind == "too_large"
        assert raw.startswith(GOOD)
        assert len(raw) <= 65536


async def test_a_frame_that_never_ends_is_given_up_and_kept(tmp_path, old_engine):
    async with served(tmp_path, to(old_engine, frame_timeout=0.3)) as (service, peer):
        peer.writer.write(b"\x0b" + GOOD)
        with pytest.raises(ConnectionError):
            await peer.answer()
        assert await kept(service, "kind", "raw") == [("unfinished", GOOD)]


async def test_noise_between_frames_is_kept_and_the_frames_are_taken(tmp_path, old_engine):
    async with served(tmp_path, to(old_engine)) as (service, peer):
        peer.writer.write(b"hello?\r\n" + encode(GOOD))
        assert parse_ack(await peer.answer()).code == "AA"
        ((kind, raw),) = await kept(service, "kind", "raw")
        assert kind == "noise"
        assert raw.startswith(b"hello?")


async def test_sixteen_megabytes_are_taken_and_other_channels_are_answered_meanwhile(tmp_path, old_engine):
    big = GOOD + b"OBX|9|ED|PDF^Report||^application^pdf^Base64^" + b"QUJD" * 4_000_000 + b"\r"
    other = live("other-results", destinations=(emr(old_engine.port),))
    async with served(tmp_path, to(old_engine), other) as (service, large):
        small = await Peer.connect(port_of(other))
        sending = asyncio.create_task(large.exchange(big, 30))
        for _ in range(20):
            assert parse_ack(await small.exchange(GOOD, 2.0)).code == "AA"
        assert parse_ack(await sending).code == "AA"
        there = emr(old_engine.port).name
        await settled(service, "acme-results", there, 1)
        assert big in old_engine.payloads
        await settled(service, "other-results", there, 20)
        assert await states(service, "other-results", there) == {"delivered": 20}
        await small.close()

"""Batches: stored whole in one transaction, counted, acknowledged as the channel says, taken apart only for Medplum."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from engine.config.edge import Ack, Batch, Takes
from engine.config.model import Channel
from engine.hl7.ack import parse_ack
from engine.hl7.batch import read_batch
from engine.simulate.messages import Messages
from tests.support.house import (
    MEDPLUM,
    Peer,
    channel,
    configuration,
    emr,
    free_port,
    kept,
    running,
    settled,
    states,
)
from tests.support.sandbox import Sandbox
from tests.support.scripted import Scripted, ack

MESSAGES = Messages("oru", seed=61)


def batch(*numbers: int, declared: int | None = None, file: bool = False) -> bytes:
    count = len(numbers) if declared is None else declared
    head, tail = b"BHS|^~\\&|LAB|F|EMR|C|20260101||||B77\r", b"BTS|%d\r" % count
    if file:
        head, tail = b"FHS|^~\\&|LAB|F|EMR|C|20260101||||F78\r" + head, tail + b"FTS|1\r"
    return head + b"".join(map(MESSAGES.message, numbers)) + tail


def live(port: int, how: Batch, **options: Any) -> Channel:
    return channel("acme", port=port, **{"destinations": (emr(1),), "takes": Takes(("ORU^R01",), batch=how)} | options)


async def test_a_batch_is_one_message_as_it_came(tmp_path: Path):
    async with Scripted() as clinic:
        port = free_port()
        async with running(configuration(tmp_path, live(port, "one", destinations=(emr(clinic.port),)))) as service:
            peer = await Peer.connect(port)
            whole = batch(1, 2, 3, file=True)
            answer = parse_ack(await peer.exchange(whole))
            assert (answer.code, answer.control_id) == ("AA", "F78")
            assert service.ledger.channels["acme"].seq == 1
            await settled(service, "acme", f"emr-{clinic.port}", 1)
            assert clinic.payloads == [whole]
            await peer.close()


WAYS: list[tuple[Batch, list[str]]] = [("each", ["AA"] * 3), ("errors", [])]


@pytest.mark.parametrize(("how", "said"), WAYS)
async def test_a_batch_is_answered_by_a_batch_where_the_channel_says_so(tmp_path: Path, how: Batch, said: list[str]):
    port = free_port()
    async with running(configuration(tmp_path, live(port, how))):
        peer = await Peer.connect(port)
        answer = read_batch(await peer.exchange(batch(1, 2, 3)))
        assert answer is not None
        assert not answer.problems
        parsed = [parse_ack(each) for each in answer.messages]
        assert [each.code for each in parsed] == said
        assert [each.control_id for each in parsed] == [MESSAGES.control_id(n) for n in (1, 2, 3)][: len(said)]
        assert parse_ack(await peer.exchange(MESSAGES.message(4))).code == "AA", "a single message is answered as ever"
        await peer.close()


async def test_a_batch_gets_no_answer_where_the_channel_says_none(tmp_path: Path):
    port = free_port()
    async with running(configuration(tmp_path, live(port, "none"))) as service:
        peer = await Peer.connect(port)
        peer.send(batch(1, 2))
        assert await peer.silence()
        assert service.ledger.channels["acme"].seq == 1
        assert parse_ack(await peer.exchange(MESSAGES.message(4))).code == "AA"
        await peer.close()


WRONG = {
    "fewer than it says": (batch(1, 2, declared=3), "101"),
    "no end": (batch(1, 2).partition(b"BTS")[0], "101"),
    "a message of a type that is not taken": (batch(1, 2).replace(b"ORU^R01", b"MDM^T02", 1), "200"),
    "nothing in it": (batch(), "100"),
}


@pytest.mark.parametrize("name", WRONG)
@pytest.mark.parametrize("how", ["one", "each"])
async def test_a_batch_that_is_wrong_is_refused_whole(tmp_path: Path, name: str, how: Batch):
    raw, error = WRONG[name]
    port = free_port()
    async with running(configuration(tmp_path, live(port, how))) as service:
        peer = await Peer.connect(port)
        answer = await peer.exchange(raw)
        parsed = parse_ack(answer)
        assert (parsed.code, parsed.control_id, parsed.error) == ("AR", "B77", error)
        assert service.ledger.channels["acme"].seq == 0
        assert await kept(service, "kind", "raw", "answer") == [("refused", raw, answer)]
        await peer.close()


async def test_a_channel_may_refuse_batches(tmp_path: Path):
    port = free_port()
    async with running(configuration(tmp_path, live(port, "refuse"))) as service:
        peer = await Peer.connect(port)
        assert parse_ack(await peer.exchange(batch(1))).code == "AR"
        assert service.ledger.channels["acme"].seq == 0
        await peer.close()


def answers(how: str) -> Any:
    """What an old engine says to a batch: no two do the same."""

    def says(payload: bytes) -> tuple[bytes, ...]:
        inside = read_batch(payload)
        messages = inside.messages if inside else [payload]
        if how == "a batch":
            parts = b"".join(map(ack, messages))
            return (b"BHS|^~\\&|EMR|C|LAB|F|20260101||||R1|B77\r" + parts + b"BTS|%d\r" % len(messages),)
        if how == "nothing but the envelope":
            return (b"BHS|^~\\&|EMR|C|LAB|F|20260101||||R1|B77\rBTS|0\r",)
        if how == "the first message":
            return (ack(messages[0]),)
        if how == "the last message":
            return (ack(messages[-1]),)
        if how == "no control id":
            return (b"MSH|^~\\&|EMR|C|LAB|F|20260101||ACK|R1|P|2.3\rMSA|AA|\r",)
        return (b"MSH|^~\\&|EMR|C|LAB|F|20260101||ACK|R1|P|2.3\rMSA|AA|B77\r",)

    return says


HOWS = ["a batch", "nothing but the envelope", "the first message", "the last message", "no control id", "the batch"]


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("takes", ["one", "refuse"])
async def test_the_old_engine_gets_the_bytes_and_its_answer_is_relayed_whatever_it_looks_like(
    tmp_path: Path, how: str, takes: Batch
):
    says = answers(how)
    async with Scripted(says) as engine:
        port = free_port()
        chan = channel("acme", port=port, old_engine=engine.port, takes=Takes(batch=takes))
        async with running(configuration(tmp_path, chan)) as service:
            peer = await Peer.connect(port)
            raw = batch(1, 2)
            assert await peer.exchange(raw) == says(raw)[0]
            assert engine.payloads == [raw]
            assert await states(service, "acme", "legacy") == {"delivered": 1}
            await peer.close()


@pytest.mark.parametrize("code", ["AE", "AR"])
async def test_one_no_in_the_old_engines_batch_of_answers_refuses_the_batch(tmp_path: Path, code: str):
    def says(payload: bytes) -> tuple[bytes]:
        inside = read_batch(payload)
        assert inside
        first, second = inside.messages
        return (b"BHS|^~\\&|EMR|C|LAB|F|20260101||||R1|B77\r" + ack(first) + ack(second, code) + b"BTS|2\r",)

    async with Scripted(says) as engine:
        port = free_port()
        async with running(configuration(tmp_path, channel("acme", port=port, old_engine=engine.port))) as service:
            peer = await Peer.connect(port)
            assert await peer.exchange(batch(1, 2)) == says(batch(1, 2))[0]
            assert await states(service, "acme", "legacy") == {"refused": 1}
            await peer.close()


async def test_another_batchs_answer_is_not_this_ones(tmp_path: Path):
    said = [lambda p: (b"MSH|^~\\&|EMR|C|LAB|F|20260101||ACK|R1|P|2.3\rMSA|AA|B1\r",)]
    async with Scripted(lambda payload: said.pop()(payload) if said else answers("the batch")(payload)) as engine:
        port = free_port()
        async with running(configuration(tmp_path, channel("acme", port=port, old_engine=engine.port))) as service:
            peer = await Peer.connect(port)
            peer.send(batch(1, 2))
            await settled(service, "acme", "legacy", 1)
            assert engine.sockets == [1, 2]
            await peer.close()


async def test_medplum_gets_each_message_of_a_batch(tmp_path: Path, sandbox: Sandbox):
    port = free_port()
    async with running(
        configuration(tmp_path, live(port, "one", destinations=(MEDPLUM,)), medplum=sandbox.base)
    ) as service:
        peer = await Peer.connect(port)
        assert parse_ack(await peer.exchange(batch(1, 2, 3))).code == "AA"
        await settled(service, "acme", "medplum", 1)
        assert await states(service, "acme", "medplum") == {"delivered": 1}
        assert len(sandbox.dump("DiagnosticReport")) == 3
        sandbox.assert_sound()
        await peer.close()


async def test_each_message_of_a_batch_is_the_answer_where_medplum_is_the_authority(tmp_path: Path, sandbox: Sandbox):
    port = free_port()
    chan = live(port, "each", destinations=(MEDPLUM,), ack=Ack("medplum"))
    async with running(configuration(tmp_path, chan, medplum=sandbox.base)):
        peer = await Peer.connect(port)
        answer = read_batch(await peer.exchange(batch(1, 2)))
        assert answer is not None
        assert [parse_ack(each).code for each in answer.messages] == ["AA", "AA"]
        await peer.close()


async def test_a_flawed_batch_is_passed_on_and_recorded_while_the_old_engine_judges(tmp_path: Path):
    async with Scripted(answers("the batch")) as engine:
        port = free_port()
        async with running(configuration(tmp_path, channel("acme", port=port, old_engine=engine.port))) as service:
            peer = await Peer.connect(port)
            raw = batch(1, 2, declared=5)
            assert parse_ack(await peer.exchange(raw)).code == "AA"
            assert engine.payloads == [raw]
            assert await kept(service, "kind", "reason") == [("would_refuse", "BTS-1 says 5 messages, and there are 2")]
            await peer.close()

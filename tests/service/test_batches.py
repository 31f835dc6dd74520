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
    channel,
    emr,
    kept,
    live,
    served,
    settled,
    states,
)
from tests.support.sandbox import Sandbox
from tests.support.scripted import Scripted, ack, at_first

MESSAGES = Messages("oru", seed=61)


def batch(*numbers: int, declared: int | None = None, file: bool = False) -> bytes:
    count = len(numbers) if declared is None else declared
    head, tail = b"BHS|^~\\&|LAB|F|EMR|C|20260101||||B77\r", b"BTS|%d\r" % count
    if file:
        head, tail = b"FHS|^~\\&|LAB|F|EMR|C|20260101||||F78\r" + head, tail + b"FTS|1\r"
    return head + b"".join(map(MESSAGES.message, numbers)) + tail


def taking(how: Batch, **options: Any) -> Channel:
    """A live channel that takes batches so."""
    return live(takes=Takes(("ORU^R01",), batch=how), **options)


def reply(*answers: bytes) -> bytes:
    """The old engine's, with an answer to each message."""
    return b"BHS|^~\\&|EMR|C|LAB|F|20260101||||R1|B77\r" + b"".join(answers) + b"BTS|%d\r" % len(answers)


def single(control_id: bytes) -> bytes:
    """The old engine's, as if there were one message."""
    return b"MSH|^~\\&|EMR|C|LAB|F|20260101||ACK|R1|P|2.3\rMSA|AA|" + control_id + b"\r"


async def test_a_batch_is_one_message_as_it_came(tmp_path: Path):
    async with (
        Scripted() as clinic,
        served(tmp_path, taking("one", destinations=(emr(clinic.port),))) as (service, peer),
    ):
        whole = batch(1, 2, 3, file=True)
        answer = parse_ack(await peer.exchange(whole))
        assert (answer.code, answer.control_id) == ("AA", "F78")
        assert service.ledger.channels["acme"].seq == 1
        await settled(service, "acme", f"emr-{clinic.port}", 1)
        assert clinic.payloads == [whole]


WAYS: list[tuple[Batch, list[str]]] = [("each", ["AA"] * 3), ("errors", [])]


@pytest.mark.parametrize(("how", "said"), WAYS)
async def test_a_batch_is_answered_by_a_batch_where_the_channel_says_so(tmp_path: Path, how: Batch, said: list[str]):
    async with served(tmp_path, taking(how)) as (_, peer):
        answer = read_batch(await peer.exchange(batch(1, 2, 3)))
        assert answer is not None
        assert not answer.problems
        parsed = [parse_ack(each) for each in answer.messages]
        assert [each.code for each in parsed] == said
        assert [each.control_id for each in parsed] == [MESSAGES.control_id(n) for n in (1, 2, 3)][: len(said)]
        assert parse_ack(await peer.exchange(MESSAGES.message(4))).code == "AA", "a single message is answered as ever"


async def test_a_batch_gets_no_answer_where_the_channel_says_none(tmp_path: Path):
    async with served(tmp_path, taking("none")) as (service, peer):
        peer.send(batch(1, 2))
        assert await peer.silence()
        assert service.ledger.channels["acme"].seq == 1
        assert parse_ack(await peer.exchange(MESSAGES.message(4))).code == "AA"


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
    async with served(tmp_path, taking(how)) as (service, peer):
        answer = await peer.exchange(raw)
        parsed = parse_ack(answer)
        assert (parsed.code, parsed.control_id, parsed.error) == ("AR", "B77", error)
        assert b"\rERR|" in answer
        assert service.ledger.channels["acme"].seq == 0
        assert await kept(service, "kind", "raw", "answer", "message") == [("refused", raw, answer, None)]
        assert parse_ack(await peer.exchange(MESSAGES.message(4))).code == "AA"


async def test_a_channel_may_refuse_batches(tmp_path: Path):
    async with served(tmp_path, taking("refuse")) as (service, peer):
        assert parse_ack(await peer.exchange(batch(1))).code == "AR"
        assert service.ledger.channels["acme"].seq == 0


def answers(how: str) -> Any:
    """What an old engine says to a batch: no two do the same."""

    def says(payload: bytes) -> tuple[bytes, ...]:
        inside = read_batch(payload)
        messages = inside.messages if inside else [payload]
        if how == "a batch":
            return (reply(*map(ack, messages)),)
        if how == "nothing but the envelope":
            return (reply(),)
        if how == "the first message":
            return (ack(messages[0]),)
        if how == "the last message":
            return (ack(messages[-1]),)
        if how == "no control id":
            return (single(b""),)
        return (single(b"B77"),)

    return says


HOWS = ["a batch", "nothing but the envelope", "the first message", "the last message", "no control id", "the batch"]


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("takes", ["one", "refuse"])
async def test_the_old_engine_gets_the_bytes_and_its_answer_is_relayed_whatever_it_looks_like(
    tmp_path: Path, how: str, takes: Batch
):
    says = answers(how)
    async with (
        Scripted(says) as engine,
        served(tmp_path, channel("acme", old_engine=engine.port, takes=Takes(batch=takes))) as (service, peer),
    ):
        raw = batch(1, 2)
        assert await peer.exchange(raw) == says(raw)[0]
        assert engine.payloads == [raw]
        assert await states(service, "acme", "legacy") == {"delivered": 1}


async def test_an_old_engine_that_answers_each_message_by_itself_has_all_its_answers_relayed(tmp_path: Path):
    def says(payload: bytes) -> tuple[bytes, ...]:
        inside = read_batch(payload)
        return tuple(map(ack, inside.messages)) if inside else (ack(payload),)

    async with (
        Scripted(says) as engine,
        served(tmp_path, channel("acme", old_engine=engine.port)) as (service, peer),
    ):
        for number in range(3):
            raw, after = batch(*range(10 * number, 10 * number + 4)), MESSAGES.message(10 * number + 9)
            peer.send(raw)
            assert sorted([await peer.answer() for _ in range(4)]) == sorted(says(raw))
            assert await peer.exchange(after) == ack(after)
        assert set(engine.sockets) == {1}, "what comes after the first answer costs no connection"
        assert await states(service, "acme", "legacy") == {"delivered": 6}
        assert await kept(service, "kind") == [("application_answer",)] * 9


@pytest.mark.parametrize("code", ["AE", "AR"])
async def test_one_no_in_the_old_engines_batch_of_answers_refuses_the_batch(tmp_path: Path, code: str):
    def says(payload: bytes) -> tuple[bytes]:
        inside = read_batch(payload)
        assert inside
        first, second = inside.messages
        return (reply(ack(first), ack(second, code)),)

    async with Scripted(says) as engine, served(tmp_path, channel("acme", old_engine=engine.port)) as (service, peer):
        assert await peer.exchange(batch(1, 2)) == says(batch(1, 2))[0]
        assert await states(service, "acme", "legacy") == {"refused": 1}


async def test_another_batchs_answer_is_not_this_ones(tmp_path: Path):
    async with (
        Scripted(at_first(lambda first: (single(b"B1"),), then=answers("the batch"))) as engine,
        served(tmp_path, channel("acme", old_engine=engine.port)) as (service, peer),
    ):
        peer.send(batch(1, 2))
        await settled(service, "acme", "legacy", 1)
        assert engine.sockets == [1, 2]


async def test_medplum_gets_each_message_of_a_batch(tmp_path: Path, sandbox: Sandbox):
    async with served(tmp_path, taking("one", destinations=(MEDPLUM,)), medplum=sandbox.base) as (service, peer):
        assert parse_ack(await peer.exchange(batch(1, 2, 3))).code == "AA"
        await settled(service, "acme", "medplum", 1)
        assert await states(service, "acme", "medplum") == {"delivered": 1}
        assert len(sandbox.dump("DiagnosticReport")) == 3
        sandbox.assert_sound()


async def test_each_message_of_a_batch_is_the_answer_where_medplum_is_the_authority(tmp_path: Path, sandbox: Sandbox):
    chan = taking("each", destinations=(MEDPLUM,), ack=Ack("medplum"))
    async with served(tmp_path, chan, medplum=sandbox.base) as (_, peer):
        answer = read_batch(await peer.exchange(batch(1, 2)))
        assert answer is not None
        assert [parse_ack(each).code for each in answer.messages] == ["AA", "AA"]


FLAWED = {
    "fewer than it says": (batch(1, 2, declared=5), "BTS-1 says 5 messages, and there are 2"),
    "nothing in it": (batch(), "a batch envelope without a message in it"),
}


@pytest.mark.parametrize(("raw", "reason"), FLAWED.values(), ids=FLAWED)
async def test_a_flawed_batch_is_passed_on_and_recorded_while_the_old_engine_judges(
    tmp_path: Path, raw: bytes, reason: str
):
    async with (
        Scripted(answers("the batch")) as engine,
        served(tmp_path, channel("acme", old_engine=engine.port)) as (service, peer),
    ):
        assert parse_ack(await peer.exchange(raw)).code == "AA"
        assert engine.payloads == [raw]
        assert await kept(service, "kind", "reason", "message") == [("would_refuse", reason, 1)]

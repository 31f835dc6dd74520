"""Endpoints whose software nobody here wrote get what we send.

What they really do, where it surprises (the bytes of their answers stand in test_wire.py):

* hl7apy's server takes one message a connection: it closes after its answer, so that its endpoint wants
  `persistent: false`. It reads byte by byte, and the time grows with the square of the size: a message of megabytes
  takes it many minutes. A message with an empty line it does not answer, it closes.
* node-hl7-server forgets to empty its buffer: on a connection that stays open it takes the second message for a batch
  of the first and the second, and acknowledges the first once more. Its endpoint must have `persistent: false`. A
  message with an empty line it hands to its application, and answers with AE and an MSA-2 of random letters. It listens
  on all addresses, whatever `bindAddress` says, and on no port above 65353.
* @medplum/hl7's server, in what it calls enhanced mode, sends CA and then the application's answer to every message,
  whether it asks for that in MSH-15 and MSH-16 or not. An LF within a field it takes for the end of a segment.
* python-hl7's server reads 64 KiB at most and ASCII only, unless it is told otherwise. Its `create_ack` fails on a
  message with an empty line.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from engine.config.edge import Answers
from tests.peers.receivers import HL7APY, MEDPLUM, NODE_HL7, PYTHON_HL7, RECEIVERS, arrived, receiver
from tests.peers.texts import control_id, foreign, large, order, result, same
from tests.peers.ways import WAYS, Open, destination, endpoint, legacy_path
from tests.support.house import kept, until

BIG = {PYTHON_HL7: 2_000_000, HL7APY: 40_000, MEDPLUM: 2_000_000, NODE_HL7: 2_000_000}  # bytes


def manner(peer: str) -> dict[str, Any]:
    """What its endpoint must say of this peer."""
    return {"persistent": False} if peer in (NODE_HL7, HL7APY) else {}


def ids(texts: list[str]) -> list[str]:
    return [control_id(text) for text in texts]


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
@pytest.mark.parametrize("peer", RECEIVERS)
async def test_orders_and_results_arrive_once_in_their_order_and_are_acknowledged(
    tmp_path: Path, peer: str, way: Open
) -> None:
    texts = [text for number in range(1, 4) for text in (order(number), result(number))]
    async with receiver(peer) as it, way(tmp_path, endpoint(it.port, **manner(peer))) as out:
        for text in texts:
            answer = await out.send(text)
            assert (answer.code, answer.control_id) == ("AA", control_id(text))
        assert await out.settled(len(texts)) == {"delivered": len(texts)}
        assert await arrived(it, len(texts)) == ids(texts)
        assert all(same(got, text) for got, text in zip(it.texts, texts, strict=True))
        assert await kept(out.service, "kind") == []


@pytest.mark.parametrize("peer", RECEIVERS)
async def test_a_large_message_arrives_whole_and_the_next_one_too(tmp_path: Path, peer: str) -> None:
    texts = [large(1, BIG[peer]), result(2)]
    async with receiver(peer) as it, destination(tmp_path, endpoint(it.port, **manner(peer))) as out:
        for text in texts:
            await out.send(text)
        assert await out.settled(2) == {"delivered": 2}
        assert await arrived(it, 2) == ids(texts)
        assert same(it.texts[0], texts[0])
        assert same(it.texts[1], texts[1])


@pytest.mark.parametrize(("encoding", "charset"), [("utf-8", "UNICODE UTF-8"), ("latin-1", "8859/1")])
@pytest.mark.parametrize("peer", RECEIVERS)
async def test_letters_beyond_ascii_arrive_as_they_came(tmp_path: Path, peer: str, encoding: str, charset: str) -> None:
    text = foreign(1, charset)
    async with receiver(peer, encoding=encoding) as it, legacy_path(tmp_path, endpoint(it.port)) as out:
        assert (await out.send(text, encoding)).code == "AA"
        assert await out.settled(1) == {"delivered": 1}
        assert await arrived(it, 1) == [control_id(text)]
        assert same(it.texts[0], text)


@pytest.mark.parametrize("peer", RECEIVERS)
async def test_a_peer_that_goes_away_gets_everything_in_order_when_it_is_back(tmp_path: Path, peer: str) -> None:
    texts = [result(number) for number in range(1, 6)]
    async with receiver(peer) as it, destination(tmp_path, endpoint(it.port, **manner(peer))) as out:
        await out.send(texts[0])
        assert await out.settled(1) == {"delivered": 1}
        await it.stop()
        for text in texts[1:]:
            assert (await out.send(text)).code == "AA"
        assert await out.opened() == "retrying"
        await it.start()
        assert await out.settled(5) == {"delivered": 5}
        assert await arrived(it, 5) == ids(texts)


@pytest.mark.parametrize("peer", RECEIVERS)
async def test_what_a_peer_answers_with_ae_is_sent_again_and_nothing_overtakes_it(tmp_path: Path, peer: str) -> None:
    async with receiver(peer) as it, destination(tmp_path, endpoint(it.port, **manner(peer))) as out:
        await it.answer("AE")
        await out.send(result(1))
        await out.send(result(2))
        await until(lambda: bool(it.texts))
        await it.answer("AA")
        assert await out.settled(2) == {"delivered": 2}
        await until(lambda: ids(it.texts)[-1] == control_id(result(2)))
        *first, second = ids(it.texts)
        assert set(first) == {control_id(result(1))}
        assert len(first) > 1
        assert second == control_id(result(2))


@pytest.mark.parametrize("code", ["AE", "AR"])
@pytest.mark.parametrize("peer", RECEIVERS)
async def test_a_no_of_the_old_engine_is_relayed_to_the_vendor_and_settles_the_message(
    tmp_path: Path, peer: str, code: str
) -> None:
    async with receiver(peer) as it, legacy_path(tmp_path, endpoint(it.port, **manner(peer))) as out:
        await it.answer(code)
        answer = await out.send(result(1))
        assert (answer.code, answer.control_id) == (code, control_id(result(1)))
        assert await out.settled(1) == {"refused": 1}
        assert await arrived(it, 1) == [control_id(result(1))]


async def test_a_peer_that_closes_after_each_answer_loses_nothing_where_its_endpoint_does_not_say_so(
    tmp_path: Path,
) -> None:
    """A message may be written just before hl7apy's end of the connection is seen: it is sent once more."""
    texts = [result(number) for number in range(1, 21)]
    async with receiver(HL7APY) as it, destination(tmp_path, endpoint(it.port)) as out:
        for text in texts:
            await out.send(text)
        assert await out.settled(20) == {"delivered": 20}
        assert await arrived(it, 20) == ids(texts)


async def test_an_answer_to_the_message_before_is_never_taken_for_this_ones(tmp_path: Path) -> None:
    """node-hl7-server on a connection that stays open: it answers the second message for the first once more."""
    async with receiver(NODE_HL7) as it, destination(tmp_path, endpoint(it.port)) as out:
        await out.send(result(1))
        assert await out.settled(1) == {"delivered": 1}
        await out.send(result(2))
        assert await out.settled(2) == {"delivered": 2}
        assert await arrived(it, 4) == ids([result(number) for number in (1, 1, 2, 2)])


async def test_an_answer_for_no_message_of_ours_settles_nothing(tmp_path: Path) -> None:
    """node-hl7-server has taken the message, and says AE with a made-up MSA-2: that is not known to be a no. Its
    endpoint may say that MSA-2 is not to be looked at; then it is."""
    odd = result(1).replace("\rPV1", "\r\rPV1")
    async with receiver(NODE_HL7) as it:
        async with destination(tmp_path, endpoint(it.port, persistent=False)) as out:
            await out.send(odd)
            assert await out.opened() == "unknown"
            assert control_id(odd) in await arrived(it, 1)
        unchecked = endpoint(it.port, persistent=False, answers=Answers(check=False))
        (tmp_path / "second").mkdir()
        async with legacy_path(tmp_path / "second", unchecked) as out:
            assert (await out.send(odd)).code == "AE"
            assert await out.settled(1) == {"refused": 1}


async def test_a_peer_that_commits_first_is_waited_for_where_only_aa_counts(tmp_path: Path) -> None:
    async with (
        receiver(MEDPLUM, enhanced=True) as it,
        destination(tmp_path, endpoint(it.port, answers=Answers(accepted=("AA",)))) as out,
    ):
        for number in (1, 2, 3):
            await out.send(result(number))
        assert await out.settled(3) == {"delivered": 3}
        assert await arrived(it, 3) == ids([result(number) for number in (1, 2, 3)])


async def test_a_peer_that_commits_first_and_then_refuses_is_heard_where_only_aa_counts(tmp_path: Path) -> None:
    async with (
        receiver(MEDPLUM, enhanced=True) as it,
        legacy_path(tmp_path, endpoint(it.port, answers=Answers(accepted=("AA",)))) as out,
    ):
        await it.answer("AR")
        assert (await out.send(result(1))).code == "AR"
        assert await out.settled(1) == {"refused": 1}


async def test_a_peer_that_commits_first_loses_nothing_where_its_ca_counts(tmp_path: Path) -> None:
    """The AA that comes after the CA was enough belongs to nothing that we wait for: the connection is made anew."""
    async with receiver(MEDPLUM, enhanced=True) as it, destination(tmp_path, endpoint(it.port)) as out:
        for number in (1, 2, 3):
            await out.send(result(number))
            assert await out.settled(number) == {"delivered": number}
        assert list(dict.fromkeys(await arrived(it, 3))) == ids([result(number) for number in (1, 2, 3)])

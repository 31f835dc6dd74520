"""Vendors whose software nobody here wrote send to us.

What they really do, where it surprises:

* python-hl7's blocking client takes one `recv` of at most 4,096 bytes for the answer. A second answer to the same
  message is read as the next message's: such a peer must be answered once (`ack.mode: original`).
* @medplum/hl7 waits on after CA, for AA, unless it is told to take the first answer.
* node-hl7-client writes no CR after the last segment, and does not look at MSA-2. One client speaks one HL7 version.
  It connects again only where its option `connectionTimeout` is set (off by default), and that option also ends a
  connection that is in order when so much time has passed. A message that it is given before it is connected, or
  before the last one is answered, makes it open one more connection.
* None of them sends a message again whose connection was lost: that is left to the application.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from engine.config.edge import Ack, Takes
from engine.ledger.sqlite.large import whole
from engine.service.service import Service
from tests.peers.senders import BLOCKING, MEDPLUM, NODE_HL7, PYTHON_HL7, SENDERS, Answer, sender
from tests.peers.texts import ACCEPTS, control_id, foreign, large, order, result, same
from tests.support.house import channel, configuration, running, written
from tests.support.ports import free_port

BIG = 2_000_000  # bytes


async def stored(service: Service) -> list[tuple[int, bytes]]:
    """Each message in its order: the number of its connection, and its bytes."""
    await written(service)  # what was acknowledged is durable, and nothing comes after
    query = "select socket, raw, large from message order by id"

    def read(reader: Any) -> list[tuple[int, bytes]]:
        rows = reader.connection.execute(query).fetchall()
        return [(socket, whole(reader.connection, raw, large)) for socket, raw, large in rows]

    return await service.ledger.read(read)


def ours(tmp_path: Path, port: int, **options: Any) -> Any:
    """A service with one live channel that answers by itself."""
    options = {"takes": Takes(ACCEPTS)} | options
    return running(configuration(tmp_path, channel("acme-results", port=port, **options)))


@pytest.mark.parametrize("peer", SENDERS)
async def test_orders_and_results_on_one_connection_are_stored_as_sent_and_each_has_its_own_yes(
    tmp_path: Path, peer: str
) -> None:
    texts = [text for number in range(1, 6) for text in (order(number), result(number))]
    port = free_port()
    async with ours(tmp_path, port) as service, sender(peer, port) as vendor:
        for text in texts:
            assert await vendor.send(text) == [Answer("AA", control_id(text), "REFLAB")]
        rows = await stored(service)
        assert len({socket for socket, _ in rows}) == 1
        assert len(rows) == len(texts)
        assert all(same(raw.decode(), text) for (_, raw), text in zip(rows, texts, strict=True))


@pytest.mark.parametrize("peer", SENDERS)
async def test_a_message_of_two_megabytes_is_taken_whole_and_the_next_one_too(tmp_path: Path, peer: str) -> None:
    port = free_port()
    async with ours(tmp_path, port) as service, sender(peer, port) as vendor:
        for text in (large(1, BIG), result(2)):
            ((code, id, _),) = await vendor.send(text)
            assert (code, id) == ("AA", control_id(text))
        first, second = await stored(service)
        assert len(first[1]) > BIG
        assert same(first[1].decode(), large(1, BIG))
        assert same(second[1].decode(), result(2))


@pytest.mark.parametrize(("encoding", "charset"), [("utf-8", "UNICODE UTF-8"), ("latin-1", "8859/1")])
@pytest.mark.parametrize("peer", SENDERS)
async def test_letters_beyond_ascii_are_kept_and_come_back_in_the_senders_own_charset(
    tmp_path: Path, peer: str, encoding: str, charset: str
) -> None:
    """node-hl7-client writes Latin-1 where it is told to, and reads every answer as UTF-8: it garbles what we echo."""
    text = foreign(1, charset)
    port = free_port()
    async with ours(tmp_path, port) as service, sender(peer, port, encoding=encoding) as vendor:
        ((code, id, facility),) = await vendor.send(text)
        assert (code, id) == ("AA", control_id(text))
        assert facility == ("LABO GEN\ufffdVE" if (peer, encoding) == (NODE_HL7, "latin-1") else "LABO GENÈVE")
        ((_, raw),) = await stored(service)
        assert same(raw.decode(encoding), text)


@pytest.mark.parametrize("peer", SENDERS)
async def test_what_a_live_channel_does_not_take_is_refused_in_a_way_that_the_peer_reads(
    tmp_path: Path, peer: str
) -> None:
    mislabelled = foreign(2, "UNICODE UTF-8")
    port = free_port()
    async with ours(tmp_path, port, takes=Takes(("ORU^R01",))) as service:
        async with sender(peer, port, encoding="latin-1") as vendor:
            refused = await vendor.send(order(1)) + await vendor.send(mislabelled) + await vendor.send(result(3))
        assert [(answer.code, answer.control_id) for answer in refused] == [
            ("AR", control_id(order(1))), ("AE", control_id(mislabelled)), ("AA", control_id(result(3))),
        ]  # fmt: skip
        assert len(await stored(service)) == 1


def enhanced(text: str, accept: str, application: str) -> str:
    """The same message, whose header asks for these answers (MSH-15, MSH-16)."""
    head, rest = text.split("\r", 1)
    fields = head.split("|")
    fields[14:16] = accept, application
    return "|".join(fields) + "\r" + rest


@pytest.mark.parametrize("peer", SENDERS)
async def test_a_peer_that_asks_for_the_accept_acknowledgement_alone_reads_ca(tmp_path: Path, peer: str) -> None:
    port = free_port()
    async with ours(tmp_path, port) as _, sender(peer, port, wait="first") as vendor:
        for number in (1, 2):
            text = enhanced(result(number), "AL", "NE")
            assert await vendor.send(text) == [Answer("CA", control_id(text), "REFLAB")]


@pytest.mark.parametrize("peer", [each for each in SENDERS if each != BLOCKING])
async def test_a_peer_that_asks_for_both_answers_reads_both(tmp_path: Path, peer: str) -> None:
    codes = ["AA"] if peer == MEDPLUM else ["CA", "AA"]  # which keeps the CA to itself
    port = free_port()
    async with (
        ours(tmp_path, port) as _,
        sender(peer, port, wait="application" if peer == MEDPLUM else "both") as vendor,
    ):
        for number in (1, 2):
            text = enhanced(result(number), "AL", "AL")
            assert await vendor.send(text) == [Answer(code, control_id(text), "REFLAB") for code in codes]


async def test_original_mode_gives_one_answer_to_a_peer_that_asks_for_two_and_reads_one(tmp_path: Path) -> None:
    port = free_port()
    async with ours(tmp_path, port, ack=Ack("stored", mode="original")) as _, sender(BLOCKING, port) as vendor:
        for number in range(1, 4):
            text = enhanced(result(number), "AL", "AL")
            assert await vendor.send(text) == [Answer("AA", control_id(text), "REFLAB")]


@pytest.mark.parametrize("peer", [each for each in SENDERS if each != MEDPLUM])  # which knows no batches
async def test_a_batch_is_one_message_with_one_yes(tmp_path: Path, peer: str) -> None:
    """python-hl7 puts an empty line between the messages of a batch that it writes."""
    batch = f"BHS|^~\\&|SIM|REFLAB|EMR|CLINIC|20260105060000||||B1\r{result(1)}{result(2)}BTS|2\r"
    written = batch.replace(result(2), "\r" + result(2)) if peer == PYTHON_HL7 else batch
    port = free_port()
    async with ours(tmp_path, port) as service, sender(peer, port) as vendor:
        for _ in range(2):
            assert await vendor.send(batch) == [Answer("AA", "B1", "REFLAB")]
        assert [same(raw.decode(), written) for _, raw in await stored(service)] == [True, True]


@pytest.mark.parametrize("peer", SENDERS)
async def test_after_a_restart_of_ours_the_peer_connects_again_and_goes_on(tmp_path: Path, peer: str) -> None:
    port = free_port()
    async with sender(peer, port) as vendor:
        async with ours(tmp_path, port):
            assert await vendor.send(result(1)) == [Answer("AA", control_id(result(1)), "REFLAB")]
        async with ours(tmp_path, port) as service:
            answers = await _until_answered(vendor, result(2))
            assert answers == [Answer("AA", control_id(result(2)), "REFLAB")]
            (one, first), (other, second) = await stored(service)
            assert (same(first.decode(), result(1)), same(second.decode(), result(2))) == (True, True)
            assert one != other


async def _until_answered(vendor: Any, text: str) -> list[Answer]:
    """Send again, as its operator would, where the peer finds only now that its connection is gone."""
    try:
        answers: list[Answer] = await vendor.send(text)
    except ConnectionError:
        answers = await vendor.send(text)
    return answers

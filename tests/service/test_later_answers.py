"""Which answers of an endpoint are waited for, and what becomes of one that comes when its message is settled."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from engine.config.edge import Answers, Takes
from engine.config.endpoint import Endpoint
from engine.hl7.ack import parse_ack
from engine.ledger.model import State
from engine.observe.delivery_events import LATER_NO
from engine.service.view import View
from engine.simulate.messages import Messages
from tests.support.house import (
    Peer,
    channel,
    configuration,
    emr,
    kept,
    live,
    open_work,
    port_of,
    running,
    served,
    settled,
    states,
    to,
    until,
)
from tests.support.scripted import Scripted, ack
from tests.support.wanting import asking

MESSAGES = Messages("oru", seed=181)
QUIET = [("NE", "NE"), ("ER", "ER"), ("NE", "ER"), ("AL", "ER"), ("", "")]


def code(answer: bytes) -> str:
    parsed = parse_ack(answer)
    assert parsed is not None
    return parsed.code


@pytest.mark.parametrize(("accept", "application"), QUIET)
async def test_an_endpoints_no_counts_whatever_the_vendors_message_asks_for(
    tmp_path: Path, accept: str, application: str
) -> None:
    """Whether the endpoint goes by MSH-15 and 16 is the endpoint's to say, and it has not said so."""
    async with Scripted(lambda payload: (0.05, ack(payload, "AR"))) as clinic:
        there = emr(clinic.port)
        async with served(tmp_path, live(destinations=(there,))) as (service, peer):
            peer.send(asking(MESSAGES.message(1), accept, application))
            await until(lambda: open_work(service, "acme", there.name) == [State.DEAD])
            assert len(clinic.payloads) == 1


async def test_an_endpoints_no_counts_on_the_vendors_own_connection_too(tmp_path: Path) -> None:
    back = to(Endpoint("vendor", None, via="orders", on_unknown="resend"))
    orders = channel("orders", destinations=(emr(1),), takes=Takes(("ORM^O01",)))
    async with served(tmp_path, live("results", destinations=(back,)), orders) as (service, lab):
        line = await Peer.connect(port_of(orders))
        assert code(await line.exchange(Messages("orm", seed=1).message(1))) == "AA"
        sent = asking(MESSAGES.message(1), "NE", "NE")
        lab.send(sent)
        assert await line.answer() == sent
        line.send(ack(sent, "AR"))
        await until(lambda: open_work(service, "results", "vendor") == [State.DEAD])
        assert await kept(service, "kind") == []
        await line.close()


async def test_a_later_no_on_the_vendors_own_connection_is_told_and_kept_too(tmp_path: Path) -> None:
    back = to(Endpoint("vendor", None, via="orders", on_unknown="resend"))
    orders = channel("orders", destinations=(emr(1),), takes=Takes(("ORM^O01",)))
    async with served(tmp_path, live("results", destinations=(back,)), orders) as (service, lab):
        before = LATER_NO.of("results", "vendor").n
        line = await Peer.connect(port_of(orders))
        assert code(await line.exchange(Messages("orm", seed=1).message(1))) == "AA"
        await lab.exchange(MESSAGES.message(1))
        sent = await line.answer()
        line.send(ack(sent, "CA"))
        await settled(service, "results", "vendor", 1)
        line.send(ack(sent, "AE"))
        await until(lambda: LATER_NO.of("results", "vendor").n == before + 1)
        assert await kept(service, "kind", "reason") == [("application_answer", "vendor: answered AE")]
        await line.close()


async def test_an_endpoint_that_follows_enhanced_mode_is_not_waited_for_where_it_need_not(tmp_path: Path) -> None:
    async with Scripted(lambda payload: ()) as clinic:
        there = emr(clinic.port, answers=Answers(mode="enhanced"))
        async with served(tmp_path, live(destinations=(there,))) as (service, peer):
            for number in range(5):
                peer.send(asking(MESSAGES.message(number), "NE", "ER"))
            await settled(service, "acme", there.name, 5, 4.0)  # the endpoint's ack_timeout is 5 s for each
            assert set(clinic.sockets) == {1}


LATER: dict[str, tuple[Answers, tuple[str, str], tuple[Any, ...]]] = {
    "after an accept acknowledgement": (Answers(), ("", ""), ("CA", 0.1, "AE")),
    "that was asked for": (Answers(mode="enhanced"), ("AL", "AL"), ("CA", 0.1, "AE")),
    "in one piece with it": (Answers(), ("", ""), ("CA", "AE")),
    "where only errors are answered": (Answers(mode="enhanced"), ("NE", "ER"), (0.1, "AE")),
    "of a peer that is said never to answer": (Answers(expected=False), ("", ""), (0.1, "AE")),
}


@pytest.mark.parametrize("case", LATER)
async def test_a_no_that_comes_when_the_message_is_settled_is_told_and_kept(tmp_path: Path, case: str) -> None:
    answers, asks, said = LATER[case]

    def says(payload: bytes) -> list[Any]:
        return [ack(payload, each) if isinstance(each, str) else each for each in said]

    async with Scripted(says) as clinic:
        there = emr(clinic.port, answers=answers)
        async with served(tmp_path, live(destinations=(there,))) as (service, peer):
            before = LATER_NO.of("acme", there.name).n
            sent = asking(MESSAGES.message(1), *asks)
            peer.send(sent)
            await until(lambda: LATER_NO.of("acme", there.name).n == before + 1)
            assert await kept(service, "kind", "reason", "message", "answer") == [
                ("application_answer", f"{there.name}: answered AE", 1, ack(sent, "AE"))
            ]
            shown = await View(service, "0").message("acme", 1)
            assert shown is not None
            assert [row["reason"] for row in shown["later"]] == [f"{there.name}: answered AE"]
            assert await states(service, "acme", there.name) == {"delivered": 1}
            assert set(clinic.sockets) == {1}, "the connection is in order"


async def test_a_later_yes_is_nobodys_trouble(tmp_path: Path) -> None:
    async with Scripted(lambda payload: (ack(payload, "CA"), 0.02, ack(payload, "AA"))) as clinic:
        there = emr(clinic.port)
        async with served(tmp_path, live(destinations=(there,))) as (service, peer):
            before = LATER_NO.of("acme", there.name).n
            for number in range(5):
                await peer.exchange(MESSAGES.message(number))
            await settled(service, "acme", there.name, 5)
            assert await kept(service, "kind") == []
            assert LATER_NO.of("acme", there.name).n == before


SENDERS = [
    # asks for          EMR's second answer   hears
    (("AL", "AL"), "AA", ["CA", "AA"]),
    (("AL", "AL"), "AE", ["CA", "AE"]),
    (("NE", "AL"), "AE", ["AE"]),
    (("AL", "ER"), "AE", ["CA", "AE"]),
    (("AL", "ER"), "AA", ["CA"]),
    (("AL", "NE"), "AE", ["CA"]),
    (("NE", "NE"), "AE", []),
]


@pytest.mark.parametrize(("asks", "said", "heard"), SENDERS)
@pytest.mark.parametrize("first", ["CA", ""])
async def test_a_sender_hears_our_accept_acknowledgement_and_the_destinations_application(
    tmp_path: Path, asks: tuple[str, str], said: str, heard: list[str], first: str
) -> None:
    """Never the destination's accept acknowledgement as the answer, and nothing that it has not asked for."""

    def says(payload: bytes) -> list[Any]:
        return [*([ack(payload, first), 0.1] if first else []), ack(payload, said)]

    async with Scripted(says) as clinic:
        there = emr(clinic.port)
        chan = live(destinations=(there,), ack=there.name)
        async with running(configuration(tmp_path, chan)) as service:
            peer = await Peer.connect(port_of(chan))
            sent = asking(MESSAGES.message(1), *asks)
            peer.send(sent)
            came = [await peer.answer() for _ in heard]
            assert [code(answer) for answer in came] == heard
            if heard[-1:] == [said]:
                assert came[-1] == ack(sent, said), "as it came"
            await settled(service, "acme", there.name, 1)
            assert await peer.silence()
            (connection,) = service.doors.ports["acme"].listener.connections
            assert connection.owed == 0
            await peer.close()
            if first and said == "AE":
                assert [row[0] for row in await kept(service, "kind")] == ["application_answer"]

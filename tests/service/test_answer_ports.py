"""Endpoints that answer on connections which they make to us: one port each, whoever of us sends to it."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from engine.config.edge import Answers, Listen, Tls
from engine.config.endpoint import Endpoint
from engine.config.model import Tap
from engine.hl7.ack import parse_ack
from engine.hl7.peek import peek
from engine.ledger.model import State
from engine.observe.delivery_events import ANSWERS, STRAY, TURNED_AWAY
from engine.service.service import Service
from engine.service.view import View
from engine.simulate.messages import Messages
from tests.support.certificates import Authority
from tests.support.house import (
    Peer,
    channel,
    configuration,
    emr,
    fed,
    feed,
    live,
    old,
    port_of,
    running,
    served,
    settled,
    states,
    until,
)
from tests.support.ports import free_port
from tests.support.scripted import Scripted, ack
from tests.support.wanting import asking

MESSAGES = Messages("oru", seed=171)


def at(port: int, **options: Any) -> Answers:
    return Answers(listen=Listen(port, "127.0.0.1", **options))


class Apart(Scripted):
    """An engine that says nothing on our connections: `answer` does, at our port for answers."""

    def __init__(self) -> None:
        super().__init__(lambda payload: ())
        self.answers = free_port()

    def endpoint(self, **options: Any) -> Endpoint:
        return old(self.port, answers=at(self.answers), **options)

    async def answer(self, *answers: bytes) -> None:
        line = await Peer.connect(self.answers)
        for answer in answers:
            line.send(answer)
        assert await line.silence(0.1), "an answer gets none"
        await line.close()

    async def asked(self, count: int) -> None:
        await until(lambda: len(self.payloads) == count)


@asynccontextmanager
async def three(folder: Path, **options: Any) -> AsyncIterator[tuple[Service, Apart, list[Peer]]]:
    """Three channels with a connection of their own each to one old engine, and a vendor at each."""
    async with Apart() as engine:
        there = engine.endpoint(**options)
        channels = [channel(id, old_engine=there) for id in "abc"]
        async with running(configuration(folder, *channels)) as service:
            vendors = [await Peer.connect(port_of(each)) for each in channels]
            yield service, engine, vendors
            for vendor in vendors:
                await vendor.close()


async def test_channels_that_share_an_old_engine_share_its_port_and_each_hears_its_own_answer(tmp_path: Path) -> None:
    async with three(tmp_path) as (service, engine, vendors):
        assert service.ways.down == {}
        for turn in range(3):
            sent = [MESSAGES.message(10 * turn + number) for number in range(3)]
            for vendor, payload in zip(vendors, sent, strict=True):
                vendor.send(payload)
            await engine.asked(3 * turn + 3)
            await engine.answer(*[ack(payload) for payload in reversed(sent)])
            assert [await vendor.answer() for vendor in vendors] == [ack(payload) for payload in sent]
        for id in "abc":
            assert await states(service, id, "legacy") == {"delivered": 3}
        assert len(engine.payloads) == 9, "nothing was sent twice"


async def test_a_feed_and_a_channel_share_the_port_too(tmp_path: Path) -> None:
    async with Apart() as engine:
        by = feed("lis", "a", old_engine=engine.endpoint())
        b = channel("b", old_engine=engine.endpoint())
        async with served(tmp_path, fed("a", by), b, feeds=(by,)) as (service, lis):
            vendor = await Peer.connect(port_of(b))
            one, two = MESSAGES.message(1), MESSAGES.message(2)
            lis.send(one)
            vendor.send(two)
            await engine.asked(2)
            await engine.answer(ack(two), ack(one))
            assert (await lis.answer(), await vendor.answer()) == (ack(one), ack(two))
            assert service.ways.down == {}
            await vendor.close()


async def test_an_answer_to_nobodys_message_costs_nobody_anything(tmp_path: Path) -> None:
    """A late one, of a message that has been answered since: the one that waits goes on waiting."""
    async with three(tmp_path) as (_, engine, (vendor, *_)):
        there = f"old-{engine.port}"
        before = STRAY.of(there).n
        vendor.send(MESSAGES.message(1))
        await engine.asked(1)
        late = ack(MESSAGES.message(7))
        await engine.answer(late, ack(MESSAGES.message(1)))
        assert await vendor.answer() == ack(MESSAGES.message(1))
        assert STRAY.of(there).n == before + len(late)
        assert len(engine.payloads) == 1


async def test_an_answer_that_names_nobody_is_the_only_ones_that_waits_and_else_nobodys(tmp_path: Path) -> None:
    nameless = b"MSH|^~\\&|OLD|F|LAB|C|20260101||ACK|1|P|2.3\rMSA|AA\r"
    async with three(tmp_path, ack_timeout=30.0) as (service, engine, vendors):
        vendors[0].send(MESSAGES.message(1))
        await engine.asked(1)
        await engine.answer(nameless)
        assert await vendors[0].answer() == nameless
        vendors[0].send(MESSAGES.message(2))
        vendors[1].send(MESSAGES.message(3))
        await engine.asked(3)
        await engine.answer(nameless)
        assert await vendors[0].silence()
        assert [(await states(service, id, "legacy"))["sending"] for id in "ab"] == [1, 1]
        await engine.answer(ack(MESSAGES.message(3)), ack(MESSAGES.message(2)))
        assert await vendors[1].answer() == ack(MESSAGES.message(3))


async def test_where_msa_2_is_not_looked_at_the_only_message_that_waits_is_the_one(tmp_path: Path) -> None:
    async with Apart() as clinic:
        answers = Answers(check=False, listen=Listen(clinic.answers, "127.0.0.1"))
        there = emr(clinic.port, answers=answers)
        async with served(tmp_path, live(destinations=(there,))) as (service, peer):
            await peer.exchange(MESSAGES.message(1))
            await clinic.asked(1)
            await clinic.answer(ack(MESSAGES.message(1), "AA", "SOMETHING"))
            await settled(service, "acme", there.name, 1)


async def test_the_applications_answer_may_come_there_after_the_accept_acknowledgement(tmp_path: Path) -> None:
    asked = asking(MESSAGES.message(1), "AL", "AL")
    async with three(tmp_path) as (_, engine, (vendor, *_)):
        vendor.send(asked)
        await engine.asked(1)
        await engine.answer(ack(asked, "CA"))
        assert await vendor.answer() == ack(asked, "CA")
        await engine.answer(ack(asked, "AE"))
        assert await vendor.answer() == ack(asked, "AE")


async def test_who_is_not_let_in_there_is_turned_away_and_told(tmp_path: Path) -> None:
    async with Apart() as clinic:
        there = emr(clinic.port, answers=at(clinic.answers, allow=("10.20.0.0/16",)))
        async with served(tmp_path, live(destinations=(there,))) as (_, peer):
            before = TURNED_AWAY.of(there.name).n
            await peer.exchange(MESSAGES.message(1))
            await clinic.asked(1)
            line = await Peer.connect(clinic.answers)
            line.send(ack(MESSAGES.message(1)))
            assert await line.closed()
            await line.close()
            assert TURNED_AWAY.of(there.name).n == before + 1


async def test_answers_over_tls(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "tls")
    us, them = authority.issue("us"), authority.issue("emr")
    context = ssl.create_default_context(cafile=str(authority.ca))
    context.load_cert_chain(them.certificate, them.key)
    tls = Tls(us.certificate, us.key, authority.ca, ("emr",))
    async with Apart() as clinic:
        there = emr(clinic.port, answers=at(clinic.answers, tls=tls))
        async with served(tmp_path, live(destinations=(there,))) as (service, peer):
            await peer.exchange(MESSAGES.message(1))
            await clinic.asked(1)
            line = await Peer.connect(clinic.answers, context)
            line.send(ack(MESSAGES.message(1)))
            await settled(service, "acme", there.name, 1)
            assert f"{there.name}/answers" in service.ways.certificates.days
            await line.close()


async def test_a_port_for_answers_that_somebody_else_has_is_told_with_the_reason(tmp_path: Path) -> None:
    async with Apart() as clinic:
        there = emr(clinic.port, answers=at(clinic.answers))
        async with (
            await asyncio.start_server(lambda *_: None, "127.0.0.1", clinic.answers) as somebody,
            served(tmp_path, live(destinations=(there,))) as (service, _),
        ):
            view = View(service, "0")
            (found,) = (await view.status())["answers"]
            assert (found["endpoint"], found["listening"]) == (there.name, False)
            assert found["address"] == f"127.0.0.1:{clinic.answers}"
            assert found["down"].endswith("Address already in use")
            assert ANSWERS.of(there.name).n == 0
            somebody.close()
            await somebody.wait_closed()
            await until(lambda: not service.ways.down)
            (found,) = (await view.status())["answers"]
            assert (found["listening"], found["down"]) == (True, None)
            assert ANSWERS.of(there.name).n == 1


async def test_what_a_tap_sends_on_is_answered_there_as_well(tmp_path: Path) -> None:
    async with Apart() as clinic, Scripted() as engine:
        there = emr(clinic.port, answers=at(clinic.answers), connections=2)
        assert there.endpoint
        port = free_port()
        legacy = channel(
            "old", old_engine=engine.port, taps=(Tap("clinic", Listen(port, "127.0.0.1"), there.endpoint),)
        )
        async with running(configuration(tmp_path, legacy, live(destinations=(there,)))) as service:
            outputs = [await Peer.connect(port), await Peer.connect(port)]
            for number, output in enumerate(outputs):
                output.send(MESSAGES.message(number))
            await clinic.asked(2)
            await clinic.answer(*[ack(payload) for payload in reversed(clinic.payloads)])
            for number, output in enumerate(outputs):
                assert await output.answer() == ack(MESSAGES.message(number))
                await output.close()
            assert service.ways.down == {}


@pytest.mark.parametrize("code", ["AE", "AR"])
async def test_a_no_there_is_a_no(tmp_path: Path, code: str) -> None:
    async with three(tmp_path) as (service, engine, (vendor, *_)):
        vendor.send(MESSAGES.message(1))
        await engine.asked(1)
        await engine.answer(ack(MESSAGES.message(1), code))
        answer = parse_ack(await vendor.answer())
        assert answer is not None
        assert (answer.code, answer.control_id) == (code, peek(MESSAGES.message(1)).control_id)
        assert await states(service, "a", "legacy") == {State.REFUSED.label: 1}

"""What `show` and the log say that a sender was told is what it was told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from engine.config.address import Address
from engine.config.edge import Ack, AckForm, Directory, Files, Takes
from engine.config.endpoint import Endpoint
from engine.hl7.ack import parse_ack
from engine.observe.intake_events import FrameRefused
from engine.service.service import Service
from engine.service.view import View
from engine.simulate.messages import Messages
from tests.support.house import (
    ORU,
    Peer,
    channel,
    configuration,
    emr,
    fed,
    feed,
    live,
    running,
    served,
    settled,
    until,
    written,
)
from tests.support.scripted import Scripted, ack
from tests.support.wanting import asking

MESSAGES = Messages("oru", seed=131)
THERE = Endpoint("acme-answers", Address("127.0.0.1", 1), connect_timeout=0.2)


async def shown(service: Service, name: str = "acme", seq: int = 1) -> Any:
    await until(lambda: service.ledger.channels[name].seq >= seq)
    await written(service)
    found = await View(service, "0").message(name, seq)
    assert found is not None
    return found["acknowledged"]


@pytest.mark.parametrize(
    ("accept", "application", "options", "said"),
    [
        ("", "", Ack("stored"), "AA"),
        ("AL", "NE", Ack("stored"), "CA"),
        ("AL", "AL", Ack("stored"), "CA, then AA"),
        ("NE", "NE", Ack("stored"), "nothing, as MSH-15 and MSH-16 ask"),
        ("", "", Ack("stored", form=AckForm(codes={"AA": "CA"})), "CA, as the options are now"),
        (
            "AL", "AL", Ack("stored", to=THERE),
            "CA, then AA to 127.0.0.1:1 (whether it was taken there, the log says), as the options are now",
        ),
    ],
)  # fmt: skip
async def test_our_own_answers_are_named_as_they_went_out(
    tmp_path: Path, accept: str, application: str, options: Ack, said: str
):
    async with served(tmp_path, live(ack=options)) as (service, peer):
        peer.send(asking(MESSAGES.message(1), accept, application))
        assert await shown(service) == said


async def test_a_feed_answers_for_its_channels(tmp_path: Path):
    one = feed("lis", "acme", ack=Ack("stored", form=AckForm(codes={"AA": "CA"})), takes=Takes(batch="none"))
    chan = fed("acme", one, destinations=(emr(1),), ack=Ack("stored"), takes=ORU)
    async with running(configuration(tmp_path, chan, feeds=(one,))) as service:
        peer = await Peer.connect(one.source.address.port)
        assert parse_ack(await peer.exchange(MESSAGES.message(1))).code == "CA"
        assert await shown(service) == "CA, as the options are now"
        await peer.close()


async def test_nobody_is_told_of_what_came_as_a_file(tmp_path: Path):
    (tmp_path / "in").mkdir()
    source = Files(Directory(tmp_path / "in"), poll=0.05, stable=0.05)
    async with running(configuration(tmp_path, live(source=source))) as service:
        (tmp_path / "in" / "1.hl7").write_bytes(MESSAGES.message(1))
        assert await shown(service) == "nothing: it came as a file"


async def test_the_old_engines_answer_is_its_own_word(tmp_path: Path):
    async with (
        Scripted(lambda payload: (ack(payload, "CA"),)) as engine,
        served(tmp_path, channel("acme", old_engine=engine.port)) as (service, peer),
    ):
        await peer.exchange(MESSAGES.message(1))
        assert await shown(service) == "CA"


async def test_a_destinations_answer_comes_after_our_accept_acknowledgement(tmp_path: Path):
    async with Scripted() as clinic:
        there = emr(clinic.port)
        chan = live(destinations=(there,), ack=Ack(there.name))
        async with served(tmp_path, chan) as (service, peer):
            peer.send(asking(MESSAGES.message(1), "AL", "AL"))
            assert [parse_ack(await peer.answer()).code for _ in range(2)] == ["CA", "AA"]
            await settled(service, "acme", there.name, 1)
            assert await shown(service) == "CA, then AA"


@pytest.mark.parametrize(
    ("accept", "application", "codes", "said"),
    [
        ("", "", {}, "AR"),
        ("AL", "AL", {}, "CR"),
        ("NE", "NE", {}, "nothing"),
        ("", "", {"AR": "AE"}, "AE"),
    ],
)
async def test_the_log_names_the_code_that_a_refused_sender_sees(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, accept: str, application: str, codes: dict[str, str], said: str
):
    told: list[FrameRefused] = []
    monkeypatch.setattr("engine.intake.port.emit", lambda event: isinstance(event, FrameRefused) and told.append(event))
    options = Ack("stored", form=AckForm(codes=codes))
    async with served(tmp_path, live(ack=options)) as (_, peer):
        peer.send(asking(MESSAGES.message(1), accept, application).replace(b"ORU^R01", b"MDM^T02"))
        await until(lambda: [event.code for event in told] == [said])

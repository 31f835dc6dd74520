"""Peers that answer by a byte outside of any block: an old engine, a real endpoint, and senders that want such answers
of us."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from engine.config.edge import Ack, AckForm, Answers, Framing, Listen
from engine.config.endpoint import Endpoint
from engine.config.model import Destination, Duplicates, Tap
from engine.hl7.ack import parse_ack
from engine.ledger.model import State
from engine.mllp.framing import encode
from engine.service.view import View
from engine.simulate.messages import Messages
from tests.support.fake import crash_image
from tests.support.house import (
    Peer,
    assert_balances,
    channel,
    configuration,
    emr,
    fed,
    feed,
    live,
    old,
    open_work,
    running,
    served,
    settled,
    states,
    until,
    written,
)
from tests.support.ports import free_port
from tests.support.scripted import Scripted, ack, at_first
from tests.support.wanting import asking

MESSAGES = Messages("oru", seed=191)
YES, NO = b"\x06", b"\x15"
BYTES: dict[str, Any] = {"framing": Framing(bare=True), "answers": Answers(mode="original")}
BARE = AckForm(bare=True)


def yes(payload: bytes) -> tuple[bytearray]:
    return (bytearray(YES),)


def no(payload: bytes) -> tuple[bytearray]:
    return (bytearray(NO),)


def there(port: int, **options: Any) -> Endpoint:
    return old(port, **BYTES | options)


def clinic_at(port: int, **options: Any) -> Destination:
    return emr(port, **BYTES | options)


async def heard(peer: Peer, count: int = 1) -> bytes:
    """The next bytes, as they stand on the wire."""
    async with asyncio.timeout(10):
        return await peer.reader.readexactly(count)


async def quiet(peer: Peer, seconds: float = 0.3) -> bool:
    """Whether not a byte comes for so long."""
    try:
        async with asyncio.timeout(seconds):
            return not await peer.reader.read(1)
    except TimeoutError:
        return True


@pytest.mark.parametrize(("said", "state"), [(YES, "delivered"), (NO, "refused")])
async def test_the_old_engines_byte_is_relayed_as_it_came_and_settles_its_message(
    tmp_path: Path, said: bytes, state: str
) -> None:
    async with (
        Scripted(lambda payload: (bytearray(said),)) as engine,
        served(tmp_path, channel("acme", old_engine=there(engine.port))) as (service, peer),
    ):
        for number in range(3):
            peer.send(MESSAGES.message(number))
            assert await heard(peer) == said
        assert await quiet(peer)
        assert await states(service, "acme", "legacy") == {state: 3}
        shown = await View(service, "0").message("acme", 1)
        assert shown is not None
        assert shown["acknowledged"] == f"0x{said.hex()}"
        assert engine.payloads == [MESSAGES.message(number) for number in range(3)]
        assert set(engine.sockets) == {1}


async def test_it_is_awaited_whatever_the_message_asks_for(tmp_path: Path) -> None:
    """A byte that nobody waits for would be taken for the next message's."""
    says = at_first(lambda payload: (0.2, bytearray(YES)), then=no)
    async with (
        Scripted(says) as engine,
        served(tmp_path, channel("acme", old_engine=there(engine.port))) as (service, peer),
    ):
        peer.send(asking(MESSAGES.message(1), "NE", "NE"))
        peer.send(MESSAGES.message(2))
        assert await heard(peer, 2) == YES + NO
        assert await states(service, "acme", "legacy") == {"delivered": 1, "refused": 1}


async def test_two_bytes_for_one_message_are_one_answer(tmp_path: Path) -> None:
    says = at_first(lambda payload: (bytearray(YES + YES),), then=no)
    async with (
        Scripted(says) as engine,
        served(tmp_path, channel("acme", old_engine=there(engine.port))) as (service, peer),
    ):
        peer.send(MESSAGES.message(1))
        assert await heard(peer) == YES
        peer.send(MESSAGES.message(2))
        assert await heard(peer) == NO
        assert await states(service, "acme", "legacy") == {"delivered": 1, "refused": 1}
        assert engine.sockets == [1, 2], "what follows an answer unasked costs the connection"


async def test_a_late_byte_is_nobodys(tmp_path: Path) -> None:
    says = at_first(lambda payload: (0.8, bytearray(NO)), then=yes)
    async with (
        Scripted(says) as engine,
        served(tmp_path, channel("acme", old_engine=there(engine.port, ack_timeout=0.3))) as (service, peer),
    ):
        peer.send(MESSAGES.message(1))
        await settled(service, "acme", "legacy", 1)
        assert await states(service, "acme", "legacy") == {"delivered": 1}, "by the answer to the repeat"
        assert engine.sockets == [1, 2]
        assert await quiet(peer, 1.0)


async def test_without_the_option_bytes_are_noise_as_ever(tmp_path: Path) -> None:
    async with (
        Scripted(yes) as engine,
        served(tmp_path, channel("acme", old_engine=old(engine.port, ack_timeout=0.5))) as (service, peer),
    ):
        peer.send(MESSAGES.message(1))
        await until(lambda: open_work(service, "acme", "legacy") == [State.UNKNOWN])
        assert await quiet(peer)


async def test_an_old_engine_that_answers_so_may_answer_in_a_block_too(tmp_path: Path) -> None:
    async with (
        Scripted() as engine,
        served(tmp_path, channel("acme", old_engine=there(engine.port))) as (_, peer),
    ):
        assert await peer.exchange(MESSAGES.message(1)) == ack(MESSAGES.message(1))


async def test_a_block_that_holds_such_a_byte_is_relayed_as_a_block(tmp_path: Path) -> None:
    async with (
        Scripted(lambda payload: (YES,)) as engine,
        served(tmp_path, channel("acme", old_engine=engine.port)) as (_, peer),
    ):
        peer.send(MESSAGES.message(1))
        assert await heard(peer, 4) == encode(YES)


async def test_a_repeat_gets_the_byte_again_also_over_a_restart(tmp_path: Path) -> None:
    port, image = free_port(), tmp_path / "image"
    async with Scripted(yes) as engine:

        def chan() -> Any:
            return channel("acme", port=port, old_engine=there(engine.port), duplicates=Duplicates())

        async with served(tmp_path, chan()) as (service, peer):
            peer.send(MESSAGES.message(1))
            assert await heard(peer) == YES
            await written(service)
            crash_image(service.ledger.path, image)
        async with served(image, chan()) as (service, peer):
            peer.send(MESSAGES.message(1))
            assert await heard(peer) == YES
            assert await quiet(peer)


async def test_a_feeds_old_engine_may_answer_so(tmp_path: Path) -> None:
    async with Scripted(yes) as engine:
        by = feed("lis", "a", old_engine=there(engine.port))
        async with served(tmp_path, fed("a", by), feeds=(by,)) as (service, lis):
            lis.send(MESSAGES.message(1))
            assert await heard(lis) == YES
            await settled(service, "a", "legacy", 1)


async def test_what_a_tap_forwards_is_answered_by_the_endpoints_byte(tmp_path: Path) -> None:
    async with Scripted(yes) as clinic, Scripted() as engine:
        to = clinic_at(clinic.port)
        assert to.endpoint is not None
        port = free_port()
        legacy = channel("old", old_engine=engine.port, taps=(Tap("clinic", Listen(port, "127.0.0.1"), to.endpoint),))
        async with running(configuration(tmp_path, legacy)):
            output = await Peer.connect(port)
            output.send(MESSAGES.message(1))
            assert await heard(output) == YES
            await output.close()


async def test_what_a_tap_keeps_back_is_answered_as_its_endpoint_would(tmp_path: Path) -> None:
    to = clinic_at(1)
    assert to.endpoint is not None
    port = free_port()
    tap = Tap("clinic", Listen(port, "127.0.0.1"), to.endpoint)
    chan = channel("acme", old_engine=1, phase="live", taps=(tap,), destinations=(to,), rollback="none")
    async with running(configuration(tmp_path, chan)):
        output = await Peer.connect(port)
        output.send(MESSAGES.message(1))
        assert await heard(output) == YES
        await output.close()


# -- a real endpoint


async def test_a_real_endpoints_byte_is_its_answer(tmp_path: Path) -> None:
    async with Scripted(yes) as clinic:
        to = clinic_at(clinic.port)
        async with served(tmp_path, live(destinations=(to,))) as (service, peer):
            await peer.exchange(MESSAGES.message(1))
            await settled(service, "acme", to.name, 1)
            assert await states(service, "acme", to.name) == {"delivered": 1}


async def test_its_no_may_pass(tmp_path: Path) -> None:
    async with Scripted(at_first(no, no, then=yes)) as clinic:
        to = clinic_at(clinic.port)
        async with served(tmp_path, live(destinations=(to,))) as (service, peer):
            await peer.exchange(MESSAGES.message(1))
            await settled(service, "acme", to.name, 1)
            assert clinic.payloads == [MESSAGES.message(1)] * 3
            await assert_balances(service)


@pytest.mark.parametrize(("said", "code"), [(YES, "AA"), (NO, "AE")])
async def test_a_sender_that_waits_for_it_is_told_in_its_own_form(tmp_path: Path, said: bytes, code: str) -> None:
    async with Scripted(lambda payload: (bytearray(said),)) as clinic:
        to = clinic_at(clinic.port)
        async with served(tmp_path, live(destinations=(to,), ack=to.name)) as (_, peer):
            answer = parse_ack(await peer.exchange(MESSAGES.message(1)))
            assert answer is not None
            assert (answer.code, answer.control_id) == (code, MESSAGES.control_id(1))


# -- our own answers


async def test_our_own_answers_may_be_that_byte(tmp_path: Path) -> None:
    async with served(tmp_path, live(ack=Ack("stored", mode="original", form=BARE))) as (service, peer):
        peer.send(MESSAGES.message(1))
        assert await heard(peer) == YES
        peer.send(MESSAGES.message(2).replace(b"ORU^R01", b"ZZZ^Z01"))
        assert await heard(peer) == NO
        peer.send(b"no message")
        assert await heard(peer) == NO
        peer.send(asking(MESSAGES.message(3), "AL", "AL"))
        assert await heard(peer) == YES
        assert await quiet(peer)
        shown = await View(service, "0").message("acme", 1)
        assert shown is not None
        assert shown["acknowledged"] == "0x06, as the options are now"


async def test_the_byte_stands_for_a_destinations_answer_too(tmp_path: Path) -> None:
    """One that is no byte is passed on as it came: there is more in it."""
    async with Scripted(yes) as clinic:
        to = clinic_at(clinic.port)
        how = Ack(to.name, mode="original", form=BARE)
        async with served(tmp_path, live(destinations=(to,), ack=how)) as (_, peer):
            peer.send(MESSAGES.message(1))
            assert await heard(peer) == YES

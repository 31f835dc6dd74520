"""MLLP's release 2 through the running service: what is stored is said on the transport level, before every answer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from engine.compare.tap import MOST_UNANSWERED
from engine.config.address import Address
from engine.config.edge import Ack, Answers, Connect, Framing, Listen
from engine.config.endpoint import Endpoint
from engine.config.feed import Rule
from engine.config.model import Channel, OnLink, Tap
from engine.hl7.ack import parse_ack
from engine.ledger.model import IntakeEvent, Message, State
from engine.ledger.sqlite.committer import Committer
from engine.mllp.framing import encode
from engine.service.service import Service
from engine.simulate.messages import Messages
from tests.support.house import (
    ORU,
    Peer,
    channel,
    configuration,
    emr,
    fed,
    feed,
    kept,
    live,
    old,
    open_work,
    outputs,
    port_of,
    running,
    served,
    settled,
    states,
    to,
    until,
)
from tests.support.ports import free_port
from tests.support.scripted import Scripted, ack

MESSAGES = Messages("oru", seed=61)
TWO = Framing(release=2)
STORED, NOT_STORED = b"\x06", b"\x15"


def message(number: int = 1, accept: bytes = b"", application: bytes = b"") -> bytes:
    """One with MSH-15 and MSH-16."""
    header, _, rest = MESSAGES.message(number).partition(b"\r")
    fields = header.split(b"|") + [b""] * 16
    fields[14], fields[15] = accept, application
    return b"|".join(fields[:18]) + b"\r" + rest


def two(**options: Any) -> Listen:
    """A port that speaks release 2."""
    return Listen(free_port(), "127.0.0.1", framing=TWO, **options)


def named(said: bytes) -> str:
    """What a peer of release 2 hears: a code, or the acknowledgement of the transport."""
    if said in (STORED, NOT_STORED):
        return "stored" if said == STORED else "not stored"
    answer = parse_ack(said)
    return answer.code if answer is not None else "a message"


async def heard(peer: Peer, count: int) -> list[str]:
    """What comes, and that nothing else does."""
    said = [named(await peer.answer()) for _ in range(count)]
    assert await peer.silence()
    return said


def spoil(service: Service, monkeypatch: pytest.MonkeyPatch, what: type[Message | IntakeEvent]) -> None:
    """The ledger takes everything but these."""
    ledger = service.ledger
    store, event = ledger.store, ledger.event

    def spoiled(given: Message) -> None:
        given.control_id = "\ud800"  # no text: SQLite refuses it
        store(given)

    if what is Message:
        monkeypatch.setattr(ledger, "store", spoiled)
    else:
        monkeypatch.setattr(ledger, "event", lambda given: event(replace(given, reason="\ud800")))


@pytest.fixture
def slow_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each transaction takes half a second from its beginning to its commit."""
    real = Committer._commit

    def commit(self: Committer, unput: Any) -> BaseException | None:
        time.sleep(0.5)
        return real(self, unput)

    monkeypatch.setattr(Committer, "_commit", commit)


# -- a sender of release 2


async def test_what_is_stored_is_said_then_the_answer_and_what_the_sender_says_of_that_is_nothing(tmp_path: Path):
    async with served(tmp_path, live(source=two())) as (service, peer):
        for number in (1, 2):
            peer.send(message(number))
            assert await heard(peer, 2) == ["stored", "AA"]
            peer.send((STORED, NOT_STORED)[number % 2])
        peer.send(message(3))
        assert await heard(peer, 2) == ["stored", "AA"]
        assert service.ledger.channels["acme"].seq == 3
        assert await kept(service, "kind") == []


async def test_it_is_not_said_before_it_is_true(tmp_path: Path, slow_disk: None):
    async with served(tmp_path, live(source=two())) as (_, peer):
        peer.send(message())
        assert await peer.silence(0.3)
        assert await heard(peer, 2) == ["stored", "AA"]


async def test_it_is_said_before_the_old_engine_has_answered(tmp_path: Path):
    async with (
        Scripted(lambda payload: (0.5, ack(payload))) as engine,
        served(tmp_path, channel("acme", source=two(), old_engine=engine.port)) as (service, peer),
    ):
        peer.send(message())
        assert await heard(peer, 1) == ["stored"]
        assert await peer.answer() == ack(message())
        await settled(service, "acme", "legacy", 1)


@pytest.mark.parametrize(
    ("accept", "application", "said"),
    [(b"AL", b"AL", ["stored", "CA", "AA"]), (b"NE", b"NE", ["stored"]), (b"AL", b"NE", ["stored", "CA"])],
)
async def test_it_is_said_whatever_answer_is_wanted(tmp_path: Path, accept: bytes, application: bytes, said: list[str]):
    async with served(tmp_path, live(source=two())) as (_, peer):
        peer.send(message(1, accept, application))
        assert await heard(peer, len(said)) == said


async def test_of_a_frame_with_several_copies_it_is_said_once(tmp_path: Path):
    by = feed("lis", "east", "west", rules=(Rule((("MSH-9", ("ORU^R01",)),), ("east", "west")),))
    by = replace(by, source=two())
    channels = [fed(name, by, destinations=(emr(1),), takes=ORU) for name in by.channels]
    async with served(tmp_path, *channels, feeds=(by,)) as (service, peer):
        peer.send(message())
        assert await heard(peer, 2) == ["stored", "AA"]
        assert [book.seq for book in service.ledger.channels.values()] == [1, 1]


async def test_a_frame_that_is_refused_is_stored_all_the_same(tmp_path: Path):
    async with served(tmp_path, live(source=two())) as (service, peer):
        peer.send(message().replace(b"ORU^R01", b"MDM^T02"))
        assert await heard(peer, 2) == ["stored", "AR"]
        assert await kept(service, "kind") == [("refused",)]


@pytest.mark.parametrize("what", [Message, IntakeEvent])
async def test_what_could_not_be_stored_alone_is_said_so_and_gets_no_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: type[Message | IntakeEvent]
):
    """The sender repeats it, and would take an answer for the repetition's."""
    sent = message() if what is Message else message().replace(b"ORU^R01", b"MDM^T02")
    async with served(tmp_path, live(source=two())) as (service, peer):
        with monkeypatch.context() as patch:
            spoil(service, patch, what)
            peer.send(sent)
            assert await heard(peer, 1) == ["not stored"]
        peer.send(sent)
        assert (await heard(peer, 2))[0] == "stored"


async def test_a_sender_that_does_not_wait_hears_of_its_messages_in_their_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    async with served(tmp_path, live(source=two())) as (service, peer):
        store = service.ledger.store

        def spoiled(given: Message) -> None:
            given.control_id = "\ud800" if given.control_id == MESSAGES.control_id(2) else given.control_id
            store(given)

        monkeypatch.setattr(service.ledger, "store", spoiled)
        peer.writer.write(b"".join(encode(each) for each in (message(1), message(2), ack(message(9)), message(3))))
        said = [named(await peer.answer()) for _ in range(6)]
        assert [each for each in said if each != "AA"] == ["stored", "not stored", "stored", "stored"]
        assert await peer.silence()
        assert service.ledger.channels["acme"].seq == 2


@pytest.mark.parametrize("trigger", [b"ORU^R01", b"MDM^T02"])
async def test_while_the_ledger_cannot_be_written_nothing_is_said(tmp_path: Path, trigger: bytes):
    async with served(tmp_path, live(source=two())) as (service, peer):
        connection = service.ledger._writer._connection
        connection.execute("pragma query_only = on")
        peer.send(message().replace(b"ORU^R01", trigger))
        await until(lambda: service.ledger.unwritable is not None)
        assert await peer.silence(0.5)
        connection.execute("pragma query_only = off")
        await until(lambda: service.ledger.unwritable is None)
        peer.send(message())
        assert await heard(peer, 2) == ["stored", "AA"]


async def test_a_frame_over_the_limit_is_not_stored(tmp_path: Path):
    async with served(tmp_path, live(source=two(), max_bytes=10_000)) as (_, peer):
        peer.send(message() + b"x" * 20_000)
        assert [named(await peer.answer()) for _ in range(2)] == ["not stored", "AR"]


async def test_an_acknowledgement_that_nobody_waits_for_is_acknowledged_on_the_transport_level_alone(tmp_path: Path):
    async with served(tmp_path, live(source=two())) as (service, peer):
        peer.send(ack(message()))
        assert await heard(peer, 1) == ["stored"]
        assert await kept(service, "kind") == [("stray_acknowledgement",)]


async def test_a_sender_that_we_connect_to(tmp_path: Path):
    async with Scripted(lambda payload: ()) as sender:
        source = Connect(Address("127.0.0.1", sender.port), framing=TWO)
        async with running(configuration(tmp_path, live(source=source))) as service:
            await until(lambda: sender.connected == 1)
            (socket,) = sender._listener._sockets
            socket.write(b"\x0b" + message() + b"\x1c\r")
            await until(lambda: len(sender.payloads) == 2)
            assert [named(each) for each in sender.payloads] == ["stored", "AA"]
            assert service.ledger.channels["acme"].seq == 1


# -- an endpoint of release 2


def says(*said: Callable[[bytes], Any] | bytes) -> Callable[[bytes], Any]:
    """To each message the next of these; to an acknowledgement of the transport nothing."""
    left = iter(said)

    def answer(payload: bytes) -> Any:
        if payload in (STORED, NOT_STORED):
            return ()
        given = next(left)
        return (given,) if isinstance(given, bytes) else given(payload)

    return answer


def taken(payload: bytes) -> tuple[bytes, bytes]:
    return STORED, ack(payload)


@pytest.mark.parametrize("release", [1, 2])
async def test_the_old_engine_may_speak_either_release(tmp_path: Path, release: int):
    answers = taken if release == 2 else (lambda payload: (ack(payload),))
    async with Scripted(says(*[answers] * 3)) as engine:
        chan = channel("acme", old_engine=old(engine.port, framing=TWO))
        async with served(tmp_path, chan) as (service, peer):
            for number in range(1, 4):
                assert await peer.exchange(message(number)) == ack(message(number))
            await settled(service, "acme", "legacy", 3)
            await until(lambda: len(engine.payloads) == 6)
            assert engine.payloads == [each for n in range(1, 4) for each in (message(n), STORED)]
            assert set(engine.sockets) == {1}
            assert await states(service, "acme", "legacy") == {"delivered": 3}


async def test_what_the_endpoint_could_not_store_is_tried_again_on_the_same_connection(tmp_path: Path):
    async with (
        Scripted(says(NOT_STORED, NOT_STORED, taken)) as clinic,
        served(tmp_path, live(destinations=(emr(clinic.port, framing=TWO),))) as (service, peer),
    ):
        assert named(await peer.exchange(message())) == "AA"
        await settled(service, "acme", f"emr-{clinic.port}", 1)
        assert clinic.payloads[:3] == [message()] * 3
        assert set(clinic.sockets) == {1}


async def test_while_it_is_stored_and_not_answered_it_may_have_been_taken(tmp_path: Path):
    async with Scripted(says(STORED)) as clinic:
        there = emr(clinic.port, "park", framing=TWO, ack_timeout=0.3)
        async with served(tmp_path, live(destinations=(there,))) as (service, peer):
            assert named(await peer.exchange(message())) == "AA"
            await until(lambda: open_work(service, "acme", there.name) == [State.PARKED])


async def test_an_endpoint_that_only_stores(tmp_path: Path):
    async with Scripted(says(NOT_STORED, STORED)) as clinic:
        there = emr(clinic.port, framing=TWO, answers=Answers(expected=False))
        async with served(tmp_path, live(destinations=(there,))) as (service, peer):
            assert named(await peer.exchange(message())) == "AA"
            await settled(service, "acme", there.name, 1)
            assert clinic.payloads == [message()] * 2


async def test_the_answer_comes_on_another_connection_and_is_acknowledged_there(tmp_path: Path):
    at = free_port()
    async with Scripted(says(STORED)) as engine:
        answers = Answers(listen=Listen(at, "127.0.0.1"))
        chan = channel("acme", old_engine=old(engine.port, framing=TWO, answers=answers))
        async with served(tmp_path, chan) as (_, peer):
            peer.send(message())
            await until(lambda: len(engine.payloads) == 1)
            answering = await Peer.connect(at)
            answering.send(ack(message()))
            assert await heard(answering, 1) == ["stored"]
            assert await peer.answer() == ack(message())
            assert engine.payloads == [message()], "nothing is said where nothing came"
            await answering.close()


async def test_our_answers_on_a_connection_of_their_own(tmp_path: Path):
    async with Scripted(says(STORED)) as second:
        there = Endpoint("second", Address("127.0.0.1", second.port), framing=TWO)
        async with served(tmp_path, live(source=two(), ack=Ack("stored", to=there))) as (_, peer):
            peer.send(message())
            assert await heard(peer, 1) == ["stored"]
            await until(lambda: len(second.payloads) == 1)
            assert named(second.payloads[0]) == "AA"


async def test_what_goes_back_on_the_connection_of_a_sender(tmp_path: Path):
    orders = channel("orders", source=two(), destinations=(emr(1),))
    back = to(Endpoint("vendor", None, via="orders", ack_timeout=5.0, on_unknown="resend"))
    async with served(tmp_path, live("results", destinations=(back,)), orders) as (service, lab):
        vendor = await Peer.connect(port_of(orders))
        vendor.send(message(9))
        assert await heard(vendor, 2) == ["stored", "AA"]
        vendor.send(STORED)  # our answer
        assert named(await lab.exchange(message(1))) == "AA"
        assert await vendor.answer() == message(1)
        vendor.send(NOT_STORED)
        assert await vendor.answer() == message(1), "again, on the same connection"
        vendor.send(STORED)
        vendor.send(ack(message(1)))
        assert await heard(vendor, 1) == ["stored"], "of the vendor's answer"
        await settled(service, "results", "vendor", 1)
        assert await kept(service, "kind") == []
        await vendor.close()


# -- taps


def tapped(engine: int, source: Any, forward: Endpoint, **options: Any) -> Channel:
    return channel("acme", old_engine=engine, taps=(Tap("clinic", source, forward, settle=0.2),), **options)


async def test_at_a_tap_it_is_said_when_the_endpoint_has_answered(tmp_path: Path):
    async with Scripted() as engine, Scripted(lambda payload: (0.4, ack(payload))) as clinic:
        source = two()
        chan = tapped(engine.port, source, Endpoint("clinic", Address("127.0.0.1", clinic.port)))
        async with running(configuration(tmp_path, chan)):
            output = await Peer.connect(source.port)
            output.send(message())
            assert await output.silence(0.2)
            assert await heard(output, 2) == ["stored", "AA"]
            output.send(STORED)
            output.send(message(2))
            assert await heard(output, 2) == ["stored", "AA"]
            await output.close()
        assert [decision for decision, _ in outputs(tmp_path)] == ["forwarded"] * 2


async def test_at_a_tap_whose_endpoint_does_not_answer_it_is_said_when_it_is_there(tmp_path: Path):
    async with Scripted() as engine, Scripted(lambda payload: ()) as clinic:
        source, there = two(), Address("127.0.0.1", clinic.port)
        chan = tapped(engine.port, source, Endpoint("clinic", there, answers=Answers(expected=False)))
        async with running(configuration(tmp_path, chan)):
            output = await Peer.connect(source.port)
            for number in range(MOST_UNANSWERED + 2):
                output.send(message(number))
                assert named(await output.answer()) == "stored"
            assert await output.silence()
            await output.close()


async def test_at_a_tap_whose_endpoint_is_not_there_nothing_is_said(tmp_path: Path):
    async with Scripted() as engine:
        source = two()
        chan = tapped(engine.port, source, Endpoint("clinic", Address("127.0.0.1", free_port())))
        async with running(configuration(tmp_path, chan)):
            output = await Peer.connect(source.port)
            output.send(message())
            assert await output.closed()
            await output.close()


async def test_what_is_kept_for_a_person_at_a_tap_is_stored(tmp_path: Path, slow_disk: None):
    async with Scripted() as engine:
        source = two()
        forward = Endpoint("clinic", Address("127.0.0.1", free_port()), on_unknown="resend")
        chan = tapped(engine.port, source, forward, phase="live", destinations=(to(forward),))
        async with running(configuration(tmp_path, chan)):
            output = await Peer.connect(source.port)
            output.send(message())
            assert await output.silence(0.3)
            assert await heard(output, 2) == ["stored", "AA"]
            await output.close()
        assert outputs(tmp_path) == [("parked", None)]


async def test_an_output_on_our_own_connection_is_stored_when_its_endpoint_has_answered(tmp_path: Path):
    """An acknowledgement of the old engine's is heard at once; its own message waits for the clinic."""
    other = message(7).replace(b"ORU^R01", b"ORU^R03")

    def both(payload: bytes) -> tuple[bytes, ...]:
        return STORED, ack(payload), other

    async with Scripted(says(both, lambda payload: ())) as engine, Scripted() as clinic:
        forward = Endpoint("clinic", Address("127.0.0.1", clinic.port))
        clinic.says = lambda payload: (0.5, ack(payload))
        chan = tapped(old(engine.port, framing=TWO), OnLink(), forward)  # type: ignore[arg-type]
        async with served(tmp_path, chan) as (_, peer):
            assert await peer.exchange(message()) == ack(message())
            await until(lambda: len(clinic.payloads) == 1)
            await asyncio.sleep(0.1)
            assert engine.payloads[1:] == [STORED], "of its acknowledgement"
            await until(lambda: len(engine.payloads) == 4)
            assert engine.payloads[2:] == [STORED, ack(other)]
